"""uvicorn as a component: one app on a listening socket, on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from otel_scorer.transport.http_protocol import PatientProtocol

if TYPE_CHECKING:
    import socket

__all__ = ["AppServer"]

# Longer than the minute for which exporters keep a connection between two exports.
_KEEP_ALIVE: Final = 75
_MAX_HEADER_BYTES: Final = 16 << 10


class AppServer(uvicorn.Server):
    """uvicorn without what belongs to a process of its own: logging set-up, signals, lifespan."""

    def __init__(self, app: Any, header_timeout: float = PatientProtocol.header_timeout) -> None:
        protocol = type("_Protocol", (PatientProtocol,), {"header_timeout": header_timeout})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        )
        super().__init__(config)
        self.ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run_on(self, listener: socket.socket) -> None:
        """Serve until stopped; the body of the server's thread."""
        try:
            asyncio.run(self.serve(sockets=[listener]))
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Note the loop, and tell who waits that connections are accepted."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    def close_listeners(self) -> None:
        """Refuse new connections."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close_listeners)

    def _close_listeners(self) -> None:
        for server in self.servers:
            server.close()

    def stop(self, timeout: float) -> None:
        """Stop within `timeout` seconds."""
        self.config.timeout_graceful_shutdown = math.ceil(timeout)
        self.should_exit = True
