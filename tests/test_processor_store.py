"""The processor follows a store of registered scorers while the application runs."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context
from tests.instrumented_app import WAIT, App, Exporter, span_count

from otel_scorer import ConfigError, ScorerSamplingConfig, ScoringSpanProcessor
from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.running.followed import StoreFollower
from otel_scorer.pipeline.running.selection import Selection
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.scorers.registry import get_scorer

ROOT = Path(__file__).resolve().parent.parent
EVERY_TRACE = ScorerSamplingConfig(sample_rate=1.0)

SCORERS = """
from otel_scorer import Scorer, scorer


@scorer
def has_spans(trace) -> bool:
    return bool(trace.spans)


class Counting(Scorer):
    name: str = "counting"
    step: int = 1

    def __init__(self, **data):
        super().__init__(**data)
        self.count = 0

    def __call__(self, trace) -> int:
        self.count += self.step
        return self.count
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def register(tmp_path: Path, store: Path) -> Callable[..., Any]:
    (tmp_path / "live_scorers.py").write_text(SCORERS, encoding="utf-8")

    def register(attribute: str, **fields: Any) -> Any:
        [made] = load_scorers([f"{tmp_path / 'live_scorers.py'}:{attribute}"])
        return type(made)(**fields).register(store=store) if fields else made.register(store=store)

    return register


@pytest.fixture
def app(store: Path) -> Iterator[Callable[..., App]]:
    made: list[App] = []

    def make(*scorers: Any, **options: Any) -> App:
        made.append(App(*scorers, **{"store": store, **options}))
        return made[-1]

    yield make
    for each in made:
        each.provider.shutdown()


class Bare(App):
    """An application without scorers of its own."""

    def __init__(self, store: Path) -> None:
        self.exporter = Exporter()
        self.processor = ScoringSpanProcessor(self.exporter, store=store, forwarding="hold_trace")
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("app")


@pytest.fixture
def bare(store: Path) -> Iterator[Bare]:
    made = Bare(store)
    yield made
    made.provider.shutdown()


def decisions(app: App) -> dict[str, Any]:
    """Run a trace and return what came of each scorer."""
    found = app.processor.wait_for_scores(app.trace(), WAIT)
    return {each.scorer: each.feedbacks[0].value if each.feedbacks else each.outcome for each in found}


