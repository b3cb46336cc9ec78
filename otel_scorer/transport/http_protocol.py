"""uvicorn's HTTP/1.1 connection: limits on how slowly a client may speak or listen, and on what it sends ahead."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from otel_scorer.transport.responses import INVALID_ARGUMENT, Refusal

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

__all__ = ["PatientProtocol"]

_MAX_HEADER_BYTES: Final = 16 << 10
_FRAMING: Final = {b"content-length", b"transfer-encoding"}


class _StrictConnection(h11.Connection):
    """
    Takes no request that says twice how long its body is.

    A proxy in front may believe the other one, and take for a body what is the next request here, or the reverse
    (request smuggling; RFC 9112, section 6.1).
    """

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """Return the next event; raise h11.RemoteProtocolError if there is none to be had."""
        event = super().next_event()
        if isinstance(event, h11.Request) and {name for name, _ in event.headers} >= _FRAMING:
            raise h11.RemoteProtocolError("Content-Length beside Transfer-Encoding")
        return event


class _Flow(FlowControl):
    """
    Reads on only where more of a request is to come.

    uvicorn reads on for every request that it hands over, and keeps what comes: a client that sends thousands ahead
    would have us hold them all.
    """

    def __init__(self, transport: asyncio.Transport, conn: h11.Connection) -> None:
        super().__init__(transport)
        self._conn = conn

    def resume_reading(self) -> None:
        """Read on, unless what would come is for later."""
        if self._conn.their_state in {h11.IDLE, h11.SEND_BODY}:
            super().resume_reading()


class PatientProtocol(H11Protocol):
    """
    Closes connections that take too long to send their headers, to finish a body that was refused already, or to read.

    uvicorn itself only limits how long a connection may idle between requests. How long a body may take is up to the
    application (`http_app`).
    """

    header_timeout = 10.0
    """Seconds from the connection, or the first byte of a later request, to the end of its headers."""
    linger_timeout = 5.0
    """Seconds for which a refused body is read on, so that the client gets to see the answer instead of a reset."""

    read_timeout = 30.0
    """Seconds for a client to read answers, once as many wait as are kept for it."""

    _patience: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _StrictConnection(h11.SERVER, config.h11_max_incomplete_event_size or _MAX_HEADER_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start waiting for the first request."""
        if isinstance(transport, asyncio.Transport):
            super().connection_made(transport)
            self.flow = _Flow(transport, self.conn)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._rest()
        self._forgive()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and see what the client owes us now."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on to the next request, or see whether this one is still being sent."""
        super().on_response_complete()
        self.flow.resume_reading()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answers, but not for ever."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.read_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._forgive()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request; as OTLP asks, with a google.rpc.Status, unless its answer has begun."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = Refusal(INVALID_ARGUMENT, 400, msg).status_json()
            fields = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            for event in (h11.Response(status_code=400, headers=fields), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """Keep a timer running while the client owes us bytes; one timer per debt, whatever trickles in."""
        state = self.conn.their_state
        if self.transport.is_closing():
            self._rest()
            return
        if state is h11.IDLE and self.timeout_keep_alive_task is None:
            timeout = self.header_timeout
        elif state is h11.SEND_BODY and self.cycle.response_complete:
            timeout = self.linger_timeout
        else:
            self._rest()
            return
        if self._patience is None:
            self._patience = self.loop.call_later(timeout, self.transport.abort)

    def _forgive(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _rest(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
