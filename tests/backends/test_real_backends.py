"""
An agent's traces go from its SDK through a sidecar to Phoenix, MLflow, Jaeger and Tempo themselves, and their verdicts
are found there: each once, by query, by the documented filters, and on the screen.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.backends.products import SERVERS, Backend, Mlflow, Phoenix, Verdict
from tests.backends.scorers import NAMES
from tests.backends.servers import wait_until
from tests.chromium import CHROMIUM, Page, chromium
from tests.e2e.sidecar import Gate, Sidecar, id_of, small_trace

from otel_scorer.demo.agent import Agent, exporter_to, make_provider
from otel_scorer.demo.rules import QUESTIONS
from otel_scorer.testing import make_request, make_span

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
LATE = f"{HERE / 'scorers.py'}:late"
PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
# Where screenshots go for the documentation, if anywhere.
IMAGES = os.environ.get("OTEL_SCORER_IMAGES")
with_score_api = pytest.mark.parametrize("backend", ["phoenix", "mlflow"], indirect=True)
FINE = [Verdict("redundant_tool_calls", passed=True), Verdict("tool_errors", passed=True)]
# Of the demo's questions these make its agent call a tool that fails, and one tool twice.
FAILING, REPEATING = QUESTIONS[1], QUESTIONS[2]


@pytest.fixture(scope="module", params=SERVERS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    name = str(request.param)
    with SERVERS[name](tmp_path_factory.mktemp(name)) as running:
        yield running


@pytest.fixture
def launch(backend: Backend) -> Iterator[Callable[..., Sidecar]]:
    started: list[Sidecar] = []

    def start(
        *flags: str, scorers: tuple[str, ...] = ("tool_errors", "redundant_tool_calls"), **more: object
    ) -> Sidecar:
        sidecar = Sidecar(
            *("--preset", backend.name, "--export", backend.url, "--scorers", *scorers, "--root-grace", "0.3", *flags),
            **more,  # type: ignore[arg-type]  # passed on as they are
        )
        started.append(sidecar)
        return sidecar

    yield start
    for sidecar in started:
        sidecar.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


def new_trace() -> tuple[int, str]:
    trace = int.from_bytes(os.urandom(16), "big")
    return trace, id_of(trace).hex()


def ask_agent(sidecar: Sidecar, *questions: str) -> list[str]:
    """Let the agent of the demo answer questions, traced by the SDK, and return the trace ids."""
    provider = make_provider(exporter_to(sidecar.grpc))
    seen = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    agent = Agent(provider.get_tracer("travel_demo"), pace=0.1)
    for number, question in enumerate(questions, start=1):
        agent.ask(question, number)
    provider.shutdown()
    roots = [span.get_span_context() for span in seen.get_finished_spans() if span.parent is None]
    return [format(root.trace_id, "032x") for root in roots if root is not None]


def verdicts(backend: Backend, trace: str) -> tuple[list[Verdict], list[Verdict]]:
    return backend.scores(trace), backend.evaluations(trace)


def wait_for_verdicts(backend: Backend, trace: str, expected: list[Verdict]) -> None:
    """Wait until a trace has its scores and its evaluation spans; that there are no more is for the caller to say."""
    wait_until(partial(verdicts, backend, trace), lambda both: all(set(expected) <= set(found) for found in both))


def test_every_verdict_is_there_and_the_documented_filters_find_exactly_the_bad_traces(
    backend: Backend, launch: Callable[..., Sidecar]
) -> None:
    sidecar = launch()
    asked = [*QUESTIONS, FAILING]
    traces = ask_agent(sidecar, *asked)
    expected = {
        trace: [
            Verdict("redundant_tool_calls", passed=question != REPEATING),
            Verdict("tool_errors", passed=question != FAILING),
        ]
        for trace, question in zip(traces, asked, strict=True)
    }
    for trace in traces:
        wait_for_verdicts(backend, trace, expected[trace])
    assert sidecar.stop() == 0

    assert {trace: verdicts(backend, trace) for trace in traces} == {
        trace: (each, each) for trace, each in expected.items()
    }
    bad = {trace for trace, question in zip(traces, asked, strict=True) if question == FAILING}
    for text, search in backend.searches.items():
        found = wait_until(partial(search, text), bad.issubset)
        assert found & set(traces) == bad, text
    page = PAGE.read_text(encoding="utf-8")
    assert [text for text in backend.searches if text not in page] == []


@with_score_api
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_score_is_on_the_screen(backend: Phoenix | Mlflow, launch: Callable[..., Sidecar], tmp_path: Path) -> None:
    sidecar = launch()
    traces = ask_agent(sidecar, *QUESTIONS)
    for trace in traces:
        wait_until(partial(backend.scores, trace), lambda found: len(found) == len(FINE))
    bad = traces[QUESTIONS.index(FAILING)]
    assert sidecar.stop() == 0

    with chromium(tmp_path / "profile") as page:
        page.resize(2100, 600)
        page.call("Page.navigate", url=backend.page(bad))
        wait_until(partial(text_of, page), lambda text: re.search(backend.shown, text) is not None)
        # Offers of help lie over the scores.
        page.run("document.querySelectorAll('button[aria-label^=Close]').forEach(button => button.click())")
        if IMAGES is not None:
            page.run("new Promise(resolve => setTimeout(resolve, 2000))")
            page.screenshot(Path(IMAGES) / f"{backend.name}.png")


def text_of(page: Page) -> str:
    return str(page.run("document.body === null ? '' : document.body.innerText"))


def test_a_trace_that_is_delivered_again_has_each_verdict_once(
    backend: Backend, launch: Callable[..., Sidecar], tmp_path: Path
) -> None:
    number, trace = new_trace()
    for delivery in range(2):
        # What the sidecar sends goes to a file too, where it can be seen that it was sent again.
        sent = tmp_path / f"{delivery}.jsonl"
        sidecar = launch("--export", f"file:{sent}")
        sidecar.send(small_trace(number))
        wait_until(partial(evaluations_in, sent), lambda number: number == len(FINE))
        wait_for_verdicts(backend, trace, FINE)
        sidecar.send(small_trace(number))
        assert sidecar.stop() == 0

        assert verdicts(backend, trace) == (FINE, FINE)


def test_a_sidecar_that_is_killed_in_between_leaves_each_verdict_once(
    backend: Backend, launch: Callable[..., Sidecar], tmp_path: Path
) -> None:
    number, trace = new_trace()
    sidecar = launch()
    sidecar.send(small_trace(number))
    wait_until(partial(verdicts, backend, trace), any)
    sidecar.process.kill()
    sidecar.wait()

    sent = tmp_path / "again.jsonl"
    sidecar = launch("--export", f"file:{sent}")
    sidecar.send(small_trace(number))
    wait_until(partial(evaluations_in, sent), lambda number: number == len(FINE))
    wait_for_verdicts(backend, trace, FINE)
    assert sidecar.stop() == 0
    assert verdicts(backend, trace) == (FINE, FINE)


def evaluations_in(file: Path) -> int:
    return file.read_text("utf-8").count('"name":"evaluation ') if file.exists() else 0


def test_a_verdict_that_is_late_is_there_once(backend: Backend, launch: Callable[..., Sidecar], gate: Gate) -> None:
    number, trace = new_trace()
    sidecar = launch(scorers=("tool_errors", LATE), environment=gate.environment)
    sidecar.send(small_trace(number))
    assert gate.wait_for_scorer() == trace
    wait_until(partial(backend.has, trace), bool)
    assert "late" not in str(verdicts(backend, trace))
    gate.open()

    expected = [Verdict("late", passed=True), Verdict("tool_errors", passed=True)]
    wait_for_verdicts(backend, trace, expected)
    assert sidecar.stop() == 0
    assert verdicts(backend, trace) == (expected, expected)


def test_a_sidecar_that_is_killed_before_a_verdict_gives_it_from_its_spool(
    backend: Backend, launch: Callable[..., Sidecar], gate: Gate, tmp_path: Path
) -> None:
    number, trace = new_trace()
    scorers = ("tool_errors", LATE)
    spool = ("--spool", str(tmp_path / "spool"))
    sidecar = launch(*spool, scorers=scorers, environment=gate.environment)
    sidecar.send(small_trace(number))
    assert gate.wait_for_scorer() == trace
    sidecar.process.kill()
    sidecar.wait()
    gate.open()

    sidecar = launch(*spool, scorers=scorers, environment=gate.environment)
    assert gate.wait_for_scorer() == trace
    gate.open()
    expected = [Verdict("late", passed=True), Verdict("tool_errors", passed=True)]
    wait_for_verdicts(backend, trace, expected)
    assert sidecar.stop() == 0
    assert verdicts(backend, trace) == (expected, expected)


@with_score_api
def test_a_verdict_that_was_thought_better_of_takes_the_place_of_the_first(
    backend: Backend, launch: Callable[..., Sidecar], tmp_path: Path
) -> None:
    number, trace = new_trace()
    config = tmp_path / "sidecar.yaml"
    config.write_text("assembly: {late_spans: rescore}\n", encoding="utf-8")
    sidecar = launch("-c", str(config), scorers=("tool_errors",))
    sidecar.send(small_trace(number))
    first, second = Verdict("tool_errors", passed=True), Verdict("tool_errors", passed=False)
    wait_for_verdicts(backend, trace, [first])

    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "error.type": "Timeout"}
    sidecar.send(make_request(make_span("late", trace=number, span=9, parent=1, status="ERROR", attributes=tool)))
    wait_for_verdicts(backend, trace, [second])
    assert sidecar.stop() == 0
    # One score; each revision is an evaluation span of its own.
    assert verdicts(backend, trace) == ([second], [second, first])


@with_score_api
def test_scores_that_come_before_their_trace_wait_for_it(
    backend: Backend, launch: Callable[..., Sidecar], tmp_path: Path
) -> None:
    number, trace = new_trace()
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
        sidecar.send(small_trace(number))
        sidecar.wait_for_log("Will send scores to")
        assert backend.scores(trace) == []

        later = launch("--emit", "evaluation_span", scorers=("tool_errors",))
        later.send(small_trace(number))
        expected = [Verdict("tool_errors", passed=True)]
        wait_for_verdicts(backend, trace, expected)
        assert verdicts(backend, trace) == (expected, expected)
    finally:
        sidecar.close()


def test_no_name_and_no_length_is_refused(backend: Backend, launch: Callable[..., Sidecar]) -> None:
    number, trace = new_trace()
    sidecar = launch(scorers=(f"{HERE / 'scorers.py'}:odd", "tool_errors"))
    sidecar.send(small_trace(number))
    number_of_verdicts = len(NAMES) + 3
    wait_until(partial(verdicts, backend, trace), lambda both: all(len(found) >= number_of_verdicts for found in both))
    assert sidecar.stop() == 0

    assert [len(found) for found in verdicts(backend, trace)] == [number_of_verdicts] * 2
    assert "Dropped" not in sidecar.log
