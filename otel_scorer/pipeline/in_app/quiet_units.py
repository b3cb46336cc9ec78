"""
Units of an application of which only the ended spans are seen: closed when nothing new has come for a while.

An exporter is told of no span that starts, so nothing can be counted. The waiting is the sidecar's, with its rules and
limits, and so is the cutting into units (trace id, local root).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from otel_scorer.model.encoding import field, varint_field
from otel_scorer.model.trace import OWN_SCOPE
from otel_scorer.model.wire import RawSpan, ScopeRef
from otel_scorer.pipeline.assembly.assembler import TraceAssembler
from otel_scorer.pipeline.assembly.closing import AssemblyLimits, ClosedTrace, CloseReason, Trigger
from otel_scorer.pipeline.in_app.units import ClosedUnit, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["QuietUnits"]

_SCOPE: Final = ScopeRef(b"", b"")
_SMALLEST: Final = 10
_LARGEST: Final = 19


class QuietUnits:
    """
    Not thread-safe: one owner, which passes the time. Trace and span ids are numbers, as in the SDK.

    Args:
        limits: When traces close. A local root counts as much as a root: what is above it is not here.
        admits: Whether this trace is wanted at all. The flag: asked for its root or a local root.
        measure: Returns the estimated size of a span in bytes.
    """

    def __init__(
        self, limits: AssemblyLimits, admits: Callable[[int, bool], bool], measure: Callable[[ReadableSpan], int]
    ) -> None:
        self._assembler = TraceAssembler(replace(limits, trigger=Trigger.LOCAL_ROOT))
        self._admits = admits
        self._measure = measure
        self._spans: dict[bytes, dict[bytes, ReadableSpan]] = {}

    def __len__(self) -> int:
        return len(self._assembler)

    def is_open(self, trace_id: int) -> bool:
        """Tell whether spans of this trace wait for more."""
        return trace_id.to_bytes(16, "big") in self._spans

    def ended(
        self, trace_id: int, span_id: int, span: ReadableSpan, now: float
    ) -> tuple[Place, Sequence[ClosedUnit[ReadableSpan]]]:
        """
        Take an ended span.

        Args:
            trace_id: 128 bits.
            span_id: 64 bits.
            span: The span.
            now: Monotonic seconds.

        Returns:
            Where the span belongs, and the units that closed because of it.
        """
        is_head = _is_head(span)
        key = trace_id.to_bytes(16, "big")
        scope = span.instrumentation_scope
        is_own = scope is not None and scope.name == OWN_SCOPE
        if is_own or (key not in self._spans and not self._admits(trace_id, is_head)):
            return Place.NONE, ()
        raw = self._raw(key, span_id.to_bytes(8, "big"), span)
        known = self._spans.setdefault(key, {})
        known[raw.span_id] = span
        added = self._assembler.add((raw,), now)
        closed = self._units(added.closed)
        if added.duplicates:
            return Place.NONE, closed
        if added.late:
            # Others may have waited for this one: they are nothing but what is left of their unit.
            self._take(key, added.late[:1])
            left = self._take(key, added.late[1:])
            if left:
                closed.append(ClosedUnit(key, left, CloseReason.IDLE, complete=False))
            return Place.NONE, closed
        return Place.ROOT if is_head else Place.CHILD, closed

    def due(self, now: float) -> list[ClosedUnit[ReadableSpan]]:
        """Close the traces whose time has come."""
        return self._units(self._assembler.due(now))

    def next_deadline(self) -> float | None:
        """Return when `due` may next have something to say, or None while nothing is open."""
        return self._assembler.next_deadline()

    def drain(self, reason: CloseReason, now: float, trace_id: int | None = None) -> list[ClosedUnit[ReadableSpan]]:
        """Close everything, oldest first. One trace alone cannot be closed: its last spans may be on their way."""
        return [] if trace_id is not None else self._units(self._assembler.drain(reason, now))

    def drain_lingering(self, now: float) -> list[ClosedUnit[ReadableSpan]]:
        """Close nothing: whether the spans of a trace that are not here have ended is not known."""
        del now
        return []

    def _raw(self, trace_id: bytes, span_id: bytes, span: ReadableSpan) -> RawSpan:
        parent = span.parent
        bits = min(max(self._measure(span).bit_length(), _SMALLEST), _LARGEST)
        return RawSpan(
            _blank(span.kind.value, bits),
            _SCOPE,
            trace_id,
            span_id,
            None if parent is None else parent.span_id.to_bytes(8, "big"),
            parent is not None and parent.is_remote,
        )

    def _units(self, closed: Iterable[ClosedTrace[RawSpan]]) -> list[ClosedUnit[ReadableSpan]]:
        found: list[ClosedUnit[ReadableSpan]] = []
        for trace in closed:
            first = self._spans.get(trace.trace_id, {}).get(trace.unit)
            root = first if first is not None and _is_head(first) else None
            spans = self._take(trace.trace_id, trace.spans)
            complete = trace.complete and root is not None
            found.append(ClosedUnit(trace.trace_id, spans, trace.reason, complete, root=root))
        return found

    def _take(self, trace_id: bytes, raw: Iterable[RawSpan]) -> list[ReadableSpan]:
        """Hand over spans that are no longer waited with."""
        known = self._spans.get(trace_id, {})
        spans = [known.pop(each.span_id) for each in raw if each.span_id in known]
        if not known:
            self._spans.pop(trace_id, None)
        return spans


@cache
def _blank(kind: int, bits: int) -> bytes:
    """Encode a span of some size: the assembler counts bytes, and spans of the SDK have none. All share a few."""
    return varint_field(6, kind) + field(5, bytes(1 << bits))


def _is_head(span: ReadableSpan) -> bool:
    return span.parent is None or span.parent.is_remote
