"""What is written down to be sent: offered to its place while there is room, and from the disk as room comes."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from otel_scorer.pipeline.spool.backlog import Backlog, take_up
from otel_scorer.pipeline.spool.taking import WHOLE, PartlyTaken, Parts
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otel_scorer.stores.spool import Spool
    from otel_scorer.stores.spool_rows import Outgoing

__all__ = ["CHUNK", "Place", "SpooledOutgoing"]

logger = logging.getLogger(__name__)

CHUNK: Final = 4 << 20
"""Bytes that are read from a spool at a time."""


class Place(Protocol):
    """Somewhere that data is sent to."""

    def has_room(self, size: int) -> bool:
        """Tell whether `size` bytes more can wait there."""
        ...

    def offer(
        self, data: bytes, items: int, since: Sequence[float], done: Callable[[], None], parts: Parts = WHOLE
    ) -> None:
        """
        Take data, room or not; `done` is called once all of it was taken or given up for good.

        A place that has several destinations behind it leaves out, and tells of, those that `parts` says.
        """
        ...


class SpooledOutgoing:
    """
    Everything between a spool and the places that its outgoing data goes to.

    Args:
        spool: Where it is written down.
        places: By kind: where it goes.
        clock: Monotonic seconds.
    """

    def __init__(self, spool: Spool, places: Mapping[str, Place], clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._places = places
        self._lock = threading.Lock()  # guards everything below
        _, last = spool.last_ids
        # What has no place any more is taken up too: to be dropped.
        self._backlogs = {kind: Backlog(last) for kind in sorted({*places, *spool.kinds()})}
        self._log_limit = LogLimit()
        # Ids of what was offered and is not deleted yet; and those of them that are done.
        self._offered: set[int] = set()
        self._sent: list[int] = []
        self.partly_taken = PartlyTaken("outgoing", clock)

    @property
    def waiting(self) -> int:
        """How much waits on disk alone, about."""
        with self._lock:
            return max(map(len, self._backlogs.values()), default=0)

    def send(self, outgoing: Outgoing, since: Sequence[float]) -> None:
        """Offer something that was just written down, unless others wait for room before it."""
        place = self._places[outgoing.kind]
        has_room = place.has_room(len(outgoing.data))
        with self._lock:
            backlog = self._backlogs[outgoing.kind]
            if backlog or not has_room:
                backlog.add(outgoing.id)
                return
            self._offered.add(outgoing.id)
        place.offer(
            outgoing.data, outgoing.items, since, partial(self._done, outgoing.id), self.partly_taken.parts_of(outgoing)
        )

    def sent(self) -> list[int]:
        """Return the ids of what can be deleted: `forget` them then, or `keep` them for the next time."""
        with self._lock:
            sent, self._sent = self._sent, []
        return sent

    def keep(self, sent: Iterable[int]) -> None:
        """Return those later that cannot be deleted now."""
        with self._lock:
            self._sent += sent

    def forget(self, sent: Iterable[int]) -> None:
        """Know no longer what is deleted."""
        with self._lock:
            self._offered.difference_update(sent)

    def take_up(self, is_stopping: Callable[[], bool]) -> bool:
        """Offer what waits on disk, as far as there is room; return whether there may be more."""
        taken = [
            take_up(backlog, self._lock, partial(self._next, kind, is_stopping))
            for kind, backlog in self._backlogs.items()
        ]
        return any(taken)

    def _next(self, kind: str, is_stopping: Callable[[], bool], after: int) -> tuple[int, bool]:
        place = self._places.get(kind)
        if place is not None and not place.has_room(1):
            return after, False
        found = self._spool.outgoing(kind, after, CHUNK)
        for each in found:
            if is_stopping() or (place is not None and not place.has_room(len(each.data))):
                break
            after = each.id
            with self._lock:
                if each.id in self._offered:
                    continue
                self._offered.add(each.id)
            if place is None:
                count("spool.dropped", each.items, reason="no_destination")
                if self._log_limit.allows(kind):
                    logger.warning("Dropped %d items from the spool: there is no destination for %s", each.items, kind)
                self._done(each.id)
                continue
            count("spool.replayed", what="outgoing")
            place.offer(each.data, each.items, (), partial(self._done, each.id), self.partly_taken.parts_of(each))
        return after, not found

    def _done(self, number: int) -> None:
        self.partly_taken.forget(number)
        with self._lock:
            self._sent.append(number)
