"""Protobuf messages of OTLP as OTLP/JSON data, by tables made from the protobuf descriptors."""

from __future__ import annotations

import base64
import math
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

__all__ = ["to_json"]

_ID_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_AS_STRING: Final = frozenset({
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
})  # fmt: skip


def to_json(message: Message) -> dict[str, Any]:
    """Convert a message of OTLP into JSON data: what `json.dumps` takes, with the keys and values of OTLP/JSON."""
    table = _table(message.DESCRIPTOR)
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        name, convert = table[field.number]
        out[name] = value if convert is None else convert(value)
    return out


@cache
def _table(descriptor: Descriptor) -> dict[int, tuple[str, Callable[[Any], Any] | None]]:
    return {field.number: (field.json_name, _converter(field)) for field in descriptor.fields}


def _converter(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    """Return what makes JSON data of a field's value; None if it is JSON data already."""
    convert = _single(field)
    if not field.is_repeated:
        return convert
    return list if convert is None else lambda values: [convert(value) for value in values]


def _single(field: FieldDescriptor) -> Callable[[Any], Any] | None:
    if field.message_type is not None:
        return to_json
    if field.type in _AS_STRING:
        return str
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _double
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes.hex if field.name in _ID_FIELDS else _base64
    return None


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
