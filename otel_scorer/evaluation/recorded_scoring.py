"""What `score` does: the traces of a recording, one after another, scored, stored if asked for, and let go of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from otel_scorer.evaluation.items import Item
from otel_scorer.evaluation.scoring import score_stream
from otel_scorer.evaluation.worker_scoring import Workers, score_in_workers
from otel_scorer.reporting.judgements import JudgementLog
from otel_scorer.reporting.subject import Evidence, trace_subject

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_scorer.evaluation.recordings import Progress, RecordedTrace, Recording
    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Trace
    from otel_scorer.reporting.judgements import Judgements
    from otel_scorer.reporting.subject import Subject
    from otel_scorer.scorers.base import Scorer

__all__ = ["judge_recording", "score_recording"]


class _Views(Iterable["Trace"], Sized):
    """A view of each recorded trace, made when it is its turn."""

    def __init__(self, recorded: Sequence[RecordedTrace]) -> None:
        self._recorded = recorded

    def __iter__(self) -> Iterator[Trace]:
        return (one.load() for one in self._recorded)

    def __len__(self) -> int:
        return len(self._recorded)


def score_recording(
    recording: Recording,
    scorers: Sequence[Scorer] | Workers,
    *,
    store: str | Path | None = None,
    run_name: str | None = None,
    on_progress: Progress | None = None,
    on_scored: Callable[[RecordedTrace, tuple[Decision, ...]], None] | None = None,
) -> Iterator[tuple[Subject, tuple[Decision, ...]]]:
    """
    Yield every trace, as reports show it, with the decisions about it.

    Args:
        recording: What was read.
        scorers: See `score_traces`; or worker processes, which load what they are told.
        store: File in which traces and verdicts are kept, as one run; None: nowhere.
        run_name: What to call the run.
        on_progress: Told how many traces are decided, of how many; called on another thread.
        on_scored: Told the decisions on each trace, in order, on the caller's thread.

    Raises:
        ConfigError: A filter cannot be compiled, the store cannot be opened, workers cannot load a scorer.
        StoreError: The store cannot be written any more.
    """
    with ExitStack() as stack:
        writer = None
        if store is not None:
            # Only who keeps something needs SQLite.
            from otel_scorer.evaluation.stored import StoreWriter, opened_store

            opened = stack.enter_context(opened_store(store))
            writer = stack.enter_context(StoreWriter(opened, opened.start_run(run_name)))
        stream = (
            score_in_workers(recording.recorded, scorers, on_progress=on_progress)
            if isinstance(scorers, Workers)
            else score_stream(_Views(recording.recorded), scorers, on_progress=on_progress)
        )
        for position, (recorded, scored) in enumerate(zip(recording.recorded, stream, strict=True)):
            if writer is not None:
                item = Item(position, trace=scored.trace)
                item.recorded = recorded
                writer.add(item, scored.decisions)
            if on_scored is not None:
                on_scored(recorded, scored.decisions)
            yield trace_subject(scored.trace, partial(_evidence, recorded)), scored.decisions
            # All that was decoded goes at once, not when the garbage collector comes by.
            scored.trace.let_go()


def judge_recording(
    recording: Recording,
    scorers: Sequence[Scorer] | Workers,
    *,
    store: str | Path | None = None,
    run_name: str | None = None,
    on_progress: Progress | None = None,
    on_scored: Callable[[RecordedTrace, tuple[Decision, ...]], None] | None = None,
) -> Judgements:
    """Return what `score_recording` yields, as a sequence of which little is in memory."""
    log = JudgementLog(lambda position, _: _evidence(recording.recorded[position]))
    for subject, decisions in score_recording(
        recording, scorers, store=store, run_name=run_name, on_progress=on_progress, on_scored=on_scored
    ):
        log.add(subject, decisions)
    return log.finish()


def _evidence(recorded: RecordedTrace) -> Evidence:
    trace = recorded.load()
    return Evidence(trace, trace.read("inputs"), trace.read("outputs"))
