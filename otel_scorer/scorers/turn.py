"""
A lock that threads and event loops can wait for alike: calls on one scorer never overlap, wherever they come from.

Taking and giving back a free one costs no more than a plain lock does: it happens on every call of every scorer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

__all__ = ["Turn"]


class Turn:
    """Whose turn it is. A copied scorer shares it with the original, as they share their state; see `__deepcopy__`."""

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        # Held while it is somebody's turn. Who finds it held queues up and is handed it by who gives it back.
        self._lock = threading.Lock()
        self._waiting: deque[Future[None]] = deque()

    def take(self, timeout: float | None = None) -> bool:
        """
        Wait in this thread until nobody else is at it.

        Args:
            timeout: Seconds to wait; None: for ever.

        Returns:
            Whether it is our turn now; then `give_back` must follow.
        """
        if self._lock.acquire(blocking=False):
            return True
        place = self._queue_up()
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
        if self._lock.acquire(blocking=False):
            return
        place = self._queue_up()
        try:
            await asyncio.wrap_future(place)
        except asyncio.CancelledError:
            if not self._leave(place):
                self.give_back()
            raise

    def give_back(self) -> None:
        """Let the next one have it."""
        self._lock.release()
        if self._waiting:
            self._hand_over()

    def _queue_up(self) -> Future[None]:
        place: Future[None] = Future()
        self._waiting.append(place)
        # Whoever held the lock may have given it back before it could see us.
        self._hand_over()
        return place

    def _hand_over(self) -> None:
        """Give the lock to who waits longest, if it is free; who took it in between will hand it over in turn."""
        while self._waiting and self._lock.acquire(blocking=False):
            while self._waiting:
                place = self._waiting.popleft()
                if place.set_running_or_notify_cancel():
                    place.set_result(None)
                    return
            self._lock.release()

    def _leave(self, place: Future[None]) -> bool:
        """Stop waiting; False if the turn has come meanwhile."""
        if not place.cancel():
            return False
        with suppress(ValueError):  # somebody has found it cancelled already
            self._waiting.remove(place)
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> Turn:
        """Return a new one: a deep copy of a scorer has state of its own."""
        return Turn()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()
