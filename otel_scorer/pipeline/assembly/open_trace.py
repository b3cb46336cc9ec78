"""What is buffered of one trace, or one unit of it, and the timers of all that are: when each is to be looked at."""

from __future__ import annotations

import heapq
import math
import operator
from typing import TYPE_CHECKING, Final

from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.assembly.closing import AssemblyLimits, CloseReason, Trigger
from otel_scorer.pipeline.assembly.waiting_records import Fate, TraceRecords
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from otel_scorer.model.log_records import RawLog

__all__ = ["ENDED", "ClosingRules", "Deadlines", "OpenTrace", "count_repeat", "has_gaps", "twin_key"]

_id_of: Final = operator.itemgetter(RawSpan._fields.index("span_id"))
_parent_of: Final = operator.itemgetter(RawSpan._fields.index("parent_id"))
# Every trace asks for these, and looking up a member of an enumeration takes longer than the rest of a rule.
_ROOT_QUIET: Final = CloseReason.ROOT_QUIET
_LOCAL_ROOT_QUIET: Final = CloseReason.LOCAL_ROOT_QUIET
_IDLE: Final = CloseReason.IDLE
_MAX_AGE: Final = CloseReason.MAX_AGE
_NEVER: Final = math.inf
_OF_ROOTS: Final = {None}
ENDED: Final = -math.inf
"""When a closed trace is to be looked at: no timer is set for it any more."""


class OpenTrace:
    """
    The spans of a trace, or of one unit of it, that more are waited for.

    Attributes:
        key: What it is called among all open ones: its trace id, for a unit with a number behind it.
        spans: By span id; see `twin_key`.
        own: otel_scorer's own spans, by span id.
        logs: Log records about its spans.
        first: When the first span came.
        last: When the last one came.
        root_at: When the first span came that starts the countdown.
        local_roots: Spans with a remote parent; with `Trigger.LOCAL_ROOT` the one that the unit begins with. None as
            long as there were none.
        size: Bytes of memory that all of it is worth.
        due: When it is to be looked at, or `ENDED`.
        missing: Of a unit without a local root: the parent that it waits for.
    """

    __slots__ = ("due", "first", "key", "last", "local_roots", "logs", "missing", "own", "root_at", "size", "spans")

    def __init__(self, key: bytes, now: float) -> None:
        self.key = key
        self.spans: dict[bytes, RawSpan] = {}
        self.own: dict[bytes, RawSpan] | None = None
        self.logs: TraceRecords | None = None
        self.first = now
        self.last = now
        self.root_at: float | None = None
        self.local_roots: list[RawSpan] | None = None
        self.size = 0
        self.due = _NEVER
        self.missing: bytes | None = None

    def add_own(self, span: RawSpan, limits: AssemblyLimits) -> bool:
        """Keep one of our own spans, within the limits, unless it is here already; return whether it was not."""
        if self.own is None:
            self.own = {}
        known = self.own.get(span.span_id)
        if known is not None:
            count_repeat(known, span)
            return False
        if len(self.own) < limits.max_spans_per_trace and self.size + span.size < limits.max_bytes_per_trace:
            self.own[span.span_id] = span
            self.size += span.size
        return True

    def add_log(self, record: RawLog, limits: AssemblyLimits, now: float) -> Fate:
        """Keep a log record about one of the spans, within its limits."""
        if self.logs is None:
            self.logs = TraceRecords(now)
        fate = self.logs.add(record, limits)
        if fate is Fate.KEPT:
            self.size += record.size
            self.last = now
        return fate

    def take_logs(self, records: TraceRecords, limits: AssemblyLimits) -> int:
        """Take over records, within its limits, and return how many bytes they are worth."""
        before = 0 if self.logs is None else self.logs.size
        if self.logs is None:
            self.logs = records
        else:
            for record in records.known:
                fate = self.logs.add(record, limits)
                dropped = fate is not Fate.KEPT and fate is not Fate.DUPLICATE
                count("assembler.log_records_dropped", int(dropped), reason=fate.value)
        added = self.logs.size - before
        self.size += added
        return added

    def absorb(self, other: OpenTrace, limits: AssemblyLimits) -> int:
        """Take over another unit that turns out to be a part of this one; return how many bytes that adds in all."""
        before = self.size + other.size
        self.spans.update(other.spans)
        logs = 0 if other.logs is None else other.logs.size
        self.size += other.size - logs
        if other.logs is not None:
            self.take_logs(other.logs, limits)
        if other.own:
            twice = other.own.keys() & (self.own or {}).keys()
            self.size -= sum(other.own[span_id].size for span_id in twice)
            self.own = {**other.own, **(self.own or {})}
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        starts = [at for at in (self.root_at, other.root_at) if at is not None]
        self.root_at = min(starts, default=None)
        if other.local_roots:
            self.local_roots = [*(self.local_roots or ()), *other.local_roots]
        return self.size - before

    def add_local_root(self, span: RawSpan) -> None:
        """Note a span with a remote parent."""
        if self.local_roots is None:
            self.local_roots = []
        self.local_roots.append(span)

    def has_local_root(self) -> bool:
        """Tell whether there is one whose parent is not here: a parent that has come does not go away again."""
        roots = self.local_roots
        while roots and roots[-1].parent_id in self.spans:
            roots.pop()
        return bool(roots)


