"""What the application must never notice: failures, hangs, threads, forks, signals and the end of the interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import set_span_in_context
from tests.instrumented_app import WAIT, App, Gate, attributes, span_count

from otel_scorer.model.decision import Outcome
from otel_scorer.model.trace import Trace
from otel_scorer.scorers.base import scorer
from otel_scorer.telemetry import snapshot
from otel_scorer.testing import read_spans


class Sink:
    """A backend on loopback that takes OTLP over HTTP and gRPC."""

    def __init__(self) -> None:
        self._requests: list[bytes] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sink._requests.append(self.rfile.read(int(self.headers["Content-Length"])))
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


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def keys(span: SpanMessage) -> set[str]:
    return {pair.key for pair in span.attributes}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_real_backend_gets_every_span_once_and_the_verdict_on_the_root(sink: Sink, protocol: str) -> None:
    exporter: SpanExporter = (
        GrpcExporter(sink.grpc_address, insecure=True) if protocol == "grpc" else HttpExporter(sink.http_address)
    )
    app = App(span_count, exporter=exporter)

    trace_ids = [app.trace() for _ in range(20)]
    app.provider.shutdown()

    assert len({span.span_id for span in sink.spans}) == len(sink.spans) == 60
    assert {int.from_bytes(span.trace_id) for span in sink.spans} == set(trace_ids)
    roots = [span for span in sink.spans if span.name == "root"]
    assert all("otel_scorer.span_count.value" in keys(root) for root in roots)
    assert all([event.name for event in root.events] == ["gen_ai.evaluation.result"] for root in roots)


def test_a_scorer_that_raises_is_not_seen_by_the_application_or_by_other_processors() -> None:
    class Other(SpanProcessor):
        def __init__(self) -> None:
            self.ended: list[str] = []

        def on_end(self, span: ReadableSpan) -> None:
            self.ended.append(span.name)

    def broken(trace: Trace) -> bool:
        msg = "no idea"
        raise RuntimeError(msg)

    app, other = App(broken), Other()
    app.provider.add_span_processor(other)

    app.trace(children=0)

    assert attributes(app["root"])["otel_scorer.broken.error"] == "RuntimeError"
    assert other.ended == ["root"]
    app.provider.shutdown()


def test_a_failure_of_our_own_is_not_seen_by_the_application_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = App(span_count)
    no_span: Any = None
    name = "processor.errors{where=on_end}"
    before = snapshot().get(name, 0)

    for _ in range(3):
        app.processor.on_start(no_span)
        app.processor.on_end(no_span)

    assert [record.message.split()[0] for record in caplog.records] == ["on_start", "on_end"]
    assert snapshot()[name] == before + 3
    assert app.trace()
    assert len(app.exported) == 3
    app.provider.shutdown()


def test_eight_threads_lose_nothing_while_scorers_run() -> None:
    app = App(span_count, scorer(span_count, name="again", concurrent=True))

    with futures.ThreadPoolExecutor(8) as pool:
        trace_ids = list(pool.map(lambda _: app.trace(children=3), range(400)))

    spans = app.exported
    assert len({span.context.span_id for span in spans if span.context}) == len(spans) == 1600
    roots = [span for span in spans if span.name == "root"]
    assert {span.context.trace_id for span in roots if span.context} == set(trace_ids)
    assert all(attributes(root)["otel_scorer.span_count.value"] == 4 for root in roots)
    app.provider.shutdown()


def test_ending_a_span_does_not_wait_for_a_scorer(gate: Gate) -> None:
    app = App(gate.slow)
    app.trace(children=0)
    assert gate.entered.wait(WAIT)

    begin = time.thread_time()
    for _ in range(100):
        app.trace(children=0)
    used = time.thread_time() - begin

    assert not gate.opened.is_set()
    assert used < 1.0
    gate.opened.set()
    app.provider.shutdown()


def test_flushing_keeps_its_timeout_while_a_scorer_runs(gate: Gate) -> None:
    app = App(gate.slow)
    app.trace()
    assert gate.entered.wait(WAIT)

    begin = time.monotonic()
    in_time = app.processor.force_flush(100)
    took = time.monotonic() - begin

    assert not in_time
    assert 0.09 < took < 5
    gate.opened.set()
    app.provider.shutdown()


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.opened.wait(WAIT)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def test_an_exporter_that_hangs_holds_up_neither_spans_nor_flushes_nor_the_end() -> None:
    exporter = Hanging()
    app = App(span_count, exporter=exporter, shutdown_timeout=0.2)
    app.trace()

    flushed = app.processor.force_flush(100)
    app.trace()
    again = app.processor.force_flush(100)
    app.provider.shutdown()

    assert exporter.entered.is_set()
    assert (flushed, again) == (False, False)
    flushers = [thread for thread in threading.enumerate() if thread.name == "otel-scorer-flush"]
    assert len(flushers) <= 1
    exporter.opened.set()


@pytest.mark.parametrize("fails", [lambda spans: SpanExportResult.FAILURE, lambda spans: 1 / 0])
def test_an_export_that_fails_is_counted(fails: Callable[[Any], Any]) -> None:
    app = App(span_count)
    app.exporter.export = fails  # type: ignore[assignment,method-assign]
    name = "processor.dropped{reason=export_failed}"
    before = snapshot().get(name, 0)

    app.trace(children=1)
    app.processor.force_flush()

    assert snapshot()[name] == before + 2
    app.provider.shutdown()


def test_spans_that_the_queue_has_no_room_for_are_counted() -> None:
    exporter = Hanging()
    app = App(span_count, exporter=exporter, max_queue_size=4, forwarding="passthrough")
    name = "processor.dropped{reason=queue_full}"
    before = snapshot().get(name, 0)

    for _ in range(4):
        app.tracer.start_span("span").end()
    assert exporter.entered.wait(WAIT)
    for _ in range(7):
        app.tracer.start_span("span").end()

    assert snapshot().get(name, 0) - before >= 3
    exporter.opened.set()
    app.provider.shutdown()


def test_traces_that_the_scorers_have_no_room_for_are_shed_and_exported(gate: Gate) -> None:
    app = App(gate.slow, max_queue_size=2, schedule_delay=0.01)
    waiting = [app.trace(children=0) for _ in range(2)]
    assert gate.entered.wait(WAIT)

    trace_id = app.trace(children=0)
    [decision] = app.processor.wait_for_scores(trace_id, WAIT)
    app.exporter.wait_for("root")
    gate.opened.set()

    assert decision.outcome is Outcome.SHED
    assert [app.processor.wait_for_scores(trace, WAIT)[0].outcome for trace in waiting] == [Outcome.SCORED] * 2
    assert app.names == ["root"] * 3
    app.provider.shutdown()


def test_shutting_down_scores_and_exports_what_is_open() -> None:
    app = App(span_count)
    root = app.tracer.start_span("root")
    app.tracer.start_span("child", context=set_span_in_context(root)).end()

    app.provider.shutdown()

    child, evaluation = app.exporter.get_finished_spans()
    assert (child.name, evaluation.name) == ("child", "evaluation span_count")
    assert attributes(evaluation)["otel_scorer.close_reason"] == "shutdown"
    root.end()


def test_after_shutting_down_everything_is_ignored_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    app = App(span_count)
    app.provider.shutdown()
    caplog.clear()

    app.trace()
    app.processor.shutdown()

    assert app.exporter.get_finished_spans() == ()
    assert app.processor.force_flush()
    assert not app.processor.flush_trace(1)
    assert caplog.records == []


def test_a_scorer_that_hangs_does_not_keep_the_root_at_the_end(gate: Gate) -> None:
    app = App(gate.slow, span_count, shutdown_timeout=0.3)
    app.trace(children=0)
    assert gate.entered.wait(WAIT)

    app.provider.shutdown()

    assert [span.name for span in app.exporter.get_finished_spans()] == ["root"]


PROGRAM = """
import os, signal, sys, threading
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from otel_scorer.processor import ScoringSpanProcessor

