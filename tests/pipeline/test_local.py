"""Scorers on threads: one decision per call, whatever a scorer does to its thread or to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.local import LocalScoring
from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
from otel_scorer.pipeline.running.selection import Choice, Selector
from otel_scorer.pipeline.running.suppression import is_suppressed, suppressed
from otel_scorer.scorers.base import as_scorers, scorer
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.testing import make_span, make_trace

WAIT = 20.0


class Released:
    """Lets hung scorers go when a test is over."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)

    def hang(self, trace: Trace) -> bool:
        self.entered.release()
        return self.gate.wait(WAIT)

    async def block(self, trace: Trace) -> bool:
        return self.hang(trace)

    async def wait_for_ever(self, trace: Trace) -> bool:
        await asyncio.Event().wait()
        return True


@pytest.fixture
def released() -> Iterator[Released]:
    made = Released()
    yield made
    made.gate.set()


@pytest.fixture
def scoring() -> Iterator[LocalScoring]:
    made = LocalScoring()
    made.start()
    yield made
    made.shutdown(0)


def fine(trace: Trace) -> bool:
    return True


async def fine_later(trace: Trace) -> bool:
    await asyncio.sleep(0)
    return True


def choices(*functions: Callable[..., Any], timeout: float = 30.0, trace: int = 1) -> list[Choice]:
    selector = Selector(as_scorers(functions), default_timeout=timeout, suppress=suppressed)
    return selector.choose(make_trace(make_span(trace=trace)))


def outcomes(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(decision.scorer, decision.outcome.value) for decision in decisions]


class Listener:
    """Takes decisions and lets a test wait for the last one."""

    def __init__(self) -> None:
        self.decisions: dict[int, Decision | None] = {}
        self.done = threading.Event()

    def __call__(self, index: int, decision: Decision | None, is_last: bool) -> None:
        assert index not in self.decisions
        assert not self.done.is_set()
        self.decisions[index] = decision
        if is_last:
            self.done.set()


def test_decisions_come_in_the_order_of_the_scorers(scoring: LocalScoring) -> None:
    decisions = scoring.run(choices(fine_later, fine, lambda trace: 0.5))

    assert outcomes(decisions) == [("fine_later", "scored"), ("fine", "scored"), ("lambda", "scored")]


def test_a_scorer_that_raises_fails_alone(scoring: LocalScoring) -> None:
    def broken(trace: Trace) -> bool:
        raise SystemExit(3)

    def interrupted(trace: Trace) -> bool:
        raise KeyboardInterrupt

    async def broken_later(trace: Trace) -> bool:
        raise ValueError

    decisions = scoring.run(choices(broken, interrupted, broken_later, fine))

    assert [decision.outcome for decision in decisions] == [*[Outcome.FAILED] * 3, Outcome.SCORED]


def test_a_trace_without_choices_is_done_at_once(scoring: LocalScoring) -> None:
    listener = Listener()

    assert scoring.submit(list, listener)

    assert listener.done.wait(WAIT)
    assert listener.decisions == {-1: None}
    assert scoring.run([]) == []


def test_choices_that_cannot_be_made_do_not_stop_the_thread(scoring: LocalScoring) -> None:
    listener = Listener()

    def broken() -> list[Choice]:
        raise RuntimeError

    scoring.submit(broken, listener)

    assert listener.done.wait(WAIT)
    assert outcomes(scoring.run(choices(fine))) == [("fine", "scored")]


def test_a_listener_that_raises_does_not_stop_the_thread(scoring: LocalScoring) -> None:
    def broken(index: int, decision: Decision | None, is_last: bool) -> None:
        raise RuntimeError

    scoring.submit(lambda: choices(fine), broken)

    assert outcomes(scoring.run(choices(fine))) == [("fine", "scored")]
    assert scoring.jobs == 0


def test_a_hung_scorer_times_out_and_the_others_go_on(scoring: LocalScoring, released: Released) -> None:
    decisions = scoring.run(choices(fine, scorer(released.hang, timeout=0.05), fine_later))

    assert outcomes(decisions) == [("fine", "scored"), ("hang", "timed_out"), ("fine_later", "scored")]
    assert decisions[1].feedbacks[0].error is not None


def test_a_hung_scorer_is_not_called_again_before_it_has_come_back(scoring: LocalScoring, released: Released) -> None:
    made = choices(scorer(released.hang, timeout=0.05))
    scoring.run(made)

    [again] = scoring.run(made)
    calls_while_hung = 1 if released.entered.acquire(timeout=WAIT) else 0
    calls_while_hung += released.entered.acquire(blocking=False)
    released.gate.set()
    ended = threading.Event()
    while [decision.outcome for decision in scoring.run(made)] != [Outcome.SCORED] and not ended.wait(0.01):
        pass

    assert again.outcome is Outcome.TIMED_OUT
    assert again.reason == "an earlier call of this scorer has not come back yet"
    assert calls_while_hung == 1


