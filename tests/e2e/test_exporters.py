"""Unmodified exporters send to the sidecar; the backend gets every span once, and the evaluation spans."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from tests.e2e.sidecar import SCORERS, Sidecar, Traces, id_of, small_trace
from tests.e2e.sink import WAIT, Score, Sink, plain
from tests.fakes import a_log, logs_request

from otel_scorer.encoders.evaluation_span import SCOPE_VERSION
from otel_scorer.model.otlp_attributes import encode_attributes

SCHEMA = "https://opentelemetry.io/schemas/1.30.0"
HERE = Path(__file__).parent
PER_TRACE = Counter({"fine": 1, "share": 1, "tone": 1, "broken": 1, "per_tool": 2, "child": 1})


@pytest.fixture(scope="module")
def sidecar(sink: Sink) -> Iterator[Sidecar]:
    sidecar = Sidecar("--export", sink.grpc, "--scorers", str(SCORERS / "kinds.py"), "--root-grace", "0.3")
    yield sidecar
    sidecar.close()


def run_agent(exporter: SpanExporter, runs: int = 5) -> list[bytes]:
    """Trace a small agent with the SDK and return the trace ids."""
    resource = Resource({"service.name": "travel", "host": "h"}, schema_url=SCHEMA)
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("travel-agent", "2.1")
    traces: list[bytes] = []
    for _ in range(runs):
        with tracer.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}) as root:
            root.set_attribute("output.value", "Take the train")
            for tool in ("search", "book"):
                with tracer.start_as_current_span(tool, attributes={"gen_ai.operation.name": "execute_tool"}) as span:
                    span.add_event("asked", {"attempt": 1})
        traces.append(root.get_span_context().trace_id.to_bytes(16, "big"))
    assert provider.force_flush(10_000)
    provider.shutdown()
    return traces


def exporters(sidecar: Sidecar) -> dict[str, Callable[[], SpanExporter]]:
    url = f"{sidecar.http}/v1/traces"
    return {
        "gRPC": lambda: GrpcExporter(endpoint=sidecar.grpc, insecure=True),
        "HTTP": lambda: HttpExporter(endpoint=url),
        "HTTP with gzip": lambda: HttpExporter(endpoint=url, compression=Compression.Gzip),
        "HTTP with deflate": lambda: HttpExporter(endpoint=url, compression=Compression.Deflate),
    }


@pytest.mark.parametrize("kind", ["gRPC", "HTTP", "HTTP with gzip", "HTTP with deflate"])
def test_every_span_arrives_once_and_so_does_every_verdict(kind: str, sidecar: Sidecar, sink: Sink) -> None:
    traces = run_agent(exporters(sidecar)[kind]())

    scores = sink.wait_for_scores(len(traces) * PER_TRACE.total(), *traces)

    assert Counter(span.name for span in sink.spans_of(*traces)) == {"agent": 5, "search": 5, "book": 5}
    assert len({(span.trace_id, span.span_id) for span in sink.spans_of(*traces)}) == 15
    for trace in traces:
        assert Counter(score.name for score in scores if score.raw.trace_id == trace) == PER_TRACE


def test_an_evaluation_span_is_what_the_design_says(sidecar: Sidecar, sink: Sink) -> None:
    (trace,) = run_agent(GrpcExporter(endpoint=sidecar.grpc, insecure=True), runs=1)

    scores = {score.name: score for score in sink.wait_for_scores(PER_TRACE.total(), trace)}

    spans = {span.name: span for span in sink.spans_of(trace)}
    raw = {Span.FromString(span.data).name: span for span in sink.raw_of(trace)}
    for name, score in scores.items():
        target = {"child": "search", "per_tool": None}.get(name, "agent")
        if target is None:
            continue
        about(score, name, spans[target])
        assert ResourceSpans.FromString(score.raw.scope.resource) == ResourceSpans.FromString(
            raw[target].scope.resource
        )
        assert score.raw.scope.resource == raw[target].scope.resource
        assert ResourceSpans.FromString(score.raw.scope.resource).schema_url == SCHEMA
    assert {scores[name].attributes["otel_scorer.close_reason"] for name in scores} == {"root_quiet"}
    assert {scores[name].attributes["otel_scorer.complete"] for name in scores} == {True}


def about(score: Score, name: str, target: Span) -> None:
    """Assert what holds for every evaluation span."""
    span = score.span
    assert span.name == f"evaluation {name}"
    assert ScopeSpans.FromString(score.raw.scope.scope).scope == InstrumentationScope(
        name="otel_scorer", version=SCOPE_VERSION
    )
    assert span.parent_span_id == target.span_id
    assert [(link.trace_id, link.span_id) for link in span.links] == [(target.trace_id, target.span_id)]
    assert span.start_time_unix_nano == span.end_time_unix_nano == target.end_time_unix_nano
    assert span.kind == Span.SPAN_KIND_INTERNAL
    assert span.flags & 1
    assert not span.HasField("status")
    assert len(span.span_id) == 8
    assert score.attributes["openinference.span.kind"] == "EVALUATOR"
    assert score.attributes["mlflow.spanType"] == "EVALUATOR"
    assert score.attributes["gen_ai.evaluation.name"] == name
    assert score.attributes["otel_scorer.revision"] == 1
    assert score.attributes["otel_scorer.source.type"] == "CODE"


def test_values_labels_and_errors_are_written_as_the_design_says(sidecar: Sidecar, sink: Sink) -> None:
    (trace,) = run_agent(HttpExporter(endpoint=f"{sidecar.http}/v1/traces"), runs=1)

    scores = {score.name: score.attributes for score in sink.wait_for_scores(PER_TRACE.total(), trace)}

    def of(name: str) -> tuple[object, ...]:
        keys = ("gen_ai.evaluation.score.value", "gen_ai.evaluation.score.label", "otel_scorer.value")
        return tuple(scores[name].get(key) for key in (*keys, "otel_scorer.value_text", "error.type"))

    assert of("fine") == (1.0, "pass", True, "true", None)
    assert of("share") == (0.5, "fail", 0.5, "0.5", None)
    assert of("tone") == (None, "friendly", "friendly", "friendly", None)
    assert of("broken") == (None, None, None, None, "LookupError")
    assert of("child") == (3.0, None, 3, "3", None)
    assert scores["share"]["gen_ai.evaluation.explanation"] == "half of it"
    assert scores["share"]["otel_scorer.metadata.of"] == "two"
    assert scores["broken"]["gen_ai.evaluation.explanation"] == "nothing there"
    assert scores["fine"]["trace.evaluations.0.evaluation.score"] == 1.0
    assert scores["child"]["evaluations.0.evaluation.score"] == 3.0


def test_a_backend_that_speaks_http_gets_the_same(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start("--export", f"{own_sink.http}/otlp", "--scorers", "tool_errors", "latency", "--root-grace", "0.2")

    traces = run_agent(GrpcExporter(endpoint=sidecar.grpc, insecure=True), runs=3)

    own_sink.wait_for_scores(6, *traces)
    assert sidecar.stop() == 0
    assert len(own_sink.spans_of(*traces)) == 9
    assert Counter(own_sink.score_names()) == {"tool_errors": 3, "latency": 3}


def test_logs_and_metrics_pass_through_untouched(sidecar: Sidecar, sink: Sink) -> None:
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(BatchLogRecordProcessor(HttpLogExporter(endpoint=f"{sidecar.http}/v1/logs")))
    logs.get_logger("app").emit(LogRecord(timestamp=1, body="hello", severity_number=SeverityNumber.INFO))
    reader = PeriodicExportingMetricReader(GrpcMetricExporter(endpoint=sidecar.grpc, insecure=True), 3_600_000)
    metrics = MeterProvider([reader], shutdown_on_exit=False)
    metrics.get_meter("app").create_counter("asked").add(3, {"who": "me"})

    logs.force_flush()
    logs.shutdown()
    metrics.force_flush()
    metrics.shutdown()

    sink.wait_for(lambda: bool(sink.requests("logs") and sink.requests("metrics")))
    (record,) = ExportLogsServiceRequest.FromString(sink.requests("logs")[0]).resource_logs[0].scope_logs[0].log_records
    metric = ExportMetricsServiceRequest.FromString(sink.requests("metrics")[0]).resource_metrics[0]
    assert record.body.string_value == "hello"
    assert metric.scope_metrics[0].metrics[0].sum.data_points[0].as_int == 3


@pytest.mark.parametrize("signal", ["logs", "metrics"])
def test_bytes_of_logs_and_metrics_stay_as_they_are(signal: str, own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start("--export", own_sink.grpc)
    # resource, then scope with one item; each level with a field that nobody knows
    unknown = b"\xaa\x06\x03new"
    item = b"\x12" + bytes([len(unknown)]) + unknown
    scope = item + unknown
    resource = b"\x12" + bytes([len(scope)]) + scope + unknown
    data = b"\x0a" + bytes([len(resource)]) + resource + unknown

    answer = sidecar.post(data, f"/v1/{signal}")

    assert answer.status == 200
    own_sink.wait_for(lambda: bool(own_sink.requests(signal)))
    assert own_sink.requests(signal) == [data]


def test_an_error_says_where_it_happened_when_it_is_asked_to(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text("explanations: stack_traces\n", encoding="utf-8")
    sidecar = start(
        *("-c", str(config), "--export", own_sink.grpc, "--root-grace", "0.2"),
        *("--scorers", f"{SCORERS / 'kinds.py'}:broken"),
    )
    trace = Traces(76).new()

    sidecar.send(small_trace(trace))
    [score] = own_sink.wait_for_scores(1, id_of(trace))
    assert sidecar.stop() == 0

    assert 'raise LookupError("nothing there")' in str(score.attributes["otel_scorer.metadata.exception.stacktrace"])


def test_verdicts_go_out_as_logs_and_metrics_beside_spans(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", str(SCORERS / "kinds.py"), "--root-grace", "0.2"),
        *("--emit", "evaluation_span", "logs", "metrics"),
    )
    trace = Traces(75).new()

    sidecar.send(small_trace(trace))
    spans = own_sink.wait_for_scores(4, id_of(trace))
    assert sidecar.stop() == 0
    own_sink.wait_for(lambda: bool(own_sink.requests("logs") and own_sink.requests("metrics")))

    records = own_sink.log_records
    said = [{pair.key: plain(pair.value) for pair in record.attributes} for record in records]
    assert sorted(str(each["gen_ai.evaluation.name"]) for each in said) == ["broken", "child", "fine", "share"]
    assert {(str(each["otel_scorer.evaluation_id"])) for each in said} == {each.raw.span_id.hex() for each in spans}
    assert {record.event_name for record in records} == {"gen_ai.evaluation.result"}
    metrics = {
        metric.name: metric
        for resource in ExportMetricsServiceRequest.FromString(own_sink.requests("metrics")[-1]).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert sum(point.as_int for point in metrics["otel_scorer.verdicts"].sum.data_points) == 4
    assert metrics["gen_ai.evaluation.score"].histogram.data_points
    assert metrics["otel_scorer.decisions"].sum.data_points


def test_signals_that_are_switched_off_are_refused_and_the_others_flow(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        f"exporters: {{otlp: {{endpoint: '{own_sink.grpc}', logs_endpoint: off, metrics_endpoint: off}}}}",
        encoding="utf-8",
    )
    sidecar = start("-c", str(config))

    answers = [sidecar.post(b"", f"/v1/{signal}") for signal in ("logs", "metrics", "logs")]
    trace = Traces(70).new()
    sidecar.send(small_trace(trace))

    assert [answer.status for answer in answers] == [404] * 3
    own_sink.wait_for_spans(3, id_of(trace))
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(BatchLogRecordProcessor(GrpcLogExporter(endpoint=sidecar.grpc, insecure=True)))
    logs.get_logger("app").emit(LogRecord(timestamp=1, body="hello"))
    logs.shutdown()
    assert sidecar.stop() == 0
    assert own_sink.requests("logs") == []
    assert sidecar.log.count("logs are refused") == 1


def test_scorers_see_content_in_logs_that_no_backend_takes(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        f"exporters: {{otlp: {{endpoint: '{own_sink.grpc}', logs_endpoint: off}}}}\nassembly: {{root_grace: 0.5s}}\n",
        encoding="utf-8",
    )
    sidecar = start("-c", str(config), "--scorers", f"{SCORERS / 'understanding.py'}")
    trace = Traces(71).new()
    result = a_log(trace=trace, name="gen_ai.evaluation.result")
    encode_attributes(result.attributes, {"gen_ai.evaluation.name": "polite"})

    answer = sidecar.post(logs_request(result), "/v1/logs")
    sidecar.send(small_trace(trace))

    assert answer.status == 404
    own_sink.wait_for(lambda: "evaluations" in own_sink.score_names())
    [seen] = [score for score in own_sink.scores_of(id_of(trace)) if score.name == "evaluations"]
    assert "polite" in str(seen.explanation)
    assert own_sink.requests("logs") == []


@pytest.mark.server
def test_the_javascript_exporter_sends_json(own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path) -> None:
    folder = os.environ.get("OTEL_SCORER_JS_DIR")
    node = shutil.which("node")
    if folder is None or node is None:
        pytest.skip("needs node, and OTEL_SCORER_JS_DIR: a folder where `npm ci` ran with tests/js/package.json")
    sidecar = start("--export", own_sink.grpc, "--scorers", "tool_errors", "latency", "--root-grace", "0.5")
    # Node looks for modules beside the program.
    program = shutil.copy(HERE.parent / "js" / "agent.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(Path(folder, "node_modules").absolute())

    sent = subprocess.run(
        [node, str(program), f"{sidecar.http}/v1/traces"], capture_output=True, text=True, timeout=WAIT, check=False
    )

    assert sent.returncode == 0, sent.stderr
    expected = json.loads(sent.stdout)
    traces = {bytes.fromhex(span["traceId"]) for span in expected}
    scores = own_sink.wait_for_scores(2 * len(traces), *traces)
    found = sorted((span.trace_id.hex(), span.span_id.hex(), span.name) for span in own_sink.spans_of(*traces))
    assert found == sorted((span["traceId"], span["spanId"], span["name"]) for span in expected)
    assert Counter(score.name for score in scores) == {"tool_errors": len(traces), "latency": len(traces)}
    failing = {score.raw.trace_id.hex() for score in scores if score.value is False}
    assert failing == {span["traceId"] for span in expected if span["failed"]}
    one = next(span for span in own_sink.spans_of(*traces) if span.name == "search")
    assert {pair.key: pair.value.string_value for pair in one.attributes}["text"] == "naïve ☃ 🙂"
    assert {pair.key: pair.value.int_value for pair in one.attributes}["big"] == 2**53 - 1
