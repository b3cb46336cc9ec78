"""Scorers on a stream: order, what happens to hangs, and that nothing of a long stream stays in memory."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.pipeline.running.offline import OfflineScoring
from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
from otel_scorer.pipeline.running.selection import Choice
from otel_scorer.pipeline.running.threads import HUNG, THREADS, ThreadLane
from otel_scorer.scorers.base import as_scorer
from otel_scorer.scorers.evidence import Evidence


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def stream(*functions: Any, timeout: float = 30, **options: Any) -> OfflineScoring[int]:
    prepared = [PreparedScorer(as_scorer(function), default_timeout=timeout) for function in functions]

    def choose(item: int) -> Sequence[Choice]:
        return [Invocation(each, Evidence(None, inputs=item), trace_id=str(item)) for each in prepared]

    return OfflineScoring(choose, **options)


def outcomes(decisions: Sequence[Decision]) -> list[str]:
    return [decision.outcome.value for decision in decisions]


def values(decisions: Sequence[Decision]) -> list[Any]:
    return [feedback.value for decision in decisions for feedback in decision.feedbacks]


def test_items_come_back_in_order_with_the_decisions_in_order_of_the_scorers() -> None:
    def same(inputs: int) -> int:
        return inputs

    async def later(inputs: int) -> int:
        await asyncio.sleep(0.001 * (inputs % 3))
        return -inputs

    found = list(stream(same, later, same).run(range(500)))

    assert [item for item, _ in found] == list(range(500))
    assert [values(decisions) for _, decisions in found] == [[n, -n, n] for n in range(500)]


def test_a_stream_without_end_is_scored_as_it_comes() -> None:
    made = 0

    def endless() -> Iterator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    found = stream(lambda inputs: inputs).run(endless())
    for _ in range(1000):
        next(found)
    found.close()

    assert made < 1000 + 400


def test_slow_items_do_not_keep_finished_ones_waiting() -> None:
    seen = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        # The first one is scored while the stream waits: the patience of a batch is over.
        assert seen.wait(30)
        yield 2

    def clock() -> float:
        clock.now += 1.0  # type: ignore[attr-defined]
        return float(clock.now)  # type: ignore[attr-defined]

    clock.now = 0.0  # type: ignore[attr-defined]

    def look(inputs: int) -> bool:
        seen.set()
        return True

    found = list(stream(look, timeout=0, clock=clock).run(slow()))

    assert [item for item, _ in found] == [1, 2]


def test_a_hung_scorer_times_out_is_left_alone_and_the_others_go_on(released: threading.Event) -> None:
    calls: list[int] = []

    def hangs(inputs: int) -> bool:
        calls.append(inputs)
        released.wait(30)
        return True

    found = list(stream(as_scorer(hangs).with_options(timeout=0.2), lambda inputs: inputs).run(range(5)))

    assert [outcomes(decisions) for _, decisions in found] == [["timed_out", "scored"]] * 5
    assert "not finished within 0.2 s" in str(found[0][1][0].reason)
    assert "has not come back yet" in str(found[1][1][0].reason)
    assert [values(decisions)[-1] for _, decisions in found] == list(range(5))
    assert calls == [0]


def test_a_scorer_that_comes_back_is_called_again(released: threading.Event) -> None:
    is_called_again = threading.Event()

    def hangs_once(inputs: int) -> bool:
        if inputs == 0:
            released.wait(30)
        else:
            is_called_again.set()
        return True

    def items() -> Iterator[int]:
        yield 0
        # More than is taken ahead: by then the call has timed out.
        yield from range(1, 600)
        assert not is_called_again.is_set()
        released.set()
        # The thread that hung has to find out first.
        while not is_called_again.wait(0.001):
            yield 600

    found = list(stream(as_scorer(hangs_once).with_options(timeout=0.2)).run(items()))

    assert [outcomes(decisions) for _, decisions in found[:200]] == [["timed_out"]] * 200
    # It may also be one of those that were taken ahead.
    assert ["scored"] in [outcomes(decisions) for _, decisions in found[200:]]


def test_a_coroutine_that_blocks_its_loop_is_left_behind(released: threading.Event) -> None:
    async def blocks(inputs: int) -> bool:
        released.wait(30)
        return True

    async def fine(inputs: int) -> int:
        return inputs

    found = list(stream(as_scorer(blocks).with_options(timeout=0.2), fine).run(range(3)))

    assert [outcomes(decisions)[0] for _, decisions in found] == ["timed_out"] * 3
    assert len(found) == 3


def test_coroutines_of_many_items_run_at_the_same_time() -> None:
    waiting = 0
    met = asyncio.Event()

    async def meets(inputs: int) -> bool:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            met.set()
        await met.wait()
        return True

    meets_all = as_scorer(meets).with_options(concurrent=True)

    found = list(stream(meets_all, concurrency=20).run(range(20)))

    assert [outcomes(decisions) for _, decisions in found] == [["scored"]] * 20


def test_calls_of_a_scorer_that_allows_it_run_at_the_same_time_and_keep_their_order() -> None:
    together = threading.Barrier(THREADS)

    def meeting(inputs: int) -> int:
        # Goes on only once so many calls are in here.
        together.wait(20)
        return inputs

    def alone(inputs: int) -> int:
        return -inputs

    scoring = stream(as_scorer(meeting).with_options(concurrent=True), alone)
    found = list(scoring.run(range(3 * THREADS)))

    assert [values(decisions) for _, decisions in found] == [[n, -n] for n in range(3 * THREADS)]


def test_not_more_calls_than_threads_run_at_the_same_time() -> None:
    running: set[int] = set()
    most: list[int] = []
    lock = threading.Lock()

    def counted(inputs: int) -> None:
        with lock:
            running.add(inputs)
            most.append(len(running))
        with lock:
            running.discard(inputs)

    list(stream(as_scorer(counted).with_options(concurrent=True)).run(range(500)))

    assert len(most) == 500
    assert max(most) <= THREADS


def test_a_concurrent_scorer_is_left_alone_until_all_calls_that_hang_are_back(released: threading.Event) -> None:
    started: queue.SimpleQueue[int] = queue.SimpleQueue()
    decided: queue.SimpleQueue[Decision] = queue.SimpleQueue()
    now = 0.0

    def hanging(inputs: int) -> int:
        started.put(inputs)
        if inputs < 2:
            released.wait(30)
        return inputs

    prepared = PreparedScorer(as_scorer(hanging).with_options(concurrent=True, timeout=5.0))
    lane = ThreadLane(lambda: now)

    def judged(item: int) -> Decision:
        lane.submit(Invocation(prepared, Evidence(None, inputs=item), trace_id=str(item)), decided.put)
        return decided.get(timeout=20)

    for item in range(2):
        lane.submit(Invocation(prepared, Evidence(None, inputs=item), trace_id=str(item)), decided.put)
        started.get(timeout=20)
    assert lane.leave_late(5.0, 0.05) == set()
    assert lane.leave_late(5.1, 0.05) == {prepared}
    assert outcomes([decided.get(timeout=20), decided.get(timeout=20)]) == ["timed_out"] * 2
    assert judged(2).reason == HUNG

    released.set()
    pause = threading.Event()
    while (last := judged(3)).outcome is Outcome.TIMED_OUT:
        assert last.reason == HUNG
        pause.wait(0.01)
    assert values([last]) == [3]
    lane.shutdown()


def test_a_concurrent_scorer_that_hangs_costs_a_thread_for_each_call_at_most(released: threading.Event) -> None:
    calls: list[int] = []

    def hanging(inputs: int) -> int:
        calls.append(inputs)
        released.wait(30)
        return inputs

    def quick(inputs: int) -> int:
        return inputs

    scorers = [
        as_scorer(hanging).with_options(concurrent=True, timeout=0.1),
        as_scorer(quick).with_options(concurrent=True),
    ]
    found = list(stream(*scorers).run(range(200)))

    assert {outcome for _, decisions in found for outcome in outcomes(decisions)[:1]} == {"timed_out"}
    assert {outcome for _, decisions in found for outcome in outcomes(decisions)[1:]} == {"scored"}
    assert len(calls) <= THREADS


def test_what_a_concurrent_scorer_raises_is_its_failure() -> None:
    def leaving(inputs: int) -> int:
        raise KeyboardInterrupt if inputs % 2 else SystemExit

    found = list(stream(as_scorer(leaving).with_options(concurrent=True)).run(range(40)))

    assert [outcomes(decisions) for _, decisions in found] == [["failed"]] * 40


def test_what_a_scorer_raises_is_its_failure_even_if_it_looks_like_ctrl_c() -> None:
    def interrupts(inputs: int) -> bool:
        raise KeyboardInterrupt

    def exits(inputs: int) -> bool:
        raise SystemExit(3)

    [(_, decisions)] = stream(interrupts, exits, lambda inputs: inputs).run([1])

    assert outcomes(decisions) == ["failed", "failed", "scored"]


def test_what_the_stream_raises_comes_after_everything_before_it() -> None:
    def breaks() -> Iterator[int]:
        yield from range(100)
        raise LookupError("gone")

    found: list[int] = []
    with pytest.raises(LookupError, match="gone"):
        found.extend(item for item, _ in stream(lambda inputs: inputs).run(breaks()))

    assert found == list(range(100))


def test_calls_that_cannot_be_chosen_are_told_to_who_asked() -> None:
    def choose(item: int) -> Sequence[Choice]:
        raise LookupError(item)

    with pytest.raises(LookupError):
        list(OfflineScoring(choose).run([1, 2, 3]))


def test_decisions_that_fell_already_are_handed_on() -> None:
    prepared = PreparedScorer(as_scorer(lambda inputs: inputs))
    fallen = prepared.decide(Outcome.FILTERED, trace_id="x")

    [(_, decisions)] = OfflineScoring[int](lambda item: [fallen]).run([1])

    assert decisions == (fallen,)


def test_nothing_is_no_item() -> None:
    assert list(stream(lambda inputs: inputs).run([])) == []
