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
    out: list[bytes] = []
    left = limit
    while data:
        member, data = _zlib_stream(data, _GZIP, left, limit)
        out.append(member)
        left -= len(member)
    return b"".join(out)


def _deflate(data: bytes, limit: int) -> bytes:
    """RFC 9110 means the zlib format; some clients send the bare deflate stream, as browsers have always tolerated."""
    is_zlib = len(data) > 1 and data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
    out, rest = _zlib_stream(data, _ZLIB if is_zlib else _RAW_DEFLATE, limit, limit)
    if rest:
        raise InvalidRequestError("The body goes on after its compressed data")
    return out


def _zlib_stream(data: bytes, window: int, left: int, limit: int) -> tuple[bytes, bytes]:
    """Inflate one stream and return it with what follows it."""
    stream = zlib.decompressobj(window)
    out: list[bytes] = []
    try:
        while not stream.eof:
            part = stream.decompress(data, min(_CHUNK, left + 1))
            data = stream.unconsumed_tail
            left -= len(part)
            if left < 0:
                raise _too_large(limit)
            if not part and not data and not stream.eof:
                raise InvalidRequestError("The compressed body is cut off")
            out.append(part)
    except zlib.error as error:
        raise InvalidRequestError(f"The body is not compressed as its Content-Encoding says: {error}") from error
    return b"".join(out), stream.unused_data


def _zstd(data: bytes, limit: int) -> bytes:
    """One zstd frame or several in a row (RFC 8878, section 3)."""
    out: list[bytes] = []
    left = limit
    while data:
        stream = ZstdDecompressor(options={DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
        pending = data
        try:
            while not stream.eof:
                part = stream.decompress(pending, min(_CHUNK, left + 1))
                pending = b""
                left -= len(part)
                if left < 0:
                    raise _too_large(limit)
                if not part and stream.needs_input:
                    raise InvalidRequestError("The compressed body is cut off")
                out.append(part)
        except ZstdError as error:
            raise InvalidRequestError(f"The body is not compressed as its Content-Encoding says: {error}") from error
        data = stream.unused_data
    return b"".join(out)


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