class ClosingRules:
    """
    Which spans start the countdown, and when it ends.

    Args:
        limits: The times.
        matches: With `Trigger.MATCH`: whether a span starts the countdown.

    Raises:
        ValueError: `Trigger.MATCH` without a predicate.
    """

    def __init__(self, limits: AssemblyLimits, matches: Callable[[RawSpan], bool] | None = None) -> None:
        if limits.trigger is Trigger.MATCH and matches is None:
            msg = "Trigger.MATCH needs a predicate"
            raise ValueError(msg)
        self.limits = limits
        self.matches = matches if limits.trigger is Trigger.MATCH else None
        self.by_unit = limits.trigger is Trigger.LOCAL_ROOT
        self._notes_local_roots = limits.trigger is not Trigger.ROOT

    def is_head(self, span: RawSpan) -> bool:
        """Tell whether a span is where a unit begins."""
        return span.parent_id is None or span.is_local_root

    def name(self, unit: OpenTrace) -> bytes:
        """Return what tells a unit from the others of its trace, whatever the order in which its spans came."""
        spans = unit.spans.values()
        heads = [span.span_id for span in spans if self.is_head(span)]
        return min(heads) if heads else unit.missing or min(span.span_id for span in spans)

    def note(self, trace: OpenTrace, span: RawSpan, now: float) -> None:
        """Note a span that may start the countdown."""
        if self.matches is not None:
            is_root = self.matches(span)
        elif self.by_unit:
            is_root = self.is_head(span)
            if is_root and span.parent_id is not None:
                trace.add_local_root(span)
        else:
            is_root = span.parent_id is None
            if span.is_local_root and self._notes_local_roots:
                trace.add_local_root(span)
        if is_root and trace.root_at is None:
            trace.root_at = now

    def deadline(self, trace: OpenTrace) -> tuple[float, CloseReason]:
        """Return when a trace closes if nothing comes any more, and for which reason."""
        limits = self.limits
        root_at = trace.root_at
        if root_at is not None:
            quiet, cap = trace.last + limits.root_grace, root_at + limits.root_cap
            reason = _LOCAL_ROOT_QUIET if self.by_unit and trace.local_roots else _ROOT_QUIET
            if cap < quiet:  # noqa: PLR1730 - every trace asks, twice
                quiet = cap
        elif trace.local_roots and trace.has_local_root():
            quiet, reason = trace.last + limits.local_root_grace, _LOCAL_ROOT_QUIET
        else:
            quiet, reason = trace.last + limits.idle_timeout, _IDLE
        age = trace.first + limits.max_age
        return (quiet, reason) if quiet <= age else (age, _MAX_AGE)


