"""
Count the open spans of each unit (trace id, local root) and say when the last one has ended.

Inside the application nobody has to guess when a trace is complete: every span is seen to start and to end. The
assembler starts no thread, takes no lock and reads no clock: the caller passes `now` (monotonic seconds) and asks what
is due. One owner; not thread-safe.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from otel_scorer.pipeline.assembler import AssemblyLimits, ClosedTrace, CloseReason
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ClosedUnit", "Place", "UnitAssembler"]

S = TypeVar("S")

# When a unit must go to make room, the heaviest among this many oldest ones goes.
_EVICTION_CANDIDATES: Final = 16
_REMEMBERED_PER_OPEN_UNIT: Final = 10
_MOST_REMEMBERED: Final = 100_000
# All units together may hold as much as this many of the largest size.
_LARGEST_UNITS: Final = 8


class Place(Enum):
    """Where an ended span belongs: it ended a unit's local root, is another span of a unit, or belongs to none."""

    ROOT = "root"
    CHILD = "child"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ClosedUnit(ClosedTrace[S]):
    """
    A unit that is as complete as it will get; `complete` is about the unit, not about what remote services did.

    Attributes:
        root: The local root; None if it has not ended.
    """

    root: S | None = None


class _Unit(Generic[S]):
    __slots__ = ("ended", "has_whole_root", "ids", "open", "opened", "root", "root_id", "size", "spans", "trace_id")

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
        self.root: S | None = None
        self.ended: float | None = None


def _admit_all(_trace_id: int, _is_head: bool) -> bool:  # noqa: FBT001 - see UnitAssembler
    return True


