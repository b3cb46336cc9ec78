"""One line beside or instead of what other makers' SDKs set up: the real packages, and a backend on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.otlp_sink import Sink

pytestmark = pytest.mark.integrations

START = """
import sys
BACKEND = sys.argv[1]
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from otel_scorer import ScoringSpanProcessor
"""

VERDICT = "evaluation latency"
ON_SPAN = "otel_scorer.latency.value"


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


class Ran:
    """A program that ran to its end, and what its backend got."""

    def __init__(self, code: str, sink: Sink, folder: Path, **env: str) -> None:
        program = folder / "program.py"
        program.write_text(START + code)  # some look at their own source
        done = subprocess.run(
            [sys.executable, "-W", "ignore", program, sink.http_address],
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
            cwd=folder,
            env={**os.environ, **env},
        )
        assert done.returncode == 0, done.stderr
        self.errors = done.stderr
        self.names = Counter(span.name for span in sink.spans)
        self.scored = {span.name for span in sink.spans if ON_SPAN in {pair.key for pair in span.attributes}}
        by_id = {span.span_id: span.name for span in sink.spans}
        self.judged = {by_id.get(span.parent_span_id) for span in sink.spans if span.name == VERDICT}


@pytest.mark.needs("phoenix.otel")
def test_phoenix_register(sink: Sink, tmp_path: Path) -> None:
    ran = Ran(
        """
from phoenix.otel import HTTPSpanExporter, register
provider = register(endpoint=BACKEND, project_name="app", verbose=False)
provider.add_span_processor(ScoringSpanProcessor(HTTPSpanExporter(endpoint=BACKEND), scorers=["latency"]))

tracer = provider.get_tracer("app")

@tracer.agent
def answer(question):
    return look_up(question)

@tracer.tool
def look_up(question):
    return "sunny"

answer("weather")
""",
        sink,
        tmp_path,
    )

    assert ran.names == {"answer": 1, "look_up": 1}
    assert ran.scored == {"answer"}
    assert "exported twice" not in ran.errors


@pytest.mark.needs("mlflow")
def test_mlflow_tracing(sink: Sink, tmp_path: Path) -> None:
    ran = Ran(
        """
import mlflow
from mlflow.tracing import get_bridged_tracer_provider
get_bridged_tracer_provider().add_span_processor(
    ScoringSpanProcessor(OTLPSpanExporter(BACKEND), scorers=["latency"], export_spans=False)
)

@mlflow.trace(span_type="AGENT")
def answer(question):
    return look_up(question)

@mlflow.trace(span_type="TOOL")
def look_up(question):
    return "sunny"

answer("weather")
""",
        sink,
        tmp_path,
        MLFLOW_TRACKING_URI=sink.http_address.removesuffix("/v1/traces"),
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=sink.http_address,
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
    )

    assert ran.names == {"answer": 1, "look_up": 1, VERDICT: 1}
    assert ran.judged == {"answer"}


@pytest.mark.needs("logfire")
def test_logfire_configure(sink: Sink, tmp_path: Path) -> None:
    ran = Ran(
        """
import logfire
logfire.configure(
    send_to_logfire=False,
    console=False,
    additional_span_processors=[ScoringSpanProcessor(OTLPSpanExporter(BACKEND), scorers=["latency"])],
)

with logfire.span("answer"):
    with logfire.span("look up"):
        logfire.info("found")
""",
        sink,
        tmp_path,
    )

    assert ran.names == {"answer": 1, "look up": 1, "found": 1}
    assert ran.scored == {"answer"}


@pytest.mark.needs("langfuse")
def test_langfuse_client(sink: Sink, tmp_path: Path) -> None:
    ran = Ran(
        """
from langfuse import Langfuse, observe
from opentelemetry import trace
langfuse = Langfuse(public_key="pk", secret_key="sk", base_url=BACKEND.removesuffix("/v1/traces"))
trace.get_tracer_provider().add_span_processor(
    ScoringSpanProcessor(OTLPSpanExporter(BACKEND), scorers=["latency"], export_spans=False)
)

@observe()
def answer(question):
    return look_up(question)

@observe(as_type="tool")
def look_up(question):
    return "sunny"

answer("weather")
""",
        sink,
        tmp_path,
    )

    assert ran.names == {"answer": 1, "look_up": 1, VERDICT: 1}
    assert ran.judged == {"answer"}


@pytest.mark.needs("traceloop.sdk")
@pytest.mark.parametrize("shape", ["{}", "[{}]"], ids=["one processor", "a list"])
def test_traceloop_init(shape: str, sink: Sink, tmp_path: Path) -> None:
    processor = 'ScoringSpanProcessor(OTLPSpanExporter(BACKEND), scorers=["latency"])'
    ran = Ran(
        f"""
from traceloop.sdk import Traceloop
from traceloop.sdk.decorators import tool, workflow
Traceloop.init(app_name="app", telemetry_enabled=False, processor={shape.format(processor)}, instruments=set())

@workflow(name="answer")
def answer(question):
    return look_up(question)

@tool(name="look_up")
def look_up(question):
    return "sunny"

answer("weather")
""",
        sink,
        tmp_path,
        TRACELOOP_TELEMETRY="FALSE",
        TRACELOOP_METRICS_ENABLED="false",
    )

    assert ran.names == {"answer.workflow": 1, "look_up.tool": 1}
    assert ran.scored == {"answer.workflow"}
