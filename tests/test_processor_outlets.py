"""Verdicts beside spans, from an application: log records, metrics, score APIs; as the sidecar sends them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.e2e.sink import Sink
from tests.instrumented_app import App, attributes, span_count
from tests.score_server import ScoreServer

from otel_scorer.processor import ScoringSpanProcessor
from otel_scorer.telemetry import snapshot
from otel_scorer.zero_code import ScoringSpanExporter

CONFIGURATION = """
scorers: [tool_errors, {{use: latency, span_types: [UNKNOWN], pass_if: "< 100"}}]
emit: {emit}
forwarding: hold_root
score_logs: {{attributes: {{"acme.mark": "score"}}}}
exporters:
  file: {{path: {folder}/exported.jsonl}}
{apis}
"""


@pytest.fixture
def api() -> Iterator[ScoreServer]:
    server = ScoreServer()
    yield server
    server.close()


@pytest.fixture
def backend() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


def configured(folder: Path, emit: str, api: ScoreServer | None = None) -> Path:
    apis = "" if api is None else f"  phoenix: {{endpoint: '{api.url}'}}"
    path = folder / "otel-scorer.yaml"
    path.write_text(CONFIGURATION.format(emit=emit, folder=folder, apis=apis))
    return path


def run(processor: ScoringSpanProcessor) -> str:
    """Trace something and return its trace id."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    with provider.get_tracer("app").start_as_current_span("root") as root:
        pass
    assert provider.force_flush()
    provider.shutdown()
    return format(root.get_span_context().trace_id, "032x")


def exported(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the resources of all requests of a kind that are in the file."""
    lines = [json.loads(line) for line in (folder / "exported.jsonl").read_text().splitlines()]
    return [resource for line in lines for resource in line.get(kind, [])]


def records(folder: Path) -> list[dict[str, Any]]:
    return [
        record
        for resource in exported(folder, "resourceLogs")
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def spans(folder: Path) -> list[str]:
    return [
        span["name"]
        for resource in exported(folder, "resourceSpans")
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def keys(record: dict[str, Any]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in record["attributes"]}


def test_verdicts_go_out_as_log_records_alone_and_spans_stay_as_they_are(tmp_path: Path) -> None:
    trace_id = run(ScoringSpanProcessor.from_config(configured(tmp_path, "[logs]")))

    found = records(tmp_path)
    assert {keys(record)["gen_ai.evaluation.name"] for record in found} == {"tool_errors", "latency"}
    assert {record["traceId"] for record in found} == {trace_id}
    assert {record["eventName"] for record in found} == {"gen_ai.evaluation.result"}
    assert {keys(record)["otel_scorer.close_reason"] for record in found} == {"all_closed"}
    assert {keys(record)["acme.mark"] for record in found} == {"score"}
    assert spans(tmp_path) == ["root"]
    [root] = exported(tmp_path, "resourceSpans")[0]["scopeSpans"][0]["spans"]
    assert not root.get("events")
    assert not root.get("attributes")


def test_verdicts_are_counted_as_metrics(tmp_path: Path) -> None:
    run(ScoringSpanProcessor.from_config(configured(tmp_path, "[metrics]")))

    found = {
        metric["name"]
        for resource in exported(tmp_path, "resourceMetrics")
        for scope in resource["scopeMetrics"]
        for metric in scope["metrics"]
    }
    assert {"gen_ai.evaluation.score", "otel_scorer.verdicts"} <= found


def test_all_ways_combine_and_each_verdict_goes_out_once_by_each(api: ScoreServer, tmp_path: Path) -> None:
    names = [f"encoder.verdicts{{encoding={kind}}}" for kind in ("attributes", "logs", "metrics", "native")]
    before = snapshot()

    trace_id = run(
        ScoringSpanProcessor.from_config(configured(tmp_path, "[attributes, logs, metrics, native]", api=api))
    )

    assert [snapshot()[name] - before.get(name, 0) for name in names] == [2, 2, 2, 2]
    assert len(records(tmp_path)) == 2
    assert spans(tmp_path) == ["root"]
    sent = [each for call in api.calls for each in call.body["data"]]
    assert {each["name"] for each in sent} == {"tool_errors", "latency"}
    assert trace_id in {each.get("trace_id") for each in sent}


def test_a_verdict_that_comes_too_late_for_its_span_is_beside_it_all_the_same(tmp_path: Path) -> None:
    run(ScoringSpanProcessor.from_config(configured(tmp_path, "[attributes, logs]"), forwarding="passthrough"))

    assert sorted(spans(tmp_path)) == ["evaluation latency", "evaluation tool_errors", "root"]
    assert len(records(tmp_path)) == 2


def test_the_exporter_that_sees_ended_spans_alone_writes_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SCORER_CONFIG", str(configured(tmp_path, "[logs]")))
    ended = InMemorySpanExporter()
    app = App(span_count, exporter=ended)
    app.trace(children=0)
    app.provider.shutdown()

    exporter = ScoringSpanExporter()
    exporter.export([span for span in ended.get_finished_spans() if not is_evaluation(span)])
    exporter.shutdown()

    assert len(records(tmp_path)) == 2


def is_evaluation(span: ReadableSpan) -> bool:
    return span.name.startswith("evaluation")


def test_in_code_log_records_go_to_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, backend: Sink) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_EXPORTER_OTLP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.grpc)
    app = App(span_count, emit=("events", "logs"))

    app.trace(children=0)

    assert [event.name for event in app["root"].events] == ["gen_ai.evaluation.result"]
    app.provider.shutdown()
    backend.wait_for(lambda: bool(backend.requests("logs")))
    [request] = map(ExportLogsServiceRequest.FromString, backend.requests("logs"))
    [record] = request.resource_logs[0].scope_logs[0].log_records
    assert record.event_name == "gen_ai.evaluation.result"
    assert not backend.requests("traces")


def test_a_way_that_cannot_be_used_does_not_keep_spans_and_verdicts_on_them(caplog: pytest.LogCaptureFixture) -> None:
    app = App(span_count, emit=("attributes", "native"))

    app.trace(children=0)

    assert attributes(app["root"])["otel_scorer.span_count.value"] == 1
    app.provider.shutdown()
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert "needs a score API" in str(record.exc_info[1])
