"""Metrics of DeepEval run here unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.integrations.agent import ANSWER, QUESTION, agent_trace, judge, only, source_of

from otel_scorer.scorers import as_scorer

pytestmark = [pytest.mark.integrations, pytest.mark.needs("deepeval")]


@pytest.fixture
def recording() -> Any:
    """A metric that keeps the test cases that it was given."""
    from deepeval.metrics import BaseMetric

    class Recording(BaseMetric):
        def __init__(self) -> None:
            self.threshold = 0.5
            self.cases: list[Any] = []

        def measure(self, test_case: Any) -> float:
            self.cases.append(test_case)
            self.score, self.reason = 0.75, "because"
            return self.score

    return Recording()


def test_score_reason_and_success_become_a_feedback(recording: Any) -> None:
    decision = judge(recording, agent_trace())

    feedback = only(decision)
    assert (feedback.name, feedback.value, feedback.rationale) == ("Recording", 0.75, "because")
    assert source_of(feedback) == ("CODE", "deepeval:Recording")
    assert feedback.metadata == {"threshold": 0.5}
    assert decision.passed == (True,)
    assert recording.score is None, "a metric keeps nothing between calls"


def test_the_test_case_is_made_from_the_trace(recording: Any) -> None:
    judge(
        recording, agent_trace(), {"expected_output": "18 C", "expected_tools": ["get_weather"], "context": ["spring"]}
    )

    [case] = recording.cases
    assert (case.input, case.actual_output, case.expected_output) == (QUESTION, ANSWER, "18 C")
    assert case.retrieval_context == ["Paris is mild in spring.", "Paris has 2 million people."]
    assert [(tool.name, tool.input_parameters, tool.output) for tool in case.tools_called] == [
        ("get_weather", {"city": "Paris"}, "18 C"),
        ("convert", None, None),
    ]
    assert [tool.name for tool in case.expected_tools] == ["get_weather"]
    assert (case.context, case.completion_time) == (["spring"], 4.0)
    assert (case.input_token_count, case.output_token_count) == (20, 5)


def test_metrics_that_only_compute_run_as_they_are() -> None:
    from deepeval.metrics import ExactMatchMetric, PatternMatchMetric

    exact = judge(ExactMatchMetric(), agent_trace(), {"expected_output": ANSWER})
    pattern = judge(PatternMatchMetric(pattern=".*Rome.*"), agent_trace())

    assert (only(exact).name, only(exact).value, exact.passed) == ("Exact Match", 1.0, (True,))
    assert (only(pattern).value, pattern.passed) == (0.0, (False,))


def test_what_the_metric_misses_makes_it_not_applicable() -> None:
    from deepeval.metrics import ExactMatchMetric

    decision = judge(ExactMatchMetric(), agent_trace())

    assert decision.outcome == "not_applicable"
    assert "expected_output" in str(decision.reason)


def test_agent_metrics_see_the_tree_of_spans() -> None:
    from deepeval.metrics import AgentLoopDetectionMetric

    feedback = only(judge(AgentLoopDetectionMetric(), agent_trace()))

    assert feedback.value == 1.0


def test_a_threshold_below_which_it_is_good_is_the_metrics_own_business() -> None:
    from deepeval.metrics import BaseMetric

    class Rudeness(BaseMetric):
        threshold = 0.5

        def measure(self, test_case: Any) -> float:
            self.score = 0.1
            return self.score

        def is_successful(self) -> bool:
            return self.score <= self.threshold

    rude = Rudeness()

    assert judge(rude, agent_trace()).passed == (True,)
    stricter = as_scorer(rude).with_options(pass_if="< 0.05")
    assert judge(stricter, agent_trace()).passed == (False,)


def test_a_metric_that_skips_gives_no_value_and_one_that_fails_is_a_failure() -> None:
    from deepeval.metrics import BaseMetric

    class Skips(BaseMetric):
        def measure(self, test_case: Any) -> float:
            self.skipped = True
            return 0.0

    class Fails(BaseMetric):
        def measure(self, test_case: Any) -> float:
            raise LookupError("no model")

    skipped, failed = judge(Skips(), agent_trace()), judge(Fails(), agent_trace())

    assert (only(skipped).value, only(skipped).rationale, skipped.passed) == (None, "skipped", (None,))
    assert (failed.outcome, failed.feedbacks[0].error_code) == ("failed", "LookupError")


def test_judges_run_together_as_coroutines_and_name_their_model() -> None:
    from deepeval.metrics import BaseMetric

    class Judge(BaseMetric):
        evaluation_model = "small-model"
        threshold = 0.5

        def measure(self, test_case: Any) -> float:
            raise AssertionError

        async def a_measure(self, test_case: Any, _show_indicator: bool = True) -> float:
            assert not _show_indicator
            await asyncio.sleep(0)
            self.score = 0.2
            return self.score

    made = as_scorer(Judge())
    decision = judge(made, agent_trace())

    assert (made.is_async, made.concurrent) == (True, True)
    assert source_of(only(decision)) == ("LLM_JUDGE", "small-model")
    assert decision.passed == (False,)


def test_a_conversation_is_made_of_the_messages() -> None:
    from deepeval.metrics import BaseConversationalMetric

    cases: list[Any] = []

    class Turns(BaseConversationalMetric):
        def measure(self, test_case: Any) -> float:
            cases.append(test_case)
            self.score = len(test_case.turns)
            return self.score

    assert only(judge(Turns(), agent_trace(), {"scenario": "a tourist asks"})).value == 2
    assert only(judge(Turns(), inputs="hi", outputs="hello")).value == 2
    assert judge(Turns(), expectations={}).outcome == "not_applicable"

    [first, second] = cases
    assert [(turn.role, turn.content) for turn in first.turns] == [("user", QUESTION), ("assistant", ANSWER)]
    assert [tool.name for tool in first.turns[1].tools_called] == ["get_weather", "convert"]
    assert first.scenario == "a tourist asks"
    assert [turn.content for turn in second.turns] == ["hi", "hello"]


def test_the_version_tells_settings_apart_and_not_runs() -> None:
    from deepeval.metrics import PatternMatchMetric

    one, other = PatternMatchMetric(pattern="a"), PatternMatchMetric(pattern="b")
    before = as_scorer(one).scorer_version
    judge(one, agent_trace())

    assert before == as_scorer(one).scorer_version == as_scorer(PatternMatchMetric(pattern="a")).scorer_version
    assert before != as_scorer(other).scorer_version


def test_a_metric_of_deepeval_that_asks_a_model_asks_the_given_one() -> None:
    from deepeval.metrics import GEval
    from deepeval.models import DeepEvalBaseLLM
    from deepeval.test_case import SingleTurnParams

    prompts: list[str] = []

    class Local(DeepEvalBaseLLM):
        def load_model(self) -> None:
            return None

        def generate(self, prompt: str, schema: Any = None) -> Any:
            prompts.append(prompt)
            return schema(score=8, reason="It names the temperature.")

        async def a_generate(self, prompt: str, schema: Any = None) -> Any:
            return self.generate(prompt, schema)

        def get_model_name(self) -> str:
            return "local"

    metric = GEval(
        name="Helpful",
        evaluation_steps=["Does it answer the question?"],
        evaluation_params=[SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT],
        model=Local("local"),
        threshold=0.9,
    )
    decision = judge(metric, agent_trace())

    assert only(decision).name == "Helpful [GEval]"
    assert (only(decision).value, only(decision).rationale) == (0.8, "It names the temperature.")
    assert source_of(only(decision)) == ("LLM_JUDGE", "local")
    assert decision.passed == (False,)
    assert any(ANSWER in prompt for prompt in prompts)
