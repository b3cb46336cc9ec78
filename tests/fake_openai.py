"""A server on this machine that speaks OpenAI's API as far as a chat completion, and does what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["FakeOpenAI"]


class FakeOpenAI:
    """
    Answers chat completions.

    Args:
        reply: Takes the text of the last message and returns what the model says, an HTTP status other than 200, or
            None: then there is no answer at all until the server is closed.

    Attributes:
        requests: Headers (names in small letters) and bodies of what came.
    """

    def __init__(self, reply: Callable[[str], str | int | None]) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self._closed = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # the name that http.server calls
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                headers = {key.lower(): value for key, value in self.headers.items()}
                outer.requests.append((headers, body))
                said = reply(body["messages"][-1]["content"])
                if said is None:
                    outer._closed.wait(60)
                    self.close_connection = True
                elif isinstance(said, int):
                    # As some servers do, with the key that it got.
                    self._send(said, {"error": {"message": f"no: {headers['authorization']}", "type": "refused"}})
                else:
                    self._send(200, completion(body["model"], said))

            def _send(self, status: int, answer: dict[str, Any]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL must be."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def keys(self) -> set[str]:
        """The keys that requests came with."""
        return {headers["authorization"].removeprefix("Bearer ") for headers, _ in self.requests}

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def completion(model: str, text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}},
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
