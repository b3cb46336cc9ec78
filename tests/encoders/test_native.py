"""Verdicts as Phoenix, MLflow and Langfuse want them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import a_decision

from otel_scorer.encoders.native import langfuse_score, mlflow_assessment, native_id, phoenix_annotation
from otel_scorer.encoders.verdict import Explanations, Verdict, verdicts_of
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback

TRACE, SPAN = "ab" * 16, "cd" * 8
COMMON = {
    "otel_scorer.scorer": "check",
    "otel_scorer.scorer_version": "1",
    "otel_scorer.revision": "1",
    "otel_scorer.source_id": "default",
}


def the_verdict(feedback: Any, **options: Any) -> Verdict:
    [verdict] = verdicts_of(a_decision(feedback, **options))
    return verdict


def written(encode: Any, feedback: Any, span: str | None = None, **options: Any) -> Any:
    body = encode(the_verdict(feedback, **options), TRACE, span)
    return None if body is None else json.loads(body)


def test_an_annotation_of_a_trace_and_of_a_span() -> None:
    feedback = Feedback("tone", False, rationale="rude", metadata={"words": "9"})

    assert written(phoenix_annotation, feedback) == {
        "trace_id": TRACE,
        "name": "tone",
        "annotator_kind": "CODE",
        "result": {"score": 0.0, "label": "fail", "explanation": "rude"},
        "metadata": {**COMMON, "words": "9", "otel_scorer.label": "fail"},
        "identifier": "otel_scorer:check:1",
    }
    on_span = written(phoenix_annotation, feedback, SPAN)
    assert on_span["span_id"] == SPAN
    assert "trace_id" not in on_span


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (True, {"score": 1.0, "label": "pass"}),
        (0.5, {"score": 0.5}),
        ("partial", {"label": "partial"}),
        (None, {}),
        ([1], {}),
    ],
)
def test_what_an_annotation_says(value: Any, result: dict[str, object]) -> None:
    assert written(phoenix_annotation, Feedback("q", value))["result"] == result


def test_what_an_annotation_has_no_field_for_is_in_its_metadata() -> None:
    error = written(phoenix_annotation, Feedback("q", None, AssessmentError("TIMEOUT", "slow")))

    assert error["result"] == {"explanation": "slow"}
    assert error["metadata"]["error.type"] == "TIMEOUT"
    assert written(phoenix_annotation, Feedback("q", [1]))["metadata"]["otel_scorer.value"] == "[1]"


@pytest.mark.parametrize(("kind", "annotator"), [("CODE", "CODE"), ("LLM_JUDGE", "LLM"), ("HUMAN", "HUMAN")])
def test_who_said_it(kind: str, annotator: str) -> None:
    feedback = Feedback("q", 1, None, AssessmentSource(kind, "me"))

    assert written(phoenix_annotation, feedback)["annotator_kind"] == annotator
    assert written(mlflow_assessment, feedback)["source"] == {"source_type": kind, "source_id": "me"}


def test_a_name_that_phoenix_keeps_for_itself_and_one_that_is_none() -> None:
    assert written(phoenix_annotation, Feedback("note", 1))["name"] == "note_"
    assert written(phoenix_annotation, Feedback("", 1))["name"] == "unnamed"


def test_equal_names_in_a_list_are_several_annotations() -> None:
    verdicts = verdicts_of(a_decision(Feedback("q", 1), Feedback("q", 2)))
    identifiers = [json.loads(phoenix_annotation(verdict, TRACE, None))["identifier"] for verdict in verdicts]

    assert identifiers == ["otel_scorer:check:1", "otel_scorer:check:1:1"]


def test_an_assessment() -> None:
    feedback = Feedback("tone", False, rationale="rude")
    assessment = written(mlflow_assessment, feedback, SPAN)

    assert assessment == {
        "assessment_id": f"a-{native_id(the_verdict(feedback), TRACE, SPAN)}",
        "assessment_name": "tone",
        "trace_id": f"tr-{TRACE}",
        "span_id": SPAN,
        "source": {"source_type": "CODE", "source_id": "default"},
        "feedback": {"value": False},
        "rationale": "rude",
        "metadata": {**COMMON, "otel_scorer.label": "fail"},
    }
    assert len(assessment["assessment_id"]) <= 50


@pytest.mark.parametrize(
    ("value", "sent"),
    [(True, True), (3, 3.0), (0.5, 0.5), ("yes", "yes"), (None, None), ([1], "[1]"), (10**400, str(10**400))],
    ids=lambda value: str(value)[:20],
)
def test_the_value_of_an_assessment(value: Any, sent: object) -> None:
    found = written(mlflow_assessment, Feedback("q", value))["feedback"]["value"]

    assert found == sent
    assert type(found) is type(sent)


def test_an_error_is_one_of_the_assessment() -> None:
    feedback = Feedback("q", None, AssessmentError("TIMEOUT", "slow"))

    assessment = written(mlflow_assessment, feedback)

    assert assessment["feedback"] == {"error": {"error_code": "TIMEOUT", "error_message": "slow"}}
    assert "rationale" not in assessment


def test_a_stack_trace_belongs_to_the_error_of_the_assessment_and_is_said_once() -> None:
    decision = a_decision(Feedback("q", None, AssessmentError("TIMEOUT", "slow", "File scorers.py")))
    [verdict] = verdicts_of(decision, Explanations.STACK_TRACES)

    assessment = json.loads(mlflow_assessment(verdict, TRACE, None))

    assert assessment["feedback"]["error"]["stack_trace"] == "File scorers.py"
    assert json.dumps(assessment).count("File scorers.py") == 1
    assert "File scorers.py" in json.loads(phoenix_annotation(verdict, TRACE, None))["metadata"].values()


def test_texts_fit_the_columns_of_mlflow() -> None:
    assessment = written(mlflow_assessment, Feedback("n" * 1000, 1, None, AssessmentSource("CODE", "s" * 1000)))

    assert len(assessment["assessment_name"]) == len(assessment["source"]["source_id"]) == 250


@pytest.mark.parametrize(
    ("value", "kind", "sent"),
    [
        (True, "BOOLEAN", 1),
        ("no", "BOOLEAN", 0),
        (0.5, "NUMERIC", 0.5),
        (3, "NUMERIC", 3.0),
        ("partial", "CATEGORICAL", "partial"),
        ("x" * 9000, "CATEGORICAL", "x" * 497 + "..."),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_score_of_langfuse(value: Any, kind: str, sent: object) -> None:
    feedback = Feedback("q", value, rationale="why")

    score = written(langfuse_score, feedback, SPAN)

    assert (score["dataType"], score["value"]) == (kind, sent)
    assert score["id"] == native_id(the_verdict(feedback), TRACE, SPAN)
    assert (score["traceId"], score["observationId"], score["name"], score["comment"]) == (TRACE, SPAN, "q", "why")
    assert "observationId" not in written(langfuse_score, feedback)


@pytest.mark.parametrize("feedback", [Feedback("q", None), Feedback("q", None, AssessmentError("E", "m"))])
def test_langfuse_has_no_place_for_what_has_no_value(feedback: Feedback) -> None:
    assert written(langfuse_score, feedback) is None


def test_the_id_is_that_of_the_verdict_whoever_sends_it_and_whatever_it_says() -> None:
    base = native_id(the_verdict(True), TRACE, None)

    assert base == native_id(the_verdict(False, revision=2), TRACE, None)
    others = [
        native_id(the_verdict(True), TRACE, SPAN),
        native_id(the_verdict(True), "0" * 32, None),
        native_id(the_verdict(True, version="2"), TRACE, None),
        native_id(the_verdict(True, scorer="other"), TRACE, None),
        native_id(the_verdict(Feedback("other", True)), TRACE, None),
    ]
    assert len({base, *others}) == 6


@given(st.text(), st.text(), st.text())
def test_nothing_is_sent_that_a_database_refuses(name: str, value: str, rationale: str) -> None:
    verdict = the_verdict(Feedback(name, value, rationale=rationale, metadata={name: rationale}))

    for encode in (phoenix_annotation, mlflow_assessment, langfuse_score):
        body = encode(verdict, TRACE, None)
        assert body is not None
        assert "\x00" not in str(json.loads(body.decode()))
        assert r"\u0000" not in body.decode().replace("\\\\", "")
