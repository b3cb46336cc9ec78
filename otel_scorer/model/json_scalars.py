"""
JSON values of OTLP as protobuf payloads: what fits a scalar field and how it is encoded, tag and length excluded.

Each function takes the value and the name of its field, and raises `UnusableError` if they do not fit.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from decimal import Decimal
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "LENGTHS",
    "Json",
    "UnusableError",
    "WireType",
    "as_list",
    "fixed64",
    "hex_id",
    "joined",
    "payload",
    "tag",
    "utf8",
    "varint",
]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

_ID_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
# Whatever has fewer digits than the largest fits into 64 bits, as all times of this century do.
_SURE_DIGITS: Final = 20
# 64 bits have 20 digits and a sign.
_MAX_DIGITS: Final = 22
# As JSON writes numbers (RFC 8259), of a length that leaves room for zeros that say nothing.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER: Final = 64
_URL_SAFE: Final = str.maketrans("-_", "+/")
_UNSIGNED64: Final = (1 << 64) - 1
_CONTINUED: Final = 0x80
_PORTION: Final = 10_000


class UnusableError(Exception):
    """A part of the request means nothing in OTLP. The message names the field, never its value."""


class WireType(IntEnum):
    """How a field's payload is delimited."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


def tag(field: FieldDescriptor, wire_type: WireType) -> bytes:
    """Encode what stands before a field's payload."""
    return varint(field.number << 3 | wire_type)


def payload(field: FieldDescriptor) -> tuple[WireType, Callable[[Json, str], bytes]]:
    """Return the wire type of a scalar field and what encodes its values."""
    if field.type == FieldDescriptor.TYPE_BYTES and field.name in _ID_FIELDS:
        return WireType.BYTES, hex_id
    return _PAYLOADS[field.type]


def as_list(value: Json, name: str) -> list[Json]:
    """Return a list, or raise."""
    if not isinstance(value, list):
        raise UnusableError(f"{name} is not a list")
    return value


def utf8(value: Json, name: str) -> bytes:
    """Encode a string; lone surrogates become U+FFFD."""
    if not isinstance(value, str):
        raise UnusableError(f"{name} is not a string")
    try:
        return value.encode()
    except UnicodeEncodeError:
        # A lone surrogate can be written in JSON but not in UTF-8.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def hex_id(value: Json, name: str) -> bytes:
    """Encode a trace or span id: hex digits of either case, of any even number."""
    if not isinstance(value, str):
        raise UnusableError(f"{name} is not hexadecimal")
    try:
        encoded = bytes.fromhex(value)
    except ValueError:
        encoded = b""
    # bytes.fromhex skips whitespace between the digits; OTLP has none.
    if 2 * len(encoded) != len(value):
        raise UnusableError(f"{name} is not hexadecimal")
    return encoded


def _base64(value: Json, name: str) -> bytes:
    if not isinstance(value, str):
        raise UnusableError(f"{name} is not a base64 string")
    text = value.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableError(f"{name} is not base64") from error


def _double(value: Json, name: str) -> bytes:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UnusableError(f"{name} is not a number")
    try:
        return struct.pack("<d", float(value))
    except (OverflowError, ValueError) as error:
        raise UnusableError(f"{name} is not a number in range") from error


def _boolean(value: Json, name: str) -> bytes:
    if not isinstance(value, bool):
        raise UnusableError(f"{name} is not a boolean")
    return b"\x01" if value else b"\x00"


def _integer(value: Json, name: str, low: int, high: int) -> int:
    """Read an integer: a number without fraction, or one in a string; `1e3` and `1.0` are such numbers too."""
    if isinstance(value, str):
        # Not all that int() takes: it would accept underscores, whitespace and other scripts' digits.
        whole = (
            len(value) < _MAX_DIGITS
            and value.isascii()
            and (value.isdecimal() or (value[:1] == "-" and value[1:].isdecimal()))
        )
        if not whole and (exact := _exact(value)) is not None:
            value, whole = exact, True
    elif isinstance(value, float):
        whole = value.is_integer()
    else:
        whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not isinstance(value, str | int | float):
        raise UnusableError(f"{name} is not an integer")
    number = int(value)
    if not low <= number <= high:
        raise UnusableError(f"{name} is negative" if number < 0 <= low else f"{name} is out of range")
    return number


