from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import AssessmentValueError
from otel_scorer.model.feedback import (
    STACK_TRACE_LIMIT,
    AssessmentError,
    AssessmentSource,
    AssessmentSourceType,
    Expectation,
    Feedback,
    assessment_from_dictionary,
)

SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_name_and_value_come_first() -> None:
    feedback = Feedback("correct", True, None, AssessmentSource("HUMAN", "ann"), "t1", {"k": "v"}, "s1")

    assert (feedback.name, feedback.value, feedback.error) == ("correct", True, None)
    assert feedback.source == AssessmentSource(AssessmentSourceType.HUMAN, "ann")
    assert (feedback.trace_id, feedback.metadata, feedback.span_id) == ("t1", {"k": "v"}, "s1")


def test_a_feedback_needs_nothing() -> None:
    feedback = Feedback()

    assert (feedback.name, feedback.value, feedback.valid) == ("feedback", None, True)
    assert feedback.source == AssessmentSource("CODE")
    assert feedback.create_time_ms == feedback.last_update_time_ms


def test_an_exception_is_described_by_class_message_and_stack() -> None:
    feedback = Feedback(error=raised(KeyError("answer")))

    assert (feedback.error_code, feedback.error_message) == ("KeyError", "'answer'")
    assert "in raised" in feedback.error.stack_trace


def test_an_error_may_be_a_sentence() -> None:
    feedback = Feedback(error="no answer")

    assert (feedback.error_code, feedback.error_message) == ("ASSESSMENT_ERROR", "no answer")


def test_an_exception_whose_message_fails_is_still_described() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = AssessmentError.from_exception(BrokenError())

    assert error.error_code == "BrokenError"
    assert "cannot be shown" in str(error.error_message)


def test_what_is_no_text_in_an_error_or_source_becomes_text() -> None:
    error = AssessmentError(3, KeyError("k"))  # type: ignore[arg-type] # deliberately

    assert (error.error_code, error.error_message, error.stack_trace) == ("3", "'k'", None)
    assert AssessmentSource("CODE", 7).source_id == "7"  # type: ignore[arg-type] # deliberately
    assert AssessmentSource("CODE", None).source_id == "default"  # type: ignore[arg-type] # MLflow allows it


def test_a_long_stack_keeps_its_end() -> None:
    error = AssessmentError("E", stack_trace="a" * STACK_TRACE_LIMIT + "the end")

    assert error.stack_trace is not None
    assert len(error.stack_trace) == STACK_TRACE_LIMIT
    assert error.stack_trace.startswith("[Stack trace is truncated]")
    assert error.stack_trace.endswith("the end")


@pytest.mark.parametrize("written", ["code", "Code", "CODE", AssessmentSourceType.CODE])
def test_source_types_may_be_written_in_any_case(written: str) -> None:
    assert AssessmentSource(written).source_type is AssessmentSourceType.CODE


