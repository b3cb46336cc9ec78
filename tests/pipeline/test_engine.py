"""What the engine sends on, when, and with which verdicts. The clock stands still until a test moves it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import Counted, a_decision, a_log, logs_request

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import Feedback
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, CloseReason, Trigger
from otel_scorer.pipeline.sidecar.engine import Engine, EngineOptions, Forwarding
from otel_scorer.pipeline.verdicts.emission import Emission, Emit
from otel_scorer.pipeline.workers.jobs import Job, Result, ScorerProfile
from otel_scorer.testing import CollectingSink, FakeBackend, ManualClock, make_request, make_span

CHECK = ScorerProfile("check", "1", 1.0)
ON_SPAN = frozenset({Emit.ATTRIBUTES, Emit.EVENTS})
AGENT = [
    make_span("root", span=1, start=0, end=9),
    make_span("llm", span=2, parent=1, start=1),
    make_span("tool", span=3, parent=1, start=2),
]


class Running:
    """An engine with a sink, a backend and a clock of its own."""

    def __init__(
        self,
        forwarding: Forwarding = Forwarding.PASSTHROUGH,
        emit: frozenset[Emit] = frozenset({Emit.EVALUATION_SPAN}),
        scorers: tuple[ScorerProfile, ...] = (CHECK,),
        answer: Callable[[Job], list[Decision]] | None = None,
        capacity: int | None = None,
        **limits: Any,
    ) -> None:
        self.clock = ManualClock()
        self.sink = CollectingSink()
        options = EngineOptions(limits=AssemblyLimits(**limits), forwarding=forwarding, emission=Emission(emit))
        self.engine = Engine(
            options, scorers, on_spans=self.sink.on_spans, on_scores=self.sink.on_scores, clock=self.clock
        )
        self.backend = FakeBackend(self.engine.deliver, answer=answer, capacity=capacity)

    def ingest(self, *spans: SpanMessage, **options: Any) -> tuple[int, str]:
        return self.engine.ingest(make_request(*spans, **options))

    def close_traces(self, number: int = 1) -> list[Job]:
        """Let the grace pass and return the jobs once the engine's timer has noticed."""
        self.clock.advance(2.0)
        return self.backend.wait_for_jobs(number)


@contextmanager
def running(*args: Any, **options: Any) -> Iterator[Running]:
    made = Running(*args, **options)
    made.engine.start(made.backend)
    try:
        yield made
    finally:
        made.engine.drain(0.0)


def names(spans: list[SpanMessage]) -> list[str]:
    return [span.name for span in spans]


def keys(span: SpanMessage) -> set[str]:
    return {pair.key for pair in span.attributes}


def says_true(job: Job) -> list[Decision]:
    return [a_decision(True, trace=int.from_bytes(job.trace.trace_id, "big"))]


def test_without_scorers_a_request_is_passed_on_as_it_is() -> None:
    with running(scorers=()) as run:
        data = make_request(*AGENT)

        assert run.engine.ingest(data) == (0, "")

        assert run.sink.requests == [data]
        assert not run.engine.is_assembling


def test_with_scorers_spans_still_leave_at_once_and_as_they_are() -> None:
    with running() as run:
        data = make_request(*AGENT) + b"\xc2\x3e\x03new"

        run.engine.ingest(data)

        assert run.sink.requests == [data]
        assert run.sink.score_requests == []


@pytest.mark.parametrize("scorers", [(), (CHECK,)], ids=["without scorers", "with scorers"])
def test_spans_that_nobody_can_use_are_counted_and_the_others_go_on(scorers: tuple[ScorerProfile, ...]) -> None:
    bad = make_span("bad", span=9)
    bad.trace_id = b"short"
    with running(scorers=scorers) as run:
        counted = Counted()

        rejected, message = run.ingest(*AGENT, bad)

        assert (rejected, message) == (1, "1 span(s) rejected, the last because its trace_id has 5 bytes instead of 16")
        assert names(run.sink.spans) == ["root", "llm", "tool"]
        assert counted("receiver.spans_accepted") == 3


@pytest.mark.parametrize("scorers", [(), (CHECK,)], ids=["without scorers", "with scorers"])
@pytest.mark.parametrize("data", [b"nonsense", make_request(SpanMessage(name="no ids"))])
def test_a_request_without_anything_usable_is_refused_and_harms_nobody(
    scorers: tuple[ScorerProfile, ...], data: bytes
) -> None:
    with running(scorers=scorers) as run:
        with pytest.raises(InvalidRequestError):
            run.engine.ingest(data)

        run.ingest(*AGENT)

        assert names(run.sink.spans) == ["root", "llm", "tool"]


@pytest.mark.parametrize("forwarding", list(Forwarding))
def test_an_empty_request_leads_to_nothing(forwarding: Forwarding) -> None:
    with running(forwarding) as run:
        assert run.engine.ingest(b"") == (0, "")
        assert run.engine.ingest(make_request()) == (0, "")

        assert run.sink.requests == []


