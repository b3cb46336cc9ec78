"""
OTLP requests as bytes: slice spans out of a request, splice them into new ones, append to a span.

With `encoding` and `request_limits` the only module that knows the protobuf wire format. Nothing here walks bytes in
Python: requests are validated by the protobuf runtime, and a second, smaller message type, which declares spans as
plain bytes, makes the same runtime do the slicing (see `message_types`). So any field order, repeated fields and
unknown fields come out exactly as they came in.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakValueDictionary

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans as ScopeSpansMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.encoding import fixed32_field
from otel_scorer.model.facts import OWN_SCOPE
from otel_scorer.model.message_types import checking_type, slicing_type
from otel_scorer.model.request_limits import check_size, parts_allowed, too_many_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "SPAN_OVERHEAD",
    "RawSpan",
    "ScopeRef",
    "Signal",
    "TraceRequest",
    "check_request",
    "count_items",
    "cut_request",
    "read_record",
    "read_span",
    "read_traces",
]

_NO_TRACE_ID: Final = bytes(16)
_NO_SPAN_ID: Final = bytes(8)
# How a span usually begins: tag and length of its trace id (field 1 of Span), its id (2), and, but for a root, its
# parent's (4).
_TRACE_ID_FIRST: Final = b"\x0a\x10"
_SPAN_ID_NEXT: Final = b"\x12\x08"
_SPAN_ID_AT: Final = 18
_PARENT_ID_NEXT: Final = b"\x22\x08"
_PARENT_ID_AT: Final = 28
LOCAL_ROOT_FLAGS: Final = 0x300
"""SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK and SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK (trace.proto)."""
SPAN_OVERHEAD: Final = 400
"""Bytes that a buffered span costs beside its data: the RawSpan, its two or three ids, its place in the buffer."""


class Signal(StrEnum):
    """The three kinds of OTLP request."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


_Slices: Final = slicing_type()
_COLUMNS: Final = frozenset({"trace_id", "span_id", "parent_span_id", "flags"})
_CHECK: Final[dict[Signal, Callable[[bytes], Any]]] = {
    Signal.TRACES: checking_type(ExportTraceServiceRequest, columns=_COLUMNS).FromString,
    Signal.LOGS: checking_type(ExportLogsServiceRequest).FromString,
    Signal.METRICS: checking_type(ExportMetricsServiceRequest).FromString,
}
_CHECK_TRACES: Final[Callable[[bytes], Any]] = checking_type(ExportTraceServiceRequest).FromString
read_record: Final[Callable[[bytes], Any]] = checking_type(LogRecord).FromString
"""Parse a log record for its fields; of its attributes nothing is made."""
read_span: Final[Callable[[bytes], Any]] = checking_type(SpanMessage).FromString
"""Parse a span for its fields; nothing is made of what it has lists of, however long they are."""


class ScopeRef:
    """
    What a span needs of its request to be sent on its own: its resource and its scope, as encoded there.

    Attributes:
        resource: The ResourceSpans fields other than scope_spans (resource, schema_url, unknown ones), encoded.
        scope: The ScopeSpans fields other than spans (scope, schema_url, unknown ones), encoded.
        is_own: Whether the scope is otel_scorer's own: such spans are forwarded and never scored.
    """

    __slots__ = ("__weakref__", "is_own", "resource", "scope")

    def __init__(self, resource: bytes, scope: bytes) -> None:
        self.resource = resource
        self.scope = scope
        self.is_own = OWN_SCOPE.encode() in scope and ScopeSpansMessage.FromString(scope).scope.name == OWN_SCOPE

    @classmethod
    def of(cls, resource: bytes, scope: bytes) -> ScopeRef:
        """Return the one reference for these bytes: all buffered spans share it, and it goes with the last of them."""
        ref = _scopes.get((resource, scope))
        if ref is None:
            ref = _scopes[resource, scope] = cls(resource, scope)
        return ref


_scopes: WeakValueDictionary[tuple[bytes, bytes], ScopeRef] = WeakValueDictionary()


class RawSpan(NamedTuple):
    """
    One span as it was received: its bytes, what assembling needs to know of them, and where it came from.

    A tuple, because that is what can be made of columns without a Python call for each span.

    Attributes:
        data: The encoded `opentelemetry.proto.trace.v1.Span`, untouched.
        scope: Resource and scope it was sent under.
        trace_id: 16 bytes, not all zero.
        span_id: 8 bytes, not all zero.
        parent_id: 8 bytes, or None for a root.
        is_local_root: Whether the parent is known to be in another process (`SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`).
    """

    data: bytes
    scope: ScopeRef
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    is_local_root: bool

    @property
    def kind(self) -> int:
        """SpanKind number, part of a span's identity: a client and a server span may share an id. Read when asked."""
        kind: int = read_span(self.data).kind
        return kind

    @property
    def is_own(self) -> bool:
        """Whether otel_scorer itself made the span."""
        return self.scope.is_own

    @property
    def size(self) -> int:
        """Bytes of memory that this span is worth while buffered."""
        return len(self.data) + SPAN_OVERHEAD


