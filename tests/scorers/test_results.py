from __future__ import annotations

import json
import math
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import AssessmentValueError
from otel_scorer.model.decision import feedback_to_dict
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Expectation, Feedback
from otel_scorer.scorers.results import InvalidResultError, feedbacks_of


class Grade(StrEnum):
    GOOD = "good"


class OldGrade(str, Enum):  # noqa: UP042 - one way of writing it
    GOOD = "good"


class Level(IntEnum):
    HIGH = 3


def only(result: object) -> Feedback:
    [feedback] = feedbacks_of(result, "check")
    return feedback


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (True, True),
        (0, 0),
        (0.5, 0.5),
        ("yes", "yes"),
        ("", ""),
        (10**30, 10**30),
        (Grade.GOOD, "good"),
        (OldGrade.GOOD, "good"),
        (Level.HIGH, 3),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("yes"), "yes"),
        (np.array(3), 3),
    ],
)
def test_a_bare_value_becomes_a_feedback_of_the_scorer(result: object, value: object) -> None:
    feedback = only(result)

    assert (feedback.name, feedback.value, type(feedback.value)) == ("check", value, type(value))
    assert feedback.source == AssessmentSource("CODE", "check")
    assert only(Feedback(value=result)).value == value
    assert type(only(Feedback(value=result)).value) is type(value)


def test_nothing_is_no_feedback() -> None:
    assert feedbacks_of(None, "check") == ()
    assert feedbacks_of([], "check") == ()


@pytest.mark.parametrize(
    "result",
    [
        [1],
        [Feedback(value=1), 1],
        (Feedback(value=1),),
        {1},
        {"a": 1},
        b"x",
        object(),
        iter([Feedback(value=1)]),
        Expectation("e", 1),
        Decimal(1),
        np.array([1, 2]),
        1j,
    ],
    ids=lambda result: type(result).__name__,
)
def test_what_no_feedback_can_be_made_of_is_refused(result: object) -> None:
    with pytest.raises(
        InvalidResultError, match=r"`check` must return one of int, float, bool, str, Feedback, or list"
    ):
        feedbacks_of(result, "check")


def test_the_message_says_what_was_in_the_list_but_no_contents() -> None:
    with pytest.raises(InvalidResultError, match="Got list of Feedback, str"):
        feedbacks_of([Feedback(value=1), "secret"], "check")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 10**400, -(10**400), np.float32("nan"), np.float64("inf")]
)
def test_a_number_that_is_not_finite_is_an_error(value: Any) -> None:
    for result in (value, Feedback(value=value), Feedback(value=[1.0, value]), Feedback(value={"a": value})):
        feedback = only(result)

        assert (feedback.name, feedback.value, feedback.error_code) == ("check", None, "NOT_FINITE")


def test_one_bad_feedback_does_not_cost_the_others() -> None:
    first, second = feedbacks_of([Feedback("a", math.nan), Feedback("b", 1)], "check")

    assert (first.name, first.error_code) == ("a", "NOT_FINITE")
    assert (second.name, second.value, second.error) == ("b", 1, None)


def test_a_value_that_cannot_be_sent_is_an_error_that_keeps_name_and_rationale() -> None:
    feedback = only(Feedback("thing", object(), rationale="why"))

    assert (feedback.name, feedback.value, feedback.error_code) == ("thing", None, "INVALID_VALUE")
    assert feedback.rationale == "why"


def test_lists_and_dicts_of_scalars_are_values() -> None:
    assert only(Feedback(value=(1, np.float32(0.5), "a"))).value == [1, 0.5, "a"]
    assert only(Feedback(value={1: True})).value == {"1": True}
    assert only(Feedback(value={"a": [{"b": None}, np.int64(2)]})).value == {"a": [{"b": None}, 2]}


def test_what_cannot_stand_in_a_list_or_contains_itself_is_an_error() -> None:
    endless: list[Any] = []
    endless.append(endless)

    for value in ([object()], {"a": {1}}, [b"x"], np.array([1, 2])):
        assert only(Feedback(value=value)).error_code == "INVALID_VALUE"
    assert only(Feedback(value=endless)).error_code == "ResultTooLarge"


