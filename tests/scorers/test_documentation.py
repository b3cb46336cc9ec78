"""Scorers of the shapes that users know, by the same names, each on stored values and on live spans."""

# mypy: disable-error-code="no-untyped-def, no-any-return, attr-defined, union-attr, var-annotated"
# Scorers are written here the way users write them, with and without annotations and mistakes.

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from tests.dialects.captured import traces_of

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback
from otel_scorer.model.trace import MISSING, Trace
from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
from otel_scorer.scorers import Scorer, ScorerDefinitionError, as_scorers, scorer
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.testing import make_span, make_trace

GENAI_TOOL = {"gen_ai.operation.name": "execute_tool"}


def judge(made: Scorer, trace: Trace | None = None, **given: Any) -> Decision:
    return Invocation(PreparedScorer(made), Evidence(trace, **given)).run()


def only(decision: Decision) -> Feedback:
    [feedback] = decision.feedbacks
    return feedback


@scorer
def response_completeness(outputs: str) -> Feedback:
    if len(outputs.strip()) < 5:
        return Feedback(value=False, rationale="hardly a word")
    if outputs.lower().endswith(("...", "etc")):
        return Feedback(value=False, rationale="breaks off")
    return Feedback(value=True, rationale="a whole sentence")


@pytest.mark.parametrize(("text", "value"), [("ok", False), ("and so on...", False), ("It is 18 C in Paris.", True)])
def test_response_completeness_is_named_after_the_function(text: str, value: bool) -> None:
    feedback = only(judge(response_completeness, outputs=text))

    assert (feedback.name, feedback.value) == ("response_completeness", value)
    assert feedback.rationale == response_completeness(outputs=text).rationale


@pytest.mark.parametrize(
    "capture",
    [
        pytest.param("openinference_langchain", id="outputs are a dict"),
        pytest.param("openinference_openai", id="outputs are a string"),
        pytest.param("official_genai_langchain", id="outputs are a message list"),
    ],
)
def test_response_completeness_reads_the_answer_whatever_was_recorded(capture: str) -> None:
    seen: list[str] = []

    @scorer(name="response_completeness")
    def spy(outputs: str) -> Feedback:
        seen.append(outputs)
        return response_completeness(outputs=outputs)

    decision = judge(spy, traces_of(capture)[0])

    assert seen == ["It is 18 C in Paris. I could not convert the amount."]
    assert only(decision).value is True


def test_response_length_is_a_number() -> None:
    @scorer
    def response_length(outputs: str) -> int:
        return len(outputs.split())

    feedback = only(judge(response_length, outputs="four words are here"))

    assert (feedback.name, feedback.value) == ("response_length", 4)
    assert feedback.source == AssessmentSource("CODE", "response_length")


@pytest.mark.parametrize(("text", "value", "passed"), [("see [1]", "yes", True), ("I think so", "no", False)])
def test_contains_citation_is_passed_or_failed(text: str, value: str, passed: bool) -> None:
    @scorer
    def contains_citation(outputs: str) -> str:
        return "yes" if "[" in outputs else "no"

    decision = judge(contains_citation, outputs=text)

    assert only(decision).value == value
    assert decision.passed == (passed,)


def test_content_quality_keeps_its_source_and_metadata() -> None:
    @scorer
    def content_quality(outputs):
        return Feedback(
            value=0.85,
            rationale="clear",
            source=AssessmentSource(source_type="HUMAN", source_id="reviewer"),
            metadata={"annotator": "ann", "round": 2},
        )

    decision = judge(content_quality, outputs={"answer": 1})
    there = Decision.from_dict(json.loads(json.dumps(decision.to_dict())))

    for feedback in (only(decision), only(there)):
        assert feedback.source == AssessmentSource("HUMAN", "reviewer")
        assert feedback.metadata == {"annotator": "ann", "round": 2}


def test_comprehensive_check_gives_three_feedbacks_under_their_own_names() -> None:
    @scorer
    def comprehensive_check(inputs, outputs):
        return [
            Feedback(name="has_answer", value=bool(outputs)),
            Feedback(name="relevance", value="high" if inputs else "low"),
            Feedback(name="word_count", value=len(str(outputs).split())),
        ]

    decision = judge(comprehensive_check, inputs="q", outputs="an answer")

    assert [(feedback.name, feedback.value) for feedback in decision.feedbacks] == [
        ("has_answer", True),
        ("relevance", "high"),
        ("word_count", 2),
    ]


