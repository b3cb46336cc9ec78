"""Evaluators of pydantic-evals run here unchanged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from tests.integrations.agent import ANSWER, QUESTION, agent_trace, judge, only, source_of, values

from otel_scorer.scorers import as_scorer

pytestmark = [pytest.mark.integrations, pytest.mark.needs("pydantic_evals")]


def test_the_context_is_made_from_the_trace() -> None:
    from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext

    seen: list[EvaluatorContext[Any, Any, Any]] = []

    @dataclass
    class Looks(Evaluator):
        def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluationReason:
            seen.append(ctx)
            return EvaluationReason(value=0.5, reason="so so")

    trace = agent_trace()
    feedback = only(judge(Looks(), trace, {"expected_output": "18 C", "metadata": {"hard": True}}))

    [ctx] = seen
    assert (ctx.inputs, ctx.output, ctx.expected_output) == (QUESTION, ANSWER, "18 C")
    assert (ctx.name, ctx.duration, ctx.metadata) == (trace.trace_id, 4.0, {"hard": True})
    assert ctx.metrics == {"requests": 1, "input_tokens": 20, "output_tokens": 5}
    assert (feedback.name, feedback.value, feedback.rationale) == ("Looks", 0.5, "so so")
    assert source_of(feedback) == ("CODE", "pydantic_evals:Looks")


def test_the_span_tree_is_that_of_the_trace() -> None:
    from pydantic_evals.evaluators import Evaluator, EvaluatorContext

    @dataclass
    class Tree(Evaluator):
        def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> dict[str, Any]:
            [root] = ctx.span_tree.roots
            [failed] = ctx.span_tree.find({"has_status": "error"})
            return {
                "children": len(root.children),
                "failed": failed.name,
                "depth": failed.parent is root,
                "seconds": root.duration.total_seconds(),
            }

    assert values(judge(Tree(), agent_trace())) == {
        "children": 4,
        "failed": "execute_tool convert",
        "depth": True,
        "seconds": 4.0,
    }


def test_evaluators_that_only_compute_run_as_they_are() -> None:
    from pydantic_evals.evaluators import (
        Contains,
        EqualsExpected,
        HasMatchingSpan,
        IsInstance,
        MaxDuration,
        MaxModelRequests,
        MaxToolCalls,
        ToolCorrectness,
    )

    trace = agent_trace()

    assert only(judge(Contains(value="paris", case_sensitive=False), trace)).value is True
    missing = only(judge(Contains(value="Rome"), trace))
    assert (missing.value, "Rome" in str(missing.rationale)) == (False, True)
    assert only(judge(EqualsExpected(), trace, {"expected_output": ANSWER})).value is True
    assert judge(EqualsExpected(), trace).feedbacks == ()
    assert only(judge(MaxDuration(seconds=3), trace)).value is False
    assert only(judge(IsInstance(type_name="str"), trace)).value is True
    assert only(judge(HasMatchingSpan(query={"name_equals": "chat"}), trace)).value is True
    assert only(judge(HasMatchingSpan(query={"name_equals": "chess"}), trace)).value is False
    assert only(judge(ToolCorrectness(expected_tools=["get_weather"]), trace)).value is True
    assert only(judge(MaxToolCalls(max_calls=1), trace)).value is False
    assert only(judge(MaxModelRequests(max_requests=1), trace)).value is True


def test_coroutines_names_and_versions_of_its_own_are_honoured() -> None:
    from pydantic_evals.evaluators import Evaluator, EvaluatorContext

    @dataclass
    class Waits(Evaluator):
        async def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> str:
            await asyncio.sleep(0)
            return "fine"

        def get_default_evaluation_name(self) -> str:
            return "mood"

        def get_evaluator_version(self) -> str:
            return "v2"

    made = as_scorer(Waits())
    feedback = only(judge(made, agent_trace()))

    assert (made.is_async, made.scorer_version) == (True, "v2")
    assert (feedback.name, feedback.value) == ("mood", "fine")


def test_without_a_trace_there_is_no_tree_and_without_output_it_is_not_applicable() -> None:
    from pydantic_evals.evaluators import Contains, HasMatchingSpan

    assert only(judge(Contains(value={"a": 1}), outputs={"a": 1, "b": 2})).value is True
    without = judge(HasMatchingSpan(query={"name_equals": "chat"}), outputs="x")
    assert (without.outcome, without.reason) == (
        "not_applicable",
        "the evaluator needs the spans: there is no trace, only values",
    )
    assert judge(Contains(value="x"), inputs="x").outcome == "not_applicable"


def test_a_number_that_is_not_finite_is_an_error_and_a_bool_stays_one() -> None:
    from pydantic_evals.evaluators import Evaluator, EvaluatorContext

    @dataclass
    class Odd(Evaluator):
        def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> dict[str, Any]:
            return {"nan": float("nan"), "yes": True}

    nan, yes = judge(Odd(), agent_trace()).feedbacks
    assert (nan.error_code, yes.value) == ("NOT_FINITE", True)


def test_the_version_tells_settings_apart() -> None:
    from pydantic_evals.evaluators import Contains

    versions = [as_scorer(Contains(value=value)).scorer_version for value in ("a", "b", "a")]
    assert versions[0] == versions[2] != versions[1]


def test_a_judge_asks_the_given_model() -> None:
    from pydantic_ai.models.test import TestModel
    from pydantic_evals.evaluators import LLMJudge

    answer = {"reason": "It says so.", "pass": True, "score": 0.5}
    judging = LLMJudge(rubric="Is it polite?", model=TestModel(custom_output_args=answer))
    feedback = only(judge(judging, agent_trace()))

    assert as_scorer(judging).is_async
    assert (feedback.name, feedback.value, feedback.rationale) == ("LLMJudge", True, "It says so.")
    assert source_of(feedback) == ("LLM_JUDGE", "pydantic_evals:LLMJudge")
