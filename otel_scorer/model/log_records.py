"""
Log records about spans: message content and evaluation results come that way too.

Two steps, as for spans: `read_logs` cuts out of a request what belongs to spans, as bytes; `logs_from_raw` and
`logs_from_request` decode it, and `attach_logs` puts it where dialects look for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogRecordMessage

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.facts import LogRecord
from otel_scorer.model.otlp_attributes import Attributes, decode_value
from otel_scorer.model.splicing import join_encoded
from otel_scorer.model.wire import ScopeRef, cut_request, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    from otel_scorer.model.span import Span

__all__ = ["RECORD_OVERHEAD", "RawLog", "attach_logs", "join_logs", "logs_from_raw", "logs_from_request", "read_logs"]

RECORD_OVERHEAD: Final = 300
"""Bytes that a buffered record costs beside its data: the RawLog, its two ids, its place in the buffer."""

# How a trace id and a span id begin in an encoded LogRecord (fields 9 and 10 of logs.proto, 16 and 8 bytes).
_TRACE_ID: Final = b"\x4a\x10"
_SPAN_ID: Final = b"\x52\x08"
_EVENT_NAME: Final = "event.name"
# What the conventions name a model call by "when span id is not available".
_RESPONSE_ID: Final = "gen_ai.response.id"
_TRACE_ID_SIZE: Final = 16
_SPAN_ID_SIZE: Final = 8

Found = dict[tuple[str, str], list[LogRecord]]
"""Events by trace id and span id, both lower-case hex; the span id is empty where only the response is named."""


class RawLog(NamedTuple):
    """
    A log record about a span: its bytes, and the span that it belongs to.

    Attributes:
        data: The encoded `opentelemetry.proto.logs.v1.LogRecord`, unknown fields included.
        trace_id: 16 bytes.
        span_id: 8 bytes, or none if the record names the model's response instead.
    """

    data: bytes
    trace_id: bytes
    span_id: bytes

    @property
    def size(self) -> int:
        """Bytes of memory that this record is worth while buffered."""
        return len(self.data) + RECORD_OVERHEAD


def read_logs(data: bytes) -> list[RawLog]:
    """
    Return the events in an encoded ExportLogsServiceRequest that belong to spans.

    Records without a span or without an event name are left out: they are lines of a log, nothing reads them. In place
    of the span they may name the model's response (`gen_ai.response.id`). A request that has no ids anywhere costs a
    few searches for a few bytes and nothing else.

    Raises:
        InvalidRequestError: It is no such request.
    """
    if _TRACE_ID not in data or (_SPAN_ID not in data and _RESPONSE_ID.encode() not in data):
        return []
    try:
        items = (item for _, scope_items in cut_request(data) for item in scope_items)
        return list(filter(None, map(_read_log, items)))
    except DecodeError as error:
        raise InvalidRequestError(f"Not an OTLP logs request: {error}") from error


def _read_log(data: bytes) -> RawLog | None:
    """Return a record if it is an event about a span; its attributes are looked at only where that may depend on it."""
    if _TRACE_ID not in data:
        return None
    record = read_record(data)
    if len(record.trace_id) != _TRACE_ID_SIZE or len(record.span_id) not in {0, _SPAN_ID_SIZE}:
        return None
    keys = [*([] if record.span_id else [_RESPONSE_ID]), *([] if record.event_name else [_EVENT_NAME])]
    if not all(key.encode() in data for key in keys):
        return None
    if keys:
        message = LogRecordMessage.FromString(data)
        if not record.span_id and not _response_id(message.attributes):
            return None
        if not _event_name(message, Attributes.of(message.attributes)):
            return None
    return RawLog(data, record.trace_id, record.span_id)


def join_logs(records: Iterable[RawLog]) -> bytes:
    """Return an encoded ExportLogsServiceRequest with the records in order, under an empty resource and scope."""
    items = [record.data for record in records]
    return join_encoded({ScopeRef.of(b"", b""): items}) if items else b""


def logs_from_raw(records: Iterable[RawLog]) -> Found:
    """Decode records."""
    return _found(LogRecordMessage.FromString(record.data) for record in records)


def logs_from_request(data: bytes) -> Found:
    """
    Return the events of an encoded ExportLogsServiceRequest.

    Log records without a span or without an event name are left out, as by `read_logs`.

    Raises:
        google.protobuf.message.DecodeError: It is no such request.
    """
    return _found(_records(ExportLogsServiceRequest.FromString(data)))


def attach_logs(spans: Iterable[Span], found: Mapping[tuple[str, str], Sequence[LogRecord]]) -> None:
    """
    Give each span the records about it, in the order of their times.

    Those that name a response instead of a span go to the last span to start that reports it: agents and frameworks
    copy the id of the model call that they are around.
    """
    if not found:
        return
    spans = list(spans)
    about = {id(span): list(found.get((span.trace_id, span.span_id), ())) for span in spans}
    for (trace_id, span_id), records in found.items():
        if not span_id:
            answers = {
                response: span
                for span in sorted(spans, key=lambda span: span.start_time_ns)
                if span.trace_id == trace_id and isinstance(response := span.attributes.get(_RESPONSE_ID), str)
            }
            for record in records:
                if (answer := answers.get(str(record.attributes[_RESPONSE_ID]))) is not None:
                    about[id(answer)].append(record)
    for span in spans:
        if records := about[id(span)]:
            span.logs = tuple(sorted(records, key=lambda record: record.timestamp))


def _records(request: ExportLogsServiceRequest) -> Iterator[LogRecordMessage]:
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            yield from scope_logs.log_records


def _found(records: Iterable[LogRecordMessage]) -> Found:
    found: Found = {}
    for record in records:
        attributes = Attributes.of(record.attributes)
        name = _event_name(record, attributes)
        if name and (record.span_id or _response_id(record.attributes)):
            timestamp = record.time_unix_nano or record.observed_time_unix_nano
            event = LogRecord(name, decode_value(record.body), attributes, timestamp)
            found.setdefault((record.trace_id.hex(), record.span_id.hex()), []).append(event)
    return found


def _response_id(attributes: Iterable[KeyValue]) -> bool:
    """Tell whether a record names a response."""
    return any(pair.key == _RESPONSE_ID and pair.value.string_value for pair in attributes)


def _event_name(record: LogRecordMessage, attributes: Attributes) -> str:
    name = record.event_name or attributes.get(_EVENT_NAME)
    return name if isinstance(name, str) else ""
