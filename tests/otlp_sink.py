"""A backend on loopback."""

from __future__ import annotations

import gzip
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.testing import read_spans


class Sink:
    """A backend on loopback that takes OTLP over HTTP and gRPC."""

    def __init__(self) -> None:
        self._requests: list[bytes] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.endswith("/v1/traces"):
                    is_packed = self.headers["Content-Encoding"] == "gzip"
                    sink._requests.append(gzip.decompress(body) if is_packed else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        self._grpc = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(self._export)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        self.grpc_address = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()
        self.http_address = f"http://127.0.0.1:{self._http.server_port}/v1/traces"

    def _export(self, request: bytes, context: object) -> bytes:
        self._requests.append(request)
        return b""

    @property
    def spans(self) -> list[SpanMessage]:
        return read_spans(b"".join(self._requests))

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._grpc.stop(None).wait()