def test_a_verdict_leaves_as_a_span_below_the_root_under_its_resource() -> None:
    with running() as run:
        run.ingest(*AGENT, service="shop", schema_url="https://schema")
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(Feedback("check", False, rationale="slow")))

        [request] = run.sink.score_requests
        [resource_spans] = ExportTraceServiceRequest.FromString(request).resource_spans
        [scope_spans] = resource_spans.scope_spans
        [score] = scope_spans.spans
        assert (score.name, score.parent_span_id) == ("evaluation check", AGENT[0].span_id)
        assert score.start_time_unix_nano == score.end_time_unix_nano == AGENT[0].end_time_unix_nano
        assert resource_spans.resource.attributes[0].value.string_value == "shop"
        assert (resource_spans.schema_url, scope_spans.scope.name) == ("https://schema", "otel_scorer")
        assert {pair.key: pair.value for pair in score.attributes}[
            "otel_scorer.close_reason"
        ].string_value == "root_quiet"
        assert len(run.sink.requests) == 1


def test_passing_through_nothing_can_be_enriched_so_verdicts_are_spans_whatever_was_asked_for() -> None:
    with running(emit=ON_SPAN) as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(True))

        assert names(run.sink.scores) == ["evaluation check"]
        assert names(run.sink.spans) == ["root", "llm", "tool"]


def test_a_job_has_every_span_and_the_reason_it_was_closed_for() -> None:
    with running() as run:
        for span in AGENT:
            run.ingest(span)
        [job] = run.close_traces()

        assert [span.span_id[-1] for span in job.trace.spans] == [1, 2, 3]
        assert (job.trace.reason, job.trace.complete, job.scorers) == (CloseReason.ROOT_QUIET, True, (0,))


def test_a_job_has_the_log_records_about_its_spans_and_none_of_them_is_sent() -> None:
    with running() as run:
        run.engine.ingest_logs(logs_request(a_log("early", span=2), a_log("stranger", trace=2)))
        run.ingest(*AGENT)
        run.engine.ingest_logs(logs_request(a_log("more", span=2)) * 2)
        run.engine.ingest_logs(b"")
        sent = list(run.sink.requests)

        [job] = run.close_traces()

        assert [b"early" in job.trace.logs[0].data, b"more" in job.trace.logs[1].data] == [True, True]
        assert len(job.trace.logs) == 2
        assert run.sink.requests == sent


def test_without_scorers_nobody_looks_at_logs() -> None:
    counted = Counted()
    with running(Forwarding.HOLD_TRACE, scorers=()) as run:
        run.engine.ingest_logs(logs_request(a_log()))

    assert counted("assembler.log_records") == 0


def test_logs_that_are_none_leave_the_traces_alone() -> None:
    with running() as run:
        run.ingest(*AGENT)
        with pytest.raises(InvalidRequestError):
            run.engine.ingest_logs(logs_request(a_log()) + b"\xff")

        [job] = run.close_traces()

        assert job.trace.logs == ()


def test_decisions_may_come_one_by_one() -> None:
    with running() as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(True, scorer="first"), done=False)
        assert names(run.sink.scores) == ["evaluation first"]
        run.backend.decide(job, a_decision(True, scorer="second"))
        run.backend.decide(job, a_decision(True, scorer="after the end"))

        assert names(run.sink.scores) == ["evaluation first", "evaluation second"]


def test_verdicts_on_a_span_go_to_that_span() -> None:
    with running() as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(True, span_id=AGENT[2].span_id.hex()))

        [score] = run.sink.scores
        assert score.parent_span_id == AGENT[2].span_id


def test_a16_spans_that_are_sent_again_are_passed_on_once_and_scored_once() -> None:
    with running() as run:
        run.ingest(*AGENT[:2])
        run.ingest(*AGENT)
        run.ingest(*AGENT)
        [job] = run.close_traces()

        assert names(run.sink.spans) == ["root", "llm", "tool"]
        assert len(job.trace.spans) == 3


@pytest.mark.parametrize("forwarding", Forwarding)
def test_a17_of_two_spans_with_one_id_and_kind_the_first_one_is_passed_on(forwarding: Forwarding) -> None:
    with running(forwarding, answer=says_true) as run:
        run.ingest(make_span("first", parent=9, start=1))
        run.ingest(make_span("second", parent=9, start=1))
        run.ingest(make_span("root", span=9))
        run.close_traces()
        run.sink.wait_for(scores=1)

        assert sorted(names(run.sink.spans)) == ["first", "root"]


