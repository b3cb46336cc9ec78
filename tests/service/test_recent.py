"""The traces that the status page shows: the last ones, and little of each."""

from __future__ import annotations

import json
import tracemalloc

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentSource, Feedback
from otel_scorer.model.wire import RawSpan, read_traces
from otel_scorer.pipeline.assembly.closing import ClosedTrace, CloseReason
from otel_scorer.service.recent import RecentTraces
from otel_scorer.testing import make_request, make_span


def closed(trace: int = 1, name: str = "agent") -> ClosedTrace[RawSpan]:
    spans = read_traces(make_request(make_span(name, trace=trace, span=1, end=2.0), service="shop")).spans
    return ClosedTrace(spans[0].trace_id, spans, CloseReason.ROOT_QUIET, complete=True)


def decided(*feedbacks: Feedback, outcome: Outcome = Outcome.SCORED, reason: str | None = None) -> Decision:
    return Decision("1" * 32, None, "check", "1", outcome, reason, 1, feedbacks, (None,) * len(feedbacks), 0.5)


def test_the_last_hundred_are_kept_and_the_last_one_comes_first() -> None:
    recent = RecentTraces(now=lambda: 7.0)

    for number in range(1, 151):
        recent.keep(closed(number), [decided(Feedback("check", value=True))])

    found = recent.to_data()
    assert len(found) == 100
    assert (found[0]["trace_id"], found[-1]["trace_id"]) == (f"{150:032x}", f"{51:032x}")
    first = found[0]
    assert (first["at"], first["name"], first["service"], first["seconds"]) == (7.0, "agent", "shop", 2.0)


def test_of_what_is_large_only_the_beginning_is_kept() -> None:
    recent = RecentTraces()
    large = [Feedback("n" * 10_000, value="v" * 100_000, rationale="r" * 1_000_000) for _ in range(1_000)]

    for number in range(100):
        recent.keep(closed(number + 1, "x" * 100_000), [decided(*large)])

    found = recent.to_data()
    assert len(json.dumps(found)) < 3_000_000
    assert found[0]["name"] is None
    assert found[0]["more"] == 980


def test_what_is_small_but_for_its_source_and_its_target_is_cut_too() -> None:
    recent = RecentTraces()
    tracemalloc.start()

    for number in range(100):
        source, target = AssessmentSource("CODE", f"{number:1000000}"), f"{number:01000000}"
        recent.keep(closed(number + 1), [decided(Feedback(value=True, source=source, span_id=target))])

    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 20_000_000
    assert len(json.dumps(recent.to_data())) < 1_000_000


def test_a_decision_without_feedback_says_why() -> None:
    recent = RecentTraces()

    recent.keep(closed(), [decided(outcome=Outcome.NOT_APPLICABLE, reason="no expectations")])

    (verdict,) = recent.to_data()[0]["verdicts"]
    assert (verdict["kind"], verdict["value"], verdict["why"]) == ("skipped", "not_applicable", "no expectations")


def test_reasons_that_must_not_be_shown_are_not_kept() -> None:
    recent = RecentTraces(with_reasons=False)

    recent.keep(closed(), [decided(Feedback("check", value=True, rationale="the user said")), decided(reason="quoted")])

    assert [verdict["why"] for verdict in recent.to_data()[0]["verdicts"]] == ["", ""]
