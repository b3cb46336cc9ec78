"""
A few bytes beside a spool that say how far it has got: so that it is noticed when the file has less.

SQLite takes a log that is cut short, or damaged, for one that ends there, and what somebody has emptied for new.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Mark", "MarkFile"]

_MAGIC: Final = b"otspmark"
_BODY: Final = struct.Struct("<8sQQQ")
_CHECKSUM: Final = struct.Struct("<I")


class Mark(NamedTuple):
    """How many transactions were committed, and how many requests, and things to be sent, there were after the last."""

    commits: int
    requests: int
    outgoing: int


class MarkFile:
    """
    Holds the mark: written after each transaction, before anybody is told of it.

    Args:
        path: Made if it is not there.

    Attributes:
        found: What it said when it was opened; None: nothing that could be read.
        is_new: Whether there was none.

    Raises:
        OSError: It cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        data = os.pread(self._file, _BODY.size + _CHECKSUM.size, 0)
        self.is_new = not data
        self.found = _read(data)

    def write(self, mark: Mark) -> None:
        """Say how far it is. What cannot be written is not: an old mark asks for less than there is."""
        body = _BODY.pack(_MAGIC, *mark)
        with suppress(OSError):
            os.pwrite(self._file, body + _CHECKSUM.pack(zlib.crc32(body)), 0)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _read(data: bytes) -> Mark | None:
    if len(data) < _BODY.size + _CHECKSUM.size or _CHECKSUM.unpack_from(data, _BODY.size)[0] != zlib.crc32(
        data[: _BODY.size]
    ):
        return None
    magic, commits, requests, outgoing = _BODY.unpack_from(data)
    return Mark(commits, requests, outgoing) if magic == _MAGIC else None
