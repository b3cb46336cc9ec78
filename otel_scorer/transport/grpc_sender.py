# pyright: basic
"""OTLP/gRPC client: sends request bytes as they are, and tells what a failure means for them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import grpc

from otel_scorer.errors import PermanentError, RetryableError, TooLargeError, TransportError
from otel_scorer.transport.addresses import is_loopback
from otel_scorer.transport.exchange import GRPC_METHODS, Compression, TlsFiles
from otel_scorer.transport.responses import decode_success, retry_info_delay, status_retry_delay
from otel_scorer.transport.rotation import FromFiles
from otel_scorer.transport.tls import client_context, read_pem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.exchange import PartialSuccess

__all__ = ["GrpcSender"]

# OTLP specification, "OTLP/gRPC Response": the codes that a client may retry.
_RETRYABLE: Final = frozenset({
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
})  # fmt: skip
# What gRPC libraries, the Collector and backends call a request that is over their limit.
_TOO_LARGE: Final = ("larger than max", "too large", "exceeds maximum", "exceeds limit")
_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", 4 << 20),
    # The forwarder is the one layer that retries.
    ("grpc.enable_retries", 0),
    # A backend that comes back should not wait for gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
# gRPC would send to the proxy of the environment (http_proxy) what is meant for this machine.
_NO_PROXY: Final = ("grpc.enable_http_proxy", 0)


class GrpcSender:
    """
    Sends to one gRPC endpoint, over one connection.

    Args:
        target: `host:port`.
        secure: TLS.
        headers: Sent as metadata.
        compression: gzip at gRPC's own level.
        tls: Certificates for `secure`.

    Raises:
        ConfigError: A certificate cannot be read.
    """

    def __init__(
        self,
        target: str,
        *,
        secure: bool = False,
        headers: Mapping[str, str] | None = None,
        compression: Compression = Compression.NONE,
        tls: TlsFiles | None = None,
    ) -> None:
        self._target = target
        self._metadata = tuple((name.lower(), value) for name, value in (headers or {}).items())
        files = tls or TlsFiles()
        gzip = grpc.Compression.Gzip if compression is Compression.GZIP else None
        connect = partial(_Connection, target, gzip, files if secure else None)
        # Renewed certificates mean a new connection; calls on the way keep the old one alive until they are done.
        self._connection = FromFiles(
            f"certificates for {target}", files.paths if secure else (), connect, interval=files.reload_interval
        )

    def send(self, signal: Signal, data: bytes, timeout: float) -> PartialSuccess | None:
        """Send one request, as `exchange.Sender` says."""
        try:
            response: bytes = self._connection.current().exports[signal](data, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._meaning_of(error) from error
        except ValueError as error:
            # gRPC's way to say that close() came first.
            raise RetryableError(f"{self._target}: {error}", code="closed") from error
        return decode_success(response)

    def close(self) -> None:
        """Close the connection; a request on the way fails as CANCELLED."""
        self._connection.current().channel.close()

    def _meaning_of(self, error: grpc.RpcError) -> TransportError:
        if not isinstance(error, grpc.Call):
            return PermanentError(f"{self._target}: {error}", code="UNKNOWN")
        code = error.code()
        details = error.details() or ""
        message = f"{self._target} answered {code.name}: {details[:300]}"
        delay = _retry_delay(error)
        if code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None):
            return RetryableError(message, code=code.name, retry_after=delay)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and any(text in details.lower() for text in _TOO_LARGE):
            return TooLargeError(message, code=code.name)
        return PermanentError(message, code=code.name)


def _retry_delay(error: grpc.Call) -> float | None:
    """Read the retry hint from either trailer that servers put it in."""
    trailers = {str(name): value for name, value in error.trailing_metadata() or ()}
    status = trailers.get("grpc-status-details-bin")
    if isinstance(status, bytes) and (delay := status_retry_delay(status)) is not None:
        return delay
    hint = trailers.get("google.rpc.retryinfo-bin")
    return retry_info_delay(hint) if isinstance(hint, bytes) else None


class _Connection:
    """A channel, and what calls each signal's method on it."""

    def __init__(self, target: str, gzip: grpc.Compression | None, tls: TlsFiles | None) -> None:
        options = (*_OPTIONS, _NO_PROXY) if is_loopback(target.rpartition(":")[0]) else _OPTIONS
        if tls is None:
            self.channel = grpc.insecure_channel(target, options, gzip)
        else:
            client_context(tls)  # gRPC would not say what is wrong with a file
            credentials = grpc.ssl_channel_credentials(
                *(None if path is None else read_pem(path) for path in (tls.ca, tls.key, tls.certificate))
            )
            name = () if tls.server_name is None else (("grpc.ssl_target_name_override", tls.server_name),)
            self.channel = grpc.secure_channel(target, credentials, (*options, *name), gzip)
        self.exports = {signal: self.channel.unary_unary(method, None, None) for signal, method in GRPC_METHODS.items()}
