"""Scorers of MLflow itself run here unchanged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.agent import ANSWER, QUESTION, agent_trace, judge, only

from otel_scorer import evaluate, search_traces
from otel_scorer.errors import ScorerError
from otel_scorer.model.feedback import AssessmentSource, Expectation
from otel_scorer.model.trace import Trace
from otel_scorer.scorers import as_scorer, scorer

pytestmark = [pytest.mark.integrations, pytest.mark.needs("mlflow")]


def test_a_decorated_function_gets_what_its_annotations_say() -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    @mlflow_scorer(name="shouting", description="Is it loud?", timeout=3, aggregations=["max"])
    def loud(inputs: dict[str, Any], outputs: str) -> bool:
        assert isinstance(inputs, dict)
        return outputs.isupper()

    made = as_scorer(loud)

    assert (made.name, made.description, made.timeout, made.aggregations) == ("shouting", "Is it loud?", 3, ["max"])
    assert only(judge(loud, agent_trace())).value is False
    assert only(judge(loud, inputs={"q": 1}, outputs="HO")).value is True


def test_pass_if_of_mlflow_decides() -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    decisive = mlflow_scorer(lambda outputs: 3, name="three", pass_if=lambda value: value < 5)

    assert judge(decisive, outputs="x").passed == (True,)


def test_feedback_of_mlflow_arrives_with_all_its_fields() -> None:
    from mlflow.entities import AssessmentSource as MlflowSource
    from mlflow.entities import Feedback as MlflowFeedback
    from mlflow.genai.scorers import scorer as mlflow_scorer

    @mlflow_scorer
    def several(outputs):
        source = MlflowSource("HUMAN", "ann")
        return [
            MlflowFeedback(name="a", value=3, source=source, rationale="why", metadata={"k": "v"}, span_id="a" * 16),
            MlflowFeedback(value=["x"]),
            MlflowFeedback(name="c", error=ValueError("broke")),
        ]

    decision = judge(several, outputs="x")

    a, unnamed, c = decision.feedbacks
    assert (a.name, a.value, a.rationale, a.metadata, a.span_id) == ("a", 3, "why", {"k": "v"}, "a" * 16)
    assert a.source == AssessmentSource("HUMAN", "ann")
    assert (unnamed.name, unnamed.value) == ("several", ["x"])
    assert (c.name, c.error_code, c.error_message) == ("c", "ValueError", "broke")


def test_an_exception_in_it_is_its_failure_and_the_stack_begins_in_its_code() -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    @mlflow_scorer
    def broken(outputs):
        raise KeyError(outputs)

    decision = judge(broken, outputs="x")

    assert (decision.outcome, decision.feedbacks[0].error_code) == ("failed", "KeyError")
    assert "otel_scorer" not in decision.feedbacks[0].error.stack_trace.splitlines()[1]


def test_a_class_runs_with_its_fields() -> None:
    from mlflow.genai.scorers import Scorer as MlflowScorer

    class Longer(MlflowScorer):
        name: str = "longer"
        than: int = 3

        def __call__(self, *, outputs=None, trace=None):
            return len(str(outputs)) > self.than and trace is None

    assert only(judge(Longer(), outputs="four")).value is True
    assert only(judge(Longer(than=9), outputs="four")).value is False
    assert as_scorer(Longer()).scorer_version != as_scorer(Longer(than=9)).scorer_version


def test_a_coroutine_function_runs_too() -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    @mlflow_scorer
    async def patient(outputs):
        await asyncio.sleep(0)
        return outputs

    assert as_scorer(patient).is_async
    assert only(judge(patient, outputs="x")).value == "x"


def test_built_in_code_scorers_need_no_model() -> None:
    from mlflow.genai.scorers import PIIDetection, RegexMatch, ResponseLength

    trace = agent_trace()

    assert only(judge(RegexMatch(pattern=r"\d+ C"), trace)).value == "yes"
    assert only(judge(RegexMatch(pattern="Rome"), trace)).value == "no"
    assert only(judge(ResponseLength(max_length=5, unit="words"), trace)).value == "no"
    found = judge(PIIDetection(), agent_trace(answer="Write to ann@example.org"))
    assert (only(found).name, only(found).value) == ("pii_detection", "no")


@pytest.mark.parametrize("postponed", [False, True])
def test_a_parameter_that_is_annotated_with_mlflows_trace_gets_one(postponed: bool) -> None:
    import mlflow.entities

    seen: list[Any] = []

    def look(trace):
        seen.append(trace)

    look.__annotations__ = {"trace": "mlflow.entities.Trace" if postponed else mlflow.entities.Trace | None}
    look.__globals__["mlflow"] = mlflow

    trace = agent_trace()
    for _ in range(2):
        judge(scorer(look), trace)

    first, second = seen
    assert first is second
    assert isinstance(first, mlflow.entities.Trace)
    assert first.info.trace_id == f"tr-{trace.trace_id}"
    assert (first.info.state, first.info.execution_duration) == ("OK", 4000)
    assert [(span.name, span.span_type, span.status.status_code.value) for span in first.data.spans] == [
        (span.name, span.span_type, span.status.status_code) for span in trace.spans
    ]
    [tool, _] = first.search_spans(span_type="TOOL")
    assert (tool.inputs, tool.outputs, tool.parent_id) == ({"city": "Paris"}, "18 C", trace.spans[0].span_id)
    assert tool.get_attribute("gen_ai.tool.name") == "get_weather"
    assert (tool.span_id, tool.start_time_ns) == (trace.tool_calls[0].span.span_id, trace.spans[3].start_time_ns)
    assert first.data.spans[0].inputs == trace.spans[0].inputs
    assert first.to_json()


def test_expectations_and_spans_come_in_mlflows_form_too() -> None:
    import mlflow.entities

    trace = Trace.from_dict(agent_trace().to_dict())
    trace = type(trace)(trace.spans, trace.reader, assessments=[Expectation("facts", ["18 C"])])
    seen: list[Any] = []

    def look(trace: mlflow.entities.Trace, span: mlflow.entities.Span) -> None:
        seen.extend((trace, span))

    look.__annotations__ = {"trace": mlflow.entities.Trace, "span": mlflow.entities.Span}
    judge(scorer(look), trace)

    assert [item.value for item in seen[0].search_assessments(type="expectation")] == [["18 C"]]
    assert (type(seen[1]), seen[1].name) == (mlflow.entities.Span, "travel")


def test_without_an_annotation_our_trace_answers_what_mlflows_does() -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    @mlflow_scorer
    def look(trace):
        assert trace.search_spans(name="chat")[0].span_type == "CHAT_MODEL"
        assert trace.info.request_id == trace.info.trace_id
        assert trace.info.trace_metadata == trace.info.request_metadata == {}
        assert QUESTION in trace.info.request_preview
        assert ANSWER in trace.info.response_preview
        assert trace.info.token_usage == {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
        assert trace.info.client_request_id is None
        return all(span.status.status_code == "OK" for span in trace.data.spans if span.span_type != "TOOL")

    assert only(judge(look, agent_trace())).value is True


def test_traces_of_mlflow_are_data_to_evaluate(tmp_path: Path) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        experiment = mlflow.set_experiment("traces").experiment_id
        with mlflow.start_span("agent", span_type="AGENT") as root:
            root.set_inputs({"question": QUESTION})
            root.set_attribute("mine", "text")
            with mlflow.start_span("look_up", span_type="TOOL") as tool:
                tool.set_outputs([1, 2])
            root.set_outputs(ANSWER)
        mlflow.flush_trace_async_logging()
        mlflow.log_expectation(trace_id=root.trace_id, name="expected_response", value=ANSWER)
        listed = mlflow.search_traces(locations=[experiment], return_type="list")
        frame = mlflow.search_traces(locations=[experiment])
    finally:
        mlflow.set_tracking_uri(before)

    def matches(outputs: str, expectations: dict[str, Any]) -> bool:
        return bool(outputs == expectations["expected_response"])

    def tools(trace: Trace) -> int:
        assert f"tr-{trace.trace_id}" == root.trace_id
        assert trace.spans[0].attributes["mine"] == "text"
        return len([span for span in trace.search_spans("TOOL") if span.outputs == [1, 2]])

    for data in (listed, [{"trace": listed[0]}], frame):
        result = evaluate(data, [matches, tools], store=tmp_path / "ours.db")
        assert result.metrics == {"matches/mean": 1.0, "tools/mean": 1.0}
    [stored] = search_traces(store=tmp_path / "ours.db")
    assert evaluate([stored], [matches], store=False).passed


def test_what_judges_sessions_is_refused_with_a_reason() -> None:
    from mlflow.genai.scorers import scorer as mlflow_scorer

    @mlflow_scorer
    def whole(session):
        return len(session)

    with pytest.raises(ScorerError, match="'whole' judges sessions"):
        as_scorer(whole)