def test_word_count_calls_a_method_that_is_not_there() -> None:
    @scorer
    def word_count(outputs: str) -> int:
        number: Any = len(outputs)
        return number.split()

    decision = judge(word_count, outputs="a b")

    assert decision.outcome is Outcome.FAILED
    assert (only(decision).name, only(decision).value) == ("word_count", None)
    assert only(decision).error_code == "AttributeError"


def test_names_that_were_given_are_kept_and_others_are_the_scorers() -> None:
    @scorer
    def response_quality(outputs: Any) -> Feedback:
        return Feedback(value=True)

    @scorer
    def assess_factualness(outputs: Any) -> Feedback:
        return Feedback(name="factual_accuracy", value=True)

    @scorer
    def multi_aspect_check(outputs: Any) -> list[Feedback]:
        return [Feedback(name="a", value=True), Feedback(name="b", value=0.9), Feedback(name="c", value="yes")]

    made = [response_quality, assess_factualness, multi_aspect_check]
    names = [[feedback.name for feedback in judge(one, outputs="x").feedbacks] for one in made]

    assert names == [["response_quality"], ["factual_accuracy"], ["a", "b", "c"]]


def test_is_valid_response_lets_its_exceptions_out() -> None:
    @scorer
    def is_valid_response(outputs: str) -> Feedback:
        data = json.loads(outputs)
        return Feedback(value=bool(data["summary"]) and data["confidence"] > 0.5)

    fine = judge(is_valid_response, outputs='{"summary": "s", "confidence": 0.9}')
    no_json = judge(is_valid_response, outputs="summary: s")
    no_key = judge(is_valid_response, outputs='{"summary": "s"}')

    assert only(fine).value is True
    for decision, code, message in (
        (no_json, "JSONDecodeError", "Expecting value: line 1 column 1 (char 0)"),
        (no_key, "KeyError", "'confidence'"),
    ):
        assert decision.outcome is Outcome.FAILED
        assert (only(decision).value, only(decision).error_code, only(decision).error_message) == (None, code, message)
        assert "is_valid_response" in only(decision).error.stack_trace


def test_is_valid_response_handles_its_exceptions() -> None:
    @scorer
    def is_valid_response(outputs):
        try:
            return Feedback(value=json.loads(outputs)["summary"] != "")
        except json.JSONDecodeError as error:
            return Feedback(error=error)
        except KeyError:
            return Feedback(error=AssessmentError(error_code="MISSING_FIELD", error_message="no summary"))

    no_json = judge(is_valid_response, outputs="{")
    no_key = judge(is_valid_response, outputs="{}")

    assert (no_json.outcome, only(no_json).error_code) == (Outcome.SCORED, "JSONDecodeError")
    assert (no_key.outcome, only(no_key).error_code) == (Outcome.SCORED, "MISSING_FIELD")
    assert only(no_key).error_message == "no summary"


def test_exact_match_works_offline_and_does_not_apply_live() -> None:
    @scorer
    def exact_match(outputs: str, expectations: dict[str, Any]) -> Feedback:
        return Feedback(value=outputs == expectations["expected_response"])

    offline = judge(exact_match, outputs="Paris", expectations={"expected_response": "Paris"})
    live = judge(exact_match, traces_of("openinference_openai")[0])

    assert only(offline).value is True
    assert (live.outcome, live.feedbacks) == (Outcome.NOT_APPLICABLE, ())
    assert live.reason == "the scorer needs 'expectations', which nobody recorded"


@scorer
def tool_call_efficiency(trace: Trace) -> Feedback:
    calls = trace.search_spans(span_type="TOOL")
    if not calls:
        return Feedback(value=None, rationale="No tool usage to evaluate")
    names = [call.name for call in calls]
    if len(set(names)) < len(names):
        return Feedback(value=False, rationale="repeated")
    if any(call.status.status_code != "OK" for call in calls):
        return Feedback(value=False, rationale="failed")
    return Feedback(value=True, rationale="fine")


@pytest.mark.parametrize(
    ("tools", "value", "rationale"),
    [
        ([], None, "No tool usage to evaluate"),
        ([("search", "UNSET"), ("search", "UNSET")], False, "repeated"),
        ([("search", "UNSET"), ("book", "ERROR")], False, "failed"),
        ([("search", "UNSET"), ("book", "OK")], True, "fine"),
    ],
)
def test_tool_call_efficiency_on_spans_whose_status_nobody_set(
    tools: list[tuple[str, Any]], value: bool | None, rationale: str
) -> None:
    spans = [make_span("agent", span=1)]
    for number, (name, status) in enumerate(tools, start=2):
        spans.append(make_span(name, span=number, parent=1, status=status, attributes=GENAI_TOOL))

    feedback = only(judge(tool_call_efficiency, make_trace(*spans)))

    assert (feedback.name, feedback.value, feedback.rationale) == ("tool_call_efficiency", value, rationale)


