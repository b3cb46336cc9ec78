"""
An agent's traces go from its SDK through a sidecar to Phoenix and MLflow themselves, and their scores are found there.

Their answers are waited for; what they show is looked at in a browser.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode, set_span_in_context
from tests.backends.servers import Backend, installed, mlflow, phoenix
from tests.chromium import CHROMIUM, chromium
from tests.e2e.sidecar import Sidecar, id_of, small_trace

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

SERVERS = {"phoenix": phoenix, "mlflow": mlflow}
WAIT = 60.0
# Where screenshots go for the documentation, if anywhere.
IMAGES = os.environ.get("OTEL_SCORER_IMAGES")


@pytest.fixture(scope="module", params=SERVERS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    name = str(request.param)
    if installed(name) is None:
        pytest.skip(
            f"needs OTEL_SCORER_SERVERS: a folder with an environment {name}, requirements/server-{name}.txt in it"
        )
    with SERVERS[name](tmp_path_factory.mktemp(name)) as running:
        yield running


@pytest.fixture
def launch(backend: Backend) -> Iterator[Callable[..., Sidecar]]:
    started: list[Sidecar] = []

    def start(*flags: str) -> Sidecar:
        sidecar = Sidecar(
            *("--preset", backend.name, "--export", backend.url, "--scorers", "tool_errors", "latency"),
            *("--root-grace", "0.3", *flags),
        )
        started.append(sidecar)
        return sidecar

    yield start
    for sidecar in started:
        sidecar.close()


def ask_agent(sidecar: Sidecar, *, tool_fails: bool) -> str:
    """Let a small agent answer one question, traced by the SDK, and return the trace id."""
    provider = TracerProvider(resource=Resource({"service.name": "travel"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=sidecar.grpc, insecure=True)))
    tracer = provider.get_tracer("agent")
    root = tracer.start_span("travel_agent", attributes={"gen_ai.operation.name": "invoke_agent"})
    tool = tracer.start_span(
        "get_weather",
        set_span_in_context(root),
        attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_weather"},
    )
    if tool_fails:
        tool.set_status(StatusCode.ERROR, "no such city")
    tool.end()
    root.end()
    provider.shutdown()
    context = root.get_span_context()
    return format(context.trace_id, "032x")


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Ask the backend until it says so: it has no way to tell us."""
    deadline, pause = time.monotonic() + WAIT, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what()
        pause.wait(0.3)


def wait_for_scores(backend: Backend, trace: str, number: int) -> dict[str, object]:
    wait_for(lambda: len(backend.scores(trace)) >= number, lambda: backend.scores(trace))
    found = backend.scores(trace)
    assert len(found) == number, found
    return dict(found)


def test_scores_are_there_and_the_filter_finds_exactly_the_bad_traces(
    backend: Backend, launch: Callable[..., Sidecar], tmp_path: Path
) -> None:
    sidecar = launch()
    good = [ask_agent(sidecar, tool_fails=False) for _ in range(3)]
    bad = [ask_agent(sidecar, tool_fails=True) for _ in range(2)]

    for trace in good:
        assert wait_for_scores(backend, trace, 2)["tool_errors"] == 1
    for trace in bad:
        found = wait_for_scores(backend, trace, 2)
        assert found["tool_errors"] == 0
        latency = found["latency"]
        assert isinstance(latency, float)
        assert latency < 60
    assert sidecar.stop() == 0

    wait_for(lambda: set(bad) <= backend.failing(), backend.failing)
    assert backend.failing() & {*good, *bad} == set(bad)
    if CHROMIUM is not None:
        look_at(backend, bad[0], tmp_path / "profile")


def look_at(backend: Backend, trace: str, profile: Path) -> None:
    """Open the page of a trace and wait until its score is on the screen."""
    wait = f"""new Promise(resolve => {{
        const until = Date.now() + 30000, shown = new RegExp({json.dumps(backend.shown)});
        const look = () => shown.test(document.body.innerText) || Date.now() > until
            ? resolve(document.body.innerText) : setTimeout(look, 200);
        look();
    }})"""
    with chromium(profile) as page:
        page.resize(2000, 700)
        page.call("Page.navigate", url=backend.page(trace))
        page.run("new Promise(resolve => addEventListener('load', resolve) || setTimeout(resolve, 3000))")
        text = page.run(wait)
        assert re.search(backend.shown, text), text[-2000:]
        # Offers of help lie over the scores.
        page.run("document.querySelectorAll('button[aria-label^=Close]').forEach(button => button.click())")
        if IMAGES is not None:
            page.run("new Promise(resolve => setTimeout(resolve, 2000))")
            page.screenshot(Path(IMAGES) / f"{backend.name}.png")


def test_a_trace_that_is_delivered_again_has_each_score_once(backend: Backend, launch: Callable[..., Sidecar]) -> None:
    trace = int.from_bytes(os.urandom(16), "big")
    for _ in range(2):
        sidecar = launch()
        sidecar.send(small_trace(trace))
        wait_for_scores(backend, id_of(trace).hex(), 2)
        assert sidecar.stop() == 0

    wait_for_scores(backend, id_of(trace).hex(), 2)


def test_a_sidecar_that_was_killed_in_between_leaves_each_score_once(
    backend: Backend, launch: Callable[..., Sidecar]
) -> None:
    trace = int.from_bytes(os.urandom(16), "big")
    sidecar = launch()
    sidecar.send(small_trace(trace))
    wait_for(lambda: bool(backend.scores(id_of(trace).hex())), lambda: sidecar.log)
    sidecar.process.kill()
    sidecar.wait()

    sidecar = launch()
    sidecar.send(small_trace(trace))
    wait_for_scores(backend, id_of(trace).hex(), 2)
    assert sidecar.stop() == 0
    wait_for_scores(backend, id_of(trace).hex(), 2)


def test_scores_that_come_before_their_trace_wait_for_it(
    backend: Backend, launch: Callable[..., Sidecar], tmp_path: Path
) -> None:
    trace = int.from_bytes(os.urandom(16), "big")
    config = tmp_path / "sidecar.yaml"
    # The spans stay in a file; only the scores go to the backend.
    config.write_text(
        json.dumps(
            {
                "scorers": ["tool_errors"],
                "emit": ["native"],
                "assembly": {"root_grace": "100ms"},
                "exporters": {"file": {"path": str(tmp_path / "spans.jsonl")}, backend.name: {"endpoint": backend.url}},
            }
        ),
        encoding="utf-8",
    )
    sidecar = Sidecar("-c", str(config))
    try:
        sidecar.send(small_trace(trace))
        sidecar.wait_for_log("Will send scores to")
        assert backend.scores(id_of(trace).hex()) == []

        later = launch("--emit", "evaluation_span")
        later.send(small_trace(trace))
        assert wait_for_scores(backend, id_of(trace).hex(), 1) == {"tool_errors": 1}
    finally:
        sidecar.close()
