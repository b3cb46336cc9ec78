"""
Closed traces whose spans are kept for a while, so that spans that come late lead to another score of the whole.

A late span opens a kept trace again: it waits as an open trace does, and what comes out is its next revision. Bounded
by memory, by the time since a trace was first closed, and for each trace by the limits of an open one.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Final

from otel_scorer.pipeline.assembly.closing import AssemblyLimits, CloseReason
from otel_scorer.pipeline.assembly.open_trace import Deadlines, count_repeat, twin_key
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.model.log_records import RawLog
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.open_trace import ClosingRules, OpenTrace

__all__ = ["KeptTraces", "LateSpan"]

# These traces have all that they may have, or had to go for the memory that they took.
_NOT_KEPT: Final = frozenset({
    CloseReason.SPAN_LIMIT,
    CloseReason.BYTE_LIMIT,
    CloseReason.MEMORY_PRESSURE,
    CloseReason.SHUTDOWN,
    CloseReason.END_OF_FILE,
})  # fmt: skip


class LateSpan(Enum):
    """What becomes of a late span beside being forwarded: nothing, another score, or it is here already."""

    IGNORED = "ignore"
    KEPT = "rescore"
    DUPLICATE = "duplicate"


class _Kept:
    __slots__ = ("closed_at", "revision", "trace", "unit")

    def __init__(self, trace: OpenTrace, unit: bytes, closed_at: float) -> None:
        self.trace = trace
        self.unit = unit
        self.closed_at = closed_at
        self.revision = 1


class KeptTraces:
    """
    Closed traces that may be scored again. Not thread-safe; the assembler's.

    Args:
        limits: How much is kept, and for how long.
        rules: When a trace that was opened again closes.

    Attributes:
        size: Bytes that all of them are worth.
    """

    def __init__(self, limits: AssemblyLimits, rules: ClosingRules) -> None:
        self._limits = limits
        self._rules = rules
        # Closed ones, which may have to go, the first one first; and those that late spans have opened again.
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._again: dict[bytes, _Kept] = {}
        self._open: dict[bytes, OpenTrace] = {}
        self._deadlines = Deadlines(self._open, rules)
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept) + len(self._again)

    def keep(self, trace: OpenTrace, unit: bytes, reason: CloseReason, now: float) -> None:
        """Keep a trace that was closed just now for the first time, if it is one to be scored again."""
        self._expire(now)
        if reason in _NOT_KEPT or not self._make_room(trace.size):
            return
        trace.due = math.inf
        self._kept[trace.key] = _Kept(trace, unit, now)
        self.size += trace.size

    def add(self, key: bytes, span: RawSpan, now: float) -> LateSpan:
        """Take a late span of a trace."""
        self._expire(now)
        kept = self._find(key)
        if kept is None:
            return LateSpan.IGNORED
        trace, known, span_key = kept.trace, kept.trace.spans, span.span_id
        if span_key in known:
            span_key = twin_key(known, span)
            if span_key in known:
                count_repeat(known[span_key], span)
                return LateSpan.DUPLICATE
        limits = self._limits
        is_full = len(known) >= limits.max_spans_per_trace or trace.size + span.size > limits.max_bytes_per_trace
        if is_full or now - kept.closed_at >= limits.rescore_window or not self._make_room(span.size, besides=key):
            return LateSpan.IGNORED
        if key not in self._open:
            self._again[key] = self._kept.pop(key)
            self._open[key] = trace
            trace.first = now
            trace.root_at = None if trace.root_at is None else now
            trace.due = math.inf
        known[span_key] = span
        trace.last = now
        trace.size += span.size
        self.size += span.size
        self._rules.note(trace, span, now)
        self._deadlines.expect((trace,))
        return LateSpan.KEPT

    def add_log(self, key: bytes, record: RawLog, now: float) -> None:
        """Take a late log record: the next revision has it, but it leads to none."""
        kept = self._find(key)
        if kept is not None and self._make_room(record.size, besides=key):
            before = kept.trace.size
            kept.trace.add_log(record, self._limits, now)
            self.size += kept.trace.size - before

    def due(self, now: float) -> Iterator[tuple[OpenTrace, bytes, CloseReason, int]]:
        """Yield the traces that are to be scored again: with the unit, why they closed, and which revision that is."""
        for trace, reason in self._deadlines.due(now):
            yield self._close(trace, reason)

    def drain(self, reason: CloseReason) -> Iterator[tuple[OpenTrace, bytes, CloseReason, int]]:
        """Yield those that are open again, and forget all others."""
        for trace in list(self._open.values()):
            yield self._close(trace, reason)
        self._forget_closed()

    def next_deadline(self) -> float | None:
        """Return when `due` may next have something to say."""
        return self._deadlines.next()

    def relieve(self) -> int:
        """Forget all that are not open again, for want of memory, and return how many bytes they were worth."""
        before = self.size
        count("assembler.rescoring_given_up", len(self._kept))
        self._forget_closed()
        return before - self.size

    def _close(self, trace: OpenTrace, reason: CloseReason) -> tuple[OpenTrace, bytes, CloseReason, int]:
        del self._open[trace.key]
        kept = self._kept[trace.key] = self._again.pop(trace.key)
        kept.revision += 1
        return trace, kept.unit, reason, kept.revision

    def _expire(self, now: float) -> None:
        while self._kept and now - next(iter(self._kept.values())).closed_at >= self._limits.rescore_window:
            self._forget_first()

    def _make_room(self, size: int, besides: bytes = b"") -> bool:
        most = self._limits.rescore_memory
        while self.size + size > most:
            if size > most or not self._forget_first(besides):
                return False
            count("assembler.rescoring_given_up")
        return True

    def _find(self, key: bytes) -> _Kept | None:
        return self._kept.get(key) or self._again.get(key)

    def _forget_closed(self) -> None:
        while self._forget_first():
            pass

    def _forget_first(self, besides: bytes = b"") -> bool:
        """Forget the trace that was closed the longest ago and is not open again; return whether there was one."""
        first = next(iter(self._kept), None)
        if first == besides:
            # There is only one such trace, so the next one is another one.
            first = next(islice(self._kept, 1, None), None)
        if first is None:
            return False
        self.size -= self._kept.pop(first).trace.size
        return True