@pytest.mark.timeout(180)
def test_a23_of_ten_thousand_traces_in_any_order_each_is_scored_once_and_nothing_is_lost() -> None:
    place = make_span(trace=0xA1B2_C3D4 << 96).trace_id
    patterns = [make_request(make_span("work", trace=0xA1B2_C3D4 << 96, span=1))]
    patterns += [make_request(make_span("work", trace=0xA1B2_C3D4 << 96, span=n, parent=1)) for n in range(2, 21)]
    spans = [(trace, pattern) for trace in range(1, 10_001) for pattern in patterns]
    Random(23).shuffle(spans)

    with running(answer=says_true) as run:
        for first in range(0, len(spans), 1000):
            part = spans[first : first + 1000]
            # Requests that are put behind each other are one.
            run.engine.ingest(b"".join(data.replace(place, trace.to_bytes(16, "big")) for trace, data in part))
        jobs = run.close_traces(10_000)
        assert run.engine.drain(60.0)

        assert Counter(job.trace.trace_id for job in jobs) == Counter(
            {t.to_bytes(16, "big"): 1 for t in range(1, 10_001)}
        )
        assert {(len(job.trace.spans), job.trace.complete) for job in jobs} == {(20, True)}
        assert Counter(span.trace_id for span in run.sink.scores) == Counter(job.trace.trace_id for job in jobs)
        assert len(run.sink.spans) == 200_000


def test_a20_a_late_span_is_passed_on_and_leads_to_no_other_score() -> None:
    with running(answer=says_true) as run:
        run.ingest(*AGENT)
        run.close_traces()
        run.sink.wait_for(scores=1)

        run.ingest(make_span("late", span=9, parent=1))
        run.ingest(make_span("other", trace=2))
        run.close_traces(2)
        run.sink.wait_for(scores=2)

        assert names(run.sink.spans) == ["root", "llm", "tool", "late", "other"]
        assert {job.trace.trace_id[-1] for job in run.backend.jobs} == {1, 2}


def test_a24_a_trace_over_its_limit_is_scored_at_once() -> None:
    with running(max_spans_per_trace=3, answer=says_true) as run:
        run.ingest(*AGENT, make_span("one too many", span=4, parent=1))

        assert run.backend.jobs[0].trace.reason is CloseReason.SPAN_LIMIT
        assert names(run.sink.spans) == ["root", "llm", "tool", "one too many"]
        assert names(run.sink.scores) == ["evaluation check"]


@pytest.mark.parametrize("forwarding", Forwarding)
def test_a25_a_trace_that_weighs_too_much_is_scored_in_part_and_all_of_it_is_passed_on(forwarding: Forwarding) -> None:
    megabyte = {"text": "x" * (1 << 20)}
    with running(forwarding, answer=says_true) as run:
        for number in range(2, 66):
            run.ingest(make_span(f"part {number}", span=number, parent=1, attributes=megabyte))
        [job] = run.backend.wait_for_jobs(1)

        assert (job.trace.reason, job.trace.complete) == (CloseReason.BYTE_LIMIT, False)
        assert len(job.trace.spans) == 32
        assert Counter(names(run.sink.spans)) == Counter(f"part {number}" for number in range(2, 66))
        assert names(run.sink.scores) == ["evaluation check"]


def test_holding_the_root_children_leave_at_once_and_the_root_with_its_verdicts() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN) as run:
        run.ingest(*AGENT)
        assert names(run.sink.spans) == ["llm", "tool"]
        [job] = run.close_traces()
        assert names(run.sink.spans) == ["llm", "tool"]

        run.backend.decide(job, a_decision(Feedback("check", True, rationale="fine")))

        root = run.sink.spans[-1]
        assert names(run.sink.spans) == ["llm", "tool", "root"]
        assert keys(root) == {
            "otel_scorer.check.value",
            "otel_scorer.check.label",
            "otel_scorer.check.explanation",
            "otel_scorer.check.source.type",
            "otel_scorer.check.source.id",
            "otel_scorer.close_reason",
            "otel_scorer.complete",
        }
        assert [(event.name, event.time_unix_nano) for event in root.events] == [
            ("gen_ai.evaluation.result", AGENT[0].end_time_unix_nano)
        ]
        assert run.sink.scores == []


@pytest.mark.parametrize(
    ("emit", "with_attributes", "with_events", "scores"),
    [
        ({Emit.ATTRIBUTES}, True, False, 0),
        ({Emit.EVENTS}, False, True, 0),
        ({Emit.EVALUATION_SPAN}, False, False, 1),
        ({Emit.EVALUATION_SPAN, Emit.ATTRIBUTES, Emit.EVENTS}, True, True, 1),
    ],
)
@pytest.mark.parametrize("forwarding", [Forwarding.HOLD_ROOT, Forwarding.HOLD_TRACE])
def test_each_verdict_goes_out_once_per_way_that_was_chosen(
    forwarding: Forwarding, emit: set[Emit], with_attributes: bool, with_events: bool, scores: int
) -> None:
    with running(forwarding, frozenset(emit), answer=says_true) as run:
        counted = Counted()
        run.ingest(*AGENT)
        run.close_traces()
        run.sink.wait_for(spans=3, scores=scores)

        [root] = [span for span in run.sink.spans if span.name == "root"]
        assert bool(keys(root)) is with_attributes
        assert len(root.events) == with_events
        assert len(run.sink.scores) == scores
        for way in Emit:
            assert counted(f"encoder.verdicts{{encoding={way}}}") == (way in emit)


