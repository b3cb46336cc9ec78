"""The configurations for a Collector before, behind and around sidecars, with a real Collector and Jaeger behind it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from tests.backends.products import Jaeger, Verdict, jaeger
from tests.backends.servers import wait_until
from tests.e2e.collector import Collector, free_address
from tests.e2e.sidecar import Sidecar
from tests.e2e.sink import Sink

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

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


def send_traces(address: str) -> dict[bytes, bool]:
    """
    Trace an application that fails one tool call in four, through the SDK's own exporter.

    Returns:
        The trace ids, and of each whether no tool failed.
    """
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"http://{address}", insecure=True)))
    tracer = provider.get_tracer("app")
    ids: dict[bytes, bool] = {}
    for number in range(TRACES):
        with tracer.start_as_current_span("agent") as root:
            ids[root.get_span_context().trace_id.to_bytes(16, "big")] = number % 4 != 0
            with tracer.start_as_current_span("chat"):
                pass
            with tracer.start_as_current_span("tool") as tool:
                tool.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"})
                if number % 4 == 0:
                    tool.set_attribute("error.type", "timeout")
    assert provider.force_flush()
    provider.shutdown()
    return ids


class Behind(Protocol):
    """What takes everything in the end."""

    @property
    def address(self) -> str:
        """Where it takes OTLP/gRPC, as URL."""
        ...

    def assert_scored(self, ids: Mapping[bytes, bool]) -> None:
        """Say that every span arrived once and so did every verdict, on whole traces."""
        ...


class OwnSink:
    """The tests' own backend, which keeps every span as it came."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.address = sink.grpc

    def assert_scored(self, ids: Mapping[bytes, bool]) -> None:
        scores = self._sink.wait_for_scores(2 * TRACES, *ids)
        self._sink.wait_for_spans(SPANS * TRACES, *ids)
        arrived = Counter(span.trace_id for span in self._sink.raw_of(*ids))
        assert Counter(arrived.values()) == {SPANS: TRACES}
        assert len(scores) == 2 * TRACES
        assert {score.raw.trace_id: score.value for score in scores if score.name == "tool_errors"} == ids
        assert all(score.attributes["otel_scorer.complete"] is True for score in scores)


class OwnJaeger:
    """Jaeger, asked over its API."""

    def __init__(self, jaeger: Jaeger) -> None:
        self._jaeger = jaeger
        self.address = jaeger.url

    def assert_scored(self, ids: Mapping[bytes, bool]) -> None:
        for trace, fine in ids.items():
            expected = [Verdict("latency", passed=None), Verdict("tool_errors", passed=fine)]
            found = wait_until(partial(self._jaeger.evaluations, trace.hex()), lambda found: len(found) >= 2)
            assert found == expected
            wait_until(partial(self._jaeger.spans, trace.hex()), lambda spans: len(spans) >= SPANS + 2)
            assert len(self._jaeger.spans(trace.hex())) == SPANS + 2


@pytest.fixture(params=["own sink", "jaeger"])
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Behind]:
    if request.param == "jaeger":
        with jaeger(tmp_path) as running:
            yield OwnJaeger(running)
    else:
        sink = Sink()
        yield OwnSink(sink)
        sink.close()


def test_an_application_a_sidecar_and_a_collector_behind_it(
    behind: Behind, start: Callable[..., Sidecar], collect: Callable[..., Collector]
) -> None:
    collector = free_address()
    collect("collector-behind-sidecar.yaml", {"127.0.0.1:14317": collector}, behind.address)
    sidecar = start("--export", f"http://{collector}", *SCORERS)

    ids = send_traces(sidecar.grpc)

    behind.assert_scored(ids)


def test_a_collector_that_sends_to_a_sidecar_and_takes_back_what_it_exports(
    behind: Behind, start: Callable[..., Sidecar], collect: Callable[..., Collector]
) -> None:
    before, after = free_address(), free_address()
    sidecar = start("--http", "off", "--export", f"http://{after}", *SCORERS)
    addresses = {
        "127.0.0.1:4317": before,
        "127.0.0.1:4318": free_address(),
        "127.0.0.1:14317": after,
        "127.0.0.1:24317": sidecar.grpc,
    }
    collect("collector-sidecar.yaml", addresses, behind.address)

    ids = send_traces(before)

    behind.assert_scored(ids)


def test_a_collector_that_spreads_traces_over_sidecars_by_their_id(
    behind: Behind, start: Callable[..., Sidecar], collect: Callable[..., Collector], tmp_path: Path
) -> None:
    before = free_address()
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    first, second = (start("--http", "off", "--export", behind.address, f"file:{file}", *SCORERS) for file in files)
    addresses = {
        "127.0.0.1:4317": before,
        "127.0.0.1:4318": free_address(),
        "127.0.0.1:24317": first.grpc,
        "127.0.0.1:24327": second.grpc,
    }
    collect("collector-loadbalancing.yaml", addresses, behind.address)

    ids = send_traces(before)

    behind.assert_scored(ids)
    # Each sidecar had some of them; that none was cut in two is what the complete verdicts say.
    assert (first.stop(), second.stop()) == (0, 0)
    assert all(file.stat().st_size for file in files)
