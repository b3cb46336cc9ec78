"""One configuration in an application, in the sidecar and on files: the same verdicts everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_scorer.processor import ScoringSpanProcessor

JUDGES = """
from otel_scorer import Feedback, Scorer, Trace, scorer

class Short(Scorer):
    name: str = "short"
    most: int = 1
    def __call__(self, trace: Trace) -> int:
        return len(trace.spans) - self.most

@scorer(sample_rate=0.5)
async def sampled(outputs: str) -> Feedback:
    return Feedback(value=outputs.upper(), rationale="louder")
"""

CONFIGURATION = """
scorers:
  - {use: judges.py:Short, name: too_long, parameters: {most: 2}, pass_if: "<= 0"}
  - judges.py:sampled
  - tool_errors
scoring: {timeout: 9s}
dialects: {attributes: {outputs: [acme.answer]}}
exporters: {file: {path: exported.jsonl}}
telemetry: {status_page: "off"}
receivers: {otlp: {protocols: {grpc: {endpoint: "off"}, http: {endpoint: 127.0.0.1:0}}}}
"""

Said = set[tuple[str, str, str, str | None]]
NAMES = ("too_long", "sampled", "tool_errors")


def application(provider: TracerProvider) -> None:
    tracer = provider.get_tracer("app")
    for number in range(12):
        with tracer.start_as_current_span("root") as root:
            root.set_attribute("acme.answer", f"answer {number}")
            for _ in range(number % 3):
                with tracer.start_as_current_span("child"):
                    pass


def plain(value: dict[str, Any]) -> str:
    [given] = value.values()
    return str(given)


def exported(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the spans of a file, each with its trace id and attributes."""
    return [
        (span["traceId"], {pair["key"]: pair["value"] for pair in span.get("attributes", [])})
        for line in path.read_text().splitlines()
        for resource in json.loads(line).get("resourceSpans", [])
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def in_the_application(folder: Path) -> Said:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ScoringSpanProcessor.from_config(folder / "otel-scorer.yaml"))
    application(provider)
    provider.shutdown()
    return {
        (trace, name, plain(found[f"otel_scorer.{name}.value"]), label(found, f"otel_scorer.{name}.label"))
        for trace, found in exported(folder / "exported.jsonl")
        for name in NAMES
        if f"otel_scorer.{name}.value" in found
    }


def label(found: dict[str, Any], key: str) -> str | None:
    return plain(found[key]) if key in found else None


def on_files(folder: Path) -> Said:
    command = ["score", "exported.jsonl", "-c", "otel-scorer.yaml", "--format", "jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "otel_scorer", *command], check=True, capture_output=True, text=True, cwd=folder
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        (row["trace_id"], row["feedback"]["name"], json.dumps(row["feedback"]["value"]).strip('"'), None)
        for row in rows
        if row["feedback"] is not None
    }


def without_labels(said: Said) -> set[tuple[str, str, str]]:
    return {(trace, name, value.lower()) for trace, name, value, _ in said}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "judges.py").write_text(JUDGES)
    (tmp_path / "otel-scorer.yaml").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_an_application_said_is_said_again_about_the_spans_that_it_exported(folder: Path) -> None:
    said = in_the_application(folder)

    assert {name for _, name, _, _ in said} == set(NAMES)
    assert 0 < len([name for _, name, _, _ in said if name == "sampled"]) < 12
    assert without_labels(on_files(folder)) == without_labels(said)


def through_the_sidecar(folder: Path) -> None:
    """Run the application again, without the processor: the sidecar goes on where that wrote to."""
    (folder / "exported.jsonl").rename(folder / "application.jsonl")
    command = [sys.executable, "-m", "otel_scorer", "serve", "-c", "otel-scorer.yaml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as sidecar:
        assert sidecar.stdout is not None
        address = sidecar.stdout.readline().partition("http=")[2].split()[0]
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"http://{address}/v1/traces")))
        application(provider)
        provider.shutdown()
        sidecar.terminate()
        assert sidecar.wait(60) == 0


def logged(path: Path) -> set[tuple[str, str | None, frozenset[str]]]:
    """Return the log records of a file: the name and label of each verdict, and what else is said about it."""
    records = [
        {pair["key"]: pair["value"] for pair in record["attributes"]}
        for line in path.read_text().splitlines()
        for resource in json.loads(line).get("resourceLogs", [])
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    return {
        (plain(found["gen_ai.evaluation.name"]), label(found, "gen_ai.evaluation.score.label"), frozenset(found))
        for found in records
    }


@pytest.mark.server
def test_log_records_of_verdicts_are_the_same_in_the_application_and_in_the_sidecar(folder: Path) -> None:
    text = (folder / "otel-scorer.yaml").read_text()
    (folder / "otel-scorer.yaml").write_text(f"{text}emit: [logs]\nscore_logs: {{attributes: {{acme.mark: score}}}}\n")

    in_the_application(folder)
    through_the_sidecar(folder)

    # What `sampled` says is about an answer, and the traces in its sample are others each time.
    said = {item for item in logged(folder / "application.jsonl") if item[0] != "sampled"}
    assert {name for name, _, _ in said} == {"too_long", "tool_errors"}
    assert all("acme.mark" in keys for _, _, keys in said)
    assert said == {item for item in logged(folder / "exported.jsonl") if item[0] != "sampled"}


@pytest.mark.server
def test_the_sidecar_says_the_same_as_the_application(folder: Path) -> None:
    said = in_the_application(folder)

    through_the_sidecar(folder)

    answered = [found for _, found in exported(folder / "exported.jsonl") if "gen_ai.evaluation.name" in found]
    told = {
        (plain(found["gen_ai.evaluation.name"]), label(found, "gen_ai.evaluation.score.label")) for found in answered
    }
    assert {name for name, _ in told} == set(NAMES)
    assert {(name, pass_) for name, pass_ in told if name != "sampled"} == {
        (name, pass_) for _, name, _, pass_ in said if name != "sampled"
    }
