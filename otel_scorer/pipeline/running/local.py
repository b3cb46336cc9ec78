"""
Scorers on threads of this process: for the processor in the application, and for evaluation offline.

One thread takes whole traces from a bounded queue and calls the scorers one after another; coroutine scorers share an
event loop on another. A thread cannot be stopped: one that hangs in a scorer is abandoned and replaced, and that scorer
is not called again before it has come back, so a scorer costs one thread at most.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.pipeline.running.coroutines import CoroutineLanes
from otel_scorer.pipeline.running.reentrancy import Bell
from otel_scorer.pipeline.running.suppression import suppressed
from otel_scorer.pipeline.running.threads import HUNG, called
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
    from otel_scorer.pipeline.running.selection import Choice

__all__ = ["LocalScoring", "OnDecision"]

logger = logging.getLogger(__name__)

OnDecision: TypeAlias = Callable[[int, Decision | None, bool], None]
"""Takes the index of a choice, its decision, and whether it was the last one of its trace."""

# Seconds between two looks at what runs, while something runs; a scorer that is this late is still let in.
_TICK: Final = 0.05
# Waking a thread costs the application more than everything else that is done for a trace. So the scoring thread only
# naps while traces keep coming, and has to be woken when it fell asleep, when much is waiting, or when somebody waits.
_NAP: Final = 0.02
_NAPS_BEFORE_SLEEP: Final = 50
_MUCH: Final = 64


@dataclass(slots=True, eq=False)
class _Job:
    """The calls about one trace. `open`: indices of those without a decision, once the choices are known."""

    choose: Callable[[], Sequence[Choice]]
    on_decision: OnDecision
    lock: threading.RLock = field(default_factory=threading.RLock)
    choices: Sequence[Choice] | None = None
    open: set[int] = field(default_factory=set[int])


class _Seat:
    """What a scoring thread is at. An abandoned seat belongs to a thread that hangs in a scorer."""

    __slots__ = ("call", "index", "is_abandoned", "job", "since")

    def __init__(self) -> None:
        self.job: _Job | None = None
        self.call: Invocation | None = None
        self.index = 0
        self.since = 0.0
        self.is_abandoned = False


class LocalScoring:
    """
    Calls scorers and hands on one decision per call. `start` first; safe to shut down twice.

    Args:
        queue_size: Traces that may be in here; more are refused.
        concurrency: Coroutine scorers that run at the same time.
        clock: Monotonic seconds.
    """

    def __init__(
        self, *, queue_size: int = 2048, concurrency: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = queue_size
        self._clock = clock
        self._queue: deque[tuple[Callable[[], Sequence[Choice]], OnDecision]] = deque()
        self._bell = Bell()
        self._is_asleep = False
        # Guards everything below; never held while a scorer or a callable of somebody else runs.
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._jobs = 0
        self._hung: set[PreparedScorer] = set()
        self._seat = _Seat()
        self._lanes = CoroutineLanes(concurrency, self._hung)
        self._is_running = False
        # Wakes the watcher when there is something to watch again, and at the end.
        self._alarm = threading.Event()

    def start(self) -> None:
        """Start the threads; the event loop starts with the first coroutine scorer. Starting twice is fine."""
        with self._lock:
            if self._is_running:
                return
            self._is_running = True
            try:
                self._sit_down(None)
                threading.Thread(target=self._watch, name="otel-scorer-watch", daemon=True).start()
            except RuntimeError:  # no new threads once the interpreter exits: then everything is refused
                self._is_running = False

    @property
    def jobs(self) -> int:
        """Traces that have not been decided completely."""
        return self._jobs

    def submit(self, choose: Callable[[], Sequence[Choice]], on_decision: OnDecision) -> bool:
        """
        Queue the calls about one trace; never blocks.

        Args:
            choose: Returns the calls to make and the decisions that fell already; called on the scoring thread.
            on_decision: Is called on a thread of ours, for one decision at a time. A trace without choices gets
                `(-1, None, True)`.

        Returns:
            Whether there was room.
        """
        with self._lock:
            if not self._is_running or self._jobs >= self._limit:
                return False
            self._jobs += 1
        self._queue.append((choose, on_decision))
        if self._is_asleep or len(self._queue) >= _MUCH:
            self.hurry()
        return True

    def hurry(self) -> None:
        """Have the scoring thread look for work at once: somebody waits for it."""
        self._bell.ring()

    def run(self, choices: Sequence[Choice]) -> list[Decision]:
        """
        Make calls and wait for them; for offline use. Timeouts hold here too.

        Returns:
            The decisions in the order of the choices.

        Raises:
            RuntimeError: Not started, or shut down.
        """
        decisions: dict[int, Decision] = {}
        done = threading.Event()

        def on_decision(index: int, decision: Decision | None, is_last: bool) -> None:  # noqa: FBT001 - OnDecision
            if decision is not None:
                decisions[index] = decision
            if is_last:
                done.set()

        with self._freed:
            self._freed.wait_for(lambda: self._jobs < self._limit or not self._is_running)
            if not self._is_running:
                msg = "LocalScoring has not been started, or was shut down"
                raise RuntimeError(msg)
            self._jobs += 1
        self._queue.append((lambda: choices, on_decision))
        self.hurry()
        done.wait()
        return [decisions[index] for index in sorted(decisions)]

    def shutdown(self, timeout: float) -> bool:
        """
        Refuse new traces, wait for the others, and end the threads.

        Args:
            timeout: Seconds; what is not decided by then is decided as shed.

        Returns:
            Whether everything was decided in time.
        """
        with self._freed:
            if not self._is_running:
                return not self._jobs
            self.hurry()
            in_time = self._freed.wait_for(lambda: not self._jobs, max(0.0, timeout))
            self._is_running = False
            current = self._seat.job
        self._alarm.set()
        self.hurry()
        while self._queue:
            self._shed(_Job(*self._queue.popleft()))
        if current is not None:
            self._shed(current)
        self._lanes.shutdown(_TICK)
        return in_time

    # The scoring thread.

    def _sit_down(self, resume: tuple[_Job, int] | None) -> None:
        """Start a scoring thread, which begins in the middle of a trace if another one had to leave it."""
        seat = _Seat()
        thread = threading.Thread(target=self._score, args=(seat, resume), name="otel-scorer-scoring", daemon=True)
        thread.start()
        self._seat = seat

    def _score(self, seat: _Seat, resume: tuple[_Job, int] | None) -> None:
        # Threading instrumentations give a new thread the context of whoever started it: an application's span.
        with suppressed():
            if resume is not None and not self._go_through(seat, *resume):
                return
            while (job := self._next()) is not None:
                if not self._go_through(seat, job, 0):
                    return

    def _next(self) -> _Job | None:
        """Return the next trace, or None at the end."""
        naps = 0
        while self._is_running:
            if self._queue:
                with suppress(IndexError):  # another thread may take it, after an abandoned one was replaced
                    return _Job(*self._queue.popleft())
            self._is_asleep = naps >= _NAPS_BEFORE_SLEEP
            if not self._queue:
                naps = 0 if self._bell.wait(None if self._is_asleep else _NAP) else naps + 1
            self._is_asleep = False
        return None

    def _go_through(self, seat: _Seat, job: _Job, begin: int) -> bool:
        """Make the calls from `begin` on; return whether this thread may go on."""
        seat.job = job
        if not self._alarm.is_set():
            self._alarm.set()
        choices = self._choose(job) if job.choices is None else job.choices
        for index in range(begin, len(choices)):
            choice = choices[index]
            if isinstance(choice, Decision):
                self._settle(job, index, choice)
            elif choice.prepared in self._hung:
                self._settle(job, index, choice.timed_out(HUNG))
            elif choice.prepared.is_async and self._hand_over(job, index, choice):
                pass
            elif not self._call(seat, job, index, choice):
                return False
        seat.job = None
        return True

    def _choose(self, job: _Job) -> Sequence[Choice]:
        choices: Sequence[Choice] = ()
        try:
            choices = job.choose()
        except Exception:  # what can be foreseen is a decision already; the thread must survive the rest
            logger.exception("A trace could not be prepared for scoring")
        with job.lock:
            job.choices = choices
            job.open = set(range(len(choices)))
        if not choices:
            self._hand_on(job, -1, None, is_last=True)
        return choices

    def _call(self, seat: _Seat, job: _Job, index: int, call: Invocation) -> bool:
        with self._lock:
            seat.index, seat.since, seat.call = index, self._clock(), call
        decision = called(call)
        with self._lock:
            seat.call = None
            if seat.is_abandoned:
                self._hung.discard(call.prepared)
                return False
        self._settle(job, index, decision)
        return True

    def _hand_over(self, job: _Job, index: int, call: Invocation) -> bool:
        """Have a coroutine scorer called on the event loop; False if there is none: then this thread has to do it."""
        try:
            lane = self._lanes.current()
        except RuntimeError:  # no new threads once the interpreter exits
            return False
        lane.submit(call, lambda decision: self._settle(job, index, decision))
        return True

    def _settle(self, job: _Job, index: int, decision: Decision) -> None:
        """Hand on a decision, unless there is one already."""
        with job.lock:
            if index in job.open:
                job.open.discard(index)
                self._hand_on(job, index, decision, is_last=not job.open)

    def _hand_on(self, job: _Job, index: int, decision: Decision | None, *, is_last: bool) -> None:
        if decision is not None:
            count("scoring.decisions", scorer=decision.scorer, outcome=decision.outcome.value)
        try:
            job.on_decision(index, decision, is_last)
        except Exception:  # the thread must survive whoever listens
            logger.exception("A decision could not be handed on")
        if is_last:
            with self._freed:
                self._jobs -= 1
                self._freed.notify_all()

    def _shed(self, job: _Job) -> None:
        for index, choice in enumerate(self._choose(job) if job.choices is None else job.choices):
            decision = choice if isinstance(choice, Decision) else choice.decide(Outcome.SHED, "shut down")
            self._settle(job, index, decision)

    # The watching thread.

    def _watch(self) -> None:
        with suppressed():
            while self._is_running:
                if not self._jobs:
                    self._alarm.clear()
                    if not self._jobs and self._is_running:
                        self._alarm.wait()
                # Not the alarm: that one rings for every trace.
                with self._freed:
                    self._freed.wait_for(lambda: not self._is_running, _TICK)
                now = self._clock()
                self._check_seat(now)
                self._lanes.leave_blocked(now)

    def _check_seat(self, now: float) -> None:
        with self._lock:
            seat = self._seat
            call, job, index = seat.call, seat.job, seat.index
            if call is None or job is None or call.prepared.timeout is None:
                return
            if now - seat.since <= call.prepared.timeout + _TICK or not self._is_running:
                return
            seat.is_abandoned = True
            self._hung.add(call.prepared)
            is_replaced = self._replace((job, index + 1))
        count("scoring.worker_restarts", reason=Outcome.TIMED_OUT.value)
        logger.warning("Scorer %r hangs in its thread; another thread goes on without it", call.prepared.name)
        self._settle(job, index, call.timed_out())
        if not is_replaced:
            self._shed(job)

    def _replace(self, resume: tuple[_Job, int]) -> bool:
        try:
            self._sit_down(resume)
        except RuntimeError:  # no new threads once the interpreter exits
            return False
        return True
