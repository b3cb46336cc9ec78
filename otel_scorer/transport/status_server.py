"""The sidecar's own small HTTP server: answers GET from one callable, and knows who is near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.transport.addresses import is_loopback
from otel_scorer.transport.http_server import AppServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

__all__ = ["Answer", "OnQuestion", "Question", "StatusServer"]

# A proxy on this machine passes on what may come from anywhere.
_FORWARDING: Final = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"})


@dataclass(frozen=True, slots=True)
class Question:
    """
    One GET request.

    Attributes:
        path: Without query.
        accept: The `Accept` header.
        is_near: Somebody on this machine asks for a name of this machine: not a machine in the network, and not the
            page of a stranger whose name has come to mean this address (DNS rebinding).
    """

    path: str
    accept: str
    is_near: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered; `policy` is the content security policy of a page."""

    body: bytes
    content_type: str = "application/json"
    status: int = 200
    policy: str = "default-src 'none'"


OnQuestion: TypeAlias = Callable[[Question], Answer]
"""Answers on the server's event loop: must not block. Never called for anything but GET and HEAD."""

_NOT_GET: Final = Answer(b"Only GET\n", "text/plain; charset=utf-8", 405)


class StatusServer:
    """
    Serves one callable over HTTP.

    Args:
        address: `host:port`; port 0 takes a free one.
        on_question: Makes the answers.
    """

    def __init__(self, address: str, on_question: OnQuestion) -> None:
        self._address = address
        self._server = AppServer(_App(on_question), "otel-scorer-status")

    def start(self) -> str:
        """
        Listen, and return the bound `host:port`.

        Raises:
            ConfigError: The address cannot be had; `AddressInUseError` if somebody else has it.
        """
        return self._server.start(self._address)

    def shutdown(self, timeout: float) -> None:
        """Stop answering, within `timeout` seconds."""
        self._server.stop(timeout)


class _App:
    """The ASGI application around the callable."""

    def __init__(self, on_question: OnQuestion) -> None:
        self._on_question = on_question

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer one request (ASGI 3)."""
        del receive
        if scope["type"] != "http":
            return
        answer = _NOT_GET
        if scope["method"] in {"GET", "HEAD"}:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            answer = self._on_question(
                Question(scope["path"], headers.get("accept", ""), is_near=_is_near(scope, headers))
            )
        fields = {
            "content-type": answer.content_type,
            "content-length": str(len(answer.body)),
            "cache-control": "no-store",
            "content-security-policy": f"{answer.policy}; frame-ancestors 'none'",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "same-origin",
        }
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded, "trailers": False})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_near(scope: HTTPScope, headers: Mapping[str, str]) -> bool:
    client = scope["client"]
    if client is None or not is_loopback(client[0]) or _FORWARDING & headers.keys():
        return False
    host = headers.get("host", "").rstrip(".")
    name = host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(name)
