"""What the processor exports, and when: real tracer providers, an in-memory exporter, no waiting on clocks."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.context import attach, detach, get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from tests.instrumented_app import WAIT, App, Gate, attributes, span_count

from otel_scorer.model.decision import Outcome
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import Trace
from otel_scorer.processor import ScoringSpanProcessor
from otel_scorer.scorers.base import scorer
from otel_scorer.telemetry import snapshot


@pytest.fixture
def app() -> Iterator[Callable[..., App]]:
    apps: list[App] = []

    def make(*scorers: Any, **options: Any) -> App:
        apps.append(App(*scorers, **options))
        return apps[-1]

    yield make
    for made in apps:
        made.provider.shutdown()


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def remote(trace_id: int = 77, span_id: int = 88) -> Any:
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(1))
    return set_span_in_context(NonRecordingSpan(context))


def test_the_root_leaves_with_its_verdicts_as_attributes_and_events(app: Callable[..., App]) -> None:
    made = app(span_count)

    made.trace()

    root = made["root"]
    [event] = root.events
    assert attributes(root)["otel_scorer.span_count.value"] == 3
    assert attributes(root)["otel_scorer.close_reason"] == "all_closed"
    assert attributes(root)["otel_scorer.complete"] is True
    assert event.name == "gen_ai.evaluation.result"
    assert event.timestamp == root.end_time
    assert event.attributes is not None
    assert event.attributes["gen_ai.evaluation.score.value"] == 3.0
    assert Counter(made.names) == Counter(["root", "child 0", "child 1"])


def test_the_same_verdicts_are_evaluation_spans_when_asked_for(app: Callable[..., App]) -> None:
    made = app(span_count, emit=["evaluation_span"])

    made.trace()

    root, evaluation = made["root"], made["evaluation span_count"]
    assert attributes(root) == {}
    assert evaluation.parent is not None
    assert root.context is not None
    assert evaluation.parent.span_id == root.context.span_id
    assert evaluation.start_time == evaluation.end_time == root.end_time


def test_children_leave_when_they_end_and_the_root_waits_for_its_verdicts(app: Callable[..., App], gate: Gate) -> None:
    made = app(gate.slow)

    made.trace(children=1)
    assert gate.entered.wait(WAIT)
    before = made.names_so_far
    gate.opened.set()

    assert before == ["child 0"]
    assert made.names == ["root"]


def test_a_held_trace_leaves_as_a_whole(app: Callable[..., App], gate: Gate) -> None:
    made = app(gate.slow, forwarding="hold_trace")

    made.trace()
    assert gate.entered.wait(WAIT)
    before = made.names_so_far
    gate.opened.set()

    assert before == []
    assert made.names == ["child 0", "child 1", "root"]
    assert attributes(made["root"])["otel_scorer.slow.value"] is True


def test_nothing_waits_when_spans_pass_through(app: Callable[..., App], gate: Gate) -> None:
    made = app(gate.slow, forwarding="passthrough")

    made.trace(children=0)
    assert gate.entered.wait(WAIT)
    before = made.names_so_far
    gate.opened.set()

    assert before == ["root"]
    assert made.names == ["evaluation slow"]


def test_a_slow_verdict_becomes_an_evaluation_span_after_the_deadline(app: Callable[..., App], gate: Gate) -> None:
    made = app(span_count, gate.slow, hold_deadline=0.05, schedule_delay=0.01)

    made.trace(children=0)
    assert gate.entered.wait(WAIT)
    made.exporter.wait_for("root")
    gate.opened.set()

    assert made.names == ["root", "evaluation slow"]
    assert attributes(made["root"])["otel_scorer.span_count.value"] == 1
    assert "otel_scorer.slow.value" not in attributes(made["root"])


def test_a_verdict_on_a_child_that_has_left_becomes_an_evaluation_span(app: Callable[..., App]) -> None:
    def on_child(trace: Trace) -> Feedback:
        [child] = trace.search_spans(name="child 0")
        return Feedback("on_child", value=True, span_id=child.span_id)

    made = app(on_child)
    made.trace(children=1)

    context = made["child 0"].context
    parent = made["evaluation on_child"].parent
    assert context is not None
    assert parent is not None
    assert parent.span_id == context.span_id
    assert attributes(made["root"]) == {}


def test_a_held_child_carries_its_own_verdict(app: Callable[..., App]) -> None:
    def on_child(trace: Trace) -> Feedback:
        return Feedback("on_child", value=True, span_id=trace.search_spans(name="child 0")[0].span_id)

    made = app(on_child, forwarding="hold_trace")
    made.trace(children=1)

    assert attributes(made["child 0"])["otel_scorer.on_child.value"] is True
    assert made.names == ["child 0", "root"]


def test_each_entry_of_a_remote_trace_is_a_unit_with_its_own_verdicts(app: Callable[..., App]) -> None:
    made = app(span_count)
    for name in ("one", "two"):
        with (
            made.tracer.start_as_current_span(name, context=remote()),
            made.tracer.start_as_current_span(f"below {name}"),
        ):
            pass

    assert [attributes(made[name])["otel_scorer.span_count.value"] for name in ("one", "two")] == [2, 2]


def test_spans_that_are_not_sampled_are_neither_exported_nor_scored(app: Callable[..., App]) -> None:
    made = app(span_count, sampler=ALWAYS_OFF)

    trace_id = made.trace()

    assert made.processor.wait_for_scores(trace_id, WAIT) == []
    assert made.names == []


def test_spans_that_are_only_recorded_are_neither_exported_nor_scored(app: Callable[..., App]) -> None:
    class RecordOnly(Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self) -> str:
            return "record only"

    made = app(span_count, sampler=RecordOnly())

    trace_id = made.trace()

    assert made.processor.wait_for_scores(trace_id, WAIT) == []
    assert made.names == []


def test_spans_of_our_own_scope_are_exported_and_never_scored(app: Callable[..., App]) -> None:
    made = app(span_count)

    with made.provider.get_tracer("otel_scorer").start_as_current_span("evaluation of somebody") as span:
        trace_id = span.get_span_context().trace_id

    assert made.processor.wait_for_scores(trace_id, WAIT) == []
    assert made.names == ["evaluation of somebody"]


def test_spans_that_a_scorer_starts_are_exported_and_never_scored(app: Callable[..., App]) -> None:
    tracers: list[Any] = []

    def traces_itself(trace: Trace) -> int:
        with tracers[0].start_as_current_span("inside"), tracers[0].start_as_current_span("further inside"):
            return len(trace.spans)

    made = app(traces_itself)
    tracers.append(made.tracer)
    trace_id = made.trace(children=0)

    assert len(made.processor.wait_for_scores(trace_id, WAIT)) == 1
    assert Counter(made.names) == Counter(["root", "inside", "further inside"])
    assert made["inside"].parent is None


def test_a_trace_outside_the_sample_goes_through_untouched_and_is_counted(app: Callable[..., App]) -> None:
    made = app(scorer(span_count, name="rarely", sample_rate=0.0))

    trace_id = made.trace()

    assert Counter(made.names) == Counter(["child 0", "child 1", "root"])
    assert attributes(made["root"]) == {}
    assert made.processor.wait_for_scores(trace_id, WAIT) == []
    assert snapshot()["scoring.decisions{outcome=not_sampled,scorer=rarely}"] == 1


def test_without_scorers_spans_just_pass(app: Callable[..., App]) -> None:
    exporter = InMemorySpanExporter()
    processor = ScoringSpanProcessor(exporter, [])
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)

    provider.get_tracer("app").start_span("alone").end()
    provider.shutdown()

    assert [span.name for span in exporter.get_finished_spans()] == ["alone"]


def test_a_span_that_starts_after_its_trace_was_scored_is_exported_at_once(app: Callable[..., App]) -> None:
    made = app(span_count)
    with made.tracer.start_as_current_span("root") as root:
        context = set_span_in_context(root)
    first = made.processor.wait_for_scores(root.get_span_context().trace_id, WAIT)

    made.tracer.start_span("late", context=context).end()

    assert made.names == ["root", "late"]
    assert made.processor.wait_for_scores(root.get_span_context().trace_id, WAIT) == first


def test_background_work_that_outlives_the_root_is_waited_for(app: Callable[..., App]) -> None:
    made = app(span_count)
    with made.tracer.start_as_current_span("root"):
        background = made.tracer.start_span("background")
    background.end()

    assert attributes(made["root"])["otel_scorer.span_count.value"] == 2


def test_a_flush_does_not_wait_for_background_work(app: Callable[..., App]) -> None:
    made = app(span_count)
    with made.tracer.start_as_current_span("root"):
        background = made.tracer.start_span("background")

    root = made["root"]
    background.end()

    assert attributes(root)["otel_scorer.close_reason"] == "root_quiet"
    assert attributes(root)["otel_scorer.complete"] is False
    assert made.names == ["root", "background"]


def test_a_trace_can_be_scored_before_its_root_has_ended(app: Callable[..., App]) -> None:
    made = app(span_count)

    with made.tracer.start_as_current_span("root") as root:
        with made.tracer.start_as_current_span("child"):
            pass
        trace_id = format(root.get_span_context().trace_id, "032x")
        had_something = made.processor.flush_trace(trace_id)
        [decision] = made.processor.wait_for_scores(trace_id, WAIT)

    assert had_something
    assert decision.feedbacks[0].value == 1
    assert made.names == ["child", "evaluation span_count", "root"]


def test_waiting_for_scores_gives_up_in_time(app: Callable[..., App], gate: Gate) -> None:
    made = app(gate.slow)
    trace_id = made.trace(children=0)

    with pytest.raises(TimeoutError, match="not scored within"):
        made.processor.wait_for_scores(trace_id, 0.01)


def test_waiting_for_scores_waits_for_the_trace_to_end(app: Callable[..., App]) -> None:
    made = app(span_count)
    root = made.tracer.start_span("root")
    trace_id = root.get_span_context().trace_id

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made.processor.wait_for_scores, trace_id, WAIT)
        root.end()
        [decision] = waiting.result(WAIT)

    assert decision.outcome is Outcome.SCORED


def test_verdicts_only_go_out_beside_another_exporter() -> None:
    spans, verdicts = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    provider.add_span_processor(ScoringSpanProcessor(verdicts, [span_count], export_spans=False))

    provider.get_tracer("app").start_span("root").end()
    provider.shutdown()

    assert [span.name for span in spans.get_finished_spans()] == ["root"]
    assert [span.name for span in verdicts.get_finished_spans()] == ["evaluation span_count"]


@pytest.mark.parametrize("forwarding", ["hold_root", "hold_trace", "passthrough"])
def test_no_span_is_ever_exported_when_it_should_not_be(forwarding: Any) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    off = scorer(span_count, sample_rate=0.0)
    for scorers in ([off], []):
        provider.add_span_processor(ScoringSpanProcessor(exporter, scorers, export_spans=False, forwarding=forwarding))

    with provider.get_tracer("app").start_as_current_span("root"):
        provider.get_tracer("otel_scorer").start_span("own").end()
    provider.shutdown()

    assert exporter.get_finished_spans() == ()


def test_scorers_can_be_named(app: Callable[..., App]) -> None:
    made = app("tool_errors")

    made.trace()

    assert attributes(made["root"])["otel_scorer.tool_errors.value"] is True


def test_threads_that_share_a_trace_are_one_unit(app: Callable[..., App]) -> None:
    made = app(span_count)

    def work(context: Any) -> None:
        token = attach(context)
        for _ in range(10):
            with made.tracer.start_as_current_span("work"):
                pass
        detach(token)

    with made.tracer.start_as_current_span("root"), ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [get_current()] * 8))

    assert attributes(made["root"])["otel_scorer.span_count.value"] == 81


def test_tasks_that_share_a_trace_are_one_unit(app: Callable[..., App]) -> None:
    made = app(span_count)

    async def work() -> None:
        with made.tracer.start_as_current_span("task"):
            await asyncio.sleep(0)

    async def main() -> None:
        with made.tracer.start_as_current_span("root"):
            await asyncio.gather(*(work() for _ in range(20)))
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)

    asyncio.run(main())

    assert attributes(made["root"])["otel_scorer.span_count.value"] == 21


def test_a_trace_of_which_no_span_has_ended_in_its_time_is_decided_and_whoever_waits_for_it_is_told(
    app: Callable[..., App],
) -> None:
    made = app(span_count, max_age=0.05)
    root = made.tracer.start_span("root")

    [decision] = made.processor.wait_for_scores(root.get_span_context().trace_id, WAIT)

    assert (decision.outcome, decision.reason) == (Outcome.UNPROCESSABLE, "none of its spans has ended")
    root.end()
    assert made.names == ["root"]


def test_a_trace_that_makes_room_for_others_before_a_span_has_ended_is_decided(app: Callable[..., App]) -> None:
    made = app(span_count, max_traces=1)
    first, second = made.tracer.start_span("first"), made.tracer.start_span("second")
    second.end()

    [decision] = made.processor.wait_for_scores(first.get_span_context().trace_id, WAIT)

    assert decision.outcome is Outcome.UNPROCESSABLE
    first.end()
