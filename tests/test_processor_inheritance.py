"""What scorers do themselves: spans on threads that they start, and on pools that they share, are never scored."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import get_value
from tests.instrumented_app import WAIT, App, Gate

from otel_scorer.config import app_settings
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.inheritance import inherit_context
from otel_scorer.pipeline.running.suppression import is_suppressed, suppressed
from otel_scorer.processor import ScoringSpanProcessor
from otel_scorer.scorers.base import scorer
from otel_scorer.telemetry import snapshot


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def names(app: App) -> list[str]:
    """Return what was exported, by scorers too: their spans end after those that have them called."""
    assert app.names
    return app.names


def by_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT)


def by_pool(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(work).result(WAIT)


def by_map(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: work(), range(1)))


def by_pool_of_multiprocessing(work: Callable[[], None]) -> None:
    with ThreadPool(1) as pool:
        pool.apply(work)


def by_timer(work: Callable[[], None]) -> None:
    timer = threading.Timer(0, work)
    timer.start()
    timer.join(WAIT)


def by_thread_of_a_thread(work: Callable[[], None]) -> None:
    by_thread(lambda: by_thread(work))


@pytest.mark.parametrize(
    "way", [by_thread, by_pool, by_map, by_pool_of_multiprocessing, by_timer, by_thread_of_a_thread]
)
@pytest.mark.parametrize("forwarding", ["hold_root", "hold_trace"])
def test_what_a_scorer_does_on_other_threads_is_not_scored(
    way: Callable[[Callable[[], None]], None], forwarding: str
) -> None:
    scored: list[str] = []

    def asks_a_model(trace: Trace) -> bool:
        assert trace.root is not None
        scored.append(trace.root.name)
        way(lambda: app.tracer.start_span("of the scorer").end())
        return True

    app = App(asks_a_model, forwarding=forwarding)
    for _ in range(3):
        app.trace(children=0)

    assert Counter(names(app)) == {"root": 3, "of the scorer": 3}
    assert scored == ["root"] * 3
    app.provider.shutdown()


@pytest.mark.parametrize("way", ["to_thread", "run_in_executor"])
def test_what_a_coroutine_scorer_does_on_other_threads_is_not_scored(way: str) -> None:
    scored: list[str] = []

    async def asks_a_model(trace: Trace) -> bool:
        assert trace.root is not None
        scored.append(trace.root.name)
        work = lambda: app.tracer.start_span("of the scorer").end()  # noqa: E731 - one for both ways
        if way == "to_thread":
            await asyncio.to_thread(work)
        else:
            await asyncio.get_running_loop().run_in_executor(None, work)
        return True

    app = App(asks_a_model)
    app.trace(children=0)

    assert Counter(names(app)) == {"root": 1, "of the scorer": 1}
    assert scored == ["root"]
    app.provider.shutdown()


def test_a_pool_that_a_scorer_was_the_first_to_use_works_for_the_application_as_ever(pool: ThreadPoolExecutor) -> None:
    def uses_the_pool(trace: Trace) -> bool:
        return bool(pool.submit(get_value, SUPPRESS).result(WAIT))

    app = App(uses_the_pool)
    app.trace(children=0)
    assert app["root"].attributes is not None
    assert app["root"].attributes["otel_scorer.uses_the_pool.value"] is True

    assert pool.submit(get_value, SUPPRESS).result(WAIT) is None
    pool.submit(lambda: app.tracer.start_span("of the application").end()).result(WAIT)
    assert app["of the application"].attributes
    app.provider.shutdown()


def test_threads_of_the_application_have_the_context_that_they_always_had() -> None:
    app = App()
    seen: list[object] = []

    with app.tracer.start_as_current_span("root"):
        by_thread(lambda: seen.append(get_value(SUPPRESS)))
        by_thread(lambda: app.tracer.start_span("another root").end())

    assert seen == [None]
    assert app["another root"].parent is None
    app.provider.shutdown()


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("concurrent", [False, True])
def test_what_instrumentations_see_of_a_scorer_is_recorded_when_asked_for_and_never_scored(
    *, traced: bool, is_async: bool, concurrent: bool
) -> None:
    scored: list[str] = []

    def judge(trace: Trace) -> bool:
        assert trace.root is not None
        scored.append(trace.root.name)
        if not get_value(SUPPRESS):  # as instrumentations do
            with app.tracer.start_as_current_span("model call"), app.tracer.start_as_current_span("request"):
                pass
        return True

    async def judge_later(trace: Trace) -> bool:
        await asyncio.sleep(0)
        return judge(trace)

    judging = scorer(judge_later, concurrent=concurrent) if is_async else scorer(judge, concurrent=concurrent)
    app = App(judging, trace_scorers=traced)
    trace_id = app.trace(children=0)

    assert Counter(names(app)) == {"root": 1, **({"model call": 1, "request": 1} if traced else {})}
    assert scored == ["root"]
    if traced:
        call, request = app["model call"], app["request"]
        assert call.parent is None
        assert call.context is not None
        assert call.context.trace_id != trace_id
        assert request.parent is not None
        assert request.parent.span_id == call.context.span_id
    app.provider.shutdown()


def test_the_file_can_ask_for_it_and_says_what_is_for_the_sidecar(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "otel-scorer.yaml"
    path.write_text(
        "scorers: [latency]\nscoring: {trace_scorers: true}\n"
        "assembly: {trigger: root, late_spans: rescore, root_grace: 1s}\nexporters: {file: {path: out.jsonl}}\n"
    )

    settings = app_settings(path)

    assert settings.options["trace_scorers"] is True
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert record.getMessage().startswith("assembly.trigger, assembly.late_spans: for the sidecar alone")
    ScoringSpanProcessor.from_config(path).shutdown()


def test_a_scorer_that_outlives_its_thread_is_no_reason_to_hang() -> None:
    gate = Gate()

    def starts_and_forgets(trace: Trace) -> bool:
        threading.Thread(target=gate.opened.wait, args=(WAIT,), daemon=True).start()
        return True

    app = App(starts_and_forgets)
    before = snapshot().get("processor.errors{where=on_end}", 0)
    app.trace()

    assert app.names.count("root") == 1
    assert snapshot().get("processor.errors{where=on_end}", 0) == before
    app.provider.shutdown()
    gate.opened.set()


def test_a_thread_that_could_not_be_started_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inherit_context()
    seen: list[bool] = []
    name = "_start_new_thread" if hasattr(threading, "_start_new_thread") else "_start_joinable_thread"

    def refuse(*_args: object, **_named: object) -> None:
        raise RuntimeError("can't start new thread")

    with suppressed():
        thread = threading.Thread(target=lambda: seen.append(is_suppressed()))
        with monkeypatch.context() as patch:
            patch.setattr(threading, name, refuse)
            with pytest.raises(RuntimeError):
                thread.start()
        thread.start()
    thread.join(WAIT)

    assert seen == [True]
    with suppressed(), pytest.raises(RuntimeError, match="once"):
        thread.start()
