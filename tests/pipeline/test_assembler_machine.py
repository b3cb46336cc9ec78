"""The assembler against a naive model of it, over whatever arrivals, waits and drains Hypothesis thinks of."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.pipeline.raw_spans import a_span

from otel_scorer.model.log_records import RawLog
from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.assembly.assembler import (
    Added,
    AssemblyLimits,
    ClosedTrace,
    CloseReason,
    LatePolicy,
    TraceAssembler,
    Trigger,
)

# A few that get most of the spans, and more than are ever open at once.
TRACES = [1, 1, 1, 2, 2, 2, 3, 3, *range(4, 13)]
LIMITS = AssemblyLimits(
    root_grace=1.0,
    root_cap=4.0,
    local_root_grace=2.0,
    idle_timeout=6.0,
    max_age=7.0,
    max_traces=3,
    max_spans_per_trace=5,
    max_bytes_per_trace=2400,
    rescore_window=15.0,
    rescore_memory=5000,
)
# What closes for these reasons is not scored again.
FINAL = {CloseReason.SPAN_LIMIT, CloseReason.BYTE_LIMIT, CloseReason.MEMORY_PRESSURE, CloseReason.SHUTDOWN}


def fits(records: list[RawLog], record: RawLog) -> bool:
    """Whether a log record is kept beside those of the same trace: a repetition is not, nor what is too much."""
    size = sum(each.size for each in records) + record.size
    return (
        record not in records and len(records) < LIMITS.max_spans_per_trace and size <= LIMITS.max_bytes_per_trace // 2
    )


@dataclass
class ModelTrace:
    """All that is known of an open trace, as a list of what came when; everything else is worked out anew each time."""

    arrivals: list[tuple[float, RawSpan]] = field(default_factory=list[tuple[float, RawSpan]])
    own: list[RawSpan] = field(default_factory=list[RawSpan])
    logs: list[RawLog] = field(default_factory=list[RawLog])
    last_log: float = -math.inf

    @property
    def spans(self) -> list[RawSpan]:
        return [span for _, span in self.arrivals]

    @property
    def size(self) -> int:
        return sum(span.size for span in [*self.spans, *self.own]) + sum(record.size for record in self.logs)

    def has(self, span: RawSpan) -> bool:
        known = self.own if span.is_own else self.spans
        return any(other.span_id == span.span_id and (span.is_own or other.kind == span.kind) for other in known)

    def add_log(self, record: RawLog, now: float) -> None:
        if fits(self.logs, record):
            self.logs.append(record)
            self.last_log = now

    def deadline(self, trigger: Trigger) -> float:
        roots = [at for at, span in self.arrivals if span.parent_id is None]
        return self._deadline(trigger, self.arrivals[0][0], roots)

    def _deadline(self, trigger: Trigger, first: float, roots: list[float]) -> float:
        ids = {span.span_id for span in self.spans}
        last = max(self.arrivals[-1][0], self.last_log)
        has_local_root = trigger is not Trigger.ROOT and any(
            span.is_local_root and span.parent_id not in ids for span in self.spans
        )
        if roots:
            due = min(last + LIMITS.root_grace, roots[0] + LIMITS.root_cap)
        elif has_local_root:
            due = last + LIMITS.local_root_grace
        else:
            due = last + LIMITS.idle_timeout
        return min(due, first + LIMITS.max_age)


@dataclass
class KeptTrace(ModelTrace):
    """A closed trace that may be scored again; `before`: how many spans it had when late ones opened it."""

    closed_at: float = 0.0
    revision: int = 1
    before: int = 0

    def deadline(self, trigger: Trigger) -> float:
        first = self.arrivals[self.before][0]
        had_root = any(span.parent_id is None for span in self.spans[: self.before])
        late_roots = [at for at, span in self.arrivals[self.before :] if span.parent_id is None]
        return self._deadline(trigger, first, [first] if had_root else late_roots)


@dataclass
class Kept:
    """Closed traces that may be scored again, and which of them late spans have opened."""

    closed: dict[bytes, KeptTrace] = field(default_factory=dict[bytes, KeptTrace])
    opened: dict[bytes, KeptTrace] = field(default_factory=dict[bytes, KeptTrace])

    @property
    def size(self) -> int:
        return sum(trace.size for trace in [*self.closed.values(), *self.opened.values()])

    def find(self, trace_id: bytes) -> KeptTrace | None:
        return self.closed.get(trace_id) or self.opened.get(trace_id)

    def keep(self, trace_id: bytes, trace: ModelTrace, reason: CloseReason, now: float) -> None:
        self.expire(now)
        if reason not in FINAL and self.make_room(trace.size):
            self.closed[trace_id] = KeptTrace(trace.arrivals, trace.own, trace.logs, trace.last_log, closed_at=now)

    def add(self, span: RawSpan, now: float) -> bool:
        """Take a late span that is new; return whether the trace is scored again because of it."""
        trace = self.find(span.trace_id)
        if (
            trace is None
            or len(trace.arrivals) >= LIMITS.max_spans_per_trace
            or trace.size + span.size > LIMITS.max_bytes_per_trace
            or now - trace.closed_at >= LIMITS.rescore_window
            or not self.make_room(span.size, besides=span.trace_id)
        ):
            return False
        if span.trace_id in self.closed:
            self.opened[span.trace_id] = self.closed.pop(span.trace_id)
            trace.before = len(trace.arrivals)
        trace.arrivals.append((now, span))
        return True

    def add_log(self, record: RawLog, now: float) -> None:
        trace = self.find(record.trace_id)
        if trace is not None and self.make_room(record.size, besides=record.trace_id):
            trace.add_log(record, now)

    def expire(self, now: float) -> None:
        while self.closed and now - next(iter(self.closed.values())).closed_at >= LIMITS.rescore_window:
            del self.closed[next(iter(self.closed))]

    def make_room(self, size: int, besides: bytes = b"") -> bool:
        while self.size + size > LIMITS.rescore_memory:
            others = [trace_id for trace_id in self.closed if trace_id != besides]
            if not others:
                return False
            del self.closed[others[0]]
        return True


@dataclass
class WaitingLogs:
    """Log records of a trace that is not there yet."""

    first: float
    last: float
    records: list[RawLog] = field(default_factory=list[RawLog])


class NoSpanIsLostAndNoTraceClosesTwice(RuleBasedStateMachine):
    @initialize(trigger=st.sampled_from([Trigger.AUTO, Trigger.ROOT]), late=st.sampled_from(LatePolicy))
    def begin(self, trigger: Trigger, late: LatePolicy) -> None:
        self.trigger = trigger
        self.assembler = TraceAssembler(replace(LIMITS, trigger=trigger, late_spans=late))
        self.kept = Kept() if late is LatePolicy.RESCORE else None
        self.waiting: dict[bytes, WaitingLogs] = {}
        self.now = 0.0
        self.model: dict[bytes, ModelTrace] = {}
        self.sent: list[RawSpan] = []
        self.gone: list[RawSpan] = []
        self.closed: list[tuple[bytes, int]] = []

    @rule(
        shapes=st.lists(
            st.tuples(
                st.sampled_from(TRACES),
                st.integers(1, 7),
                st.sampled_from([None, None, 1, 2, 9]),
                st.sampled_from([2, 3]),
                st.sampled_from(["span", "span", "local root", "own"]),
                st.sampled_from([0, 0, 900]),
            ),
            max_size=6,
        )
    )
    def spans_arrive(self, shapes: list[tuple[int, int, int | None, int, str, int]]) -> None:
        spans = [a_span(*shape) for shape in shapes]
        self.sent += spans

        added = self.assembler.add(spans, self.now)

        expected = self._expect(spans)
        assert added.late == expected.late
        assert added.duplicates == expected.duplicates
        assert added.own == expected.own
        self._leave(added.closed)
        assert [trace.trace_id for trace in added.closed] == [trace.trace_id for trace in expected.closed]
        self.gone += [*added.late, *added.duplicates]

    @precondition(lambda self: self.closed)
    @rule(
        back=st.integers(0, 2),
        span=st.integers(1, 7),
        parent=st.sampled_from([None, 1, 2]),
        seconds=st.sampled_from([0.5, 2.0, 6.0, 7.0]),
    )
    def a_late_span_arrives_and_time_passes(self, back: int, span: int, parent: int | None, seconds: float) -> None:
        trace_id, _ = self.closed[-1 - back % len(self.closed)]
        self.spans_arrive([(int.from_bytes(trace_id, "big"), span, parent, 2, "span", 0)])
        self.time_passes(seconds)

    @rule(
        shapes=st.lists(
            st.tuples(st.sampled_from(TRACES), st.integers(1, 3), st.sampled_from([0, 1, 500]), st.integers(0, 3)),
            max_size=5,
        )
    )
    def log_records_arrive(self, shapes: list[tuple[int, int, int, int]]) -> None:
        records = [
            RawLog(bytes((text,)) * size, trace.to_bytes(16, "big"), span.to_bytes(8, "big"))
            for trace, span, size, text in shapes
        ]
        closed = {trace_id for trace_id, _ in self.closed}

        self.assembler.add_logs(records, self.now)

        for record in records:
            if (trace := self.model.get(record.trace_id)) is not None:
                trace.add_log(record, self.now)
            elif record.trace_id not in closed:
                self._wait(record)
            elif self.kept is not None:
                self.kept.add_log(record, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = {trace_id for trace_id, trace in self.model.items() if trace.deadline(self.trigger) <= self.now}
        again = {} if self.kept is None else self.kept.opened
        due_again = {trace_id for trace_id, trace in again.items() if trace.deadline(self.trigger) <= self.now}

        closed = self.assembler.due(self.now)

        first = [trace for trace in closed if trace.revision == 1]
        assert {trace.trace_id for trace in first} == due
        for trace in first:
            known = self.model.pop(trace.trace_id)
            self._compare(trace, known)
            if self.kept is not None:
                self.kept.keep(trace.trace_id, known, trace.reason, self.now)
        assert {trace.trace_id for trace in closed[len(first) :]} == due_again
        for trace in closed[len(first) :]:
            self._closes_again(trace)
        self._leave(closed)
        self._forget_waiting(until=self.now - LIMITS.idle_timeout)

    @rule(size=st.sampled_from([1, 500, 2000, 1 << 20]), older_than=st.sampled_from([0.0, 1.0, 4.0]))
    def memory_is_short(self, size: int, older_than: float) -> None:
        ages = {trace_id: self.now - trace.arrivals[0][0] for trace_id, trace in self.model.items()}
        weights = {
            trace_id: trace.size * (1 + 3 * min(1.0, ages[trace_id] / LIMITS.idle_timeout))
            for trace_id, trace in self.model.items()
        }

        closed = self.assembler.relieve(size, self.now, older_than=older_than)

        if self.kept is not None:
            size -= sum(trace.size for trace in self.kept.closed.values())
            self.kept.closed.clear()
        for trace in closed:
            old = {trace_id for trace_id in self.model if ages[trace_id] >= older_than}
            assert size > 0
            assert trace.reason is CloseReason.MEMORY_PRESSURE
            assert weights[trace.trace_id] == max(weights[trace_id] for trace_id in old)
            size -= self.model[trace.trace_id].size
            self._compare(trace, self.model.pop(trace.trace_id))
        assert size <= 0 or not any(ages[trace_id] >= older_than for trace_id in self.model)
        self._leave(closed)

    @rule()
    def it_is_drained(self) -> None:
        closed = self.assembler.drain(CloseReason.SHUTDOWN, self.now)

        again = [] if self.kept is None else list(self.kept.opened)
        assert [trace.trace_id for trace in closed] == [*self.model, *again]
        for trace in closed:
            if trace.revision == 1:
                self._compare(trace, self.model.pop(trace.trace_id))
            else:
                self._closes_again(trace)
        if self.kept is not None:
            self.kept.closed.clear()
        self.waiting.clear()
        self._leave(closed)

    @invariant()
    def memory_is_bounded(self) -> None:
        assembler = self.assembler
        assert len(assembler) == len(self.model) <= LIMITS.max_traces
        assert assembler.size == sum(trace.size for trace in self.model.values())
        # Log records may take half of what spans may, beside them.
        assert assembler.size <= LIMITS.max_traces * LIMITS.max_bytes_per_trace * 1.5
        assert assembler.kept_size == (0 if self.kept is None else self.kept.size) <= LIMITS.rescore_memory
        assert assembler.remembered <= 10 * LIMITS.max_traces
        timers = len(assembler._deadlines)  # noqa: SLF001 - what it costs is not what it does, so nothing public tells
        assert timers <= 2 * LIMITS.max_traces + 64

    @invariant()
    def a_deadline_exists_while_anything_is_buffered(self) -> None:
        deadline = self.assembler.next_deadline()
        again = {} if self.kept is None else self.kept.opened
        deadlines = [trace.deadline(self.trigger) for trace in (*self.model.values(), *again.values())]
        deadlines += [waiting.last + LIMITS.idle_timeout for waiting in self.waiting.values()]
        # It may be early, for a span that came meanwhile only moves it when it is looked at; it is never late.
        assert (deadline is None) == (not deadlines)
        assert deadline is None or deadline <= min(deadlines)

    @invariant()
    def no_trace_is_closed_twice_with_one_revision(self) -> None:
        assert len(self.closed) == len(set(self.closed))

    def teardown(self) -> None:
        if not hasattr(self, "assembler"):
            return
        self.it_is_drained()
        kept = Counter(map(id, self.gone))
        assert all(kept[id(span)] == 1 for span in self.sent if not span.is_own)
        assert max(kept.values(), default=1) == 1
        assert (self.assembler.size, self.assembler.kept_size, self.assembler.next_deadline()) == (0, 0, None)

    def _expect(self, spans: list[RawSpan]) -> Added:
        """Work out what should become of a batch, span by span."""
        expected = Added()
        closed = {trace_id for trace_id, _ in self.closed}
        for span in spans:
            trace = self.model.get(span.trace_id)
            if trace is None and span.is_own:
                expected.own.append(span)
            elif trace is None and span.trace_id in closed:
                self._come_late(span, expected)
            elif trace is not None and trace.has(span):
                expected.duplicates.append(span)
            elif trace is not None and span.is_own:
                expected.own.append(span)
                fits = (
                    len(trace.own) < LIMITS.max_spans_per_trace and trace.size + span.size < LIMITS.max_bytes_per_trace
                )
                if fits:
                    trace.own.append(span)
            else:
                self._buffer(span, expected, closed)
        return expected

    def _buffer(self, span: RawSpan, expected: Added, closed: set[bytes]) -> None:
        if span.trace_id not in self.model and len(self.model) == LIMITS.max_traces:
            heaviest = max(self.model, key=lambda trace_id: self.model[trace_id].size)
            self._close(heaviest, CloseReason.EVICTED, expected, closed)
        if span.trace_id not in self.model:
            waiting = self.waiting.pop(span.trace_id, None)
            self.model[span.trace_id] = ModelTrace(logs=[] if waiting is None else waiting.records)
        trace = self.model[span.trace_id]
        trace.arrivals.append((self.now, span))
        if len(trace.arrivals) >= LIMITS.max_spans_per_trace:
            self._close(span.trace_id, CloseReason.SPAN_LIMIT, expected, closed)
        elif trace.size >= LIMITS.max_bytes_per_trace:
            self._close(span.trace_id, CloseReason.BYTE_LIMIT, expected, closed)

    def _close(self, trace_id: bytes, reason: CloseReason, expected: Added, closed: set[bytes]) -> None:
        trace = self.model.pop(trace_id)
        if self.kept is not None:
            self.kept.keep(trace_id, trace, reason, self.now)
        closed.add(trace_id)
        expected.closed.append(ClosedTrace(trace_id, [*trace.spans, *trace.own], reason, complete=False))

    def _come_late(self, span: RawSpan, expected: Added) -> None:
        if self.kept is not None:
            self.kept.expire(self.now)
            kept = self.kept.find(span.trace_id)
            if kept is not None and kept.has(span):
                expected.duplicates.append(span)
                return
            self.kept.add(span, self.now)
        expected.late.append(span)

    def _wait(self, record: RawLog) -> None:
        waiting = self.waiting.pop(record.trace_id, None)
        if waiting is None or self.now - waiting.first >= LIMITS.max_age:
            waiting = WaitingLogs(self.now, self.now)
        if fits(waiting.records, record):
            waiting.records.append(record)
        waiting.last = self.now
        if waiting.records:
            self.waiting[record.trace_id] = waiting
        most = 2 * LIMITS.max_bytes_per_trace
        while (
            len(self.waiting) > LIMITS.max_traces
            or sum(each.size for one in self.waiting.values() for each in one.records) > most
        ):
            del self.waiting[next(iter(self.waiting))]

    def _forget_waiting(self, until: float) -> None:
        self.waiting = {trace_id: waiting for trace_id, waiting in self.waiting.items() if waiting.last > until}

    def _compare(self, trace: ClosedTrace[RawSpan], known: ModelTrace) -> None:
        assert trace.spans == [*known.spans, *known.own]
        assert list(trace.logs) == known.logs
        assert trace.size == known.size

    def _closes_again(self, trace: ClosedTrace[RawSpan]) -> None:
        """Check a revision, which is of the whole trace, and keep the trace for the next one."""
        assert self.kept is not None
        known = self.kept.closed[trace.trace_id] = self.kept.opened.pop(trace.trace_id)
        known.revision += 1
        assert trace.revision == known.revision
        self._compare(trace, known)

    def _leave(self, closed: list[ClosedTrace[RawSpan]]) -> None:
        self.closed += [(trace.trace_id, trace.revision) for trace in closed]
        for trace in closed:
            assert {span.trace_id for span in trace.spans} == {trace.trace_id}
            if trace.revision == 1:
                self.gone += [span for span in trace.spans if not span.is_own]


TestNoSpanIsLostAndNoTraceClosesTwice = NoSpanIsLostAndNoTraceClosesTwice.TestCase
TestNoSpanIsLostAndNoTraceClosesTwice.settings = settings(max_examples=120, stateful_step_count=25)
