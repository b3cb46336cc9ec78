"""
A clock that stands still while the process is stopped (SIGSTOP, a paused container), as it does while a machine sleeps.

Spans wait in sockets meanwhile. If that time counted, every open trace would be taken for idle before they are read.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.pipeline.verdicts.emission import Outlet

__all__ = ["STOPPED", "RunningClock"]

STOPPED: Final = 1.0
"""Seconds after which whoever asks for the time ten times a second must have been stopped, or kept from running."""


class RunningClock:
    """
    Says how long the process has been running. Somebody must ask all the time: longer pauses do not count.

    Args:
        clock: Monotonic seconds, which pass while the process is stopped.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards both that follow
        self._asked = clock()
        self._stood_still = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        with self._lock:
            # Read here: a thread that was stopped with an old time in hand must not undo what another has found out.
            now = self._clock()
            pause = now - self._asked
            if pause > STOPPED:
                self._stood_still += pause
            self._asked = now
            return now - self._stood_still

    def translating(self, outlet: Outlet) -> Outlet:
        """Return an outlet for who has this clock, which hands on moments of the one beneath."""

        def hand_on(data: bytes, items: int, since: Sequence[float]) -> None:
            outlet(data, items, [each + self._stood_still for each in since] if since else since)

        return hand_on
