"""A sidecar that was stopped while a scorer ran does not take it for one that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest
from tests.e2e.sidecar import SCORERS, Gate
from tests.e2e.sink import WAIT

from otel_scorer.evaluation.worker_scoring import Workers
from otel_scorer.model.decision import Outcome
from otel_scorer.model.wire import read_traces
from otel_scorer.pipeline.assembly.closing import ClosedTrace, CloseReason
from otel_scorer.pipeline.workers.jobs import Job, Result
from otel_scorer.pipeline.workers.pool import WorkerPool
from otel_scorer.scorers.loading import ScorerSpec
from otel_scorer.testing import make_request, make_span


class StoppedClock:
    """The clock of a process that may have been stopped: `pass_by` is what it finds when it goes on."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._looks = threading.Semaphore(0)

    def __call__(self) -> float:
        self._looks.release()
        return time.monotonic() + self._passed

    def pass_by(self, seconds: float) -> None:
        self._passed += seconds

    def wait_for_looks(self, number: int) -> None:
        while self._looks.acquire(blocking=False):
            pass
        for _ in range(number):
            assert self._looks.acquire(timeout=WAIT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


def test_a_scorer_that_runs_while_the_sidecar_is_stopped_has_its_timeout_again(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in gate.environment.items():
        monkeypatch.setenv(name, value)
    clock, results, decided = StoppedClock(), list[Result](), threading.Event()
    setup = Workers([ScorerSpec(f"{SCORERS / 'gated.py'}:gated")], timeout=300.0).setup
    pool = WorkerPool(setup, workers=1, queue_bytes=1 << 20, clock=clock)

    def deliver(given: Iterable[Result]) -> None:
        results.extend(given)
        if any(each.done for each in results):
            decided.set()

    pool.start()
    try:
        pool.run(deliver)
        spans = read_traces(make_request(make_span("agent"))).spans
        pool.submit([Job(0, ClosedTrace(spans[0].trace_id, list(spans), CloseReason.IDLE, complete=True), (0,))])
        gate.wait_for_scorer()
        clock.wait_for_looks(2)
        clock.pass_by(3600.0)
        clock.wait_for_looks(5)
        gate.open()
        assert decided.wait(WAIT)
    finally:
        pool.shutdown(WAIT)

    assert [decision.outcome for each in results for decision in each.decisions] == [Outcome.SCORED]
