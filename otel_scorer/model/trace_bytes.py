"""
A trace as encoded OTLP requests, and back: the form in which it is stored.

A trace that came over OTLP keeps the very bytes of its spans; any other is encoded anew, with all that its views show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage

from otel_scorer.model.decode import attach_logs, encode_attributes, logs_from_request, spans_from_raw
from otel_scorer.model.facts import SpanKind, SpanStatusCode
from otel_scorer.model.otlp_attributes import utf8_text
from otel_scorer.model.otlp_span import OtlpSpan
from otel_scorer.model.splicing import join_in_order, join_spans
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import LOCAL_ROOT_FLAGS, RawSpan, read_traces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_scorer.model.feedback import Expectation, Feedback
    from otel_scorer.model.reader import Reader
    from otel_scorer.model.trace import Span

__all__ = ["logs_as_bytes", "spans_as_bytes", "spans_as_they_came", "trace_from_bytes"]

_KINDS: Final = {kind: SpanMessage.SpanKind.Value(f"SPAN_KIND_{kind}") for kind in SpanKind}
_STATUS_CODES: Final = {code: StatusMessage.StatusCode.Value(f"STATUS_CODE_{code}") for code in SpanStatusCode}


def spans_as_bytes(trace: Trace) -> bytes:
    """Return all spans of a trace, placeholders and own ones included, as one encoded ExportTraceServiceRequest."""
    spans = [*trace.spans, *trace.placeholders, *trace.own_spans]
    raw = [span.raw for span in spans if isinstance(span, OtlpSpan) and span.raw is not None]
    if len(raw) == len(spans):
        return join_spans(raw)
    return join_spans(each for span in spans for each in _raw(span))


def spans_as_they_came(trace: Trace) -> tuple[bytes, bytes]:
    """Return the spans of a trace, in the order in which they came, and the log records, each as an encoded request."""
    spans = trace.arrived
    return join_in_order(each for span in spans for each in _raw(span)), _logs_as_bytes(spans)


def logs_as_bytes(trace: Trace) -> bytes:
    """Return the log records about a trace's spans as one encoded ExportLogsServiceRequest; empty if there are none."""
    return _logs_as_bytes(trace.spans)


def _logs_as_bytes(all_spans: Iterable[Span]) -> bytes:
    spans = [span for span in all_spans if span.logs]
    if not spans:
        return b""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for span in spans:
        for record in span.logs:
            message = records.add(
                trace_id=bytes.fromhex(span.trace_id),
                span_id=bytes.fromhex(span.span_id),
                event_name=utf8_text(record.event_name),
                time_unix_nano=record.timestamp,
            )
            encode_attributes(message.attributes, record.attributes)
            _encode_body(message, record.body)
    return request.SerializeToString(deterministic=True)


def trace_from_bytes(
    spans: bytes,
    logs: bytes,
    reader: Reader,
    *,
    close_reason: str | None = None,
    is_complete: bool | None = None,
    revision: int = 1,
    assessments: Iterable[Feedback | Expectation] = (),
    tags: Mapping[str, str] | None = None,
) -> Trace:
    """
    Build a trace from encoded requests.

    Args:
        spans: An ExportTraceServiceRequest.
        logs: An ExportLogsServiceRequest, or nothing.
        reader: Tells what attributes mean.
        close_reason: See `Trace`.
        is_complete: See `Trace`.
        revision: See `Trace`.
        assessments: See `Trace`.
        tags: What it is tagged with beside what its spans say.

    Raises:
        InvalidRequestError: The spans cannot be read.
    """
    views = spans_from_raw(read_traces(spans).spans)
    if logs:
        attach_logs(views, logs_from_request(logs))
    return Trace(
        views,
        reader,
        close_reason=close_reason,
        is_complete=is_complete,
        revision=revision,
        assessments=assessments,
        tags=tags,
    )


def _raw(span: Span) -> list[RawSpan]:
    if isinstance(span, OtlpSpan) and span.raw is not None:
        return [span.raw]
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    encode_attributes(resource_spans.resource.attributes, span.resource)
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name, scope_spans.scope.version = utf8_text(span.scope.name), utf8_text(span.scope.version)
    encode_attributes(scope_spans.scope.attributes, span.scope.attributes)
    message = scope_spans.spans.add(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id or ""),
        name=utf8_text(span.name),
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time_ns,
        end_time_unix_nano=span.end_time_ns,
        flags=LOCAL_ROOT_FLAGS if span.is_local_root else 0,
    )
    encode_attributes(message.attributes, span.attributes)
    for event in span.events:
        added = message.events.add(name=utf8_text(event.name), time_unix_nano=event.timestamp)
        encode_attributes(added.attributes, event.attributes)
    for link in span.links:
        linked = message.links.add(trace_id=bytes.fromhex(link.trace_id), span_id=bytes.fromhex(link.span_id))
        encode_attributes(linked.attributes, link.attributes)
    message.status.code = _STATUS_CODES[span.status.otel_status_code]
    message.status.message = utf8_text(span.status.description or "")
    return read_traces(request.SerializeToString(deterministic=True)).spans


def _encode_body(message: Any, body: object) -> None:
    """Write the body of a record: one value, encoded as if it were the attribute of another record."""
    if body is not None:
        holder = type(message)()
        encode_attributes(holder.attributes, {"body": body})
        message.body.CopyFrom(holder.attributes[0].value)
