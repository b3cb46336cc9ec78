"""
An event loop of our own for coroutine scorers, on a thread of its own.

A coroutine that waits is cancelled by its timeout. One that blocks the loop cannot be: the lane that it blocks is given
up as a whole, and a new one takes over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.running.suppression import suppressed
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


@dataclass(slots=True, eq=False)
class _Call:
    invocation: Invocation
    settle: Callable[[Decision], None]


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
        self._slots = asyncio.Semaphore(concurrency)
        # Guards the calls: they come from the scoring thread and go on the loop's.
        self._lock = threading.Lock()
        self._calls: dict[_Call, asyncio.Task[None] | None] = {}
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
            running = [(call.invocation.prepared, task) for call, task in self._calls.items() if task is not None]
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
        self._tell(self._end, on_back)
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

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        finally:
            self._loop.close()

    def _begin(self, call: _Call) -> None:
        with self._lock:
            if call in self._calls:
                # Kept here, so that the task is not collected while it runs.
                self._calls[call] = self._loop.create_task(self._judge(call))

    async def _judge(self, call: _Call) -> None:
        invocation = call.invocation
        try:
            with suppressed():
                if invocation.prepared.turn is not None:
                    decision = await invocation.run_async()
                else:
                    async with self._slots:
                        decision = await invocation.run_async()
        except asyncio.CancelledError:
            decision = invocation.timed_out("given up when scoring was shut down")
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and the loop must go on
            decision = invocation.decide(Outcome.FAILED, f"{type(error).__name__}: {error}")
        with self._lock:
            is_open = self._calls.pop(call, _CLOSED) is not _CLOSED
        if is_open:
            call.settle(decision)

    def _end(self, on_back: Callable[[], None]) -> None:
        on_back()
        self._loop.stop()


class _Closed:
    pass


_CLOSED: Final = _Closed()


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