def test_holding_the_root_a_verdict_on_a_child_is_a_span_of_its_own() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN) as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(1, span_id=AGENT[2].span_id.hex()))

        [score] = run.sink.scores
        assert score.parent_span_id == AGENT[2].span_id
        assert run.sink.spans[-1] == AGENT[0]


def test_a_held_root_waits_for_all_its_verdicts() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN) as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(True, scorer="first"), done=False)
        assert names(run.sink.spans) == ["llm", "tool"]
        run.backend.decide(job, a_decision(True, scorer="second"))

        root = run.sink.spans[-1]
        assert {"otel_scorer.first.value", "otel_scorer.second.value"} < keys(root)
        assert len(root.events) == 2


def test_after_the_deadline_the_root_leaves_with_the_verdicts_that_are_in_and_the_others_follow_as_spans() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN) as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()
        run.backend.decide(job, a_decision(True, scorer="quick"), done=False)

        run.clock.advance(4.999)
        run.engine.ingest(b"")
        assert names(run.sink.spans) == ["llm", "tool"]
        run.clock.advance(0.001)
        run.sink.wait_for(spans=3)
        run.backend.decide(job, a_decision(True, scorer="slow"))

        root = run.sink.spans[-1]
        assert "otel_scorer.quick.value" in keys(root)
        assert "otel_scorer.slow.value" not in keys(root)
        [score] = run.sink.scores
        assert (score.name, score.parent_span_id) == ("evaluation slow", root.span_id)


@pytest.mark.parametrize("forwarding", [Forwarding.HOLD_ROOT, Forwarding.HOLD_TRACE])
def test_a_trace_without_a_verdict_leaves_unchanged_when_that_is_known(forwarding: Forwarding) -> None:
    with running(forwarding, ON_SPAN) as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(outcome=Outcome.NOT_APPLICABLE))

        assert sorted(names(run.sink.spans)) == ["llm", "root", "tool"]
        assert all(span in AGENT for span in run.sink.spans)
        assert run.sink.scores == []


def test_holding_the_root_of_a_trace_without_one_holds_nothing() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN, idle_timeout=1.0) as run:
        run.ingest(AGENT[1])
        assert names(run.sink.spans) == ["llm"]
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(True))

        [score] = run.sink.scores
        assert score.parent_span_id == AGENT[1].span_id


def test_a_root_that_comes_after_its_trace_was_closed_is_not_held() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN, idle_timeout=1.0) as run:
        run.ingest(AGENT[1])
        run.close_traces()

        run.ingest(AGENT[0])

        assert names(run.sink.spans) == ["llm", "root"]


def test_with_trigger_local_root_it_is_the_local_root_that_waits_for_its_verdicts() -> None:
    served = make_span("served", span=2, parent=1, remote_parent=True)
    with running(Forwarding.HOLD_ROOT, ON_SPAN, trigger=Trigger.LOCAL_ROOT) as run:
        run.ingest(served, make_span("tool", span=3, parent=2))
        assert names(run.sink.spans) == ["tool"]
        [job] = run.close_traces()

        run.backend.decide(job, a_decision(True))

        assert names(run.sink.spans) == ["tool", "served"]
        assert "otel_scorer.check.value" in keys(run.sink.spans[1])
        assert run.sink.score_requests == []


def test_a_local_root_that_turns_out_to_be_late_with_what_it_waited_for_is_sent_on() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN, trigger=Trigger.LOCAL_ROOT) as run:
        run.ingest(make_span("served", span=1, parent=99, remote_parent=True))
        [job] = run.close_traces()
        run.backend.decide(job, a_decision(True))
        # A client span waits for its parent; what serves it has the same id, as Zipkin's spans have.
        run.ingest(make_span("client", span=3, parent=2, kind="CLIENT"))
        run.ingest(make_span("server", span=3, parent=2, kind="SERVER", remote_parent=True))
        assert names(run.sink.spans) == ["served", "client"]

        run.ingest(make_span("tool", span=2, parent=1))

        assert sorted(names(run.sink.spans)) == ["client", "served", "server", "tool"]


@pytest.mark.parametrize("forwarding", [Forwarding.HOLD_ROOT, Forwarding.HOLD_TRACE])
def test_each_unit_of_a_trace_is_scored_and_held_on_its_own(forwarding: Forwarding) -> None:
    with running(forwarding, emit=ON_SPAN, trigger=Trigger.LOCAL_ROOT) as run:
        for call in (1, 2):
            run.ingest(
                make_span("work", span=10 * call, parent=call),
                make_span(f"call {call}", span=call, parent=99, remote_parent=True),
            )
        jobs = run.close_traces(2)
        # A client that sends a request again while both wait: none of it may leave twice.
        for call in (1, 2):
            run.ingest(make_span(f"call {call}", span=call, parent=99, remote_parent=True))
        for job in jobs:
            run.backend.decide(job, a_decision(job.trace.unit[-1] == 1))

        leaving = {span.name: span for span in run.sink.spans if span.name.startswith("call")}
        assert sorted(names(run.sink.spans)) == ["call 1", "call 2", "work", "work"]
        values = {
            name: next(pair.value.bool_value for pair in span.attributes if pair.key == "otel_scorer.check.value")
            for name, span in leaving.items()
        }
        assert values == {"call 1": True, "call 2": False}


