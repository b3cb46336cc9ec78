"""OTLP/HTTP as an ASGI application: checks a request, reads its body within limits, answers in the client's encoding."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import OverloadedError, RequestError, RequestTooLargeError
from otel_scorer.model.otlp_json import decode_request
from otel_scorer.transport.compression import ENCODINGS, inflate
from otel_scorer.transport.exchange import HTTP_PATHS, OnRequest, PartialSuccess
from otel_scorer.transport.responses import UNKNOWN, Refusal, encode_success, refusal, success_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor

    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.admission import Admission

__all__ = ["HttpLimits", "OtlpApp"]

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_SIGNALS: Final = {path: signal for signal, path in HTTP_PATHS.items()}

_NOT_FOUND: Final = Refusal(UNKNOWN, 404, f"No such path; OTLP/HTTP has {', '.join(_SIGNALS)}")
_NOT_POST: Final = Refusal(UNKNOWN, 405, "OTLP/HTTP requests are sent with POST", headers=(("allow", "POST"),))
_NO_CONTENT_TYPE: Final = Refusal(UNKNOWN, 415, f"The Content-Type must be {_PROTOBUF} or {_JSON}")
_MANY_HEADERS: Final = Refusal(UNKNOWN, 431, "Too many headers", headers=(("connection", "close"),))
_SLOW_BODY: Final = Refusal(UNKNOWN, 408, "The body came too slowly", headers=(("connection", "close"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """
    What clients may ask of us.

    Attributes:
        request_size: Bytes of a body, before and after decompression.
        buffered: Bytes of all bodies being read or handled; over it, requests are refused with a retry hint.
        headers: How many headers a request may have.
        body_timeout: Seconds to send a body, and one more for every `body_rate` bytes that came.
        body_rate: Bytes.
    """

    request_size: int
    buffered: int
    headers: int = 100
    body_timeout: float = 20.0
    body_rate: int = 50_000


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class _DisconnectedError(Exception):
    """The client went away: nobody waits for an answer."""


class OtlpApp:
    """Serves the three paths of OTLP/HTTP; `on_request` runs on the threads of `pool`, never on the event loop."""

    def __init__(self, on_request: OnRequest, admission: Admission, pool: Executor, limits: HttpLimits) -> None:
        self.accepting = True
        """Set to False to refuse requests that have not begun."""
        self._on_request = on_request
        self._admission = admission
        self._pool = pool
        self._limits = limits
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except _DisconnectedError:
            return
        fields = [
            ("content-type", response.content_type), ("content-length", str(len(response.body))), *response.headers
        ]  # fmt: skip
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        await send({"type": "http.response.start", "status": response.status, "headers": headers, "trailers": False})
        await send({"type": "http.response.body", "body": response.body, "more_body": False})

    async def _respond(self, scope: HTTPScope, receive: ASGIReceiveCallable) -> _Response:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        signal = _SIGNALS.get(scope["path"])
        if signal is None:
            return _error(_NOT_FOUND, content_type)
        refused = self._refusal_of(scope, headers, content_type)
        if refused is None:
            encoding = headers.get("content-encoding", "").strip().lower()
            answer = await self._take(signal, receive, encoding, content_type)
            if not isinstance(answer, Refusal):
                body = success_json(signal, answer) if content_type == _JSON else encode_success(answer)
                return _Response(200, content_type, body)
            return _error(answer, content_type)
        self._admission.count(signal, refused)
        return _error(refused, content_type)

    def _refusal_of(self, scope: HTTPScope, headers: Mapping[str, str], content_type: str) -> Refusal | None:
        """Return what is wrong with a request before its body is looked at."""
        if scope["method"] != "POST":
            return _NOT_POST
        if len(headers) > self._limits.headers:
            return _MANY_HEADERS
        if content_type not in {_PROTOBUF, _JSON}:
            return _NO_CONTENT_TYPE
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ENCODINGS:
            return refusal_of_encoding(encoding)
        if not self.accepting:
            return refusal(OverloadedError("Shutting down"))
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.request_size:
            return refusal(self._too_large())
        return None

    async def _take(
        self, signal: Signal, receive: ASGIReceiveCallable, encoding: str, content_type: str
    ) -> PartialSuccess | Refusal | None:
        parts: list[bytes] = []
        try:
            await self._read(receive, parts)
            body = b"".join(parts)
            job = self._admission.answer
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, job, signal, lambda: self._handle(signal, inflate(body, encoding, self._limits.request_size))
            )
        finally:
            self._buffered -= sum(map(len, parts))
