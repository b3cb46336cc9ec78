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
    "RELOAD_INTERVAL",
    "Compression",
    "Credentials",
    "OnRequest",
    "PartialSuccess",
    "Sender",
    "ServerTls",
    "TlsFiles",
    "TlsVersion",
]

# OTLP 1.11, "OTLP/gRPC" and "OTLP/HTTP": recommended limit of a request, also after decompression.
MAX_REQUEST_SIZE: Final = 64 << 20

GRPC_METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
HTTP_PATHS: Final = {signal: f"/v1/{signal}" for signal in Signal}


RELOAD_INTERVAL: Final = 10.0
"""Seconds between two looks at files that others may replace."""


class Compression(StrEnum):
    """The names of OTEL_EXPORTER_OTLP_COMPRESSION."""

    NONE = "none"
    GZIP = "gzip"


class TlsVersion(StrEnum):
    """Versions that a receiver may ask for at least; older ones are broken."""

    V1_2 = "1.2"
    V1_3 = "1.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """
    PEM files of a receiver.

    Attributes:
        certificate: With the intermediate certificates, the server's own first.
        key: Its key, without a password.
        client_ca: Authorities of which clients must have a certificate. None: clients need none.
        min_version: Older versions are refused.
        reload_interval: Seconds between two looks at the files; 0: they are read once.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
    min_version: TlsVersion = TlsVersion.V1_2
    reload_interval: float = RELOAD_INTERVAL

    @property
    def paths(self) -> tuple[Path | None, ...]:
        """The files that may change."""
        return self.certificate, self.key, self.client_ca


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """
    What a sender needs for an encrypted connection.

    Attributes:
        ca: PEM file of the authorities to trust; None: the system's.
        certificate: PEM file of the client's certificate, where the server wants one.
        key: Its key, without a password.
        server_name: Name that the server's certificate must have, instead of the one in the URL.
        reload_interval: Seconds between two looks at the files; 0: they are read once.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    reload_interval: float = RELOAD_INTERVAL

    @property
    def paths(self) -> tuple[Path | None, ...]:
        """The files that may change."""
        return self.ca, self.certificate, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """
    What a receiver accepts. Never shown: `repr` has no values.

    Attributes:
        tokens: Bearer tokens.
        token_file: More of them, one per line; read again when it changes.
        scheme: What stands before a token in the Authorization header.
        users: Lines of `name:password`.
        user_file: More of them, likewise.
    """

    tokens: tuple[str, ...] = ()
    token_file: Path | None = None
    scheme: str = "Bearer"
    users: str = ""
    user_file: Path | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


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
