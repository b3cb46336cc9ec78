"""A score API on loopback that answers as it is told, and keeps what it took."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

WAIT = 20.0


class Call(NamedTuple):
    """A request; a body that is said to be JSON is decoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Reply(NamedTuple):
    """What to answer; a body that is no bytes is sent as JSON. Without a status the connection is closed."""

    status: int | None = 200
    body: object = None
    headers: Mapping[str, str] | None = None


class ScoreServer:
    """
    Answers each request by what `answer` says.

    Attributes:
        answer: Told the request, on a thread of the server.
        calls: What was asked, in order.
    """

    def __init__(self, answer: Callable[[Call], Reply] = lambda call: Reply(200, {})) -> None:
        self.answer = answer
        self.calls: list[Call] = []
        self._changed = threading.Condition()  # guards `calls`
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_json = self.headers.get("Content-Type") == "application/json"
                body: Any = (json.loads(data) if is_json else data) if data else None
                call = Call(self.command, self.path, dict(self.headers), body)
                with server._changed:
                    server.calls.append(call)
                    server._changed.notify_all()
                reply = server.answer(call)
                if reply.status is None:
                    self.close_connection = True
                    return
                said = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(said)))
                for key, value in (reply.headers or {}).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(said)

            do_POST = do_GET = do_PATCH = _handle  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Clients that are gone are what some tests are about."""
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(request, client_address)  # type: ignore[arg-type]  # what it was given

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT), self.calls

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
