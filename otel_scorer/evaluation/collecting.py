"""
Spans and log records of a recording, put together as traces, by first start, in as little memory as it takes.

A trace's spans may be anywhere in a file. Up to a bound they stay in memory; beyond it everything that is there goes to
a file without a name, sorted by trace, and is merged at the end. The assembler that also works live puts each trace
together; only the waiting falls away, since a file has an end.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final, overload

from otel_scorer.model.decode import attach_logs, logs_from_raw, spans_from_raw
from otel_scorer.model.log_records import join_logs, read_logs
from otel_scorer.model.span_fields import parse_span
from otel_scorer.model.splicing import join_in_order
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import Signal, read_traces
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, ClosedTrace, CloseReason, TraceAssembler
from otel_scorer.stores.overflow import Overflow
from otel_scorer.stores.sorted_runs import SortedRuns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_scorer.model.log_records import RawLog
    from otel_scorer.model.trace import Reader
    from otel_scorer.model.wire import RawSpan

    _Closed = ClosedTrace[RawSpan]

__all__ = ["RecordedTrace", "TraceCollector"]

# Bytes that spans and log records may be worth in memory.
_MEMORY: Final = 32 * 1024 * 1024
# Traces that are put together at a time, and whose places are sorted at a time.
_BATCH: Final = 256
_PLACES: Final = 50_000
_TRACE_ID: Final = 16
# What a trace begins with in the file: the bytes of its spans and of its records, what it is worth in memory, and
# whether it is complete. A place: the first start, so that it can be sorted by, and the trace id; then where it is.
_HEAD: Final = struct.Struct("<16sQQQ?")
_PIECE: Final = struct.Struct("<Q")
_START: Final = struct.Struct(">Q")
_AT: Final = struct.Struct("<Q")
# Nothing is cut short offline: the whole file is there anyway.
_NO_LIMITS: Final = AssemblyLimits(
    max_traces=sys.maxsize, max_spans_per_trace=sys.maxsize, max_bytes_per_trace=sys.maxsize
)


class RecordedTrace:
    """
    One trace of a recording, as bytes.

    Args:
        read: Returns it, as a worker process gets it.
        reader: Tells what attributes mean.
    """

    __slots__ = ("_read", "_reader")

    def __init__(self, read: Callable[[], _Closed], reader: Reader) -> None:
        self._read = read
        self._reader = reader

    @property
    def closed(self) -> _Closed:
        """What a worker process gets of it."""
        return self._read()

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        return self._read().trace_id.hex()

    @property
    def logs(self) -> bytes:
        """The log records about its spans, as one encoded request."""
        return join_logs(self._read().logs)

    def load(self) -> Trace:
        """Return a view of it, a new one each time."""
        closed = self._read()
        views = spans_from_raw(closed.spans)
        attach_logs(views, logs_from_raw(closed.logs))
        return Trace(
            views,
            self._reader,
            close_reason=closed.reason.value,
            is_complete=closed.complete,
            revision=closed.revision,
        )


class TraceCollector:
    """
    Takes requests and gives traces.

    Args:
        reader: Tells what attributes mean.
        memory: Bytes that spans and log records may be worth in memory.
    """

    def __init__(self, reader: Reader, memory: int = _MEMORY) -> None:
        self._reader = reader
        self._memory = memory
        # By trace id, in order of arrival.
        self._pieces: dict[bytes, _Pieces] = {}
        self._size = 0
        self._runs: SortedRuns | None = None
        self.duplicates: Counter[str] = Counter()
        """Spans that came again, by trace id; known when all traces are."""

    def add(self, signal: Signal, data: bytes) -> None:
        """Take one request."""
        pieces = self._pieces
        if signal is Signal.LOGS:
            for record in read_logs(data):
                found = pieces.get(record.trace_id) or pieces.setdefault(record.trace_id, _Pieces())
                found.logs.append(record)
                self._size += record.size
        elif signal is Signal.TRACES:
            for span in read_traces(data).spans:
                found = pieces.get(span.trace_id) or pieces.setdefault(span.trace_id, _Pieces())
                found.spans.append(span)
                self._size += span.size
        if self._size > self._memory:
            self._spill()

    def recorded(self) -> Sequence[RecordedTrace]:
        """
        Return all traces, by first start. Nothing can be added after that.

        Raises:
            StoreError: What did not stay in memory cannot be read again.
        """
        if self._runs is None:
            closed = sorted(self._closed(self._taken()), key=_first_start)
            return [RecordedTrace(partial(_same, one), self._reader) for one in closed]
        self._spill()
        return _FiledTraces(self._closed(_merged(self._runs)), self._reader)

    def _spill(self) -> None:
        if self._runs is None:
            self._runs = SortedRuns(_TRACE_ID)
        taken, self._pieces, self._size = self._pieces, {}, 0
        self._runs.add((trace_id, taken.pop(trace_id).encoded()) for trace_id in sorted(taken))

    def _taken(self) -> Iterator[_Pieces]:
        while self._pieces:
            yield self._pieces.pop(next(iter(self._pieces)))

    def _closed(self, pieces: Iterator[_Pieces]) -> Iterator[_Closed]:
        """Yield the traces that were put together, otel_scorer's own spans last in each, in no particular order."""
        while batch := list(islice(pieces, _BATCH)):
            assembler = TraceAssembler(_NO_LIMITS)
            # An evaluation span may come before its trace, even in another file.
            own: dict[bytes, dict[bytes, RawSpan]] = {}
            for each in batch:
                assembler.add_logs(each.logs, now=0.0)
                added = assembler.add(each.spans, now=0.0)
                self.duplicates.update(span.trace_id.hex() for span in added.duplicates)
                for span in added.own:
                    own.setdefault(span.trace_id, {}).setdefault(span.span_id, span)
            for one in assembler.drain(CloseReason.END_OF_FILE, now=0.0):
                mine = own.get(one.trace_id)
                if mine is not None:
                    one.spans = [*(span for span in one.spans if not span.scope.is_own), *mine.values()]
                yield one


