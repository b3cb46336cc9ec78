"""
Count the open spans of each unit (trace id, local root) and say when the last one has ended.

Inside the application nobody has to guess when a trace is complete: every span is seen to start and to end. The
assembler starts no thread, takes no lock and reads no clock: the caller passes `now` (monotonic seconds) and asks what
is due. One owner; not thread-safe.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from otel_scorer.pipeline.assembly.closed_traces import age_group
from otel_scorer.pipeline.assembly.closing import AssemblyLimits, ClosedTrace, CloseReason
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ClosedUnit", "Place", "UnitAssembler"]

S = TypeVar("S")

# Measuring a span costs as much as counting it: some are, and the next ones are taken to be like them.
_MEASURED_EVERY: Final = 8
_TYPICAL_SIZE: Final = 4096
# When a unit must go to make room, the heaviest among this many oldest ones goes.
_EVICTION_CANDIDATES: Final = 16
_REMEMBERED_PER_OPEN_UNIT: Final = 10
_MOST_REMEMBERED: Final = 100_000
_REFUSALS: Final = 4096
# All units together may hold as much as this many of the largest size.
_LARGEST_UNITS: Final = 8


class Place(Enum):
    """Where an ended span belongs: it ended a unit's local root, is another span of a unit, or belongs to none."""

    ROOT = "root"
    CHILD = "child"
    NONE = "none"


@dataclass(slots=True)
class ClosedUnit(ClosedTrace[S]):
    """
    A unit that is as complete as it will get; `complete` is about the unit, not about what remote services did.

    Attributes:
        root: The local root; None if it has not ended.
    """

    root: S | None = None


class _Unit(Generic[S]):
    __slots__ = (
        "ended",
        "has_whole_root",
        "ids",
        "open",
        "opened",
        "root",
        "root_id",
        "size",
        "span_size",
        "spans",
        "trace_id",
    )

    def __init__(self, trace_id: int, root_id: int, now: float, *, has_whole_root: bool) -> None:
        self.trace_id = trace_id
        self.root_id = root_id
        self.opened = now
        # A local root whose parent should be here but is not: something is missing above it.
        self.has_whole_root = has_whole_root
        self.open = 1
        self.ids = [root_id]
        self.spans: list[S] = []
        self.size = 0
        self.span_size = 0
        self.root: S | None = None
        self.ended: float | None = None


def _admit_all(_trace_id: int, _is_head: bool) -> bool:  # noqa: FBT001 - see UnitAssembler
    return True


def _typical(_span: object) -> int:
    return _TYPICAL_SIZE


