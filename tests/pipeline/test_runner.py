from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentSource, Expectation, Feedback
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
from otel_scorer.scorers import Scorer, as_scorer, scorer
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.testing import make_span, make_trace

SOON = 20.0


def invocation(function: Any, trace: Trace | None = None, revision: int = 1, **given: Any) -> Invocation:
    return Invocation(PreparedScorer(as_scorer(function)), Evidence(trace, **given), revision)


def run(function: Any, trace: Trace | None = None, **given: Any) -> Decision:
    return invocation(function, trace, **given).run()


def run_async(function: Any, trace: Trace | None = None, **given: Any) -> Decision:
    return asyncio.run(invocation(function, trace, **given).run_async())


RUNS = pytest.mark.parametrize("runs", [run, run_async])


@RUNS
def test_a_decision_says_who_judged_what(runs: Any) -> None:
    def check(trace: Trace) -> bool:
        return True

    decision = runs(scorer(check, version="v7"), make_trace(make_span(trace=5)), revision=2)

    assert decision == Decision(
        f"{5:032x}",
        None,
        "check",
        "v7",
        Outcome.SCORED,
        None,
        2,
        (Feedback("check", True, source=AssessmentSource("CODE", "check")),),
        (True,),
    )


def test_coroutines_give_the_same_decision_as_functions() -> None:
    def check(trace: Trace) -> list[Feedback]:
        return [Feedback(value=len(trace.spans)), Feedback("named", "yes")]

    @scorer(name="check", version="1")
    async def check_async(trace: Trace) -> list[Feedback]:
        await asyncio.sleep(0)
        return check(trace)

    trace = make_trace(make_span())
    decisions = [run(scorer(check, version="1"), trace), run(check_async, trace), run_async(check_async, trace)]

    assert decisions[0] == decisions[1] == decisions[2]


@RUNS
@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), asyncio.CancelledError("own"), TimeoutError("mine")]
)
def test_whatever_a_scorer_raises_is_its_failure(runs: Any, error: BaseException) -> None:
    def check() -> None:
        raise error

    decision = runs(check)

    [feedback] = decision.feedbacks
    assert (decision.outcome, decision.passed) == (Outcome.FAILED, (None,))
    assert decision.reason == f"{type(error).__name__}: {error}"
    assert (feedback.name, feedback.value, feedback.error_code) == ("check", None, type(error).__name__)
    assert feedback.source == AssessmentSource("CODE", "check")


def test_the_stack_of_a_failure_begins_in_the_scorer() -> None:
    def check() -> None:
        json.loads("{")

    stacks = [runs(check).feedbacks[0].error.stack_trace for runs in (run, run_async)]

    assert stacks[0] == stacks[1]
    assert stacks[0].splitlines()[1].endswith("in check")


@RUNS
def test_ctrl_c_goes_through(runs: Any) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs(check)


@RUNS
@pytest.mark.parametrize("result", [object(), [1], (1, 2), b"x"])
def test_a_result_that_nobody_can_read_is_a_failure(runs: Any, result: object) -> None:
    decision = runs(lambda: result)

    assert (decision.outcome, decision.feedbacks[0].error_code) == (Outcome.FAILED, "InvalidResultError")


def test_generators_are_no_results() -> None:
    def check() -> Iterator[int]:
        yield 1

    assert run(check).outcome is Outcome.FAILED


@RUNS
def test_an_error_that_a_scorer_returns_is_a_result(runs: Any) -> None:
    decision = runs(lambda: Feedback(error="no verdict"))

    assert (decision.outcome, decision.feedbacks[0].error_code) == (Outcome.SCORED, "ASSESSMENT_ERROR")


@RUNS
def test_what_is_missing_makes_a_scorer_not_applicable(runs: Any) -> None:
    decision = runs(lambda outputs, expectations: True, make_trace(make_span(attributes={"output.value": "x"})))

    assert (decision.outcome, decision.feedbacks) == (Outcome.NOT_APPLICABLE, ())
    assert decision.reason == "the scorer needs 'expectations', which nobody recorded"


@RUNS
def test_a_parameter_that_nobody_knows_is_a_failure_that_says_so(runs: Any) -> None:
    decision = runs(lambda answer: True, make_trace(make_span()))

    assert decision.outcome is Outcome.FAILED
    assert "needs 'answer'" in decision.feedbacks[0].error_message


def test_expectations_of_a_stored_trace_reach_the_scorer() -> None:
    plain = make_trace(make_span())
    trace = Trace(plain.spans, plain.reader, assessments=[Expectation("expected_response", "Paris")])

    assert run(lambda expectations: expectations["expected_response"], trace).feedbacks[0].value == "Paris"
    given = run(
        lambda expectations: expectations["expected_response"], trace, expectations={"expected_response": "Rome"}
    )
    assert given.feedbacks[0].value == "Rome"


def test_given_values_win_over_those_of_the_trace() -> None:
    trace = make_trace(make_span(attributes={"input.value": "in", "output.value": "out"}))

    decision = run(lambda inputs, outputs: f"{inputs} {outputs}", trace, outputs="given")

    assert decision.feedbacks[0].value == "in given"


