"""TLS in front of an asyncio protocol: each connection with the certificates of its moment, and failures counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from otel_scorer.telemetry import count

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from otel_scorer.transport.rotation import FromFiles

__all__ = ["TlsListener"]

_HANDSHAKE_TIMEOUT: Final = 10.0
_SHUTDOWN_TIMEOUT: Final = 5.0
# With no file descriptor left, accepting fails at once, again and again.
_PAUSE: Final = 1.0


class TlsListener:
    """
    Accepts connections on listening sockets.

    asyncio's own server keeps the context that it began with, waits a minute for a handshake, and tells nobody when one
    fails.

    Args:
        listeners: Non-blocking.
        make_protocol: Makes what speaks on a connection.
        contexts: The certificates; looked at for each connection.
    """

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        make_protocol: Callable[[], asyncio.Protocol],
        contexts: FromFiles[ssl.SSLContext],
    ) -> None:
        self._listeners = list(listeners)
        self._make_protocol = make_protocol
        self._contexts = contexts
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Accept from now on; on the event loop."""
        for listener in self._listeners:
            listener.settimeout(0)
            self._run(self._accept(listener))

    def close(self) -> None:
        """Accept nothing more, and give up handshakes; connections stay. Safe to call twice."""
        for task in self._tasks:
            task.cancel()
        for listener in self._listeners:
            listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except ConnectionError:  # a client that did not wait to be accepted
                continue
            except OSError:
                await asyncio.sleep(_PAUSE)
            else:
                self._run(self._secure(connection))

    async def _secure(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._make_protocol,
                connection,
                ssl=self._contexts.current(),
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT,
            )
        except OSError:
            count("receiver.handshakes_failed", protocol="http")

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