class UnitAssembler(Generic[S]):
    """
    Not thread-safe: one owner, which passes the time. Trace and span ids are numbers, as in the SDK.

    A unit opens with its local root: a span without a parent, with a remote parent, or with a parent that is unknown
    here. Children join the unit of their parent, also of one that has ended. What joins no unit is the caller's alone.

    Args:
        limits: `root_cap`, `max_age` and the sizes count; the graces are for those who must guess.
        admits: Whether a unit of this trace is opened at all. The flag: its local root is a head of the trace, as
            opposed to a span whose parent should be here and is not.
        measure: Returns the estimated size of a span in bytes.
    """

    def __init__(
        self,
        limits: AssemblyLimits,
        admits: Callable[[int, bool], bool] = _admit_all,
        measure: Callable[[S], int] = _typical,
    ) -> None:
        self._limits = limits
        # Looked up for every span, hence here.
        self._max_spans = limits.max_spans_per_trace
        self._max_bytes = limits.max_bytes_per_trace
        self._measure = measure
        # Trace id -> span id -> unit, for every span of an open unit, ended ones included.
        self._traces: dict[int, dict[int, _Unit[S]]] = {}
        # Open units, oldest first; and those whose root has ended, in that order. Both delays are the same for all, so
        # the first one is always the next one due.
        self._units: OrderedDict[_Unit[S], None] = OrderedDict()
        self._lingering: OrderedDict[_Unit[S], None] = OrderedDict()
        # Traces that had a unit closed and when that was, least recently touched first.
        self._closed: OrderedDict[int, float] = OrderedDict()
        # Traces that were not admitted lately, so that it is not asked again for every span of theirs.
        self._refused: set[int] = set()
        self._refusals: deque[int] = deque()
        self._ask = admits
        self._remembered = min(_REMEMBERED_PER_OPEN_UNIT * limits.max_traces, _MOST_REMEMBERED)
        self.size = 0
        """Estimated bytes of all spans that are held."""

    def __len__(self) -> int:
        return len(self._units)

    def is_open(self, trace_id: int) -> bool:
        """Tell whether a unit of this trace is open."""
        return trace_id in self._traces

    def join(self, trace_id: int, span_id: int, parent_id: int) -> bool:
        """Note that a span with a local parent has started, if its parent's unit is open; else nothing is noted."""
        trace = self._traces.get(trace_id)
        unit = None if trace is None else trace.get(parent_id)
        # Spans that only ever start must not pile up either.
        if trace is None or unit is None or len(unit.ids) >= self._max_spans:
            return False
        trace[span_id] = unit
        unit.open += 1
        unit.ids.append(span_id)
        return True

    def refuse(self, trace_id: int) -> None:
        """Remember for a while that nobody wants a trace, so that it is not asked again for every span of it."""
        if trace_id not in self._refused:
            self._refused.add(trace_id)
            self._refusals.append(trace_id)
            if len(self._refusals) > _REFUSALS:
                self._refused.discard(self._refusals.popleft())

    def started(
        self, trace_id: int, span_id: int, parent_id: int | None, now: float, *, is_remote_parent: bool = False
    ) -> Sequence[ClosedUnit[S]]:
        """
        Note that a span has started.

        Args:
            trace_id: 128 bits.
            span_id: 64 bits.
            parent_id: None for a root.
            now: Monotonic seconds.
            is_remote_parent: Whether the parent lives in another process.

        Returns:
            Units that had to close to make room.
        """
        if parent_id is None or is_remote_parent:
            return self._open(trace_id, span_id, now) if self._admits(trace_id, True) else ()  # noqa: FBT003
        if self.join(trace_id, span_id, parent_id):
            return ()
        unit = self._traces.get(trace_id, {}).get(parent_id)
        if unit is not None:
            return self._closed_now(unit, CloseReason.SPAN_LIMIT, now)
        # The unit of the parent is closed: late. Nothing is noted, so that its own children are late too. Or nobody
        # wanted the trace of the parent: then nobody wants this part of it.
        if trace_id in self._closed or trace_id in self._refused or not self._admits(trace_id, False):  # noqa: FBT003
            return ()
        return self._open(trace_id, span_id, now, is_orphan=True)

    def ended(self, trace_id: int, span_id: int, span: S, now: float) -> tuple[Place, Sequence[ClosedUnit[S]]]:
        """
        Note that a span has ended.

        Args:
            trace_id: 128 bits.
            span_id: 64 bits.
            span: The ended span.
            now: Monotonic seconds.

        Returns:
            Where the span belongs, and the units that closed because of it.
        """
        trace = self._traces.get(trace_id)
        unit = None if trace is None else trace.get(span_id)
        if unit is None:
            if trace_id in self._closed:
                self._closed.move_to_end(trace_id)
                count("assembler.late_spans", policy=self._limits.late_spans.value)
                count("assembler.late_span_age", under=age_group(now - self._closed[trace_id]))
            return _NOWHERE
        spans = unit.spans
        if not len(spans) % _MEASURED_EVERY:
            unit.span_size = self._measure(span)
        spans.append(span)
        unit.size += unit.span_size
        self.size += unit.span_size
        unit.open -= 1
        is_root = span_id == unit.root_id
        if is_root:
            unit.root = span
            unit.ended = now
            if unit.open:
                self._lingering[unit] = None
        if not unit.open:
            closed: Sequence[ClosedUnit[S]] = (self._close(unit, CloseReason.ALL_CLOSED, now),)
        elif len(spans) >= self._max_spans:
            closed = (self._close(unit, CloseReason.SPAN_LIMIT, now),)
        elif unit.size >= self._max_bytes:
            closed = (self._close(unit, CloseReason.BYTE_LIMIT, now),)
        else:
            return _ROOT if is_root else _CHILD
        return (_ROOT if is_root else _CHILD)[0], closed

    def due(self, now: float) -> list[ClosedUnit[S]]:
        """Close the units whose time has come."""
        closed: list[ClosedUnit[S]] = []
        while self._lingering and _root_ended(first := next(iter(self._lingering))) + self._limits.root_cap <= now:
            closed.append(self._close(first, CloseReason.ROOT_QUIET, now))
        while self._units and (first := next(iter(self._units))).opened + self._limits.max_age <= now:
            closed.append(self._close(first, CloseReason.MAX_AGE, now))
        return closed

    def next_deadline(self) -> float | None:
        """Return when `due` will next have something to say, or None while nothing is open."""
        if not self._units:
            return None
        deadline = next(iter(self._units)).opened + self._limits.max_age
        if self._lingering:
            return min(deadline, _root_ended(next(iter(self._lingering))) + self._limits.root_cap)
        return deadline

    def drain(self, reason: CloseReason, now: float, trace_id: int | None = None) -> list[ClosedUnit[S]]:
        """Close every unit, or those of one trace, oldest first; also those of which no span has ended."""
        units = self._units if trace_id is None else dict.fromkeys(self._traces.get(trace_id, {}).values())
        return [self._close(unit, reason, now) for unit in list(units)]

    def drain_lingering(self, now: float) -> list[ClosedUnit[S]]:
        """Close the units whose root has ended, although other spans of theirs have not."""
        return [self._close(unit, CloseReason.ROOT_QUIET, now) for unit in list(self._lingering)]

    def _admits(self, trace_id: int, is_head: bool) -> bool:  # noqa: FBT001
        if self._ask(trace_id, is_head):
            return True
        self.refuse(trace_id)
        return False

    def _open(self, trace_id: int, span_id: int, now: float, *, is_orphan: bool = False) -> Sequence[ClosedUnit[S]]:
        evicted = self._make_room(now)
        # Not `_Unit[S](...)`, which costs ten times as much.
        unit: _Unit[S] = _Unit(trace_id, span_id, now, has_whole_root=not is_orphan)
        self._units[unit] = None
        self._traces.setdefault(trace_id, {})[span_id] = unit
        return evicted

    def _make_room(self, now: float) -> Sequence[ClosedUnit[S]]:
        limits = self._limits
        is_full = len(self._units) >= limits.max_traces or self.size >= _LARGEST_UNITS * limits.max_bytes_per_trace
        if not is_full or not self._units:
            return ()
        oldest = islice(self._units, _EVICTION_CANDIDATES)
        return self._closed_now(max(oldest, key=lambda unit: unit.size), CloseReason.EVICTED, now)

    def _closed_now(self, unit: _Unit[S], reason: CloseReason, now: float) -> list[ClosedUnit[S]]:
        return [self._close(unit, reason, now)]

    def _close(self, unit: _Unit[S], reason: CloseReason, now: float) -> ClosedUnit[S]:
        trace_id = unit.trace_id
        del self._units[unit]
        self._lingering.pop(unit, None)
        self.size -= unit.size
        trace = self._traces[trace_id]
        if len(trace) == len(unit.ids):
            del self._traces[trace_id]
        else:
            for span_id in unit.ids:
                trace.pop(span_id, None)
        self._closed[trace_id] = now
        self._closed.move_to_end(trace_id)
        if len(self._closed) > self._remembered:
            self._closed.popitem(last=False)
        complete = reason is CloseReason.ALL_CLOSED and unit.has_whole_root
        key = trace_id.to_bytes(16, "big")
        return ClosedUnit(key, unit.spans, reason, complete, size=unit.size, root=unit.root)


def _root_ended(unit: _Unit[S]) -> float:
    """Return when the root of a lingering unit ended."""
    return unit.opened if unit.ended is None else unit.ended


# What most ended spans get; made once.
_ROOT: Final = (Place.ROOT, ())
_CHILD: Final = (Place.CHILD, ())
_NOWHERE: Final = (Place.NONE, ())
