"""
Repairs a row that was damaged in one place: checksums of its blocks tell which one, and parity what was in it.

A row may hold the verdicts of many traces. One flipped bit, or one bad sector, must not cost them all.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

__all__ = ["parity_of", "repaired"]

# Damage up to the size of a block is repaired wherever it lies: a sector, or a sixteenth of what is small.
_LARGEST: Final = 4096
_SMALLEST: Final = 64
_SHARE: Final = 16
_HEAD: Final = struct.Struct("<II")
_CHECKSUM: Final = struct.Struct("<I")


def parity_of(data: bytes) -> bytes:
    """Return what `repaired` needs: an eighth of the data or 8 KiB, and four bytes for each block."""
    size = min(_LARGEST, max(_SMALLEST, len(data) // _SHARE))
    # Two blocks that follow each other are in different parities: damage may begin in one and end in the next.
    pair = 2 * size
    view = memoryview(data)
    parity = 0
    for at in range(0, len(data), pair):
        parity ^= int.from_bytes(view[at : at + pair], "little")
    sums = b"".join(_CHECKSUM.pack(each) for each in _checksums(view, size))
    return _HEAD.pack(size, len(data)) + sums + parity.to_bytes(pair, "little")


def repaired(data: bytes, parity: bytes) -> bytes | None:
    """
    Return data as it was when `parity` was made of it; None if there is too much damage.

    Whoever asks looks at the checksum of the whole again: the parity may be what is damaged.
    """
    if len(parity) < _HEAD.size:
        return None
    size, length = _HEAD.unpack_from(parity)
    if length != len(data) or not _SMALLEST <= size <= _LARGEST:
        return None
    blocks = -(-length // size)
    lost = parity[_HEAD.size + _CHECKSUM.size * blocks :]
    if len(lost) != 2 * size:
        return None
    sums = [_CHECKSUM.unpack_from(parity, _HEAD.size + _CHECKSUM.size * index)[0] for index in range(blocks)]
    found = bytearray(data)
    for half in (0, 1):
        damaged = [
            index
            for index in range(half, blocks, 2)
            if zlib.crc32(data[index * size : (index + 1) * size]) != sums[index]
        ]
        if len(damaged) > 1:
            return None
        for index in damaged:
            block = int.from_bytes(lost[half * size : (half + 1) * size], "little")
            for other in range(half, blocks, 2):
                if other != index:
                    block ^= int.from_bytes(data[other * size : (other + 1) * size], "little")
            end = min(length, (index + 1) * size)
            found[index * size : end] = block.to_bytes(size, "little")[: end - index * size]
    return bytes(found)


def _checksums(view: memoryview, size: int) -> list[int]:
    return [zlib.crc32(view[at : at + size]) for at in range(0, len(view), size)]