def span_count(trace):
    return len(trace.spans)

async def later(trace):
    return True

provider = TracerProvider()
processor = ScoringSpanProcessor(OTLPSpanExporter(sys.argv[1]), [span_count, later])
provider.add_span_processor(processor)
tracer = provider.get_tracer("app")
"""


def run(program: str, sink: Sink, *, expected: int = 0) -> list[SpanMessage]:
    arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM + program, sink.http_address]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=50)

    assert (done.returncode, done.stderr) == (expected, "")
    return sink.spans


def names(spans: Sequence[SpanMessage]) -> Counter[str]:
    return Counter(span.name for span in spans)


def test_the_end_of_the_program_scores_and_exports_the_last_trace(sink: Sink) -> None:
    spans = run(
        """
with tracer.start_as_current_span("root"):
    with tracer.start_as_current_span("child"):
        pass
""",
        sink,
    )

    assert names(spans) == {"root": 1, "child": 1}
    [root] = [span for span in spans if span.name == "root"]
    assert {"otel_scorer.span_count.value", "otel_scorer.later.value"} <= keys(root)


def test_the_end_of_the_program_scores_a_trace_whose_root_never_ended(sink: Sink) -> None:
    spans = run(
        """
root = tracer.start_span("root")
with tracer.start_as_current_span("child", context=trace.set_span_in_context(root)):
    pass
