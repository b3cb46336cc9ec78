"""What receivers, senders and their owners say to one another, free of any server or client library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from otel_scorer.model.wire import Signal

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "GRPC_METHODS",
    "HTTP_PATHS",
    "MAX_REQUEST_SIZE",
    "Compression",
    "OnRequest",
    "PartialSuccess",
    "Sender",
    "TlsFiles",
]

# OTLP 1.11, "OTLP/gRPC" and "OTLP/HTTP": recommended limit of a request, also after decompression.
MAX_REQUEST_SIZE: Final = 64 << 20

GRPC_METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
HTTP_PATHS: Final = {signal: f"/v1/{signal}" for signal in Signal}


class Compression(StrEnum):
    """The names of OTEL_EXPORTER_OTLP_COMPRESSION."""

    NONE = "none"
    GZIP = "gzip"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files; None means the system's authorities, and no client certificate."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class PartialSuccess:
    """A request was taken, less `rejected` items (spans, log records, data points). `message` alone is a warning."""

    rejected: int
    message: str = ""


OnRequest: TypeAlias = Callable[[Signal, bytes], PartialSuccess | None]
"""Takes one encoded Export*ServiceRequest on a receiver thread; None is full success. Raises `RequestError`s."""


class Sender(Protocol):
    """Sends encoded requests to one backend; may be used by several threads at once."""

    def send(self, signal: Signal, data: bytes, timeout: float) -> PartialSuccess | None:
        """
        Send one request and wait for the answer, `timeout` seconds at most; None is full success.

        Raises:
            RetryableError: It may succeed later.
            TooLargeError: Fewer items may succeed.
            PermanentError: The same request will fail again.
        """
        ...

    def close(self) -> None:
        """Free the connections; requests on the way may fail. Safe to call twice."""
        ...
