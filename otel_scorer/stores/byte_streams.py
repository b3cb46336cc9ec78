"""Bytes of a file or of standard input, decompressed while they are read; the first bytes tell how, not the name."""

from __future__ import annotations

import io
import sys
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

__all__ = ["decompressed"]

_CHUNK: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gunzip() -> _Decompressor:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)


def _unzstd() -> _Decompressor:
    return ZstdDecompressor()


class _Inflated(io.RawIOBase):
    """
    Decompresses one stream after the other, as `cat a.gz b.gz` leaves them.

    Damage ends the data where it begins: what came before is good.
    """

    def __init__(
        self, source: BinaryIO, make: Callable[[], _Decompressor], on_damage: Callable[[str, int], None]
    ) -> None:
        super().__init__()
        self._source = source
        self._make = make
        self._on_damage = on_damage
        self._stream: _Decompressor | None = None
        self._ready = b""
        self._consumed = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not self._ready:
            data = self._stream.unused_data if self._stream is not None and self._stream.eof else b""
            if data:
                self._stream = None
            data = data or self._source.read(_CHUNK)
            if not data:
                if self._stream is not None and not self._stream.eof:
                    self._damaged("the compressed data is cut off")
                return 0
            if self._stream is None or self._stream.eof:
                self._stream = self._make()
            try:
                self._ready = self._stream.decompress(data)
            except (zlib.error, ZstdError) as error:
                self._damaged(f"the compressed data is damaged: {error}")
                return 0
            self._consumed += len(data) - len(self._stream.unused_data if self._stream.eof else b"")
        target = memoryview(buffer)
        part, self._ready = self._ready[: len(target)], self._ready[len(target) :]
        target[: len(part)] = part
        return len(part)

    def _damaged(self, what: str) -> None:
        self._source = io.BytesIO()
        self._stream = None
        self._on_damage(what, self._consumed)


def decompressed(source: BinaryIO, on_damage: Callable[[str, int], None]) -> io.BufferedReader:
    """
    Return the data of a gzip or zstd stream, or of any other as it is.

    Args:
        source: Read from its beginning; need not be seekable.
        on_damage: Told what is wrong with compressed data and after how many good bytes of it; the data ends there.
    """
    # Standard input may be something else in tests; all that is needed of it is readinto().
    is_buffered = hasattr(source, "peek")
    raw = cast("io.BufferedReader", source if is_buffered else io.BufferedReader(cast("io.RawIOBase", source)))
    start = raw.peek(len(_ZSTD))
    if start.startswith(_GZIP):
        return io.BufferedReader(_Inflated(raw, _gunzip, on_damage), _CHUNK)
    if start.startswith(_ZSTD):
        return io.BufferedReader(_Inflated(raw, _unzstd, on_damage), _CHUNK)
    return raw
