"""uvicorn as a component: one app on a listening socket, on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from otel_scorer.transport.addresses import listen, split_address, with_port
from otel_scorer.transport.http_protocol import PatientProtocol
from otel_scorer.transport.tls_listener import TlsListener

if TYPE_CHECKING:
    import socket
    import ssl

    from otel_scorer.transport.rotation import FromFiles

__all__ = ["AppServer"]

# Longer than the minute for which exporters keep a connection between two exports.
_KEEP_ALIVE: Final = 75
_MAX_HEADER_BYTES: Final = 16 << 10
_LAST_WORDS: Final = 2.0
# As often as the date in the headers changes.
_TICK: Final = 1.0


class AppServer(uvicorn.Server):
    """
    uvicorn without what belongs to a process of its own: logging set-up, signals, lifespan.

    Args:
        app: The ASGI application.
        name: Of the thread.
        header_timeout: Seconds for a client to send the headers of a request.
        contexts: Certificates. None: plain text.
    """

    def __init__(
        self,
        app: Any,
        name: str,
        *,
        header_timeout: float = PatientProtocol.header_timeout,
        contexts: FromFiles[ssl.SSLContext] | None = None,
    ) -> None:
        protocol = self._protocol = type("_Protocol", (PatientProtocol,), {"header_timeout": header_timeout})
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
        self._name = name
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._contexts = contexts
        self._tls: TlsListener | None = None

    def start(self, address: str) -> str:
        """
        Listen on `host:port` (port 0 takes a free one), and return the bound one once connections are accepted.

        Raises:
            ConfigError: The address cannot be had; `AddressInUseError` if somebody else has it.
        """
        host, _ = split_address(address)
        listener = listen(address)
        bound = with_port(host, listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run_on, args=(listener,), name=self._name, daemon=True)
        self._thread.start()
        self._ready.wait()
        return bound

    def _run_on(self, listener: socket.socket) -> None:
        """Serve until stopped; the body of the thread."""
        try:
            asyncio.run(self.serve(sockets=[listener]))
        finally:
            self._ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Note the loop, and tell who waits that connections are accepted."""
        self._loop = asyncio.get_running_loop()
        if self._contexts is None or sockets is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._tls = TlsListener(sockets, self._make_protocol, self._contexts)
            self._tls.start()
        self._ready.set()

    async def main_loop(self) -> None:
        """Look whether to stop when told so, and every second: uvicorn looks ten times as often, busy or not."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new connections, and let those that are there end."""
        if self._tls is not None:
            self._tls.close()
        await super().shutdown(sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        # As uvicorn's own startup does.
        made: asyncio.Protocol = self._protocol(self.config, self.server_state, app_state={}, _loop=self._loop)
        return made

    def stop(self, timeout: float) -> bool:
        """
        Stop, giving requests on the way `timeout` seconds. Safe to call twice, and without `start`.

        Returns:
            Whether all of them were answered.
        """
        self.config.timeout_graceful_shutdown = math.ceil(timeout)
        self.should_exit = True
        if self._thread is None:
            return True
        # The loop may be closed already.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
        # uvicorn rounds the grace up to seconds.
        self._thread.join(timeout + _LAST_WORDS)
        return not self._thread.is_alive()
