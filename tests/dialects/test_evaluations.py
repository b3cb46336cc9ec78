"""Verdicts in a trace, in every form that somebody writes them."""

from __future__ import annotations

from typing import Any

from tests.dialects.made import event, made, trace_of

from otel_scorer.model.trace import EvaluationResult

STANDARD = {
    "gen_ai.evaluation.name": "helpfulness",
    "gen_ai.evaluation.score.value": 0.9,
    "gen_ai.evaluation.score.label": "good",
    "gen_ai.evaluation.explanation": "because",
}


def of(*spans: dict[str, Any]) -> list[EvaluationResult]:
    return trace_of(*spans).evaluations


def helpful(span: dict[str, Any]) -> EvaluationResult:
    return EvaluationResult("helpfulness", 0.9, "good", "because", None, span["span_id"])


def test_a_span_event_is_about_its_span() -> None:
    span = made("agent", events=[{"name": "gen_ai.evaluation.result", "timestamp": 1, "attributes": STANDARD}])

    assert of(span) == [helpful(span)]


def test_a_log_record_is_about_its_span() -> None:
    span = made(
        "agent", logs=[{"event_name": "gen_ai.evaluation.result", "timestamp": 1, "body": None, "attributes": STANDARD}]
    )

    assert of(span) == [helpful(span)]


def test_one_verdict_that_comes_two_ways_counts_once() -> None:
    span = made(
        "agent",
        events=[{"name": "gen_ai.evaluation.result", "timestamp": 1, "attributes": STANDARD}],
        logs=[{"event_name": "gen_ai.evaluation.result", "timestamp": 1, "body": None, "attributes": STANDARD}],
    )

    assert of(span) == [helpful(span)]


def test_an_evaluation_span_is_about_its_parent() -> None:
    target = made("agent")
    carrier = made(
        "evaluation",
        {"gen_ai.operation.name": "evaluation", **STANDARD},
        parent=target,
        events=[{"name": "gen_ai.evaluation.result", "timestamp": 1, "attributes": STANDARD}],
    )

    assert of(target, carrier) == [helpful(target)]


def test_a_score_that_is_text_is_a_number_nevertheless() -> None:
    target = made("case")
    attributes = {
        "gen_ai.evaluation.name": "Short",
        "gen_ai.evaluation.score.value": "1.0",
        "gen_ai.evaluation.score.label": "YES",
        "gen_ai.evaluation.test_pass": True,
    }

    [result] = of(target, made("evaluator Short", attributes, parent=target))

    assert (result.value, result.label) == (1.0, "YES")


def test_a_carrier_span_of_openinference_is_about_what_it_links_to() -> None:
    target = made("llm")
    carrier = made(
        "judge",
        {
            "openinference.span.kind": "EVALUATOR",
            "evaluations.0.evaluation.name": "helpfulness",
            "evaluations.0.evaluation.score": 0.9,
            "evaluations.0.evaluation.label": "good",
            "evaluations.0.evaluation.explanation": "because",
            "evaluations.1.evaluation.name": "tone",
            "evaluations.1.evaluation.label": "kind",
        },
        links=[{"trace_id": target["trace_id"], "span_id": target["span_id"], "attributes": {}}],
    )

    assert of(target, carrier) == [
        helpful(target),
        EvaluationResult("tone", None, "kind", None, None, target["span_id"]),
    ]


def test_annotations_on_an_open_span_are_about_it_or_its_trace() -> None:
    span = made(
        "agent",
        {
            "annotations.0.annotation.name": "a",
            "annotations.0.annotation.score": 1,
            "trace.evaluations.0.evaluation.name": "b",
        },
    )

    assert [(result.name, result.value, result.span_id) for result in of(span)] == [
        ("a", 1.0, span["span_id"]),
        ("b", None, span["span_id"]),
    ]


