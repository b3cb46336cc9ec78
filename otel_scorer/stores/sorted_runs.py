"""Pieces sorted by a key, more of them than memory holds: sorted runs, written one by one and merged while reading."""

from __future__ import annotations

import heapq
import struct
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from otel_scorer.stores.overflow import Overflow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SortedRuns"]

_SIZE: Final = struct.Struct("<I")
# What is read of each run at a time.
_BLOCK: Final = 64 * 1024
_key_of: Final = itemgetter(0)


class SortedRuns:
    """
    Runs of pieces, each as large as its writer has memory for.

    Args:
        key_size: Bytes of every key.
    """

    def __init__(self, key_size: int) -> None:
        self._key_size = key_size
        self._data = Overflow()
        self._runs: list[tuple[int, int]] = []

    def add(self, pieces: Iterable[tuple[bytes, bytes]]) -> None:
        """Write a run; the pieces come in the order of their keys."""
        begin = len(self._data)
        for key, piece in pieces:
            self._data.append(b"".join((key, _SIZE.pack(len(piece)), piece)))
        self._runs.append((begin, len(self._data)))

    def merged(self) -> Iterator[tuple[bytes, bytes]]:
        """
        Yield all keys and pieces in the order of the keys; of one key in the order in which they were written.

        Raises:
            StoreError: They cannot be read again.
        """
        return heapq.merge(*(self._read(*run) for run in self._runs), key=_key_of)

    def _read(self, begin: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        run = _Run(self._data, begin, end)
        while not run.is_over:
            key = run.take(self._key_size)
            (size,) = _SIZE.unpack(run.take(_SIZE.size))
            yield key, run.take(size)


class _Run:
    """One run, read from its beginning to its end, block by block."""

    def __init__(self, data: Overflow, begin: int, end: int) -> None:
        self._data = data
        self._next = begin
        self._end = end
        self._block = b""
        self._at = 0

    @property
    def is_over(self) -> bool:
        """Whether everything was taken."""
        return self._at == len(self._block) and self._next == self._end

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        if len(self._block) - self._at < size:
            more = min(max(size, _BLOCK), self._end - self._next)
            self._block = self._block[self._at :] + self._data.read(self._next, more)
            self._next += more
            self._at = 0
        self._at += size
        return self._block[self._at - size : self._at]