# `RawSpan._make` would be a call of Python for each span.
_raw_span: Final[Callable[[Iterable[Any]], RawSpan]] = partial(tuple[Any, ...].__new__, RawSpan)
_NOT_LOCAL_ROOTS: Final = repeat(False)  # noqa: FBT003 - as many as there are spans


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """The usable spans of a request, and how many others there were and why."""

    spans: list[RawSpan]
    rejected: int = 0
    message: str = ""


def read_traces(data: bytes) -> TraceRequest:
    """
    Validate an encoded ExportTraceServiceRequest and slice its spans.

    Spans with an invalid id (OTLP trace.proto: 16 and 8 bytes, not all zero) are left out and counted.

    Raises:
        InvalidRequestError: It is no such request, or has spans but not one usable.
        TooManyPartsError: It is made of more messages than anything can be in.
    """
    check_size(data)
    checked = _check(Signal.TRACES, data)
    scopes = list(cut_request(data, parts_allowed(len(data))))
    spans = None if checked is None else _read_usual(scopes, checked.resource_spans.scope_spans.spans)
    return _read_any(data, scopes) if spans is None else TraceRequest(spans)


def _read_usual(scopes: Sequence[tuple[ScopeRef, list[bytes]]], checked: Any) -> list[RawSpan] | None:
    """
    Read spans as every known encoder writes them: fields in the order of their numbers, without a trace state.

    Column by column: that is the hot path. Every span has its ids where they are expected, and the request has no more
    of them than that, so the first of those that were collected are of the first span, and so on.

    Args:
        scopes: The encoded spans of each scope.
        checked: What was collected of all spans (see `checking_type`).

    Returns:
        The spans; None if one of them is written in another way, or has an unusable id.
    """
    items = [item for _, scope_items in scopes for item in scope_items]
    if not all(map(bytes.startswith, items, repeat(_TRACE_ID_FIRST))):
        return None
    if not all(map(bytes.startswith, items, repeat(_SPAN_ID_NEXT), repeat(_SPAN_ID_AT))):
        return None
    has_parent = list(map(bytes.startswith, items, repeat(_PARENT_ID_NEXT), repeat(_PARENT_ID_AT)))
    if not len(checked.trace_id) == len(checked.span_id) == len(items):
        return None
    if len(checked.parent_span_id) != sum(has_parent):
        return None
    trace_ids, span_ids, parent_ids = list(checked.trace_id), list(checked.span_id), list(checked.parent_span_id)
    if _NO_TRACE_ID in trace_ids or _NO_SPAN_ID in span_ids or _NO_SPAN_ID in parent_ids:
        return None
    parents = iter(parent_ids)
    parent_of = [next(parents) if has else None for has in has_parent]
    scope_of = chain.from_iterable(repeat(scope, len(scope_items)) for scope, scope_items in scopes)
    spans = list(map(_raw_span, zip(items, scope_of, trace_ids, span_ids, parent_of, _NOT_LOCAL_ROOTS, strict=False)))
    local_root_flags = [flags for flags in set(checked.flags) if flags & LOCAL_ROOT_FLAGS == LOCAL_ROOT_FLAGS]
    return _mark_local_roots(spans, local_root_flags) if local_root_flags else spans


def _mark_local_roots(spans: Iterable[RawSpan], flags: Iterable[int]) -> list[RawSpan]:
    # No local root is without one of these, so few other spans are parsed.
    signs = [fixed32_field(16, each) for each in flags]
    return [
        span._replace(is_local_root=_has_remote_parent(read_span(span.data)))
        if any(sign in span.data for sign in signs)
        else span
        for span in spans
    ]


def _has_remote_parent(span: Any) -> bool:
    flags: int = span.flags
    return flags & LOCAL_ROOT_FLAGS == LOCAL_ROOT_FLAGS


def _read_any(data: bytes, scopes: Sequence[tuple[ScopeRef, list[bytes]]]) -> TraceRequest:
    """Read spans however they are written, and leave out those with an unusable id."""
    usable: list[RawSpan] = []
    rejected = 0
    reason = ""
    for scope, items in scopes:
        for item in items:
            span = read_span(item)
            why = _why_invalid(span.trace_id, span.span_id, span.parent_span_id)
            if why:
                rejected += 1
                reason = why
                continue
            parent_id = span.parent_span_id if any(span.parent_span_id) else None
            usable.append(RawSpan(item, scope, span.trace_id, span.span_id, parent_id, _has_remote_parent(span)))
    return TraceRequest(usable, rejected, _rejection(data, rejected, reason, usable=bool(usable)))


def cut_request(data: bytes, most: int = sys.maxsize) -> Iterator[tuple[ScopeRef, list[bytes]]]:
    """
    Give the encoded items of each scope of a request, whatever the signal: all three have the same shape.

    Raises:
        TooManyPartsError: It has more than `most` resources and scopes, or items.
    """
    seen = 0
    for resource_slices in _resources_of(data, most):
        scopes: list[tuple[bytes, list[bytes]]] = []
        # One after the other: what protobuf keeps of objects that are alive together takes longer the more there are.
        for slices in resource_slices.scopes:
            items = list(slices.items)
            seen += len(items)
            if seen > most:
                raise too_many_parts(len(data))
            slices.ClearField("items")
            scopes.append((slices.SerializeToString(), items))
        resource_slices.ClearField("scopes")
        resource = resource_slices.SerializeToString()
        for scope, items in scopes:
            yield ScopeRef.of(resource, scope), items


