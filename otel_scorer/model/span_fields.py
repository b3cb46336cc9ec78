"""
A second message type for OTLP spans: same bytes, but attributes are a protobuf map instead of a list.

On the wire a KeyValue is an entry of a `map<string, AnyValue>`. So the protobuf runtime itself does the look-up by key,
and asking a span for one attribute costs the same whether it carries two or two hundred. Of a span, the values stay
encoded until they are read: most never are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = [
    "OriginFields",
    "SpanFields",
    "parse_request",
    "parse_resource",
    "parse_resource_spans",
    "parse_scope",
    "parse_scope_spans",
    "parse_span",
]


class SpanFields(Protocol):
    """
    What a view reads of a span: the fields of OTLP's trace.proto, of a repeated attribute key the last one.

    The value of an attribute is an encoded AnyValue.
    """

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    name: str
    kind: int
    start_time_unix_nano: int
    end_time_unix_nano: int
    attributes: Mapping[str, bytes]
    events: Sequence[Span.Event]
    links: Sequence[Span.Link]
    status: Status
    flags: int
    dropped_attributes_count: int
    dropped_events_count: int


class OriginFields(Protocol):
    """What a view reads of a resource (attributes only) or a scope."""

    name: str
    version: str
    attributes: Mapping[str, AnyValue]


class ScopeSpansFields(Protocol):
    """A ScopeSpans. Its scope is encoded: nearly always it is known. In several parts: they are one message, joined."""

    scope: Sequence[bytes]
    spans: Sequence[SpanFields]


class ResourceSpansFields(Protocol):
    """A ResourceSpans; its resource likewise."""

    resource: Sequence[bytes]
    scope_spans: Sequence[ScopeSpansFields]


class RequestFields(Protocol):
    """An ExportTraceServiceRequest."""

    resource_spans: Sequence[ResourceSpansFields]


_PACKAGE: Final = "otel_scorer.fields"
_KIND: Final = descriptor_pb2.FieldDescriptorProto


def _build() -> dict[str, type[Message]]:
    """Copy the messages that carry attributes, each with a map in their place, and what encloses them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="otel_scorer/span_fields.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=["opentelemetry/proto/common/v1/common.proto", "opentelemetry/proto/trace/v1/trace.proto"],
    )
    _copy_with_map(file, "Span", trace_pb2.Span.DESCRIPTOR, are_encoded=True)
    _copy_with_map(file, "Resource", resource_pb2.Resource.DESCRIPTOR)
    _copy_with_map(file, "Scope", common_pb2.InstrumentationScope.DESCRIPTOR)
    for name, parts in (
        ("ScopeSpans", (("scope", None), ("spans", "Span"))),
        ("ResourceSpans", (("resource", None), ("scope_spans", "ScopeSpans"))),
        ("Request", (("resource_spans", "ResourceSpans"),)),
    ):
        message = file.message_type.add(name=name)
        for number, (part, type_name) in enumerate(parts, 1):
            field = message.field.add(name=part, number=number, type=_KIND.TYPE_BYTES, label=_KIND.LABEL_REPEATED)
            if type_name is not None:
                field.type, field.type_name = _KIND.TYPE_MESSAGE, f".{_PACKAGE}.{type_name}"
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"{_PACKAGE}.{message.name}") for message in file.message_type)
    return {descriptor.name: message_factory.GetMessageClass(descriptor) for descriptor in found}


def _copy_with_map(
    file: descriptor_pb2.FileDescriptorProto, name: str, descriptor: Descriptor, *, are_encoded: bool = False
) -> None:
    copy = file.message_type.add(name=name)
    entry = copy.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_KIND.TYPE_STRING, label=_KIND.LABEL_OPTIONAL)
    value = entry.field.add(name="value", number=2, type=_KIND.TYPE_BYTES, label=_KIND.LABEL_OPTIONAL)
    if not are_encoded:
        value.type, value.type_name = _KIND.TYPE_MESSAGE, ".opentelemetry.proto.common.v1.AnyValue"
    original = descriptor_pb2.DescriptorProto()
    descriptor.CopyToProto(original)
    copy.field.extend(original.field)
    for field in copy.field:
        if field.name == "attributes":
            field.type_name = f".{_PACKAGE}.{name}.AttributesEntry"


_MESSAGES: Final = _build()

parse_span: Final = cast("Callable[[bytes], SpanFields]", _MESSAGES["Span"].FromString)
"""Decode an encoded `trace.v1.Span`; raises `google.protobuf.message.DecodeError` if it is none."""
parse_resource: Final = cast("Callable[[bytes], OriginFields]", _MESSAGES["Resource"].FromString)
"""Likewise a `resource.v1.Resource`."""
parse_scope: Final = cast("Callable[[bytes], OriginFields]", _MESSAGES["Scope"].FromString)
"""Likewise a `common.v1.InstrumentationScope`."""
parse_scope_spans: Final = cast("Callable[[bytes], ScopeSpansFields]", _MESSAGES["ScopeSpans"].FromString)
"""Likewise a `trace.v1.ScopeSpans`."""
parse_resource_spans: Final = cast("Callable[[bytes], ResourceSpansFields]", _MESSAGES["ResourceSpans"].FromString)
"""Likewise a `trace.v1.ResourceSpans`."""
parse_request: Final = cast("Callable[[bytes], RequestFields]", _MESSAGES["Request"].FromString)
"""Likewise an `ExportTraceServiceRequest`."""
