"""
Keeps the process within its memory: over the soft limit nothing new is taken in, and old traces are scored early.

One thread looks ten times a second, which costs one small read a process; receivers only look at a flag.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from otel_scorer.telemetry import Measured, count
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryGuard"]

logger = logging.getLogger(__name__)

_INTERVAL: Final = 0.1
# Giving back takes milliseconds, during which nobody else can allocate.
_GIVE_BACK_INTERVAL: Final = 1.0
# So much of the soft limit is freed beyond what is needed: otherwise the next requests would exceed it again.
_SPARE: Final = 0.05
_MEGABYTE: Final = 1 << 20


class MemoryGuard:
    """
    Watches one process. `start` before the first request.

    Args:
        soft: Bytes in use over which new requests are refused and old traces are scored early; None: no limit.
        hard: Bytes over which any trace is, whether they are in use or not; None: no limit.
        measure: Returns the bytes that the process has.
        reusable: Returns how many of them can be used without asking for more.
        relieve: Scores traces early that are worth so many bytes, young ones too if the flag says so.
        give_back: Returns what is free to the system.
        clock: Monotonic seconds.
        is_spooled: What there is no memory for can wait on disk.

    Attributes:
        is_over: Whether the soft limit was exceeded when it was last looked at.
        refuses: Whether new requests are to be refused: over the soft limit, with a spool over the hard one.
    """

    def __init__(
        self,
        soft: int | None,
        hard: int | None,
        *,
        measure: Callable[[], int],
        reusable: Callable[[], int],
        relieve: Callable[[int, bool], None],
        give_back: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        is_spooled: bool = False,
    ) -> None:
        self.is_over = False
        self.refuses = False
        self._is_spooled = is_spooled
        self._soft = soft
        self._hard = hard
        self._measure = measure
        self._reusable = reusable
        self._relieve = relieve
        self._give_back = give_back
        self._clock = clock
        self._may_give_back_at = -math.inf
        self._resident = 0
        self._level = ""
        self._is_told = False
        self._log_limit = LogLimit(clock=clock)
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
        return [*found, Measured("memory.used", self._resident)] if found else []

    def look(self) -> None:
        """Look once, and do what is to be done about it."""
        resident = self._measure()
        gave_back = False
        in_use = resident
        if _excess(resident, self._soft) > 0 or _excess(resident, self._hard) > 0:
            gave_back = self._give_back_some()
            resident = self._measure()
            in_use = resident - self._reusable()
        self._resident = resident
        over_soft, over_hard = _excess(in_use, self._soft), _excess(resident, self._hard)
        # What is free inside the process cannot be used for everything, so the hard limit counts it.
        self.is_over = self._soft is not None and (over_soft > 0 or over_hard > 0)
        self.refuses = self.is_over and (over_hard > 0 or not self._is_spooled)
        self._tell(in_use, over_hard=over_hard)
        # What the last traces took is seen to be free only once it was given back: until then, only an emergency asks
        # for more of them.
        if over_hard > 0 or (over_soft > 0 and gave_back):
            spare = 0 if self._soft is None else int(self._soft * _SPARE)
            self._relieve(max(over_soft, over_hard) + spare, over_hard > 0)

    def _give_back_some(self) -> bool:
        """Give back what is free before anybody is refused for it, unless that was just done."""
        now = self._clock()
        if now < self._may_give_back_at:
            return False
        self._may_give_back_at = now + _GIVE_BACK_INTERVAL
        self._give_back()
        return True

    def _tell(self, in_use: int, *, over_hard: int) -> None:
        soft = "soft" if self.is_over else ""
        level = "hard" if over_hard > 0 else soft
        if level == self._level:
            return
        self._level = level
        if not level:
            if self._is_told:
                logger.info("Memory is within its limits again: %d MiB in use", in_use // _MEGABYTE)
            self._is_told = False
            return
        count("memory.exceeded", level=level)
        # Whoever sends more than we can take has us over the limit and within it again several times a second.
        if not self._log_limit.allows(level):
            return
        self._is_told = True
        limit = self._hard if over_hard > 0 else self._soft
        logger.warning(
            "Memory is over the %s limit of %d MiB: %d MiB in use of %d MiB; %s%s; reported once a minute",
            level,
            (limit or 0) // _MEGABYTE,
            in_use // _MEGABYTE,
            self._resident // _MEGABYTE,
            self._about_requests(),
            "traces are scored early" if over_hard > 0 else "old traces are scored early",
        )

    def _about_requests(self) -> str:
        if not self.is_over:
            return ""
        return "requests are refused and " if self.refuses else "requests wait on disk and "

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            try:
                self.look()
            except Exception:  # whatever it was, the next look is a new chance
                logger.exception("Cannot look at the memory")


def _excess(size: int, limit: int | None) -> int:
    return 0 if limit is None else size - limit
