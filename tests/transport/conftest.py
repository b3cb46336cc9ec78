"""Backends to send to and pipelines to receive into: real servers on loopback, told what to answer."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_scorer.model.wire import Signal
from otel_scorer.transport.exchange import PartialSuccess

WAIT = 30.0


class Pipeline:
    """Stands for all that is behind a receiver. `answer` may raise."""

    def __init__(self) -> None:
        self.requests: list[tuple[Signal, bytes]] = []
        self.answer: Callable[[Signal, bytes], PartialSuccess | None] = lambda signal, data: None

    def __call__(self, signal: Signal, data: bytes) -> PartialSuccess | None:
        partial = self.answer(signal, data)
        self.requests.append((signal, data))
        return partial


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@dataclass
class Reply:
    """What a backend answers: for gRPC a status and trailers, for HTTP a status, headers and body."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: tuple[tuple[str, bytes], ...] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Backend:
    """Remembers what it took, and answers from `replies`, then with success. `decide` sees the request instead."""

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[bytes] = []
        self.taken: list[bytes] = []
        self.calls: list[dict[str, str]] = []
        self.replies: deque[Reply] = deque()
        self.decide: Callable[[bytes], Reply] | None = None
        self.gate = threading.Event()
        """Cleared: requests wait."""
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self._changed = threading.Condition()

    def reply_to(self, data: bytes, call: dict[str, str]) -> Reply:
        self.arrived.release()
        self.gate.wait(WAIT)
        with self._changed:
            self.requests.append(data)
            self.calls.append(call)
            if self.decide is not None:
                reply = self.decide(data)
            else:
                reply = self.replies.popleft() if self.replies else Reply()
            if reply.code is grpc.StatusCode.OK and reply.status == 200:
                self.taken.append(data)
            self._changed.notify_all()
        return reply

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT)

    @property
    def span_ids(self) -> list[int]:
        return [span_id for data in self.taken for span_id in span_ids_of(data)]


def span_ids_of(data: bytes) -> list[int]:
    return [
        int.from_bytes(span.span_id)
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.fixture
def span_ids() -> Callable[[bytes], list[int]]:
    return span_ids_of


@pytest.fixture
def a_request() -> Callable[..., bytes]:
    """Make an encoded request of spans with these ids, each about `size` bytes."""

    def make(*ids: int, size: int = 0) -> bytes:
        request = ExportTraceServiceRequest()
        scope = request.resource_spans.add().scope_spans.add()
        for number in ids:
            scope.spans.add(trace_id=b"t" * 16, span_id=number.to_bytes(8), name="x" * size)
        return request.SerializeToString()

    return make


@pytest.fixture
def grpc_backend() -> Iterator[Backend]:
    backend = Backend()

    def export(data: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = {str(name): str(value) for name, value in context.invocation_metadata()}
        reply = backend.reply_to(data, metadata)
        if reply.code is not grpc.StatusCode.OK:
            context.set_trailing_metadata(reply.trailers)
            context.set_code(reply.code)
            context.set_details(reply.details)
        return reply.body

    services = [
        grpc.method_handlers_generic_handler(
            f"opentelemetry.proto.collector.{name}Service", {"Export": grpc.unary_unary_rpc_method_handler(export)}
        )
        for name in ("trace.v1.Trace", "logs.v1.Logs", "metrics.v1.Metrics")
    ]
    pool = ThreadPoolExecutor(8)
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)]
    server = grpc.server(pool, handlers=services, options=options)
    backend.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield backend
    backend.gate.set()
    server.stop(None).wait(WAIT)
    pool.shutdown()


@pytest.fixture
def http_backend() -> Iterator[Backend]:
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            call = {name.lower(): value for name, value in self.headers.items()} | {":path": self.path}
            reply = backend.reply_to(data, call)
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    backend.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield backend
    backend.gate.set()
    server.shutdown()
    server.server_close()
    thread.join(WAIT)