class Deadlines:
    """
    When which open trace is to be looked at: keys by time, and a heap of the times. Some entries are stale and skipped.

    What came in one request is mostly due at one time, so there are fewer times than traces. Arrivals only note the
    time in their trace, so that a busy trace costs no entry a span: it is looked at when it was first due, and put
    back.

    Args:
        open_traces: All that is open, by key; the caller's.
        rules: When they close.
    """

    def __init__(self, open_traces: dict[bytes, OpenTrace], rules: ClosingRules) -> None:
        self._open = open_traces
        self._rules = rules
        self._times: list[float] = []
        self._keys: dict[float, list[bytes]] = {}
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def expect(self, traces: Iterable[OpenTrace]) -> None:
        """Make sure that open traces are looked at no later than their deadlines as they stand now."""
        deadline_of = self._rules.deadline
        for trace in traces:
            deadline, _ = deadline_of(trace)
            if deadline < trace.due:
                self._enter(trace, deadline)
        if self._entries > 2 * len(self._open) + 64:
            self.clear()
            for trace in self._open.values():
                self._enter(trace, trace.due)

    def due(self, now: float) -> Iterator[tuple[OpenTrace, CloseReason]]:
        """Yield what is due, the earliest first. The caller takes each of them out before it asks for the next."""
        while self._times and self._times[0] <= now:
            time = self._times[0]
            keys = self._keys[time]
            # Taken from the end, so that whatever goes wrong with one of them, the others are still here.
            keys.reverse()
            while keys:
                trace = self._open.get(keys.pop())
                self._entries -= 1
                if trace is None or trace.due != time:
                    continue
                deadline, reason = self._rules.deadline(trace)
                if deadline <= now:
                    yield trace, reason
                else:
                    self._enter(trace, deadline)
            if self._times:
                heapq.heappop(self._times)
                del self._keys[time]

    def next(self) -> float | None:
        """Return when something may next be due, or None while nothing is open."""
        while self._times:
            time = self._times[0]
            keys = self._keys[time]
            while keys:
                trace = self._open.get(keys[-1])
                if trace is not None and trace.due == time:
                    return time
                keys.pop()
                self._entries -= 1
            heapq.heappop(self._times)
            del self._keys[time]
        return None

    def clear(self) -> None:
        """Forget everything: nothing is open any more."""
        for keys in self._keys.values():
            keys.clear()
        self._times.clear()
        self._keys.clear()
        self._entries = 0

    def _enter(self, trace: OpenTrace, deadline: float) -> None:
        trace.due = deadline
        keys = self._keys.get(deadline)
        if keys is None:
            self._keys[deadline] = [trace.key]
            heapq.heappush(self._times, deadline)
        else:
            keys.append(trace.key)
        self._entries += 1


def has_gaps(spans: Collection[RawSpan], known: Iterable[bytes], *, local: bool) -> bool:
    """
    Tell whether something is visibly missing from a trace.

    Args:
        spans: The trace.
        known: Ids of its spans.
        local: Whether one service's part is all that is wanted: a local root then stands for the root, and its remote
            parent is not missed.
    """
    parent_of = list(map(_parent_of, spans))
    parents = set(parent_of)
    if parents == _OF_ROOTS:
        return False
    missing = parents.difference(known)
    missing.discard(None)
    if not missing:
        # A span that is its own parent hangs in the air like one whose parent never came.
        return None not in parents or any(map(operator.eq, parent_of, map(_id_of, spans)))
    if not local:
        return True
    strangers = [span for span in spans if span.parent_id in missing]
    return not all(span.is_local_root for span in strangers)


def twin_key(known: dict[bytes, RawSpan], span: RawSpan) -> bytes:
    """
    Return the key of a span whose id is taken: the id itself if it is the same span again.

    A client and a server span may share an id; the second one to come is kept under a longer key.
    """
    same = known[span.span_id].kind == span.kind
    return span.span_id if same else span.span_id + bytes((span.kind & 0xFF,))


def count_repeat(known: RawSpan, again: RawSpan) -> None:
    """Count a span that came again, by whether it is the same."""
    count("assembler.duplicates" if known.data == again.data else "assembler.conflicts")