def test_a_span_target_is_what_inputs_outputs_and_span_are_about() -> None:
    trace = make_trace(
        make_span("root", span=1, attributes={"output.value": "of the root"}),
        make_span("tool", span=2, parent=1, attributes={"output.value": "of the tool"}),
    )
    [tool] = trace.search_spans(name="tool")

    decision = Invocation(
        PreparedScorer(scorer(lambda span, outputs, trace: f"{span.name} {outputs} {len(trace.spans)}")),
        Evidence(trace, tool),
    ).run()

    assert decision.span_id == f"{2:016x}"
    assert decision.feedbacks[0].value == "tool of the tool 2"


def test_a_trace_target_has_its_root_as_span() -> None:
    assert run(lambda span: span.name, make_trace(make_span("root"))).feedbacks[0].value == "root"


def test_a_condition_says_what_passes() -> None:
    results = [Feedback("a", 0.5), Feedback("b", 0.9), Feedback("c", "high"), Feedback("d", True), Feedback("e")]

    decision = run(scorer(lambda: results, pass_if=">= 0.7"))

    assert decision.passed == (False, True, None, True, None)


def test_a_condition_that_raises_costs_only_the_label() -> None:
    decision = run(scorer(lambda: "high", pass_if=lambda value: value > 0.5))

    assert (decision.outcome, decision.feedbacks[0].value, decision.passed) == (Outcome.SCORED, "high", (None,))
    assert decision.reason is not None
    assert decision.reason.startswith("pass_if: '>' not supported")


def test_a_coroutine_that_takes_too_long_is_cancelled() -> None:
    cancelled = []

    @scorer(timeout=0.01)
    async def check() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    decision = run_async(check)

    [feedback] = decision.feedbacks
    assert (decision.outcome, decision.reason) == (Outcome.TIMED_OUT, "not finished within 0.01 s")
    assert (feedback.value, feedback.error_code) == (None, "TimeoutError")
    assert cancelled == [True]


def test_a_cancelled_task_is_cancelled() -> None:
    started = asyncio.Event()

    async def check() -> None:
        started.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.ensure_future(invocation(check).run_async())
        await started.wait()
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("timeout", "default", "effective"), [(None, 30, 30), (5, 30, 5), (0, 30, None), (None, 0, None)]
)
def test_whose_timeout_holds(timeout: float | None, default: float, effective: float | None) -> None:
    made = scorer(lambda: 1, timeout=timeout) if timeout is not None else scorer(lambda: 1)

    assert PreparedScorer(made, default_timeout=default).timeout == effective


class Overlapping(Scorer):
    name: str = "overlapping"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inside = 0
        self.most = 0
        self.barrier = threading.Barrier(2)

    def __call__(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.concurrent:
            self.barrier.wait(SOON)
        self.inside -= 1


@pytest.mark.parametrize(("concurrent", "most"), [(False, 1), (True, 2)])
def test_calls_on_one_instance_overlap_only_if_it_says_so(concurrent: bool, most: int) -> None:
    made = Overlapping(concurrent=concurrent)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(Invocation(PreparedScorer(made), Evidence(None)).run) for _ in range(20)]
        outcomes = {job.result(SOON).outcome for job in jobs}

    assert outcomes == {Outcome.SCORED}
    assert made.most == most


def test_coroutine_calls_on_one_instance_overlap_only_if_it_says_so() -> None:
    inside: list[int] = []
    most: list[int] = []

    async def check() -> None:
        inside.append(1)
        most.append(len(inside))
        await asyncio.sleep(0)
        inside.pop()

    async def scenario(made: Scorer) -> int:
        most.clear()
        prepared = PreparedScorer(made)
        await asyncio.gather(*(Invocation(prepared, Evidence(None)).run_async() for _ in range(8)))
        return max(most)

    assert asyncio.run(scenario(scorer(check))) == 1
    assert asyncio.run(scenario(scorer(check, concurrent=True))) == 8


def test_who_waits_too_long_for_a_hanging_call_is_timed_out() -> None:
    release = threading.Event()
    started = threading.Event()

    def check() -> None:
        started.set()
        release.wait(SOON)

    prepared = PreparedScorer(scorer(check, timeout=0.05))
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(Invocation(prepared, Evidence(None)).run)
        started.wait(SOON)

        decision = Invocation(prepared, Evidence(None)).run()

        release.set()
        hanging.result(SOON)

    assert decision.outcome is Outcome.TIMED_OUT
    assert "earlier call" in str(decision.reason)


@RUNS
def test_a32_instrumentation_is_suppressed_while_a_scorer_runs(runs: Any) -> None:
    log: list[str] = []

    @contextmanager
    def suppress() -> Iterator[None]:
        log.append("on")
        yield
        log.append("off")

    def check() -> None:
        log.append("scorer")

    call = Invocation(PreparedScorer(scorer(check), suppress=suppress), Evidence(None))
    decision = call.run() if runs is run else asyncio.run(call.run_async())

    assert log == ["on", "scorer", "off"]
    assert decision.outcome is Outcome.SCORED


def test_decisions_about_calls_that_are_not_made() -> None:
    call = invocation(lambda: 1, make_trace(make_span(trace=3)), revision=4)

    decision = call.decide(Outcome.SHED, "the queue is full")

    assert (decision.trace_id, decision.outcome, decision.reason) == (f"{3:032x}", Outcome.SHED, "the queue is full")
    assert (decision.revision, decision.feedbacks) == (4, ())
