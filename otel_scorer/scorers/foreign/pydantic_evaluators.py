"""Evaluators of pydantic-evals, with an `EvaluatorContext` and a span tree made from the trace."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from otel_scorer.model.feedback import DEFAULT_FEEDBACK_NAME, Feedback
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.arguments import NotApplicableError
from otel_scorer.scorers.foreign.adapted import Adapted, judge_of, source_of, state_of

if TYPE_CHECKING:
    from otel_scorer.model.feedback import AssessmentSource
    from otel_scorer.model.trace import Span, Trace
    from otel_scorer.scorers.foreign.case import Case

__all__ = ["adapt"]


def adapt(evaluator: Any) -> Adapted:
    """Return an evaluator as a scorer, by the name and version that it gives itself."""
    is_async = inspect.iscoroutinefunction(evaluator.evaluate)
    source = source_of(evaluator, "pydantic_evals", getattr(evaluator, "model", None), is_judge=_is_judge(evaluator))

    def judge(case: Case) -> list[Feedback]:
        with _tree_is_needed():
            return _feedbacks(evaluator.evaluate(_context(case)), source)

    async def judge_async(case: Case) -> list[Feedback]:
        with _tree_is_needed():
            return _feedbacks(await evaluator.evaluate(_context(case)), source)

    options = {"name": evaluator.get_default_evaluation_name(), "version": _version(evaluator), "concurrent": is_async}
    return Adapted(
        judge_of(judge_async if is_async else judge, is_async=is_async),
        {key: value for key, value in options.items() if value is not None},
        code=type(evaluator),
        state=state_of(evaluator, "pydantic-evals"),
    )


@contextmanager
def _tree_is_needed() -> Generator[None]:
    """Take the failure of an evaluator that looked for the spans of a bare row for what it is."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "SpanTreeRecordingError":
            msg = f"the evaluator needs the spans: {error}"
            raise NotApplicableError(msg) from error
        raise


def _is_judge(evaluator: object) -> bool:
    return any(base.__name__ in {"LLMJudge", "GEval"} for base in type(evaluator).__mro__)


def _version(evaluator: Any) -> str | None:
    own = getattr(evaluator, "get_evaluator_version", None)
    return None if own is None else own()


def _feedbacks(output: Any, source: AssessmentSource) -> list[Feedback]:
    if isinstance(output, Mapping):
        results = cast("Mapping[str, Any]", output)
        return [_feedback(str(name), result, source) for name, result in results.items()]
    return [_feedback(DEFAULT_FEEDBACK_NAME, output, source)]


def _feedback(name: str, result: Any, source: AssessmentSource) -> Feedback:
    """Return the feedback for a scalar, or for an `EvaluationReason`, which is a scalar and a reason."""
    is_explained = hasattr(result, "reason") and hasattr(result, "value")
    value = result.value if is_explained else result
    return Feedback(name, value, source=source, rationale=result.reason if is_explained else None)


def _context(case: Case) -> Any:
    make = import_module("pydantic_evals.evaluators").EvaluatorContext
    return make(
        name=None if case.trace is None else case.trace.trace_id,
        inputs=case.value("inputs") if case.has("inputs") else None,
        metadata=case.expectations.get("metadata"),
        expected_output=None if case.expected is MISSING else case.expected,
        output=case.value("outputs"),
        duration=case.seconds or 0.0,
        _span_tree=_tree(case.trace),
        attributes={},
        metrics=_metrics(case.trace),
    )


def _metrics(trace: Trace | None) -> dict[str, int | float]:
    """Return the metrics that pydantic-evals itself takes from the spans of a task."""
    usage = None if trace is None else trace.usage
    if trace is None or usage is None:
        return {}
    tokens = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    return {"requests": len(trace.llm_calls), **{key: count for key, count in tokens.items() if count is not None}}


def _tree(trace: Trace | None) -> Any:
    otel = import_module("pydantic_evals.otel")
    if trace is None:
        return import_module("pydantic_evals.otel._errors").SpanTreeRecordingError("there is no trace, only values")
    tree = otel.SpanTree()
    known = {field.name for field in dataclasses.fields(otel.SpanNode)}
    tree.add_spans([otel.SpanNode(**_node(span, known)) for span in trace.spans])
    return tree


def _node(span: Span, known: set[str]) -> dict[str, Any]:
    node = {
        "name": span.name,
        "trace_id": int(span.trace_id, 16),
        "span_id": int(span.span_id, 16),
        "parent_span_id": None if span.parent_id is None else int(span.parent_id, 16),
        "start_timestamp": _moment(span.start_time_ns),
        "end_timestamp": _moment(span.end_time_ns),
        "attributes": dict(span.attributes),
        "status": span.status.otel_status_code.lower(),
    }
    return {name: value for name, value in node.items() if name in known}


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
