"""
Group spans into traces and say when each trace is as complete as it will get.

The assembler starts no thread, takes no lock and reads no clock: the caller passes `now` (monotonic seconds at which
the spans were received) and asks what is due. Span timestamps never drive a timer. That makes every rule testable
without waiting. One owner per assembler; it is not thread-safe.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from otel_scorer.model.wire import SPAN_OVERHEAD
from otel_scorer.pipeline.assembly.closed_traces import ClosedTraces, age_group, count_closed
from otel_scorer.pipeline.assembly.closing import (
    CUT_SHORT,
    Added,
    AssemblyLimits,
    ClosedTrace,
    CloseReason,
    LatePolicy,
    Trigger,
)
from otel_scorer.pipeline.assembly.evicting import OldestTraces, worth_closing
from otel_scorer.pipeline.assembly.open_trace import (
    ENDED,
    ClosingRules,
    Deadlines,
    OpenTrace,
    count_repeat,
    has_gaps,
    twin_key,
)
from otel_scorer.pipeline.assembly.rescoring import KeptTraces, LateSpan
from otel_scorer.pipeline.assembly.units_of_traces import UnitsOfTraces
from otel_scorer.pipeline.assembly.waiting_records import Fate, WaitingRecords
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.model.log_records import RawLog
    from otel_scorer.model.wire import RawSpan

    _Late = Counter[tuple[LateSpan, str]]  # what became of late spans, by how late they were

__all__ = [
    "Added",
    "AssemblyLimits",
    "CloseReason",
    "ClosedTrace",
    "LatePolicy",
    "TraceAssembler",
    "Trigger",
    "has_gaps",
]

_TRACE_ID: Final = 16  # bytes; with units, what follows in a key is a number


class TraceAssembler:
    """Not thread-safe: one owner, which passes the time."""

    def __init__(
        self, limits: AssemblyLimits, matches: Callable[[RawSpan], bool] | None = None, *, judges: bool = True
    ) -> None:
        """
        Start with nothing buffered.

        Args:
            limits: When traces close.
            matches: With `Trigger.MATCH`: whether a span starts the countdown.
            judges: Whether to tell complete traces from others, which takes a look at every span. If nobody asks, none
                is called complete.

        Raises:
            ValueError: `Trigger.MATCH` without a predicate.
        """
        self._limits = limits
        self._rules = ClosingRules(limits, matches)
        self._has_matcher = self._rules.matches is not None
        self.judges = judges
        """Whether traces are told to be complete or not; may change at any time."""
        # Trace id, or the key of a unit -> what is buffered of it.
        self._open: dict[bytes, OpenTrace] = {}
        self._deadlines = Deadlines(self._open, self._rules)
        self._oldest = OldestTraces(self._open)
        self._closed = ClosedTraces(limits)
        self._units = UnitsOfTraces() if self._rules.by_unit else None
        self._kept = KeptTraces(limits, self._rules) if limits.late_spans is LatePolicy.RESCORE else None
        self._next_unit = 0
        self._waiting = WaitingRecords(limits, by_span=self._rules.by_unit)
        self.size = 0
        """Bytes of memory that all buffered spans are worth, and the log records about them."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def remembered(self) -> int:
        """Number of closed traces whose late spans would be recognised."""
        return len(self._closed)

    @property
    def kept_size(self) -> int:
        """Bytes of memory that closed traces are worth which may be scored again."""
        return 0 if self._kept is None else self._kept.size

    def add(self, spans: Iterable[RawSpan], now: float) -> Added:
        """Buffer spans. The caller must look at every list of the answer: nothing else remembers those spans."""
        added = Added()
        late: _Late = Counter()
        if self._units is None:
            self._add_to_traces(spans, now, added, late)
        else:
            for span in spans:
                self._add_to_units(self._units, span, now, added, late)
        for (policy, under), times in late.items():
            count("assembler.late_spans", times, policy=policy.value)
            count("assembler.late_span_age", times, under=under)
        count("assembler.own_spans", len(added.own))
        count_closed(added.closed)
        return added

    def _add_to_traces(  # noqa: C901 - every span comes by here: no calls
        self, spans: Iterable[RawSpan], now: float, added: Added, late: _Late
    ) -> None:
        # Traces that may be due earlier than they were.
        touched: list[OpenTrace] = []
        open_traces, closed_traces = self._open, self._closed.keys
        records_wait, note = len(self._waiting) > 0, self._rules.note
        max_spans, max_bytes = self._limits.max_spans_per_trace, self._limits.max_bytes_per_trace
        has_matcher = self._has_matcher
        buffered = 0
        for span in spans:
            data, scope, trace_id, span_id, parent_id, is_local_root = span
            trace = open_traces.get(trace_id)
            if trace is None:
                if scope.is_own:
                    added.own.append(span)
                    continue
                if trace_id in closed_traces:
                    self._add_late(trace_id, (span,), now, added, late)
                    continue
                trace = self._begin(trace_id, now, added)
                if records_wait:
                    self._take_records(trace, trace_id)
                touched.append(trace)
            elif scope.is_own:
                self._add_own(trace, span, added)
                continue
            known = trace.spans
            if span_id in known:
                span_id = twin_key(known, span)
                if span_id in known:
                    count_repeat(known[span_id], span)
                    added.duplicates.append(span)
                    continue
            known[span_id] = span
            buffered += 1
            trace.last = now
            size = len(data) + SPAN_OVERHEAD
            trace.size += size
            self.size += size
            if parent_id is None or is_local_root or has_matcher:
                note(trace, span, now)
                if not touched or touched[-1] is not trace:
                    touched.append(trace)
            if len(known) >= max_spans:
                added.closed += self._close([(trace, CloseReason.SPAN_LIMIT)], now)
            elif trace.size >= max_bytes:
                added.closed += self._close([(trace, CloseReason.BYTE_LIMIT)], now)
        self._deadlines.expect(touched)
        count("assembler.spans", buffered)

    def _add_to_units(self, units: UnitsOfTraces, span: RawSpan, now: float, added: Added, late: _Late) -> None:
        trace_id, span_id = span.trace_id, span.span_id
        if span.scope.is_own:
            unit = units.find(trace_id, span.parent_id)
            if unit is None:
                added.own.append(span)
            else:
                self._add_own(unit, span, added)
            return
        unit = units.find(trace_id, span_id)
        is_head = self._rules.is_head(span)
        if unit is None:
            closed = self._closed.unit_for(span, is_head=is_head)
            if closed is not None:
                spans = [span, *self._give_up(units.below(trace_id, span_id))]
                self._closed.learn(closed, [each.span_id for each in spans])
                if not is_head and span.parent_id is not None and units.find(trace_id, span.parent_id) is None:
                    self._closed.learn(closed, [span.parent_id])
                self._add_late(closed, spans, now, added, late)
                return
            unit = self._place(units, span, is_head, now, added)
            key = span_id
        else:
            key = twin_key(unit.spans, span)
            if key in unit.spans:
                count_repeat(unit.spans[key], span)
                added.duplicates.append(span)
                return
            units.add_twin(trace_id, key, unit)
        unit.spans[key] = span
        unit.last = now
        unit.size += span.size
        self.size += span.size
        if is_head:
            self._rules.note(unit, span, now)
        self._deadlines.expect((unit,))
        count("assembler.spans")
        if len(unit.spans) >= self._limits.max_spans_per_trace:
            added.closed += self._close([(unit, CloseReason.SPAN_LIMIT)], now)
        elif unit.size >= self._limits.max_bytes_per_trace:
            added.closed += self._close([(unit, CloseReason.BYTE_LIMIT)], now)

    def _add_late(self, key: bytes, spans: Sequence[RawSpan], now: float, added: Added, late: _Late) -> None:
        """Hand back the late spans of a closed trace, and have it scored again if that was asked for."""
        age = age_group(now - self._closed.recall(key))
        for span in spans:
            fate = LateSpan.IGNORED if self._kept is None else self._kept.add(key, span, now)
            if fate is LateSpan.DUPLICATE:
                added.duplicates.append(span)
                continue
            late[fate, age] += 1
            added.late.append(span)

    def _place(self, units: UnitsOfTraces, span: RawSpan, is_head: bool, now: float, added: Added) -> OpenTrace:  # noqa: FBT001
        """Find the unit of a new span, and move to it what belongs there because of that."""

        def begin() -> OpenTrace:
            self._next_unit += 1
            return self._begin(span.trace_id + self._next_unit.to_bytes(8, "big"), now, added)

        unit, absorbed = units.place(span, is_head=is_head, begin=begin)
        if absorbed is not None:
            del self._open[absorbed.key]
            self.size += unit.absorb(absorbed, self._limits)
        if self._waiting:
            self._take_records(unit, span.trace_id + span.span_id)
        return unit

    def _give_up(self, fragment: OpenTrace | None) -> Iterable[RawSpan]:
        """Take out a fragment that turns out to belong to a closed unit, and return its spans."""
        if fragment is None:
            return ()
        self._take_out(fragment)
        if fragment.logs is not None:
            count("assembler.late_log_records", len(fragment.logs.known))
        return fragment.spans.values()

    def add_logs(self, records: Iterable[RawLog], now: float) -> None:
        """
        Buffer log records about spans: they are in `ClosedTrace.logs`.

        A record of an open trace extends the waiting as a span does, for more may follow, and starts no countdown. It
        never opens a trace: one that comes before the spans waits for them, bounded in number, bytes and time, and one
        that comes after its trace was closed is only counted.
        """
        fates: Counter[Fate] = Counter()
        for record in records:
            trace, closed = self._about(record)
            if trace is not None:
                before = trace.size
                fates[trace.add_log(record, self._limits, now)] += 1
                self.size += trace.size - before
            elif closed is not None:
                self._closed.recall(closed)
                if self._kept is not None:
                    self._kept.add_log(closed, record, now)
                fates[Fate.LATE] += 1
            else:
                fate, evicted = self._waiting.add(record, now)
                fates[fate] += 1
                fates[Fate.EVICTED] += evicted
        count("assembler.log_records", fates.pop(Fate.KEPT, 0))
        count("assembler.duplicate_log_records", fates.pop(Fate.DUPLICATE, 0))
        count("assembler.late_log_records", fates.pop(Fate.LATE, 0))
        for fate, records_dropped in fates.items():
            count("assembler.log_records_dropped", records_dropped, reason=fate.value)

    def is_late(self, record: RawLog) -> bool:
        """Tell whether a log record is about a trace that is closed."""
        return self._about(record)[1] is not None

    def restore(self, closed: Iterable[bytes], now: float) -> None:
        """Remember traces that were closed before this assembler was made; see `ClosedTraces.restore`."""
        self._next_unit += self._closed.restore(closed, now, by_unit=self._units is not None)

    def due(self, now: float) -> list[ClosedTrace[RawSpan]]:
        """Close the traces whose time has come and return them, earliest first."""
        closed = self._close(self._deadlines.due(now), now)
        if self._kept is not None:
            closed += [self._result(*again) for again in self._kept.due(now)]
        count_closed(closed)
        count("assembler.log_records_dropped", self._waiting.expire(now), reason=Fate.NO_TRACE.value)
        return closed

    def holds_own(self, span: RawSpan) -> bool:
        """Whether one of our own spans is buffered with an open trace."""
        trace = self._open.get(span.trace_id)
        return trace is not None and trace.own is not None and trace.own.get(span.span_id) is span

    def next_deadline(self) -> float | None:
        """Return when `due` may next have something to do, or None while nothing is buffered."""
        deadlines = [self._deadlines.next(), self._waiting.deadline()]
        if self._kept is not None:
            deadlines.append(self._kept.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def drain(self, reason: CloseReason, now: float) -> list[ClosedTrace[RawSpan]]:
        """Close everything that is left, oldest first; log records that wait for a trace are dropped."""
        closed = self._close([(trace, reason) for trace in self._open.values()], now)
        if self._kept is not None:
            closed += [self._result(*again) for again in self._kept.drain(reason)]
        count_closed(closed)
        count("assembler.log_records_dropped", self._waiting.clear(), reason=Fate.NO_TRACE.value)
        return closed

    def relieve(self, size: int, now: float, *, older_than: float) -> list[ClosedTrace[RawSpan]]:
        """
        Give up so many bytes: what is kept to be scored again, then open traces, as `worth_closing` picks them.

        They must have been open for `older_than` seconds.
        """
        if self._kept is not None:
            size -= self._kept.relieve()
        heavy = worth_closing(self._open.values(), size, now, older_than=older_than, old=self._limits.idle_timeout)
        closed = self._close(((trace, CloseReason.MEMORY_PRESSURE) for trace in heavy), now)
        count_closed(closed)
        return closed

    def _about(self, record: RawLog) -> tuple[OpenTrace | None, bytes | None]:
        """Return the open trace or unit that a log record belongs to, or else the key of the closed one."""
        if self._units is None:
            key = record.trace_id
            return self._open.get(key), key if key in self._closed.keys else None
        unit = self._units.find(record.trace_id, record.span_id)
        return unit, None if unit is not None else self._closed.unit_of(record.trace_id, record.span_id)

    def _begin(self, key: bytes, now: float, added: Added) -> OpenTrace:
        """Open a trace, or a unit; another one may have to go. No timer is set."""
        if len(self._open) >= self._limits.max_traces:
            added.closed += self._close([(self._oldest.heaviest(), CloseReason.EVICTED)], now)
        trace = self._open[key] = OpenTrace(key, now)
        return trace

    def _take_records(self, trace: OpenTrace, key: bytes) -> None:
        """Give a trace, or a unit, the log records that wait for it."""
        records = self._waiting.take(key)
        if records is not None:
            self.size += trace.take_logs(records, self._limits)

    def _add_own(self, trace: OpenTrace, span: RawSpan, added: Added) -> None:
        """Keep one of our own spans for `Trace.evaluations`, within the limits of the trace; it never closes it."""
        before = trace.size
        is_new = trace.add_own(span, self._limits)
        self.size += trace.size - before
        (added.own if is_new else added.duplicates).append(span)

    def _close(self, leaving: Iterable[tuple[OpenTrace, CloseReason]], now: float) -> list[ClosedTrace[RawSpan]]:
        """Close open traces, or units, each before the next one is asked for."""
        closed: list[ClosedTrace[RawSpan]] = []
        units, kept = self._units, self._kept if self.judges else None
        for trace, reason in leaving:
            unit = b"" if units is None else self._rules.name(trace)
            self._take_out(trace)
            if units is not None:
                self._closed.remember_unit(trace.key[:_TRACE_ID], trace, now)
            closed.append(self._result(trace, unit, reason))
            if kept is not None:
                kept.keep(trace, unit, reason, now)
        if units is None:
            self._closed.remember([trace.trace_id for trace in closed], now)
        return closed

    def _result(self, trace: OpenTrace, unit: bytes, reason: CloseReason, revision: int = 1) -> ClosedTrace[RawSpan]:
        trace_id, by_unit = trace.key[:_TRACE_ID], self._units is not None
        spans = list(trace.spans.values())
        complete = self.judges and reason not in CUT_SHORT and not has_gaps(spans, trace.spans, local=by_unit)
        if trace.own:
            spans += trace.own.values()
        logs = () if trace.logs is None else tuple(trace.logs.known)
        if by_unit and self._waiting:
            # What names no span, but the model's response, is for whichever unit has that.
            logs += self._waiting.look(trace_id)
        return ClosedTrace(trace_id, spans, reason, complete, revision, trace.size, logs, trace.last, unit)

    def _take_out(self, trace: OpenTrace) -> None:
        trace.due = ENDED
        del self._open[trace.key]
        if self._units is not None:
            self._units.forget(trace.key[:_TRACE_ID], trace)
        self.size -= trace.size
        if not self._open:
            self._deadlines.clear()
