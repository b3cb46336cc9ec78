"""
A backend in a process of its own: plain servers that keep what they get and understand nothing of it.

Standard output: a line with the addresses, then every request that was taken as a frame (signal, size, bytes).
Standard input: `refuse` (answer UNAVAILABLE/503 from now on), `hold` (do not answer at all), `plain` (refuse spans that
carry verdicts as bad), `limits` (refuse spans with more than 128 attributes or events as bad), `take` (the default).
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SIGNALS = ("traces", "logs", "metrics")
LIMIT = 128  # attributes or events of a span, which is the usual one
FRAME = struct.Struct("<BI")
CODES = {200: grpc.StatusCode.OK, 400: grpc.StatusCode.INVALID_ARGUMENT, 503: grpc.StatusCode.UNAVAILABLE}
SERVICES = ("trace.v1.Trace", "logs.v1.Logs", "metrics.v1.Metrics")


def is_over_limits(data: bytes) -> bool:
    return any(
        max(len(span.attributes), len(span.events)) > LIMIT
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )


class Answers:
    """What is answered, and the frames of what was taken."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._mode = "take"

    def listen(self) -> None:
        for line in sys.stdin:
            with self._changed:
                self._mode = line.strip()
                self._changed.notify_all()
        os._exit(0)

    def take(self, signal: int, data: bytes) -> int:
        """Write the frame, unless told to refuse; return the HTTP status."""
        with self._changed:
            self._changed.wait_for(lambda: self._mode != "hold")
            if self._mode == "refuse":
                return 503
            if self._mode == "plain" and b"otel_scorer." in data:
                return 400
            if self._mode == "limits" and signal == 0 and is_over_limits(data):
                return 400
            sys.stdout.buffer.write(FRAME.pack(signal, len(data)) + data)
            sys.stdout.buffer.flush()
            return 200


def start_grpc(answers: Answers, address: str) -> int:
    def handler(signal: int) -> Any:
        def export(data: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_code(CODES[answers.take(signal, data)])
            return b""

        return grpc.unary_unary_rpc_method_handler(export)

    handlers = [
        grpc.method_handlers_generic_handler(
            f"opentelemetry.proto.collector.{service}Service", {"Export": handler(signal)}
        )
        for signal, service in enumerate(SERVICES)
    ]
    options = [("grpc.max_receive_message_length", 256 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(8), handlers=handlers, options=options)
    port: int = server.add_insecure_port(address)
    server.start()
    SERVERS.append(server)
    return port


def start_http(answers: Answers) -> int:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answers.take(SIGNALS.index(self.path.rsplit("/", 1)[-1]), data))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


SERVERS: list[grpc.Server] = []


def main() -> None:
    answers = Answers()
    grpc_port = start_grpc(answers, sys.argv[1])
    http_port = start_http(answers)
    print(grpc_port, http_port, flush=True)
    answers.listen()


if __name__ == "__main__":
    main()
