"""What otel_scorer understands of a trace, as plain data (`inspect --format json`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

from otel_scorer.model.trace import MISSING, SpanType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.dialects.witness import Origin
    from otel_scorer.model.trace import Span, Trace

__all__ = ["Explainer", "explained", "inspect_trace"]


class Explainer(Protocol):
    """Says where the meaning of a span was found."""

    def explain(self, span: Span) -> Mapping[str, Origin]:
        """Return, for its type and every field that the span tells, what it is read from."""
        ...


def inspect_trace(trace: Trace, explainer: Explainer | None = None) -> dict[str, Any]:
    """
    Return what is understood of a trace. Keys and their order are part of the interface.

    Args:
        trace: The trace.
        explainer: Adds to each span where its values are read from.
    """
    root = trace.root
    usage = trace.usage
    return {
        "trace_id": trace.trace_id,
        "root": None if root is None else root.name,
        "complete": trace.is_complete,
        "dialects": trace.dialects,
        "spans": [_span(span, explainer) for span, _ in trace.tree.walk()],
        "root_inputs": None if root is None else root.inputs,
        "root_outputs": None if root is None else root.outputs,
        "inputs": trace.inputs,
        "outputs": trace.outputs,
        "tool_calls": [
            {
                "name": call.name,
                "arguments": _value_or_none(call.arguments),
                "result": _value_or_none(call.result),
                "failed": call.failed,
                "call_id": call.call_id,
            }
            for call in trace.tool_calls
        ],
        "llm_calls": len(trace.llm_calls),
        "usage": None if usage is None else {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        "failed_spans": sum(span.failed for span in trace.spans),
        "root_failed": root is not None and root.failed,
        "documents": [dataclasses.asdict(document) for document in trace.retrieved_documents],
        "model": trace.model,
        "session_id": trace.session_id,
        "user_id": trace.user_id,
        "tags": trace.tags,
        "evaluations": [dataclasses.asdict(evaluation) for evaluation in trace.evaluations],
    }


def _span(span: Span, explainer: Explainer | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "span_type": span.span_type,
        "status": str(span.status.status_code),
        "inputs": span.inputs,
        "outputs": span.outputs,
    }
    if explainer is not None:
        found["explain"] = {
            field: {"dialect": origin.dialect, "key": origin.key}
            for field, origin in explained(span, explainer).items()
        }
    return found


def explained(span: Span, explainer: Explainer) -> dict[str, Origin]:
    """Return where the values of a span are read from, less what says the same again in another form."""
    is_tool = span.span_type == SpanType.TOOL
    return {
        field: place
        for field, place in explainer.explain(span).items()
        if not field.startswith("chat_") and (is_tool or not field.startswith("tool_"))
    }


def _value_or_none(value: Any) -> Any:
    return None if value is MISSING else value
