"""Which of several destinations has what others have not: written down if that lasts, so that a restart spares it."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from otel_scorer.stores.spool_rows import Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.pipeline.spool.tracking import RequestTracker
    from otel_scorer.stores.spool_rows import Outgoing, SpooledRequest

__all__ = ["WHOLE", "PartlyTaken", "Parts", "RequestsTaken"]

# Seconds. Destinations that are all there seldom lie so far apart: then nothing need be written down.
_PATIENCE: Final = 0.1


class Parts(NamedTuple):
    """
    Of several destinations.

    Attributes:
        without: Those that have it already.
        taken: Called with the name of one that has it now, if others have not.
    """

    without: frozenset[str] = frozenset()
    taken: Callable[[str], None] | None = None


WHOLE: Final = Parts()
"""Nobody has it, and nobody asks who has."""


class PartlyTaken:
    """
    Knows rows by id from the first destination that has all of one until the last one has. Thread-safe.

    Args:
        what: The rows.
        clock: Monotonic seconds.
    """

    def __init__(self, what: Literal["request", "outgoing"], clock: Callable[[], float] = time.monotonic) -> None:
        self._what: Literal["request", "outgoing"] = what
        self._clock = clock
        self._due = clock()
        self._lock = threading.Lock()  # guards both
        self._fresh: dict[int, list[str]] = {}
        self._waiting: dict[int, list[str]] = {}

    def parts_of(self, row: SpooledRequest | Outgoing) -> Parts:
        """Return what the place is to know that a row is offered to."""
        return Parts(row.taken, partial(self.add, row.id))

    def add(self, number: int, destination: str) -> None:
        """Note that a destination has a row."""
        with self._lock:
            self._fresh.setdefault(number, []).append(destination)

    def forget(self, number: int) -> None:
        """Note that all have it, or nobody needs it."""
        with self._lock:
            self._fresh.pop(number, None)
            self._waiting.pop(number, None)

    def due(self) -> list[Taken]:
        """Return what is to be written down by now; each only once."""
        with self._lock:
            if self._clock() < self._due or not (self._fresh or self._waiting):
                return []
            self._due = self._clock() + _PATIENCE
            found, self._waiting, self._fresh = self._waiting, self._fresh, {}
        return [Taken(self._what, number, name) for number, names in found.items() for name in names]


class RequestsTaken(PartlyTaken):
    """
    The same of requests, which are forwarded in parts.

    Args:
        tracker: Knows how many.
        lock: Guards the tracker.
        clock: Monotonic seconds.
    """

    def __init__(
        self, tracker: RequestTracker, lock: threading.Lock, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__("request", clock)
        self._tracker = tracker
        self._tracking = lock

    def add(self, number: int, destination: str) -> None:
        """Note that a destination has a part of a request."""
        with self._tracking:
            self._tracker.take_part(number, destination)
        super().add(number, destination)

    def due(self) -> list[Taken]:
        """Return what is to be written down by now: of which a destination has all parts."""
        found = super().due()
        with self._tracking:
            state = [(each, self._tracker.has_all(each.id, each.destination)) for each in found]
        for each, has_all in state:
            if has_all is None:
                super().add(each.id, each.destination)
        return [each for each, has_all in state if has_all]
