# pyright: basic
"""OTLP/gRPC server: takes the bytes of each request as they came and gives them to the pipeline."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Final

import grpc

from otel_scorer.errors import ConfigError, InvalidRequestError
from otel_scorer.transport.addresses import listen, split_address, with_port
from otel_scorer.transport.admission import Admission
from otel_scorer.transport.exchange import GRPC_METHODS, MAX_REQUEST_SIZE, OnRequest
from otel_scorer.transport.grpc_health import health_handler
from otel_scorer.transport.grpc_patience import Patience
from otel_scorer.transport.responses import Refusal, encode_success
from otel_scorer.transport.rotation import FromFiles
from otel_scorer.transport.tls import read_pem, server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.authentication import Authenticator
    from otel_scorer.transport.exchange import ServerTls

__all__ = ["GrpcReceiver"]

# Measured: if 8 threads handle requests, a span costs a third more CPU, lost on handing the interpreter around.
_THREADS: Final = 2
# Longer than exporters wait for an answer.
_MESSAGE_TIMEOUT: Final = 30.0
_HANDSHAKE_TIMEOUT: Final = 10.0
# Clients ping every 10 s when told to; gRPC's default calls more than one per 5 min abuse and drops the connection.
_MIN_PING_INTERVAL_MS: Final = 5_000
# More wait at the client instead of in our memory. Streams that a client opens before it knows of the limit are refused
# (as UNAVAILABLE), so it is above what any exporter has on the way.
_MAX_CONCURRENT_STREAMS: Final = 1024
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class GrpcReceiver:
    """
    Receives OTLP/gRPC for traces, logs and metrics.

    Args:
        address: `host:port`; port 0 takes a free one.
        on_request: Gets the bytes of every request, on one of the server's threads.
        max_request_size: Bytes, before and after decompression.
        threads: How many requests are handled at once.
        message_timeout: Seconds for a client to send the message of a call.
        handshake_timeout: Seconds from a connection to the end of its handshakes, TLS and HTTP/2.
        tls: Certificates. None: plain text.
        authenticator: Who may send. None: everybody.

    Raises:
        ConfigError: A certificate cannot be used.
    """

    def __init__(
        self,
        address: str,
        on_request: OnRequest,
        *,
        max_request_size: int = MAX_REQUEST_SIZE,
        threads: int = _THREADS,
        message_timeout: float = _MESSAGE_TIMEOUT,
        handshake_timeout: float = _HANDSHAKE_TIMEOUT,
        tls: ServerTls | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        self._address = address
        self._credentials = None if tls is None else _credentials(tls)
        self._on_request = on_request
        self._admission = Admission("grpc")
        self._handling = threading.Semaphore(threads)
        self._patience = Patience(threads, message_timeout)
        self._server = grpc.server(
            self._patience.pool,  # type: ignore[arg-type]  # any executor does, its stubs name one
            handlers=[_Methods(self._export, self._admission, authenticator), health_handler()],
            options=[
                ("grpc.max_receive_message_length", max_request_size),
                ("grpc.max_concurrent_streams", _MAX_CONCURRENT_STREAMS),
                ("grpc.so_reuseport", 0),
                ("grpc.server_handshake_timeout_ms", int(handshake_timeout * 1000)),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
            ],
        )

    def start(self) -> str:
        """
        Listen, and return the bound `host:port`.

        Raises:
            ConfigError: The address cannot be had; `AddressInUseError` if somebody else has it.
        """
        host, port = split_address(self._address)
        if port:
            # gRPC does not say why it cannot have a port, and writes to standard error; a plain socket says it.
            listen(self._address).close()
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(with_port(host, port))
            else:
                port = self._server.add_secure_port(with_port(host, port), self._credentials)
        except RuntimeError as error:
            raise ConfigError(f"Cannot listen on {self._address}: {error}") from error
        self._server.start()
        self._patience.start()
        return with_port(host, port)

    def drain(self, timeout: float) -> bool:
        """
        Stop, giving requests on the way `timeout` seconds. Once this returns, nothing more enters the pipeline.

        Clients take a connection that is refused for UNAVAILABLE, and send again. Safe to call twice.

        Returns:
            Whether all of them were answered.
        """
        stopped = self._server.stop(grace=timeout)
        answered = stopped.wait(timeout + 1.0)
        self._patience.stop()
        return self._admission.close(timeout=0.0) and answered

    def shutdown(self, timeout: float) -> bool:
        """`drain`: nothing is left to stop then."""
        return self.drain(timeout)

    def _export(self, signal: Signal, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        data = self._patience.message_of(messages, context)
        with self._handling:
            if not context.is_active():
                return b""  # the client gave up meanwhile
            answer = self._admission.answer(signal, lambda: self._on_request(signal, _required(data)))
        if isinstance(answer, Refusal):
            _refuse(context, answer)
            return b""
        return encode_success(answer)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """
    Routes the methods of OTLP, with bytes in and out; gRPC answers UNIMPLEMENTED to everything else.

    They take streams, of which the one message of an OTLP call is a case: only then gRPC lets us do something before
    that message is there, such as limiting how long we wait for it.
    """

    def __init__(
        self,
        export: Callable[[Signal, Iterator[bytes], grpc.ServicerContext], bytes],
        admission: Admission,
        authenticator: Authenticator | None,
    ) -> None:
        self._calls = {
            method: (signal, grpc.stream_unary_rpc_method_handler(partial(export, signal)))
            for signal, method in GRPC_METHODS.items()
        }
        self._admission = admission
        self._authenticator = authenticator

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return what handles a call, of which only the headers are known yet."""
        signal, call = self._calls.get(handler_call_details.method, (None, None))
        if signal is None or self._authenticator is None:
            return call
        headers = dict(handler_call_details.invocation_metadata)
        given = headers.get("authorization")
        refused = self._authenticator.refusal_of(given if isinstance(given, str) else None)
        if refused is None:
            return call
        self._admission.count(signal, refused)
        # What strangers send is not read.
        return grpc.stream_unary_rpc_method_handler(partial(_refuse_stream, refused))


def _required(message: bytes | None) -> bytes:
    if message is None:
        raise InvalidRequestError("A request needs one message")
    return message


def _refuse_stream(refused: Refusal, messages: object, context: grpc.ServicerContext) -> bytes:
    del messages
    _refuse(context, refused)
    return b""


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return what asks for the certificates again at every handshake; gRPC takes TLS 1.2 and 1.3."""

    def read() -> grpc.ServerCertificateConfiguration:
        server_context(tls)  # gRPC would not say what is wrong with a file
        pair = read_pem(tls.key), read_pem(tls.certificate)
        client_ca = None if tls.client_ca is None else read_pem(tls.client_ca)
        return grpc.ssl_server_certificate_configuration([pair], client_ca)

    files = FromFiles("grpc certificates", tls.paths, read, interval=tls.reload_interval)
    return grpc.dynamic_ssl_server_credentials(
        files.current(), files.current, require_client_authentication=tls.client_ca is not None
    )


def _refuse(context: grpc.ServicerContext, answer: Refusal) -> None:
    trailers = [("grpc-status-details-bin", answer.status())]
    hint = answer.retry_info()
    if hint is not None:
        # What the Python exporter looks at; everybody else reads the details above.
        trailers.append(("google.rpc.retryinfo-bin", hint))
    context.set_trailing_metadata(tuple(trailers))
    context.set_code(_CODES[answer.code])
    context.set_details(answer.message[:500])
