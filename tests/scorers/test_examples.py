from __future__ import annotations

from pathlib import Path

import pytest
from tests.dialects.captured import expectations, traces_of

from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.running.runner import Invocation
from otel_scorer.pipeline.running.selection import Selector
from otel_scorer.scorers import Scorer, load_scorers

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "scorers.py"


@pytest.fixture(scope="module")
def scorers() -> list[Scorer]:
    return load_scorers([str(EXAMPLES)])


def test_the_example_file_has_the_scorers_that_its_readers_know(scorers: list[Scorer]) -> None:
    assert [made.name for made in scorers] == [
        "tool_call_efficiency",
        "response_completeness",
        "response_length",
        "contains_citation",
        "comprehensive_check",
        "is_valid_response",
        "exact_match",
        "tool_seconds",
        "response_quality",
        "longer_than_usual",
    ]


@pytest.mark.parametrize("capture", list(expectations()["captures"]))
def test_no_example_fails_on_real_traces(scorers: list[Scorer], capture: str) -> None:
    selector = Selector(scorers)

    for trace in traces_of(capture):
        decisions = [choice.run() for choice in selector.choose(trace) if isinstance(choice, Invocation)]

        assert {decision.outcome for decision in decisions} <= {Outcome.SCORED, Outcome.NOT_APPLICABLE}
