"""Our scorers, feedback and expectations beside MLflow's: the same calls must mean the same, but where we say so."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.integrations.agent import judge, only

import otel_scorer
from otel_scorer import evaluate
from otel_scorer.scorers.passing import verdict

pytestmark = [pytest.mark.integrations, pytest.mark.needs("mlflow")]

NAMES = ("AssessmentError", "AssessmentSource", "Expectation", "Feedback")
TIMES: dict[str, Any] = {"create_time_ms": 1_501, "last_update_time_ms": 2_000}


class Grade(str, Enum):  # noqa: UP042 - as MLflow writes its own
    GOOD = "good"


def ours() -> Any:
    return otel_scorer


def theirs() -> Any:
    import mlflow.entities

    return SimpleNamespace(**{name: getattr(mlflow.entities, name) for name in NAMES})


def plain(value: Any) -> Any:
    """Return a value as it compares with MLflow's: in its plain form every number is a double."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@pytest.mark.parametrize("name", NAMES)
def test_parameters_have_mlflows_names_order_and_defaults(name: str) -> None:
    mine, mlflows = (
        [(each.name, each.default) for each in inspect.signature(getattr(side, name)).parameters.values()]
        for side in (ours(), theirs())
    )

    assert mine == mlflows


MADE: list[Callable[[Any], Any]] = [
    lambda m: m.Feedback(**TIMES),
    lambda m: m.Feedback("a", True, **TIMES),
    lambda m: m.Feedback("a", 3, **TIMES),
    lambda m: m.Feedback("a", "yes", rationale="because", **TIMES),
    lambda m: m.Feedback("a", [1, "b", True, 2.5], **TIMES),
    lambda m: m.Feedback("a", {"x": 1, "y": {"z": [None]}}, **TIMES),
    lambda m: m.Feedback("a", (1, 2), **TIMES),
    lambda m: m.Feedback("a", np.float64(0.5), **TIMES),
    lambda m: m.Feedback("a", Grade.GOOD, **TIMES),
    lambda m: m.Feedback("a", None, "no answer", **TIMES),
    lambda m: m.Feedback("a", 1, m.AssessmentError("E", "m", "s"), **TIMES),
    lambda m: m.Feedback("a", error=m.AssessmentError("E"), **TIMES),
    lambda m: m.Feedback("a", 1, metadata={"k": "v", "n": 3, "none": None, "flag": True}, **TIMES),
    lambda m: m.Feedback("a", 1, metadata={}, **TIMES),
    lambda m: m.Feedback("a", 1, rationale="", **TIMES),
    lambda m: m.Feedback("a", 1, overrides="a-1", valid=False, **TIMES),
    lambda m: m.Feedback(
        "a", 1, None, m.AssessmentSource("human", "ann"), "t", {"k": "v"}, "s", 1, 2, "why", "o", True
    ),
    lambda m: m.Expectation("e", "x", **TIMES),
    lambda m: m.Expectation("e", True, **TIMES),
    lambda m: m.Expectation("e", 2.5, **TIMES),
    lambda m: m.Expectation("e", ["a", {"b": None}], **TIMES),
    lambda m: m.Expectation("e", {"a": [1, {"b": "c"}]}, **TIMES),
    lambda m: m.Expectation("e", 1, m.AssessmentSource("LLM_JUDGE", "m"), "t", {"k": "v"}, "s", 1, 2),
]


@pytest.mark.parametrize("make", MADE)
def test_the_plain_form_is_mlflows(make: Callable[[Any], Any]) -> None:
    mine, mlflows = make(ours()).to_dictionary(), make(theirs()).to_dictionary()

    assert plain(mine) == plain(mlflows)


@pytest.mark.parametrize("make", MADE)
def test_each_reads_what_the_other_wrote(make: Callable[[Any], Any]) -> None:
    mine, mlflows = make(ours()), make(theirs())
    kind = type(mine).__name__

    read = getattr(ours(), kind).from_dictionary(json.loads(json.dumps(mlflows.to_dictionary())))
    read_by_them = getattr(theirs(), kind).from_dictionary(json.loads(json.dumps(mine.to_dictionary())))

    assert plain(read.to_dictionary()) == plain(mine.to_dictionary())
    assert plain(read_by_them.to_dictionary()) == plain(mlflows.to_dictionary())


@pytest.mark.parametrize("make", MADE)
def test_attributes_read_the_same(make: Callable[[Any], Any]) -> None:
    mine, mlflows = make(ours()), make(theirs())

    for name in ("name", "value", "trace_id", "metadata", "span_id", "rationale", "overrides", "valid", "run_id"):
        assert getattr(mine, name) == getattr(mlflows, name), name
    for name in ("create_time_ms", "last_update_time_ms", "assessment_id", "issue"):
        assert getattr(mine, name) == getattr(mlflows, name), name
    assert (mine.source.source_type, mine.source.source_id) == (mlflows.source.source_type, mlflows.source.source_id)
    assert (mine.error is None) == (mlflows.error is None)
    assert (mine.feedback is None) == (mlflows.feedback is None)
    assert (mine.expectation is None) == (mlflows.expectation is None)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.Feedback("a", error=3),
        lambda m: m.Feedback("a", error=ValueError),
        lambda m: m.Feedback("a", 1, source="CODE"),
        lambda m: m.Feedback("a", math.nan).to_dictionary(),
        lambda m: m.Feedback("a", object()).to_dictionary(),
        lambda m: m.Feedback("a", 1, assessment_id="x"),
        lambda m: m.Feedback.from_dictionary({}),
        lambda m: m.Expectation("e"),
        lambda m: m.Expectation("e", None),
        lambda m: m.Expectation("e", object()).to_dictionary(),
        lambda m: m.AssessmentSource("ROBOT"),
        lambda m: m.AssessmentSource(None),
        lambda m: m.AssessmentError(),
        lambda m: m.AssessmentError.from_dictionary({"error_message": "m"}),
    ],
)
def test_what_mlflow_refuses_we_refuse(make: Callable[[Any], Any]) -> None:
    for side in (theirs(), ours()):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each has exceptions of its own
            make(side)


