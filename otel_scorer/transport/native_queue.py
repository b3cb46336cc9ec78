"""
Scores that wait for a backend: which is due when, and how much room there is.

No thread, no lock, no clock: the time is an argument, and whoever shares a queue guards it.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.transport.native_score import NativeScore

__all__ = ["Entry", "ScoreQueue"]


@dataclass(slots=True, eq=False)
class Entry:
    """
    A score that waits or is being sent.

    Attributes:
        score: What is sent.
        since: When it came, monotonic seconds.
        misses: How often the backend did not have its trace.
        failing_since: When it was first tried in vain since the backend last had an answer to it; None: it was not.
    """

    score: NativeScore
    since: float
    misses: int = 0
    failing_since: float | None = None


class ScoreQueue:
    """
    Scores by the time they are due. What is being sent takes room until it is `settle`d or `put_back`.

    Args:
        limit: Bytes; one score always fits.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Entry]] = []
        self._waiting: dict[str, Entry] = {}
        self._in_flight: dict[int, Entry] = {}

    @property
    def is_sending(self) -> bool:
        """Whether anything was taken and is neither settled nor back."""
        return bool(self._in_flight)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, score: NativeScore, now: float) -> bool:
        """Append a score, or put it in the place of an older one with its id; False if there is no room."""
        older = self._waiting.get(score.id)
        size = score.size - (0 if older is None else older.score.size)
        if self._size and self._size + size > self._limit:
            return False
        self._size += size
        if older is not None:
            superseded, older.score = older.score, score
            if superseded.done is not None:
                superseded.done()
            return True
        self._push(Entry(score, now), now)
        return True

    def has_room(self, size: int) -> bool:
        """Tell whether a score of this size would be taken."""
        return not self._size or self._size + size <= self._limit

    def take(self, now: float, limit: int) -> list[Entry]:
        """Remove and return what is due, `limit` scores at most, all about traces or all about spans."""
        taken: list[Entry] = []
        others: list[tuple[float, int, Entry]] = []
        while self._due and self._due[0][0] <= now and len(taken) < limit:
            item = heapq.heappop(self._due)
            if taken and (item[2].score.span_id is None) != (taken[0].score.span_id is None):
                others.append(item)
                continue
            taken.append(item[2])
            del self._waiting[item[2].score.id]
        for item in others:
            heapq.heappush(self._due, item)
        self._in_flight.update((id(entry), entry) for entry in taken)
        return taken

    def put_back(self, entries: Iterable[Entry], at: float) -> None:
        """Have scores that were taken wait until `at`. One that came again meanwhile has taken their place."""
        for entry in entries:
            if self._in_flight.pop(id(entry), None) is None:
                continue
            if entry.score.id in self._waiting:
                self._size -= entry.score.size
                if entry.score.done is not None:
                    entry.score.done()
            else:
                self._push(entry, at)

    def settle(self, entries: Iterable[Entry]) -> list[NativeScore]:
        """Forget scores that were taken, and return those of them that nobody else has accounted for."""
        settled = [entry.score for entry in entries if self._in_flight.pop(id(entry), None) is not None]
        self._size -= sum(score.size for score in settled)
        return settled

    def next_due(self) -> float | None:
        """Return when the next score is due; None if none waits."""
        return self._due[0][0] if self._due else None

    def hurry(self, now: float) -> None:
        """Make everything due now, in its order."""
        self._due = [(min(due, now), number, entry) for due, number, entry in self._due]
        heapq.heapify(self._due)

    def clear(self) -> list[NativeScore]:
        """Remove and return everything, what is being sent first: whoever sends it accounts for it no more."""
        waiting = [entry for _, _, entry in sorted(self._due, key=lambda item: item[1])]
        left = [entry.score for entry in (*self._in_flight.values(), *waiting)]
        self._size = 0
        self._due.clear()
        self._waiting.clear()
        self._in_flight.clear()
        return left

    def _push(self, entry: Entry, at: float) -> None:
        self._waiting[entry.score.id] = entry
        heapq.heappush(self._due, (at, next(self._order), entry))
