"""Evaluators of Phoenix: `phoenix.evals.Evaluator`, its built-in ones and those of `create_evaluator`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.model.feedback import DEFAULT_FEEDBACK_NAME, AssessmentSource, AssessmentSourceType, Feedback
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.annotations import Shape, read_annotation
from otel_scorer.scorers.arguments import NotApplicableError
from otel_scorer.scorers.foreign.adapted import Adapted, judge_of, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.trace import ToolCall
    from otel_scorer.scorers.foreign.case import Case, Side

__all__ = ["adapt"]

_SIDES: Final[dict[Side, tuple[str, ...]]] = {
    "inputs": ("input", "question", "query"),
    "outputs": ("output", "answer", "response"),
}
_KINDS: Final = {"llm": AssessmentSourceType.LLM_JUDGE, "human": AssessmentSourceType.HUMAN}


def adapt(evaluator: Any) -> Adapted:
    """Return an evaluator as a scorer. It is given the fields that its schema and its mapping ask for."""
    function = getattr(evaluator, "_fn", None)
    is_async = evaluator.kind == "llm" or inspect.iscoroutinefunction(function)

    def judge(case: Case) -> list[Feedback]:
        return [_feedback(score, evaluator) for score in evaluator.evaluate(_eval_input(evaluator, case))]

    async def judge_async(case: Case) -> list[Feedback]:
        scores = await evaluator.async_evaluate(_eval_input(evaluator, case))
        return [_feedback(score, evaluator) for score in scores]

    mapping = cast("Mapping[str, Any] | None", getattr(evaluator, "_input_mapping", None))
    return Adapted(
        judge_of(judge_async if is_async else judge, is_async=is_async),
        {"name": evaluator.name, "concurrent": is_async},
        code=function or type(evaluator),
        state=state_of(evaluator, "arize-phoenix-evals") | {"input_mapping": dict(mapping or {})},
    )


def _eval_input(evaluator: Any, case: Case) -> dict[str, Any]:
    """
    Return the evaluator's input under the names that Phoenix's own evaluators use.

    Raises:
        NotApplicableError: Something is missing that the evaluator requires.
    """
    mapping = cast("Mapping[str, Any]", getattr(evaluator, "_input_mapping", None) or {})
    fields = cast("Mapping[str, Any]", {} if evaluator.input_schema is None else evaluator.input_schema.model_fields)
    offered = _offered(case, {name: field.annotation for name, field in fields.items()})
    required = [name for name, field in fields.items() if field.is_required()] if fields else [*mapping]
    for name in required:
        wanted = mapping.get(name) or name
        if isinstance(wanted, str) and wanted not in offered and wanted.split(".")[0].split("[")[0] not in offered:
            msg = f"the evaluator needs {wanted!r}, which neither the trace nor the expectations have"
            raise NotApplicableError(msg)
    return offered


def _offered(case: Case, annotations: Mapping[str, Any]) -> dict[str, Any]:
    offered: dict[str, Any] = {}
    for side, names in _SIDES.items():
        if case.has(side):
            offered[side] = case.raw(side)
            offered |= {name: _fitted(case, side, annotations.get(name, str)) for name in names}
    if case.expected is not MISSING:
        offered |= dict.fromkeys(("expected", "reference"), case.expected)
    retrieved = case.retrieved_texts
    if retrieved is not None:
        joined = "\n\n".join(retrieved)
        offered |= {"documents": retrieved, "document_text": joined, "context": joined}
    if case.trace is not None:
        offered |= {
            "trace": case.trace,
            "messages": [{"role": message.role, "content": message.content} for message in case.messages],
            "tool_calls": [_tool_call(call) for call in case.tool_calls],
        }
    return offered | dict(case.expectations) | {"expectations": dict(case.expectations)}


def _fitted(case: Case, side: Side, annotation: object) -> Any:
    """Return a value as a field of the evaluator's schema wants it: as text, or as the application gave it."""
    shape, _ = read_annotation(annotation, ({}, {}))
    text = case.text(side)
    return case.value(side) if text is None or shape is not Shape.TEXT else text


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments, "result": call.result}


def _feedback(score: Any, evaluator: Any) -> Feedback:
    metadata = dict(cast("Mapping[str, Any]", score.metadata or {}))
    value, label = score.score, score.label
    if value is None:
        value = label
    elif str(label).lower() in {"true", "false"} and value == (str(label).lower() == "true"):
        value = bool(value)  # what `create_evaluator` made of a bool
    elif label is not None:
        metadata["label"] = label
    if score.direction != "maximize":
        metadata["direction"] = score.direction
    kind = _KINDS.get(score.kind or evaluator.kind, AssessmentSourceType.CODE)
    model = getattr(getattr(evaluator, "llm", None), "model", None)
    return Feedback(
        DEFAULT_FEEDBACK_NAME if score.name in {None, evaluator.name} else str(score.name),
        value,
        source=AssessmentSource(kind, model if isinstance(model, str) else f"phoenix:{evaluator.name}"),
        metadata=metadata or None,
        rationale=score.explanation,
    )
