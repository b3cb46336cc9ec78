"""How values, labels, errors and rationales are written, whatever the encoding."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import Counted, a_decision

from otel_scorer.encoders.evaluation_span import evaluation_attributes
from otel_scorer.encoders.verdict import STACK_TRACE, Explanations, Verdict, attribute_name, value_text, verdicts_of
from otel_scorer.model.decision import Outcome
from otel_scorer.model.encoding import key_value
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback

TRACE_ID, TARGET_ID = b"t" * 16, b"s" * 8


def the_verdict(feedback: Any, **options: Any) -> Verdict:
    [verdict] = verdicts_of(a_decision(feedback, **options))
    return verdict


@pytest.mark.parametrize(
    ("value", "score", "label", "native", "text"),
    [
        (True, 1.0, "pass", True, "true"),
        (False, 0.0, "fail", False, "false"),
        ("yes", 1.0, "pass", "yes", "yes"),
        ("No", 0.0, "fail", "No", "No"),
        (" yes\n", 1.0, "pass", " yes\n", " yes\n"),
        (3, 3.0, None, 3, "3"),
        (0.5, 0.5, None, 0.5, "0.5"),
        (0, 0.0, None, 0, "0"),
        (-0.0, 0.0, None, 0.0, "0.0"),
        ("good", None, "good", "good", "good"),
        ("", None, "", "", ""),
        (["a", 1], None, None, '["a", 1]', '["a", 1]'),
        ({"é": None}, None, None, '{"é": null}', '{"é": null}'),
    ],
    ids=repr,
)
def test_a_value_is_written_as_score_label_native_value_and_text(
    value: Any, score: float | None, label: str | None, native: str | float, text: str
) -> None:
    verdict = the_verdict(Feedback("quality", value))

    assert (verdict.score, verdict.label, verdict.value) == (score, label, native)
    assert type(verdict.value) is type(native)
    assert score is None or type(verdict.score) is float
    assert value_text(native) == text


def test_no_value_is_a_name_and_an_explanation_and_nothing_else() -> None:
    verdict = the_verdict(Feedback("tool_use", None, rationale="No tool usage to evaluate"), passed=(None,))

    assert verdict.gen_ai() == {
        "gen_ai.evaluation.name": "tool_use",
        "gen_ai.evaluation.explanation": "No tool usage to evaluate",
    }
    assert (verdict.score, verdict.label, verdict.value) == (None, None, None)


def test_an_error_is_its_code_and_its_message() -> None:
    error = AssessmentError("RateLimited", "try later", "Traceback: secret")
    verdict = the_verdict(Feedback("quality", 0.5, error, rationale="because"))

    assert verdict.gen_ai() == {
        "gen_ai.evaluation.name": "quality",
        "gen_ai.evaluation.explanation": "try later",
        "error.type": "RateLimited",
    }
    assert verdict.value is None
    assert "secret" not in str(verdict)


def test_a_stack_trace_is_said_when_it_is_asked_for() -> None:
    error = AssessmentError("LookupError", "nothing there", "File scorers.py\n" * 1000)
    feedback = Feedback("quality", None, error, rationale="because", metadata={STACK_TRACE: "of the scorer", "a": "b"})

    [plain] = verdicts_of(a_decision(feedback))
    [verdict] = verdicts_of(a_decision(feedback), Explanations.STACK_TRACES)

    assert plain.metadata == ((STACK_TRACE, "of the scorer"), ("a", "b"))
    assert verdict.metadata == (("a", "b"), (STACK_TRACE, error.stack_trace))
    assert (verdict.explanation, verdict.error_type) == ("nothing there", "LookupError")
    assert len(verdict.metadata[1][1]) == 10_000


def test_an_error_without_a_message_is_explained_by_the_rationale() -> None:
    verdict = the_verdict(Feedback("quality", None, AssessmentError("E"), rationale="because"))

    assert (verdict.error_type, verdict.explanation) == ("E", "because")


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_a_scorer_that_came_to_no_end_is_an_error_even_if_nobody_said_which(outcome: Outcome) -> None:
    assert the_verdict(Feedback("quality"), outcome=outcome).error_type == str(outcome)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_no_score(value: float) -> None:
    verdict = the_verdict(Feedback("quality", value))

    assert (verdict.score, verdict.value) == (None, None)
    assert "gen_ai.evaluation.score.value" not in verdict.gen_ai()


@pytest.mark.parametrize("value", [10**30, 10**400, -(10**5000)], ids=["10^30", "10^400", "-10^5000"])
def test_an_integer_of_any_size_can_be_written(value: int) -> None:
    verdict = the_verdict(Feedback("quality", value))

    attributes = evaluation_attributes(verdict, close_reason=None, complete=None)

    assert isinstance(attributes["otel_scorer.value_text"], str)
    assert all(key_value(key, item) for key, item in attributes.items())


@pytest.mark.parametrize(
    ("value", "passed", "label"),
    [
        (0.5, True, "pass"),
        (0.5, False, "fail"),
        (True, False, "fail"),
        ("good", True, "pass"),
        ("yes", False, "fail"),
        (["a"], True, "pass"),
        (None, True, None),
        (0.5, None, None),
        ("good", None, "good"),
    ],
)
def test_what_pass_if_says_is_the_label_of_a_value_of_any_type(
    value: Any, passed: bool | None, label: str | None
) -> None:
    assert the_verdict(Feedback("quality", value), passed=(passed,)).label == label


def test_an_error_neither_passes_nor_fails() -> None:
    assert the_verdict(Feedback("quality", None, "no"), passed=(True,)).label is None


def test_the_source_is_the_feedbacks_else_the_scorer() -> None:
    judged = the_verdict(Feedback("quality", 1, source=AssessmentSource("LLM_JUDGE", "gpt")))
    unsaid = Feedback("quality", 1)
    unsaid.source = None

    assert (judged.source_type, judged.source_id) == ("LLM_JUDGE", "gpt")
    verdict = the_verdict(unsaid, scorer="my_scorer")
    assert (verdict.source_type, verdict.source_id) == ("CODE", "my_scorer")


def test_metadata_is_text() -> None:
    verdict = the_verdict(Feedback("quality", 3, metadata={"tokens": 5, "why": "x"}))

    assert verdict.metadata == (("tokens", "5"), ("why", "x"))


@pytest.mark.parametrize(
    ("explanations", "length", "kept"),
    [
        (Explanations.FULL, 32_768, 32_768),
        (Explanations.FULL, 32_769, 32_768),
        (Explanations.CAPPED, 2_048, 2_048),
        (Explanations.CAPPED, 9_999, 2_048),
    ],
)
def test_an_explanation_is_cut_to_its_size_and_says_so(explanations: Explanations, length: int, kept: int) -> None:
    counted = Counted()

    [verdict] = verdicts_of(a_decision(Feedback("q", 1, rationale="x" * length)), explanations)

    assert verdict.explanation is not None
    assert len(verdict.explanation) == kept
    assert verdict.explanation.endswith("x [truncated]") is (length > kept)
    assert counted("encoder.truncated{field=explanation}") == (length > kept)


def test_explanations_can_be_left_out_those_of_errors_too() -> None:
    feedbacks = [Feedback("q", 1, rationale="quotes a user"), Feedback("q", None, "quotes a user")]

    verdicts = verdicts_of(a_decision(*feedbacks), Explanations.OFF)

    assert [verdict.explanation for verdict in verdicts] == [None, None]
    assert "quotes" not in str(verdicts)


def test_verdicts_come_in_the_scorers_order_and_equal_names_are_numbered() -> None:
    decision = a_decision(Feedback("a", 1), Feedback("b", 2), Feedback("a", 3), passed=(True, None, False))

    verdicts = verdicts_of(decision)

    assert [(verdict.name, verdict.score, verdict.index, verdict.label) for verdict in verdicts] == [
        ("a", 1.0, 0, "pass"),
        ("b", 2.0, 0, None),
        ("a", 3.0, 1, "fail"),
    ]


def test_a_feedback_may_name_another_span_than_its_decision() -> None:
    decision = a_decision(Feedback("a", 1), Feedback("a", 1, span_id="b" * 16), span_id="a" * 16)

    assert [verdict.span_id for verdict in verdicts_of(decision)] == ["a" * 16, "b" * 16]


def test_a_decision_without_feedback_has_no_verdict() -> None:
    assert verdicts_of(a_decision(outcome=Outcome.NOT_APPLICABLE)) == []


def test_an_id_depends_on_what_the_verdict_is_and_not_on_what_it_says() -> None:
    first = the_verdict(Feedback("quality", 0.1, rationale="a", create_time_ms=1))
    second = the_verdict(Feedback("quality", 0.9, rationale="b", create_time_ms=2))

    assert first.evaluation_id(TRACE_ID, TARGET_ID) == second.evaluation_id(TRACE_ID, TARGET_ID)


def test_an_id_is_what_it_always_was() -> None:
    # Written out: verdicts of another version, replica or path must come to the same id.
    verdict = the_verdict(Feedback("quality", 1), scorer="judge", version="v1")

    assert verdict.evaluation_id(TRACE_ID, TARGET_ID).hex() == "03da3f95cf1cb61d"


def test_ids_differ_in_whatever_makes_a_verdict_another_one() -> None:
    base = a_decision(Feedback("q", 1), Feedback("q", 1))
    verdicts = [
        *verdicts_of(base),
        *verdicts_of(a_decision(Feedback("p", 1))),
        *verdicts_of(a_decision(Feedback("q", 1), scorer="other")),
        *verdicts_of(a_decision(Feedback("q", 1), version="2")),
        *verdicts_of(a_decision(Feedback("q", 1), revision=2)),
        *verdicts_of(a_decision(Feedback("eckq", 1), scorer="ch")),
    ]
    ids = [verdict.evaluation_id(TRACE_ID, TARGET_ID) for verdict in verdicts]

    others = {verdicts[0].evaluation_id(b"u" * 16, TARGET_ID), verdicts[0].evaluation_id(TRACE_ID, b"r" * 8)}

    assert len({*ids, *others}) == len(verdicts) + 2
    assert all(len(made) == 8 and any(made) for made in ids)


def test_verdicts_of_one_name_on_the_trace_and_on_its_root_have_ids_of_their_own() -> None:
    root = TARGET_ID.hex()
    decision = a_decision(Feedback("q", 1), Feedback("q", 2, span_id=root), Feedback("q", 3, span_id="f" * 16))

    ids = {verdict.evaluation_id(TRACE_ID, TARGET_ID) for verdict in verdicts_of(decision)}

    assert len(ids) == 3


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("tool_errors", "tool_errors"),
        ("retrieval/precision-at.5", "retrieval/precision-at.5"),
        ("Is it good?", "Is_it_good_"),
        ("a  b\n\tc", "a_b_c"),
        ("größe", "gr_e"),
        ("", "unnamed"),
        ("\ud800", "_"),
        ("x" * 200, "x" * 128),
    ],
)
def test_a_name_becomes_part_of_a_key_by_one_rule(name: str, key: str) -> None:
    assert attribute_name(name) == key


@given(st.text())
def test_whatever_the_name_the_key_is_plain_and_stays_what_it_is(name: str) -> None:
    key = attribute_name(name)

    assert key.isascii()
    assert 0 < len(key) <= 128
    assert attribute_name(key) == key


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
    st.text(st.characters()),
    st.dictionaries(st.text(st.characters()), st.text(st.characters()), max_size=2),
)
def test_any_feedback_can_be_written(value: Any, rationale: str, metadata: dict[str, Any]) -> None:
    verdict = the_verdict(Feedback(rationale, value, rationale=rationale, metadata=metadata))

    attributes = {**verdict.gen_ai(), **evaluation_attributes(verdict, close_reason="idle", complete=False)}

    assert all(key_value(key, item) for key, item in attributes.items())
    assert len(verdict.evaluation_id(TRACE_ID, TARGET_ID)) == 8


def test_whatever_a_scorer_makes_up_is_cut_to_size_with_a_mark_and_counted() -> None:
    counted = Counted()
    source = AssessmentSource("CODE", "s" * 10_000)
    metadata = {f"{number} " + "k" * 1000: "v" * 100_000 for number in range(100)}

    verdict = the_verdict(Feedback("n" * 10_000, "v" * 10_000_000, None, source, metadata=metadata))
    error = the_verdict(Feedback("q", None, AssessmentError("E" * 10_000, "m" * 10_000_000)))

    for text, limit in [
        (verdict.name, 256),
        (verdict.label, 1024),
        (verdict.value, 32_768),
        (verdict.source_id, 256),
        (error.error_type, 256),
        (error.explanation, 32_768),
    ]:
        assert isinstance(text, str)
        assert len(text) == limit
        assert text.endswith(" [truncated]")
    assert len(verdict.metadata) == 65
    assert verdict.metadata[-1] == ("truncated", "36 more")
    assert all(len(key) <= 256 and len(text) <= 4096 for key, text in verdict.metadata)
    for field in ("name", "label", "value", "source", "error", "explanation", "metadata"):
        assert counted(f"encoder.truncated{{field={field}}}")


def test_two_names_that_are_alike_once_cut_keep_ids_of_their_own() -> None:
    first, second = verdicts_of(a_decision(Feedback("n" * 300 + "a", 1), Feedback("n" * 300 + "b", 1)))

    assert first.name == second.name
    assert first.evaluation_id(TRACE_ID, TARGET_ID) != second.evaluation_id(TRACE_ID, TARGET_ID)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("größer als 3 \N{WHITE HEAVY CHECK MARK}", "größer als 3 \N{WHITE HEAVY CHECK MARK}"),
        ("a\0b", "a\ufffdb"),
        ("two\nlines\tand\x1b[31m red\x7f\x9b", "two\ufffdlines\ufffdand\ufffd[31m red\ufffd\ufffd"),
    ],
)
def test_a_name_has_no_control_characters(name: str, shown: str) -> None:
    assert the_verdict(Feedback(name, True)).name == shown


@given(st.text(), st.text(), st.text())
def test_no_text_has_a_nul_which_databases_refuse(name: str, value: str, rationale: str) -> None:
    verdict = the_verdict(Feedback("\0" + name, "\0" + value, rationale="\0" + rationale, metadata={"\0": name + "\0"}))

    attributes = evaluation_attributes(verdict, close_reason="idle", complete=False)

    assert "\0" not in "".join(f"{key}{text}" for key, text in attributes.items())
