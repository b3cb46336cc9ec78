"""What otel_scorer.testing promises to those who test their scorers with it."""

from __future__ import annotations

import pytest
from tests.fakes import a_decision

from otel_scorer.model.wire import read_traces
from otel_scorer.pipeline.assembly.assembler import ClosedTrace, CloseReason
from otel_scorer.pipeline.workers.jobs import Job, Result
from otel_scorer.testing import (
    EPOCH_NS,
    CollectingSink,
    FakeBackend,
    ManualClock,
    make_raw,
    make_request,
    make_span,
    make_trace,
    read_spans,
)


def test_a_trace_is_made_of_spans_that_say_only_what_matters() -> None:
    trace = make_trace(
        make_span("agent", span=1, attributes={"gen_ai.operation.name": "invoke_agent"}),
        make_span("search", span=2, parent=1, status="ERROR", attributes={"gen_ai.operation.name": "execute_tool"}),
        service="shop",
        close_reason="root_quiet",
    )

    assert [(span.name, span.span_type, span.failed) for span in trace.spans] == [
        ("agent", "AGENT", False),
        ("search", "TOOL", True),
    ]
    assert (trace.service_name, trace.close_reason, trace.is_complete) == ("shop", "root_quiet", True)


def test_a_span_lasts_a_second_unless_told_otherwise() -> None:
    span, short = make_span(start=2.5), make_span(start=2.5, end=3.0)

    assert span.start_time_unix_nano == EPOCH_NS + 2_500_000_000
    assert span.end_time_unix_nano == EPOCH_NS + 3_500_000_000
    assert short.end_time_unix_nano == EPOCH_NS + 3_000_000_000


def test_requests_hold_what_they_were_made_of_one_after_the_other_too() -> None:
    first, second = make_span("a", span=1), make_span("b", span=2, parent=1, remote_parent=True)

    request = make_request(first, service="web") + make_request(second, service="db", resource={"host": "x"})

    assert read_spans(request) == [first, second]
    assert [span.is_local_root for span in read_traces(request).spans] == [False, True]
    assert [span.data for span in make_raw(first, second)] == [first.SerializeToString(), second.SerializeToString()]


def test_the_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(5.0)

    assert (clock(), clock()) == (5.0, 5.0)
    clock.advance(2.5)
    assert clock() == 7.5


def test_the_sink_keeps_everything_in_order_and_checks_what_it_is_told() -> None:
    sink = CollectingSink()

    sink.on_spans(make_request(make_span("a"), make_span("b")), 2)
    sink.on_scores(make_request(make_span("c")), 1)

    sink.wait_for(spans=2, scores=1, timeout=0)
    assert [span.name for span in sink.spans] == ["a", "b"]
    assert [span.name for span in sink.scores] == ["c"]
    with pytest.raises(ValueError, match="with 1 spans was announced as one with 2"):
        sink.on_spans(make_request(make_span("a")), 2)
    with pytest.raises(TimeoutError, match="Waited for 3 spans and 0 scores, got 2 and 1"):
        sink.wait_for(spans=3, timeout=0)


def test_the_backend_takes_what_it_has_room_for_and_answers_when_told() -> None:
    jobs = [Job(number, ClosedTrace(bytes(16), [], CloseReason.IDLE, complete=False), (0,)) for number in range(3)]
    delivered: list[Result] = []
    backend = FakeBackend(delivered.extend, capacity=2)

    assert backend.submit(jobs) == jobs[2:]
    backend.decide(jobs[1], a_decision(True), done=False)

    assert backend.wait_for_jobs(2, timeout=0) == jobs[:2]
    assert delivered == [Result(1, (a_decision(True),), done=False)]
    with pytest.raises(TimeoutError, match="Waited for 3 jobs, got 2"):
        backend.wait_for_jobs(3, timeout=0)


def test_the_backend_can_answer_by_itself() -> None:
    job = Job(7, ClosedTrace(bytes(16), [], CloseReason.IDLE, complete=False), (0,))
    delivered: list[Result] = []

    FakeBackend(delivered.extend, answer=lambda _: [a_decision(True)]).submit([job])

    assert [(result.job_id, result.done, len(result.decisions)) for result in delivered] == [(7, True, 1)]
