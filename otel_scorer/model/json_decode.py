"""
OTLP/JSON values to encoded protobuf fields, by tables made from the protobuf descriptors.

Fields are written directly: building messages first would double the time. A fault in a span, log record or data point
costs that one only; a fault in what holds them (a resource, a scope) costs all that are in it.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor

__all__ = ["Json", "MessageTable", "Tally", "UnusableError", "message_table"]

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"

# The parts that OTLP's partial success counts.
_ITEMS: Final = frozenset({
    "opentelemetry.proto.trace.v1.Span",
    "opentelemetry.proto.logs.v1.LogRecord",
    "opentelemetry.proto.metrics.v1.NumberDataPoint",
    "opentelemetry.proto.metrics.v1.HistogramDataPoint",
    "opentelemetry.proto.metrics.v1.ExponentialHistogramDataPoint",
    "opentelemetry.proto.metrics.v1.SummaryDataPoint",
})  # fmt: skip
_CONTAINERS: Final = frozenset({
    "opentelemetry.proto.trace.v1.ResourceSpans",
    "opentelemetry.proto.trace.v1.ScopeSpans",
    "opentelemetry.proto.logs.v1.ResourceLogs",
    "opentelemetry.proto.logs.v1.ScopeLogs",
    "opentelemetry.proto.metrics.v1.ResourceMetrics",
    "opentelemetry.proto.metrics.v1.ScopeMetrics",
    "opentelemetry.proto.metrics.v1.Metric",
})  # fmt: skip
_ITEM_KEYS: Final = frozenset({"spans", "logRecords", "log_records", "dataPoints", "data_points"})
_ID_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_URL_SAFE: Final = str.maketrans("-_", "+/")
# protobuf parsers give up at 100 nested messages; no attribute of OTLP starts deeper than the ninth.
_MAX_VALUE_DEPTH: Final = 88
_WIRE_VARINT: Final = 0
_WIRE_FIXED64: Final = 1
_WIRE_BYTES: Final = 2
_WIRE_FIXED32: Final = 5
_DEFAULTS: Final = {_WIRE_VARINT: b"\x00", _WIRE_FIXED64: bytes(8), _WIRE_BYTES: b"", _WIRE_FIXED32: bytes(4)}
_UNSIGNED64: Final = (1 << 64) - 1
_INTEGER_RANGES: Final = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT64: (0, _UNSIGNED64),
    FieldDescriptor.TYPE_FIXED64: (0, _UNSIGNED64),
}


class UnusableError(Exception):
    """A part of the request means nothing in OTLP. The message names the field, never its value."""


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


class _Write(Protocol):
    """Encode the JSON value of one field, tag included. Null never gets here: it means that the field is not set."""

    def __call__(self, value: Json, tally: Tally, /) -> bytes: ...


class MessageTable:
    """How each JSON key of one message type is written."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.name = descriptor.full_name
        self._fields = {field.json_name: _writer(field) for field in descriptor.fields}
        self._snake_case = {
            field.name: self._fields[field.json_name] for field in descriptor.fields if field.name != field.json_name
        }

    def encode(self, value: Json, tally: Tally) -> bytes:
        """
        Encode a JSON object as this message, in the order of its keys; unknown keys are ignored.

        Raises:
            UnusableError: A value does not fit its field.
        """
        if not isinstance(value, dict):
            raise UnusableError(f"{self.name.rpartition('.')[2]} is not an object")
        parts: list[bytes] = []
        for key, item in value.items():
            write = self._fields.get(key)
            if write is None:
                write = self._snake_case.get(key)
                if write is None:
                    continue
                tally.snake_case_keys += 1
            if item is not None:
                parts.append(write(item, tally))
        return b"".join(parts)


@cache
def message_table(descriptor: Descriptor) -> MessageTable:
    """Return the table of a message type; made once."""
    return MessageTable(descriptor)


