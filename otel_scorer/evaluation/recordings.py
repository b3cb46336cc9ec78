"""
Read recorded traces: files of requests, put together by the assembler that also works live.

Only the waiting falls away, since a file has an end. What is kept in memory is the bytes of the spans; views are made
when somebody looks, and go when they have looked.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.dialects import default_reader
from otel_scorer.errors import RequestError
from otel_scorer.model.decode import attach_logs, logs_from_raw, spans_from_raw
from otel_scorer.model.log_records import join_logs, read_logs
from otel_scorer.model.span_fields import parse_span
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import Signal, read_traces
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, CloseReason, TraceAssembler
from otel_scorer.stores.otlp_files import FileProblem, OtlpFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from otel_scorer.model.trace import Reader
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.assembler import ClosedTrace

__all__ = ["Progress", "RecordedTrace", "Recording", "load_traces", "read_recording"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, of how much."""

_STEPS: Final = 1000
# Nothing is cut short offline: the whole file is there anyway.
_NO_LIMITS: Final = AssemblyLimits(
    max_traces=sys.maxsize, max_spans_per_trace=sys.maxsize, max_bytes_per_trace=sys.maxsize
)


class RecordedTrace:
    """One trace of a recording, as bytes."""

    __slots__ = ("_closed", "_reader", "_spans")

    def __init__(self, closed: ClosedTrace[RawSpan], own: Sequence[RawSpan], reader: Reader) -> None:
        self._closed = closed
        self._reader = reader
        self._spans = [*(span for span in closed.spans if not span.scope.is_own), *own]

    @property
    def first_start(self) -> tuple[int, str]:
        """Where it belongs among others: start of the first span in nanoseconds, then the id."""
        starts = [parse_span(span.data).start_time_unix_nano for span in self._spans if not span.scope.is_own]
        return min(starts, default=0), self._closed.trace_id.hex()

    @property
    def closed(self) -> ClosedTrace[RawSpan]:
        """What a worker process gets of it."""
        return replace(self._closed, spans=self._spans)

    @property
    def logs(self) -> bytes:
        """The log records about its spans, as one encoded request."""
        return join_logs(self._closed.logs)

    def load(self) -> Trace:
        """Return a view of it, a new one each time."""
        closed = self._closed
        views = spans_from_raw(self._spans)
        attach_logs(views, logs_from_raw(closed.logs))
        return Trace(
            views,
            self._reader,
            close_reason=closed.reason.value,
            is_complete=closed.complete,
            revision=closed.revision,
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """
    What was read of some files.

    Attributes:
        recorded: By first start; spans of one trace are joined across requests and files, and so are its log records.
        problems: What could not be read; of each file the first 100.
        problem_count: How many there are.
        duplicates: Spans that came again, by trace id; the first copy is in the trace.
    """

    recorded: list[RecordedTrace]
    problems: list[FileProblem] = field(default_factory=list[FileProblem])
    problem_count: int = 0
    duplicates: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def traces(self) -> list[Trace]:
        """Views of all traces, new ones each time."""
        return [recorded.load() for recorded in self.recorded]


def load_traces(*paths: str | Path, dialects: Mapping[str, Any] | str | Path | None = None) -> list[Trace]:
    """
    Read the traces of files, first start first.

    Args:
        paths: OTLP JSON, JSON lines or protobuf, each also gzip or zstd; `-` for standard input. What a damaged file
            still tells is used, and a warning is logged.
        dialects: What otel_scorer should know about your spans: the section `dialects` of the configuration, or a
            configuration file that has one (docs/dialects.md).

    Raises:
        ConfigError: A file cannot be opened, or `dialects` cannot be used.
    """
    recording = read_recording(paths, reader=None if dialects is None else _taught(dialects))
    for problem in recording.problems:
        logger.warning("Not read: %s", problem)
    return recording.traces


def _taught(dialects: Mapping[str, Any] | str | Path) -> Reader:
    from otel_scorer.config import taught_reader

    return taught_reader(dialects)


def read_recording(
    paths: Sequence[str | Path], on_progress: Progress | None = None, *, reader: Reader | None = None
) -> Recording:
    """
    Read files and put their traces together.

    Args:
        paths: See `load_traces`.
        on_progress: Told how many bytes are read, of how many.
        reader: Tells what attributes mean; by default with all dialects that are installed.

    Raises:
        ConfigError: A file cannot be opened.
    """
    collector = _Collector(reader or default_reader())
    files = [OtlpFile(path) for path in paths]
    for position, file in enumerate(files):
        for signal, data in file.requests():
            try:
                collector.add(signal, data)
            except RequestError as error:
                file.report(str(error))
            if on_progress is not None and file.size:
                # Sizes of files that were not opened yet are not known: every file counts the same.
                done = (position * file.size + file.position) / file.size
                on_progress(int(done * _STEPS), len(files) * _STEPS)
    return Recording(
        collector.recorded(),
        [problem for file in files for problem in file.problems],
        sum(file.problem_count for file in files),
        collector.duplicates,
    )


class _Collector:
    """Takes requests and gives traces."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._assembler = TraceAssembler(_NO_LIMITS)
        self._own: dict[bytes, dict[bytes, RawSpan]] = {}
        self.duplicates: Counter[str] = Counter()

    def add(self, signal: Signal, data: bytes) -> None:
        """Take one request."""
        if signal is Signal.LOGS:
            self._assembler.add_logs(read_logs(data), now=0.0)
        elif signal is Signal.TRACES:
            added = self._assembler.add(read_traces(data).spans, now=0.0)
            self.duplicates.update(span.trace_id.hex() for span in added.duplicates)
            for span in added.own:
                # An evaluation span may come before its trace, even in another file.
                self._own.setdefault(span.trace_id, {}).setdefault(span.span_id, span)

    def recorded(self) -> list[RecordedTrace]:
        """Return all traces, by first start. Nothing can be added after that."""
        closed = self._assembler.drain(CloseReason.END_OF_FILE, now=0.0)
        traces = [RecordedTrace(one, [*self._own.get(one.trace_id, {}).values()], self._reader) for one in closed]
        return sorted(traces, key=lambda trace: trace.first_start)