@pytest.mark.parametrize("forwarding", [Forwarding.HOLD_ROOT, Forwarding.HOLD_TRACE])
def test_a15_a_late_span_that_shares_its_id_with_one_that_is_held_is_no_copy_of_it(forwarding: Forwarding) -> None:
    with running(forwarding, emit=ON_SPAN) as run:
        run.ingest(make_span("client", span=1, kind="CLIENT"))
        [job] = run.close_traces()

        run.ingest(make_span("server", span=1, kind="SERVER"))
        run.ingest(make_span("client", span=1, kind="CLIENT"))

        assert names(run.sink.spans) == ["server"]
        run.backend.decide(job, a_decision(True))
        assert names(run.sink.spans) == ["server", "client"]


def test_by_default_a_local_root_is_not_held() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN) as run:
        run.ingest(make_span("served", span=2, parent=1, remote_parent=True))

        assert names(run.sink.spans) == ["served"]


def test_of_two_roots_both_are_held_and_the_earlier_gets_the_verdict() -> None:
    with running(Forwarding.HOLD_ROOT, ON_SPAN) as run:
        run.ingest(make_span("later", span=7, start=3), make_span("earlier", span=8))
        [job] = run.close_traces()
        assert run.sink.spans == []

        run.backend.decide(job, a_decision(True))

        later, earlier = run.sink.spans
        assert (later.name, bool(keys(later))) == ("later", False)
        assert (earlier.name, bool(keys(earlier))) == ("earlier", True)


@pytest.mark.parametrize("forwarding", [Forwarding.HOLD_ROOT, Forwarding.HOLD_TRACE])
def test_a_held_root_that_is_sent_again_leaves_once(forwarding: Forwarding) -> None:
    with running(forwarding, ON_SPAN, answer=says_true) as run:
        run.ingest(*AGENT)
        run.ingest(*AGENT)
        run.close_traces()
        run.sink.wait_for(spans=3)

        assert sorted(names(run.sink.spans)) == ["llm", "root", "tool"]


@pytest.mark.parametrize("forwarding", [Forwarding.HOLD_ROOT, Forwarding.HOLD_TRACE])
def test_a_root_that_is_sent_again_while_it_waits_for_verdicts_leaves_once(forwarding: Forwarding) -> None:
    counted = Counted()
    with running(forwarding, ON_SPAN) as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.ingest(AGENT[0])
        run.backend.decide(job, a_decision(True))
        run.ingest(AGENT[0])

        assert sorted(names(run.sink.spans)) == ["llm", "root", "root", "tool"]
        first, second = (span for span in run.sink.spans if span.name == "root")
        assert "otel_scorer.check.value" in keys(first)
        assert second == AGENT[0]
        assert counted("assembler.duplicates") == 1


def test_without_scorers_there_is_nothing_to_hold_a_root_for() -> None:
    with running(Forwarding.HOLD_ROOT, scorers=()) as run:
        run.ingest(*AGENT)

        assert names(run.sink.spans) == ["root", "llm", "tool"]


def test_holding_the_trace_nothing_leaves_before_the_verdicts_and_then_all_of_it_in_one_request() -> None:
    with running(Forwarding.HOLD_TRACE, ON_SPAN) as run:
        for span in reversed(AGENT):
            run.ingest(span)
        [job] = run.close_traces()
        assert run.sink.requests == []

        run.backend.decide(job, a_decision(True), a_decision(3, scorer="calls", span_id=AGENT[2].span_id.hex()))

        [_] = run.sink.requests
        by_name = {span.name: span for span in run.sink.spans}
        assert "otel_scorer.check.value" in keys(by_name["root"])
        assert "otel_scorer.calls.value" in keys(by_name["tool"])
        assert by_name["llm"] == AGENT[1]
        assert run.sink.scores == []


def test_holding_the_trace_without_scorers_sends_whole_traces() -> None:
    with running(Forwarding.HOLD_TRACE, scorers=()) as run:
        run.ingest(AGENT[1], make_span("other", trace=2))
        run.ingest(AGENT[0], AGENT[2])
        assert run.sink.requests == []

        run.clock.advance(2.0)
        run.sink.wait_for(spans=4)

        assert len({span.trace_id for span in run.sink.spans}) == 2
        assert sorted(names(run.sink.spans)) == ["llm", "other", "root", "tool"]


