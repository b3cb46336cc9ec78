"""What the application must never notice: failures, hangs, full queues and the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.context import attach, detach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import set_span_in_context
from tests.instrumented_app import WAIT, App, Gate, attributes, span_count

from otel_scorer.model.decision import Outcome
from otel_scorer.model.trace import Trace
from otel_scorer.scorers.base import scorer
from otel_scorer.telemetry import snapshot


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def test_a_scorer_that_raises_is_not_seen_by_the_application_or_by_other_processors() -> None:
    class Other(SpanProcessor):
        def __init__(self) -> None:
            self.ended: list[str] = []

        def on_end(self, span: ReadableSpan) -> None:
            self.ended.append(span.name)

    def broken(trace: Trace) -> bool:
        msg = "no idea"
        raise RuntimeError(msg)

    app, other = App(broken), Other()
    app.provider.add_span_processor(other)

    app.trace(children=0)

    assert attributes(app["root"])["otel_scorer.broken.error"] == "RuntimeError"
    assert other.ended == ["root"]
    app.provider.shutdown()


def test_a_failure_of_our_own_is_not_seen_by_the_application_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = App(span_count)
    no_span: Any = None
    name = "processor.errors{where=on_end}"
    before = snapshot().get(name, 0)

    for _ in range(3):
        app.processor.on_start(no_span)
        app.processor.on_end(no_span)

    assert [record.message.split()[0] for record in caplog.records] == ["on_start", "on_end"]
    assert snapshot()[name] == before + 3
    assert app.trace()
    assert len(app.exported) == 3
    app.provider.shutdown()


def test_eight_threads_lose_nothing_while_scorers_run() -> None:
    app = App(span_count, scorer(span_count, name="again", concurrent=True))

    with futures.ThreadPoolExecutor(8) as pool:
        trace_ids = list(pool.map(lambda _: app.trace(children=3), range(400)))

    spans = app.exported
    assert len({span.context.span_id for span in spans if span.context}) == len(spans) == 1600
    roots = [span for span in spans if span.name == "root"]
    assert {span.context.trace_id for span in roots if span.context} == set(trace_ids)
    assert all(attributes(root)["otel_scorer.span_count.value"] == 4 for root in roots)
    app.provider.shutdown()


@pytest.mark.parametrize("forwarding", ["hold_root", "hold_trace", "passthrough"])
def test_a_trace_that_eight_threads_share_loses_nothing_while_its_units_are_closed(forwarding: str) -> None:
    app = App(span_count, forwarding=forwarding, max_queue_size=10_000)
    root = app.tracer.start_span("root")
    trace_id, context = root.get_span_context().trace_id, set_span_in_context(root)
    is_over = threading.Event()

    def close_again_and_again() -> None:
        while not is_over.wait(0.001):
            app.processor.flush_trace(trace_id)

    def work(_: int) -> None:
        for _ in range(50):
            with app.tracer.start_as_current_span("child", context=context):
                pass

    closing = threading.Thread(target=close_again_and_again)
    closing.start()
    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    is_over.set()
    closing.join(WAIT)
    root.end()

    spans = [span for span in app.exported if not span.name.startswith("evaluation")]
    assert len({span.context.span_id for span in spans if span.context}) == len(spans) == 401
    app.provider.shutdown()


def test_ending_a_span_does_not_wait_for_a_scorer(gate: Gate) -> None:
    app = App(gate.slow)
    app.trace(children=0)
    assert gate.entered.wait(WAIT)

    begin = time.thread_time()
    for _ in range(100):
        app.trace(children=0)
    used = time.thread_time() - begin

    assert not gate.opened.is_set()
    assert used < 1.0
    gate.opened.set()
    app.provider.shutdown()


def test_flushing_keeps_its_timeout_while_a_scorer_runs(gate: Gate) -> None:
    app = App(gate.slow)
    app.trace()
    assert gate.entered.wait(WAIT)

    begin = time.monotonic()
    in_time = app.processor.force_flush(100)
    took = time.monotonic() - begin

    assert not in_time
    assert 0.09 < took < 5
    gate.opened.set()
    app.provider.shutdown()


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.opened.wait(WAIT)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def test_an_exporter_that_hangs_holds_up_neither_spans_nor_flushes_nor_the_end() -> None:
    exporter = Hanging()
    app = App(span_count, exporter=exporter, shutdown_timeout=0.2)
    app.trace()

    flushed = app.processor.force_flush(100)
    app.trace()
    again = app.processor.force_flush(100)
    app.provider.shutdown()

    assert exporter.entered.is_set()
    assert (flushed, again) == (False, False)
    flushers = [thread for thread in threading.enumerate() if thread.name == "otel-scorer-flush"]
    assert len(flushers) <= 1
    exporter.opened.set()


@pytest.mark.parametrize("fails", [lambda spans: SpanExportResult.FAILURE, lambda spans: 1 / 0])
def test_an_export_that_fails_is_counted(fails: Callable[[Any], Any]) -> None:
    app = App(span_count)
    app.exporter.export = fails  # type: ignore[assignment,method-assign]
    name = "processor.dropped{reason=export_failed}"
    before = snapshot().get(name, 0)

    app.trace(children=1)
    app.processor.force_flush()

    assert snapshot()[name] == before + 2
    app.provider.shutdown()


def test_spans_that_the_queue_has_no_room_for_are_counted() -> None:
    exporter = Hanging()
    app = App(span_count, exporter=exporter, max_queue_size=4, forwarding="passthrough")
    name = "processor.dropped{reason=queue_full}"
    before = snapshot().get(name, 0)

    for _ in range(4):
        app.tracer.start_span("span").end()
    assert exporter.entered.wait(WAIT)
    for _ in range(7):
        app.tracer.start_span("span").end()
    app.processor.force_flush(100)

    assert snapshot().get(name, 0) - before >= 3
    exporter.opened.set()
    app.provider.shutdown()


def test_traces_that_the_scorers_have_no_room_for_are_shed_and_exported(gate: Gate) -> None:
    app = App(gate.slow, max_queue_size=2, schedule_delay=0.01)
    waiting = [app.trace(children=0) for _ in range(2)]
    assert gate.entered.wait(WAIT)

    trace_id = app.trace(children=0)
    [decision] = app.processor.wait_for_scores(trace_id, WAIT)
    app.exporter.wait_for("root")
    gate.opened.set()

    assert decision.outcome is Outcome.SHED
    assert [app.processor.wait_for_scores(trace, WAIT)[0].outcome for trace in waiting] == [Outcome.SCORED] * 2
    assert app.names == ["root"] * 3
    app.provider.shutdown()


def test_shutting_down_scores_and_exports_what_is_open() -> None:
    app = App(span_count)
    root = app.tracer.start_span("root")
    app.tracer.start_span("child", context=set_span_in_context(root)).end()

    app.provider.shutdown()

    child, evaluation = app.exporter.get_finished_spans()
    assert (child.name, evaluation.name) == ("child", "evaluation span_count")
    assert attributes(evaluation)["otel_scorer.close_reason"] == "shutdown"
    root.end()


def test_after_shutting_down_everything_is_ignored_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    app = App(span_count)
    app.provider.shutdown()
    caplog.clear()

    app.trace()
    app.processor.shutdown()

    assert app.exporter.get_finished_spans() == ()
    assert app.processor.force_flush()
    assert not app.processor.flush_trace(1)
    assert caplog.records == []


def test_a_scorer_that_hangs_does_not_keep_the_root_at_the_end(gate: Gate) -> None:
    app = App(gate.slow, span_count, shutdown_timeout=0.3)
    app.trace(children=0)
    assert gate.entered.wait(WAIT)

    app.provider.shutdown()

    assert [span.name for span in app.exporter.get_finished_spans()] == ["root"]


def test_spans_below_the_suppression_of_somebody_else_are_scored() -> None:
    app = App(span_count)

    # Logfire calls its processors like that, for every span.
    token = attach(set_value(SUPPRESS, True))
    app.trace()
    detach(token)

    assert attributes(app["root"])["otel_scorer.span_count.value"] == 3
    app.provider.shutdown()


def test_spans_beyond_what_can_be_noted_are_dropped_and_counted_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("otel_scorer.processor.MAX_PENDING", 10)
    name = "processor.dropped{reason=intake_full}"
    before = snapshot().get(name, 0)
    app = App(span_count)
    app.trace()
    assert app.names

    # Whoever looks at spans cannot.
    with app.processor._pipeline.engine._lock:  # noqa: SLF001 - as if it were busy
        for _ in range(50):
            app.tracer.start_span("work").end()

    assert snapshot()[name] - before >= 40
    assert app.names
    app.provider.shutdown()
