"""
Keeps the process within its memory: over the soft limit nothing new is taken, and old traces are scored early.

One thread looks ten times a second, which costs one small read a process; receivers only look at a flag.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from otel_scorer.telemetry import Measured, count

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryGuard"]

logger = logging.getLogger(__name__)

_INTERVAL: Final = 0.1
# Giving back takes milliseconds or, with much to remember, tenths of a second, during which others wait: a tenth of the
# time at most.
_GIVE_BACK_INTERVAL: Final = 1.0
_GIVE_BACK_SHARE: Final = 0.1
_MEGABYTE: Final = 1 << 20


class MemoryGuard:
    """
    Watches one process. `start` before the first request.

    Args:
        soft: Bytes over which new requests are refused and old traces are scored early; None: no limit.
        hard: Bytes over which any trace is; None: no limit.
        measure: Returns the bytes in use.
        relieve: Scores traces early that are worth so many bytes, young ones too if the flag says so.
        give_back: Returns what is free to the system.
        clock: Monotonic seconds.

    Attributes:
        is_over: Whether the soft limit was exceeded when it was last looked at.
    """

    def __init__(
        self,
        soft: int | None,
        hard: int | None,
        *,
        measure: Callable[[], int],
        relieve: Callable[[int, bool], None],
        give_back: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_over = False
        self._soft = soft
        self._hard = hard
        self._measure = measure
        self._relieve = relieve
        self._give_back = give_back
        self._clock = clock
        self._may_give_back_at = -math.inf
        self._used = 0
        self._level = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-scorer-memory", daemon=True)

    def start(self) -> None:
        """Begin to look, if there is a limit."""
        if self._soft is not None or self._hard is not None:
            self.look()
            self._thread.start()

    def shutdown(self, timeout: float) -> None:
        """Stop looking."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def gauges(self) -> list[Measured]:
        """Return what was seen last."""
        limits = {"soft": self._soft, "hard": self._hard}
        found = [
            Measured("memory.limit", size, (("level", level),)) for level, size in limits.items() if size is not None
        ]
        return [*found, Measured("memory.used", self._used)] if found else []

    def look(self) -> None:
        """Look once, and do what is to be done about it."""
        used = self._measure()
        gave_back = (self._exceeds(self._soft, used) or self._exceeds(self._hard, used)) and self._give_back_some()
        if gave_back:
            used = self._measure()
        self._used = used
        self.is_over = self._exceeds(self._soft, used)
        is_over_hard = self._exceeds(self._hard, used)
        self._tell(used, is_over_hard=is_over_hard)
        target = self._hard if self._soft is None else self._soft
        # What the last traces took is seen to be free only once it was given back: until then, only an emergency asks
        # for more of them.
        if target is not None and (is_over_hard or (self.is_over and gave_back)):
            self._relieve(used - target, is_over_hard)

    def _give_back_some(self) -> bool:
        """Give back what is free before anybody is refused for it, unless that was just done."""
        begun = self._clock()
        if begun < self._may_give_back_at:
            return False
        self._give_back()
        took = self._clock() - begun
        self._may_give_back_at = begun + max(_GIVE_BACK_INTERVAL, took / _GIVE_BACK_SHARE)
        return True

    def _tell(self, used: int, *, is_over_hard: bool) -> None:
        soft = "soft" if self.is_over else ""
        level = "hard" if is_over_hard else soft
        if level == self._level:
            return
        self._level = level
        if not level:
            logger.info("Memory is within its limits again: %d MiB", used // _MEGABYTE)
            return
        count("memory.exceeded", level=level)
        limit = self._hard if is_over_hard else self._soft
        logger.warning(
            "Memory is over the %s limit: %d of %d MiB; %s",
            level,
            used // _MEGABYTE,
            (limit or 0) // _MEGABYTE,
            "traces are scored early" if is_over_hard else "requests are refused and old traces scored early",
        )

    @staticmethod
    def _exceeds(limit: int | None, used: int) -> bool:
        return limit is not None and used > limit

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            try:
                self.look()
            except Exception:  # whatever it was, the next look is a new chance
                logger.exception("Cannot look at the memory")
