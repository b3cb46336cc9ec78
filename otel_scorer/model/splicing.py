"""Splice encoded spans, or other items, into requests, and attributes and events into spans, as bytes."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.model.encoding import field, varint
from otel_scorer.model.wire import cut_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_scorer.model.wire import RawSpan, ScopeRef, Signal

__all__ = ["enrich_span", "join_encoded", "join_in_order", "join_spans", "split_request"]

# Tag and length of an item, for every length below 16 KiB: most spans, and one index instead of a loop for each.
_PREFIXED: Final = 1 << 14
_ITEM_PREFIXES: Final = [b"\x12" + varint(size) for size in range(_PREFIXED)]


def join_spans(spans: Iterable[RawSpan]) -> bytes:
    """Splice spans into one encoded ExportTraceServiceRequest, each under its own resource and scope, in order."""
    by_scope: dict[ScopeRef, list[bytes]] = {}
    for data, scope, _, _, _, _ in spans:
        if scope in by_scope:
            by_scope[scope].append(data)
        else:
            by_scope[scope] = [data]
    return _join_scopes(by_scope.items())


def join_in_order(spans: Iterable[RawSpan]) -> bytes:
    """Splice spans into a request as `join_spans` does, but read back they are in the very order in which they are."""
    # Requests one behind the other are one request.
    runs = ((scope, [span.data for span in run]) for scope, run in groupby(spans, key=itemgetter(1)))
    return b"".join(_join_scopes([run]) for run in runs)


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
    items = [(scope, item) for scope, scope_items in cut_request(data) for item in scope_items]
    if len(items) <= 1:
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


def _join_items(items: Iterable[tuple[ScopeRef, bytes]]) -> bytes:
    by_scope: dict[ScopeRef, list[bytes]] = {}
    for scope, item in items:
        by_scope.setdefault(scope, []).append(item)
    return _join_scopes(by_scope.items())


def _join_scopes(groups: Iterable[tuple[ScopeRef, Sequence[bytes]]]) -> bytes:
    """Join everything in one go: spans are large, and each intermediate string would copy them once more."""
    by_resource: dict[bytes, list[bytes]] = {}
    for ref, items in groups:
        parts = [ref.scope]
        for item in items:
            size = len(item)
            parts.append(_ITEM_PREFIXES[size] if size < _PREFIXED else b"\x12" + varint(size))
            parts.append(item)
        scopes = by_resource.setdefault(ref.resource, [])
        scopes.append(b"\x12" + varint(sum(map(len, parts))))
        scopes += parts
    out: list[bytes] = []
    for resource, parts in by_resource.items():
        out += (b"\x0a" + varint(len(resource) + sum(map(len, parts))), resource)
        out += parts
    return b"".join(out)