def test_an_exception_is_described_alike() -> None:
    nothing: dict[str, LookupError] = {}

    def broken() -> LookupError:
        try:
            return nothing["gone"]
        except LookupError as error:
            return error

    mine, mlflows = (side.Feedback("a", error=broken()) for side in (ours(), theirs()))

    assert (mine.error_code, mine.error_message) == (mlflows.error_code, mlflows.error_message)
    assert "in broken" in mine.error.stack_trace
    assert "in broken" in mlflows.error.stack_trace


RETURNED: list[Callable[[Any], Any]] = [
    lambda m: True,
    lambda m: 3,
    lambda m: 0.5,
    lambda m: "yes",
    lambda m: Grade.GOOD,
    lambda m: None,
    lambda m: [],
    lambda m: np.float64(0.5),
    lambda m: m.Feedback(value=1),
    lambda m: m.Feedback(name="feedback", value=1),
    lambda m: m.Feedback(name="own", value=1, rationale="why"),
    lambda m: m.Feedback(name="own", value=1, metadata={"_user_defined_assessment_name": "false"}),
    lambda m: [m.Feedback(name="a", value=1), m.Feedback(value="x"), m.Feedback(name="a", value=2)],
    lambda m: m.Feedback(value=[1, "b"]),
    lambda m: m.Feedback(value={"a": {"b": [1]}}),
    lambda m: m.Feedback(error=ValueError("no")),
]


@pytest.mark.parametrize("make", RETURNED)
@pytest.mark.parametrize("is_class", [False, True])
def test_what_a_scorer_returns_becomes_the_same_feedback(make: Callable[[Any], Any], is_class: bool) -> None:
    from mlflow.genai.evaluation.utils import standardize_scorer_value
    from mlflow.genai.scorers import Scorer as MlflowScorer
    from mlflow.genai.scorers import scorer as mlflow_scorer

    def check(outputs: Any) -> Any:
        return make(theirs())

    class Check(MlflowScorer):
        name: str = "check"

        def __call__(self, *, outputs: Any = None) -> Any:
            return make(theirs())

    foreign = Check() if is_class else mlflow_scorer(check)
    expected = standardize_scorer_value("check", foreign.run(outputs="x"))
    own = otel_scorer.scorer(lambda outputs: make(ours()), name="check")

    for decision in (judge(own, outputs="x"), judge(foreign, outputs="x")):
        assert [
            (
                each.name,
                each.value,
                each.rationale,
                each.error_code,
                str(each.source.source_type),
                each.source.source_id,
            )
            for each in decision.feedbacks
            if each.source is not None
        ] == [
            (each.name, each.value, each.rationale, each.error_code, each.source.source_type, each.source.source_id)
            for each in expected
        ]


@pytest.mark.parametrize("result", [[1], [1, 2], (1,), {1}, {"a": 1}, b"x", object(), 1j])
def test_what_mlflow_will_not_take_is_our_failure_too(result: Any) -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    with pytest.raises(Exception, match="must return one of"):
        mlflow_scorer(lambda outputs: result, name="odd").run(outputs="x")

    assert judge(otel_scorer.scorer(lambda outputs: result, name="odd"), outputs="x").outcome == "failed"


@pytest.mark.parametrize("timeout", [-1, math.nan, math.inf, True, "5"])
def test_timeouts_that_mlflow_refuses_we_refuse(timeout: Any) -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    for made in (mlflow_scorer, otel_scorer.scorer):
        with pytest.raises(Exception, match="timeout"):
            made(lambda outputs: 1, name="t", timeout=timeout)


def test_aggregations_have_mlflows_names_and_values() -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer
    from mlflow.genai.scorers.aggregation import compute_aggregated_metrics

    def spread(values: list[float]) -> float:
        return max(values) - min(values)

    names = ["min", "max", "mean", "median", "variance", "p90", spread]
    given = [3, True, "no", "Yes", 0.5, 7.25, None, "other"]
    made = mlflow_scorer(lambda outputs: outputs, name="n", aggregations=names)
    numbers = [value for value in given if value != "other"]
    rows = [SimpleNamespace(assessments=[theirs().Feedback(name="n", value=value)]) for value in numbers]

    expected = compute_aggregated_metrics(rows, [made])
    found = evaluate([{"outputs": value} for value in given], [made], store=False).metrics

    assert {name: found[name] for name in expected} == pytest.approx(
        {key: float(value) for key, value in expected.items()}
    )
    for bad in ("p95", 3):
        with pytest.raises(Exception, match="aggregations"):
            mlflow_scorer(lambda outputs: 1, name="n", aggregations=[bad])
        with pytest.raises(Exception, match="aggregations"):
            otel_scorer.scorer(lambda outputs: 1, name="n", aggregations=[bad])


def test_a_bool_is_never_taken_for_a_number() -> None:
    assert verdict(True, None) is True
    assert judge(otel_scorer.scorer(lambda: True, name="b", pass_if=">= 0.5")).passed == (True,)
    assert judge(otel_scorer.scorer(lambda: False, name="b", pass_if="< 0.5")).passed == (False,)
    assert only(judge(otel_scorer.scorer(lambda: True, name="b"))).value is True
    for option in ("timeout", "sample_rate"):
        with pytest.raises(ValueError, match="finite number"):
            otel_scorer.scorer(lambda: 1, name="b").with_options(**{option: True})
