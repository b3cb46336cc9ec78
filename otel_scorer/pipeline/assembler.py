"""
Group spans into traces and say when each trace is as complete as it will get.

The assembler starts no thread, takes no lock and reads no clock: the caller passes `now` (monotonic seconds at which
the spans were received) and asks what is due. Span timestamps never drive a timer. That makes every rule testable
without waiting. One owner per assembler; it is not thread-safe.
"""

from __future__ import annotations

import heapq
import operator
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

from otel_scorer.model.wire import SPAN_OVERHEAD
from otel_scorer.pipeline.closing import (
    CUT_SHORT,
    Added,
    AssemblyLimits,
    ClosedTrace,
    CloseReason,
    LatePolicy,
    Trigger,
)
from otel_scorer.pipeline.waiting_records import Fate, TraceRecords, WaitingRecords
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from otel_scorer.model.log_records import RawLog
    from otel_scorer.model.wire import RawSpan

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

_LOCAL_ROOT: Final = 0x300  # SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK (trace.proto)
# When a trace must go to make room, the heaviest among this many oldest ones goes.
_EVICTION_CANDIDATES: Final = 16
_REMEMBERED_PER_OPEN_TRACE: Final = 10
_AGES: Final = {"1s": 1.0, "10s": 10.0, "1m": 60.0, "10m": 600.0, "1h": 3600.0}
_parent_of: Final = operator.attrgetter("parent_id")
_id_of: Final = operator.attrgetter("span_id")


