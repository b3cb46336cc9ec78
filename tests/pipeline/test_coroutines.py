"""Coroutine scorers in this process that do what coroutines should not: one decision each, and the others go on."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from otel_scorer.model.decision import Decision
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.local import LocalScoring
from otel_scorer.pipeline.running.selection import Choice, Selector
from otel_scorer.pipeline.running.suppression import is_suppressed, suppressed
from otel_scorer.pipeline.running.threads import HUNG
from otel_scorer.scorers.base import as_scorers, scorer
from otel_scorer.testing import make_span, make_trace

WAIT = 60.0
# More than the executor that event loops have by themselves has threads, and some to spare.
THREADS = 32
MANY = 40


@pytest.fixture
def scoring() -> Iterator[LocalScoring]:
    made = LocalScoring()
    made.start()
    yield made
    made.shutdown(0)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


def selector(*functions: Callable[..., Any]) -> Selector:
    return Selector(as_scorers(functions), default_timeout=WAIT, suppress=suppressed)


def choices(found: Selector, times: int = 1) -> list[Choice]:
    return [choice for _ in range(times) for choice in found.choose(make_trace(make_span()))]


def shown(decisions: list[Decision]) -> list[tuple[str, str, str | None]]:
    return [(decision.scorer, decision.outcome.value, decision.reason) for decision in decisions]


@scorer
async def on_a_thread(trace: Trace) -> bool:
    return await asyncio.to_thread(is_suppressed)


FINE = ("on_a_thread", "scored", None)


def test_a_coroutine_that_ignores_its_cancellation_is_decided_and_not_called_again_before_it_is_back(
    scoring: LocalScoring, gate: threading.Event
) -> None:
    calls: list[str] = []
    is_back = threading.Event()

    @scorer(timeout=0.05)
    async def stubborn(trace: Trace) -> bool:
        calls.append(trace.trace_id)
        while not gate.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_soon(is_back.set)
        return True

    found = selector(stubborn, on_a_thread)

    first = scoring.run(choices(found, 3))
    second = scoring.run(choices(found))

    late = ("stubborn", "timed_out", "not finished within 0.05 s")
    hung = ("stubborn", "timed_out", HUNG)
    assert shown(first) == [late, FINE, hung, FINE, hung, FINE]
    assert shown(second) == [hung, FINE]
    assert len(calls) == 1

    gate.set()
    assert is_back.wait(WAIT)
    third = scoring.run(choices(found))

    assert shown(third) == [("stubborn", "scored", None), FINE]


def test_calls_that_hang_on_threads_leave_threads_to_others_and_are_not_repeated_before_they_are_back(
    scoring: LocalScoring, gate: threading.Event
) -> None:
    entered = threading.Semaphore(0)

    def hang() -> bool:
        entered.release()
        return gate.wait(WAIT)

    @scorer(timeout=5.0, concurrent=True)
    async def hangs(trace: Trace) -> bool:
        return await asyncio.to_thread(hang)

    found = selector(hangs)

    hung = scoring.run(choices(found, MANY))
    others = scoring.run(choices(selector(on_a_thread)))
    again = scoring.run(choices(found))

    assert [decision.outcome.value for decision in hung] == ["timed_out"] * MANY
    assert all(entered.acquire(timeout=WAIT) for _ in range(THREADS + 1))
    assert shown(others) == [FINE]
    assert shown(again) == [("hangs", "timed_out", HUNG)]


@pytest.mark.parametrize("deed", ["stop", "cancel", "exit"])
def test_what_a_scorer_does_to_the_event_loop_costs_others_nothing(scoring: LocalScoring, deed: str) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    @scorer
    async def rude(trace: Trace) -> bool:
        loop = asyncio.get_running_loop()
        if deed == "stop":
            loop.stop()
        elif deed == "exit":
            task = loop.create_task(leave())
            await asyncio.sleep(0)
            return task.done()
        else:
            for task in asyncio.all_tasks(loop):
                task.cancel()
        return True

    found = selector(rude, on_a_thread)

    first = scoring.run(choices(found, 3))
    second = scoring.run(choices(selector(on_a_thread)))

    assert [decision.scorer for decision in first] == ["rude", "on_a_thread"] * 3
    assert shown(second) == [FINE]
    # asyncio complains of what nobody has asked a task about when that is freed: now, and not while Python's parser
    # works for another test, which CPython 3.11 does not survive (the complaint shows a stack, and parses its lines).
    gc.collect()


PROGRAM = """
import asyncio, threading
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_scorer import ScoringSpanProcessor, scorer

@scorer(timeout=0.1)
async def hangs(trace):
    await asyncio.to_thread(threading.Event().wait)

provider = TracerProvider()
processor = ScoringSpanProcessor(InMemorySpanExporter(), [hangs])
provider.add_span_processor(processor)
span = provider.get_tracer("app").start_span("root")
span.end()
print([decision.outcome.value for decision in processor.wait_for_scores(span.context.trace_id)])
"""


def test_a_program_ends_although_a_coroutine_scorer_hangs_on_a_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=100
    )

    assert done.stdout == "['timed_out']\n"