def test_holding_the_trace_late_spans_leave_at_once() -> None:
    with running(Forwarding.HOLD_TRACE, scorers=()) as run:
        run.ingest(*AGENT)
        run.clock.advance(2.0)
        run.sink.wait_for(spans=3)

        run.ingest(make_span("late", span=9, parent=1))

        assert names(run.sink.spans)[-1] == "late"


def test_a_large_release_is_cut_between_traces() -> None:
    with running(Forwarding.HOLD_TRACE, scorers=()) as run:
        for trace in range(1, 6):
            run.ingest(*(make_span("x" * 300_000, trace=trace, span=span + 1) for span in range(3)))
        run.clock.advance(2.0)
        run.sink.wait_for(spans=15)

        assert len(run.sink.requests) > 1
        seen: set[bytes] = set()
        for request in run.sink.requests:
            sink = CollectingSink()
            sink.requests = [request]
            here = {span.trace_id for span in sink.spans}
            assert not here & seen
            seen |= here


def test_a_held_trace_over_its_deadline_leaves_as_it_is() -> None:
    with running(Forwarding.HOLD_TRACE, ON_SPAN) as run:
        counted = Counted()
        run.ingest(*AGENT)
        [job] = run.close_traces()

        run.clock.advance(5.0)
        run.sink.wait_for(spans=3)
        run.backend.decide(job, a_decision(True))

        assert run.sink.spans == AGENT
        assert names(run.sink.scores) == ["evaluation check"]
        assert counted("holding.released{reason=deadline}") == 1
        assert counted("holding.released{reason=decided}") == 0


@pytest.mark.parametrize("forwarding", list(Forwarding))
@pytest.mark.parametrize("scorers", [(), (CHECK,)], ids=["without scorers", "with scorers"])
@pytest.mark.parametrize("parent", [1, None], ids=["with a parent", "without a parent"])
def test_evaluation_spans_of_another_sidecar_are_passed_on_at_once_and_once(
    forwarding: Forwarding, scorers: tuple[ScorerProfile, ...], parent: int | None
) -> None:
    with running(forwarding, ON_SPAN, scorers=scorers, answer=says_true) as run:
        run.ingest(AGENT[0])
        run.ingest(make_span("evaluation other", span=50, parent=parent), scope="otel_scorer")
        assert "evaluation other" in names(run.sink.spans)
        run.clock.advance(2.0)
        run.sink.wait_for(spans=2)
        run.ingest(make_span("evaluation later", span=51, parent=parent), scope="otel_scorer")
        run.engine.drain(1.0)

        assert sorted(names(run.sink.spans)) == ["evaluation later", "evaluation other", "root"]


def test_what_is_not_sampled_is_decided_without_a_job() -> None:
    never = ScorerProfile("never", "1", 0.0)
    with running(scorers=(never, CHECK)) as run:
        counted = Counted()
        run.ingest(*AGENT)
        [job] = run.close_traces()

        assert job.scorers == (1,)
        assert counted("scoring.decisions{outcome=not_sampled,scorer=never}") == 1


@pytest.mark.parametrize("forwarding", list(Forwarding))
def test_a_trace_that_no_scorer_wants_leaves_without_waiting(forwarding: Forwarding) -> None:
    with running(forwarding, scorers=(ScorerProfile("never", "1", 0.0),)) as run:
        run.ingest(*AGENT)
        run.clock.advance(2.0)
        run.sink.wait_for(spans=3)
        run.engine.drain(1.0)

        assert sorted(names(run.sink.spans)) == ["llm", "root", "tool"]
        assert run.backend.jobs == []


@pytest.mark.parametrize("forwarding", list(Forwarding))
def test_when_the_queue_to_the_scorers_is_full_the_decision_says_so_and_spans_go_on(forwarding: Forwarding) -> None:
    with running(forwarding, ON_SPAN, capacity=0) as run:
        counted = Counted()
        run.ingest(*AGENT)
        run.clock.advance(2.0)
        run.sink.wait_for(spans=3)
        assert run.engine.drain(1.0)

        assert sorted(names(run.sink.spans)) == ["llm", "root", "tool"]
        assert run.sink.scores == []
        assert counted("scoring.decisions{outcome=shed,scorer=check}") == 1


def test_decisions_are_counted_once_each() -> None:
    with running(Forwarding.HOLD_ROOT) as run:
        counted = Counted()
        run.ingest(*AGENT)
        [job] = run.close_traces()
        run.backend.decide(job, a_decision(True), done=False)
        run.clock.advance(5.0)
        run.sink.wait_for(spans=3)
        run.backend.decide(job, a_decision(outcome=Outcome.FAILED))

        assert counted("scoring.decisions{outcome=scored,scorer=check}") == 1
        assert counted("scoring.decisions{outcome=failed,scorer=check}") == 1