def _exact(text: str) -> int | None:
    """Return the integer that is written as JSON may write numbers, such as 1.0 or 1e3; None: it is none."""
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except ArithmeticError:  # of its exponent
        return None
    # Powers of ten that are out of range anyway are not written out.
    if number and number.adjusted() >= _MAX_DIGITS:
        return None
    return int(number) if number == int(number) else None


def _int32(value: Json, name: str) -> bytes:
    return varint(_integer(value, name, -(1 << 31), (1 << 31) - 1) & _UNSIGNED64)


def _uint32(value: Json, name: str) -> bytes:
    return varint(_integer(value, name, 0, (1 << 32) - 1))


def _sint32(value: Json, name: str) -> bytes:
    number = _integer(value, name, -(1 << 31), (1 << 31) - 1)
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def _fixed32(value: Json, name: str) -> bytes:
    return _integer(value, name, 0, (1 << 32) - 1).to_bytes(4, "little")


def _int64(value: Json, name: str) -> bytes:
    return varint(_integer(value, name, -(1 << 63), (1 << 63) - 1) & _UNSIGNED64)


def _uint64(value: Json, name: str) -> bytes:
    return varint(_integer(value, name, 0, _UNSIGNED64))


def fixed64(value: Json, name: str) -> bytes:
    """Encode a fixed64, OTLP's type for times."""
    if isinstance(value, str) and len(value) < _SURE_DIGITS and value.isascii() and value.isdecimal():
        return int(value).to_bytes(8, "little")
    return _integer(value, name, 0, _UNSIGNED64).to_bytes(8, "little")


def _sfixed64(value: Json, name: str) -> bytes:
    return _integer(value, name, -(1 << 63), (1 << 63) - 1).to_bytes(8, "little", signed=True)


_PAYLOADS: Final[dict[int, tuple[WireType, Callable[[Json, str], bytes]]]] = {
    FieldDescriptor.TYPE_STRING: (WireType.BYTES, utf8),
    FieldDescriptor.TYPE_BYTES: (WireType.BYTES, _base64),
    FieldDescriptor.TYPE_DOUBLE: (WireType.FIXED64, _double),
    FieldDescriptor.TYPE_BOOL: (WireType.VARINT, _boolean),
    FieldDescriptor.TYPE_ENUM: (WireType.VARINT, _int32),
    FieldDescriptor.TYPE_INT32: (WireType.VARINT, _int32),
    FieldDescriptor.TYPE_UINT32: (WireType.VARINT, _uint32),
    FieldDescriptor.TYPE_SINT32: (WireType.VARINT, _sint32),
    FieldDescriptor.TYPE_FIXED32: (WireType.FIXED32, _fixed32),
    FieldDescriptor.TYPE_INT64: (WireType.VARINT, _int64),
    FieldDescriptor.TYPE_UINT64: (WireType.VARINT, _uint64),
    FieldDescriptor.TYPE_FIXED64: (WireType.FIXED64, fixed64),
    FieldDescriptor.TYPE_SFIXED64: (WireType.FIXED64, _sfixed64),
}


def joined(parts: Sequence[bytes]) -> bytes:
    """Join bytes; many of them in portions, for `join` takes 80 bytes more for each."""
    if len(parts) <= _PORTION:
        return b"".join(parts)
    return b"".join([b"".join(parts[at : at + _PORTION]) for at in range(0, len(parts), _PORTION)])


def varint(value: int) -> bytes:
    """Encode a number that is not negative."""
    return LENGTHS[value] if value < len(LENGTHS) else _long_varint(value)


def _long_varint(value: int) -> bytes:
    out = bytearray()
    while value >= _CONTINUED:
        out.append(value & 0x7F | _CONTINUED)
        value >>= 7
    out.append(value)
    return bytes(out)


LENGTHS: Final = [_long_varint(size) for size in range(1 << 14)]
"""Encoded numbers below 16 Ki: an index instead of a loop for almost every length, enum and count."""
