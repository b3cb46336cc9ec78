"""Whose fault it is that a scorer worker hangs or has ended, and what is decided for the call at fault."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError
from otel_scorer.pipeline.workers.memory_use import private_bytes
from otel_scorer.scorers.results import error_feedback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace
    from otel_scorer.pipeline.workers.protocol import Beat
    from otel_scorer.pipeline.workers.worker_process import WorkerProcess, WorkerScorer

__all__ = ["Fault", "Haste", "decide_fault", "find_cause", "find_overdue", "find_too_large"]

# Somebody may kill workers for reasons of their own; a job that was in this many of them is the reason.
_KILLS: Final = 3
_MEGABYTE: Final = 1 << 20


class HasBeats(Protocol):
    """A worker, as far as the calls that run in it are concerned."""

    def beats(self) -> list[Beat]:
        """Return them."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Why a worker must be replaced.

    Attributes:
        culprit: The job, scorer and target at fault, if they are known.
        outcome: What is decided for it.
        code: The code of its error.
        cause: The message of its error.
    """

    culprit: tuple[int, int, int] | None
    outcome: Outcome
    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class Haste:
    """
    What any call has from a moment on, whatever its own timeout says.

    Attributes:
        seconds: For each call.
        since: That moment, in monotonic seconds. What had begun before has as much as what begins then.
    """

    seconds: float = math.inf
    since: float = -math.inf


def find_overdue(
    process: HasBeats, scorers: Sequence[WorkerScorer], haste: Haste, now: float, *, resumed: float = -math.inf
) -> Fault | None:
    """
    Return what runs past its timeout in a worker, if something does.

    Args:
        process: The worker.
        scorers: What it runs, by number.
        haste: What its calls have at most.
        now: Monotonic seconds.
        resumed: When the process went on that had been stopped last: what ran then has all its time again.
    """
    for job, scorer, target, began in process.beats():
        known, since = scorers[scorer], max(began, resumed)
        if known.timeout is not None and now - since > known.timeout:
            allowed = f"{known.timeout:g} seconds"
        elif now - max(since, haste.since) > haste.seconds:
            allowed = f"the {haste.seconds:g} seconds that a call has once its worker is to end"
        else:
            continue
        cause = f"Scorer {known.name!r} did not return within {allowed}"
        return Fault((job, scorer, target), Outcome.TIMED_OUT, "TimeoutError", cause)
    return None


def find_too_large(process: WorkerProcess, suspect: tuple[int, int] | None) -> Fault | None:
    """
    Return what made a worker larger than it may be, if it is; of several that run, nobody can say which it was.

    Args:
        process: The worker.
        suspect: The job and the scorer that run alone in it, if they do.
    """
    if process.memory_limit is None or private_bytes(process.process.pid) <= process.memory_limit:
        return None
    running = [beat[:3] for beat in process.beats()]
    cause = f"the scorer's process had more than {process.memory_limit / _MEGABYTE:.0f} MiB of memory"
    culprit = running[0] if len(running) == 1 else None if suspect is None else (*suspect, 0)
    return Fault(culprit, Outcome.FAILED, "MemoryError", cause)


def find_cause(process: WorkerProcess, suspect: tuple[int, int] | None, ends: int, error: Exception) -> Fault:
    """
    Find out why a worker ended. Of what ran, only one can be at fault, and only if nobody else killed it.

    Args:
        process: The worker, which has ended.
        suspect: The job and the scorer that ran alone in it, if they did.
        ends: In how many workers that ended the suspect's job has been before.
        error: How its end was noticed.
    """
    running = [beat[:3] for beat in process.beats()]
    culprit = running[0] if len(running) == 1 and not process.was_killed else None
    if suspect is not None and not (process.was_killed and ends < _KILLS):
        culprit = next((beat for beat in running if beat[:2] == suspect), (*suspect, 0))
    cause = f"the scorer's process ended ({process.cause})"
    if isinstance(error, ValueError):
        cause = f"the scorer's process said what cannot be read: {error}"
    return Fault(culprit, Outcome.FAILED, "WorkerDied", cause)


def decide_fault(fault: Fault, trace: ClosedTrace[RawSpan], scorer: WorkerScorer) -> Decision:
    """Return the decision for the call at fault."""
    about = trace.trace_id.hex(), None, scorer.name, scorer.version
    feedback = error_feedback(scorer.name, AssessmentError(fault.code, fault.cause))
    return Decision(*about, fault.outcome, fault.cause, trace.revision, (feedback,), (None,))
