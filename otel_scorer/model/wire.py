"""
OTLP requests as bytes: slice spans out of a request, splice them into new ones, append to a span.

The only module that knows the protobuf wire format. Nothing here walks bytes in Python: requests are validated by the
protobuf runtime, and a second, smaller message type, which declares spans as plain bytes, makes the same runtime do the
slicing (see `message_types`). So any field order, repeated fields and unknown fields come out exactly as they came in.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakValueDictionary

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans as ScopeSpansMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.facts import OWN_SCOPE
from otel_scorer.model.message_types import checking_type, slicing_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "SPAN_OVERHEAD",
    "RawSpan",
    "ScopeRef",
    "Signal",
    "TraceRequest",
    "attribute",
    "check_request",
    "count_items",
    "enrich_span",
    "field",
    "fixed32_field",
    "fixed64_field",
    "join_encoded",
    "join_spans",
    "key_value",
    "nearest_double",
    "read_traces",
    "split_request",
    "varint_field",
]

_NO_TRACE_ID: Final = bytes(16)
_NO_SPAN_ID: Final = bytes(8)
SPAN_OVERHEAD: Final = 400
"""Bytes that a buffered span costs beside its data: the RawSpan, its two or three ids, its place in the buffer."""


class Signal(StrEnum):
    """The three kinds of OTLP request."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


_Slices: Final = slicing_type()
_ID_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_CHECK: Final[dict[Signal, Callable[[bytes], Any]]] = {
    Signal.TRACES: checking_type(ExportTraceServiceRequest, columns=_ID_FIELDS).FromString,
    Signal.LOGS: checking_type(ExportLogsServiceRequest).FromString,
    Signal.METRICS: checking_type(ExportMetricsServiceRequest).FromString,
}


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
        kind: SpanKind number, part of a span's identity: a client and a server span may share an id.
        flags: W3C trace flags and OTLP's `SPAN_FLAGS_CONTEXT_*` bits.
    """

    data: bytes
    scope: ScopeRef
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    kind: int
    flags: int

    @property
    def is_own(self) -> bool:
        """Whether otel_scorer itself made the span."""
        return self.scope.is_own

    @property
    def size(self) -> int:
        """Bytes of memory that this span is worth while buffered."""
        return len(self.data) + SPAN_OVERHEAD


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
    """
    request = _parse_traces(data)
    spans: list[RawSpan] = []
    rejected = 0
    reason = ""
    for resource_spans, resource_slices in zip(request.resource_spans, _Slices.FromString(data).resources, strict=True):
        scope_slices = list(resource_slices.scopes)
        resource_slices.ClearField("scopes")
        resource = resource_slices.SerializeToString()
        for scope_spans, slices in zip(resource_spans.scope_spans, scope_slices, strict=True):
            items = list(slices.items)
            slices.ClearField("items")
            scope = ScopeRef.of(resource, slices.SerializeToString())
            usable, why = _read_spans(items, scope, list(scope_spans.spans))
            spans += usable
            rejected += len(items) - len(usable)
            reason = why or reason
    return TraceRequest(spans, rejected, _rejection(data, rejected, reason, usable=bool(spans)))


def _read_spans(items: list[bytes], scope: ScopeRef, messages: Sequence[SpanMessage]) -> tuple[list[RawSpan], str]:
    """Return the usable spans of a scope, and why the last unusable one is. Column by column: that is the hot path."""
    trace_ids = [message.trace_id for message in messages]
    span_ids = [message.span_id for message in messages]
    parent_ids = [message.parent_span_id for message in messages]
    kinds = [message.kind for message in messages]
    flags = [message.flags for message in messages]
    parents = [parent_id or None for parent_id in parent_ids]
    columns = zip(items, repeat(scope), trace_ids, span_ids, parents, kinds, flags, strict=False)
    spans = list(map(RawSpan._make, columns))
    if _are_usable(trace_ids, span_ids, parent_ids) and _NO_SPAN_ID not in parent_ids:
        return spans, ""
    usable: list[RawSpan] = []
    reason = ""
    for span in spans:
        why = _why_invalid(span.trace_id, span.span_id, span.parent_id or b"")
        reason = why or reason
        if not why:
            usable.append(span._replace(parent_id=None) if span.parent_id == _NO_SPAN_ID else span)
    return usable, reason


