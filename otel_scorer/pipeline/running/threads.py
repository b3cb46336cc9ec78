"""
A few threads for scorers whose calls may overlap (`concurrent=True`) and that are no coroutine functions.

A thread cannot be stopped: one that hangs in a scorer is left behind and replaced, and that scorer is not called again
before all its calls have come back.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.running.suppression import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.decision import Decision
    from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer

__all__ = ["HUNG", "THREADS", "ThreadLane", "called"]

THREADS: Final = 10
"""Calls at the same time; as many as MLflow makes."""

HUNG: Final = "an earlier call of this scorer has not come back yet"
"""Why a scorer is not called."""


@dataclass(slots=True, eq=False)
class _Call:
    """One call. `since`: when it began; `is_abandoned`: its thread hangs in it, and somebody else decided."""

    invocation: Invocation
    settle: Callable[[Decision], None]
    since: float = 0.0
    is_abandoned: bool = False


class ThreadLane:
    """
    Calls scorers on threads of its own, which start when they are needed and end with `shutdown`.

    Args:
        clock: Monotonic seconds.
        threads: How many calls run at the same time.
    """

    def __init__(self, clock: Callable[[], float], *, threads: int = THREADS) -> None:
        self._clock = clock
        self._limit = threads
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        # Guards what follows; never held while a scorer runs.
        self._lock = threading.Lock()
        self._threads = 0
        self._running: set[_Call] = set()
        self._hung: Counter[PreparedScorer] = Counter()
        self._is_over = False

    def submit(self, invocation: Invocation, settle: Callable[[Decision], None]) -> None:
        """Have a scorer called; `settle` gets the decision, on a thread of ours or of who looks for late calls."""
        with self._lock:
            is_needed = self._threads < self._limit
            self._threads += is_needed
        self._queue.put(_Call(invocation, settle))
        if is_needed:
            self._start()

    def leave_late(self, now: float, patience: float) -> set[PreparedScorer]:
        """
        Decide calls that take longer than they may, and go on without their threads.

        Args:
            now: Monotonic seconds.
            patience: Seconds that a call may take longer than its timeout.

        Returns:
            The scorers that hang now.
        """
        late: list[_Call] = []
        with self._lock:
            for call in self._running:
                timeout = call.invocation.prepared.timeout
                if timeout is not None and now - call.since > timeout + patience:
                    late.append(call)
            for call in late:
                call.is_abandoned = True
                self._running.discard(call)
                self._hung[call.invocation.prepared] += 1
        for call in late:
            call.settle(call.invocation.timed_out())
            self._start()
        return {call.invocation.prepared for call in late}

    def shutdown(self) -> None:
        """Begin no more calls; what runs is not waited for."""
        self._is_over = True
        with self._lock:
            threads = self._threads
        for _ in range(threads):
            self._queue.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._work, name="otel-scorer-concurrent", daemon=True).start()

    def _work(self) -> None:
        # Threading instrumentations give a new thread the context of whoever started it.
        with suppressed():
            while (call := self._queue.get()) is not None and not self._is_over:
                if not self._go_through(call):
                    return

    def _go_through(self, call: _Call) -> bool:
        """Make a call; return whether this thread may go on."""
        invocation = call.invocation
        with self._lock:
            is_hung = self._hung[invocation.prepared] > 0
            if not is_hung:
                call.since = self._clock()
                self._running.add(call)
        decision = invocation.timed_out(HUNG) if is_hung else called(invocation)
        with self._lock:
            self._running.discard(call)
            if call.is_abandoned:
                self._hung[invocation.prepared] -= 1
                return False
        call.settle(decision)
        return True


def called(invocation: Invocation) -> Decision:
    """Call a scorer in this thread, which survives whatever it raises."""
    try:
        return invocation.run()
    except BaseException as error:  # noqa: BLE001 - a KeyboardInterrupt that a scorer raises is not the user's
        return invocation.decide(Outcome.FAILED, f"{type(error).__name__}: {error}")
