"""
Score recorded traces: read files, put the traces together, run the scorers on them.

The same assembler, scorers and decisions as live; only the waiting falls away, since a file has an end.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.dialects import default_reader
from otel_scorer.model.decode import attach_logs, logs_from_raw, spans_from_raw
from otel_scorer.model.log_records import read_logs
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import Signal, read_traces
from otel_scorer.pipeline.assembler import AssemblyLimits, CloseReason, TraceAssembler
from otel_scorer.pipeline.local import LocalScoring
from otel_scorer.pipeline.runner import DEFAULT_TIMEOUT
from otel_scorer.pipeline.selection import Selector
from otel_scorer.pipeline.suppression import suppressed
from otel_scorer.stores.otlp_files import FileProblem, OtlpFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Reader
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembler import ClosedTrace
    from otel_scorer.scorers.base import Scorer

__all__ = ["Progress", "Recording", "ScoredTrace", "load_traces", "read_recording", "score_traces"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, of how much."""

_STEPS: Final = 1000
# Nothing is cut short offline: the whole file is there anyway.
_NO_LIMITS: Final = AssemblyLimits(
    max_traces=sys.maxsize, max_spans_per_trace=sys.maxsize, max_bytes_per_trace=sys.maxsize
)


@dataclass(frozen=True, slots=True)
class Recording:
    """
    What was read of some files.

    Attributes:
        traces: By first start; spans of one trace are joined across requests and files, and so are its log records.
        problems: What could not be read; of each file the first 100.
        problem_count: How many there are.
    """

    traces: list[Trace]
    problems: list[FileProblem] = field(default_factory=list[FileProblem])
    problem_count: int = 0


@dataclass(frozen=True, slots=True)
class ScoredTrace:
    """A trace and what every scorer said of it, in the order of the scorers, their targets and their feedback."""

    trace: Trace
    decisions: tuple[Decision, ...]


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
            collector.add(signal, data)
            if on_progress is not None and file.size:
                # Sizes of files that were not opened yet are not known: every file counts the same.
                done = (position * file.size + file.position) / file.size
                on_progress(int(done * _STEPS), len(files) * _STEPS)
    return Recording(
        collector.traces(),
        [problem for file in files for problem in file.problems],
        sum(file.problem_count for file in files),
    )


class _Collector:
    """Takes requests and gives traces."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._assembler = TraceAssembler(_NO_LIMITS)
        self._own: dict[bytes, dict[bytes, RawSpan]] = {}

    def add(self, signal: Signal, data: bytes) -> None:
        """Take one request."""
        if signal is Signal.LOGS:
            self._assembler.add_logs(read_logs(data), now=0.0)
        elif signal is Signal.TRACES:
            for span in self._assembler.add(read_traces(data).spans, now=0.0).own:
                # An evaluation span may come before its trace, even in another file.
                self._own.setdefault(span.trace_id, {}).setdefault(span.span_id, span)

    def traces(self) -> list[Trace]:
        """Return all traces, by first start. Nothing can be added after that."""
        closed = self._assembler.drain(CloseReason.END_OF_FILE, now=0.0)
        return sorted((self._trace(one) for one in closed), key=_first_start)

    def _trace(self, closed: ClosedTrace[RawSpan]) -> Trace:
        own = self._own.get(closed.trace_id, {})
        spans = [span for span in closed.spans if not span.scope.is_own]
        views = spans_from_raw([*spans, *own.values()])
        attach_logs(views, logs_from_raw(closed.logs))
        return Trace(
            views,
            self._reader,
            close_reason=closed.reason.value,
            is_complete=closed.complete,
            revision=closed.revision,
        )


def _first_start(trace: Trace) -> tuple[int, str]:
    return min(span.start_time_ns for span in trace.spans), trace.trace_id


def score_traces(
    traces: Sequence[Trace],
    scorers: Sequence[Scorer],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    concurrency: int = 64,
    on_progress: Progress | None = None,
) -> list[ScoredTrace]:
    """
    Run scorers on traces, in threads of this process.

    Args:
        traces: The traces.
        scorers: The scorers; their `sample_rate`, `filter` and `span_types` count as they do live.
        timeout: Seconds for one call of a scorer that does not say; 0: no limit.
        concurrency: Coroutine scorers that run at the same time.
        on_progress: Told how many traces are decided, of how many; called from several threads.

    Returns:
        The traces in their order, with all decisions about them.

    Raises:
        ConfigError: A filter cannot be compiled.
    """
    selector = Selector(scorers, default_timeout=timeout, suppress=suppressed)
    work = _Work(len(traces), on_progress)
    scoring = LocalScoring(queue_size=len(traces) + 1, concurrency=concurrency)
    scoring.start()
    try:
        for position, trace in enumerate(traces):
            scoring.submit(partial(selector.choose, trace), partial(work.take, position))
        work.wait()
    finally:
        scoring.shutdown(timeout=0.0)
    return [ScoredTrace(trace, work.decisions_of(position)) for position, trace in enumerate(traces)]


class _Work:
    """Collects decisions that come from several threads."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._decisions: list[dict[int, Decision]] = [{} for _ in range(total)]
        self._total = total
        self._on_progress = on_progress
        self._changed = threading.Condition()  # guards the number of traces that are decided
        self._done = 0

    def take(self, position: int, index: int, decision: Decision | None, is_last: bool) -> None:  # noqa: FBT001 - as called
        """Take one decision about one trace."""
        if decision is not None:
            self._decisions[position][index] = decision
        if is_last:
            with self._changed:
                self._done += 1
                done = self._done
                self._changed.notify_all()
            if self._on_progress is not None:
                self._on_progress(done, self._total)

    def wait(self) -> None:
        """Wait until everything is decided: every call has a timeout of its own."""
        with self._changed:
            self._changed.wait_for(lambda: self._done == self._total)

    def decisions_of(self, position: int) -> tuple[Decision, ...]:
        """Return the decisions about one trace in the order of the choices."""
        found = self._decisions[position]
        return tuple(found[index] for index in sorted(found))
