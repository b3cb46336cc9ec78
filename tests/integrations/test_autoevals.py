"""Scorers of autoevals run here unchanged."""

from __future__ import annotations

from typing import Any

import pytest
from tests.integrations.agent import ANSWER, QUESTION, agent_trace, judge, only, source_of
from tests.integrations.model import Model

from otel_scorer.scorers import as_scorer

pytestmark = [pytest.mark.integrations, pytest.mark.needs("autoevals")]


def test_scorers_that_only_compute_run_as_they_are() -> None:
    from autoevals import ExactMatch, JSONDiff, Levenshtein, NumericDiff, ValidJSON

    trace = agent_trace()

    close = only(judge(Levenshtein(), trace, {"expected_output": ANSWER[:-1]}))
    assert (close.name, close.value) == ("Levenshtein", pytest.approx(0.95))
    assert source_of(close) == ("CODE", "autoevals:Levenshtein")
    assert only(judge(ExactMatch(), trace, {"expected": ANSWER})).value == 1
    assert only(judge(ExactMatch(), trace, ANSWER)).value == 1
    assert only(judge(NumericDiff(), outputs=9, expectations={"expected": 10})).value == pytest.approx(0.947, abs=1e-3)
    assert only(judge(JSONDiff(), outputs={"a": 1}, expectations={"expected": {"a": 1}})).value == 1
    assert only(judge(ValidJSON(), outputs='{"a": 1}')).value == 1
    assert only(judge(ValidJSON(), trace)).value == 0


def test_what_compares_needs_something_to_compare_with() -> None:
    from autoevals import ExactMatch, Levenshtein

    for scorer in (ExactMatch(), Levenshtein()):
        assert judge(scorer, agent_trace()).outcome == "not_applicable"
    assert only(judge(Levenshtein.partial(expected=ANSWER)(), agent_trace())).value == 1


def test_a_score_without_a_value_is_no_value_and_an_exception_a_failure() -> None:
    from autoevals import Score, Scorer

    class Skips(Scorer):
        def _run_eval_sync(self, output: Any, expected: Any = None, **kwargs: Any) -> Score:
            return Score(name="Skips", score=None, metadata={"rationale": "nothing to see", "input": kwargs["input"]})

    class Fails(Scorer):
        def _run_eval_sync(self, output: Any, expected: Any = None, **kwargs: Any) -> Score:
            raise LookupError(output)

    skipped = only(judge(Skips(), agent_trace()))
    assert (skipped.value, skipped.rationale, skipped.metadata) == (None, "nothing to see", {"input": QUESTION})
    failed = judge(Fails(), agent_trace())
    assert (failed.outcome, failed.feedbacks[0].error_code) == ("failed", "LookupError")


def test_a_judge_asks_its_model_as_a_coroutine(model: Model) -> None:
    from autoevals import LLMClassifier
    from openai import AsyncOpenAI

    model.says = {"reasons": "It says so.", "choice": "A"}
    client = AsyncOpenAI(api_key="sk-secret", base_url=model.url)
    classifier = LLMClassifier(
        name="polite",
        prompt_template="Is {{output}} a polite answer to {{input}}, given {{context}}?",
        choice_scores={"A": 1, "B": 0},
        model="small",
        client=client,
    )
    made = as_scorer(classifier)
    feedback = only(judge(made, agent_trace()))

    assert (made.name, made.is_async, made.concurrent) == ("polite", True, True)
    assert (feedback.value, feedback.rationale) == (1, "It says so.")
    assert source_of(feedback) == ("LLM_JUDGE", "small")
    [request] = model.asked
    [message] = request["messages"]
    assert QUESTION in message["content"]
    assert ANSWER in message["content"]
    assert "Paris is mild in spring." in message["content"]


def test_the_version_tells_settings_apart() -> None:
    from autoevals import Levenshtein, ListContains

    one, other = ListContains(), ListContains(allow_extra_entities=True)
    fixed = [as_scorer(Levenshtein.partial(expected=text)()).scorer_version for text in ("a", "b", "a")]

    assert as_scorer(one).scorer_version != as_scorer(other).scorer_version
    assert fixed[0] == fixed[2] != fixed[1]
