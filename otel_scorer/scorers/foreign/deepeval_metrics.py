"""Metrics of DeepEval: `BaseMetric` on an `LLMTestCase`, `BaseConversationalMetric` on a `ConversationalTestCase`."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.scorers.arguments import NotApplicableError
from otel_scorer.scorers.foreign.adapted import Adapted, judge_of, source_of, state_of
from otel_scorer.scorers.results import JudgedFeedback
from otel_scorer.scorers.text import compact_json

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span
    from otel_scorer.scorers.foreign.case import Case

__all__ = ["adapt"]

_BASE_NAMES: Final = ("Base Metric", "Base Conversational Metric")
_RESULTS: Final = frozenset({
    "score", "score_breakdown", "reason", "success", "error", "evaluation_cost", "input_tokens", "output_tokens",
    "verbose_logs", "skipped", "confidence", "test_case",
})  # fmt: skip
_SPAN_TYPES: Final = {"LLM": "llm", "CHAT_MODEL": "llm", "TOOL": "tool", "AGENT": "agent", "RETRIEVER": "retriever"}
_DEEPEST: Final = 64


def adapt(metric: Any) -> Adapted:
    """Return a metric as a scorer. It is copied for every call, as DeepEval does: it keeps its results in itself."""
    is_judge = getattr(metric, "evaluation_model", None) is not None or getattr(metric, "model", None) is not None
    # Metrics that ask a model wait for it together; those that compute would only block one another on a loop.
    is_async = is_judge and bool(getattr(metric, "async_mode", True)) and _is_own(metric, "a_measure")
    is_conversational = any(base.__name__ == "BaseConversationalMetric" for base in type(metric).__mro__)
    make = _conversation if is_conversational else _single_turn

    def judge(case: Case) -> JudgedFeedback:
        measured = copy.copy(metric)
        test_case = make(case)
        try:
            measured.measure(test_case, **_quiet(measured.measure))
        except Exception as error:
            _refuse_missing(error)
            raise
        return _feedback(measured)

    async def judge_async(case: Case) -> JudgedFeedback:
        measured = copy.copy(metric)
        test_case = make(case)
        try:
            await measured.a_measure(test_case, **_quiet(measured.a_measure))
        except Exception as error:
            _refuse_missing(error)
            raise
        return _feedback(measured)

    state = {name: value for name, value in state_of(metric, "deepeval").items() if name not in _RESULTS}
    return Adapted(
        judge_of(judge_async if is_async else judge, is_async=is_async),
        {"name": _name(metric), "concurrent": is_async},
        code=type(metric),
        state=state,
    )


def _is_own(metric: object, method: str) -> bool:
    """Whether a metric has a method of its own, not that of DeepEval's base class, which only raises."""
    owner = next(base for base in type(metric).__mro__ if method in vars(base))
    return not owner.__name__.startswith("Base")


def _name(metric: Any) -> str:
    name = metric.__name__
    return type(metric).__name__ if name in _BASE_NAMES else str(name)


def _quiet(method: Any) -> dict[str, bool]:
    """Return what keeps a metric from drawing a progress bar, where it knows that."""
    return {"_show_indicator": False} if "_show_indicator" in inspect.signature(method).parameters else {}


def _refuse_missing(error: Exception) -> None:
    if type(error).__name__ == "MissingTestCaseParamsError":
        raise NotApplicableError(str(error)) from error


def _feedback(metric: Any) -> JudgedFeedback:
    skipped = bool(getattr(metric, "skipped", False))
    score = None if skipped else metric.score
    metadata = {
        "threshold": metric.threshold,
        "score_breakdown": getattr(metric, "score_breakdown", None),
        "evaluation_cost": getattr(metric, "evaluation_cost", None),
    }
    return JudgedFeedback(
        value=score,
        error=None if skipped else getattr(metric, "error", None),
        source=source_of(metric, "deepeval", getattr(metric, "evaluation_model", None)),
        metadata={key: value for key, value in metadata.items() if value is not None} or None,
        rationale=getattr(metric, "reason", None) or ("skipped" if skipped else None),
        passed=None if score is None else metric.is_successful(),
    )


