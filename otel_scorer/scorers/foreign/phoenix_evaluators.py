"""Evaluators of Phoenix: `phoenix.evals.Evaluator`, its built-in ones and those of `create_evaluator`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.model.feedback import DEFAULT_FEEDBACK_NAME, AssessmentSource, AssessmentSourceType, Feedback
from otel_scorer.model.trace import MISSING
from otel_scorer.scorers.arguments import NotApplicableError
from otel_scorer.scorers.foreign.adapted import Adapted, judge_of, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.trace import ToolCall
    from otel_scorer.scorers.foreign.case import Case

__all__ = ["adapt"]

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
    offered = _offered(case)
    mapping = cast("Mapping[str, Any]", getattr(evaluator, "_input_mapping", None) or {})
    schema = evaluator.input_schema
    required = [name for name, field in schema.model_fields.items() if field.is_required()] if schema else [*mapping]
    for name in required:
        wanted = mapping.get(name) or name
        if isinstance(wanted, str) and wanted not in offered and wanted.split(".")[0].split("[")[0] not in offered:
            msg = f"the evaluator needs {wanted!r}, which neither the trace nor the expectations have"
            raise NotApplicableError(msg)
    return offered


def _offered(case: Case) -> dict[str, Any]:
    texts = {side: case.text(side) for side in ("inputs", "outputs")}
    offered: dict[str, Any] = {side: case.raw(side) for side in ("inputs", "outputs") if case.has(side)}
    if texts["inputs"] is not None:
        offered |= dict.fromkeys(("input", "question", "query"), texts["inputs"])
    if texts["outputs"] is not None:
        offered |= dict.fromkeys(("output", "answer", "response"), texts["outputs"])
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
