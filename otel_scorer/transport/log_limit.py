"""One log line instead of thousands: says whether an event of a kind may be logged again."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["LogLimit"]


class LogLimit:
    """Lets through one event per key and interval. Thread-safe; `keys` are few by nature (codes, reasons)."""

    def __init__(self, interval: float = 60.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._next: dict[Hashable, float] = {}
        self._lock = (
            threading.RLock()
        )  # guards _next; reentrant, for signal handlers and destructors that come in between

    def allows(self, *key: Hashable) -> bool:
        """Return True if nothing with this key was let through within the interval."""
        now = self._clock()
        with self._lock:
            if now < self._next.get(key, now):
                return False
            self._next[key] = now + self._interval
        return True
