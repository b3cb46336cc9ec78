"""The rules by which units open and close; time is an argument, so nothing here waits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, CloseReason
from otel_scorer.pipeline.in_app.units import ClosedUnit, Place, UnitAssembler
from otel_scorer.telemetry import snapshot

LATE = "assembler.late_spans{policy=ignore}"


def late_spans() -> int:
    return snapshot().get(LATE, 0)


class Tracer:
    """Starts and ends spans by number, in the words of a test."""

    def __init__(self, units: UnitAssembler[int]) -> None:
        self.units = units

    def start(
        self, span: int, parent: int | None = None, *, remote: bool = False, trace: int = 1, now: float = 0.0
    ) -> list[ClosedUnit[int]]:
        return list(self.units.started(trace, span, parent, now, is_remote_parent=remote))

    def end(self, span: int, *, trace: int = 1, now: float = 0.0) -> tuple[Place, list[ClosedUnit[int]]]:
        place, closed = self.units.ended(trace, span, span, now)
        return place, list(closed)


def tracer(limits: AssemblyLimits | None = None) -> Tracer:
    return Tracer(UnitAssembler(limits or AssemblyLimits()))


def test_a_unit_closes_exactly_when_its_last_open_span_has_ended() -> None:
    spans = tracer()
    spans.start(1)
    spans.start(2, parent=1)

    assert spans.end(2) == (Place.CHILD, [])
    place, [unit] = spans.end(1)

    assert place is Place.ROOT
    assert unit.spans == [2, 1]
    assert unit.root == 1
    assert unit.reason is CloseReason.ALL_CLOSED
    assert unit.complete
    assert unit.trace_id == (1).to_bytes(16)
    assert len(spans.units) == 0


def test_a_gap_between_two_children_does_not_close_a_unit() -> None:
    spans = tracer()
    spans.start(1)
    spans.start(2, parent=1)
    spans.end(2)

    spans.start(3, parent=1)
    spans.end(3)

    assert spans.end(1)[1][0].spans == [2, 3, 1]


def test_a_child_of_a_span_that_has_ended_joins_its_unit() -> None:
    spans = tracer()
    spans.start(1)
    spans.start(2, parent=1)
    spans.end(2)

    spans.start(3, parent=2)
    closed_by_root = spans.end(1)[1]
    [unit] = spans.end(3)[1]

    assert closed_by_root == []
    assert unit.spans == [2, 1, 3]
    assert unit.reason is CloseReason.ALL_CLOSED


def test_every_remote_parent_opens_a_unit_of_its_own() -> None:
    spans = tracer()
    spans.start(10, parent=99, remote=True)
    spans.start(20, parent=99, remote=True)
    spans.start(11, parent=10)

    [second] = spans.end(20)[1]
    spans.end(11)
    [first] = spans.end(10)[1]

    assert (first.spans, second.spans) == ([11, 10], [20])
    assert first.complete
    assert second.complete


def test_a_span_whose_local_parent_is_unknown_opens_an_incomplete_unit() -> None:
    spans = tracer()
    spans.start(2, parent=1)

    [unit] = spans.end(2)[1]

    assert unit.reason is CloseReason.ALL_CLOSED
    assert not unit.complete


def test_spans_that_outlive_the_root_keep_the_unit_open_up_to_the_cap() -> None:
    spans = tracer(AssemblyLimits(root_cap=30))
    spans.start(1)
    spans.start(2, parent=1)
    spans.start(3, parent=1)
    spans.end(1, now=10)
    spans.end(2, now=20)

    assert spans.units.next_deadline() == 40
    assert spans.units.due(39.9) == []
    [unit] = spans.units.due(40)

    assert unit.spans == [1, 2]
    assert unit.root == 1
    assert unit.reason is CloseReason.ROOT_QUIET
    assert not unit.complete


def test_a_unit_whose_spans_never_end_closes_at_its_greatest_age() -> None:
    spans = tracer(AssemblyLimits(max_age=100))
    spans.start(1, now=5)
    spans.start(2, parent=1, now=50)
    spans.end(2, now=60)

    assert spans.units.next_deadline() == 105
    [unit] = spans.units.due(105)

    assert unit.spans == [2]
    assert unit.root is None
    assert unit.reason is CloseReason.MAX_AGE


def test_a_unit_of_which_nothing_has_ended_closes_without_spans() -> None:
    spans = tracer(AssemblyLimits(max_age=100))
    spans.start(1)

    [unit] = spans.units.due(100)

    assert (unit.spans, unit.reason, unit.complete) == ([], CloseReason.MAX_AGE, False)
    assert len(spans.units) == 0
    assert spans.units.next_deadline() is None


def test_a_span_that_starts_after_its_unit_closed_is_late_and_so_are_its_children() -> None:
    spans = tracer()
    before = late_spans()
    spans.start(1)
    spans.end(1)

    spans.start(2, parent=1)
    spans.start(3, parent=2)

    assert spans.end(3) == (Place.NONE, [])
    assert spans.end(2) == (Place.NONE, [])
    assert late_spans() == before + 2
    assert len(spans.units) == 0


def test_a_span_that_was_open_when_its_unit_closed_is_late() -> None:
    spans = tracer(AssemblyLimits(root_cap=1))
    before = late_spans()
    spans.start(1)
    spans.start(2, parent=1)
    spans.end(1)
    spans.units.due(1)

    assert spans.end(2) == (Place.NONE, [])
    assert late_spans() == before + 1


def test_late_spans_are_counted_by_the_time_since_their_unit_closed() -> None:
    spans = tracer()
    before = snapshot()
    spans.start(1)
    spans.end(1, now=100)
    for late, now in ((2, 100.5), (3, 130), (4, 5000)):
        spans.start(late, parent=1, now=now)
        spans.end(late, now=now)

    ages = {under: f"assembler.late_span_age{{under={under}}}" for under in ("1s", "10s", "1m", "ever")}
    counted = {under: snapshot().get(name, 0) - before.get(name, 0) for under, name in ages.items()}

    assert counted == {"1s": 1, "10s": 0, "1m": 1, "ever": 1}


def test_a_closed_trace_is_remembered_as_long_as_late_spans_keep_coming() -> None:
    spans = tracer(AssemblyLimits(max_traces=1))
    spans.start(1, trace=99)
    spans.end(1, trace=99)

    for trace in range(1, 30):
        spans.start(1, trace=trace)
        spans.end(1, trace=trace)
        spans.start(2, parent=1, trace=99)
        assert spans.end(2, trace=99) == (Place.NONE, [])


def test_a_new_root_in_a_trace_that_was_closed_opens_a_new_unit() -> None:
    spans = tracer()
    spans.start(1)
    spans.end(1)

    spans.start(2)

    assert spans.end(2)[1][0].spans == [2]


def test_a_unit_closes_at_the_greatest_number_of_spans() -> None:
    spans = tracer(AssemblyLimits(max_spans_per_trace=2))
    spans.start(1)
    spans.start(2, parent=1)
    spans.end(2)
    # The third one finds the unit full and closes it.
    [unit] = spans.start(3, parent=1)

    assert unit.spans == [2]
    assert unit.reason is CloseReason.SPAN_LIMIT
    assert spans.end(3)[0] is Place.NONE
    assert spans.end(1)[0] is Place.NONE


def test_a_unit_closes_at_the_greatest_size() -> None:
    units: UnitAssembler[int] = UnitAssembler(AssemblyLimits(max_bytes_per_trace=250), measure=lambda span: 100)
    spans = Tracer(units)
    for span in (1, 2, 3, 4):
        spans.start(span, parent=None if span == 1 else 1)
    spans.end(2)
    spans.end(3)
    held = units.size

    [unit] = spans.end(4)[1]

    assert held == 200
    assert unit.reason is CloseReason.BYTE_LIMIT
    assert units.size == 0


def test_too_many_units_close_the_heaviest_of_the_oldest() -> None:
    spans = tracer(AssemblyLimits(max_traces=2))
    spans.start(1, trace=1)
    spans.start(1, trace=2)
    spans.start(2, parent=1, trace=2)
    spans.end(2, trace=2)

    [evicted] = spans.start(1, trace=3)

    assert evicted.trace_id == (2).to_bytes(16)
    assert evicted.reason is CloseReason.EVICTED
    assert not evicted.complete
    assert len(spans.units) == 2


def test_draining_one_trace_leaves_the_others_alone() -> None:
    spans = tracer()
    for trace in (1, 2):
        spans.start(1, trace=trace)
        spans.start(2, parent=1, trace=trace)
        spans.end(2, trace=trace)

    [unit] = spans.units.drain(CloseReason.SHUTDOWN, 0.0, 1)

    assert unit.trace_id == (1).to_bytes(16)
    assert not spans.units.is_open(1)
    assert spans.units.is_open(2)


def test_only_units_whose_root_has_ended_linger() -> None:
    spans = tracer()
    spans.start(1, trace=1)
    spans.start(2, parent=1, trace=1)
    spans.start(1, trace=2)
    spans.end(1, trace=1)

    [unit] = spans.units.drain_lingering(0.0)

    assert unit.spans == [1]
    assert spans.units.is_open(2)


def test_what_is_not_admitted_is_not_held_and_asked_for_once() -> None:
    asked: list[tuple[int, bool]] = []

    def admits(trace_id: int, is_head: bool) -> bool:
        asked.append((trace_id, is_head))
        return False

    spans = Tracer(UnitAssembler(AssemblyLimits(), admits))
    spans.start(1)
    spans.start(2, parent=1)
    spans.start(3, parent=2)

    assert spans.end(3) == (Place.NONE, [])
    assert asked == [(1, True)]
    assert len(spans.units) == 0


@pytest.mark.parametrize("limits", [AssemblyLimits(), AssemblyLimits(max_traces=3)])
def test_nothing_is_kept_of_closed_units_but_their_trace_ids(limits: AssemblyLimits) -> None:
    spans = tracer(limits)
    for trace in range(1, 100):
        spans.start(1, trace=trace)
        spans.start(2, parent=1, trace=trace)
        spans.end(2, trace=trace)
        spans.end(1, trace=trace)

    assert not spans.units._traces  # noqa: SLF001 - span ids have no other trace
    assert spans.units.size == 0
    assert spans.units.next_deadline() is None


class NoSpanIsLostOrInTwoUnits(RuleBasedStateMachine):
    """Any program of starts, ends and waiting: each ended span is in one unit, or was said to be in none."""

    @initialize(max_traces=st.integers(1, 4), max_spans=st.integers(1, 6))
    def begin(self, max_traces: int, max_spans: int) -> None:
        self.limits = AssemblyLimits(
            max_traces=max_traces, max_spans_per_trace=max_spans, root_cap=5, max_age=50, max_bytes_per_trace=1 << 20
        )
        self.units: UnitAssembler[tuple[int, int]] = UnitAssembler(self.limits)
        self.now = 0.0
        self.open: list[tuple[int, int]] = []
        self.ended: list[tuple[int, int]] = []
        self.started: list[tuple[int, int]] = []
        self.in_units: Counter[tuple[int, int]] = Counter()
        self.in_none: Counter[tuple[int, int]] = Counter()

    def take(self, closed: object) -> None:
        for unit in closed:  # type: ignore[attr-defined]
            assert len(unit.spans) <= self.limits.max_spans_per_trace
            self.in_units.update(unit.spans)

    @rule(trace=st.integers(1, 3), parent=st.integers(0, 30), kind=st.sampled_from(["root", "remote", "child"]))
    def a_span_starts(self, trace: int, parent: int, kind: str) -> None:
        span = (trace, len(self.started) + 1)
        self.started.append(span)
        self.open.append(span)
        parent_id = None if kind == "root" else parent + 1
        self.take(self.units.started(*span, parent_id, self.now, is_remote_parent=kind == "remote"))

    @rule(which=st.integers(0, 100))
    def a_span_ends(self, which: int) -> None:
        if not self.open:
            return
        span = self.open.pop(which % len(self.open))
        self.ended.append(span)
        place, closed = self.units.ended(*span, span, self.now)
        if place is Place.NONE:
            self.in_none[span] += 1
        self.take(closed)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.units.due(self.now))
        deadline = self.units.next_deadline()
        assert deadline is None or deadline > self.now

    @rule(trace=st.integers(1, 3))
    def a_trace_is_flushed(self, trace: int) -> None:
        self.take(self.units.drain(CloseReason.SHUTDOWN, self.now, trace))
        assert not self.units.is_open(trace)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.units) <= self.limits.max_traces
        known = sum(map(len, self.units._traces.values()))  # noqa: SLF001 - nothing else tells
        assert known <= self.limits.max_traces * self.limits.max_spans_per_trace
        if not len(self.units):
            assert self.units.size == 0

    def teardown(self) -> None:
        if not hasattr(self, "units"):
            return
        self.take(self.units.drain(CloseReason.SHUTDOWN, self.now))
        assert self.in_units + self.in_none == Counter(self.ended)
        assert self.units.next_deadline() is None


TestNoSpanIsLostOrInTwoUnits = NoSpanIsLostOrInTwoUnits.TestCase
TestNoSpanIsLostOrInTwoUnits.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