@pytest.mark.parametrize("forwarding", list(Forwarding))
def test_draining_scores_and_sends_what_is_open(forwarding: Forwarding) -> None:
    with running(forwarding, answer=says_true) as run:
        run.ingest(*AGENT)

        assert run.engine.drain(5.0)

        assert sorted(names(run.sink.spans)) == ["llm", "root", "tool"]
        assert names(run.sink.scores) == ["evaluation check"]
        assert run.backend.jobs[0].trace.reason is CloseReason.SHUTDOWN


@pytest.mark.parametrize("forwarding", [Forwarding.HOLD_ROOT, Forwarding.HOLD_TRACE])
def test_draining_lets_go_of_what_is_held_when_the_verdicts_take_too_long(forwarding: Forwarding) -> None:
    with running(forwarding, ON_SPAN) as run:
        run.ingest(*AGENT)

        assert not run.engine.drain(0.0)
        [job] = run.backend.jobs
        run.backend.decide(job, a_decision(True))

        assert sorted(names(run.sink.spans)) == ["llm", "root", "tool"]
        assert names(run.sink.scores) == ["evaluation check"]


def test_draining_twice_sends_nothing_twice() -> None:
    with running(Forwarding.HOLD_TRACE, answer=says_true) as run:
        run.ingest(*AGENT)

        assert run.engine.drain(5.0)
        assert run.engine.drain(5.0)

        assert len(run.sink.spans) == 3
        assert len(run.sink.scores) == 1


def test_draining_waits_until_the_last_verdict_was_handed_on() -> None:
    entered, leave = threading.Event(), threading.Event()
    sink = CollectingSink()

    def slow_scores(data: bytes, items: int, since: Sequence[float]) -> None:
        entered.set()
        assert leave.wait(20)
        sink.on_scores(data, items, since)

    engine = Engine(EngineOptions(), [CHECK], on_spans=sink.on_spans, on_scores=slow_scores)
    backend = FakeBackend(engine.deliver)
    engine.start(backend)
    engine.ingest(make_request(*AGENT))
    drained: list[int] = []

    def drain() -> None:
        engine.drain(20)
        drained.append(len(sink.scores))

    draining = threading.Thread(target=drain)
    draining.start()
    [job] = backend.wait_for_jobs(1)
    delivering = threading.Thread(target=backend.decide, args=(job, a_decision(True)))
    delivering.start()
    assert entered.wait(20)
    draining.join(0.1)
    leave.set()
    draining.join(20)
    delivering.join(20)

    assert drained == [1]


