"""What the sidecar has scored, by whom, and what comes back: the values between engine and workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.pipeline.running.selection import is_sampled
from otel_scorer.telemetry import count, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace
    from otel_scorer.pipeline.keeping.evidence import Fact
    from otel_scorer.pipeline.keeping.triage import Fate

__all__ = [
    "Job",
    "Result",
    "ScorerProfile",
    "ScorerSet",
    "ScoringBackend",
    "Waiting",
    "count_decisions",
    "sample_scorers",
    "shed",
]


@dataclass(frozen=True, slots=True)
class ScorerProfile:
    """What the engine must know of a scorer to decide without running it."""

    name: str
    version: str
    sample_rate: float = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """One closed trace to be scored by the scorers with these indices."""

    id: int
    trace: ClosedTrace[RawSpan]
    scorers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Some or all decisions of a job. `done`: no more will come."""

    job_id: int
    decisions: tuple[Decision, ...]
    done: bool


class ScoringBackend(Protocol):
    """Runs jobs somewhere else and delivers results by the callable it was given."""

    def submit(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Take jobs without blocking and return those there is no room for."""
        ...


@dataclass(slots=True, eq=False)
class ScorerSet:
    """
    Scorers that judge together, and what runs them.

    Attributes:
        profiles: The scorers, in the backend's order.
        backend: What runs them; may be left out if there are none.
        jobs: How many jobs the backend was given and has not decided completely; the engine counts them.
    """

    profiles: Sequence[ScorerProfile]
    backend: ScoringBackend | None = None
    jobs: int = 0


@dataclass(slots=True)
class Waiting:
    """
    A trace that is being scored.

    Attributes:
        trace: The trace.
        held: Its spans that have not been forwarded yet.
        scorers: Who judges it.
        decisions: What is decided and waits to leave with the held spans.
        refused: Decisions of scorers that do not look at it.
        facts: What the rule asks of its spans that says whether it is kept.
        fate: Whether it is; None where all are, and before that is decided.
        all: All decisions, for whoever keeps them.
        is_done: Whether everything is decided.
    """

    trace: ClosedTrace[RawSpan]
    held: list[RawSpan]
    scorers: ScorerSet
    decisions: list[Decision] = field(default_factory=list[Decision])
    refused: Sequence[Decision] = ()
    facts: Mapping[Fact, object] | None = None
    fate: Fate | None = None
    all: list[Decision] = field(default_factory=list[Decision])
    is_done: bool = False
    _has_verdicts: bool = False
    _held_ids: frozenset[bytes] | None = None

    def begins_with(self, decisions: Iterable[Decision]) -> bool:
        """Tell whether these bring the first verdicts about it that leave: how late they are is measured once."""
        if self._has_verdicts or not any(each.feedbacks for each in decisions):
            return False
        self._has_verdicts = True
        return True

    def holds(self, span: RawSpan) -> bool:
        """Tell whether a copy of a span is held, one of the same id and kind; asked only where spans come late."""
        if self._held_ids is None:
            self._held_ids = frozenset([held.span_id for held in self.held])
        if not self.held or span.span_id not in self._held_ids:
            return False
        return any(held.span_id == span.span_id and held.kind == span.kind for held in self.held)


def sample_scorers(trace: ClosedTrace[RawSpan], scorers: ScorerSet) -> tuple[tuple[int, ...], list[Decision]]:
    """Return which scorers, by number, look at a trace, and a decision for each of the others."""
    chosen: list[int] = []
    refused: list[Decision] = []
    for index, scorer in enumerate(scorers.profiles):
        if is_sampled(trace.trace_id, scorer.sample_rate):
            chosen.append(index)
        else:
            refused.append(_decision(trace, scorer, Outcome.NOT_SAMPLED, None))
    return tuple(chosen), refused


def shed(job: Job, scorers: ScorerSet) -> tuple[Decision, ...]:
    """Return the decisions about a job that its backend had no room for."""
    reason = "the queue to the scorers is full"
    return tuple(_decision(job.trace, scorers.profiles[index], Outcome.SHED, reason) for index in job.scorers)


def _decision(trace: ClosedTrace[RawSpan], scorer: ScorerProfile, outcome: Outcome, reason: str | None) -> Decision:
    return Decision(trace.trace_id.hex(), None, scorer.name, scorer.version, outcome, reason, trace.revision)


def count_decisions(decisions: Iterable[Decision]) -> None:
    """Count decisions by scorer and outcome, and record how long the calls took."""
    found: dict[tuple[str, Outcome], list[float | None]] = {}
    for each in decisions:
        found.setdefault((each.scorer, each.outcome), []).append(each.seconds)
    for (scorer, outcome), seconds in found.items():
        count("scoring.decisions", len(seconds), scorer=scorer, outcome=outcome.value)
        called = [each for each in seconds if each is not None]
        if called:
            record("scoring.duration", called, scorer=scorer, outcome=outcome.value)
