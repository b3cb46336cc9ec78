"""Attributes and their values in OTLP/JSON as encoded KeyValue and AnyValue: nine tenths of what a span is made of."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_scorer.model.json_scalars import LENGTHS, UnusableError, WireType, as_list, joined, payload, tag, utf8, varint

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from otel_scorer.model.json_scalars import Json

__all__ = ["Tally", "Write", "any_value", "key_values", "scalar_writer"]

# protobuf parsers give up at 100 nested messages; no attribute of OTLP starts deeper than the ninth.
_MAX_DEPTH: Final = 88
# How many messages an element lies below the value that it is in.
_ARRAY_LEVELS: Final = 2
_KVLIST_LEVELS: Final = 3
_CACHED_KEY: Final = 128
_KEY_AND_VALUE: Final = 2
_SHORT: Final = 1 << 13
# All that stands before the text of a string value: tag and length of the AnyValue, tag and length of the string.
_STRING_HEADS: Final = [
    b"\x12" + varint(1 + len(LENGTHS[size]) + size) + b"\x0a" + LENGTHS[size] for size in range(_SHORT)
]
# A character is four bytes of UTF-8 at most.
_SHORT_TEXT: Final = _SHORT // 4
_DEFAULTS: Final = {
    WireType.VARINT: b"\x00",
    WireType.FIXED64: bytes(8),
    WireType.BYTES: b"",
    WireType.FIXED32: bytes(4),
}


class Tally:
    """What came of the items of one request."""

    __slots__ = ("accepted", "reason", "rejected", "snake_case_keys")

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected = 0
        self.reason = ""
        self.snake_case_keys = 0

    def reject(self, items: int, reason: str) -> None:
        """Count items as left out and keep the first reason."""
        self.rejected += items
        self.reason = self.reason or reason


class Write(Protocol):
    """Writes one field."""

    def __call__(self, value: Json, tally: Tally, /) -> bytes:
        """Encode a JSON value, tag included. Null never gets here: it means that the field is not set."""
        ...


def key_values(tag: bytes, items: list[Json], tally: Tally, depth: int = 0) -> bytes:
    """Encode a list of attributes as one repeated field, whose tag is `tag`, `depth` messages inside a value."""
    parts: list[bytes] = []
    for item in items:
        # The shape that every client writes, a short key and a value, done here at once: at less than half the time.
        if (
            isinstance(item, dict)
            and len(item) == _KEY_AND_VALUE
            and isinstance(key := item.get("key"), str)
            and len(key) <= _CACHED_KEY
            and isinstance(value := item.get("value"), dict)
        ):
            head = _cached_key(key)
            text = value.get("stringValue") if len(value) == 1 else None
            if isinstance(text, str) and len(text) < _SHORT_TEXT:
                encoded = text.encode() if text.isascii() else utf8(text, "stringValue")
                value_head = _STRING_HEADS[len(encoded)]
                parts += (tag, LENGTHS[len(head) + len(value_head) + len(encoded)], head, value_head, encoded)
            else:
                encoded = any_value(value, tally, depth)
                value_head = b"\x12" + varint(len(encoded))
                parts += (tag, varint(len(head) + len(value_head) + len(encoded)), head, value_head, encoded)
        else:
            encoded = _key_value(item, tally, depth)
            parts += (tag, varint(len(encoded)), encoded)
    return joined(parts)


def any_value(value: Json, tally: Tally, depth: int = 0) -> bytes:
    """
    Encode an AnyValue; an empty one is OTLP's null. Of several members the last one counts, as in protobuf.

    Raises:
        UnusableError: It is not an object, a member does not fit, or it is nested too deeply.
    """
    if not isinstance(value, dict):
        raise UnusableError("an attribute value is not an object")
    out = b""
    for name, item in value.items():
        if item is None:
            continue
        if (write := _ANY_VALUE.get(name)) is not None:
            out = write(item, tally)
        elif (encode := _NESTED.get(name)) is not None:
            out = encode(item, tally, depth)
        else:
            continue
        tally.snake_case_keys += "_" in name
    return out


def scalar_writer(field: FieldDescriptor) -> Write:
    """Return what writes a scalar field that is not repeated."""
    wire_type, encode = payload(field)
    head = tag(field, wire_type)
    name = field.json_name
    # proto3 leaves defaults out, unless the field tells "zero" from "not set".
    default = None if field.has_presence else _DEFAULTS[wire_type]
    if wire_type is WireType.BYTES:

        def write_bytes(value: Json, _: Tally, /) -> bytes:
            encoded = encode(value, name)
            return b"" if encoded == default else head + varint(len(encoded)) + encoded

        return write_bytes

    def write(value: Json, _: Tally, /) -> bytes:
        encoded = encode(value, name)
        return b"" if encoded == default else head + encoded

    return write


def _key_value(item: Json, tally: Tally, depth: int) -> bytes:
    """Encode a KeyValue of any shape."""
    if not isinstance(item, dict):
        raise UnusableError("an attribute is not an object")
    out = b""
    for name, part in item.items():
        if part is None:
            continue
        if name == "key":
            key = utf8(part, "an attribute key")
            out += b"\x0a" + varint(len(key)) + key
        elif name == "value":
            value = any_value(part, tally, depth)
            out += b"\x12" + varint(len(value)) + value
        elif (write := _KEY_VALUE.get(name)) is not None:
            out += write(part, tally)
            tally.snake_case_keys += "_" in name
    return out


@lru_cache(maxsize=4096)
def _cached_key(value: str) -> bytes:
    """Attribute keys are few and come in every span."""
    key = utf8(value, "an attribute key")
    return b"\x0a" + varint(len(key)) + key


def _array_value(value: Json, tally: Tally, depth: int) -> bytes:
    parts: list[bytes] = []
    for item in _values_of(value, depth):
        # A null element is kept as OTLP's null: leaving it out would move the others.
        encoded = b"" if item is None else any_value(item, tally, depth + _ARRAY_LEVELS)
        parts += (b"\x0a", varint(len(encoded)), encoded)
    body = joined(parts)
    return b"\x2a" + varint(len(body)) + body


def _kvlist_value(value: Json, tally: Tally, depth: int) -> bytes:
    body = key_values(b"\x0a", _values_of(value, depth), tally, depth + _KVLIST_LEVELS)
    return b"\x32" + varint(len(body)) + body


def _values_of(value: Json, depth: int) -> list[Json]:
    if depth > _MAX_DEPTH:
        raise UnusableError("an attribute value is nested too deeply")
    if not isinstance(value, dict):
        raise UnusableError("a list of attribute values is not an object")
    values = value.get("values")
    return [] if values is None else as_list(values, "values")


_NESTED: Final[dict[str, Callable[[Json, Tally, int], bytes]]] = {
    "arrayValue": _array_value,
    "array_value": _array_value,
    "kvlistValue": _kvlist_value,
    "kvlist_value": _kvlist_value,
}


def _scalars(descriptor: Descriptor) -> dict[str, Write]:
    """Return the writers of the scalar fields of a message, by both kinds of key."""
    fields = [field for field in descriptor.fields if field.message_type is None]
    return {name: scalar_writer(field) for field in fields for name in (field.json_name, field.name)}


_ANY_VALUE: Final = _scalars(AnyValue.DESCRIPTOR)
_KEY_VALUE: Final = _scalars(KeyValue.DESCRIPTOR)
