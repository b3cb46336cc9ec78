"""The assembler against a naive model of it, over whatever arrivals, waits and drains Hypothesis thinks of."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otel_scorer.model import encoding
from otel_scorer.model.wire import RawSpan, ScopeRef
from otel_scorer.pipeline.assembler import Added, AssemblyLimits, ClosedTrace, CloseReason, TraceAssembler, Trigger

APP = ScopeRef.of(b"", b"")
OWN = ScopeRef.of(b"", b"\x0a\x0d\x0a\x0botel_scorer")
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
)


@dataclass
class ModelTrace:
    """All that is known of an open trace, as a list of what came when; everything else is worked out anew each time."""

    arrivals: list[tuple[float, RawSpan]] = field(default_factory=list[tuple[float, RawSpan]])
    own: list[RawSpan] = field(default_factory=list[RawSpan])

    @property
    def spans(self) -> list[RawSpan]:
        return [span for _, span in self.arrivals]

    @property
    def size(self) -> int:
        return sum(span.size for span in [*self.spans, *self.own])

    def has(self, span: RawSpan) -> bool:
        known = self.own if span.is_own else self.spans
        return any(other.span_id == span.span_id and (span.is_own or other.kind == span.kind) for other in known)

    def deadline(self, trigger: Trigger) -> float:
        ids = {span.span_id for span in self.spans}
        last = self.arrivals[-1][0]
        roots = [at for at, span in self.arrivals if span.parent_id is None]
        has_local_root = trigger is not Trigger.ROOT and any(
            span.is_local_root and span.parent_id not in ids for span in self.spans
        )
        if roots:
            due = min(last + LIMITS.root_grace, roots[0] + LIMITS.root_cap)
        elif has_local_root:
            due = last + LIMITS.local_root_grace
        else:
            due = last + LIMITS.idle_timeout
        return min(due, self.arrivals[0][0] + LIMITS.max_age)


def a_span(*shape: Any) -> RawSpan:
    trace, span, parent, kind, what, size = shape
    parent_id = None if parent is None else parent.to_bytes(8, "big")
    is_local_root = what == "local root" and parent is not None
    scope = OWN if what == "own" else APP
    data = encoding.varint_field(6, kind) + encoding.field(5, bytes(size))
    return RawSpan(data, scope, trace.to_bytes(16, "big"), span.to_bytes(8, "big"), parent_id, is_local_root)


class NoSpanIsLostAndNoTraceClosesTwice(RuleBasedStateMachine):
    @initialize(trigger=st.sampled_from([Trigger.AUTO, Trigger.ROOT]))
    def begin(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.assembler = TraceAssembler(
            AssemblyLimits(
                **{name: getattr(LIMITS, name) for name in LIMITS.__slots__ if name != "trigger"}, trigger=trigger
            )
        )
        self.now = 0.0
        self.model: dict[bytes, ModelTrace] = {}
        self.sent: list[RawSpan] = []
        self.gone: list[RawSpan] = []
        self.closed: list[bytes] = []

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

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 12.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        due = {trace_id for trace_id, trace in self.model.items() if trace.deadline(self.trigger) <= self.now}

        closed = self.assembler.due(self.now)

        assert {trace.trace_id for trace in closed} == due
        for trace in closed:
            assert trace.spans == [*self.model[trace.trace_id].spans, *self.model.pop(trace.trace_id).own]
        self._leave(closed)

    @rule()
    def it_is_drained(self) -> None:
        closed = self.assembler.drain(CloseReason.SHUTDOWN, self.now)

        assert [trace.trace_id for trace in closed] == list(self.model)
        self.model.clear()
        self._leave(closed)

    @invariant()
    def memory_is_bounded(self) -> None:
        assembler = self.assembler
        assert len(assembler) == len(self.model) <= LIMITS.max_traces
        assert assembler.size == sum(trace.size for trace in self.model.values())
        assert assembler.size <= LIMITS.max_traces * LIMITS.max_bytes_per_trace
        assert assembler.remembered <= 10 * LIMITS.max_traces
        timers = len(assembler._deadlines)  # noqa: SLF001 - what it costs is not what it does, so nothing public tells
        assert timers <= 2 * LIMITS.max_traces + 64

    @invariant()
    def a_deadline_exists_while_anything_is_buffered(self) -> None:
        deadline = self.assembler.next_deadline()
        earliest = min((trace.deadline(self.trigger) for trace in self.model.values()), default=math.inf)
        # It may be early, for a span that came meanwhile only moves it when it is looked at; it is never late.
        assert (deadline is None) == (not self.model)
        assert deadline is None or deadline <= earliest

    @invariant()
    def no_trace_is_closed_twice(self) -> None:
        assert len(self.closed) == len(set(self.closed))

    def teardown(self) -> None:
        if not hasattr(self, "assembler"):
            return
        self._leave(self.assembler.drain(CloseReason.SHUTDOWN, self.now))
        kept = Counter(map(id, self.gone))
        assert all(kept[id(span)] == 1 for span in self.sent if not span.is_own)
        assert max(kept.values(), default=1) == 1
        assert (self.assembler.size, self.assembler.next_deadline()) == (0, None)

    def _expect(self, spans: list[RawSpan]) -> Added:
        """Work out what should become of a batch, span by span."""
        expected = Added()
        closed = set(self.closed)
        for span in spans:
            trace = self.model.get(span.trace_id)
            if trace is None and span.is_own:
                expected.own.append(span)
            elif trace is None and span.trace_id in closed:
                expected.late.append(span)
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
        trace = self.model.setdefault(span.trace_id, ModelTrace())
        trace.arrivals.append((self.now, span))
        if len(trace.arrivals) >= LIMITS.max_spans_per_trace:
            self._close(span.trace_id, CloseReason.SPAN_LIMIT, expected, closed)
        elif trace.size >= LIMITS.max_bytes_per_trace:
            self._close(span.trace_id, CloseReason.BYTE_LIMIT, expected, closed)

    def _close(self, trace_id: bytes, reason: CloseReason, expected: Added, closed: set[bytes]) -> None:
        trace = self.model.pop(trace_id)
        closed.add(trace_id)
        expected.closed.append(ClosedTrace(trace_id, [*trace.spans, *trace.own], reason, complete=False))

    def _leave(self, closed: list[ClosedTrace[RawSpan]]) -> None:
        self.closed += [trace.trace_id for trace in closed]
        for trace in closed:
            assert {span.trace_id for span in trace.spans} == {trace.trace_id}
            self.gone += [span for span in trace.spans if not span.is_own]


TestNoSpanIsLostAndNoTraceClosesTwice = NoSpanIsLostAndNoTraceClosesTwice.TestCase
TestNoSpanIsLostAndNoTraceClosesTwice.settings = settings(max_examples=120, stateful_step_count=25)