def _resources_of(data: bytes, most: int) -> Iterator[Any]:
    """Give the slices of each resource, unless there are more than `most` resources and scopes."""
    resources = _Slices.FromString(data).resources
    containers = len(resources)
    for resource_slices in resources:
        containers += len(resource_slices.scopes)
        if containers > most:
            raise too_many_parts(len(data))
        yield resource_slices


def check_request(signal: Signal, data: bytes) -> int:
    """
    Validate a request that is only passed through and return how many spans, records or metrics it holds.

    Ids are looked at over all spans at once: that each is there and valid, not which span it belongs to.

    Raises:
        InvalidRequestError: It is no request of this signal, or one of its spans has an invalid id: then `read_traces`
            tells the usable spans from the others.
        TooManyPartsError: It is made of more messages than anything can be in.
    """
    check_size(data)
    checked = _check(signal, data)
    items = _count_items(data, parts_allowed(len(data)))
    if checked is None:
        _check_ids(data)
    elif signal is Signal.TRACES:
        span = checked.resource_spans.scope_spans.spans
        each_has_both = len(span.trace_id) == len(span.span_id) == items
        # An id may be there twice, the last one counts: that only the whole message tells.
        if not each_has_both or not _are_usable(list(span.trace_id), list(span.span_id), list(span.parent_span_id)):
            _check_ids(data)
    return items


def _check(signal: Signal, data: bytes) -> Any:
    """
    Validate a request and return what was collected of it; None for a valid one of which nothing could be.

    Raises:
        InvalidRequestError: It is no request of this signal.
    """
    try:
        return _CHECK[signal](data)
    except DecodeError as error:
        if signal is not Signal.TRACES:
            raise _not_a_request(signal, data, error) from error
    # What is collected may also come packed, and packed wrongly: to the real message that is an unknown field.
    try:
        _CHECK_TRACES(data)
    except DecodeError as error:
        raise _not_a_request(signal, data, error) from error
    return None


def _check_ids(data: bytes) -> None:
    for _, items in cut_request(data):
        for span in map(read_span, items):
            if why := _why_invalid(span.trace_id, span.span_id, span.parent_span_id):
                raise InvalidRequestError(why)


def _are_usable(trace_ids: list[bytes], span_ids: list[bytes], parent_ids: list[bytes]) -> bool:
    """Tell whether all ids are valid; in C as far as that goes, for this is done for every request."""
    sizes = (set(map(len, trace_ids)), set(map(len, span_ids)), set(map(len, parent_ids)))
    if not (sizes[0] <= {16} and sizes[1] <= {8} and sizes[2] <= {0, 8}):
        return False
    return _NO_TRACE_ID not in trace_ids and _NO_SPAN_ID not in span_ids


def count_items(signal: Signal, data: bytes) -> int:
    """Return the number of spans, log records or metrics in an encoded request."""
    del signal  # the three requests have the same shape
    return _count_items(data)


def _count_items(data: bytes, most: int = sys.maxsize) -> int:
    items = sum(len(scope.items) for resource in _resources_of(data, most) for scope in resource.scopes)
    if items > most:
        raise too_many_parts(len(data))
    return items


def _not_a_request(signal: Signal, data: bytes, error: DecodeError) -> InvalidRequestError:
    hint = "; it looks like OTLP logs" if signal is Signal.TRACES and _is_logs(data) else ""
    return InvalidRequestError(f"Not an OTLP {signal} request: {error}{hint}")


def _why_invalid(trace_id: bytes, span_id: bytes, parent_id: bytes) -> str:
    """Return why ids cannot be used, or nothing."""
    for name, value, size in (("trace_id", trace_id, 16), ("span_id", span_id, 8)):
        if len(value) != size:
            return f"{name} has {len(value)} bytes instead of {size}"
        if not any(value):
            return f"{name} is all zero"
    return f"parent_span_id has {len(parent_id)} bytes instead of 8" if len(parent_id) not in {0, 8} else ""


def _rejection(data: bytes, rejected: int, reason: str, *, usable: bool) -> str:
    if not rejected:
        return ""
    message = f"{rejected} span(s) rejected, the last because its {reason}"
    if usable:
        return message
    hint = "; it looks like OTLP logs" if _is_logs(data) else ""
    raise InvalidRequestError(message + hint)


def _is_logs(data: bytes) -> bool:
    """Tell OTLP logs that were sent to the traces endpoint: both requests have the same outer shape."""
    try:
        _CHECK[Signal.LOGS](data)
    except DecodeError:
        return False
    records = (read_record(item) for _, items in cut_request(data) for item in items)
    return any(record.time_unix_nano or record.observed_time_unix_nano for record in records)
