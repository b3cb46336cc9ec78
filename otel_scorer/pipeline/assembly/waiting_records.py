"""Log records that wait for their trace, and those of one trace: bounded in number, bytes and time."""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_scorer.model.log_records import RawLog
    from otel_scorer.pipeline.assembly.closing import AssemblyLimits

__all__ = ["Fate", "TraceRecords", "WaitingRecords"]

# All that wait may take as much memory as so many traces.
_WORTH_TRACES: Final = 2


class Fate(StrEnum):
    """What became of a log record about a span. Also the values of `assembler.log_records_dropped{reason}`."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    LATE = "late"
    RECORD_LIMIT = "record_limit"
    BYTE_LIMIT = "byte_limit"
    EVICTED = "evicted"
    NO_TRACE = "no_trace"


class TraceRecords:
    """
    The records of one trace, each once, in order of arrival.

    They may take up half of the bytes of a trace, and be as many as its spans: what comes then is not kept, but never
    closes the trace.
    """

    __slots__ = ("first", "known", "last", "size")

    def __init__(self, now: float) -> None:
        self.known: dict[RawLog, None] = {}
        self.first = now
        self.last = now
        self.size = 0

    def add(self, record: RawLog, limits: AssemblyLimits) -> Fate:
        """Keep a record, unless it is here already or there is no room."""
        if record in self.known:
            return Fate.DUPLICATE
        if len(self.known) >= limits.max_spans_per_trace:
            return Fate.RECORD_LIMIT
        if self.size + record.size > limits.max_bytes_per_trace // 2:
            return Fate.BYTE_LIMIT
        self.known[record] = None
        self.size += record.size
        return Fate.KEPT


class WaitingRecords:
    """
    Records of traces of which no span has come yet, by trace, the one that got none for the longest first.

    They wait as long as a trace without a root does: `idle_timeout` after the last of them, `max_age` after the first.
    There may be as many such traces as open ones (`max_traces`), worth two traces of the largest size in all. Where
    units are assembled it is the span of a record that tells the unit: then they wait by span.

    Args:
        limits: How many, and how long.
        by_span: Whether they wait for their span instead of any span of their trace.
    """

    def __init__(self, limits: AssemblyLimits, *, by_span: bool = False) -> None:
        self._limits = limits
        self._by_span = by_span
        # Ordered by a list of links: the first one of a dict that others were taken out of is found by searching.
        self._traces: OrderedDict[bytes, TraceRecords] = OrderedDict()
        self.size = 0
        """Bytes of memory that they are worth."""

    def __len__(self) -> int:
        return len(self._traces)

    def add(self, record: RawLog, now: float) -> tuple[Fate, int]:
        """Keep a record and return what became of it, and how many others had to go to make room."""
        # Taken out and put in again: the order is that of the last arrival.
        key = record.trace_id + record.span_id if self._by_span else record.trace_id
        records = self.take(key)
        gone = 0
        if records is not None and now - records.first >= self._limits.max_age:
            gone, records = len(records.known), None
        if records is None:
            records = TraceRecords(now)
        fate = records.add(record, self._limits)
        records.last = now
        if records.known:
            self._traces[key] = records
            self.size += records.size
        most = _WORTH_TRACES * self._limits.max_bytes_per_trace
        while len(self._traces) > self._limits.max_traces or self.size > most:
            gone += self._drop_first()
        return fate, gone

    def take(self, key: bytes) -> TraceRecords | None:
        """Hand over the records of a trace id (by span: with a span id behind it), if there are some."""
        records = self._traces.pop(key, None)
        if records is not None:
            self.size -= records.size
        return records

    def look(self, key: bytes) -> tuple[RawLog, ...]:
        """Return the records of a trace id, or a trace id and a span id; they go on waiting."""
        records = self._traces.get(key)
        return () if records is None else tuple(records.known)

    def deadline(self) -> float | None:
        """Return when the first of them have waited long enough."""
        for records in self._traces.values():
            return records.last + self._limits.idle_timeout
        return None

    def expire(self, now: float) -> int:
        """Drop what has waited long enough and return how many records that were."""
        gone = 0
        while (deadline := self.deadline()) is not None and deadline <= now:
            gone += self._drop_first()
        return gone

    def clear(self) -> int:
        """Drop everything and return how many records that were."""
        gone = 0
        while self._traces:
            gone += self._drop_first()
        return gone

    def _drop_first(self) -> int:
        records = self.take(next(iter(self._traces)))
        return 0 if records is None else len(records.known)