def doubled(times: int) -> list[Any]:
    """What is short to write down in Python, and in JSON longer than any disk."""
    value: list[Any] = ["x"]
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize("huge", [doubled(14) * 1000, doubled(60), {"a": doubled(60)}, ["x" * (1 << 20)] * 33])
def test_what_takes_more_than_there_is_room_for_is_an_error_and_costs_nothing_else(huge: Any) -> None:
    feedback = only(Feedback(value=huge, rationale="why"))

    assert (feedback.value, feedback.error_code, feedback.rationale) == (None, "ResultTooLarge", "why")
    assert feedback.error_message is not None
    assert feedback.error_message.endswith("of more than 32 MiB or in itself")

    spared = only(Feedback(value=True, rationale=huge, metadata={"huge": huge, "small": [1]}))

    assert spared.value is True
    assert spared.rationale is not None
    assert len(spared.rationale) < 100
    assert spared.metadata is not None
    assert len(str(spared.metadata["huge"])) < 100
    assert spared.metadata["small"] == "[1]"


def test_what_is_shared_without_being_much_is_taken_as_it_is() -> None:
    assert only(Feedback(value=doubled(4))).value == doubled(4)


def test_of_a_name_given_twice_both_are_kept_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        found = feedbacks_of([Feedback("twice", 1), Feedback("twice", 2), Feedback("once", 3)], "doubling")

        assert [(feedback.name, feedback.value) for feedback in found] == [("twice", 1), ("twice", 2), ("once", 3)]
    assert [("'doubling'" in message, "'twice'" in message) for message in caplog.messages] == [(True, True)]


def test_one_name_on_two_spans_is_no_duplicate(caplog: pytest.LogCaptureFixture) -> None:
    feedbacks_of([Feedback("slow", 1, span_id="a" * 16), Feedback("slow", 2, span_id="b" * 16)], "per_tool")

    assert caplog.messages == []


def test_a_span_id_may_be_in_capitals() -> None:
    assert only(Feedback(value=1, span_id="00AB00CD00EF0012")).span_id == "00ab00cd00ef0012"
    assert only(Feedback(value=1, span_id="1" * 16)).span_id == "1" * 16


def test_a_span_id_may_be_the_integer_of_the_sdk() -> None:
    assert only(Feedback(value=1, span_id=0xAB)).span_id == "00000000000000ab"  # type: ignore[arg-type] # deliberately


@pytest.mark.parametrize(
    ("feedback", "name"),
    [
        (Feedback(value=1), "check"),
        (Feedback("", 1), "check"),
        (Feedback("feedback", 1), "check"),
        (Feedback("x", 1), "x"),
        (Feedback("x", 1, metadata={"_user_defined_assessment_name": "false"}), "check"),
    ],
)
def test_a_name_that_was_given_is_kept(feedback: Feedback, name: str) -> None:
    assert only(feedback).name == name


def test_a_feedback_keeps_its_source() -> None:
    assert only(Feedback(value=1)).source == AssessmentSource("CODE", "default")
    assert only(Feedback(value=1, source=AssessmentSource("LLM_JUDGE", "m"))).source == AssessmentSource(
        "LLM_JUDGE", "m"
    )


def test_what_the_scorer_returned_is_not_changed() -> None:
    returned = Feedback(value=np.int64(1), metadata={"n": np.int64(2)}, rationale="r")

    feedback = only(returned)

    assert (returned.name, type(returned.value)) == ("feedback", np.int64)
    assert (feedback.name, feedback.value, feedback.metadata) == ("check", 1, {"n": 2})
    assert only(feedback) == feedback


@pytest.mark.parametrize(
    ("field", "value"), [("source", "me"), ("error", 17), ("create_time_ms", "now"), ("create_time_ms", 1.5)]
)
def test_a_field_that_was_assigned_is_checked_as_one_that_was_given(field: str, value: object) -> None:
    feedback = Feedback(value=True)
    setattr(feedback, field, value)

    with pytest.raises(AssessmentValueError, match="must be"):
        feedbacks_of(feedback, "odd")


def test_an_error_that_was_assigned_may_be_an_exception() -> None:
    feedback = Feedback()
    feedback.error = ValueError("no")

    (found,) = feedbacks_of(feedback, "odd")

    assert found.error is not None
    assert (found.error.error_code, found.error.error_message) == ("ValueError", "no")


def test_an_error_stands_beside_a_value() -> None:
    feedback = only(Feedback(value=math.nan, error=AssessmentError("MINE")))

    assert (feedback.value, feedback.error_code) == (None, "MINE")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner))


@given(value=ANYTHING, metadata=st.none() | st.dictionaries(st.text() | st.integers(), ANYTHING))
def test_whatever_a_feedback_holds_can_be_sent_and_reading_it_again_changes_nothing(
    value: object, metadata: dict[Any, Any] | None
) -> None:
    feedback = only(Feedback(value=value, metadata=metadata))

    json.dumps(feedback_to_dict(feedback), allow_nan=False)
    assert repr(only(feedback)) == repr(feedback)
    assert isinstance(feedback.value, bool) == isinstance(value, bool)
