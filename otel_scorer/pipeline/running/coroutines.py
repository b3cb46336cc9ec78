"""
An event loop of our own for coroutine scorers, on a thread of its own.

A coroutine that waits is cancelled by its timeout. One that goes on all the same, or that has left something behind on
a thread, is not called again before that has come back. One that blocks the loop cannot even be cancelled: the lane
that it blocks is given up as a whole, and a new one takes over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.running.errands import Errands, ErrandThreads
from otel_scorer.pipeline.running.suppression import suppressed
from otel_scorer.pipeline.running.threads import HUNG
from otel_scorer.scorers.turn import Turn
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.decision import Decision
    from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer

__all__ = ["CoroutineLane", "CoroutineLanes"]

logger = logging.getLogger(__name__)

# How much longer than its timeout a call may keep the loop busy: cancelling takes the loop a moment.
_GRACE: Final = 0.25
# Seconds that a coroutine has to end after it was cancelled; connections are closed in them, say.
_UNWINDING: Final = 5.0


@dataclass(slots=True, eq=False)
class _Call:
    invocation: Invocation
    settle: Callable[[Decision], None]
    task: asyncio.Task[Decision] | None = None
    errands: Errands = field(default_factory=Errands)
    watch: asyncio.TimerHandle | None = None
    has_slot: bool = False


@dataclass(slots=True)
class _Beat:
    """A callback that was sent through the loop: as long as it has not come back, the loop is busy."""

    sent: float
    is_back: threading.Event = field(default_factory=threading.Event)


class CoroutineLane:
    """
    Runs coroutine scorers. `start` before the first call; a lane that was given up is never used again.

    Args:
        concurrency: How many calls of `concurrent` scorers run at the same time; of any other scorer one call runs.
    """

    def __init__(self, concurrency: int = 64) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ErrandThreads())
        self._slots = asyncio.Semaphore(concurrency)
        self._is_over = False
        # Guards the calls: they come from the scoring thread and go on the loop's.
        self._lock = threading.Lock()
        self._calls: dict[_Call, None] = {}
        # Calls that were decided although something of them still runs, until it has come back.
        self._stuck: dict[_Call, None] = {}
        self._beat: _Beat | None = None
        self._thread = threading.Thread(target=self._run, name="otel-scorer-coroutines", daemon=True)

    def start(self) -> None:
        """
        Start the loop.

        Raises:
            RuntimeError: The interpreter exits and allows no new threads.
        """
        try:
            self._thread.start()
        except RuntimeError:
            self._loop.close()
            raise

    def submit(self, invocation: Invocation, settle: Callable[[Decision], None]) -> None:
        """Have a coroutine scorer called; `settle` gets the decision, on the loop's thread."""
        call = _Call(invocation, settle)
        with self._lock:
            self._calls[call] = None
        if not self._tell(self._begin, call):
            settle(invocation.decide(Outcome.SHED, "shut down"))

    def blocked_by(self, now: float) -> set[PreparedScorer] | None:
        """
        Return the scorers that may have kept the loop busy for longer than their timeout, or None: it is fine.

        Must be called again and again: each call sends a heartbeat, and looks for the previous one.

        Args:
            now: Monotonic seconds.
        """
        with self._lock:
            running = [
                (call.invocation.prepared, call.task)
                for call in (*self._calls, *self._stuck)
                if call.task is not None and not call.task.done()
            ]
        if not running or self._beat is None or self._beat.is_back.is_set():
            self._beat = _Beat(now)
            self._tell(self._beat.is_back.set)
            return None
        current = asyncio.current_task(self._loop)
        suspects = {prepared for prepared, task in running if task is current} or {prepared for prepared, _ in running}
        limits = [prepared.timeout for prepared in suspects if prepared.timeout is not None]
        if len(limits) < len(suspects) or now - self._beat.sent <= max(limits) + _GRACE:
            return None
        return suspects

    def give_up(self, culprits: set[PreparedScorer], on_back: Callable[[], None]) -> None:
        """
        Decide every call that is still open, and never come back to this lane.

        Args:
            culprits: What `blocked_by` returned.
            on_back: Called when the loop runs again after all.
        """
        with self._lock:
            calls, self._calls = list(self._calls), {}
            stuck = list(self._stuck)
        self._tell(self._end, on_back)
        for call in stuck:
            if call.invocation.prepared.turn is not None:
                call.invocation.prepared.turn = Turn()  # as below
        names = ", ".join(sorted(repr(prepared.name) for prepared in culprits))
        for call in calls:
            prepared = call.invocation.prepared
            is_culprit = prepared in culprits
            if not is_culprit and prepared.turn is not None:
                # It may be this call's turn, and it can never be given back: the next call gets another one.
                prepared.turn = Turn()
            call.settle(call.invocation.timed_out(None if is_culprit else f"scorer {names} blocked the event loop"))

    def shutdown(self, timeout: float) -> None:
        """Cancel what still runs and end the loop. Waits up to `timeout` seconds."""
        if self._thread.is_alive():
            self._tell(self._end, _nothing)
            self._thread.join(timeout)

    def _tell(self, callback: Callable[..., object], *args: object) -> bool:
        """Have something called on the loop; False if the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return False
        return True

    def stuck(self) -> set[PreparedScorer]:
        """Return the scorers of which something has not come back although its time is over."""
        with self._lock:
            return {call.invocation.prepared for call in self._stuck}

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            while not (self._is_over or self._loop.is_closed()):
                # A scorer may stop the loop, which is not its own, and what a task of its raises may end it.
                with suppress(BaseException):
                    self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self._loop.close()

    def _begin(self, call: _Call) -> None:
        with self._lock:
            if call not in self._calls:
                return
            is_refused = self._is_stuck(call)
            if is_refused:
                del self._calls[call]
            else:
                # Kept here, so that the task is not collected while it runs.
                call.task = self._loop.create_task(self._judge(call))
        if call.task is not None:
            call.task.add_done_callback(partial(self._finish, call))
        else:
            call.settle(call.invocation.timed_out(HUNG))

    async def _judge(self, call: _Call) -> Decision:
        invocation = call.invocation
        call.errands.enter()
        with suppressed():
            if invocation.prepared.turn is not None:
                return await invocation.run_async(partial(self._watch, call))
            await self._slots.acquire()
            call.has_slot = True
            try:
                if self._is_stuck(call):
                    return invocation.timed_out(HUNG)
                return await invocation.run_async(partial(self._watch, call))
            finally:
                self._give_slot_back(call)

    def _give_slot_back(self, call: _Call) -> None:
        if call.has_slot:
            call.has_slot = False
            self._slots.release()

    def _watch(self, call: _Call) -> None:
        """See to it that a call that begins now is decided, even if it does not end when it is cancelled."""
        timeout = call.invocation.prepared.timeout
        if timeout is not None:
            call.watch = self._loop.call_later(timeout, self._unwind, call)

    def _unwind(self, call: _Call) -> None:
        # Not before: if the loop was busy meanwhile, the call has not been cancelled until now.
        call.watch = self._loop.call_later(_UNWINDING, self._leave, call)

    def _leave(self, call: _Call) -> None:
        """Decide a call that does not end."""
        with self._lock:
            if call not in self._calls:
                return
            del self._calls[call]
        self._give_slot_back(call)
        self._be_stuck(call)
        call.settle(call.invocation.timed_out())

    def _finish(self, call: _Call, task: asyncio.Task[Decision]) -> None:
        if call.watch is not None:
            call.watch.cancel()
        if task.cancelled():
            reason = "given up when scoring was shut down" if self._is_over else "its task was cancelled"
            decision = call.invocation.timed_out(reason)
        elif (error := task.exception()) is not None:
            decision = call.invocation.decide(Outcome.FAILED, f"{type(error).__name__}: {error}")
        else:
            decision = task.result()
        with self._lock:
            is_open = call in self._calls
            self._calls.pop(call, None)
        is_late = decision.outcome is Outcome.TIMED_OUT or not is_open
        if is_late and call.errands.when_back(partial(self._tell, self._come_back, call)):
            if is_open and not self._is_over:
                self._be_stuck(call)
        else:
            self._come_back(call)
        if is_open:
            call.settle(decision)

    def _is_stuck(self, call: _Call) -> bool:
        """Whether an earlier call has not come back that this one must not overlap with, or may hang like."""
        prepared = call.invocation.prepared
        return any(
            other.invocation.prepared is prepared
            or (prepared.turn is not None and other.invocation.prepared.turn is prepared.turn)
            for other in self._stuck
        )

    def _be_stuck(self, call: _Call) -> None:
        """Go on without a call of which something still runs; decide those that wait for it."""
        prepared = call.invocation.prepared
        with self._lock:
            self._stuck[call] = None
            waiting = [
                other
                for other in self._calls
                if prepared.turn is not None and other.invocation.prepared.turn is prepared.turn
            ]
            for other in waiting:
                del self._calls[other]
        logger.warning("Coroutine scorer %r is not called again before an earlier call has come back", prepared.name)
        for other in waiting:
            if other.task is not None:
                other.task.cancel()
            other.settle(other.invocation.timed_out(HUNG))

    def _come_back(self, call: _Call) -> None:
        with self._lock:
            self._stuck.pop(call, None)

    def _end(self, on_back: Callable[[], None]) -> None:
        self._is_over = True
        on_back()
        self._loop.stop()


def _nothing() -> None:
    pass


class CoroutineLanes:
    """
    The lane that coroutine scorers run on: made when it is first asked for, and another one once it is blocked.

    Args:
        concurrency: How many calls of `concurrent` scorers run at the same time on a lane.
        hung: Scorers that block a given-up lane are in here until it is free again.
    """

    def __init__(self, concurrency: int, hung: set[PreparedScorer]) -> None:
        self._concurrency = concurrency
        self._hung = hung
        self._lock = threading.Lock()
        self._lane: CoroutineLane | None = None

    def current(self) -> CoroutineLane:
        """
        Return the lane for the next call.

        Raises:
            RuntimeError: The interpreter exits and allows no new threads.
        """
        with self._lock:
            if self._lane is None:
                lane = CoroutineLane(self._concurrency)
                lane.start()
                self._lane = lane
            return self._lane

    def leave_blocked(self, now: float) -> None:
        """
        Give the lane up if it is blocked. Must be called again and again, as `CoroutineLane.blocked_by`.

        Args:
            now: Monotonic seconds.
        """
        lane = self._lane
        culprits = None if lane is None else lane.blocked_by(now)
        if lane is None or culprits is None:
            return
        # What still runs there blocks its scorer in the next lane too.
        culprits |= lane.stuck()
        with self._lock:
            self._hung |= culprits
            self._lane = None
        count("scoring.worker_restarts", reason=Outcome.TIMED_OUT.value)
        names = ", ".join(sorted(repr(prepared.name) for prepared in culprits))
        logger.warning("Coroutine scorer %s blocks its event loop; another loop goes on without it", names)
        lane.give_up(culprits, on_back=lambda: self._hung.difference_update(culprits))

    def shutdown(self, timeout: float) -> None:
        """Cancel what still runs. Waits up to `timeout` seconds."""
        if self._lane is not None:
            self._lane.shutdown(timeout)