class _OpenTrace:
    __slots__ = ("due", "first", "last", "local_roots", "logs", "own", "root_at", "size", "spans")

    def __init__(self, now: float) -> None:
        self.spans: dict[bytes, RawSpan] = {}
        self.own: dict[bytes, RawSpan] | None = None
        self.logs: TraceRecords | None = None
        self.first = now
        self.last = now
        self.root_at: float | None = None
        self.local_roots: list[RawSpan] = []
        self.size = 0
        self.due = float("inf")


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
        if limits.trigger is Trigger.MATCH and matches is None:
            msg = "Trigger.MATCH needs a predicate"
            raise ValueError(msg)
        self._limits = limits
        self._matches = matches if limits.trigger is Trigger.MATCH else None
        self.judges = judges
        """Whether traces are told to be complete or not; may change at any time."""
        self._open: dict[bytes, _OpenTrace] = {}
        # A heap of (due, trace id). An entry that no longer matches its trace is stale and gets skipped.
        self._deadlines: list[tuple[float, bytes]] = []
        # Trace id -> when it was closed, least recently touched first.
        self._closed: dict[bytes, float] = {}
        self._waiting = WaitingRecords(limits)
        self.size = 0
        """Bytes of memory that all buffered spans are worth, and the log records about them."""

    def __len__(self) -> int:
        return len(self._open)

    @property
    def remembered(self) -> int:
        """Number of closed traces whose late spans would be recognised."""
        return len(self._closed)

    def add(self, spans: Iterable[RawSpan], now: float) -> Added:  # noqa: C901 - every span comes by here: no calls
        """Buffer spans. The caller must look at every list of the answer: nothing else remembers those spans."""
        added = Added()
        touched: set[bytes] = set()
        open_traces = self._open
        max_spans, max_bytes = self._limits.max_spans_per_trace, self._limits.max_bytes_per_trace
        has_matcher = self._matches is not None
        buffered = 0
        late_ages: Counter[str] = Counter()
        for span in spans:
            data, scope, trace_id, span_id, parent_id, _, flags = span
            trace = open_traces.get(trace_id)
            if trace is None:
                if scope.is_own:
                    added.own.append(span)
                    continue
                if trace_id in self._closed:
                    late_ages[_age_group(now - self._recall(trace_id))] += 1
                    added.late.append(span)
                    continue
                trace = self._begin(trace_id, now, added)
            elif scope.is_own:
                self._add_own(trace, span, added)
                continue
            known = trace.spans
            if span_id in known:
                span_id = _twin_key(known, span)
                if span_id in known:
                    _count_repeat(known[span_id], span)
                    added.duplicates.append(span)
                    continue
            known[span_id] = span
            buffered += 1
            trace.last = now
            size = len(data) + SPAN_OVERHEAD
            trace.size += size
            self.size += size
            if parent_id is None or flags & _LOCAL_ROOT == _LOCAL_ROOT or has_matcher:
                self._note_root(trace, span, now)
                touched.add(trace_id)
            if len(known) >= max_spans:
                added.closed.append(self._close(trace_id, CloseReason.SPAN_LIMIT, now))
            elif trace.size >= max_bytes:
                added.closed.append(self._close(trace_id, CloseReason.BYTE_LIMIT, now))
        for trace_id in touched:
            self._expect(trace_id)
        count("assembler.spans", buffered)
        count("assembler.late_spans", len(added.late), policy=self._limits.late_spans.value)
        for under, late in late_ages.items():
            count("assembler.late_span_age", late, under=under)
        count("assembler.own_spans", len(added.own))
        _count_closed(added.closed)
        return added

    def add_logs(self, records: Iterable[RawLog], now: float) -> None:
        """
        Buffer log records about spans: they are in `ClosedTrace.logs`.

        A record of an open trace extends the waiting as a span does, for more may follow, and starts no countdown. It
        never opens a trace: one that comes before the spans waits for them, bounded in number, bytes and time, and one
        that comes after its trace was closed is only counted.
        """
        fates: Counter[Fate] = Counter()
        for record in records:
            trace = self._open.get(record.trace_id)
            if trace is not None:
                fates[self._add_log(trace, record, now)] += 1
            elif record.trace_id in self._closed:
                self._recall(record.trace_id)
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

    def due(self, now: float) -> list[ClosedTrace[RawSpan]]:
        """Close the traces whose time has come and return them, earliest first."""
        closed: list[ClosedTrace[RawSpan]] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            due, trace_id = heapq.heappop(self._deadlines)
            trace = self._open.get(trace_id)
            if trace is None or trace.due != due:
                continue
            deadline, reason = self._deadline(trace)
            if deadline <= now:
                closed.append(self._close(trace_id, reason, now))
            else:
                # Spans came since: arrivals only note the time, so that a busy trace costs no heap operation a span.
                trace.due = deadline
                heapq.heappush(self._deadlines, (deadline, trace_id))
        _count_closed(closed)
        count("assembler.log_records_dropped", self._waiting.expire(now), reason=Fate.NO_TRACE.value)
        return closed

    def next_deadline(self) -> float | None:
        """Return when `due` may next have something to do, or None while nothing is buffered."""
        waiting = self._waiting.deadline()
        while self._deadlines:
            due, trace_id = self._deadlines[0]
            trace = self._open.get(trace_id)
            if trace is not None and trace.due == due:
                return due if waiting is None else min(due, waiting)
            heapq.heappop(self._deadlines)
        return waiting

    def drain(self, reason: CloseReason, now: float) -> list[ClosedTrace[RawSpan]]:
        """Close everything that is left, oldest first; log records that wait for a trace are dropped."""
        closed = [self._close(trace_id, reason, now) for trace_id in list(self._open)]
        _count_closed(closed)
        count("assembler.log_records_dropped", self._waiting.clear(), reason=Fate.NO_TRACE.value)
        return closed

    def _begin(self, trace_id: bytes, now: float, added: Added) -> _OpenTrace:
        if len(self._open) >= self._limits.max_traces:
            oldest = islice(self._open, _EVICTION_CANDIDATES)
            heaviest = max(oldest, key=lambda candidate: self._open[candidate].size)
            added.closed.append(self._close(heaviest, CloseReason.EVICTED, now))
        trace = self._open[trace_id] = _OpenTrace(now)
        records = self._waiting.take(trace_id)
        if records is not None:
            trace.logs = records
            trace.size += records.size
            self.size += records.size
        self._expect(trace_id)
        return trace

    def _add_own(self, trace: _OpenTrace, span: RawSpan, added: Added) -> None:
        """Keep one of our own spans for `Trace.evaluations`, within the limits of the trace; it never closes it."""
        if trace.own is None:
            trace.own = {}
        known = trace.own.get(span.span_id)
        if known is not None:
            _count_repeat(known, span)
            added.duplicates.append(span)
            return
        added.own.append(span)
        limits = self._limits
        if len(trace.own) < limits.max_spans_per_trace and trace.size + span.size < limits.max_bytes_per_trace:
            trace.own[span.span_id] = span
            trace.size += span.size
            self.size += span.size

    def _add_log(self, trace: _OpenTrace, record: RawLog, now: float) -> Fate:
        if trace.logs is None:
            trace.logs = TraceRecords(now)
        fate = trace.logs.add(record, self._limits)
        if fate is Fate.KEPT:
            trace.size += record.size
            self.size += record.size
            trace.last = now
        return fate

    def _note_root(self, trace: _OpenTrace, span: RawSpan, now: float) -> None:
        trigger = self._limits.trigger
        is_local_root = span.flags & _LOCAL_ROOT == _LOCAL_ROOT
        if self._matches is not None:
            is_root = self._matches(span)
        else:
            is_root = span.parent_id is None
            if is_local_root and trigger is not Trigger.ROOT:
                trace.local_roots.append(span)
        if is_root and trace.root_at is None:
            trace.root_at = now

    def _deadline(self, trace: _OpenTrace) -> tuple[float, CloseReason]:
        limits = self._limits
        if trace.root_at is not None:
            quiet, reason = min(trace.last + limits.root_grace, trace.root_at + limits.root_cap), CloseReason.ROOT_QUIET
        elif _has_local_root(trace):
            grace = limits.root_grace if limits.trigger is Trigger.LOCAL_ROOT else limits.local_root_grace
            quiet, reason = trace.last + grace, CloseReason.LOCAL_ROOT_QUIET
        else:
            quiet, reason = trace.last + limits.idle_timeout, CloseReason.IDLE
        age = trace.first + limits.max_age
        return (quiet, reason) if quiet <= age else (age, CloseReason.MAX_AGE)

    def _expect(self, trace_id: bytes) -> None:
        """Make sure that the trace is looked at no later than its deadline as it stands now."""
        trace = self._open.get(trace_id)
        if trace is None:
            return
        deadline, _ = self._deadline(trace)
        if deadline >= trace.due:
            return
        trace.due = deadline
        heapq.heappush(self._deadlines, (deadline, trace_id))
        if len(self._deadlines) > 2 * len(self._open) + 64:
            self._deadlines = [(trace.due, trace_id) for trace_id, trace in self._open.items()]
            heapq.heapify(self._deadlines)

    def _close(self, trace_id: bytes, reason: CloseReason, now: float) -> ClosedTrace[RawSpan]:
        trace = self._open.pop(trace_id)
        self.size -= trace.size
        if not self._open:
            self._deadlines.clear()
        self._closed[trace_id] = now
        if len(self._closed) > _REMEMBERED_PER_OPEN_TRACE * self._limits.max_traces:
            del self._closed[next(iter(self._closed))]
        spans = list(trace.spans.values())
        complete = self.judges and reason not in CUT_SHORT and not has_gaps(
            spans, trace.spans, local=self._limits.trigger is Trigger.LOCAL_ROOT
        )  # fmt: skip
        if trace.own:
            spans += trace.own.values()
        logs = () if trace.logs is None else tuple(trace.logs.known)
        return ClosedTrace(trace_id, spans, reason, complete, size=trace.size, logs=logs, last=trace.last)

    def _recall(self, trace_id: bytes) -> float:
        """
        Keep what is still asked for: a trace that goes on for hours must not be forgotten and opened again.

        Returns:
            When it was closed.
        """
        closed_at = self._closed[trace_id] = self._closed.pop(trace_id)
        return closed_at