def check_request(signal: Signal, data: bytes) -> int:
    """
    Validate a request that is only passed through and return how many spans, records or metrics it holds.

    Ids are looked at over all spans at once: that each is there and valid, not which span it belongs to.

    Raises:
        InvalidRequestError: It is no request of this signal, or one of its spans has an invalid id: then `read_traces`
            tells the usable spans from the others.
    """
    try:
        checked = _CHECK[signal](data)
    except DecodeError as error:
        raise _not_a_request(signal, data, error) from error
    items = count_items(signal, data)
    if signal is Signal.TRACES:
        span = checked.resource_spans.scope_spans.spans
        trace_ids, span_ids = list(span.trace_id), list(span.span_id)
        each_has_both = len(trace_ids) == len(span_ids) == items
        # An id may be there twice, the last one counts: that only the whole message tells.
        if not each_has_both or not _are_usable(trace_ids, span_ids, list(span.parent_span_id)):
            _check_ids(_parse_traces(data))
    return items


def _check_ids(request: ExportTraceServiceRequest) -> None:
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            spans = list(scope_spans.spans)
            trace_ids = [span.trace_id for span in spans]
            span_ids = [span.span_id for span in spans]
            parent_ids = [span.parent_span_id for span in spans]
            if not _are_usable(trace_ids, span_ids, parent_ids):
                raise InvalidRequestError(next(filter(None, map(_why_invalid, trace_ids, span_ids, parent_ids))))


def _are_usable(trace_ids: list[bytes], span_ids: list[bytes], parent_ids: list[bytes]) -> bool:
    """Tell whether all ids are valid; in C as far as that goes, for this is done for every request."""
    sizes = (set(map(len, trace_ids)), set(map(len, span_ids)), set(map(len, parent_ids)))
    if not (sizes[0] <= {16} and sizes[1] <= {8} and sizes[2] <= {0, 8}):
        return False
    return _NO_TRACE_ID not in trace_ids and _NO_SPAN_ID not in span_ids


def count_items(signal: Signal, data: bytes) -> int:
    """Return the number of spans, log records or metrics in an encoded request."""
    del signal  # the three requests have the same shape
    return sum(len(scope.items) for resource in _Slices.FromString(data).resources for scope in resource.scopes)


def join_spans(spans: Iterable[RawSpan]) -> bytes:
    """Splice spans into one encoded ExportTraceServiceRequest, each under its own resource and scope, in order."""
    by_scope: dict[ScopeRef, list[bytes]] = {}
    for span in spans:
        items = by_scope.get(span.scope)
        if items is None:
            items = by_scope[span.scope] = []
        items.append(span.data)
    return _join_scopes(by_scope.items())


def join_encoded(groups: Mapping[ScopeRef, Sequence[bytes]]) -> bytes:
    """Splice encoded spans into one request, given by the resource and scope they belong to."""
    return _join_scopes(groups.items())


def split_request(signal: Signal, data: bytes) -> tuple[bytes, bytes] | None:
    """
    Cut a request into two of about half the bytes each, items untouched and in order.

    Returns:
        The two requests, or None if there is nothing to cut: one item or none.
    """
    del signal  # the three requests have the same shape
    items: list[tuple[ScopeRef, bytes]] = []
    for resource_slices in _Slices.FromString(data).resources:
        scope_slices = list(resource_slices.scopes)
        resource_slices.ClearField("scopes")
        resource = resource_slices.SerializeToString()
        for slices in scope_slices:
            scope_items = list(slices.items)
            slices.ClearField("items")
            scope = ScopeRef.of(resource, slices.SerializeToString())
            items += ((scope, item) for item in scope_items)
    if len(items) < 2:
        return None
    half = sum(len(item) for _, item in items) / 2
    at, seen = 0, 0
    while at < len(items) - 1 and (at == 0 or seen + len(items[at][1]) <= half):
        seen += len(items[at][1])
        at += 1
    return _join_items(items[:at]), _join_items(items[at:])


