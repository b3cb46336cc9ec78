# pyright: basic
"""
The gRPC health service (grpc.health.v1) of a receiver: `Check` says SERVING as long as requests are taken.

`Watch` is not there, and gRPC answers UNIMPLEMENTED, which clients take for "no health watching": each watcher would
occupy one of the few threads that requests are handled on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from otel_scorer.transport.exchange import GRPC_METHODS

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["HEALTH_CHECK", "health_handler"]

HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = 1
# The server as a whole, and each service that it has.
_KNOWN: Final = frozenset({"", "grpc.health.v1.Health", *(method.split("/")[1] for method in GRPC_METHODS.values())})


def _messages() -> tuple[type[Message], type[Message]]:
    """Return request and response as grpc/health/v1/health.proto defines them, apart from everybody else's copy."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    # An enum and an int32 look the same on the wire.
    response = file.message_type.add(name="HealthCheckResponse")
    response.field.add(name="status", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in ("HealthCheckRequest", "HealthCheckResponse")
    ]
    return made[0], made[1]


_Request, _Response = _messages()


def health_handler() -> grpc.GenericRpcHandler[Any, Any]:
    """Return the service: it answers for as long as the server takes requests, and a server that stops does not."""
    method = grpc.unary_unary_rpc_method_handler(
        _check, request_deserializer=_Request.FromString, response_serializer=_Response.SerializeToString
    )
    _, service, name = HEALTH_CHECK.split("/")
    return grpc.method_handlers_generic_handler(service, {name: method})


def _check(request: Any, context: grpc.ServicerContext) -> Message:
    if request.service not in _KNOWN:
        context.abort(grpc.StatusCode.NOT_FOUND, "No such service")
    return _Response(status=_SERVING)
