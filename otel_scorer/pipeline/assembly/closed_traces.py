"""
What is remembered of closed traces, so that spans that come late are known for what they are.

Only ids and times, in a bounded number. Where units are assembled also the ids of their spans: a late span is told from
the first one of another unit by its parent.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import AssemblyLimits, ClosedTrace
    from otel_scorer.pipeline.assembly.open_trace import OpenTrace

__all__ = ["ClosedTraces", "age_group", "count_closed"]

_REMEMBERED_PER_OPEN_TRACE: Final = 10
_TRACE_ID: Final = 16  # bytes, which the key of a unit begins with
_SPAN_ID: Final = 8
# Finding the first entry of a dictionary of which the first ones were deleted means going by all of these. So as many
# are forgotten at once as makes that cheap: one in so many.
_FORGOTTEN_AT_ONCE: Final = 128
_AGES: Final = {"1s": 1.0, "10s": 10.0, "1m": 60.0, "10m": 600.0, "1h": 3600.0}
_NOTHING: Final[dict[bytes, bytes]] = {}


class ClosedTraces:
    """
    Closed traces, least recently touched first. Of units as many span ids are remembered as traces otherwise.

    Args:
        limits: `max_traces` counts.
    """

    def __init__(self, limits: AssemblyLimits) -> None:
        self._limit = _REMEMBERED_PER_OPEN_TRACE * limits.max_traces
        # Trace id, or key of a unit -> when it was closed.
        self._closed_at: dict[bytes, float] = {}
        self.keys = self._closed_at.keys()
        """All that are remembered, as they are now; asked for every trace that is opened."""
        # Trace id -> id of a span, or of a parent that a unit waited for -> key of the unit; and the way back.
        self._units: dict[bytes, dict[bytes, bytes]] = {}
        self._spans_of: dict[bytes, tuple[bytes, list[bytes]]] = {}
        self._span_ids = 0

    def __len__(self) -> int:
        return len(self._closed_at)

    def remember(self, keys: Iterable[bytes], now: float) -> None:
        """Note that traces, or units, are closed; those that nobody asked for the longest may have to go."""
        self._closed_at.update(dict.fromkeys(keys, now))
        if len(self._closed_at) > self._limit:
            surplus = len(self._closed_at) - self._limit + self._limit // _FORGOTTEN_AT_ONCE
            self._forget(list(islice(self._closed_at, surplus)))

    def remember_unit(self, trace_id: bytes, unit: OpenTrace, now: float) -> None:
        """Note that a unit is closed, and which spans it has."""
        self.remember_spans(trace_id, unit.key, (*unit.spans, *(() if unit.missing is None else (unit.missing,))), now)

    def restore(self, closed: Iterable[bytes], now: float, *, by_unit: bool) -> int:
        """
        Remember traces that another process has closed.

        Args:
            closed: The id of each; of each unit with the ids of its spans behind it.
            now: The time.
            by_unit: Whether units are assembled; what was closed as something else does not count.

        Returns:
            How many units that were: their keys are numbered from 1 on.
        """
        units = 0
        for known in closed:
            trace_id, span_ids = known[:_TRACE_ID], known[_TRACE_ID:]
            if by_unit and span_ids:
                units += 1
                ids = [span_ids[at : at + _SPAN_ID] for at in range(0, len(span_ids), _SPAN_ID)]
                self.remember_spans(trace_id, trace_id + units.to_bytes(8, "big"), ids, now)
            elif not by_unit and not span_ids:
                self.remember((trace_id,), now)
        return units

    def remember_spans(self, trace_id: bytes, key: bytes, span_ids: Iterable[bytes], now: float) -> None:
        """Note that a unit with these spans is closed."""
        self.remember((key,), now)
        self._spans_of[key] = (trace_id, [])
        self._learn(key, span_ids)

    def recall(self, key: bytes) -> float:
        """
        Keep what is still asked for: a trace that goes on for hours must not be forgotten and opened again.

        Returns:
            When it was closed.
        """
        closed_at = self._closed_at[key] = self._closed_at.pop(key)
        return closed_at

    def unit_of(self, trace_id: bytes, span_id: bytes) -> bytes | None:
        """Return the key of the closed unit that has a span, or waited for it."""
        return self._units.get(trace_id, _NOTHING).get(span_id)

    def unit_for(self, span: RawSpan, *, is_head: bool) -> bytes | None:
        """Return the key of the closed unit that a span belongs to, as far as its own id and its parent's tell."""
        known = self._units.get(span.trace_id)
        if known is None:
            return None
        key = known.get(span.span_id)
        return key if key is not None or is_head or span.parent_id is None else known.get(span.parent_id)

    def learn(self, key: bytes, span_ids: Iterable[bytes]) -> None:
        """Note more spans that belong to a closed unit, so that those below them do too."""
        # Others are forgotten for them, not the unit itself.
        self.recall(key)
        if self._span_ids < self._limit or len(self._closed_at) > 1:
            self._learn(key, span_ids)

    def _learn(self, key: bytes, span_ids: Iterable[bytes]) -> None:
        trace_id, ids = self._spans_of[key]
        known = self._units.setdefault(trace_id, {})
        # A span id that another unit has already stays there; spans of one unit may share one.
        new = [span_id for span_id in dict.fromkeys(span_ids) if span_id not in known]
        known.update(dict.fromkeys(new, key))
        ids += new
        self._span_ids += len(new)
        if self._span_ids > self._limit:
            self._forget(self._first_with(self._span_ids - self._limit + self._limit // _FORGOTTEN_AT_ONCE))

    def _first_with(self, spans: int) -> list[bytes]:
        """Return the units that nobody asked for the longest which have so many spans, but never the last one."""
        units: list[bytes] = []
        for key in islice(self._closed_at, len(self._closed_at) - 1):
            if spans <= 0:
                break
            units.append(key)
            spans -= len(self._spans_of[key][1])
        return units

    def _forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            del self._closed_at[key]
            if key in self._spans_of:
                self._forget_spans(key)

    def _forget_spans(self, key: bytes) -> None:
        trace_id, ids = self._spans_of.pop(key)
        self._span_ids -= len(ids)
        known = self._units.get(trace_id, {})
        for span_id in ids:
            del known[span_id]
        if not known:
            self._units.pop(trace_id, None)


def age_group(seconds: float) -> str:
    """Return under which label spans are counted that came so long after their trace was closed."""
    return next((name for name, limit in _AGES.items() if seconds < limit), "ever")


def count_closed(closed: Iterable[ClosedTrace[RawSpan]]) -> None:
    """Count traces by why they were closed."""
    for reason, times in Counter(trace.reason for trace in closed).items():
        count("assembler.closed", times, reason=reason.value)