def test_the_old_name_of_a_judge_is_understood() -> None:
    with pytest.warns(FutureWarning, match="LLM_JUDGE"):
        source = AssessmentSource("AI_JUDGE")

    assert source.source_type is AssessmentSourceType.LLM_JUDGE


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AssessmentSource("ROBOT"), "Invalid assessment source type: 'ROBOT'"),
        (lambda: AssessmentSource(None), "Invalid assessment source type"),  # type: ignore[arg-type] # deliberately
        (lambda: Feedback(source="CODE"), "must be an AssessmentSource"),  # type: ignore[arg-type] # deliberately
        (lambda: Feedback(name=3), "must be a string"),  # type: ignore[arg-type] # deliberately
        (lambda: Feedback(metadata=["x"]), "must be a dict"),  # type: ignore[arg-type] # deliberately
        (lambda: Feedback(error=3), "`error` must be"),
        (lambda: Expectation("facts", None), "needs a value"),
        (lambda: Feedback(value=math.nan).to_dictionary(), "JSON cannot hold"),
        (lambda: Feedback(value=object()).to_dictionary(), "JSON cannot hold"),
        (lambda: Feedback.from_dictionary({"assessment_name": "a"}), "neither"),
        (lambda: Feedback.from_dictionary({"feedback": {}}), "`assessment_name` is missing"),
        (lambda: Feedback.from_dictionary(Expectation("e", 1).to_dictionary()), "is an expectation"),
        (lambda: Expectation.from_dictionary(Feedback("f", 1).to_dictionary()), "is a feedback"),
        (lambda: Feedback.from_dictionary(Feedback().to_dictionary() | {"create_time": "soon"}), "RFC 3339"),
        (lambda: Feedback(create_time_ms=1.5), "milliseconds"),  # type: ignore[arg-type] # deliberately
        (lambda: Feedback(create_time_ms=True), "milliseconds"),
        (lambda: Expectation("e", 1, last_update_time_ms=10**18), "milliseconds"),
        (lambda: Feedback.from_dictionary({"assessment_name": "a", "feedback": 1}), "expected a dict"),
        (lambda: Expectation.from_dictionary({"assessment_name": "a", "expectation": [1]}), "expected a dict"),
        (
            lambda: Expectation.from_dictionary({"assessment_name": "a", "expectation": {"serialized_value": "1"}}),
            "not JSON text",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(make: object, message: str) -> None:
    assert callable(make)

    with pytest.raises(AssessmentValueError, match=message) as caught:
        make()

    assert isinstance(caught.value, ValueError)


def test_the_plain_form_has_the_keys_of_mlflow() -> None:
    feedback = Feedback(
        "quality",
        3,
        AssessmentError("E", "broke"),
        AssessmentSource("HUMAN", "ann"),
        "t1",
        {"n": 1},
        "s1",
        1_500,
        2_000,
        "because",
        "a-1",
        False,
    )

    assert feedback.to_dictionary() == {
        "assessment_name": "quality",
        "trace_id": "t1",
        "span_id": "s1",
        "source": {"source_type": "HUMAN", "source_id": "ann"},
        "create_time": "1970-01-01T00:00:01.500Z",
        "last_update_time": "1970-01-01T00:00:02Z",
        "feedback": {"value": 3, "error": {"error_code": "E", "error_message": "broke"}},
        "metadata": {"n": "1"},
        "rationale": "because",
        "overrides": "a-1",
        "valid": False,
    }


def test_what_is_none_is_left_out_of_the_plain_form() -> None:
    assert set(Feedback("a", 1).to_dictionary()) == {
        "assessment_name",
        "trace_id",
        "source",
        "create_time",
        "last_update_time",
        "feedback",
        "valid",
    }


def test_the_plain_form_is_plain_also_where_the_fields_are_not() -> None:
    made = Feedback("a", np.float64(0.5), rationale=ValueError("odd"))  # type: ignore[arg-type] # deliberately

    plain = made.to_dictionary()

    assert (type(plain["feedback"]["value"]), plain["rationale"]) == (float, "odd")


def test_times_are_read_to_the_millisecond_that_they_are_in() -> None:
    plain = Feedback("a", 1).to_dictionary() | {"create_time": "1970-01-01T00:00:01.001999999Z"}

    assert Feedback.from_dictionary(plain).create_time_ms == 1001


@given(value=VALUES, rationale=st.none() | st.text(), created=st.integers(0, 4_000_000_000_000))
def test_a_feedback_survives_its_plain_form_with_ints_as_ints(
    value: object, rationale: str | None, created: int
) -> None:
    feedback = Feedback("f", value, rationale=rationale, create_time_ms=created)

    back = assessment_from_dictionary(json.loads(json.dumps(feedback.to_dictionary())))

    assert back == feedback
    assert repr(back.value) == repr(value)
    assert back.create_time_ms == created


@given(value=VALUES.filter(lambda value: value is not None))
def test_an_expectation_survives_its_plain_form(value: object) -> None:
    expectation = Expectation("e", value, metadata={"mlflow.assessment.sourceRunId": "r1"})

    back = Expectation.from_dictionary(json.loads(json.dumps(expectation.to_dictionary())))

    assert back == expectation
    assert back.source == AssessmentSource("HUMAN")
    assert back.run_id == "r1"


def test_expectations_that_are_no_scalars_are_written_as_json_text() -> None:
    body = Expectation("facts", ["a", {"b": 1}]).to_dictionary()["expectation"]

    assert body == {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": '["a", {"b": 1}]'}}


def test_equality_ignores_when_it_was_made() -> None:
    assert Feedback("a", 1, create_time_ms=1) == Feedback("a", 1, create_time_ms=2)
    assert Feedback("a", 1) != Feedback("a", 2)


def test_both_kinds_can_be_read_the_way_mlflow_is_read() -> None:
    feedback, expectation = Feedback("f", 1), Expectation("e", 2)

    assert (feedback.feedback.value, feedback.expectation) == (1, None)
    assert (expectation.expectation.value, expectation.feedback) == (2, None)
    assert (feedback.assessment_type, expectation.assessment_type) == ("feedback", "expectation")
    assert feedback.issue is expectation.issue is None
    assert (expectation.rationale, expectation.error, expectation.overrides, expectation.valid) == (None,) * 4
