"""A FastAPI application with OpenAI's client, which knows nothing of otel_scorer, under `opentelemetry-instrument`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integrations.in_app.backends import Server, attributes_of, bin_of, free_port, until
from tests.otlp_sink import Sink

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.needs("fastapi", "openai", "opentelemetry.instrumentation.auto_instrumentation"),
]

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "zero_code"
VERDICT = "otel_scorer.says_the_temperature.value"
REASON = "otel_scorer.close_reason"
ROOT = "GET /ask"


@pytest.fixture
def model() -> Iterator[str]:
    with subprocess.Popen([sys.executable, EXAMPLE / "model.py", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture
def ask(sink: Sink, model: str, serve: Callable[..., Server], tmp_path: Path) -> Callable[..., Server]:
    """Start the application, ask it something, and wait until the backend has its span."""
    folder = tmp_path / "app"
    shutil.copytree(EXAMPLE, folder)
    backend = sink.http_address.removesuffix("/v1/traces")

    def start(**env: str) -> Server:
        port = free_port()
        common = {
            "OPENAI_BASE_URL": model,
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_TRACES_EXPORTER": "otel_scorer",
        }
        command = [bin_of("opentelemetry-instrument"), sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)]
        server = serve(command, folder, port, **common, **env)
        assert "18 C in Paris" in server.get("/ask?question=weather"), server.log
        return server

    return start


def scored(sink: Sink) -> bool:
    return any(VERDICT in root for root in attributes_of(sink, ROOT))


def test_the_hook_has_a_request_scored_when_it_is_over(ask: Callable[..., Server], sink: Sink) -> None:
    server = ask(OTEL_SCORER_SCORERS="judges,latency", OTEL_SCORER_EMIT="attributes")

    assert until(lambda: scored(sink)), server.log
    [root] = attributes_of(sink, ROOT)
    assert root[VERDICT] is True
    assert root["otel_scorer.latency.value"] > 0
    assert root[REASON] == "all_closed"


def test_the_end_of_the_server_waits_for_scores_if_asked_to(ask: Callable[..., Server], sink: Sink) -> None:
    server = ask(OTEL_SCORER_SCORERS="judges", OTEL_SCORER_FLUSH_ON_SIGTERM="true", OTEL_SCORER_CONFIG="")

    server.end()

    assert scored(sink), server.log


def test_the_exporter_alone_waits_until_nothing_more_comes(
    ask: Callable[..., Server], sink: Sink, tmp_path: Path
) -> None:
    (tmp_path / "quiet.yaml").write_text("scorers: [judges]\nassembly: {root_grace: 200ms}")

    server = ask(OTEL_SCORER_CONFIG=str(tmp_path / "quiet.yaml"))

    assert until(lambda: scored(sink)), server.log
    [root] = attributes_of(sink, ROOT)
    assert (root[VERDICT], root[REASON]) == (True, "root_quiet")


@pytest.mark.needs("opentelemetry.configuration")
@pytest.mark.parametrize(("scorers", "reason"), [("", "root_quiet"), ("judges", "all_closed")])
def test_a_declarative_configuration_names_the_exporter(
    scorers: str, reason: str, ask: Callable[..., Server], sink: Sink, tmp_path: Path
) -> None:
    # Without a propagator the instrumentation of FastAPI fails, whatever the exporter.
    (tmp_path / "quiet.yaml").write_text("assembly: {root_grace: 200ms}")
    (tmp_path / "sdk.yaml").write_text(
        f"""
file_format: "1.0"
propagator: {{composite: [{{tracecontext: {{}}}}]}}
tracer_provider:
  processors:
    - batch:
        schedule_delay: 100
        exporter:
          otel_scorer:
            scorers: [judges]
            config: {tmp_path}/quiet.yaml
            endpoint: {sink.http_address}
"""
    )

    server = ask(OTEL_CONFIG_FILE=str(tmp_path / "sdk.yaml"), OTEL_SCORER_SCORERS=scorers)

    assert until(lambda: scored(sink)), server.log
    [root] = attributes_of(sink, ROOT)
    assert (root[VERDICT], root[REASON]) == (True, reason)


@pytest.mark.needs("opentelemetry.configuration")
def test_a_processor_node_leaves_tracing_off_and_the_application_alone(
    ask: Callable[..., Server], sink: Sink, tmp_path: Path
) -> None:
    (tmp_path / "sdk.yaml").write_text(
        'file_format: "1.0"\ntracer_provider:\n  processors:\n    - otel_scorer: {scorers: [latency]}\n'
    )

    server = ask(OTEL_CONFIG_FILE=str(tmp_path / "sdk.yaml"), OTEL_SCORER_SCORERS="judges")

    server.end()
    assert sink.spans == []
    assert "processor type" in server.log


def test_a_mistake_is_shown_and_spans_are_exported_as_they_are(ask: Callable[..., Server], sink: Sink) -> None:
    server = ask(OTEL_SCORER_SCORERS="nothing_there")

    assert until(lambda: bool(attributes_of(sink, ROOT))), server.log
    assert not scored(sink)
    assert server.log.count("otel_scorer scores nothing") == 1


def test_the_example_is_what_its_page_says(model: str, serve: Callable[..., Server], tmp_path: Path) -> None:
    folder = tmp_path / "app"
    shutil.copytree(EXAMPLE, folder)
    port = free_port()
    command = [bin_of("opentelemetry-instrument"), bin_of("uvicorn"), "app:app", "--port", str(port)]

    server = serve(
        command, folder, port, OPENAI_BASE_URL=model, OTEL_CONFIG_FILE="sdk.yaml", OTEL_SCORER_SCORERS="judges,latency"
    )
    server.get("/ask?question=weather")

    assert until(lambda: VERDICT in server.log), server.log
