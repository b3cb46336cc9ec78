"""Encode protobuf fields and OTLP attributes by hand: a verdict is a few, appended to bytes that stay as they are."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Final

__all__ = [
    "attribute",
    "field",
    "fixed32_field",
    "fixed64_field",
    "key_value",
    "nearest_double",
    "varint",
    "varint_field",
]


# Tag and length of a short field, for every number that fits into one byte.
_SHORT_HEADS: Final = [bytes((number << 3 | 2, size)) for number in range(16) for size in range(0x80)]
_DOUBLE: Final = struct.Struct("<d")


def field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field (bytes, string, message)."""
    size = len(payload)
    if number < 16 and size < 0x80:
        return _SHORT_HEADS[number << 7 | size] + payload
    return varint(number << 3 | 2) + varint(size) + payload


def varint_field(number: int, value: int) -> bytes:
    """Encode an integer, bool or enum field. Negative integers are written as two's complement in 64 bits."""
    return varint(number << 3) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def fixed64_field(number: int, value: int) -> bytes:
    """Encode a fixed64 field, OTLP's type for times in nanoseconds."""
    return varint(number << 3 | 1) + value.to_bytes(8, "little")


def fixed32_field(number: int, value: int) -> bytes:
    """Encode a fixed32 field, OTLP's type for flags."""
    return varint(number << 3 | 5) + value.to_bytes(4, "little")


def key_value(key: str, value: str | float) -> bytes:
    """
    Encode a `common.v1.KeyValue` with a scalar value.

    Lone surrogates, which UTF-8 cannot carry, become question marks. Integers outside 64 bits become doubles, infinite
    ones if need be.
    """
    if isinstance(value, str):
        encoded = field(1, value.encode("utf-8", "replace"))
    elif isinstance(value, bool):
        encoded = b"\x10\x01" if value else b"\x10\x00"
    elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        encoded = varint_field(3, value)
    else:
        encoded = b"\x21" + _DOUBLE.pack(nearest_double(value))
    return _key(key) + field(2, encoded)


def attribute(key: str, value: str | float) -> bytes:
    """Encode one span attribute, ready to be appended to an encoded span (Span.attributes, field 9)."""
    if isinstance(value, float):
        return _before_double(key) + _DOUBLE.pack(value)
    return field(9, key_value(key, value))


def nearest_double(value: float) -> float:
    """Return a number as a double; an integer that is too large becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


# Keys repeat from span to span.
@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    return field(1, key.encode("utf-8", "replace"))


# All doubles are of one size, so what comes before one depends on the key alone.
@lru_cache(maxsize=1024)
def _before_double(key: str) -> bytes:
    return field(9, key_value(key, 0.0))[: -_DOUBLE.size]


def varint(value: int) -> bytes:
    """Encode a number that is not negative."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    if value < 0x4000:  # most lengths of spans
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