def test_response_tone_lists_what_it_found() -> None:
    @scorer
    def response_tone(outputs: str) -> Feedback:
        found = [word for word in ("please", "thank") if word in outputs.lower()]
        return Feedback(value=bool(found), rationale=f"Polite words: {', '.join(found)}")

    assert only(judge(response_tone, outputs="Thank you, please wait")).rationale == "Polite words: please, thank"


class ResponseQualityScorer(Scorer):
    name: str = "response_quality"
    min_length: int = 50
    required_sections: Optional[list[str]] = None  # noqa: UP045 - as users write it

    def __call__(self, outputs: str) -> Feedback:
        sections: Any = self.required_sections
        missing = [section for section in sections if section not in outputs]
        return Feedback(value=len(outputs) >= self.min_length and not missing, rationale=f"missing: {missing}")


def test_a_scorer_class_without_what_its_code_needs_gives_an_error() -> None:
    feedback = only(judge(ResponseQualityScorer(), outputs="x" * 60))

    assert (feedback.name, feedback.value, feedback.error_code) == ("response_quality", None, "TypeError")


def test_a_scorer_class_with_settings_runs_on_live_traces() -> None:
    made = ResponseQualityScorer(min_length=10, required_sections=["Paris"])

    decision = judge(made, traces_of("openinference_openai")[0])

    assert only(decision).value is True


def test_quality_check_and_multi_check_keep_their_names() -> None:
    @scorer
    def quality_check(outputs):
        return Feedback(name="quality", value=True)

    @scorer
    def multi_check(outputs):
        return [Feedback(name="one", value=1), Feedback(name="two", value=2)]

    assert only(judge(quality_check, outputs="x")).name == "quality"
    assert [feedback.name for feedback in judge(multi_check, outputs="x").feedbacks] == ["one", "two"]


def test_my_custom_scorer_gets_all_by_keyword_and_none_for_what_is_missing() -> None:
    seen: list[tuple[object, ...]] = []

    @scorer
    def my_custom_scorer(
        *,
        inputs: Optional[dict[str, Any]],  # noqa: UP045 - as users write it
        outputs: Optional[Any],  # noqa: UP045 - as users write it
        expectations: Optional[dict[str, Any]],  # noqa: UP045 - as users write it
        trace: Optional[Trace],  # noqa: UP045 - as users write it
    ) -> bool:
        seen.append((inputs, outputs, expectations, trace))
        return True

    judge(my_custom_scorer, inputs={"q": 1}, outputs=2)

    assert seen == [({"q": 1}, 2, None, None)]


def test_a_scorer_that_returns_nothing_gives_no_feedback() -> None:
    @scorer
    def my_custom_scorer(*, outputs: Optional[Any]) -> None:  # noqa: UP045 - as users write it
        return None

    decision = judge(my_custom_scorer, outputs="x")

    assert (decision.outcome, decision.feedbacks) == (Outcome.SCORED, ())


class GoodScorer(Scorer):
    def __init__(self) -> None:
        super().__init__(name="good_scorer")
        self.results: list[object] = []

    def __call__(self, outputs: Any, **kwargs: Any) -> Feedback:
        self.results.append(outputs)
        return Feedback(value=len(self.results), metadata={"given": sorted(kwargs)})


def test_good_scorer_has_state_of_its_own() -> None:
    one, other = GoodScorer(), GoodScorer()

    judge(one, outputs="a")
    second = only(judge(one, outputs="b"))

    assert (second.value, one.results, other.results) == (2, ["a", "b"], [])
    assert second.metadata == {"given": '["expectations","inputs","span","trace"]'}
    assert one.is_stateful


def test_bad_scorer_is_refused_when_it_is_defined() -> None:
    with pytest.raises(ScorerDefinitionError) as caught:

        class BadScorer(Scorer):
            results = []  # noqa: RUF012 - the mistake in question

            def __call__(self, outputs: Any) -> None: ...

    message = str(caught.value)
    assert "BadScorer" in message
    for cure in ("`results: list = []`", "self.results = []", "__init__", "PrivateAttr"):
        assert cure in message


def test_bare_lambdas_are_scorers() -> None:
    made = as_scorers([lambda **kwargs: 1, lambda **kwargs: 2])

    decisions = [judge(one, outputs=MISSING) for one in made]

    assert [only(decision).value for decision in decisions] == [1, 2]
    assert [one.name for one in made] == ["lambda", "lambda_2"]
