"""The configurations for a Collector before, behind and around sidecars, with a real Collector."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tests.e2e.collector import Collector, free_address
from tests.e2e.sidecar import Sidecar
from tests.e2e.sink import Sink

pytestmark = pytest.mark.server

TRACES = 40
SPANS = 3
SCORERS = ("--scorers", "latency", "tool_errors", "--root-grace", "0.5")


@pytest.fixture
def collect(tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Start Collectors that end with the test."""
    program = os.environ.get("OTEL_SCORER_OTELCOL") or shutil.which("otelcol")
    if program is None:
        pytest.skip("no OpenTelemetry Collector: build tests/collector/builder.yaml and name it in OTEL_SCORER_OTELCOL")
    started: list[Collector] = []

    def start_one(config: str, addresses: dict[str, str], backend: str) -> Collector:
        collector = Collector(Path(program), config, tmp_path, addresses, backend)
        started.append(collector)
        return collector

    yield start_one
    for collector in started:
        collector.close()


def send_traces(address: str) -> set[bytes]:
    """Trace an application that fails one tool call in four, through the SDK's own exporter; return the trace ids."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"http://{address}", insecure=True)))
    tracer = provider.get_tracer("app")
    ids: set[bytes] = set()
    for number in range(TRACES):
        with tracer.start_as_current_span("agent") as root:
            ids.add(root.get_span_context().trace_id.to_bytes(16, "big"))
            with tracer.start_as_current_span("chat"):
                pass
            with tracer.start_as_current_span("tool") as tool:
                tool.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"})
                if number % 4 == 0:
                    tool.set_attribute("error.type", "timeout")
    assert provider.force_flush()
    provider.shutdown()
    return ids


def assert_scored(sink: Sink, ids: set[bytes]) -> None:
    """Every span arrived once, and so did every verdict, on whole traces."""
    scores = sink.wait_for_scores(2 * TRACES, *ids)
    sink.wait_for_spans(SPANS * TRACES, *ids)
    assert Counter(Counter(span.trace_id for span in sink.raw_of(*ids)).values()) == {SPANS: TRACES}
    assert Counter((score.name, score.value) for score in scores if score.name == "tool_errors") == {
        ("tool_errors", True): TRACES * 3 // 4,
        ("tool_errors", False): TRACES // 4,
    }
    assert all(score.attributes["otel_scorer.complete"] is True for score in scores)


def test_an_application_a_sidecar_and_a_collector_behind_it(
    own_sink: Sink, start: Callable[..., Sidecar], collect: Callable[..., Collector]
) -> None:
    behind = free_address()
    collect("collector-behind-sidecar.yaml", {"127.0.0.1:14317": behind}, own_sink.grpc)
    sidecar = start("--export", f"http://{behind}", *SCORERS)

    ids = send_traces(sidecar.grpc)

    assert_scored(own_sink, ids)


def test_a_collector_that_sends_to_a_sidecar_and_takes_back_what_it_exports(
    own_sink: Sink, start: Callable[..., Sidecar], collect: Callable[..., Collector]
) -> None:
    before, behind = free_address(), free_address()
    sidecar = start("--http", "off", "--export", f"http://{behind}", *SCORERS)
    addresses = {
        "127.0.0.1:4317": before,
        "127.0.0.1:4318": free_address(),
        "127.0.0.1:14317": behind,
        "127.0.0.1:24317": sidecar.grpc,
    }
    collect("collector-sidecar.yaml", addresses, own_sink.grpc)

    ids = send_traces(before)

    assert_scored(own_sink, ids)


def test_a_collector_that_spreads_traces_over_sidecars_by_their_id(
    own_sink: Sink, start: Callable[..., Sidecar], collect: Callable[..., Collector], tmp_path: Path
) -> None:
    before = free_address()
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    first, second = (start("--http", "off", "--export", own_sink.grpc, f"file:{file}", *SCORERS) for file in files)
    addresses = {
        "127.0.0.1:4317": before,
        "127.0.0.1:4318": free_address(),
        "127.0.0.1:24317": first.grpc,
        "127.0.0.1:24327": second.grpc,
    }
    collect("collector-loadbalancing.yaml", addresses, own_sink.grpc)

    ids = send_traces(before)

    assert_scored(own_sink, ids)
    # Each sidecar had some of them; that none was cut in two is what the complete verdicts say.
    assert (first.stop(), second.stop()) == (0, 0)
    assert all(file.stat().st_size for file in files)
