"""OTLP/HTTP server: uvicorn on a thread and an event loop of its own, requests handled on a small pool of threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_scorer.transport.admission import Admission
from otel_scorer.transport.exchange import MAX_REQUEST_SIZE, OnRequest
from otel_scorer.transport.http_app import HttpLimits, OtlpApp
from otel_scorer.transport.http_protocol import PatientProtocol
from otel_scorer.transport.http_server import AppServer
from otel_scorer.transport.rotation import FromFiles
from otel_scorer.transport.tls import server_context

if TYPE_CHECKING:
    from otel_scorer.transport.authentication import Authenticator
    from otel_scorer.transport.cors import Cors
    from otel_scorer.transport.exchange import ServerTls

__all__ = ["HttpReceiver"]

_THREADS: Final = 4
# Seconds for answers that are on their way to clients.
_LAST_WORDS: Final = 1.0
# Bodies in memory at once, in units of the largest one.
_BUFFERED_REQUESTS: Final = 4


class HttpReceiver:
    """
    Receives OTLP/HTTP, protobuf and JSON, for traces, logs and metrics.

    Args:
        address: `host:port`; port 0 takes a free one.
        on_request: Gets every request as protobuf bytes, on a thread of a pool.
        max_request_size: Bytes, before and after decompression.
        threads: How many requests are handled at once.
        limits: Instead of those that follow from `max_request_size`.
        header_timeout: Seconds for a client to send the headers of a request.
        tls: Certificates. None: plain text.
        authenticator: Who may send. None: everybody.
        cors: Which web pages may send. None: none.
    """

    def __init__(
        self,
        address: str,
        on_request: OnRequest,
        *,
        max_request_size: int = MAX_REQUEST_SIZE,
        threads: int = _THREADS,
        limits: HttpLimits | None = None,
        header_timeout: float = PatientProtocol.header_timeout,
        tls: ServerTls | None = None,
        authenticator: Authenticator | None = None,
        cors: Cors | None = None,
    ) -> None:
        self._address = address
        self._admission = Admission("http")
        self._pool = ThreadPoolExecutor(threads, "otel-scorer-http-receiver")
        limits = limits or HttpLimits(request_size=max_request_size, buffered=_BUFFERED_REQUESTS * max_request_size)
        self._app = OtlpApp(on_request, self._admission, self._pool, limits, authenticator=authenticator, cors=cors)
        contexts = None
        if tls is not None:
            contexts = FromFiles(
                "http certificates", tls.paths, partial(server_context, tls), interval=tls.reload_interval
            )
        self._server = AppServer(
            self._app, "otel-scorer-http-receiver", header_timeout=header_timeout, contexts=contexts
        )

    def start(self) -> str:
        """
        Listen, and return the bound `host:port`.

        Raises:
            ConfigError: The address cannot be had; `AddressInUseError` if somebody else has it.
        """
        return self._server.start(self._address)

    def drain(self, timeout: float) -> bool:
        """
        Give requests on the way `timeout` seconds. Once this returns, nothing more enters the pipeline.

        Until `shutdown`, what comes is answered with 503 and a hint when to send it again: not every client takes a
        refused connection for a reason to.

        Returns:
            Whether all of them were answered.
        """
        return self._app.drain(timeout)

    def shutdown(self, timeout: float) -> bool:
        """`drain`, then stop listening. Safe to call twice."""
        answered = self.drain(timeout)
        self._server.stop(_LAST_WORDS)
        self._pool.shutdown(wait=False, cancel_futures=True)
        return answered