def test_many_threads_may_send_at_once() -> None:
    with running(Forwarding.HOLD_TRACE, ON_SPAN, answer=says_true) as run:

        def send(thread: int) -> None:
            for number in range(50):
                trace = number * 10 + 1
                run.ingest(make_span(f"{thread} {number}", trace=trace, span=thread + 1, parent=1 if thread else None))

        threads = [threading.Thread(target=send, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        run.engine.drain(20)

        assert sorted(names(run.sink.spans)) == sorted(
            f"{thread} {number}" for thread in range(4) for number in range(50)
        )
        assert len(run.backend.jobs) == 50
        roots = [span for span in run.sink.spans if span.name.startswith("0 ")]
        assert sum("otel_scorer.check.value" in keys(root) for root in roots) == 50


OTHER = ScorerProfile("other", "2", 1.0)


def test_traces_that_close_after_a_replacement_are_the_new_scorers_to_judge() -> None:
    with running() as run:
        run.ingest(*AGENT)
        [old] = run.close_traces()
        run.ingest(make_span("root", trace=2))
        others = FakeBackend(run.engine.deliver)

        replaced = run.engine.replace_scorers([OTHER], others)
        run.clock.advance(2.0)
        [new] = others.wait_for_jobs(1)

        assert (replaced.jobs, new.trace.trace_id[-1], run.backend.jobs) == (1, 2, [old])
        run.backend.decide(old, a_decision(True))
        others.decide(new, a_decision("x", trace=2, scorer="other"))
        run.engine.wait_until_decided(replaced)
        assert replaced.jobs == 0
        assert names(run.sink.scores) == ["evaluation check", "evaluation other"]


def test_whoever_waits_for_replaced_scorers_is_told_when_they_are_done() -> None:
    with running() as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()
        replaced = run.engine.replace_scorers([], None)
        done = threading.Event()

        def wait() -> None:
            run.engine.wait_until_decided(replaced)
            done.set()

        waiter = threading.Thread(target=wait)
        waiter.start()

        assert not done.is_set()
        run.backend.decide(job, a_decision(True), done=False)
        assert not done.is_set()
        run.backend.decide(job)

        waiter.join(20)
        assert done.is_set()


def test_jobs_that_are_refused_count_as_done_for_their_set() -> None:
    with running(capacity=0) as run:
        counted = Counted()
        run.ingest(*AGENT)
        run.clock.advance(2.0)
        run.engine.tick()

        run.engine.wait_until_decided(run.engine.replace_scorers([OTHER], None))

        assert counted("scoring.decisions{outcome=shed,scorer=check}") == 1


@pytest.mark.parametrize("forwarding", list(Forwarding))
def test_without_the_last_scorer_what_is_open_leaves_when_it_closes(forwarding: Forwarding) -> None:
    with running(forwarding) as run:
        run.ingest(*AGENT)

        run.engine.replace_scorers([], None)
        run.ingest(make_span("later", trace=2))
        run.clock.advance(2.0)
        run.engine.tick()
        run.clock.advance(2.0)
        run.engine.tick()

        assert sorted(names(run.sink.spans)) == ["later", "llm", "root", "tool"]
        assert run.backend.jobs == []
        assert run.engine.is_assembling == (forwarding is Forwarding.HOLD_TRACE)


@pytest.mark.parametrize("forwarding", [Forwarding.PASSTHROUGH, Forwarding.HOLD_ROOT])
def test_the_first_scorer_begins_with_what_comes_then(forwarding: Forwarding) -> None:
    with running(forwarding, scorers=()) as run:
        run.ingest(*AGENT)
        run.engine.replace_scorers([CHECK], run.backend)

        run.ingest(make_span("root", trace=2))
        [job] = run.close_traces()

        assert (job.trace.trace_id[-1], job.trace.complete) == (2, True)
        run.backend.decide(job, a_decision(True, trace=2))
        assert sorted(names(run.sink.spans)) == ["llm", "root", "root", "tool"]
        assert names(run.sink.scores) == ["evaluation check"]


@pytest.mark.parametrize("kind", [Emit.EVALUATION_SPAN, Emit.EVENTS])
def test_verdicts_leave_with_the_time_at_which_their_trace_ended(kind: Emit) -> None:
    sent: list[tuple[str, list[float]]] = []
    clock = ManualClock()
    engine = Engine(
        EngineOptions(forwarding=Forwarding.HOLD_TRACE, emission=Emission(frozenset({kind}))),
        [CHECK],
        on_spans=lambda _data, _items, since: sent.append(("spans", list(since))),
        on_scores=lambda _data, _items, since: sent.append(("scores", list(since))),
        clock=clock,
    )
    backend = FakeBackend(engine.deliver, answer=says_true)
    engine.start(backend)
    engine.ingest(make_request(*AGENT[1:]))
    clock.advance(0.5)
    engine.ingest(make_request(AGENT[0]))
    ended = clock()
    clock.advance(2.1)
    backend.wait_for_jobs(1)
    engine.drain(20)

    held = [ended] if kind is Emit.EVENTS else []
    assert sent == [("spans", held)] + ([] if kind is Emit.EVENTS else [("scores", [ended])])


@pytest.mark.parametrize("forwarding", list(Forwarding))
@pytest.mark.parametrize("emit", [{Emit.EVALUATION_SPAN}, {Emit.EVENTS}, {Emit.EVENTS, Emit.EVALUATION_SPAN}])
def test_a_trace_hands_on_its_end_once_however_many_requests_its_verdicts_take(
    forwarding: Forwarding, emit: set[Emit]
) -> None:
    ends: list[float] = []
    clock = ManualClock()
    engine = Engine(
        EngineOptions(forwarding=forwarding, hold_deadline=3.0, emission=Emission(frozenset(emit))),
        [CHECK, ScorerProfile("quick", "1"), ScorerProfile("slow", "1")],
        on_spans=lambda _data, _items, since: ends.extend(since),
        on_scores=lambda _data, _items, since: ends.extend(since),
        clock=clock,
    )
    backend = FakeBackend(engine.deliver)
    engine.start(backend)
    for trace in (1, 2):
        engine.ingest(make_request(make_span("root", trace=trace)))
    ended = clock()
    clock.advance(2.1)
    jobs = backend.wait_for_jobs(2)
    for job in jobs:
        trace = job.trace.trace_id[-1]
        # The first says nothing about this trace; what the slow one says comes after the deadline.
        engine.deliver([Result(job.id, (a_decision(trace=trace, outcome=Outcome.NOT_APPLICABLE),), done=False)])
        engine.deliver([Result(job.id, (a_decision(True, trace=trace, scorer="quick"),), done=False)])
    clock.advance(3.1)
    engine.tick()
    for job in jobs:
        verdict = a_decision(True, trace=job.trace.trace_id[-1], scorer="slow")
        engine.deliver([Result(job.id, (verdict,), done=True)])
    engine.drain(20)

    assert ends == [ended, ended]


def test_what_is_open_and_what_is_being_scored_can_be_read() -> None:
    with running() as run:
        run.ingest(*AGENT)
        opened = {each.name: each.value for each in run.engine.gauges()}
        run.close_traces()
        closed = {each.name: each.value for each in run.engine.gauges()}

    assert (opened["assembler.open_traces"], opened["scoring.open_traces"]) == (1, 0)
    assert opened["assembler.open_size"] > 0
    assert closed == {
        "assembler.open_traces": 0,
        "assembler.open_size": 0,
        "assembler.kept_size": 0,
        "scoring.open_traces": 1,
    }