def eventually(app: App, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Run traces until their decisions are as wanted: a change takes up to a second to arrive."""
    pause = threading.Event()
    for _ in range(int(WAIT / 0.05)):
        if wanted(found := decisions(app)):
            return found
        pause.wait(0.05)
    return decisions(app)


def test_what_is_started_when_the_application_starts_judges_the_first_trace(
    app: Callable[..., App], register: Callable[..., Any]
) -> None:
    register("has_spans").start(sampling_config=EVERY_TRACE)
    register("Counting")

    assert decisions(app(span_count)) == {"span_count": 3, "has_spans": True}


def test_starting_updating_and_stopping_are_followed(app: Callable[..., App], register: Callable[..., Any]) -> None:
    running = app(span_count)
    assert decisions(running) == {"span_count": 3}

    started = register("has_spans").start(sampling_config=EVERY_TRACE)
    assert eventually(running, lambda found: len(found) == 2) == {"span_count": 3, "has_spans": True}

    filtered = started.update(sampling_config=ScorerSamplingConfig(filter_string="span.type = 'TOOL'"))
    assert eventually(running, lambda found: found["has_spans"] is not True)["has_spans"] is Outcome.FILTERED

    filtered.stop()
    assert eventually(running, lambda found: len(found) == 1) == {"span_count": 3}


def test_without_scorers_of_its_own_it_waits_for_the_store(bare: Bare, register: Callable[..., Any]) -> None:
    assert decisions(bare) == {}

    register("has_spans").start(sampling_config=EVERY_TRACE)

    assert eventually(bare, bool) == {"has_spans": True}
    assert bare.names.count("root") >= 2


def test_a_trace_that_is_open_when_scorers_change_is_scored_by_the_new_ones(
    app: Callable[..., App], register: Callable[..., Any]
) -> None:
    running = app(span_count)
    root = running.tracer.start_span("root")
    register("has_spans").start(sampling_config=EVERY_TRACE)
    eventually(running, lambda found: len(found) == 2)
    root.end()
    found = running.processor.wait_for_scores(root.get_span_context().trace_id, WAIT)

    assert [each.scorer for each in found] == ["span_count", "has_spans"]


def test_the_last_scorer_that_stops_leaves_open_traces_whole(bare: Bare, register: Callable[..., Any]) -> None:
    started = register("has_spans").start(sampling_config=EVERY_TRACE)
    eventually(bare, bool)
    root = bare.tracer.start_span("held root")
    bare.tracer.start_span("held child", context=set_span_in_context(root)).end()
    assert "held child" not in bare.names

    started.stop()
    eventually(bare, lambda found: not found)
    root.end()

    assert {"held root", "held child"} <= set(bare.names)


def test_a_scorer_that_did_not_change_keeps_its_state(app: Callable[..., App], register: Callable[..., Any]) -> None:
    register("Counting").start(sampling_config=EVERY_TRACE)
    running = app(span_count)
    first = decisions(running)["counting"]

    register("has_spans").start(sampling_config=EVERY_TRACE)
    found = eventually(running, lambda found: "has_spans" in found)

    assert found["counting"] > first


def test_another_version_takes_over(app: Callable[..., App], register: Callable[..., Any]) -> None:
    register("Counting").start(sampling_config=EVERY_TRACE)
    running = app(span_count)
    assert decisions(running)["counting"] == 1

    register("Counting", step=100)

    assert eventually(running, lambda found: found["counting"] >= 100)["counting"] == 100


def test_one_that_cannot_be_loaded_is_said_and_the_others_run(
    app: Callable[..., App], register: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register("has_spans").start(sampling_config=EVERY_TRACE)
    gone = tmp_path / "gone.py"
    gone.write_text(SCORERS.replace("has_spans", "gone"), encoding="utf-8")
    load_scorers([f"{gone}:gone"])[0].register(store=tmp_path / "store.db").start(sampling_config=EVERY_TRACE)
    gone.unlink()

    with caplog.at_level(logging.WARNING):
        found = decisions(app(span_count))

    assert found == {"span_count": 3, "has_spans": True}
    assert caplog.text.count("'gone' does not run") == 1


def test_a_store_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 100, encoding="utf-8")

    with pytest.raises(ConfigError, match="not a database"):
        App(store=tmp_path / "notes.txt")


# The follower by itself.


def test_a_store_that_is_replaced_is_followed_on(store: Path, register: Callable[..., Any], tmp_path: Path) -> None:
    seen: list[list[str]] = []
    changed = threading.Condition()

    def on_change(selections: Any) -> None:
        with changed:
            seen.append([each.prepared.name for each in selections])
            changed.notify_all()

    follower = StoreFollower(store, Selection, on_change, interval=0.01)
    assert follower.load() == []
    follower.start()
    try:
        register("has_spans").start(sampling_config=EVERY_TRACE)
        with changed:
            assert changed.wait_for(lambda: seen[-1:] == [["has_spans"]], WAIT)
        other = tmp_path / "other"
        other.mkdir()
        load_scorers(["latency"])[0].register(store=other / "store.db").start(sampling_config=EVERY_TRACE)
        for suffix in ("-wal", "-shm"):
            Path(f"{store}{suffix}").unlink(missing_ok=True)
        shutil.move(other / "store.db", store)
        with changed:
            assert changed.wait_for(lambda: seen[-1:] == [["latency"]], WAIT)
    finally:
        follower.shutdown(WAIT)


def test_what_could_not_be_loaded_is_tried_again(store: Path, register: Callable[..., Any], tmp_path: Path) -> None:
    now = [0.0]
    register("has_spans").start(sampling_config=EVERY_TRACE)
    code = tmp_path / "live_scorers.py"
    code.rename(tmp_path / "away.py")
    follower = StoreFollower(store, Selection, lambda _: None, clock=lambda: now[0])
    assert follower.load() == []
    (tmp_path / "away.py").rename(code)

    assert follower.load() == []
    now[0] = 10.0
    [selection] = follower.load()

    assert selection.prepared.name == "has_spans"


def test_what_could_not_be_loaded_at_first_is_tried_when_following_begins(
    store: Path, register: Callable[..., Any], tmp_path: Path
) -> None:
    register("has_spans").start(sampling_config=EVERY_TRACE)
    code = tmp_path / "live_scorers.py"
    code.rename(tmp_path / "away.py")
    changed = threading.Event()
    follower = StoreFollower(store, Selection, lambda _: changed.set(), clock=lambda: 0.0)
    assert follower.load() == []
    (tmp_path / "away.py").rename(code)

    follower.start()

    assert changed.wait(WAIT)
    follower.shutdown(WAIT)


FORKING = """
import os, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_scorer import ScorerSamplingConfig, ScoringSpanProcessor
from otel_scorer.scorers.registry import get_scorer
import threading

processor = ScoringSpanProcessor(InMemorySpanExporter(), store=sys.argv[1])
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)

def names():
    with provider.get_tracer("app").start_as_current_span("root") as root:
        pass
    return [each.scorer for each in processor.wait_for_scores(root.get_span_context().trace_id)]

def wait_for(wanted):
    for _ in range(300):
        if names() == wanted:
            return True
        threading.Event().wait(0.05)
    return False

assert wait_for([])
child = os.fork()
scorer = get_scorer(name="has_spans", store=sys.argv[1])
if not child:
    is_followed = wait_for(["has_spans"])
    os._exit(0 if is_followed else 1)
scorer.start(sampling_config=ScorerSamplingConfig(sample_rate=1.0))
assert wait_for(["has_spans"])
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_follows_for_itself(store: Path, register: Callable[..., Any]) -> None:
    register("has_spans")

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(store)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert get_scorer(name="has_spans", store=store).sample_rate == 1.0
