"""What a process was stopped for is no time that its traces were idle."""

from __future__ import annotations

import threading

import pytest
from tests.fakes import a_decision

from otel_scorer.pipeline.assembly.assembler import CloseReason
from otel_scorer.pipeline.sidecar.engine import Engine, EngineOptions
from otel_scorer.pipeline.sidecar.running_clock import STOPPED, RunningClock
from otel_scorer.pipeline.workers.jobs import ScorerProfile
from otel_scorer.testing import CollectingSink, FakeBackend, ManualClock, make_request, make_span

TICK = 0.1


def test_time_passes_as_it_does_beneath_while_somebody_asks() -> None:
    beneath = ManualClock()
    clock = RunningClock(beneath)
    began = clock()
    for _ in range(50):
        beneath.advance(STOPPED)
        clock()

    assert clock() - began == 50 * STOPPED


@pytest.mark.parametrize("pause", [STOPPED * 1.01, 600.0, 1e9])
def test_a_pause_does_not_count_and_what_follows_does(pause: float) -> None:
    beneath = ManualClock()
    clock = RunningClock(beneath)
    began = clock()
    for _ in range(3):
        beneath.advance(pause)
        assert clock() == began
        beneath.advance(0.5)
        began += 0.5
        assert clock() == pytest.approx(began)


def test_a_pause_that_many_threads_find_out_at_once_does_not_count_either() -> None:
    beneath = ManualClock()
    clock = RunningClock(beneath)
    began = clock()
    ready = threading.Barrier(8)
    told: list[float] = []

    def ask() -> None:
        ready.wait()
        told.append(clock())

    for _ in range(50):
        beneath.advance(600.0)
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert set(told) == {began}


def test_g14_a_host_that_was_suspended_for_ten_minutes_closes_no_trace_for_it() -> None:
    beneath = ManualClock()
    clock = RunningClock(beneath)
    sink = CollectingSink()
    sent: list[float] = []
    engine = Engine(
        EngineOptions(),
        [ScorerProfile("check", "1")],
        on_spans=sink.on_spans,
        on_scores=clock.translating(lambda _data, _items, since: sent.extend(since)),
        clock=clock,
    )
    # Not `start`: its timer would tick whenever the machine finds the time.
    backend = FakeBackend(engine.deliver, answer=lambda job: [a_decision(True, trace=job.trace.trace_id[-1])])
    engine._scorers.backend = backend  # noqa: SLF001
    traces = range(1, 201)
    for trace in traces:
        engine.ingest(make_request(make_span("tool", trace=trace, span=2, parent=1)))
    beneath.advance(TICK)
    engine.tick()

    beneath.advance(600.0)
    engine.tick()
    assert not backend.jobs
    beneath.advance(TICK)
    engine.tick()
    assert not backend.jobs

    # What was sent meanwhile is read now.
    for trace in traces:
        engine.ingest(make_request(make_span("agent", trace=trace, span=1)))
    ended = beneath()
    for _ in range(22):
        beneath.advance(TICK)
        engine.tick()

    assert len(backend.jobs) == len(traces)
    assert {(job.trace.reason, job.trace.complete, len(job.trace.spans)) for job in backend.jobs} == {
        (CloseReason.ROOT_QUIET, True, 2)
    }
    # How late verdicts are is measured by the clock of who sends them.
    assert sent == pytest.approx([ended] * len(traces))
