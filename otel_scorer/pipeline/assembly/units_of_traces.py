"""
Which unit (trace id, local root) a span belongs to, in whatever order spans come.

A child usually comes before its parent, so what belongs together is known only in the end. Until then spans whose
parent is not here wait for it in a fragment; the parent, when it comes, takes the fragment into its own unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.open_trace import OpenTrace

__all__ = ["UnitsOfTraces"]


class _Trace:
    __slots__ = ("unit_of", "waiting")

    def __init__(self) -> None:
        self.unit_of: dict[bytes, OpenTrace] = {}
        # The id of a span that is not here -> the fragment below it.
        self.waiting: dict[bytes, OpenTrace] = {}


class UnitsOfTraces:
    """The open units and fragments of all traces; knows their spans by id only. Not thread-safe."""

    def __init__(self) -> None:
        self._traces: dict[bytes, _Trace] = {}

    def find(self, trace_id: bytes, span_id: bytes | None) -> OpenTrace | None:
        """Return the open unit that has a span."""
        trace = self._traces.get(trace_id)
        return None if trace is None or span_id is None else trace.unit_of.get(span_id)

    def below(self, trace_id: bytes, span_id: bytes) -> OpenTrace | None:
        """Return the fragment that waits for a span."""
        trace = self._traces.get(trace_id)
        return None if trace is None else trace.waiting.get(span_id)

    def place(
        self, span: RawSpan, *, is_head: bool, begin: Callable[[], OpenTrace]
    ) -> tuple[OpenTrace, OpenTrace | None]:
        """
        Find the unit of a span that is not known yet.

        Args:
            span: The span.
            is_head: Whether a unit begins with it.
            begin: Makes a unit, if it belongs to none; may have others forgotten.

        Returns:
            The unit, and another one whose spans belong to it now: the caller moves them.
        """
        trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_id
        above: OpenTrace | None = None
        if not is_head and parent_id is not None:
            above = self.find(trace_id, parent_id) or self.below(trace_id, parent_id)
        below = self.below(trace_id, span_id)
        unit = above or below or begin()
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = _Trace()
        if below is not None:
            del trace.waiting[span_id]
            below.missing = None
        absorbed = None if below is unit else below
        if absorbed is not None and len(absorbed.spans) > len(unit.spans):
            # The smaller one moves: a chain that comes from its end would otherwise be moved at every link.
            unit, absorbed = absorbed, unit
            unit.missing = absorbed.missing
            if unit.missing is not None:
                trace.waiting[unit.missing] = unit
        if absorbed is not None:
            for key in absorbed.spans:
                trace.unit_of[key] = unit
        trace.unit_of[span_id] = unit
        if above is None and not is_head and parent_id is not None and parent_id not in trace.unit_of:
            trace.waiting[parent_id] = unit
            unit.missing = parent_id
        return unit, absorbed

    def add_twin(self, trace_id: bytes, key: bytes, unit: OpenTrace) -> None:
        """Note that a unit has another span with an id that it has already; see `twin_key`."""
        self._traces[trace_id].unit_of[key] = unit

    def forget(self, trace_id: bytes, unit: OpenTrace) -> None:
        """Take a unit out."""
        trace = self._traces[trace_id]
        if unit.missing is not None:
            del trace.waiting[unit.missing]
        if len(unit.spans) == len(trace.unit_of):
            del self._traces[trace_id]
            return
        for key in unit.spans:
            del trace.unit_of[key]