class UnitAssembler(Generic[S]):
    """
    Not thread-safe: one owner, which passes the time. Trace and span ids are numbers, as in the SDK.

    A unit opens with its local root: a span without a parent, with a remote parent, or with a parent that is unknown
    here. Children join the unit of their parent, also of one that has ended. What joins no unit is the caller's alone.
    """

    def __init__(self, limits: AssemblyLimits, admits: Callable[[int, bool], bool] = _admit_all) -> None:
        """
        Args:
            limits: `root_cap`, `max_age` and the sizes count; the graces are for those who must guess.
            admits: Whether a unit of this trace is to be opened at all; the flag: its local root is a head of the trace,
                as opposed to a span whose parent should be here and is not (because that one was not admitted, say).
        """
        self._limits = limits
        self._admits = admits
        # Trace id -> span id -> unit, for every span of an open unit, ended ones included.
        self._traces: dict[int, dict[int, _Unit[S]]] = {}
        # Open units, oldest first; and those whose root has ended, in that order. Both delays are the same for all, so
        # the first one is always the next one due.
        self._units: OrderedDict[_Unit[S], None] = OrderedDict()
        self._lingering: OrderedDict[_Unit[S], None] = OrderedDict()
        # Traces that had a unit closed, least recently touched first.
        self._closed: OrderedDict[int, None] = OrderedDict()
        self._remembered = min(_REMEMBERED_PER_OPEN_UNIT * limits.max_traces, _MOST_REMEMBERED)
        self.size = 0
        """Estimated bytes of all spans that are held."""

    def __len__(self) -> int:
        return len(self._units)

    def is_open(self, trace_id: int) -> bool:
        """Tell whether a unit of this trace is open."""
        return trace_id in self._traces

    def known_spans(self) -> frozenset[int]:
        """Return the ids of all spans of open units."""
        return frozenset(span_id for trace in self._traces.values() for span_id in trace)

    def started(
        self, trace_id: int, span_id: int, parent_id: int | None, is_remote_parent: bool, now: float  # noqa: FBT001
    ) -> Sequence[ClosedUnit[S]]:
        """
        Note that a span has started.

        Args:
            trace_id: 128 bits.
            span_id: 64 bits.
            parent_id: None for a root.
            is_remote_parent: Whether the parent lives in another process.
            now: Monotonic seconds.

        Returns:
            Units that had to close to make room.
        """
        is_child = parent_id is not None and not is_remote_parent
        if is_child:
            trace = self._traces.get(trace_id)
            if trace is not None and (unit := trace.get(parent_id)) is not None:  # type: ignore[arg-type]  # is_child
                if len(unit.ids) >= self._limits.max_spans_per_trace:
                    # Spans that only ever start must not pile up either.
                    return self._closed_now(unit, CloseReason.SPAN_LIMIT)
                trace[span_id] = unit
                unit.open += 1
                unit.ids.append(span_id)
                return ()
            if trace_id in self._closed:
                # Its parent's unit is closed: late. Nothing is noted, so its own children are late too.
                return ()
        if not self._admits(trace_id, not is_child):
            return ()
        evicted = self._make_room()
        unit = _Unit[S](trace_id, span_id, now, has_whole_root=not is_child)
        self._units[unit] = None
        self._traces.setdefault(trace_id, {})[span_id] = unit
        return evicted

    def ended(
        self, trace_id: int, span_id: int, span: S, size: int, now: float
    ) -> tuple[Place, Sequence[ClosedUnit[S]]]:
        """
        Note that a span has ended.

        Args:
            trace_id: 128 bits.
            span_id: 64 bits.
            span: The ended span.
            size: Its estimated size in bytes.
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
            return _NOWHERE
        unit.spans.append(span)
        unit.open -= 1
        unit.size += size
        self.size += size
        is_root = span_id == unit.root_id
        if is_root:
            unit.root = span
            unit.ended = now
            if unit.open:
                self._lingering[unit] = None
        if not unit.open:
            closed: Sequence[ClosedUnit[S]] = (self._close(unit, CloseReason.ALL_CLOSED),)
        elif len(unit.spans) >= self._limits.max_spans_per_trace:
            closed = (self._close(unit, CloseReason.SPAN_LIMIT),)
        elif unit.size >= self._limits.max_bytes_per_trace:
            closed = (self._close(unit, CloseReason.BYTE_LIMIT),)
        else:
            return _ROOT if is_root else _CHILD
        return (Place.ROOT if is_root else Place.CHILD), closed

    def due(self, now: float) -> list[ClosedUnit[S]]:
        """Close the units whose time has come."""
        closed: list[ClosedUnit[S]] = []
        while self._lingering and _root_ended(first := next(iter(self._lingering))) + self._limits.root_cap <= now:
            self._close_into(closed, first, CloseReason.ROOT_QUIET)
        while self._units and (first := next(iter(self._units))).opened + self._limits.max_age <= now:
            self._close_into(closed, first, CloseReason.MAX_AGE)
        return closed

    def next_deadline(self) -> float | None:
        """Return when `due` will next have something to say, or None while nothing is open."""
        if not self._units:
            return None
        deadline = next(iter(self._units)).opened + self._limits.max_age
        if self._lingering:
            return min(deadline, _root_ended(next(iter(self._lingering))) + self._limits.root_cap)
        return deadline

    def drain(self, reason: CloseReason, trace_id: int | None = None) -> list[ClosedUnit[S]]:
        """Close every unit, or those of one trace, oldest first. Units of which no span has ended are given up."""
        closed: list[ClosedUnit[S]] = []
        units = self._units if trace_id is None else dict.fromkeys(self._traces.get(trace_id, {}).values())
        for unit in list(units):
            self._close_into(closed, unit, reason)
        return closed

    def drain_lingering(self) -> list[ClosedUnit[S]]:
        """Close the units whose root has ended, although other spans of theirs have not."""
        closed: list[ClosedUnit[S]] = []
        for unit in list(self._lingering):
            self._close_into(closed, unit, CloseReason.ROOT_QUIET)
        return closed

    def _make_room(self) -> Sequence[ClosedUnit[S]]:
        limits = self._limits
        is_full = len(self._units) >= limits.max_traces or self.size >= _LARGEST_UNITS * limits.max_bytes_per_trace
        if not is_full or not self._units:
            return ()
        oldest = islice(self._units, _EVICTION_CANDIDATES)
        return self._closed_now(max(oldest, key=lambda unit: unit.size), CloseReason.EVICTED)

    def _closed_now(self, unit: _Unit[S], reason: CloseReason) -> list[ClosedUnit[S]]:
        closed: list[ClosedUnit[S]] = []
        self._close_into(closed, unit, reason)
        return closed

    def _close_into(self, closed: list[ClosedUnit[S]], unit: _Unit[S], reason: CloseReason) -> None:
        made = self._close(unit, reason)
        if made.spans:
            closed.append(made)

    def _close(self, unit: _Unit[S], reason: CloseReason) -> ClosedUnit[S]:
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
        self._closed[trace_id] = None
        self._closed.move_to_end(trace_id)
        if len(self._closed) > self._remembered:
            self._closed.popitem(last=False)
        count("assembler.closed", reason=reason.value)
        count("assembler.spans", len(unit.spans))
        complete = reason is CloseReason.ALL_CLOSED and unit.has_whole_root
        return ClosedUnit(trace_id.to_bytes(16, "big"), unit.spans, reason, complete, root=unit.root)


def _root_ended(unit: _Unit[S]) -> float:
    """Return when the root of a lingering unit ended."""
    return unit.opened if unit.ended is None else unit.ended


# What most ended spans get; made once.
_ROOT: Final = (Place.ROOT, ())
_CHILD: Final = (Place.CHILD, ())
_NOWHERE: Final = (Place.NONE, ())
