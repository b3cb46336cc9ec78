# pyright: reportUnnecessaryTypeIgnoreComment=false
"""Answers of OTLP servers: export responses and errors, in protobuf and JSON, written and read."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from typing import Final

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message

# googleapis-common-protos has no type information; pyright reads its source, mypy does not.
from google.rpc.error_details_pb2 import BadRequest, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from otel_scorer.errors import (
    InvalidRequestError,
    OverloadedError,
    RequestTooLargeError,
    TooManyPartsError,
    UnsupportedSignalError,
)
from otel_scorer.model.wire import Signal
from otel_scorer.transport.exchange import PartialSuccess

__all__ = [
    "DEADLINE_EXCEEDED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "UNAUTHENTICATED",
    "Refusal",
    "decode_success",
    "encode_success",
    "refusal",
    "retry_info_delay",
    "status_message",
    "status_retry_delay",
    "success_json",
]

# google.rpc.Code, the numbers that gRPC status codes share.
INVALID_ARGUMENT: Final = 3
DEADLINE_EXCEEDED: Final = 4
NOT_FOUND: Final = 5
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16
# Error texts travel in HTTP/2 headers, whose peers allow 8 KiB in all; twice, percent-encoded.
_MAX_MESSAGE: Final = 500
_REJECTED_KEYS: Final = {
    Signal.TRACES: "rejectedSpans",
    Signal.LOGS: "rejectedLogRecords",
    Signal.METRICS: "rejectedDataPoints",
}


def encode_success(partial: PartialSuccess | None) -> bytes:
    """
    Encode an Export*ServiceResponse; full success is empty, as OTLP asks.

    The three signals' responses have the same field numbers, so one type serves them all.
    """
    if partial is None:
        return b""
    return ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(
            rejected_spans=partial.rejected, error_message=partial.message[:_MAX_MESSAGE]
        )
    ).SerializeToString()


def success_json(signal: Signal, partial: PartialSuccess | None) -> bytes:
    """Encode the same as OTLP/JSON."""
    if partial is None:
        return b"{}"
    body = {_REJECTED_KEYS[signal]: str(partial.rejected), "errorMessage": partial.message[:_MAX_MESSAGE]}
    return json.dumps({"partialSuccess": body}).encode()


def decode_success(data: bytes) -> PartialSuccess | None:
    """
    Read a backend's Export*ServiceResponse, of any signal.

    An empty PartialSuccess is full success: the Collector always sends one. So is a body that is no such message, as
    the status has said already that the request was taken.
    """
    if not data:
        return None
    try:
        partial = ExportTraceServiceResponse.FromString(data).partial_success
    except DecodeError:
        return None
    rejected = max(0, partial.rejected_spans)
    return PartialSuccess(rejected, partial.error_message) if rejected or partial.error_message else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    An error answer.

    Attributes:
        code: google.rpc.Code number.
        http_status: Status of the HTTP response.
        message: For the people on the other side.
        outcome: Value of the self-metric attribute `outcome`.
        details: Messages for google.rpc.Status.details.
        retry_after: Seconds, if the request may be sent again.
        headers: Fields that the HTTP response needs beside those of every answer.
    """

    code: int
    http_status: int
    message: str
    outcome: str = "invalid"
    details: tuple[Message, ...] = field(default=(), compare=False)
    retry_after: float | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def status(self) -> bytes:
        """Encode as google.rpc.Status."""
        encoded: bytes = self._status().SerializeToString()
        return encoded

    def status_json(self) -> bytes:
        """Encode as google.rpc.Status in JSON."""
        return json_format.MessageToJson(self._status(), indent=None).encode()

    def retry_info(self) -> bytes | None:
        """Encode the retry hint of a refusal that is not final as google.rpc.RetryInfo."""
        return None if self.retry_after is None else _retry_info(self.retry_after).SerializeToString()

    def retry_after_header(self) -> str | None:
        """Return the value of Retry-After: whole seconds, never 0."""
        return None if self.retry_after is None else str(max(1, math.ceil(self.retry_after)))

    def _status(self) -> Status:
        details = self.details if self.retry_after is None else (*self.details, _retry_info(self.retry_after))
        return Status(code=self.code, message=self.message[:_MAX_MESSAGE], details=map(_packed, details))


def refusal(error: Exception) -> Refusal:
    """Return what a client is told about an error; of an unexpected one nothing but that it happened."""
    message = str(error)
    if isinstance(error, InvalidRequestError):
        violation = BadRequest.FieldViolation(description=message[:_MAX_MESSAGE])
        return Refusal(INVALID_ARGUMENT, 400, message, details=(BadRequest(field_violations=[violation]),))
    if isinstance(error, RequestTooLargeError):
        outcome = "too_many_parts" if isinstance(error, TooManyPartsError) else "too_large"
        return Refusal(RESOURCE_EXHAUSTED, 413, message, outcome)
    if isinstance(error, UnsupportedSignalError):
        return Refusal(UNIMPLEMENTED, 404, message, "unsupported")
    if isinstance(error, OverloadedError):
        return Refusal(UNAVAILABLE, 503, message, "overloaded", retry_after=error.retry_after)
    return Refusal(INTERNAL, 500, "Internal error", "internal")


def status_message(body: bytes) -> str:
    """Return what an error answer says: the message of a google.rpc.Status, as OTLP asks, or a short plain text."""
    with contextlib.suppress(DecodeError):
        message: str = Status.FromString(body).message
        if message:
            return message[:_MAX_MESSAGE]
    text = body[:_MAX_MESSAGE].decode(errors="replace")
    return text if text.isprintable() else ""


def status_retry_delay(status: bytes) -> float | None:
    """Return the seconds of the RetryInfo in an encoded google.rpc.Status, if it has one."""
    try:
        details = Status.FromString(status).details
        packed = [detail.value for detail in details if detail.type_url.endswith("/google.rpc.RetryInfo")]
        return retry_info_delay(packed[0]) if packed else None
    except DecodeError:
        return None


def retry_info_delay(retry_info: bytes) -> float | None:
    """Return the seconds of an encoded google.rpc.RetryInfo."""
    try:
        delay: Duration = RetryInfo.FromString(retry_info).retry_delay
    except DecodeError:
        return None
    return delay.seconds + delay.nanos / 1e9


def _retry_info(seconds: float) -> Message:
    whole = int(seconds)
    hint: Message = RetryInfo(retry_delay=Duration(seconds=whole, nanos=int((seconds - whole) * 1e9)))
    return hint


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