""",
        sink,
    )

    assert names(spans) == {"child": 1, "evaluation span_count": 1, "evaluation later": 1}


def test_a_signal_that_ends_the_program_in_an_orderly_way_flushes(sink: Sink) -> None:
    spans = run(
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with tracer.start_as_current_span("root"):
    pass
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(20)
""",
        sink,
    )

    assert names(spans) == {"root": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_scores_its_own_traces_and_none_of_its_parents(sink: Sink) -> None:
    spans = run(
        """
with tracer.start_as_current_span("warm up"):
    pass
processor.force_flush()
with tracer.start_as_current_span("parent's root") as root:
    with tracer.start_as_current_span("parent's child"):
        pass
    child = os.fork()
    with tracer.start_as_current_span("child's part" if child == 0 else "parent's part"):
        pass
    if child == 0:
        with tracer.start_as_current_span("child's root", context=trace.set_span_in_context(trace.INVALID_SPAN)):
            pass
provider.shutdown()
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
""",
        sink,
    )

    assert names(spans) == {
        "warm up": 1,
        "parent's root": 1,
        "parent's child": 1,
        "parent's part": 1,
        "child's part": 1,
        "child's root": 1,
    }
    scored = {span.name for span in spans if "otel_scorer.later.value" in keys(span)}
    assert scored == {"warm up", "parent's root", "child's part", "child's root"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_a_thread_while_others_trace_does_not_hang_the_child(sink: Sink) -> None:
    spans = run(
        """
stop = threading.Event()
def work():
    while not stop.is_set():
        with tracer.start_as_current_span("busy"):
            pass
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
statuses = []
def forks():
    for number in range(5):
        child = os.fork()
        if child == 0:
            with tracer.start_as_current_span(f"forked {number}"):
                pass
            provider.shutdown()
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
forking = threading.Thread(target=forks)
forking.start()
forking.join()
stop.set()
for thread in threads:
    thread.join()
sys.exit(any(statuses))
""",
        sink,
    )

    forked = [span for span in spans if span.name.startswith("forked")]
    assert len(forked) == 5
    assert all("otel_scorer.later.value" in keys(span) for span in forked)


def test_importing_the_processor_loads_no_server() -> None:
    code = "import sys, json, otel_scorer.processor; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert {"grpc", "uvicorn", "yaml", "sqlite3", "click", "rich"}.isdisjoint(json.loads(done.stdout))


def test_sigterm_is_left_to_the_application() -> None:
    before = signal.getsignal(signal.SIGTERM)

    App(span_count).provider.shutdown()

    assert signal.getsignal(signal.SIGTERM) is before