def enrich_span(data: bytes, attributes: Mapping[str, bytes], events: Sequence[bytes] = ()) -> bytes:
    """
    Return an encoded span with attributes and events added.

    Keys that the span already has are replaced: OTLP forbids duplicate attribute keys.

    Args:
        data: The encoded span.
        attributes: Encoded KeyValue (see `key_value`) by key.
        events: Encoded Span.Event messages.
    """
    if any(key.encode() in data for key in attributes):
        span = SpanMessage.FromString(data)
        kept = [pair for pair in span.attributes if pair.key not in attributes]
        if len(kept) != len(span.attributes):
            del span.attributes[:]
            span.attributes.extend(kept)
            data = span.SerializeToString()
    return b"".join([data, *(field(9, pair) for pair in attributes.values()), *(field(11, event) for event in events)])


def field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field (bytes, string, message)."""
    size = len(payload)
    if number < 16 and size < 0x80:
        return bytes((number << 3 | 2, size)) + payload
    return _varint(number << 3 | 2) + _varint(size) + payload


def varint_field(number: int, value: int) -> bytes:
    """Encode an integer, bool or enum field. Negative integers are written as two's complement in 64 bits."""
    return _varint(number << 3) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def fixed64_field(number: int, value: int) -> bytes:
    """Encode a fixed64 field, OTLP's type for times in nanoseconds."""
    return _varint(number << 3 | 1) + value.to_bytes(8, "little")


def fixed32_field(number: int, value: int) -> bytes:
    """Encode a fixed32 field, OTLP's type for flags."""
    return _varint(number << 3 | 5) + value.to_bytes(4, "little")


def key_value(key: str, value: str | float) -> bytes:
    """
    Encode a `common.v1.KeyValue` with a scalar value.

    Lone surrogates, which UTF-8 cannot carry, become question marks. Integers outside 64 bits become doubles, infinite
    ones if need be.
    """
    if isinstance(value, str):
        encoded = field(1, value.encode("utf-8", "replace"))
    elif isinstance(value, bool):
        encoded = b"\x10\x01" if value else b"\x10\x00"
    elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        encoded = varint_field(3, value)
    else:
        encoded = b"\x21" + struct.pack("<d", nearest_double(value))
    return _key(key) + field(2, encoded)


def attribute(key: str, value: str | float) -> bytes:
    """Encode one span attribute, ready to be appended to an encoded span (Span.attributes, field 9)."""
    return field(9, key_value(key, value))


def nearest_double(value: float) -> float:
    """Return a number as a double; an integer that is too large becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# Keys repeat from span to span.
@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return field(1, key.encode("utf-8", "replace"))


def _parse_traces(data: bytes) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(data)
    except DecodeError as error:
        raise _not_a_request(Signal.TRACES, data, error) from error


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
        request = ExportLogsServiceRequest.FromString(data)
    except DecodeError:
        return False
    return any(
        record.time_unix_nano or record.observed_time_unix_nano
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    )


def _join_items(items: Iterable[tuple[ScopeRef, bytes]]) -> bytes:
    by_scope: dict[ScopeRef, list[bytes]] = {}
    for scope, item in items:
        by_scope.setdefault(scope, []).append(item)
    return _join_scopes(by_scope.items())


def _join_scopes(groups: Iterable[tuple[ScopeRef, Sequence[bytes]]]) -> bytes:
    """Join everything in one go: spans are large, and each intermediate string would copy them once more."""
    by_resource: dict[bytes, list[bytes]] = {}
    sizes: dict[bytes, int] = {}
    for ref, items in groups:
        lengths = [len(item) for item in items]
        prefixes = [_ITEM_PREFIXES[length] if length < _PREFIXED else b"\x12" + _varint(length) for length in lengths]
        size = len(ref.scope) + sum(lengths) + sum(map(len, prefixes))
        header = b"\x12" + _varint(size)
        parts = by_resource.setdefault(ref.resource, [])
        parts += (header, ref.scope)
        parts += chain.from_iterable(zip(prefixes, items, strict=True))
        sizes[ref.resource] = sizes.get(ref.resource, 0) + len(header) + size
    out: list[bytes] = []
    for resource, parts in by_resource.items():
        out += (b"\x0a" + _varint(len(resource) + sizes[resource]), resource, *parts)
    return b"".join(out)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# Tag and length of an item, for every length below 16 KiB: most spans, and one index instead of a loop for each.
_PREFIXED: Final = 1 << 14
_ITEM_PREFIXES: Final = [b"\x12" + _varint(size) for size in range(_PREFIXED)]
