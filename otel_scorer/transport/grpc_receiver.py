# pyright: basic
"""OTLP/gRPC server: takes the bytes of each request as they came and gives them to the pipeline."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import grpc

from otel_scorer.errors import ConfigError
from otel_scorer.transport.addresses import listen, split_address, with_port
from otel_scorer.transport.admission import Admission
from otel_scorer.transport.exchange import GRPC_METHODS, MAX_REQUEST_SIZE, OnRequest
from otel_scorer.transport.responses import Refusal, encode_success

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.wire import Signal

__all__ = ["GrpcReceiver"]

# Measured: with 8 threads a span costs a third more CPU, lost on handing the interpreter around.
_THREADS: Final = 2
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
    """

    def __init__(
        self,
        address: str,
        on_request: OnRequest,
        *,
        max_request_size: int = MAX_REQUEST_SIZE,
        threads: int = _THREADS,
    ) -> None:
        self._address = address
        self._on_request = on_request
        self._admission = Admission("grpc")
        self._pool = ThreadPoolExecutor(threads, "otel-scorer-grpc-receiver")
        self._server = grpc.server(
            self._pool,
            handlers=[_handler_of(method, signal, self._export) for signal, method in GRPC_METHODS.items()],
            options=[
                ("grpc.max_receive_message_length", max_request_size),
                ("grpc.max_concurrent_streams", _MAX_CONCURRENT_STREAMS),
                ("grpc.so_reuseport", 0),
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
        try:
            port = self._server.add_insecure_port(with_port(host, port))
        except RuntimeError as error:
            # gRPC does not say why. A plain socket does; if it can bind after all, the port was only just freed.
            listen(self._address).close()
            raise ConfigError(f"Cannot listen on {self._address}: {error}") from error
        self._server.start()
        return with_port(host, port)

    def stop_accepting(self) -> None:
        """Refuse what comes from now on; requests on the way are still answered."""
        self._server.stop(grace=_LONG)

    def shutdown(self, timeout: float) -> bool:
        """
        Stop, giving requests on the way `timeout` seconds. Once this returns, nothing more enters the pipeline.

        Returns:
            Whether all of them were answered.
        """
        stopped = self._server.stop(grace=timeout)
        answered = stopped.wait(timeout + 1.0)
        self._pool.shutdown(wait=False, cancel_futures=True)
        return self._admission.close(timeout=0.0) and answered

    def _export(self, signal: Signal, data: bytes, context: grpc.ServicerContext) -> bytes:
        # gRPC does not call this for a client that gave up while its request was waiting for a thread.
        answer = self._admission.answer(signal, lambda: self._on_request(signal, data))
        if isinstance(answer, Refusal):
            _refuse(context, answer)
            return b""
        return encode_success(answer)


_LONG: Final = 3600.0


def _handler_of(
    method: str, signal: Signal, export: Callable[[Signal, bytes, grpc.ServicerContext], bytes]
) -> grpc.GenericRpcHandler[bytes, bytes]:
    """Route one method with bytes in and out; gRPC answers UNIMPLEMENTED to everything else."""
    _, service, name = method.split("/")
    call = grpc.unary_unary_rpc_method_handler(lambda data, context: export(signal, data, context))
    return grpc.method_handlers_generic_handler(service, {name: call})


def _refuse(context: grpc.ServicerContext, answer: Refusal) -> None:
    trailers = [("grpc-status-details-bin", answer.status())]
    hint = answer.retry_info()
    if hint is not None:
        # What the Python exporter looks at; everybody else reads the details above.
        trailers.append(("google.rpc.retryinfo-bin", hint))
    context.set_trailing_metadata(tuple(trailers))
    context.set_code(_CODES[answer.code])
    context.set_details(answer.message[:500])
