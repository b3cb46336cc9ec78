"""
The write-ahead log of a damaged spool: what of it can still be read is written to the pages that it belongs to.

SQLite ends at the first frame with a wrong checksum. Checksums of frames build on each other, but each frame carries
its own: so whatever follows a damaged one can be told to be whole. The format: https://sqlite.org/fileformat2.html
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["write_pages"]

_HEAD: Final = 32
_FRAME: Final = 24
_BIG_ENDIAN: Final = 0x377F0683
_LITTLE_ENDIAN: Final = 0x377F0682
_PAIR: Final = struct.Struct(">II")
_WORD: Final = 0xFFFFFFFF


class _Frame(NamedTuple):
    """A page, and how many pages there are once it is committed; 0: it is not the last of its transaction."""

    number: int
    pages: int
    data: bytes


def write_pages(log: Path, file: Path, page_size: int) -> int:
    """
    Write the pages of all transactions that end in a log into its file, less the damaged ones.

    Args:
        log: The log.
        file: The file that it belongs to; it may be empty, and need not be whole.
        page_size: Of the file.

    Returns:
        How many damaged frames there are between those that are whole.

    Raises:
        OSError: They cannot be read or written.
    """
    frames = list(_frames(log, page_size))
    last = max((index for index, frame in enumerate(frames) if frame is not None and frame.pages), default=-1)
    frames = frames[: last + 1]
    with file.open("r+b") as target:
        for frame in frames:
            if frame is not None and frame.number:
                target.seek((frame.number - 1) * page_size)
                target.write(frame.data)
        if frames and (end := frames[-1]) is not None:
            target.truncate(end.pages * page_size)
    return sum(frame is None for frame in frames)


def _frames(log: Path, page_size: int) -> Iterator[_Frame | None]:
    """Yield the frames since the log was begun last, None for a damaged one."""
    with log.open("rb") as file:
        head = file.read(_HEAD)
        if len(head) < _HEAD:
            return
        order = _order(head)
        salts = head[16:24]
        before = _PAIR.unpack_from(head, 24)
        is_sound = _checksum(head[:24], (0, 0), order) == before
        while len(data := file.read(_FRAME + page_size)) == _FRAME + page_size:
            written = _PAIR.unpack_from(data, 16)
            is_whole = _checksum(data[_FRAME:], _checksum(data[:8], before, order), order) == written
            before = written
            if is_whole and not is_sound:
                # Of a log whose first bytes are damaged the first frame that is whole tells when it was begun.
                salts, is_sound = data[8:16], True
            if is_whole and data[8:16] == salts:
                number, pages = _PAIR.unpack_from(data)
                yield _Frame(number, pages, data[_FRAME:])
            else:
                yield None


def _order(head: bytes) -> str:
    """Return in which order of bytes checksums are made: as on the machine that made the log."""
    [magic] = struct.unpack_from(">I", head)
    return {_BIG_ENDIAN: ">", _LITTLE_ENDIAN: "<"}.get(magic, "<" if sys.byteorder == "little" else ">")


def _checksum(data: bytes, before: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = before
    for even, odd in struct.iter_unpack(f"{order}II", data):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return first, second
