"""Run scorers on traces, by the rules that hold live: sampling, filters, span types, timeouts."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_scorer.pipeline.running.offline import OfflineScoring
from otel_scorer.pipeline.running.runner import DEFAULT_TIMEOUT
from otel_scorer.pipeline.running.selection import Selector
from otel_scorer.scorers.lifecycle import unscheduled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otel_scorer.evaluation.recordings import Progress
    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Trace
    from otel_scorer.scorers.base import Scorer

__all__ = ["Counting", "ScoredTrace", "score_stream", "score_traces"]


@dataclass(frozen=True, slots=True)
class ScoredTrace:
    """A trace and what every scorer said of it, in the order of the scorers, their targets and their feedback."""

    trace: Trace
    decisions: tuple[Decision, ...]


class Counting:
    """
    Tells somebody how much is done.

    Args:
        items: What is worked on; told of only where its size is known.
        on_progress: Whom to tell.
    """

    def __init__(self, items: object, on_progress: Progress | None) -> None:
        self._total = len(items) if isinstance(items, Sized) else 0
        self._on_progress = on_progress
        self._done = 0

    def one_more(self) -> None:
        """Count one item."""
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, max(self._total, self._done))


def score_stream(
    traces: Iterable[Trace],
    scorers: Sequence[Scorer],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    concurrency: int = 64,
    on_progress: Progress | None = None,
) -> Iterator[ScoredTrace]:
    """
    Run scorers on traces as they come, in threads of this process; see `score_traces`.

    Only a few hundred traces are in memory at a time, however many come.
    """
    # A registered scorer's sample rate and filter string are for live traces.
    selector = Selector([unscheduled(one) for one in scorers], default_timeout=timeout)
    counting = Counting(traces, on_progress)
    scoring = OfflineScoring(selector.choose, concurrency=concurrency, on_decided=counting.one_more)
    for trace, decisions in scoring.run(traces):
        yield ScoredTrace(trace, decisions)


def score_traces(
    traces: Iterable[Trace],
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
        on_progress: Told how many traces are decided, of how many; called on another thread.

    Returns:
        The traces in their order, with all decisions about them.

    Raises:
        ConfigError: A filter cannot be compiled.
    """
    return list(score_stream(traces, scorers, timeout=timeout, concurrency=concurrency, on_progress=on_progress))
