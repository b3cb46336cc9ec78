"""
OTLP/JSON values to encoded protobuf fields, by tables made from the protobuf descriptors.

Fields are written directly: building messages first would double the time. A fault in a span, log record or data point
costs that one only; a fault in what holds them (a resource, a scope) costs all that are in it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_scorer.model.json_scalars import UnusableError, WireType, as_list, joined, payload, tag, varint
from otel_scorer.model.json_values import Tally, Write, any_value, key_values, scalar_writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from otel_scorer.model.json_scalars import Json

__all__ = ["MessageTable", "message_table"]

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
        return joined(parts)


@cache
def message_table(descriptor: Descriptor) -> MessageTable:
    """Return the table of a message type; made once."""
    return MessageTable(descriptor)


def _writer(field: FieldDescriptor) -> Write:
    message = field.message_type
    if message is None:
        return _packed_writer(field) if field.is_repeated else scalar_writer(field)
    if message.full_name == KeyValue.DESCRIPTOR.full_name:
        return _attributes_writer(field)
    if message.full_name == AnyValue.DESCRIPTOR.full_name:
        return _any_value_writer(field)
    return _messages_writer(field) if field.is_repeated else _message_writer(field)


def _packed_writer(field: FieldDescriptor) -> Write:
    """Repeated numbers in one field, as proto3 does; repeated strings in a field each."""
    wire_type, encode = payload(field)
    head = tag(field, WireType.BYTES)
    name = field.json_name

    def write(value: Json, _: Tally, /) -> bytes:
        parts = [encode(item, name) for item in as_list(value, name)]
        if wire_type is WireType.BYTES:
            return b"".join([head + varint(len(part)) + part for part in parts])
        return head + varint(sum(map(len, parts))) + joined(parts) if parts else b""

    return write


def _message_writer(field: FieldDescriptor) -> Write:
    head = tag(field, WireType.BYTES)
    encode = message_table(field.message_type).encode

    def write(value: Json, tally: Tally, /) -> bytes:
        encoded = encode(value, tally)
        return head + varint(len(encoded)) + encoded

    return write


def _messages_writer(field: FieldDescriptor) -> Write:
    head = tag(field, WireType.BYTES)
    name = field.json_name
    encode = _guarded(message_table(field.message_type))

    def write(value: Json, tally: Tally, /) -> bytes:
        parts: list[bytes] = []
        for item in as_list(value, name):
            encoded = encode({} if item is None else item, tally)
            if encoded is not None:
                parts += (head, varint(len(encoded)), encoded)
        return joined(parts)

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


def _attributes_writer(field: FieldDescriptor) -> Write:
    head = tag(field, WireType.BYTES)
    name = field.json_name
    return lambda value, tally: key_values(head, as_list(value, name), tally)


def _any_value_writer(field: FieldDescriptor) -> Write:
    head = tag(field, WireType.BYTES)

    def write(value: Json, tally: Tally, /) -> bytes:
        encoded = any_value(value, tally)
        return head + varint(len(encoded)) + encoded

    return write
