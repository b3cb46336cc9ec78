"""The sidecar's own small HTTP endpoint: `GET /health` for whoever restarts it, `GET /` for whoever looks after it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Final

from otel_scorer import telemetry
from otel_scorer.transport.addresses import listen, split_address, with_port
from otel_scorer.transport.http_server import AppServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["HealthServer"]

_OK: Final = 200


class HealthServer:
    """
    Answers `GET /health` with 200 while the process is able to, and `GET /` with the counters, both as JSON.

    Args:
        address: `host:port`; port 0 takes a free one.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._server = AppServer(_answer)
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """
        Listen, and return the bound `host:port`.

        Raises:
            ConfigError: The address cannot be had; `AddressInUseError` if somebody else has it.
        """
        host, _ = split_address(self._address)
        listener = listen(self._address)
        bound = with_port(host, listener.getsockname()[1])
        self._thread = threading.Thread(
            target=self._server.run_on, args=(listener,), name="otel-scorer-health", daemon=True
        )
        self._thread.start()
        return bound

    def shutdown(self, timeout: float) -> None:
        """Stop answering, within `timeout` seconds."""
        self._server.stop(timeout)
        if self._thread is not None:
            self._thread.join(timeout)


async def _answer(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    del receive
    path, method = scope["path"], scope["method"]
    known = {"/health": {"status": "ok"}, "/": {"status": "ok", "counters": telemetry.snapshot()}}
    status = 404 if path not in known else _OK if method in {"GET", "HEAD"} else 405
    body = json.dumps(known[path] if status == _OK else {"status": "error"}, indent=2).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
