"""Where to send, in what protocol: reads endpoints as the OTLP exporter specification does, and connects to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from otel_scorer.errors import ConfigError
from otel_scorer.model.wire import Signal
from otel_scorer.transport.exchange import HTTP_PATHS, Compression, Sender, TlsFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from otel_scorer.transport.dead_letters import DeadLetters
    from otel_scorer.transport.retry import RetryPolicy

__all__ = [
    "OFF",
    "SAME",
    "Compression",
    "Destination",
    "Lane",
    "Protocol",
    "TlsFiles",
    "choose_protocol",
    "connect",
    "signal_url",
]

SAME: Final = "same"
"""A signal that goes where spans go."""
OFF: Final = "off"
"""A signal that is not sent."""

_HTTP_PORT: Final = 4318
_GRPC_PORT: Final = 4317
_HTTPS_PORT: Final = 443


class Protocol(StrEnum):
    """How requests travel; the names of OTEL_EXPORTER_OTLP_PROTOCOL."""

    GRPC = "grpc"
    HTTP_PROTOBUF = "http/protobuf"


class Lane(StrEnum):
    """What has a queue of its own at each destination, so that one kind never waits for another."""

    SPANS = "spans"
    SCORES = "scores"
    LOGS = "logs"
    METRICS = "metrics"
    SCORE_LOGS = "score_logs"
    SCORE_METRICS = "score_metrics"

    @property
    def is_about_scores(self) -> bool:
        """Whether otel_scorer itself makes what is sent, so that there is nobody to send it again."""
        return self in {Lane.SCORES, Lane.SCORE_LOGS, Lane.SCORE_METRICS}

    @property
    def signal(self) -> Signal:
        """The kind of request that this lane carries."""
        return _SIGNALS[self]


_SIGNALS: Final = {
    Lane.SPANS: Signal.TRACES,
    Lane.SCORES: Signal.TRACES,
    Lane.LOGS: Signal.LOGS,
    Lane.METRICS: Signal.METRICS,
    Lane.SCORE_LOGS: Signal.LOGS,
    Lane.SCORE_METRICS: Signal.METRICS,
}


@dataclass(frozen=True, slots=True)
class Destination:
    """
    One backend.

    Attributes:
        name: For log lines and self-metrics: its address without credentials.
        senders: By lane; a lane that is not there is not sent.
        retry: What to do about failures that may pass. None: as the forwarder's other destinations.
        queue_size: Bytes that may wait for each lane, likewise.
        timeout: Seconds for one attempt, likewise.
        request_size: Bytes of a request, before compression; larger ones are cut. Likewise.
        dead_letters: Where goes what is given up. None: it is only counted.
    """

    name: str
    senders: Mapping[Lane, Sender] = field(hash=False)
    retry: RetryPolicy | None = None
    queue_size: int | None = None
    timeout: float | None = None
    request_size: int | None = None
    dead_letters: DeadLetters | None = None


def choose_protocol(url: str, protocol: str | None = None) -> Protocol:
    """
    Return `protocol` if given; else HTTP if the URL has a path or port 4318, else gRPC.

    Raises:
        ConfigError: No such protocol or no such URL.
    """
    if protocol is not None:
        try:
            return Protocol(protocol)
        except ValueError as error:
            raise ConfigError(f"No such export protocol: {protocol!r}; known are {', '.join(Protocol)}") from error
    parts = _split(url)
    return Protocol.HTTP_PROTOBUF if parts.path.strip("/") or parts.port == _HTTP_PORT else Protocol.GRPC


def signal_url(url: str, signal: Signal) -> str:
    """
    Return the URL of one signal's requests.

    A base URL gets `/v1/<signal>` appended; in one that ends in the path of a signal, that is replaced.

    Raises:
        ConfigError: No such URL.
    """
    parts = _split(url)
    path = parts.path.rstrip("/")
    for known in HTTP_PATHS.values():
        path = path.removesuffix(known)
    return urlunsplit(parts._replace(path=path + HTTP_PATHS[signal]))


def connect(
    url: str,
    *,
    protocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    compression: Compression = Compression.NONE,
    tls: TlsFiles | None = None,
    logs_endpoint: str = SAME,
    metrics_endpoint: str = SAME,
) -> Destination:
    """
    Make the senders of a backend; connections are opened when something is sent.

    Args:
        url: `http(s)://host:port[/path]`, bare `host:port`, `console`, or `file:PATH`.
        protocol: One of `Protocol`, instead of what the URL suggests.
        headers: Sent with every request, such as an API key.
        compression: gzip costs more CPU than everything else together.
        tls: For https.
        logs_endpoint: Where logs go: `same`, `off`, or a URL.
        metrics_endpoint: Where metrics go, likewise.

    Raises:
        ConfigError: A URL or protocol that does not exist, or a file that cannot be opened.
    """

    def open_sender(target: str) -> Sender:
        return _open(target, protocol if target == url else None, headers or {}, compression, tls or TlsFiles())

    main = open_sender(url)
    senders = {Lane.SPANS: main, Lane.SCORES: main}
    for lanes, endpoint in (
        ((Lane.LOGS, Lane.SCORE_LOGS), logs_endpoint),
        ((Lane.METRICS, Lane.SCORE_METRICS), metrics_endpoint),
    ):
        if endpoint != OFF:
            senders |= dict.fromkeys(lanes, main if endpoint in {SAME, url} else open_sender(endpoint))
    return Destination(_name(url), senders)


def _open(
    url: str, protocol: str | None, headers: Mapping[str, str], compression: Compression, tls: TlsFiles
) -> Sender:
    # Each client library is heavy and most set-ups need one.
    if _is_local(url):
        from otel_scorer.transport.file_sender import ConsoleSender, FileSender

        return ConsoleSender() if url == "console" else FileSender(url.removeprefix("file:"))
    if choose_protocol(url, protocol) is Protocol.HTTP_PROTOBUF:
        from otel_scorer.transport.http_sender import HttpSender

        urls = {signal: signal_url(url, signal) for signal in Signal}
        return HttpSender(urls, headers=headers, compression=compression, tls=tls)
    from otel_scorer.transport.grpc_sender import GrpcSender

    parts = _split(url)
    secure = parts.scheme == "https"
    port = parts.port or (_HTTPS_PORT if secure else _GRPC_PORT)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return GrpcSender(f"{host}:{port}", secure=secure, headers=headers, compression=compression, tls=tls)


def _is_local(url: str) -> bool:
    return url == "console" or url.startswith("file:")


def _name(url: str) -> str:
    if _is_local(url):
        return url
    parts = _split(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _split(url: str) -> SplitResult:
    """Split a URL; a bare `host:port` is plain text, as in `http://host:port`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"Cannot export to {_masked(url)!r}: expected http(s)://HOST:PORT[/PATH], HOST:PORT, console or file:PATH"
        )
    return parts


def _masked(url: str) -> str:
    """Leave out what stands before an @: it may be a password."""
    return url.rpartition("@")[2]
