"""The test's side of the backend in `sink_process.py`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Literal, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.e2e.sink_process import FRAME, SIGNALS

from otel_scorer.model.wire import RawSpan, read_traces

WAIT = 60.0


class Received(NamedTuple):
    """One request that the backend took."""

    signal: str
    data: bytes


class Sink:
    """
    A backend in a process of its own.

    Attributes:
        grpc: URL of its OTLP/gRPC server.
        http: URL of its OTLP/HTTP server, without path.
    """

    def __init__(self, port: int = 0) -> None:
        program = Path(__file__).with_name("sink_process.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), f"127.0.0.1:{port}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input: IO[bytes] = self._process.stdin
        self._output: IO[bytes] = self._process.stdout
        grpc_port, http_port = self._output.readline().split()
        self.grpc = f"http://127.0.0.1:{int(grpc_port)}"
        self.http = f"http://127.0.0.1:{int(http_port)}"
        self._received: list[Received] = []
        self._changed = threading.Condition()  # guards what was received
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def tell(self, mode: Literal["take", "refuse", "hold", "plain", "limits"]) -> None:
        self._input.write(f"{mode}\n".encode())
        self._input.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(WAIT)
        self._reader.join(WAIT)
        self._input.close()
        self._output.close()

    def wait_for(self, condition: Callable[[], bool], timeout: float = WAIT) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout), f"{len(self.raw)} spans, {self.score_names()}"

    def requests(self, signal: str = "traces") -> list[bytes]:
        with self._changed:
            return [received.data for received in self._received if received.signal == signal]

    @property
    def log_records(self) -> list[LogRecord]:
        """All log records, in order of arrival."""
        return [
            record
            for data in self.requests("logs")
            for resource in ExportLogsServiceRequest.FromString(data).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def raw(self) -> list[RawSpan]:
        """All spans, in order of arrival."""
        return [span for data in self.requests() for span in read_traces(data).spans]

    def raw_of(self, *traces: bytes) -> list[RawSpan]:
        """The spans of these traces, without those of otel_scorer."""
        wanted = set(traces)
        return [span for span in self.raw if span.trace_id in wanted and not span.scope.is_own]

    def spans_of(self, *traces: bytes) -> list[SpanMessage]:
        return [SpanMessage.FromString(span.data) for span in self.raw_of(*traces)]

    def scores_of(self, *traces: bytes) -> list[Score]:
        wanted = set(traces)
        return [Score(span) for span in self.raw if span.trace_id in wanted and span.scope.is_own]

    def score_names(self) -> list[str]:
        return sorted(str(Score(span).attributes["gen_ai.evaluation.name"]) for span in self.raw if span.scope.is_own)

    def wait_for_spans(self, number: int, *traces: bytes) -> None:
        self.wait_for(lambda: len(self.raw_of(*traces)) >= number)

    def wait_for_scores(self, number: int, *traces: bytes, timeout: float = WAIT) -> list[Score]:
        self.wait_for(lambda: len(self.scores_of(*traces)) >= number, timeout)
        return self.scores_of(*traces)

    def _read(self) -> None:
        while header := self._output.read(FRAME.size):
            signal, size = FRAME.unpack(header)
            data = self._output.read(size)
            with self._changed:
                self._received.append(Received(SIGNALS[signal], data))
                self._changed.notify_all()


class Score:
    """An evaluation span as it was received."""

    def __init__(self, raw: RawSpan) -> None:
        self.raw = raw
        self.span = SpanMessage.FromString(raw.data)
        self.attributes = {pair.key: plain(pair.value) for pair in self.span.attributes}
        assert len(self.attributes) == len(self.span.attributes), "an attribute key is there twice"

    @property
    def name(self) -> str:
        return str(self.attributes["gen_ai.evaluation.name"])

    @property
    def value(self) -> object:
        return self.attributes.get("otel_scorer.value")

    @property
    def explanation(self) -> object:
        return self.attributes.get("gen_ai.evaluation.explanation")

    @property
    def error(self) -> object:
        return self.attributes.get("error.type")


def plain(value: AnyValue) -> object:
    """Return a scalar attribute value, or the message of any other."""
    kind = value.WhichOneof("value")
    found: object = None if kind is None else getattr(value, kind)
    return found