def _writer(field: FieldDescriptor) -> _Write:
    message = field.message_type
    if message is None:
        return _packed_writer(field) if field.is_repeated else _scalar_writer(field)
    if message.full_name == KeyValue.DESCRIPTOR.full_name:
        return _attributes_writer(field)
    if message.full_name == AnyValue.DESCRIPTOR.full_name:
        return _any_value_writer(field)
    return _messages_writer(field) if field.is_repeated else _message_writer(field)


def _scalar_writer(field: FieldDescriptor) -> _Write:
    wire_type, payload = _scalar(field)
    tag = _tag(field, wire_type)
    # proto3 leaves defaults out, unless the field tells "zero" from "not set".
    default = None if field.has_presence else _DEFAULTS[wire_type]

    def write(value: Json, _: Tally, /) -> bytes:
        encoded = payload(value)
        if encoded == default:
            return b""
        return tag + _length(len(encoded)) + encoded if wire_type == _WIRE_BYTES else tag + encoded

    return write


def _packed_writer(field: FieldDescriptor) -> _Write:
    """Repeated numbers in one field, as proto3 does; repeated strings in a field each."""
    wire_type, payload = _scalar(field)
    tag = _tag(field, _WIRE_BYTES)
    name = field.json_name

    def write(value: Json, _: Tally, /) -> bytes:
        parts = [payload(item) for item in _list(value, name)]
        if wire_type == _WIRE_BYTES:
            return b"".join([tag + _length(len(part)) + part for part in parts])
        return tag + _length(sum(map(len, parts))) + b"".join(parts) if parts else b""

    return write


def _message_writer(field: FieldDescriptor) -> _Write:
    tag = _tag(field, _WIRE_BYTES)
    encode = message_table(field.message_type).encode

    def write(value: Json, tally: Tally, /) -> bytes:
        encoded = encode(value, tally)
        return tag + _length(len(encoded)) + encoded

    return write


def _messages_writer(field: FieldDescriptor) -> _Write:
    tag = _tag(field, _WIRE_BYTES)
    name = field.json_name
    encode = _guarded(message_table(field.message_type))

    def write(value: Json, tally: Tally, /) -> bytes:
        parts: list[bytes] = []
        for item in _list(value, name):
            encoded = encode({} if item is None else item, tally)
            if encoded is not None:
                parts += (tag, _length(len(encoded)), encoded)
        return b"".join(parts)

    return write


def _guarded(table: MessageTable) -> Callable[[Json, Tally], bytes | None]:
    """Return what encodes a message, or gives None where a fault costs no more than that message."""
    if table.name in _ITEMS:
        return lambda value, tally: _encode_item(table, value, tally)
    if table.name in _CONTAINERS:
        return lambda value, tally: _encode_container(table, value, tally)
    return table.encode


def _encode_item(table: MessageTable, value: Json, tally: Tally) -> bytes | None:
    try:
        encoded = table.encode(value, tally)
    except UnusableError as error:
        tally.reject(1, str(error))
        return None
    tally.accepted += 1
    return encoded


def _encode_container(table: MessageTable, value: Json, tally: Tally) -> bytes | None:
    accepted, rejected = tally.accepted, tally.rejected
    try:
        return table.encode(value, tally)
    except UnusableError as error:
        tally.accepted, tally.rejected = accepted, rejected
        tally.reject(max(1, _items_in(value)), str(error))
        return None


def _items_in(value: Json) -> int:
    """Count the items of a container that is given up as a whole."""
    if not isinstance(value, dict):
        return 0
    items = 0
    for key, inner in value.items():
        if key in _ITEM_KEYS and isinstance(inner, list):
            items += len(inner)
        elif isinstance(inner, list):
            items += sum(map(_items_in, inner))
        elif key != "resource":
            items += _items_in(inner)
    return items


def _attributes_writer(field: FieldDescriptor) -> _Write:
    tag = _tag(field, _WIRE_BYTES)
    name = field.json_name
    return lambda value, tally: _key_values(tag, _list(value, name), tally, 0)


def _any_value_writer(field: FieldDescriptor) -> _Write:
    tag = _tag(field, _WIRE_BYTES)

    def write(value: Json, tally: Tally, /) -> bytes:
        encoded = _any_value(value, tally, 0)
        return tag + _length(len(encoded)) + encoded

    return write


