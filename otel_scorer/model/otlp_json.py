"""OTLP/JSON to protobuf bytes and back, for traces, logs and metrics (OTLP specification, "JSON Protobuf Encoding")."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.json_decode import message_table
from otel_scorer.model.json_encode import to_json
from otel_scorer.model.json_scalars import UnusableError
from otel_scorer.model.json_values import Tally
from otel_scorer.model.request_limits import check_objects
from otel_scorer.model.wire import Signal
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.json_scalars import Json

__all__ = ["JsonRequest", "decode_object", "decode_request", "encode_request"]

_REQUESTS: Final[
    Mapping[Signal, type[ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest]]
] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}
_ROOT_KEYS: Final = {
    Signal.TRACES: ("resourceSpans", "resource_spans"),
    Signal.LOGS: ("resourceLogs", "resource_logs"),
    Signal.METRICS: ("resourceMetrics", "resource_metrics"),
}
# JSON leaves these as they are, but str.splitlines() would break a line of a JSON lines file at them.
_LINE_BREAKS: Final = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """
    What a JSON request holds.

    Attributes:
        data: The usable part, as an encoded Export*ServiceRequest.
        rejected: Spans, log records or data points that were left out.
        message: Why, for the client; empty if nothing was left out.
    """

    data: bytes
    rejected: int = 0
    message: str = ""


def decode_request(signal: Signal, body: bytes) -> JsonRequest:
    """
    Convert the body of an OTLP/JSON request.

    Lenient where the Collector is (snake_case keys, counted; a UTF-8 byte order mark), strict where leniency would
    corrupt data (ids are hex, never base64; enums are numbers; times are whole and not negative).

    Raises:
        InvalidRequestError: It is not JSON in UTF-8, not an object, or has items but not one that is usable.
        TooManyPartsError: It is made of more objects than anything can be in.
    """
    check_objects(body)
    try:
        parsed = json.loads(body.decode("utf-8-sig"))
    except RecursionError as error:
        raise InvalidRequestError("Not usable as JSON: nested too deeply") from error
    except ValueError as error:
        # JSONDecodeError, UnicodeDecodeError, and integers with more digits than Python converts.
        raise InvalidRequestError(f"Not JSON in UTF-8: {str(error)[:200]}") from error
    return decode_object(signal, parsed)


def decode_object(signal: Signal, obj: Mapping[str, object]) -> JsonRequest:
    """
    Convert an OTLP/JSON request that is parsed already, as `decode_request` does.

    Raises:
        InvalidRequestError: It is not an object, or has items but not one that is usable.
    """
    tally = Tally()
    try:
        data = message_table(_REQUESTS[signal].DESCRIPTOR).encode(cast("Json", obj), tally)
    except UnusableError as error:
        raise InvalidRequestError(f"Not an OTLP {signal} request: {error}") from error
    count("json.snake_case_keys", tally.snake_case_keys)
    if not tally.rejected:
        if not tally.accepted:
            _refuse_other_signals(signal, obj)
        return JsonRequest(data)
    message = f"{tally.rejected} item(s) rejected, the first because {tally.reason}"
    if not tally.accepted:
        raise InvalidRequestError(message)
    return JsonRequest(data, tally.rejected, message)


def encode_request(signal: Signal, data: bytes) -> str:
    """
    Convert an encoded request into one line of compact OTLP/JSON.

    Ids are lower-case hex, enums numbers, 64-bit integers strings. Unknown protobuf fields have no JSON form and are
    left out.

    Raises:
        InvalidRequestError: `data` is no request of this signal.
    """
    try:
        request = _REQUESTS[signal].FromString(data)
    except DecodeError as error:
        raise InvalidRequestError(f"Not an OTLP {signal} request: {error}") from error
    text = json.dumps(to_json(request), ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.translate(_LINE_BREAKS)


def _refuse_other_signals(signal: Signal, obj: Mapping[str, object]) -> None:
    """An unknown key is ignored, but a request that is one of another signal was sent to the wrong path."""
    for other, keys in _ROOT_KEYS.items():
        if other is not signal and any(obj.get(key) for key in keys):
            raise InvalidRequestError(f"Not an OTLP {signal} request; it looks like OTLP {other}")