def _single_turn(case: Case) -> Any:
    usage = None if case.trace is None else case.trace.usage
    expectations = case.expectations
    made = import_module("deepeval.test_case").LLMTestCase(
        input=case.text("inputs") or "",
        actual_output=case.text("outputs"),
        expected_output=case.expected_text,
        context=case.texts("context"),
        retrieval_context=case.retrieved_texts,
        tools_called=_tools_called(case),
        expected_tools=_expected_tools(expectations.get("expected_tools")),
        input_token_count=None if usage is None else usage.input_tokens,
        output_token_count=None if usage is None else usage.output_tokens,
        completion_time=case.seconds,
        name=None if case.trace is None else case.trace.trace_id,
        tags=(None if case.trace is None else case.trace.tags) or None,
    )
    root = None if case.trace is None else case.trace.root
    if root is not None:
        made._trace_dict = _span_tree(root)  # noqa: SLF001 - where DeepEval's own runner puts it for agent metrics
    return made


def _conversation(case: Case) -> Any:
    module = import_module("deepeval.test_case")
    turns = [
        module.Turn(role=message.role, content=message.content)
        for message in case.messages
        if message.role in {"user", "assistant"} and message.content
    ]
    if not turns:
        said = (("user", case.text("inputs")), ("assistant", case.text("outputs")))
        turns = [module.Turn(role=role, content=content) for role, content in said if content]
    if not turns:
        msg = "the metric needs a conversation, and nobody recorded a message"
        raise NotApplicableError(msg)
    answer = next((turn for turn in reversed(turns) if turn.role == "assistant"), None)
    if answer is not None:
        answer.tools_called = _tools_called(case)
        answer.retrieval_context = case.retrieved_texts
    expectations = case.expectations
    system = next((message.content for message in case.messages if message.role == "system"), None)
    return module.ConversationalTestCase(
        turns=turns,
        scenario=expectations.get("scenario"),
        context=case.texts("context"),
        expected_outcome=expectations.get("expected_outcome"),
        chatbot_role=expectations.get("chatbot_role") or system,
        name=None if case.trace is None else case.trace.trace_id,
    )


def _tools_called(case: Case) -> list[Any] | None:
    """Return the calls; None where no trace says, as an empty list claims that there were none."""
    if case.trace is None:
        return None
    make = import_module("deepeval.test_case").ToolCall
    return [
        make(name=call.name, input_parameters=_parameters(call.arguments), output=call.result)
        for call in case.tool_calls
    ]


def _parameters(arguments: object) -> dict[str, Any] | None:
    if arguments is None:
        return None
    return dict(cast("Mapping[str, Any]", arguments)) if isinstance(arguments, Mapping) else {"input": arguments}


def _expected_tools(given: Any) -> list[Any] | None:
    """Return expected tools from names, dicts or DeepEval's own objects."""
    if given is None:
        return None
    make = import_module("deepeval.test_case").ToolCall
    tools: list[Any] = []
    for tool in cast("list[Any]", given):
        if isinstance(tool, str):
            tools.append(make(name=tool))
        elif isinstance(tool, Mapping):
            tools.append(make(**cast("Mapping[str, Any]", tool)))
        else:
            tools.append(tool)
    return tools


def _span_tree(span: Span, depth: int = 0) -> dict[str, Any]:
    """Return a span and what is below it as the nested dict that DeepEval's agent metrics read."""
    node = {
        "name": span.name,
        "type": _SPAN_TYPES.get(span.span_type, "base"),
        "input": _plain(span.inputs),
        "output": _plain(span.outputs),
        "error": span.status.description or "error" if span.failed else None,
    }
    children = [_span_tree(child, depth + 1) for child in span.children] if depth < _DEEPEST else []
    return {key: value for key, value in node.items() if value is not None} | {"children": children}


def _plain(value: Any) -> Any:
    """Return a value that DeepEval can write as JSON."""
    return None if value is None else json.loads(compact_json(value))
