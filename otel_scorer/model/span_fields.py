"""
A second message type for OTLP spans: same bytes, but attributes are a protobuf map instead of a list.

On the wire a KeyValue is an entry of a `map<string, AnyValue>`. So the protobuf runtime itself does the look-up by key,
and asking a span for one attribute costs the same whether it carries two or two hundred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = ["SpanFields", "parse_span"]


class SpanFields(Protocol):
    """What a view reads of a span: the fields of OTLP's trace.proto, of a repeated attribute key the last one."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    name: str
    kind: int
    start_time_unix_nano: int
    end_time_unix_nano: int
    attributes: Mapping[str, AnyValue]
    events: Sequence[Span.Event]
    links: Sequence[Span.Link]
    status: Status
    flags: int


def _build() -> type[Message]:
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="otel_scorer/span_fields.proto",
        package="otel_scorer",
        syntax="proto3",
        dependency=["opentelemetry/proto/common/v1/common.proto", "opentelemetry/proto/trace/v1/trace.proto"],
    )
    span = file.message_type.add(name="SpanFields")
    entry = span.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=kind.TYPE_MESSAGE,
        type_name=".opentelemetry.proto.common.v1.AnyValue",
        label=kind.LABEL_OPTIONAL,
    )
    original = descriptor_pb2.DescriptorProto()
    trace_pb2.Span.DESCRIPTOR.CopyToProto(original)
    span.field.extend(original.field)
    for field in span.field:
        if field.name == "attributes":
            field.type_name = ".otel_scorer.SpanFields.AttributesEntry"
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("otel_scorer.SpanFields"))


parse_span: Final = cast("Callable[[bytes], SpanFields]", _build().FromString)
"""Decode an encoded `opentelemetry.proto.trace.v1.Span`; raises `google.protobuf.message.DecodeError` if it is none."""
