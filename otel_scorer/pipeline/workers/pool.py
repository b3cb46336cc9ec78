"""
Scorers in processes of their own: what hangs, crashes or eats memory there costs one decision, not the sidecar.

Workers are plain child processes, started before any server thread. They are given references to scorers and span
bytes, never pickles, and answer with data. Each worker pulls from one shared queue; a worker that dies or whose scorer
runs past its timeout is replaced, the scorer at fault (see `Trials`) gets its decision, and everything else it had is
run again.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections import deque
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.errors import ConfigError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.log_records import join_logs
from otel_scorer.model.splicing import join_spans
from otel_scorer.pipeline.workers.faults import Fault, Haste, decide_fault, find_cause, find_overdue, find_too_large
from otel_scorer.pipeline.workers.jobs import Job, Result
from otel_scorer.pipeline.workers.protocol import pack, unpack, unpack_decision
from otel_scorer.pipeline.workers.trials import Trials
from otel_scorer.pipeline.workers.worker_process import WorkerProcess, WorkerScorer
from otel_scorer.pipeline.workers.worker_records import OpenJob, WorkerRecord
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["WorkerPool"]

logger = logging.getLogger(__name__)

# Traces a message may carry, and bytes a worker may have unanswered: enough to keep it busy, little to run again.
_JOBS_PER_MESSAGE: Final = 64
_WINDOW_BYTES: Final = 4 * 1024 * 1024
_WATCH_INTERVAL: Final = 0.1
# Who has not looked for so many seconds was stopped (SIGSTOP, a paused container), and so were the workers, perhaps.
_STOPPED: Final = 1.0
_START_TIMEOUT: Final = 120.0
_RESTART_DELAYS: Final = (0.0, 1.0, 5.0, 15.0, 30.0)


class WorkerPool:
    """Runs jobs in worker processes. `start` before any thread or server exists; safe to shut down twice."""

    def __init__(
        self,
        setup: Mapping[str, Any],
        *,
        workers: int = 1,
        queue_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Say how many, and what they load.

        Args:
            setup: What the workers load: plain JSON data. `scorers` (fields of `ScorerSpec`, and `optional`: left out
                if it cannot be loaded), `timeout`, `concurrency`, and `folder`, where modules are looked for last.
            workers: How many processes.
            queue_bytes: Span bytes that may wait to be scored; jobs over that are refused.
            clock: Monotonic seconds, comparable across processes.
        """
        self._setup = setup
        self._count = workers
        self._limit = queue_bytes
        self._clock = clock
        self._deliver: Callable[[Iterable[Result]], None] = _ignore
        self.scorers: list[WorkerScorer] = []
        # Guards the queue, its size, and what each worker was given; notified when one of them changes.
        self._changed = threading.Condition()
        self._queue: deque[OpenJob] = deque()
        self._trials = Trials()
        self._haste = Haste()
        self._queued_bytes = 0
        self._stopping = False
        self._retiring = False
        self._workers: list[WorkerRecord] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> list[WorkerScorer]:
        """
        Start the processes and return what they say of the scorers.

        Raises:
            ConfigError: A scorer cannot be loaded; the message says why.
        """
        workers = [WorkerProcess(self._setup) for _ in range(self._count)]
        try:
            for worker in workers:
                self.scorers = worker.ready(_START_TIMEOUT)
        except ConfigError:
            for worker in workers:
                worker.kill()
            raise
        self._workers = [WorkerRecord(worker) for worker in workers]
        for problem in workers[0].left_out:
            logger.warning("A registered scorer is left out: %s", problem)
        return self.scorers

    def run(self, deliver: Callable[[Iterable[Result]], None]) -> None:
        """Begin to take jobs; `deliver` is called with results on threads of the pool."""
        self._deliver = deliver
        for index in range(self._count):
            for role in (self._feed, self._read):
                name = f"otel-scorer-worker-{index}-{role.__name__.strip('_')}"
                thread = threading.Thread(target=role, args=(index,), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def submit(self, jobs: Sequence[Job]) -> list[Job]:
        """Queue jobs without blocking and return those there is no room for."""
        refused: list[Job] = []
        with self._changed:
            for job in jobs:
                size = sum([len(span.data) for span in job.trace.spans])
                size += sum([len(record.data) for record in job.trace.logs])
                if self._stopping or (self._queued_bytes and self._queued_bytes + size > self._limit):
                    refused.append(job)
                    continue
                self._queue.append(OpenJob(job, set(job.scorers), size))
                self._queued_bytes += size
            self._changed.notify_all()
        return refused

    def depth(self) -> tuple[int, int]:
        """Return how many traces no worker has been given yet, and bytes of spans that are not decided about."""
        with self._changed:
            return len(self._queue) + len(self._trials.waiting), self._queued_bytes

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        with self._changed:
            return [worker.process.process.pid for worker in self._workers]

    def retire(self, patience: float) -> None:
        """
        Finish what was submitted: nothing more will be.

        Args:
            patience: Seconds that any call of a scorer may still take, so that a pool ends even if its scorers do not.
        """
        with self._changed:
            self._retiring = True
            if patience < self._haste.seconds:
                self._haste = Haste(patience, self._clock())
            self._changed.notify_all()

    def hurry(self, timeout: float) -> None:
        """Give every call of a scorer at most so many seconds from now on: somebody waits for the last verdicts."""
        self._haste = Haste(timeout, self._clock())

    def give_up(self) -> None:
        """Decide that nothing more will be scored: what is open is shed, and counted as such."""
        with self._changed:
            self._stopping = True
            entries = [*self._queue, *self._trials.waiting, *chain(*(each.open.values() for each in self._workers))]
            self._queue.clear()
            self._trials.waiting.clear()
            self._changed.notify_all()
        self._deliver(
            [Result(entry.job.id, tuple(map(partial(self._shed, entry), entry.left)), done=True) for entry in entries]
        )

    def _shed(self, entry: OpenJob, scorer: int) -> Decision:
        known, trace = self.scorers[scorer], entry.job.trace
        reason = "not decided when the sidecar had to stop"
        return Decision(trace.trace_id.hex(), None, known.name, known.version, Outcome.SHED, reason, trace.revision)

    def shutdown(self, timeout: float) -> None:
        """
        End the workers.

        Args:
            timeout: Seconds that a worker has to finish what runs before it is killed.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = self._clock() + timeout
        for worker in self._workers:
            worker.process.hang_up()
            worker.process.wait(max(0.0, deadline - self._clock()))
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))

    def _feed(self, index: int) -> None:
        while (batch := self._take(index)) is not None:
            worker, opened = batch
            traces = [join_spans(entry.job.trace.spans) for entry in opened]
            logs = [join_logs(entry.job.trace.logs) for entry in opened]
            header = [
                {
                    "id": entry.job.id,
                    "scorers": sorted(entry.left) if worker.alone is None else [worker.alone[1]],
                    "faults": entry.faults,
                    "size": len(trace),
                    "logs": len(records),
                    "close_reason": entry.job.trace.reason.value,
                    "complete": entry.job.trace.complete,
                    "revision": entry.job.trace.revision,
                }
                for entry, trace, records in zip(opened, traces, logs, strict=True)
            ]
            payloads = chain.from_iterable(zip(traces, logs, strict=True))
            # A worker that dies meanwhile is the reader's business: it has the batch on record.
            with contextlib.suppress(OSError, ValueError):
                worker.process.connection.send_bytes(pack(header, *payloads))

    def _take(self, index: int) -> tuple[WorkerRecord, list[OpenJob]] | None:
        """Wait for work and room in the worker's window, and put the next batch on the worker's record."""
        with self._changed:
            while True:
                worker = self._workers[index]
                if self._stopping:
                    return None
                queue = self._trials.waiting if worker.is_fresh and self._trials.waiting else self._queue
                if queue and worker.is_alive and worker.has_room(queue[0], _WINDOW_BYTES):
                    break
                self._changed.wait()
            # What is waiting is shared with the other workers.
            limit = min(_JOBS_PER_MESSAGE, len(self._queue) // self._count + 1)
            batch: list[OpenJob] = []
            size = 0
            while queue and len(batch) < limit and size < _WINDOW_BYTES // 4:
                if queue[0].is_suspect and batch:
                    break
                entry = queue.popleft()
                worker.open[entry.job.id] = entry
                size += entry.size
                batch.append(entry)
                if entry.is_suspect:
                    worker.alone, worker.is_trial = (entry.job.id, entry.suspect), worker.is_fresh
                    break
            worker.size += size
            worker.is_fresh = False
            return worker, batch

    def _read(self, index: int) -> None:
        while not self._stopping:
            worker = self._workers[index]
            try:
                if (answer := worker.process.receive(_WATCH_INTERVAL)) is not None:
                    self._answered(worker, unpack(answer)[0])
                fault = self._overdue(worker)
            except (EOFError, OSError, ValueError) as error:
                # The pipe has ended, or says what nobody can read: either way this worker is of no more use.
                if self._stopping:
                    return
                fault = self._ended(worker, error)
            except Exception:
                # Whatever went wrong with these verdicts, the next ones must still be read.
                logger.exception("Cannot handle the answer of a scorer worker")
                continue
            if fault is not None:
                self._replace(index, worker, fault)

    def _answered(
        self, worker: WorkerRecord, answers: Sequence[tuple[int, Sequence[tuple[int, Sequence[Any]]]]]
    ) -> None:
        results: list[Result] = []
        with self._changed:
            for job_id, decided in answers:
                entry = worker.open.get(job_id)
                if entry is None:
                    continue
                trace = entry.job.trace
                trace_id = trace.trace_id.hex()
                decisions: list[Decision] = []
                for scorer, packed in decided:
                    if scorer in entry.left:
                        entry.left.discard(scorer)
                        known = worker.process.scorers[scorer]
                        decisions += [
                            unpack_decision(each, trace_id, known.name, known.version, trace.revision)
                            for each in packed
                        ]
                self._trials.acquit(entry)
                if not entry.left:
                    self._settle(worker, entry)
                elif worker.alone is not None:
                    self._take_back(worker)
                results.append(Result(job_id, tuple(decisions), done=not entry.left))
            self._changed.notify_all()
        self._deliver(results)

    def _settle(self, worker: WorkerRecord, entry: OpenJob) -> None:
        """Strike a decided job off the records; the caller holds the lock."""
        del worker.open[entry.job.id]
        worker.size -= entry.size
        worker.alone = None
        self._queued_bytes -= entry.size

    def _take_back(self, worker: WorkerRecord) -> None:
        """Put what a worker has been given back into its queue, in front; the caller holds the lock."""
        for entry in reversed(worker.open.values()):
            (self._queue if entry.accused is None else self._trials.waiting).appendleft(entry)
        worker.open = {}
        worker.size = 0
        worker.alone = None

    def _overdue(self, worker: WorkerRecord) -> Fault | None:
        """Kill a worker of which a scorer runs past its timeout, or that has more memory than it may have."""
        now = self._clock()
        if now - worker.watched_at > _STOPPED:
            worker.resumed_at = now
        worker.watched_at = now
        fault = find_overdue(worker.process, self.scorers, self._haste, now, resumed=worker.resumed_at)
        if fault is None and now - worker.weighed_at >= _WATCH_INTERVAL:
            worker.weighed_at = now
            fault = find_too_large(worker.process, worker.alone)
        if fault is not None:
            worker.process.kill()
        return fault

    @staticmethod
    def _ended(worker: WorkerRecord, error: Exception) -> Fault:
        worker.process.kill()
        ends = 0 if worker.alone is None else worker.open[worker.alone[0]].ends
        return find_cause(worker.process, worker.alone, ends, error)

    def _replace(self, index: int, worker: WorkerRecord, fault: Fault) -> None:
        """Decide for the call that is at fault for certain, start a new worker, and have the rest run again."""
        count("scoring.worker_restarts", reason=str(fault.outcome))
        logger.warning("Replacing scorer worker %d: %s", index, fault.cause)
        results: list[Result] = []
        with self._changed:
            worker.is_alive = False
            if fault.culprit is None:
                for entry in worker.open.values():
                    entry.ends += 1
            elif self._trials.convicts(worker, fault):
                results += self._blame(worker, fault, *fault.culprit)
            else:
                self._trials.accuse(worker, *fault.culprit[:2])
            self._take_back(worker)
            self._changed.notify_all()
        self._deliver(results)
        self._restart(index)

    def _restart(self, index: int) -> None:
        for attempt in range(sys.maxsize):
            delay = _RESTART_DELAYS[min(attempt, len(_RESTART_DELAYS) - 1)]
            with self._changed:
                if delay:
                    self._changed.wait_for(lambda: self._stopping or self._retiring, delay)
                if self._stopping:
                    return
            worker: WorkerProcess | None = None
            try:
                worker = WorkerProcess(self._setup)
                self._check(worker.ready(_START_TIMEOUT))
            except (ConfigError, OSError):
                logger.exception("Cannot start a new scorer worker")
                if worker is not None:
                    worker.kill()
                if self._retiring:
                    # Its scorers may be gone for good: somebody has just replaced them.
                    self.give_up()
                continue
            with self._changed:
                self._workers[index] = WorkerRecord(worker)
                self._changed.notify_all()
            return

    def _check(self, scorers: Sequence[WorkerScorer]) -> None:
        """Make sure that a number still stands for the same scorer: files may have been edited since the start."""
        names, found = [each.name for each in self.scorers], [each.name for each in scorers]
        if names != found:
            msg = f"The scorers were {', '.join(names)} and are {', '.join(found)} now; SIGHUP takes the new ones"
            raise ConfigError(msg)

    def _blame(self, worker: WorkerRecord, fault: Fault, job_id: int, scorer: int, target: int) -> list[Result]:
        """Decide for a call; one of several targets is decided when the others are. The caller holds the lock."""
        entry = worker.open.get(job_id)
        if entry is None or scorer not in entry.left:
            return []
        known = worker.process.scorers[scorer]
        faults = entry.faults.setdefault(scorer, {})
        if known.is_per_span and target not in faults:
            faults[target] = fault.outcome.value, fault.code, fault.cause
            return []
        entry.left.discard(scorer)
        entry.accused = None
        if not entry.left:
            self._settle(worker, entry)
        return [Result(job_id, (decide_fault(fault, entry.job.trace, known),), done=not entry.left)]


def _ignore(results: Iterable[Result]) -> None:
    """Take results before anybody wants them: there are none."""