def test_a_hung_scorer_costs_one_thread_and_no_more(scoring: LocalScoring, released: Released) -> None:
    made = choices(scorer(released.hang, timeout=0.05, concurrent=True))

    for _ in range(5):
        scoring.run(made)

    names = [thread.name for thread in threading.enumerate()]
    assert names.count("otel-scorer-scoring") >= 2
    assert released.entered.acquire(blocking=False)
    assert not released.entered.acquire(blocking=False)


def test_a_coroutine_that_waits_for_ever_is_cancelled(scoring: LocalScoring, released: Released) -> None:
    decisions = scoring.run(choices(scorer(released.wait_for_ever, timeout=0.05), fine))

    assert outcomes(decisions) == [("wait_for_ever", "timed_out"), ("fine", "scored")]


def test_a_coroutine_that_blocks_the_loop_is_left_behind_with_its_loop(
    scoring: LocalScoring, released: Released
) -> None:
    first = scoring.run(choices(scorer(released.block, timeout=0.05), fine))

    second = scoring.run(choices(fine_later))

    assert outcomes(first) == [("block", "timed_out"), ("fine", "scored")]
    assert outcomes(second) == [("fine_later", "scored")]


def test_coroutines_of_one_concurrent_scorer_run_at_the_same_time(scoring: LocalScoring) -> None:
    meeting = asyncio.Barrier(3)

    async def meets(trace: Trace) -> bool:
        await meeting.wait()
        return True

    prepared = PreparedScorer(scorer(meets, concurrent=True), default_timeout=WAIT)
    calls = [Invocation(prepared, Evidence(make_trace(make_span()))) for _ in range(3)]

    decisions = scoring.run(calls)

    assert [decision.outcome for decision in decisions] == [Outcome.SCORED] * 3


def test_a_full_queue_refuses(released: Released) -> None:
    scoring = LocalScoring(queue_size=1)
    scoring.start()
    listener = Listener()

    accepted = scoring.submit(lambda: choices(released.hang), listener)
    refused = scoring.submit(lambda: choices(fine), Listener())
    released.gate.set()

    assert accepted
    assert not refused
    assert listener.done.wait(WAIT)
    scoring.shutdown(WAIT)


def test_a_scorer_sees_nothing_of_the_callers_trace_and_leaves_none(released: Released) -> None:
    seen: list[tuple[bool, object]] = []

    def look(trace: Trace) -> bool:
        span = TracerProvider().get_tracer("scorer").start_span("manual")
        parent = getattr(span, "parent", "unknown")
        seen.append((is_suppressed(), parent))
        return trace_api.get_current_span().get_span_context().is_valid

    async def look_later(trace: Trace) -> bool:
        return look(trace)

    context = SpanContext(1, 2, is_remote=False)
    token = attach(set_span_in_context(NonRecordingSpan(context)))
    scoring = LocalScoring()
    scoring.start()
    decisions = scoring.run(choices(look, look_later))
    detach(token)
    scoring.shutdown(WAIT)

    assert seen == [(True, None), (True, None)]
    assert [decision.feedbacks[0].value for decision in decisions] == [False, False]


def test_shutting_down_finishes_what_is_there(scoring: LocalScoring) -> None:
    listeners = [Listener() for _ in range(20)]
    for number, listener in enumerate(listeners):
        scoring.submit(partial(choices, fine, fine_later, trace=number + 1), listener)

    assert scoring.shutdown(WAIT)

    assert all(listener.done.is_set() for listener in listeners)
    assert all(item and item.outcome is Outcome.SCORED for made in listeners for item in made.decisions.values())


def test_what_is_not_finished_in_time_is_shed(scoring: LocalScoring, released: Released) -> None:
    running, waiting = Listener(), Listener()
    scoring.submit(lambda: choices(released.hang, fine), running)
    scoring.submit(lambda: choices(fine), waiting)
    scoring.hurry()
    assert released.entered.acquire(timeout=WAIT)

    in_time = scoring.shutdown(0.01)

    assert not in_time
    assert running.done.is_set()
    assert waiting.done.is_set()
    assert {item.outcome for made in (running, waiting) for item in made.decisions.values() if item} == {Outcome.SHED}
    assert not scoring.submit(list, Listener())


def test_it_cannot_run_before_it_is_started() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        LocalScoring().run(choices(fine))
