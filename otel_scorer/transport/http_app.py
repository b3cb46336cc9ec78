"""OTLP/HTTP as an ASGI application: checks requests, reads bodies within limits, answers in the client's encoding."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import OverloadedError, RequestTooLargeError
from otel_scorer.model.otlp_json import decode_request
from otel_scorer.transport.compression import ENCODINGS, inflate
from otel_scorer.transport.exchange import HTTP_PATHS, OnRequest, PartialSuccess
from otel_scorer.transport.responses import (
    DEADLINE_EXCEEDED,
    INVALID_ARGUMENT,
    NOT_FOUND,
    Refusal,
    encode_success,
    refusal,
    success_json,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.admission import Admission
    from otel_scorer.transport.authentication import Authenticator
    from otel_scorer.transport.cors import Cors

__all__ = ["HttpLimits", "OtlpApp"]

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_NO_CONTENT: Final = 204
_SIGNALS: Final = {path: signal for signal, path in HTTP_PATHS.items()}

_NO_PATH: Final = Refusal(NOT_FOUND, 404, f"No such path; OTLP/HTTP has {', '.join(_SIGNALS)}")
_NOT_POST: Final = Refusal(INVALID_ARGUMENT, 405, "OTLP/HTTP requests are sent with POST", headers=(("allow", "POST"),))
_NO_CONTENT_TYPE: Final = Refusal(INVALID_ARGUMENT, 415, f"The Content-Type must be {_PROTOBUF} or {_JSON}")
_NO_ENCODING: Final = Refusal(
    INVALID_ARGUMENT, 400, f"The Content-Encoding must be one of {', '.join(filter(None, ENCODINGS))}"
)
_CLOSE: Final = (("connection", "close"),)
_MANY_HEADERS: Final = Refusal(INVALID_ARGUMENT, 431, "Too many headers, or too large ones", headers=_CLOSE)
_SLOW_BODY: Final = Refusal(DEADLINE_EXCEEDED, 408, "The body came too slowly", "too_slow", headers=_CLOSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """
    What clients may ask of us.

    Attributes:
        request_size: Bytes of a body, before and after decompression.
        buffered: Bytes of all bodies being read or handled; over it, requests are refused with a retry hint.
        headers: How many headers a request may have.
        header_bytes: And how large they may be together.
        body_timeout: Seconds to send a body, and one more for every `body_rate` bytes that came.
        body_rate: Bytes.
        drained: Bytes of a refused body that are read and thrown away: many clients look for an answer only when they
            have sent everything, and see nothing but a reset connection if that fails.
        drain_timeout: Seconds for that.
    """

    request_size: int
    buffered: int
    headers: int = 100
    header_bytes: int = 16 << 10
    body_timeout: float = 20.0
    body_rate: int = 50_000
    drained: int = 256 << 20
    drain_timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class _Format:
    """How a body is written."""

    content_type: str
    encoding: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> _Format:
        content_type = headers.get("content-type", "").partition(";")[0]
        return cls(content_type.strip().lower(), headers.get("content-encoding", "").strip().lower())


class _Body:
    """A body on its way in; `size` stays when the parts are gone."""

    __slots__ = ("is_complete", "parts", "receive", "size")

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self.receive = receive
        self.parts: list[bytes] = []
        self.size = 0
        self.is_complete = False


class _DisconnectedError(Exception):
    """The client went away: nobody waits for an answer."""


class OtlpApp:
    """
    Serves the three paths of OTLP/HTTP.

    Args:
        on_request: Runs on the threads of `pool`, never on the event loop.
        admission: The door to it.
        pool: Threads.
        limits: What clients may ask of us.
        authenticator: Who may send. None: everybody.
        cors: Which web pages may send. None: none.
    """

    def __init__(
        self,
        on_request: OnRequest,
        admission: Admission,
        pool: Executor,
        limits: HttpLimits,
        *,
        authenticator: Authenticator | None = None,
        cors: Cors | None = None,
    ) -> None:
        self._on_request = on_request
        self._admission = admission
        self._pool = pool
        self._limits = limits
        self._authenticator = authenticator
        self._cors = cors
        self._buffered = 0
        self._accepting = True
        self._inside = 0
        self._left = threading.Condition()  # guards _inside; notified when it falls

    def drain(self, timeout: float) -> bool:
        """
        Refuse requests that have not begun, to be sent again, and wait for the others; on any thread but the loop's.

        Returns:
            Whether all of them were answered within `timeout` seconds.
        """
        self._accepting = False
        deadline = time.monotonic() + timeout
        with self._left:
            self._left.wait_for(lambda: not self._inside, timeout)
        # Bodies that are still on their way, and anything that slipped in, find the door closed.
        return self._admission.close(max(0.0, deadline - time.monotonic()))

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        written = _Format.of(headers)
        signal = _SIGNALS.get(scope["path"])
        if self._cors is not None and signal is not None and scope["method"] == "OPTIONS":
            await _send(send, _NO_CONTENT, self._cors.preflight(headers))
            return
        fields = () if self._cors is None else self._cors.answer(headers)
        body = _Body(receive)
        try:
            answer = _NO_PATH if signal is None else await self._answer(signal, scope, headers, written, body)
        except _DisconnectedError:
            return
        if isinstance(answer, Refusal):
            await _send_refusal(send, answer, written.content_type, fields)
            # Who asked whether to send the body has got the answer to that.
            if not body.is_complete and answer is not _SLOW_BODY and "expect" not in headers:
                await self._drain(body)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif signal is not None:
            data = success_json(signal, answer) if written.content_type == _JSON else encode_success(answer)
            await _send(send, 200, (("content-type", written.content_type), *fields), data)

    async def _answer(
        self,
        signal: Signal,
        scope: HTTPScope,
        headers: Mapping[str, str],
        written: _Format,
        body: _Body,
    ) -> PartialSuccess | Refusal | None:
        refused = self._stranger(headers) or self._refusal_of(scope, headers, written)
        if refused is not None:
            self._admission.count(signal, refused)
            return refused
        with self._left:
            self._inside += 1
        try:
            if (refused := await self._read(body)) is not None:
                self._admission.count(signal, refused)
                return refused
            handle = partial(self._handle, signal, body.parts, written)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, self._admission.answer, signal, handle)
        finally:
            self._buffered -= body.size
            with self._left:
                self._inside -= 1
                self._left.notify_all()

    def _stranger(self, headers: Mapping[str, str]) -> Refusal | None:
        if self._authenticator is None:
            return None
        return self._authenticator.refusal_of(headers.get("authorization"))

    def _refusal_of(self, scope: HTTPScope, headers: Mapping[str, str], written: _Format) -> Refusal | None:
        """Return what is wrong with a request, before its body is looked at."""
        if scope["method"] != "POST":
            return _NOT_POST
        sizes = [len(name) + len(value) for name, value in scope["headers"]]
        if len(sizes) > self._limits.headers or sum(sizes) > self._limits.header_bytes:
            return _MANY_HEADERS
        if written.content_type not in {_PROTOBUF, _JSON}:
            return _NO_CONTENT_TYPE
        if written.encoding not in ENCODINGS:
            return _NO_ENCODING
        if not self._accepting:
            return replace(refusal(OverloadedError("Shutting down")), headers=_CLOSE)
        length = headers.get("content-length", "")
        return self._too_large() if length.isdecimal() and int(length) > self._limits.request_size else None

    async def _read(self, body: _Body) -> Refusal | None:
        """Read the body, or return why not."""
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._limits.body_timeout) as patience:
                while True:
                    message = await body.receive()
                    if message["type"] != "http.request":
                        raise _DisconnectedError
                    body.is_complete = not message["more_body"]
                    part = message["body"]
                    if body.size + len(part) > self._limits.request_size:
                        return self._too_large()
                    if self._buffered + len(part) > self._limits.buffered:
                        return refusal(OverloadedError("Too many requests at once"))
                    body.parts.append(part)
                    body.size += len(part)
                    self._buffered += len(part)
                    if body.is_complete:
                        return None
                    patience.reschedule(started + self._limits.body_timeout + body.size / self._limits.body_rate)
        except TimeoutError:
            return _SLOW_BODY

    async def _drain(self, body: _Body) -> None:
        """Throw away the rest of a refused body, up to a limit."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.drain_timeout):
                while size <= self._limits.drained:
                    message = await body.receive()
                    if message["type"] != "http.request" or not message["more_body"]:
                        return
                    size += len(message["body"])

    def _handle(self, signal: Signal, parts: list[bytes], written: _Format) -> PartialSuccess | None:
        """Decode the body and pass it on; on a thread of the pool."""
        body = b"".join(parts)
        parts.clear()
        data = inflate(body, written.encoding, self._limits.request_size)
        if written.content_type != _JSON:
            return self._on_request(signal, data)
        request = decode_request(signal, data)
        later = self._on_request(signal, request.data) or PartialSuccess(0)
        message = "; ".join(filter(None, (request.message, later.message)))
        return PartialSuccess(request.rejected + later.rejected, message)

    def _too_large(self) -> Refusal:
        return refusal(RequestTooLargeError(f"The request is larger than {self._limits.request_size} bytes"))


async def _send_refusal(
    send: ASGISendCallable, answer: Refusal, content_type: str, fields: tuple[tuple[str, str], ...]
) -> None:
    """
    Send a google.rpc.Status in the encoding of the request; JSON, which people can read, if that had none.

    The message has to be ended.
    """
    encoding, body = (_PROTOBUF, answer.status()) if content_type == _PROTOBUF else (_JSON, answer.status_json())
    fields = (("content-type", encoding), *answer.headers, *fields)
    if (seconds := answer.retry_after_header()) is not None:
        fields = (*fields, ("retry-after", seconds))
    await _send(send, answer.http_status, fields, body, more=True)


async def _send(
    send: ASGISendCallable, status: int, fields: tuple[tuple[str, str], ...], body: bytes = b"", *, more: bool = False
) -> None:
    if status != _NO_CONTENT:
        fields = (("content-length", str(len(body))), *fields)
    await send({
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields],
        "trailers": False,
    })  # fmt: skip
    await send({"type": "http.response.body", "body": body, "more_body": more})
