"""Read recorded traces: files of requests, put together by the assembler that also works live."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.dialects import default_reader
from otel_scorer.errors import RequestError
from otel_scorer.evaluation.collecting import RecordedTrace, TraceCollector
from otel_scorer.stores.otlp_files import FileProblem, OtlpFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from otel_scorer.model.trace import Reader, Trace

__all__ = ["Progress", "RecordedTrace", "Recording", "load_traces", "read_recording"]

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, of how much."""

_STEPS: Final = 1000


@dataclass(frozen=True, slots=True)
class Recording:
    """
    What was read of some files.

    Attributes:
        recorded: By first start; spans of one trace are joined across requests and files, and so are its log records.
            Many of them are not in memory, but in a temporary file that goes with them.
        problems: What could not be read; of each file the first 100.
        problem_count: How many there are.
        duplicates: Spans that came again, by trace id; the first copy is in the trace.
    """

    recorded: Sequence[RecordedTrace]
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
        StoreError: What did not fit into memory cannot be read again.
    """
    collector = TraceCollector(reader or default_reader())
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
