"""
Scorers in processes of their own: what hangs, crashes or eats memory there costs one decision, not the sidecar.

Workers are plain child processes, started before any server thread. They are given references to scorers and span
bytes, never pickles, and answer with data. Each worker pulls from one shared queue; a worker that dies or whose scorer
runs past its timeout is replaced, the scorer at fault gets its decision, and everything else it had is run again.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.errors import ConfigError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError
from otel_scorer.model.wire import join_spans
from otel_scorer.pipeline.engine import Job, Result, ScorerProfile
from otel_scorer.pipeline.protocol import HEARTBEAT_BYTES, Heartbeat, pack, unpack, unpack_decision
from otel_scorer.scorers.results import error_feedback
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["WorkerPool", "WorkerScorer"]

logger = logging.getLogger(__name__)

# Traces a message may carry, and bytes a worker may have unanswered: enough to keep it busy, little to run again.
_JOBS_PER_MESSAGE: Final = 64
_WINDOW_BYTES: Final = 4 * 1024 * 1024
_WATCH_INTERVAL: Final = 0.1
_START_TIMEOUT: Final = 120.0
# The worker sees the modules that we see, in the same order, wherever it was started.
_BOOT: Final = (
    "import os, sys; sys.path[:] = sys.argv.pop(1).split(os.pathsep); "
    "from otel_scorer.pipeline.worker import main; sys.exit(main(sys.argv[1:]))"
)
_RESTART_DELAYS: Final = (0.0, 1.0, 5.0, 15.0, 30.0)


@dataclass(frozen=True, slots=True)
class WorkerScorer:
    """What a worker says of a scorer that it has loaded. `timeout` is in seconds; None: no limit."""

    name: str
    version: str
    sample_rate: float
    timeout: float | None
    is_async: bool

    @property
    def profile(self) -> ScorerProfile:
        """What the engine needs to know."""
        return ScorerProfile(self.name, self.version, self.sample_rate)


@dataclass(slots=True)
class _Open:
    """A job that has not been decided completely. `left`: the scorers that have not answered."""

    job: Job
    left: set[int]
    size: int


class _Worker:
    """One child process, the pipe to it, and what it has been given."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        page = tempfile.TemporaryFile(prefix="otel-scorer-")  # noqa: SIM115 - lives as long as the worker
        page.truncate(HEARTBEAT_BYTES)
        self._page = mmap.mmap(page.fileno(), HEARTBEAT_BYTES)
        self.heartbeat = Heartbeat(self._page)
        self.heartbeat.end()
        with theirs, page:
            self.process = subprocess.Popen(  # noqa: S603 - our own module, with our own interpreter
                [sys.executable, "-P", "-c", _BOOT, os.pathsep.join(sys.path), str(theirs.fileno()), str(page.fileno())],
                pass_fds=(theirs.fileno(), page.fileno()),
                stdin=subprocess.DEVNULL,
            )
        self._socket = ours
        self.connection = Connection(os.dup(ours.fileno()))
        self.open: dict[int, _Open] = {}
        self.size = 0
        self.is_alive = True
        self.connection.send_bytes(pack(setup))

    def ready(self, timeout: float) -> list[WorkerScorer]:
        """Wait until the scorers are loaded and return what is known of them."""
        try:
            if not self.connection.poll(timeout):
                msg = f"The scorers were not loaded within {timeout:g} seconds"
                raise ConfigError(msg)
            answer, _ = unpack(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            self.process.wait()
            msg = f"The scorer worker ended while it loaded the scorers ({_cause(self.process)})"
            raise ConfigError(msg) from error
        if "error" in answer:
            raise ConfigError(answer["error"])
        return [WorkerScorer(**scorer) for scorer in answer["scorers"]]

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.wait()

    def hang_up(self) -> None:
        """
        Say that nothing more will come: the process ends when it is done, and our reader sees the end.

        The descriptor itself stays open while any thread of ours may use it.
        """
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


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
        Args:
            setup: What the workers load (see `worker.Setup`): plain JSON data.
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
        self._queue: deque[_Open] = deque()
        self._queued_bytes = 0
        self._stopping = False
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> list[WorkerScorer]:
        """
        Start the processes and return what they say of the scorers.

        Raises:
            ConfigError: A scorer cannot be loaded; the message says why.
        """
        workers = [_Worker(self._setup) for _ in range(self._count)]
        try:
            for worker in workers:
                self.scorers = worker.ready(_START_TIMEOUT)
        except ConfigError:
            for worker in workers:
                worker.kill()
            raise
        self._workers = workers
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

    @property
    def process_ids(self) -> list[int]:
        """The process ids of the workers as they are now."""
        return [worker.process.pid for worker in self._workers]

    def submit(self, jobs: Sequence[Job]) -> list[Job]:
        """Queue jobs without blocking and return those there is no room for."""
        refused: list[Job] = []
        with self._changed:
            for job in jobs:
                size = sum([len(span.data) for span in job.trace.spans])
                if self._stopping or (self._queued_bytes and self._queued_bytes + size > self._limit):
                    refused.append(job)
                    continue
                self._queue.append(_Open(job, set(job.scorers), size))
                self._queued_bytes += size
            self._changed.notify_all()
        return refused

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
            worker.hang_up()
            try:
                worker.process.wait(max(0.0, deadline - self._clock()))
            except subprocess.TimeoutExpired:
                worker.kill()
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))

    def _feed(self, index: int) -> None:
        while (batch := self._take(index)) is not None:
            worker, opened = batch
            payloads = [join_spans(entry.job.trace.spans) for entry in opened]
            header = [
                {
                    "id": entry.job.id,
                    "scorers": sorted(entry.left),
                    "size": len(payload),
                    "close_reason": entry.job.trace.reason.value,
                    "complete": entry.job.trace.complete,
                    "revision": entry.job.trace.revision,
                }
                for entry, payload in zip(opened, payloads, strict=True)
            ]
            # A worker that dies meanwhile is the reader's business: it has the batch on record.
            with contextlib.suppress(OSError, ValueError):
                worker.connection.send_bytes(pack(header, *payloads))

    def _take(self, index: int) -> tuple[_Worker, list[_Open]] | None:
        """Wait for work and room in the worker's window, and put the next batch on the worker's record."""
        with self._changed:
            while True:
                worker = self._workers[index]
                if self._stopping:
                    return None
                if self._queue and worker.is_alive and worker.size < _WINDOW_BYTES:
                    break
                self._changed.wait()
            batch: list[_Open] = []
            size = 0
            while self._queue and len(batch) < _JOBS_PER_MESSAGE and size < _WINDOW_BYTES // 4:
                entry = self._queue.popleft()
                worker.open[entry.job.id] = entry
                size += entry.size
                batch.append(entry)
            worker.size += size
            return worker, batch

    def _read(self, index: int) -> None:
        while not self._stopping:
            worker = self._workers[index]
            try:
                if worker.connection.poll(_WATCH_INTERVAL):
                    self._answered(worker, unpack(worker.connection.recv_bytes())[0])
                self._watch(index, worker)
            except (EOFError, OSError, ValueError) as error:
                # The pipe has ended, or says what nobody can read: either way this worker is of no more use.
                if self._stopping:
                    return
                worker.kill()
                culprit = worker.heartbeat.read()
                cause = f"the scorer's process ended ({_cause(worker.process)})"
                if isinstance(error, ValueError):
                    cause = f"the scorer's process said what cannot be read: {error}"
                self._replace(index, worker, culprit, Outcome.FAILED, "WorkerDied", cause)
            except Exception:
                # Whatever went wrong with these verdicts, the next ones must still be read.
                logger.exception("Cannot handle the answer of a scorer worker")

    def _answered(self, worker: _Worker, answers: list[Any]) -> None:
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
                        known = self.scorers[scorer]
                        decisions += [
                            unpack_decision(each, trace_id, known.name, known.version, trace.revision) for each in packed
                        ]
                if not entry.left:
                    self._settle(worker, entry)
                results.append(Result(job_id, tuple(decisions), done=not entry.left))
            self._changed.notify_all()
        self._deliver(results)

    def _settle(self, worker: _Worker, entry: _Open) -> None:
        """Strike a decided job off the records; the caller holds the lock."""
        del worker.open[entry.job.id]
        worker.size -= entry.size
        self._queued_bytes -= entry.size

    def _watch(self, index: int, worker: _Worker) -> None:
        """Kill a worker whose scorer runs past its timeout."""
        running = worker.heartbeat.read()
        if running is None:
            return
        _, scorer, since = running
        timeout = self.scorers[scorer].timeout
        if timeout is None or self._clock() - since <= timeout:
            return
        worker.kill()
        cause = f"Scorer {self.scorers[scorer].name!r} did not return within {timeout:g} seconds"
        self._replace(index, worker, running, Outcome.TIMED_OUT, "TimeoutError", cause)

    def _replace(  # noqa: PLR0913, PLR0917 - what is known of the end of a worker
        self,
        index: int,
        worker: _Worker,
        culprit: tuple[int, int, float] | None,
        outcome: Outcome,
        code: str,
        cause: str,
    ) -> None:
        """Decide for the scorer at fault, start a new worker, and have the rest run again."""
        count("scoring.worker_restarts", reason=str(outcome))
        logger.warning("Replacing scorer worker %d: %s", index, cause)
        results: list[Result] = []
        with self._changed:
            worker.is_alive = False
            entry = None if culprit is None else worker.open.get(culprit[0])
            if entry is not None and culprit is not None and culprit[1] in entry.left:
                entry.left.discard(culprit[1])
                decision = self._blame(entry.job, culprit[1], outcome, code, cause)
                if not entry.left:
                    self._settle(worker, entry)
                results.append(Result(entry.job.id, (decision,), done=not entry.left))
            self._queue.extendleft(reversed(worker.open.values()))
            worker.open = {}
            worker.size = 0
        self._deliver(results)
        self._restart(index)

    def _restart(self, index: int) -> None:
        for attempt in range(sys.maxsize):
            delay = _RESTART_DELAYS[min(attempt, len(_RESTART_DELAYS) - 1)]
            with self._changed:
                if self._stopping or (delay and self._changed.wait_for(lambda: self._stopping, delay)):
                    return
            worker = _Worker(self._setup)
            try:
                worker.ready(_START_TIMEOUT)
            except ConfigError:
                logger.exception("A new scorer worker could not load the scorers")
                worker.kill()
                continue
            with self._changed:
                self._workers[index] = worker
                self._changed.notify_all()
            return

    def _blame(self, job: Job, scorer: int, outcome: Outcome, code: str, cause: str) -> Decision:
        known = self.scorers[scorer]
        return Decision(
            job.trace.trace_id.hex(),
            None,
            known.name,
            known.version,
            outcome,
            cause,
            job.trace.revision,
            (error_feedback(known.name, AssessmentError(code, cause)),),
            (None,),
        )


def _cause(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def _ignore(results: Iterable[Result]) -> None:
    """Take results before anybody wants them: there are none."""
