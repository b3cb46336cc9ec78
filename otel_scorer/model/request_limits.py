"""
How many parts a request may be made of: an empty message takes two bytes or three and costs as much as a full one.

The limits grow with the size of the request, and no request reaches them of which the parts say something: a usable
span takes 30 bytes, 34 with a resource and a scope of its own, and the shortest value in OTLP/JSON 15 characters.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

from otel_scorer.errors import TooManyPartsError

__all__ = ["check_objects", "check_size", "parts_allowed", "too_many_parts"]

# Smaller requests hold no more parts than any may.
_ALWAYS_ALLOWED: Final = 10_000
_BYTES_PER_PART: Final = 16
# Requests up to here, which is most of them, are looked through when they are cut: what is made of them until then is
# small enough. Looking through larger ones before takes a part of a microsecond for each span.
_SMALL: Final = 4 << 20
# The same for OTLP/JSON, of which every byte must be looked at.
_OBJECTS_ALWAYS_ALLOWED: Final = 100_000
_BYTES_PER_OBJECT: Final = 12
_SMALL_JSON: Final = 2 << 20
# One match for each that is not in a text. Possessive: texts of any length take no memory, and what is no JSON is not
# tried in several ways.
_OBJECT: Final = re.compile(rb'(?:[^"{\[]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"?+)*+[{\[]', re.DOTALL)

_VARINT, _FIXED64, _BYTES, _START_GROUP, _END_GROUP, _FIXED32 = range(6)
_SIZES: Final = {_FIXED64: 8, _START_GROUP: 0, _END_GROUP: 0, _FIXED32: 4}
_CONTINUED: Final = 0x80
# There is no field 0.
_LEAST_KEY: Final = 8
# Where to look further: the resources in a request, and the scopes in them. In scopes there are the items.
_INSIDE: Final = (1, 2)


def check_size(data: bytes) -> None:
    """
    Look through a large request before anything is made of it; the exact limit is `parts_allowed`.

    Raises:
        TooManyPartsError: There is far too much in it.
    """
    if len(data) > _SMALL and _count(data, 0, len(data), _INSIDE, allowed := 3 * parts_allowed(len(data))) > allowed:
        raise too_many_parts(len(data))


def parts_allowed(size: int) -> int:
    """Return how many resources and scopes, and how many items, may be in a request of `size` bytes."""
    return _ALWAYS_ALLOWED + size // _BYTES_PER_PART


def too_many_parts(size: int) -> TooManyPartsError:
    """Return what a request of `size` bytes is refused with that holds more of anything than is allowed."""
    most = parts_allowed(size)
    return TooManyPartsError(f"The request has more than {most} resources and scopes, or items, in {size} bytes")


def check_objects(body: bytes) -> None:
    """
    Count the objects and lists of an OTLP/JSON request before it is parsed.

    Raises:
        TooManyPartsError: There are too many.
    """
    if len(body) <= _SMALL_JSON:
        return
    allowed = _OBJECTS_ALWAYS_ALLOWED + len(body) // _BYTES_PER_OBJECT
    if body.count(b"{") + body.count(b"[") <= allowed:
        return
    # Texts may be full of brackets, which count for nothing.
    if next(islice(_OBJECT.finditer(body), allowed, None), None) is not None:
        raise TooManyPartsError(f"The request has over {allowed} objects and lists in its {len(body)} bytes")


def _count(data: bytes, at: int, end: int, inside: tuple[int, ...], most: int) -> int:
    """
    Count the fields of a message and of the messages in it, up to `most` and one more.

    Ends early at what is no field: the parser that comes next refuses it. The fields of a group count like others.
    """
    fields = 0
    try:
        while at < end and fields <= most:
            fields += 1
            key, at = (data[at], at + 1) if data[at] < _CONTINUED else _varint(data, at)
            wire_type = key & 7
            if key < _LEAST_KEY:
                break
            if wire_type == _BYTES:
                size, at = (data[at], at + 1) if data[at] < _CONTINUED else _varint(data, at)
                if inside and key >> 3 == inside[0]:
                    fields += _count(data, at, min(at + size, end), inside[1:], most - fields)
                at += size
            elif wire_type == _VARINT:
                _, at = _varint(data, at)
            else:
                at += _SIZES[wire_type]
    except LookupError:
        pass
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number and return it with where it ends; those that are too long end the message."""
    value = shift = 0
    while shift < 70:  # noqa: PLR2004 - ten bytes of seven bits
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUED:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise IndexError
