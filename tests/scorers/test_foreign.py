"""What adapting scorers of other packages needs, without these packages; tests/integrations runs the real ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from otel_scorer.model.decision import Decision
from otel_scorer.model.feedback import AssessmentError, Feedback
from otel_scorer.model.trace import MISSING
from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
from otel_scorer.scorers import as_scorer, scorer
from otel_scorer.scorers.arguments import NotApplicableError, Shape, Signature
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.scorers.foreign import ADAPTERS, adapter_of
from otel_scorer.scorers.foreign.adapted import state_of
from otel_scorer.scorers.foreign.case import ABSENT, Case
from otel_scorer.scorers.results import JudgedFeedback, feedbacks_of
from otel_scorer.testing import make_span, make_trace

MESSAGES = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]


def case(inputs: Any = ABSENT, outputs: Any = ABSENT, expectations: Any = ABSENT, trace: Any = None) -> Case:
    return Case(inputs, outputs, expectations, trace)


def decided(result: object, **options: Any) -> Decision:
    return Invocation(PreparedScorer(scorer(lambda: result, name="judge", **options)), Evidence(None)).run()


def a_class_of(module: str, name: str) -> type:
    return type(name, (), {"__module__": module})


@pytest.mark.parametrize(
    ("module", "name", "package"),
    [
        ("mlflow.genai.scorers.base", "Scorer", "mlflow."),
        ("deepeval.metrics.base_metric", "BaseMetric", "deepeval."),
        ("deepeval.metrics.base_metric", "BaseConversationalMetric", "deepeval."),
        ("phoenix.evals.evaluators", "Evaluator", "phoenix.evals."),
        ("pydantic_evals.evaluators.evaluator", "Evaluator", "pydantic_evals."),
        ("autoevals.score", "Scorer", "autoevals."),
        ("braintrust_core.score", "Scorer", "autoevals."),
        ("my_scorers", "Scorer", None),
        ("mlflowish.scorers", "Scorer", None),
        ("phoenix.server", "Evaluator", None),
        ("deepeval.models", "Model", None),
    ],
)
def test_a_package_is_recognised_by_the_names_of_base_classes(module: str, name: str, package: str | None) -> None:
    derived = type("Mine", (a_class_of(module, name),), {})

    found = adapter_of(derived())

    assert (None if found is None else found.package[0]) == package
    assert adapter_of(derived) is None, "a class is no scorer"


def test_adapting_imports_none_of_the_packages() -> None:
    code = "import sys, otel_scorer.scorers as s; s.as_scorer(lambda: 1); print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    packages = {name.rstrip(".").partition(".")[0] for adapter in ADAPTERS for name in adapter.package}
    assert not packages & set(loaded)


def test_a_case_tells_text_from_what_was_recorded() -> None:
    talk = case(MESSAGES[:1], MESSAGES)

    assert (talk.text("inputs"), talk.text("outputs")) == ("Where?", "Here.")
    assert (talk.value("outputs"), talk.raw("outputs")) == ("Here.", MESSAGES)
    assert case(outputs={"a": 1}).value("outputs") == {"a": 1}
    assert case(outputs={"a": 1}).text("outputs") == '{"a":1}'
    assert case(outputs=[1, 2]).value("outputs") == [1, 2]


def test_what_nobody_recorded_is_not_none() -> None:
    empty = case(outputs=None)

    assert (empty.has("inputs"), empty.has("outputs")) == (False, True)
    assert (empty.raw("outputs"), empty.text("outputs"), empty.text("inputs")) == (None, None, None)
    with pytest.raises(NotApplicableError, match="'inputs'"):
        empty.value("inputs")


@pytest.mark.parametrize(
    ("expectations", "expected"),
    [
        (ABSENT, MISSING),
        (None, MISSING),
        ({}, MISSING),
        ({"facts": ["a"]}, MISSING),
        ({"expected_response": "r"}, "r"),
        ({"reference": "b", "expected_output": "a"}, "a"),
        ({"ground_truth": None}, None),
        ("the answer", "the answer"),
    ],
)
def test_the_expected_value_has_one_of_the_usual_names(expectations: Any, expected: Any) -> None:
    assert case(expectations=expectations).expected == expected


def test_a_row_without_a_trace_has_no_spans_to_tell_of() -> None:
    row = case(expectations={"retrieval_context": ["a", {"b": 1}], "context": "c"})

    assert (row.tool_calls, row.messages, row.documents, row.seconds) == ([], [], [], None)
    assert (row.retrieved_texts, row.texts("context"), row.texts("none")) == (["a", '{"b":1}'], ["c"], None)


def test_a_trace_without_documents_has_no_texts() -> None:
    assert case(trace=make_trace(make_span(end=2.5))).retrieved_texts is None
    assert case(trace=make_trace(make_span(end=2.5))).seconds == 2.5


def test_a_scorer_that_judges_itself_is_believed_unless_it_is_given_a_condition() -> None:
    result = JudgedFeedback(value=0.9, passed=False)

    assert decided(result).passed == (False,)
    assert decided(result, pass_if=">= 0.5").passed == (True,)
    assert decided([result, Feedback("other", True)]).passed == (False, True)


def test_its_own_verdict_is_kept_when_the_feedback_is_completed_and_dropped_when_it_is_an_error() -> None:
    kept, dropped = feedbacks_of(
        [JudgedFeedback(value=1, metadata={"n": 1}, passed=True), JudgedFeedback(value=float("nan"), passed=True)], "j"
    )

    assert isinstance(kept, JudgedFeedback)
    assert (kept.name, kept.passed) == ("j", True)
    assert isinstance(dropped, JudgedFeedback)
    assert (dropped.passed, dropped.error) == (None, AssessmentError("NOT_FINITE", dropped.error_message))


def test_settings_make_the_version_and_secrets_and_private_things_do_not() -> None:
    class Thing:
        def __init__(self) -> None:
            self.limit, self.api_key, self._cache = 3, "sk-1", "x"

    assert state_of(Thing(), "no-such-distribution") == {"limit": 3}
    assert "version of pytest" in state_of(Thing(), "pytest")


def test_mlflows_trace_is_recognised_in_an_annotation() -> None:
    trace, span = a_class_of("mlflow.entities.trace", "Trace"), a_class_of("mlflow.entities.span", "Span")

    def judge(trace: Any, span: Any, inputs: Any) -> None: ...

    judge.__annotations__ = {"trace": trace | None, "span": span, "inputs": trace}
    shapes = [parameter.shape for parameter in Signature.of(judge, "judge").parameters]

    assert shapes == [Shape.MLFLOW, Shape.MLFLOW, Shape.AS_IS]


def test_classes_of_other_packages_are_refused_where_an_instance_is_needed() -> None:
    with pytest.raises(TypeError, match="BaseMetric is a class; give an instance of it"):
        as_scorer(a_class_of("deepeval.metrics.base_metric", "BaseMetric"))