def _key_values(tag: bytes, items: list[Json], tally: Tally, depth: int) -> bytes:
    parts: list[bytes] = []
    for item in items:
        # Nine of ten attributes are a short string under a short key: written here at once, at half the time.
        if (
            isinstance(item, dict)
            and len(item) == _KEY_AND_VALUE
            and isinstance(key := item.get("key"), str)
            and len(key) <= _KEY_CACHE_LENGTH
            and isinstance(value := item.get("value"), dict)
            and len(value) == 1
            and isinstance(text := value.get("stringValue"), str)
            and len(text) < _SHORT // 4
        ):
            encoded = text.encode() if text.isascii() else _utf8(text, "stringValue")
            head = _cached_key(key)
            value_head = _STRING_VALUES[len(encoded)]
            parts += (tag, _LENGTHS[len(head) + len(value_head) + len(encoded)], head, value_head, encoded)
        else:
            encoded = _key_value(item, tally, depth)
            parts += (tag, _length(len(encoded)), encoded)
    return b"".join(parts)


def _key_value(item: Json, tally: Tally, depth: int) -> bytes:
    if not isinstance(item, dict):
        raise UnusableError("an attribute is not an object")
    out = b""
    for name, part in item.items():
        if part is None:
            continue
        if name == "key":
            out += _key(part)
        elif name == "value":
            value = _any_value(part, tally, depth)
            out += b"\x12" + _length(len(value)) + value
        elif (write := _scalars(KeyValue.DESCRIPTOR).get(name)) is not None:
            out += write(part, tally)
    return out


def _key(value: Json) -> bytes:
    if isinstance(value, str) and len(value) <= _KEY_CACHE_LENGTH:
        return _cached_key(value)
    key = _utf8(value, "an attribute key")
    return b"\x0a" + _length(len(key)) + key


_KEY_CACHE_LENGTH: Final = 128
_KEY_AND_VALUE: Final = 2


@lru_cache(maxsize=4096)
def _cached_key(value: str) -> bytes:
    """Attribute keys are few and come in every span."""
    key = _utf8(value, "an attribute key")
    return b"\x0a" + _length(len(key)) + key


def _any_value(value: Json, tally: Tally, depth: int) -> bytes:
    """Encode an AnyValue; an empty one is OTLP's null. Of several set members the last one counts, as in protobuf."""
    if not isinstance(value, dict):
        raise UnusableError("an attribute value is not an object")
    out = b""
    for name, item in value.items():
        if item is None:
            continue
        if name == "stringValue":
            text = _utf8(item, name)
            out = b"\x0a" + _length(len(text)) + text
        elif (nested := _NESTED.get(name)) is not None:
            out = nested(item, tally, depth)
        elif (write := _scalars(AnyValue.DESCRIPTOR).get(name)) is not None:
            out = write(item, tally)
    return out


def _array_value(value: Json, tally: Tally, depth: int) -> bytes:
    parts: list[bytes] = []
    for item in _values_of(value, depth):
        # A null element is kept as OTLP's null: leaving it out would move the others.
        encoded = b"" if item is None else _any_value(item, tally, depth + 2)
        parts += (b"\x0a", _length(len(encoded)), encoded)
    body = b"".join(parts)
    return b"\x2a" + _length(len(body)) + body


def _kvlist_value(value: Json, tally: Tally, depth: int) -> bytes:
    body = _key_values(b"\x0a", _values_of(value, depth), tally, depth + 3)
    return b"\x32" + _length(len(body)) + body


_NESTED: Final[dict[str, Callable[[Json, Tally, int], bytes]]] = {
    "arrayValue": _array_value,
    "array_value": _array_value,
    "kvlistValue": _kvlist_value,
    "kvlist_value": _kvlist_value,
}


def _values_of(value: Json, depth: int) -> list[Json]:
    if depth > _MAX_VALUE_DEPTH:
        raise UnusableError("an attribute value is nested too deeply")
    if not isinstance(value, dict):
        raise UnusableError("a list of attribute values is not an object")
    values = value.get("values")
    return [] if values is None else _list(values, "values")


