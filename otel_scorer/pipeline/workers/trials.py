"""
Whether a call that ran when its worker ended is at fault: what an earlier call has left there may have ended it.

A thread that runs on, memory that nobody gave back, a damaged heap: all of it strikes whoever happens to run. So a call
is blamed only after it was tried: alone, in a worker that has run nothing else. If it ends well, its verdict counts.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from otel_scorer.model.decision import Outcome

if TYPE_CHECKING:
    from otel_scorer.pipeline.workers.faults import Fault
    from otel_scorer.pipeline.workers.worker_records import OpenJob, WorkerRecord

__all__ = ["Trials"]

# A trial costs a second worker. A scorer that was at fault in this many trials in a row is believed to be at fault from
# then on, without one; but every so often it is tried again.
_ENOUGH: Final = 3
_TRIED_AGAIN: Final = 100


class Trials:
    """
    Calls that are to be tried, and what came of trials so far. The pool's lock guards it.

    There is always a worker for the next one: a call is put here when its worker has ended, and the worker that takes
    the place of that one begins with a trial if there is any.

    Attributes:
        waiting: Jobs with a call to be tried, first come first.
    """

    def __init__(self) -> None:
        self.waiting: deque[OpenJob] = deque()
        self._convictions: Counter[int] = Counter()

    def convicts(self, worker: WorkerRecord, fault: Fault) -> bool:
        """Tell whether the culprit of a fault is at fault for certain; else it must be `accused`."""
        if fault.culprit is None:
            return False
        if fault.outcome is Outcome.TIMED_OUT:
            # Nobody else has kept it that long. To try it would take as long again.
            return True
        job_id, scorer, _ = fault.culprit
        times = self._convictions[scorer]
        was_tried = worker.is_trial and worker.alone == (job_id, scorer)
        if was_tried or (times >= _ENOUGH and times % _TRIED_AGAIN):
            self._convictions[scorer] += 1
            return True
        return False

    @staticmethod
    def accuse(worker: WorkerRecord, job_id: int, scorer: int) -> None:
        """Have the call of a worker that has ended tried, unless it is decided already."""
        entry = worker.open.get(job_id)
        if entry is not None and scorer in entry.left:
            entry.accused = scorer

    def acquit(self, entry: OpenJob) -> None:
        """Note that what a worker was given of a job has ended well, if that was a trial."""
        if entry.accused is not None:
            # Of a scorer of spans only the others have, if one of them was at fault.
            if not entry.faults.get(entry.accused):
                self._convictions[entry.accused] = 0
            entry.accused = None