class _Pieces:
    """What has come of one trace."""

    __slots__ = ("logs", "spans")

    def __init__(self) -> None:
        self.spans: list[RawSpan] = []
        self.logs: list[RawLog] = []

    def encoded(self) -> bytes:
        """Return it as bytes."""
        spans = join_in_order(self.spans)
        return b"".join((_PIECE.pack(len(spans)), spans, join_logs(self.logs)))

    def add(self, data: bytes) -> None:
        """Take what was encoded."""
        (size,) = _PIECE.unpack_from(data)
        end = _PIECE.size + size
        self.spans += read_traces(data[_PIECE.size : end]).spans
        self.logs += read_logs(data[end:])


def _merged(runs: SortedRuns) -> Iterator[_Pieces]:
    for _, group in groupby(runs.merged(), key=itemgetter(0)):
        pieces = _Pieces()
        for _, data in group:
            pieces.add(data)
        yield pieces


def _same(closed: _Closed) -> _Closed:
    return closed


def _first_start(closed: _Closed) -> tuple[int, bytes]:
    """Return where a trace belongs among others: start of the first span in nanoseconds, then the id."""
    starts = [parse_span(span.data).start_time_unix_nano for span in closed.spans if not span.scope.is_own]
    return min(starts, default=0), closed.trace_id


class _FiledTraces(Sequence[RecordedTrace]):
    """
    Traces that did not fit into memory, by first start: of each only its place is there, eight bytes.

    Args:
        closed: They, in any order; gone through once.
        reader: Tells what attributes mean.
    """

    def __init__(self, closed: Iterable[_Closed], reader: Reader) -> None:
        self._reader = reader
        self._data = Overflow()
        places = SortedRuns(_START.size + _TRACE_ID)
        while batch := sorted(self._kept(each) for each in islice(closed, _PLACES)):
            places.add(batch)
        self._places = array("Q", (_AT.unpack(at)[0] for _, at in places.merged()))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> RecordedTrace: ...

    @overload
    def __getitem__(self, index: slice) -> list[RecordedTrace]: ...

    def __getitem__(self, index: int | slice) -> RecordedTrace | list[RecordedTrace]:
        if isinstance(index, slice):
            return [self._trace(at) for at in self._places[index]]
        return self._trace(self._places[index])

    def _trace(self, at: int) -> RecordedTrace:
        return RecordedTrace(partial(self._read, at), self._reader)

    def _kept(self, closed: _Closed) -> tuple[bytes, bytes]:
        """Write a trace and return its key and its place."""
        start, trace_id = _first_start(closed)
        spans, logs = join_in_order(closed.spans), join_logs(closed.logs)
        head = _HEAD.pack(trace_id, len(spans), len(logs), closed.size, closed.complete)
        at = self._data.append(b"".join((head, spans, logs)))
        return _START.pack(start) + trace_id, _AT.pack(at)

    def _read(self, at: int) -> _Closed:
        trace_id, spans_size, logs_size, size, complete = _HEAD.unpack(self._data.read(at, _HEAD.size))
        data = self._data.read(at + _HEAD.size, spans_size + logs_size)
        return ClosedTrace(
            trace_id,
            read_traces(data[:spans_size]).spans,
            CloseReason.END_OF_FILE,
            complete,
            size=size,
            logs=tuple(read_logs(data[spans_size:])),
        )
