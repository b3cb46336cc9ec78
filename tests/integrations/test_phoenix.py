"""Evaluators of Phoenix run here unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.integrations.agent import ANSWER, QUESTION, agent_trace, judge, only, source_of, values
from tests.integrations.model import Model

from otel_scorer.scorers import as_scorer

pytestmark = [pytest.mark.integrations, pytest.mark.needs("phoenix.evals")]


def test_a_function_gets_the_fields_that_its_parameters_name() -> None:
    from phoenix.evals import create_evaluator

    @create_evaluator(name="complete")
    def complete(input: str, output: str, documents: list[str], tool_calls: list[dict[str, Any]], trace: Any) -> bool:
        assert (input, output) == (QUESTION, ANSWER)
        assert documents == ["Paris is mild in spring.", "Paris has 2 million people."]
        assert tool_calls[0] == {"name": "get_weather", "arguments": {"city": "Paris"}, "result": "18 C"}
        return len(trace.spans) == 5

    feedback = only(judge(complete, agent_trace()))

    assert (feedback.name, feedback.value) == ("complete", True)
    assert source_of(feedback) == ("CODE", "phoenix:complete")


@pytest.mark.parametrize(
    ("returned", "value", "rationale", "metadata"),
    [
        (0.5, 0.5, None, None),
        (True, True, None, None),
        (False, False, None, None),
        ("good", "good", None, None),
        ({"score": 1, "label": "good", "explanation": "fine"}, 1, "fine", {"label": "good"}),
        ((0.5, "so so", "it could be a little better"), 0.5, "it could be a little better", {"label": "so so"}),
    ],
)
def test_every_kind_of_result_becomes_a_feedback(returned: Any, value: Any, rationale: Any, metadata: Any) -> None:
    from phoenix.evals import create_evaluator

    feedback = only(judge(create_evaluator(name="given")(lambda output: returned), agent_trace()))

    assert (feedback.name, feedback.value, feedback.rationale, feedback.metadata) == (
        "given",
        value,
        rationale,
        metadata,
    )
    assert type(feedback.value) is type(value)


def test_metrics_that_only_compute_run_as_they_are() -> None:
    from phoenix.evals.metrics import MatchesRegex, PrecisionRecallFScore, exact_match

    assert only(judge(MatchesRegex(pattern=r"\d+ C"), agent_trace())).value == 1.0
    assert only(judge(exact_match, agent_trace(), {"expected": ANSWER})).value == 1.0
    ranked = judge(PrecisionRecallFScore(positive_label=1), outputs=[1, 0], expectations={"expected": [1, 1]})
    assert values(ranked) == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert judge(exact_match, agent_trace()).outcome == "not_applicable"
    assert "'expected'" in str(judge(exact_match, agent_trace()).reason)


def test_expectations_and_a_mapping_are_honoured() -> None:
    from phoenix.evals import create_evaluator

    def same(said: str, wanted: str, first_tool: str) -> dict[str, Any]:
        return {"score": float(said == wanted), "label": first_tool}

    evaluator = create_evaluator(name="same")(same)
    evaluator.bind(
        {
            "said": lambda data: data["output"].upper(),
            "wanted": "expectations.shout",
            "first_tool": "tool_calls[0].name",
        }
    )

    feedback = only(judge(evaluator, agent_trace(), {"shout": ANSWER.upper()}))
    assert (feedback.value, feedback.metadata) == (1.0, {"label": "get_weather"})


def test_several_scores_keep_their_names_and_a_renamed_scorer_its_own() -> None:
    from phoenix.evals import Evaluator, Score

    class Pair(Evaluator):
        def _evaluate(self, eval_input: Any) -> list[Any]:
            return [
                Score(name="pair", score=1, kind="code"),
                Score(name="other", score=0.2, direction="minimize", kind="llm", metadata={"n": 2}),
            ]

    pair = Pair(name="pair", kind="code")
    pair.bind({"output": "output"})
    decision = judge(as_scorer(pair).with_options(name="renamed"), agent_trace())

    assert values(decision) == {"renamed": 1, "other": 0.2}
    other = decision.feedbacks[1]
    assert other.metadata == {"n": 2, "direction": "minimize"}
    assert source_of(other)[0] == "LLM_JUDGE"


def test_a_coroutine_function_runs_and_an_exception_is_its_failure() -> None:
    from phoenix.evals import create_evaluator

    @create_evaluator(name="waits", kind="llm")
    async def waits(output: str) -> float:
        await asyncio.sleep(0)
        return 0.5

    @create_evaluator(name="breaks")
    def breaks(output: str) -> float:
        raise LookupError(output)

    assert as_scorer(waits).is_async
    feedback = only(judge(waits, agent_trace()))
    assert (feedback.value, source_of(feedback)[0]) == (0.5, "LLM_JUDGE")
    failed = judge(breaks, agent_trace())
    assert (failed.outcome, failed.feedbacks[0].error_code) == ("failed", "LookupError")


def test_the_version_is_that_of_the_function_and_its_mapping() -> None:
    from phoenix.evals import create_evaluator

    def made(function: Any, mapping: Any = None) -> str:
        evaluator = create_evaluator(name="e")(function)
        if mapping:
            evaluator.bind(mapping)
        return as_scorer(evaluator).scorer_version

    def one(output: str) -> int:
        return 1

    def two(output: str) -> int:
        return 2

    versions = [made(one), made(two), made(one, {"output": "input"})]
    assert len(set(versions)) == 3
    assert versions[0] == made(one)


def test_a_judge_asks_its_model_as_a_coroutine(model: Model) -> None:
    from phoenix.evals import LLM, ClassificationEvaluator

    model.says = {"label": "good", "explanation": "It says so."}
    evaluator = ClassificationEvaluator(
        name="helpful",
        llm=LLM(provider="openai", model="gpt-4o-mini", base_url=model.url, api_key="sk-secret"),
        prompt_template="Is {output} a good answer to {input}, given {context}?",
        choices={"good": 1.0, "bad": 0.0},
    )
    made = as_scorer(evaluator)
    feedback = only(judge(made, agent_trace()))

    assert (made.is_async, made.concurrent) == (True, True)
    assert (feedback.value, feedback.rationale) == (1.0, "It says so.")
    assert feedback.metadata is not None
    assert feedback.metadata["label"] == "good"
    assert source_of(feedback) == ("LLM_JUDGE", "gpt-4o-mini")
    [request] = model.asked
    assert all(text in str(request["messages"]) for text in (QUESTION, ANSWER, "Paris is mild in spring."))
