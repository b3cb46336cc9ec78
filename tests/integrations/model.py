"""A model that runs here: it takes OpenAI's chat completions and always says the same."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Model:
    """
    Attributes:
        url: Where it is.
        asked: The requests that it got.
        says: The arguments of the function that it calls, or the object that it answers with.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.says: dict[str, Any] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        said = json.dumps(self.says)
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if request.get("tools"):
            function = {"name": request["tools"][0]["function"]["name"], "arguments": said}
            message |= {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return {"id": "1", "object": "chat.completion", "created": 1, "model": "small", "choices": [choice]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                data = json.dumps(model.answer(request)).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler
