"""
Spans of an application between the threads that they start and end on and the one of ours that looks at them.

The application's threads only put them down, without a lock: everything else that is done for a span costs more.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.pipeline.running.reentrancy import Bell
from otel_scorer.pipeline.running.suppression import is_suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_scorer.pipeline.running.reentrancy import KnownLock

__all__ = ["MANY_PENDING", "MAX_PENDING", "Ask", "Item", "SpanIntake"]

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Ask:
    """Something to be done once everything before it has been taken. Gets the time; the lock is held."""

    do: Callable[[float], None]


Item: TypeAlias = "tuple[ReadableSpan] | ReadableSpan | int | Ask"
"""What happened: a span in a tuple has started, another one has ended; and nobody wants the trace of an id."""

# Waking a thread costs the application more than everything else that is done for a span. So ours only naps while spans
# keep coming, and has to be woken when it fell asleep. Seconds.
_NAP: Final = 0.02
_NAPS_BEFORE_SLEEP: Final = 50
# Spans that are looked at in a row, so that whoever waits for the lock gets it.
_SHARE: Final = 128
# What a thread of the application does when it helps, for one span that ends: the longer that takes, the more often it
# is interrupted in the middle, and not its own work.
_HELP: Final = 16
# With so much waiting the application's threads help.
MANY_PENDING: Final = 4096
"""With so much pending, `attend` is to be called for each span that ends."""
MAX_PENDING: Final = 65_536
"""With so much pending, what comes is not to be appended: the application neither waits nor runs out of memory."""


class SpanIntake:
    """
    Keeps the order in which spans started and ended.

    Args:
        take: Takes one after the other, with the time; is called while the lock is held.
        lock: Who looks at anything that `take` changes holds it.
        after: Is called when the lock is free again, with how much may be done: no code of others runs before.
        busy: Is held by who does what is left then.
        clock: Monotonic seconds.
        pending: What waits already.
    """

    def __init__(
        self,
        take: Callable[[Item, float], None],
        lock: KnownLock,
        after: Callable[[int], None],
        busy: KnownLock,
        *,
        clock: Callable[[], float],
        pending: deque[Item] | None = None,
    ) -> None:
        self._take = take
        self._lock = lock
        self._after = after
        self._busy = busy
        self._clock = clock
        self._bell = Bell()
        self._naps = 0
        self._failures: deque[Exception] = deque(maxlen=_SHARE)
        self.pending: deque[Item] = deque() if pending is None else pending
        """For any thread to append to. Who does so calls `attend` if it `is_asleep`, or when a span has ended."""
        self.is_asleep = True
        """Whether nobody looks at `pending` soon unless `attend` is called."""

    def attend(self) -> None:
        """Have somebody look at what is pending soon; where there is much of it, do a share of that."""
        if self.is_asleep:
            self.ring()
        elif len(self.pending) >= MANY_PENDING and self._may_help() and self._lock.acquire(0):
            try:
                self._take_share(_HELP)
            finally:
                self._lock.release()
            self.finish(_HELP)

    def ring(self) -> None:
        """End `rest`."""
        self.is_asleep = False
        self._bell.ring()

    def drain(self, until: float = math.inf) -> None:
        """
        Take what is pending now, not what comes meanwhile; the caller holds the lock, and calls `finish` without it.

        Args:
            until: When to stop in any case, by the clock.
        """
        for _ in range(1 + len(self.pending) // _SHARE):
            self._take_share()
            if self._clock() >= until:
                return

    def work(self) -> None:
        """Take what is pending, for the thread whose work this is."""
        if self.pending:
            self._naps = 0
        for _ in range(1 + len(self.pending) // _SHARE):
            with self._lock:
                self._take_share()
            self.finish()

    def finish(self, most: int = sys.maxsize) -> None:
        """Do what was left for when the lock is free, so much of it at most."""
        with suppress(IndexError):  # another thread may be at it
            while self._failures:
                logger.error("A span could not be taken in", exc_info=self._failures.popleft())
        self._after(most)

    def rest(self, longest: float) -> None:
        """Wait until it is worth the while to look again, at most so many seconds."""
        self._naps += 1
        self.is_asleep = self._naps > _NAPS_BEFORE_SLEEP
        if not self.pending and self._bell.wait(longest if self.is_asleep else min(_NAP, longest)):
            self._naps = 0
        self.is_asleep = False

    def _may_help(self) -> bool:
        """Whether this thread is not in the middle of work of ours, interrupted by a destructor or a signal handler."""
        return not (self._busy.is_mine or is_suppressed())

    def _take_share(self, most: int = _SHARE) -> None:
        now = self._clock()
        for _ in range(min(most, len(self.pending))):
            item = self.pending.popleft()
            try:
                self._take(item, now)
            except Exception as error:  # noqa: BLE001 - the others must not suffer; it is logged in `finish`
                self._failures.append(error)
