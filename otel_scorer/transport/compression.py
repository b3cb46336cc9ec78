"""Content encodings of OTLP/HTTP: inflate with a limit, so that a small bomb cannot fill the memory."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import InvalidRequestError, RequestTooLargeError

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor, ZstdError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ENCODINGS", "inflate"]

_CHUNK: Final = 1 << 20
# What follows the end of a stream is copied, so little of it goes in at a time: a body of empty streams would be copied
# once for each of them.
_PIECE: Final = 16 << 10
# Several times what parallel compressors make of the largest body. Each of them has a decompressor opened.
_MAX_IN_A_ROW: Final = 10_000
_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
_RAW_DEFLATE: Final = -zlib.MAX_WBITS
# RFC 9659: a zstd frame on the web asks for 8 MiB of window at most.
_ZSTD_WINDOW_LOG: Final = 23


def inflate(data: bytes, encoding: str, limit: int) -> bytes:
    """
    Undo a Content-Encoding.

    Args:
        data: The body as received.
        encoding: A key of `ENCODINGS`.
        limit: Bytes that may come out.

    Raises:
        InvalidRequestError: The data is not in this encoding, or incomplete.
        RequestTooLargeError: More than `limit` bytes would come out.
    """
    return ENCODINGS[encoding](data, limit) if data else b""


def _identity(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise _too_large(limit)
    return data


def _gzip(data: bytes, limit: int) -> bytes:
    """One gzip member or several in a row (RFC 1952, section 2.2)."""
    return _in_a_row(_gzip_member, data, limit)


def _zstd(data: bytes, limit: int) -> bytes:
    """One zstd frame or several in a row (RFC 8878, section 3)."""
    return _in_a_row(_zstd_frame, data, limit)


def _deflate(data: bytes, limit: int) -> bytes:
    """RFC 9110 means the zlib format; some clients send the bare deflate stream, as browsers have always tolerated."""
    is_zlib = len(data) > 1 and data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
    out, taken = _zlib_stream(memoryview(data), _ZLIB if is_zlib else _RAW_DEFLATE, limit, limit)
    if taken < len(data):
        raise InvalidRequestError("The body goes on after its compressed data")
    return out


def _in_a_row(read: Callable[[memoryview, int, int], tuple[bytes, int]], data: bytes, limit: int) -> bytes:
    out: list[bytes] = []
    left = limit
    rest = memoryview(data)
    while rest:
        if len(out) == _MAX_IN_A_ROW:
            raise InvalidRequestError(f"The compressed body has more than {_MAX_IN_A_ROW} parts")
        part, taken = read(rest, left, limit)
        out.append(part)
        left -= len(part)
        rest = rest[taken:]
    return b"".join(out)


def _gzip_member(data: memoryview, left: int, limit: int) -> tuple[bytes, int]:
    return _zlib_stream(data, _GZIP, left, limit)


def _zlib_stream(data: memoryview, window: int, left: int, limit: int) -> tuple[bytes, int]:
    """Inflate one stream and return it with how many bytes it took."""
    stream = zlib.decompressobj(window)
    out: list[bytes] = []
    taken = 0
    try:
        while not stream.eof:
            piece = data[taken : taken + _PIECE]
            part = stream.decompress(piece, min(_CHUNK, left + 1))
            taken += len(piece) - len(stream.unconsumed_tail) - len(stream.unused_data)
            left -= len(part)
            if left < 0:
                raise _too_large(limit)
            if not part and not piece and not stream.eof:
                raise InvalidRequestError("The compressed body is cut off")
            out.append(part)
    except zlib.error as error:
        raise InvalidRequestError(f"The body is not compressed as its Content-Encoding says: {error}") from error
    return b"".join(out), taken


def _zstd_frame(data: memoryview, left: int, limit: int) -> tuple[bytes, int]:
    """Inflate one frame and return it with how many bytes it took."""
    stream = ZstdDecompressor(options={DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
    out: list[bytes] = []
    taken = 0
    try:
        while not stream.eof:
            piece = data[taken : taken + _PIECE] if stream.needs_input else data[:0]
            part = stream.decompress(piece, min(_CHUNK, left + 1))
            taken += len(piece)
            left -= len(part)
            if left < 0:
                raise _too_large(limit)
            if not part and not piece and stream.needs_input:
                raise InvalidRequestError("The compressed body is cut off")
            out.append(part)
    except ZstdError as error:
        raise InvalidRequestError(f"The body is not compressed as its Content-Encoding says: {error}") from error
    return b"".join(out), taken - len(stream.unused_data)


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"The request is larger than {limit} bytes after decompression")


ENCODINGS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "": _identity,
    "identity": _identity,
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
