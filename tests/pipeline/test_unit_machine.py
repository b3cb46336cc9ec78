"""Units of traces (`trigger: local_root`) against a naive model, whatever comes in whatever order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.pipeline.raw_spans import a_span

from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, ClosedTrace, CloseReason, TraceAssembler, Trigger

LIMITS = AssemblyLimits(
    trigger=Trigger.LOCAL_ROOT,
    root_grace=1.0,
    root_cap=4.0,
    idle_timeout=6.0,
    max_age=7.0,
    max_traces=3,
    max_spans_per_trace=5,
    max_bytes_per_trace=2400,
)
REMEMBERED = 30


@dataclass
class Arrival:
    at: float
    span: RawSpan

    @property
    def is_head(self) -> bool:
        return self.span.parent_id is None or self.span.is_local_root


@dataclass
class Unit:
    """Spans that belong together, worked out anew each time, and what of ours is about them."""

    arrivals: list[Arrival]
    own: list[RawSpan] = field(default_factory=list[RawSpan])

    @property
    def ids(self) -> set[bytes]:
        return {arrival.span.span_id for arrival in self.arrivals}

    @property
    def missing(self) -> set[bytes]:
        parents = {each.span.parent_id for each in self.arrivals if not each.is_head}
        return {parent for parent in parents if parent is not None and parent not in self.ids}

    @property
    def size(self) -> int:
        return sum(span.size for span in [*(each.span for each in self.arrivals), *self.own])

    @property
    def deadline(self) -> float:
        first, last = self.arrivals[0].at, max(each.at for each in self.arrivals)
        heads = [each.at for each in self.arrivals if each.is_head]
        quiet = min(last + LIMITS.root_grace, heads[0] + LIMITS.root_cap) if heads else last + LIMITS.idle_timeout
        return min(quiet, first + LIMITS.max_age)

    def belongs(self, other: Unit) -> bool:
        """Whether two units are one: a span of one waits for a span of the other, or both wait for the same one."""
        return bool(
            self.missing & other.ids or other.missing & self.ids or self.missing & other.missing or self.ids & other.ids
        )


@dataclass
class Memory:
    """What is known of a closed unit."""

    trace_id: bytes
    ids: list[bytes]


def units_of(arrivals: Iterable[Arrival], own: Iterable[RawSpan]) -> list[Unit]:
    units: list[Unit] = []
    for arrival in arrivals:
        new = Unit([arrival])
        trace_id = arrival.span.trace_id
        mine = [unit for unit in units if unit.arrivals[0].span.trace_id == trace_id and unit.belongs(new)]
        units = [unit for unit in units if unit not in mine]
        units.append(
            Unit(sorted([*(each for unit in mine for each in unit.arrivals), arrival], key=lambda one: one.at))
        )
    for span in own:
        for unit in units:
            if unit.arrivals[0].span.trace_id == span.trace_id and span.parent_id in unit.ids:
                unit.own.append(span)
    return units


class EverySpanLeavesWithItsUnit(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.assembler = TraceAssembler(LIMITS)
        self.now = 0.0
        self.open: list[Arrival] = []
        self.own: list[RawSpan] = []
        self.memory: list[Memory] = []
        self.sent: list[RawSpan] = []
        self.gone: list[RawSpan] = []

    @rule(
        shapes=st.lists(
            st.tuples(
                st.sampled_from([1, 1, 1, 2, 3]),
                st.integers(1, 12),
                st.sampled_from([None, 1, 2, 3, 4, 5, 6, 7, 8]),
                st.just(2),
                st.sampled_from(["span", "span", "span", "local root", "own"]),
                st.sampled_from([0, 0, 0, 900]),
            ),
            max_size=6,
        )
    )
    def spans_arrive(self, shapes: list[tuple[int, int, int | None, int, str, int]]) -> None:
        spans = [a_span(*shape) for shape in shapes]
        self.sent += spans

        added = self.assembler.add(spans, self.now)

        closed = list(added.closed)
        late: list[RawSpan] = []
        duplicates: list[RawSpan] = []
        passed: list[RawSpan] = []
        for span in spans:
            if span.is_own:
                self._own_span(span, duplicates, passed)
            elif self._known(span):
                duplicates.append(span)
            elif self._late(span, late):
                continue
            else:
                self._buffer(span, closed)
        assert (added.late, added.duplicates, added.own) == (late, duplicates, passed)
        assert closed == []
        self.gone += [*added.late, *added.duplicates]

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = [unit for unit in self._units() if unit.deadline <= self.now]

        closed = self.assembler.due(self.now)

        assert len(closed) == len(due)
        for trace in closed:
            self._closes(trace)

    @rule()
    def it_is_drained(self) -> None:
        for trace in self.assembler.drain(CloseReason.SHUTDOWN, self.now):
            self._closes(trace)
        assert self.open == []

    @invariant()
    def memory_is_bounded(self) -> None:
        assembler, units = self.assembler, self._units()
        assert len(assembler) == len(units) <= LIMITS.max_traces
        assert assembler.size == sum(unit.size for unit in units)
        assert assembler.remembered == len(self.memory) <= 10 * LIMITS.max_traces

    @invariant()
    def a_deadline_exists_while_anything_is_buffered(self) -> None:
        deadline = self.assembler.next_deadline()
        earliest = min((unit.deadline for unit in self._units()), default=math.inf)
        assert (deadline is None) == (not self.open)
        assert deadline is None or deadline <= earliest

    def teardown(self) -> None:
        if not hasattr(self, "assembler"):
            return
        self.it_is_drained()
        kept = Counter(map(id, self.gone))
        assert all(kept[id(span)] == 1 for span in self.sent if not span.is_own)
        assert (self.assembler.size, self.assembler.next_deadline()) == (0, None)

    def _units(self) -> list[Unit]:
        return units_of(self.open, self.own)

    def _unit_of(self, trace_id: bytes, span_id: bytes | None) -> Unit | None:
        here = [unit for unit in self._units() if unit.arrivals[0].span.trace_id == trace_id]
        return next((unit for unit in here if span_id in unit.ids), None)

    def _known(self, span: RawSpan) -> bool:
        return any(
            (other.trace_id, other.span_id, other.kind) == (span.trace_id, span.span_id, span.kind)
            for other in (each.span for each in self.open)
        )

    def _own_span(self, span: RawSpan, duplicates: list[RawSpan], passed: list[RawSpan]) -> None:
        unit = self._unit_of(span.trace_id, span.parent_id)
        if unit is not None and span.span_id in {other.span_id for other in unit.own}:
            duplicates.append(span)
            return
        passed.append(span)
        if unit is not None and len(unit.own) < 5 and unit.size + span.size < LIMITS.max_bytes_per_trace:
            self.own.append(span)

    def _late(self, span: RawSpan, late: list[RawSpan]) -> bool:
        if self._unit_of(span.trace_id, span.span_id) is not None:
            return False
        memory = self._remembered(span.trace_id, span.span_id)
        if memory is None and not Arrival(0, span).is_head:
            memory = self._remembered(span.trace_id, span.parent_id)
        if memory is None:
            return False
        self.memory.remove(memory)
        self.memory.append(memory)
        late.append(span)
        ids = [span.span_id]
        for unit in self._units():
            if unit.arrivals[0].span.trace_id == span.trace_id and span.span_id in unit.missing:
                late += [each.span for each in unit.arrivals]
                ids += unit.ids
                self._forget(unit)
        self._learn(memory, ids)
        if not Arrival(0, span).is_head and self._unit_of(span.trace_id, span.parent_id) is None:
            self._learn(memory, [span.parent_id])
        return True

    def _buffer(self, span: RawSpan, closed: list[ClosedTrace[RawSpan]]) -> None:
        arrival = Arrival(self.now, span)
        alone = not any(
            unit.belongs(Unit([arrival])) and unit.arrivals[0].span.trace_id == span.trace_id for unit in self._units()
        )
        if alone and len(self._units()) == LIMITS.max_traces:
            heaviest = max(unit.size for unit in self._units())
            assert closed[0].reason is CloseReason.EVICTED
            assert closed[0].size == heaviest
            self._closes(closed.pop(0))
        self.open.append(arrival)
        unit = self._unit_of(span.trace_id, span.span_id)
        assert unit is not None
        if len(unit.arrivals) >= LIMITS.max_spans_per_trace or unit.size >= LIMITS.max_bytes_per_trace:
            assert closed[0].reason in {CloseReason.SPAN_LIMIT, CloseReason.BYTE_LIMIT}
            self._closes(closed.pop(0))

    def _closes(self, trace: ClosedTrace[RawSpan]) -> None:
        """Check that what closed is a unit, all of it, and forget it."""
        unit = self._unit_of(trace.trace_id, trace.spans[0].span_id)
        assert unit is not None
        spans = [span for span in trace.spans if not span.is_own]
        assert Counter(map(id, spans)) == Counter(id(each.span) for each in unit.arrivals)
        heads = [each.span.span_id for each in unit.arrivals if each.is_head]
        assert trace.unit == min(heads or unit.missing or unit.ids)
        self.gone += spans
        memory = Memory(trace.trace_id, [])
        self.memory.append(memory)
        if len(self.memory) > REMEMBERED:
            self.memory.pop(0)
        self._learn(memory, [*unit.ids, *unit.missing], always=True)
        self._forget(unit)

    def _forget(self, unit: Unit) -> None:
        self.open = [each for each in self.open if each not in unit.arrivals]
        self.own = [span for span in self.own if span not in unit.own]

    def _remembered(self, trace_id: bytes, span_id: bytes | None) -> Memory | None:
        return next((one for one in self.memory if one.trace_id == trace_id and span_id in one.ids), None)

    def _learn(self, memory: Memory, ids: Iterable[Any], *, always: bool = False) -> None:
        if not always and len(self.memory) == 1 and len(memory.ids) >= REMEMBERED:
            return
        memory.ids += [each for each in dict.fromkeys(ids) if self._remembered(memory.trace_id, each) is None]
        while sum(len(one.ids) for one in self.memory) > REMEMBERED and len(self.memory) > 1:
            self.memory.pop(0)


TestEverySpanLeavesWithItsUnit = EverySpanLeavesWithItsUnit.TestCase
TestEverySpanLeavesWithItsUnit.settings = settings(max_examples=120, stateful_step_count=25)
