"""
A lock that threads and event loops can wait for alike: calls on one scorer never overlap, wherever they come from.

Whoever waits longest is next.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any

__all__ = ["Turn"]


class Turn:
    """Whose turn it is. A copied scorer shares it with the original, as they share their state; see `__deepcopy__`."""

    __slots__ = ("_busy", "_guard", "_waiting")

    def __init__(self) -> None:
        # Guards the two below; held for a few instructions only.
        self._guard = threading.Lock()
        self._busy = False
        self._waiting: deque[Future[None]] = deque()

    def take(self, timeout: float | None = None) -> bool:
        """
        Wait in this thread until nobody else is at it.

        Args:
            timeout: Seconds to wait; None: for ever.

        Returns:
            Whether it is our turn now; then `give_back` must follow.
        """
        place = self._queue_up()
        if place is None:
            return True
        try:
            place.result(timeout)
        except TimeoutError:
            # The turn may have come at the last moment: then it is ours.
            return not self._leave(place)
        except BaseException:
            if not self._leave(place):
                self.give_back()
            raise
        return True

    async def take_async(self) -> None:
        """Wait without blocking the event loop; `give_back` must follow."""
        place = self._queue_up()
        if place is None:
            return
        try:
            await asyncio.wrap_future(place)
        except asyncio.CancelledError:
            if not self._leave(place):
                self.give_back()
            raise

    def give_back(self) -> None:
        """Let the next one have it."""
        with self._guard:
            while self._waiting:
                place = self._waiting.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._busy = False

    def _queue_up(self) -> Future[None] | None:
        """Return None where it is our turn at once, else what tells when it is."""
        with self._guard:
            if not self._busy:
                self._busy = True
                return None
            place: Future[None] = Future()
            self._waiting.append(place)
            return place

    def _leave(self, place: Future[None]) -> bool:
        """Stop waiting; False if the turn has come meanwhile."""
        with self._guard:
            left = place.cancel()
            if left and place in self._waiting:
                self._waiting.remove(place)
        return left

    def __deepcopy__(self, memo: dict[int, Any]) -> Turn:
        """Return a new one: a deep copy of a scorer has state of its own."""
        return Turn()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()