def test_one_record_may_hold_many_results() -> None:
    body = {
        "gen_ai.evaluations": [
            {"gen_ai.evaluation.name": "bias", "gen_ai.evaluation.score.value": 0.1},
            {"name": "tone", "label": "kind"},
        ]
    }
    span = made(
        "agent", logs=[{"event_name": "gen_ai.evaluation.results", "timestamp": 1, "body": body, "attributes": {}}]
    )

    assert [(result.name, result.value, result.label) for result in of(span)] == [
        ("bias", 0.1, None),
        ("tone", None, "kind"),
    ]


def test_feedback_of_logfire_is_about_the_span_above() -> None:
    target = made("agent")
    feedback = made(
        "feedback: helpful",
        {
            "logfire.span_type": "annotation",
            "logfire.feedback.name": "helpful",
            "helpful": True,
            "logfire.feedback.comment": "nice",
        },
        scope="logfire",
        parent=target,
    )

    assert of(target, feedback) == [EvaluationResult("helpful", 1.0, None, "nice", None, target["span_id"])]


def test_a_failed_evaluator_tells_its_error() -> None:
    span = made(
        "agent", events=[event("gen_ai.evaluation.result", gen_ai__evaluation__name="x", error__type="RuntimeError")]
    )

    [result] = of(span)

    assert (result.value, result.error_type) == (None, "RuntimeError")


def test_our_own_evaluation_spans_count_although_they_are_no_spans_of_the_trace() -> None:
    target = made("agent")
    own = made(
        "evaluation helpfulness",
        {"gen_ai.operation.name": "evaluation", **STANDARD},
        scope="otel_scorer",
        parent=target,
    )

    trace = trace_of(target, own)

    assert trace.evaluations == [helpful(target)]
    assert len(trace.spans) == 1


def test_a_verdict_that_only_says_whether_it_passed_has_a_label() -> None:
    attributes = {"gen_ai.evaluation.name": "x", "gen_ai.evaluation.passed": False, "gen_ai.evaluation.comment": "no"}
    span = made("agent", events=[{"name": "gen_ai.evaluation.result", "timestamp": 1, "attributes": attributes}])

    assert of(span) == [EvaluationResult("x", None, "fail", "no", None, span["span_id"])]


def test_a_record_may_have_its_verdict_in_the_body() -> None:
    span = made(
        "agent",
        logs=[
            {
                "event_name": "gen_ai.evaluation.result",
                "timestamp": 1,
                "body": {"score": 0.9, "label": "good", "explanation": "because"},
                "attributes": {"gen_ai.evaluation.name": "helpfulness"},
            }
        ],
    )

    assert of(span) == [helpful(span)]


def test_a_span_of_an_older_convention_names_what_it_is_about() -> None:
    target = made("agent")
    carrier = made("gen_ai.evaluation.result", {**STANDARD, "gen_ai.evaluation.span_id": target["span_id"]})

    assert of(target, carrier) == [helpful(target)]


def test_a_carrier_in_a_trace_of_its_own_names_the_trace_that_its_verdict_is_about() -> None:
    other = "f" * 32
    attributes = {"openinference.span.kind": "EVALUATOR", "evaluations.0.evaluation.name": "tone"}
    linked = made("carrier", attributes, links=[{"trace_id": other, "span_id": "a" * 16, "attributes": {}}])
    named = made(
        "gen_ai.evaluation.result",
        {**STANDARD, "gen_ai.evaluation.trace_id": other, "gen_ai.evaluation.span_id": "b" * 16},
    )
    here = made("carrier", attributes)
    at_home = {**here, "links": [{"trace_id": here["trace_id"], "span_id": "c" * 16, "attributes": {}}]}

    found = of(linked, named, at_home)

    assert [(result.name, result.trace_id, result.span_id) for result in found] == [
        ("tone", other, "a" * 16),
        ("helpfulness", other, "b" * 16),
        ("tone", None, "c" * 16),
    ]


def test_annotations_may_start_at_any_number() -> None:
    span = made("agent", {"annotations.1.annotation.name": "a", "annotations.1.annotation.label": "good"})

    assert [(result.name, result.label) for result in of(span)] == [("a", "good")]
