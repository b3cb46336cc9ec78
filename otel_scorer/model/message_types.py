"""
Message types made from OTLP's own: one that slices a request, and those that check one without keeping it.

They have the wire format of the originals and differ in what the protobuf runtime does while it parses them, which is
where the time goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import DescriptorProto
    from google.protobuf.message import Message

__all__ = ["checking_type", "slicing_type"]

_KIND: Final = descriptor_pb2.FieldDescriptorProto


def slicing_type() -> type[Any]:
    """
    Build the message type that slices: the three levels every OTLP request has, the innermost items as bytes.

    Field numbers are the same for traces, logs and metrics (resource_* = 1, scope_* = 2, items = 2). What is not
    declared (resource, scope, schema_url, anything unknown) stays in the message's unknown fields and is serialised
    again in its original order.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="otel_scorer/slicing.proto", package="otel_scorer.slicing", syntax="proto3"
    )
    for name, field_name, number, type_, type_name in (
        ("Scope", "items", 2, _KIND.TYPE_BYTES, None),
        ("Resource", "scopes", 2, _KIND.TYPE_MESSAGE, ".otel_scorer.slicing.Scope"),
        ("Request", "resources", 1, _KIND.TYPE_MESSAGE, ".otel_scorer.slicing.Resource"),
    ):
        message = file.message_type.add(name=name)
        message.field.add(name=field_name, number=number, type=type_, label=_KIND.LABEL_REPEATED, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("otel_scorer.slicing.Request"))


def checking_type(original: type[Message], columns: frozenset[str] = frozenset()) -> type[Any]:
    """
    Build a message type whose parser refuses exactly what that of `original` refuses, and keeps next to nothing.

    Every list of messages becomes a single message. Protobuf merges a single message that occurs several times
    ("Encoding", "Last One Wins"), so each element is still parsed, to its last string, but into the same memory.

    Args:
        original: The type of a request.
        columns: Names of single bytes fields to collect over all elements: they become lists, one entry per occurrence.
    """
    pool = descriptor_pool.DescriptorPool()
    for file in _files(original.DESCRIPTOR.file, set()):
        copy = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copy)
        for field in (field for message in _messages(copy.message_type) for field in message.field):
            if field.type == _KIND.TYPE_MESSAGE:
                field.label = _KIND.LABEL_OPTIONAL
            elif field.name in columns:
                field.label = _KIND.LABEL_REPEATED
        pool.Add(copy)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(original.DESCRIPTOR.full_name))


def _files(file: Any, seen: set[str]) -> Iterator[Any]:
    """Give a file after everything that it imports."""
    if file.name not in seen:
        seen.add(file.name)
        for imported in file.dependencies:
            yield from _files(imported, seen)
        yield file


def _messages(declared: Any) -> Iterator[DescriptorProto]:
    for message in declared:
        yield message
        yield from _messages(message.nested_type)
