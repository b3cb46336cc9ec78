from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import InvalidRequestError, RequestTooLargeError
from otel_scorer.transport.compression import inflate

zstd = pytest.importorskip("backports.zstd")


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


COMPRESS = {
    "identity": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("encoding", COMPRESS)
@given(data=st.binary(max_size=200), copies=st.integers(1, 20_000))
def test_what_was_compressed_comes_out(encoding: str, data: bytes, copies: int) -> None:
    body = data * copies

    assert inflate(COMPRESS[encoding](body), encoding, limit=len(body)) == body


@pytest.mark.parametrize("encoding", COMPRESS)
def test_one_byte_over_the_limit_is_too_large(encoding: str) -> None:
    with pytest.raises(RequestTooLargeError):
        inflate(COMPRESS[encoding](bytes(5_000_001)), encoding, limit=5_000_000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_refused(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(200 << 20))

    with pytest.raises(RequestTooLargeError):
        inflate(bomb, encoding, limit=4 << 20)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"plain text", lambda data: data + b"rubbish"])
def test_damaged_data_is_invalid(encoding: str, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(InvalidRequestError):
        inflate(damage(COMPRESS[encoding](bytes(range(256)) * 10)), encoding, limit=1 << 20)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_several_members_in_a_row_are_one_body(encoding: str) -> None:
    compress = COMPRESS[encoding]

    assert inflate(compress(b"one ") + compress(b"two"), encoding, limit=7) == b"one two"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_thousands_of_empty_members_are_passed_over(encoding: str) -> None:
    # If each of them had what follows copied, this would be gigabytes.
    body = random.Random(1).randbytes(1 << 20)

    assert inflate(COMPRESS[encoding](b"") * 9_000 + COMPRESS[encoding](body), encoding, limit=len(body)) == body


@pytest.mark.parametrize(
    "part",
    [gzip.compress(b""), zstd.compress(b""), b"\x50\x2a\x4d\x18\0\0\0\0"],
    ids=["gzip", "zstd", "skippable"],  # not the bytes: gzip writes the time of day into them
)
def test_a_body_of_nothing_but_empty_members_is_refused(part: bytes) -> None:
    encoding = "gzip" if part[:1] == b"\x1f" else "zstd"

    with pytest.raises(InvalidRequestError, match="parts"):
        inflate(part * 10_001, encoding, limit=4)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("size", [16_384, 100_000, 3_000_000])
def test_bodies_that_are_read_in_pieces_come_out_whole_and_cut_off_are_invalid(encoding: str, size: int) -> None:
    body = random.Random(size).randbytes(size)
    compressed = COMPRESS[encoding](body)

    assert inflate(compressed, encoding, limit=size) == body
    with pytest.raises(RequestTooLargeError):
        inflate(compressed, encoding, limit=size - 1)
    for end in (1, 16_384, len(compressed) - 1):
        with pytest.raises(InvalidRequestError):
            inflate(compressed[:end], encoding, limit=size)


def test_deflate_without_its_zlib_header_is_understood() -> None:
    assert inflate(raw_deflate(b"hello" * 100), "deflate", limit=1000) == b"hello" * 100


def test_a_nested_gzip_is_undone_once() -> None:
    assert inflate(gzip.compress(gzip.compress(b"x")), "gzip", limit=1000)[:2] == b"\x1f\x8b"