@cache
def _scalars(descriptor: Descriptor) -> dict[str, _Write]:
    """Return the writers of the scalar fields of a message that is otherwise written by hand, by both kinds of key."""
    fields = [field for field in descriptor.fields if field.message_type is None]
    return {name: _scalar_writer(field) for field in fields for name in (field.json_name, field.name)}


def _scalar(field: FieldDescriptor) -> tuple[int, Callable[[Json], bytes]]:
    """Return the wire type of a scalar field and what encodes its payload, without tag and length."""
    name = field.json_name
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        return _WIRE_BYTES, lambda value: _utf8(value, name)
    if kind == FieldDescriptor.TYPE_BYTES:
        convert = _id if field.name in _ID_FIELDS else _base64
        return _WIRE_BYTES, lambda value: convert(value, name)
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return _WIRE_FIXED64, lambda value: struct.pack("<d", _double(value, name))
    if kind == FieldDescriptor.TYPE_BOOL:
        return _WIRE_VARINT, lambda value: _boolean(value, name)
    low, high = _INTEGER_RANGES[kind]
    if kind in {FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64}:
        return _WIRE_FIXED64, lambda value: (_integer(value, name, low, high) & _UNSIGNED64).to_bytes(8, "little")
    if kind == FieldDescriptor.TYPE_FIXED32:
        return _WIRE_FIXED32, lambda value: _integer(value, name, low, high).to_bytes(4, "little")
    if kind == FieldDescriptor.TYPE_SINT32:
        return _WIRE_VARINT, lambda value: _zigzag(_integer(value, name, low, high))
    return _WIRE_VARINT, lambda value: _varint(_integer(value, name, low, high) & _UNSIGNED64)


def _list(value: Json, name: str) -> list[Json]:
    if not isinstance(value, list):
        raise UnusableError(f"{name} is not a list")
    return value


def _utf8(value: Json, name: str) -> bytes:
    if not isinstance(value, str):
        raise UnusableError(f"{name} is not a string")
    try:
        return value.encode()
    except UnicodeEncodeError:
        # A lone surrogate can be written in JSON but not in UTF-8.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _id(value: Json, name: str) -> bytes:
    # bytes.fromhex alone would accept whitespace between the digits.
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise UnusableError(f"{name} is not hexadecimal")
    return bytes.fromhex(value)


def _base64(value: Json, name: str) -> bytes:
    if not isinstance(value, str):
        raise UnusableError(f"{name} is not a base64 string")
    text = value.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableError(f"{name} is not base64") from error


def _integer(value: Json, name: str, low: int, high: int) -> int:
    """Read an integer: a number without fraction, or its digits in a string."""
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    elif (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    else:
        raise UnusableError(f"{name} is not an integer")
    if not low <= number <= high:
        raise UnusableError(f"{name} is negative" if number < 0 <= low else f"{name} is out of range")
    return number


def _double(value: Json, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UnusableError(f"{name} is not a number")
    try:
        return float(value)
    except (OverflowError, ValueError) as error:
        raise UnusableError(f"{name} is not a number in range") from error


def _boolean(value: Json, name: str) -> bytes:
    if not isinstance(value, bool):
        raise UnusableError(f"{name} is not a boolean")
    return b"\x01" if value else b"\x00"


def _zigzag(value: int) -> bytes:
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _tag(field: FieldDescriptor, wire_type: int) -> bytes:
    return _varint(field.number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _length(size: int) -> bytes:
    return _LENGTHS[size] if size < len(_LENGTHS) else _varint(size)


# An index instead of a loop for the length of almost every string, and all that stands before a short string value.
_SHORT: Final = 1 << 13
_LENGTHS: Final = [_varint(size) for size in range(2 * _SHORT)]
_STRING_VALUES: Final = [
    b"\x12" + _varint(1 + len(_LENGTHS[size]) + size) + b"\x0a" + _LENGTHS[size] for size in range(_SHORT)
]
