"""What the pool has on record: jobs that are not decided completely, and what each worker was given of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_scorer.pipeline.workers.jobs import Job
    from otel_scorer.pipeline.workers.worker_process import WorkerProcess

__all__ = ["OpenJob", "WorkerRecord"]


@dataclass(slots=True)
class OpenJob:
    """
    A job that has not been decided completely.

    Attributes:
        job: The job.
        left: The scorers that have not answered.
        size: Bytes of its spans.
        faults: By scorer and number of the target: what to say of a target that ended a worker, or made it hang.
        ends: How often it was in a worker that ended and nobody knows why. Such suspects run alone, scorer by scorer.
        accused: The scorer whose call ran when a worker ended, until it is tried: alone in a worker that is fresh.
    """

    job: Job
    left: set[int]
    size: int
    faults: dict[int, dict[int, tuple[str, str, str]]] = field(
        default_factory=dict[int, "dict[int, tuple[str, str, str]]"]
    )
    ends: int = 0
    accused: int | None = None

    @property
    def is_suspect(self) -> bool:
        """Whether it may end a worker, and so runs alone."""
        return self.ends > 0 or self.accused is not None

    @property
    def suspect(self) -> int:
        """The scorer that runs alone next."""
        return min(self.left) if self.accused is None else self.accused


@dataclass(slots=True)
class WorkerRecord:
    """
    A worker process and what it has been given and has not answered.

    Attributes:
        process: The process.
        open: The jobs, by id.
        size: Bytes of their spans.
        alone: The job and the one scorer that it runs, if that is a suspect.
        is_fresh: Whether it has run nothing yet.
        is_trial: Whether it had run nothing before what runs alone in it.
        is_alive: Whether it may be given more.
        weighed_at: When somebody looked how much memory it has, in monotonic seconds.
        watched_at: When somebody looked what runs in it.
        resumed_at: When somebody did so who could not for a while, as the sidecar was stopped.
    """

    process: WorkerProcess
    open: dict[int, OpenJob] = field(default_factory=dict[int, OpenJob])
    size: int = 0
    alone: tuple[int, int] | None = None
    is_fresh: bool = True
    is_trial: bool = False
    is_alive: bool = True
    weighed_at: float = 0.0
    watched_at: float = math.inf
    resumed_at: float = -math.inf

    def has_room(self, entry: OpenJob, window: int) -> bool:
        """Tell whether it may be given a job now; bytes unanswered may be as many as `window`."""
        if entry.is_suspect:
            return not self.open
        return self.alone is None and self.size < window