def has_gaps(spans: Collection[RawSpan], known: Iterable[bytes], *, local: bool) -> bool:
    """
    Tell whether something is visibly missing from a trace.

    Args:
        spans: The trace.
        known: Ids of its spans.
        local: Whether one service's part is all that is wanted: a local root then stands for the root, and its remote
            parent is not missed.
    """
    parents = {span.parent_id for span in spans}
    missing = parents.difference(known)
    missing.discard(None)
    if not missing:
        # A span that is its own parent hangs in the air like one whose parent never came.
        return None not in parents or any(map(operator.eq, map(_parent_of, spans), map(_id_of, spans)))
    if not local:
        return True
    strangers = [span for span in spans if span.parent_id in missing]
    return not all(span.flags & _LOCAL_ROOT == _LOCAL_ROOT for span in strangers)


def _has_local_root(trace: _OpenTrace) -> bool:
    """Tell whether there is one whose parent is not here: a parent that has come does not go away again."""
    roots = trace.local_roots
    while roots and roots[-1].parent_id in trace.spans:
        roots.pop()
    return bool(roots)


def _age_group(seconds: float) -> str:
    return next((name for name, limit in _AGES.items() if seconds < limit), "ever")


def _twin_key(known: dict[bytes, RawSpan], span: RawSpan) -> bytes:
    """
    Return the key of a span whose id is taken: the id itself if it is the same span again.

    A client and a server span may share an id; the second one to come is kept under a longer key.
    """
    same = known[span.span_id].kind == span.kind
    return span.span_id if same else span.span_id + bytes((span.kind & 0xFF,))


def _count_closed(closed: Iterable[ClosedTrace[RawSpan]]) -> None:
    for reason, times in Counter(trace.reason for trace in closed).items():
        count("assembler.closed", times, reason=reason.value)


def _count_repeat(known: RawSpan, again: RawSpan) -> None:
    count("assembler.duplicates" if known.data == again.data else "assembler.conflicts")
