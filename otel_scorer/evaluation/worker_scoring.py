"""
Recorded traces, scored in worker processes as the sidecar does it.

What hangs or crashes there costs one decision and is called again for the next trace, and several workers use several
cores. It takes references to scorers, since nothing else reaches another process, and a moment to start.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from dataclasses import dataclass, field, fields
from itertools import count as counting
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_scorer.dialects.teaching import Teaching
from otel_scorer.evaluation.scoring import Counting, ScoredTrace
from otel_scorer.pipeline.running.runner import DEFAULT_TIMEOUT
from otel_scorer.pipeline.workers.jobs import Job, ScorerSet, sample_scorers
from otel_scorer.pipeline.workers.pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otel_scorer.evaluation.recordings import Progress, RecordedTrace
    from otel_scorer.model.decision import Decision
    from otel_scorer.pipeline.workers.jobs import Result
    from otel_scorer.scorers.loading import ScorerSpec

__all__ = ["Workers", "score_in_workers"]

# Traces that are with the workers at the same time, for each of them.
_AHEAD: Final = 256


@dataclass(frozen=True, slots=True)
class Workers:
    """
    Processes that score.

    Attributes:
        scorers: What each of them loads.
        number: How many there are.
        teaching: What they should know about spans.
        timeout: Seconds for one call of a scorer that does not say; 0: no limit.
        concurrency: Coroutine scorers that run at the same time in one process.
    """

    scorers: Sequence[ScorerSpec]
    number: int = 1
    teaching: Teaching = field(default_factory=Teaching)
    timeout: float = DEFAULT_TIMEOUT
    concurrency: int = 64

    @property
    def setup(self) -> dict[str, object]:
        """The same as the workers read it."""
        return {
            "scorers": [_given(spec) for spec in self.scorers],
            "dialects": self.teaching.to_dict(),
            "timeout": self.timeout,
            "concurrency": self.concurrency,
            "folder": str(Path.cwd()),
        }


def _given(spec: ScorerSpec) -> dict[str, object]:
    values: dict[str, object] = {each.name: getattr(spec, each.name) for each in fields(spec)}
    return {key: value for key, value in values.items() if value is not None}


@dataclass(slots=True)
class _Open:
    """A trace that is with the workers, and what was decided about it."""

    recorded: RecordedTrace
    decisions: list[Decision]
    is_decided: bool = False


class _Desk:
    """Where results arrive, on threads of the pool, and somebody waits for them."""

    def __init__(self) -> None:
        # Guards what is open; notified with each result.
        self._changed = threading.Condition()
        self._open: dict[int, _Open] = {}

    def put(self, number: int, entry: _Open) -> None:
        """Expect results for a job."""
        with self._changed:
            self._open[number] = entry

    def deliver(self, results: Iterable[Result]) -> None:
        """Take results."""
        with self._changed:
            for result in results:
                entry = self._open[result.job_id]
                entry.decisions += result.decisions
                entry.is_decided = result.done
            self._changed.notify_all()

    def take(self, number: int) -> _Open:
        """Wait until a job is decided: every call has a timeout of its own."""
        with self._changed:
            self._changed.wait_for(lambda: self._open[number].is_decided)
            return self._open.pop(number)


def score_in_workers(
    traces: Sequence[RecordedTrace], workers: Workers, *, on_progress: Progress | None = None
) -> Iterator[ScoredTrace]:
    """
    Yield the traces in their order, each with all decisions about it, in the order of the scorers.

    Raises:
        ConfigError: A scorer cannot be loaded, or its filter cannot be compiled.
    """
    # There are only so many at a time: no need to count their bytes.
    pool = WorkerPool(workers.setup, workers=workers.number, queue_bytes=sys.maxsize)
    profiles = [scorer.profile for scorer in pool.start()]
    places = {(profile.name, profile.version): place for place, profile in reversed(list(enumerate(profiles)))}
    desk, progress = _Desk(), Counting(traces, on_progress)
    pool.run(desk.deliver)
    waiting: deque[int] = deque()
    numbers = counting()
    source = iter(traces)
    try:
        while True:
            while len(waiting) < _AHEAD * workers.number and (recorded := next(source, None)) is not None:
                number = next(numbers)
                waiting.append(number)
                _submit(pool, desk, number, recorded, ScorerSet(profiles))
            if not waiting:
                return
            entry = desk.take(waiting.popleft())
            progress.one_more()
            entry.decisions.sort(key=lambda each: places[each.scorer, each.scorer_version])
            yield ScoredTrace(entry.recorded.load(), tuple(entry.decisions))
    finally:
        pool.shutdown(0.0)


def _submit(pool: WorkerPool, desk: _Desk, number: int, recorded: RecordedTrace, scorers: ScorerSet) -> None:
    closed = recorded.closed
    chosen, refused = sample_scorers(closed, scorers)
    desk.put(number, _Open(recorded, refused, is_decided=not chosen))
    if chosen:
        pool.submit([Job(number, closed, chosen)])
