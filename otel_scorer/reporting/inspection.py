"""What otel_scorer understands of a trace, as plain data (`inspect --format json`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from otel_scorer.model.trace import MISSING
from otel_scorer.reporting.provenance import explain_trace, shown_origin, span_origins

if TYPE_CHECKING:
    from otel_scorer.dialects import ExplainingReader
    from otel_scorer.model.trace import EvaluationResult, Span, Trace

__all__ = ["inspect_trace"]


def inspect_trace(trace: Trace, reader: ExplainingReader | None = None, *, duplicates: int = 0) -> dict[str, Any]:
    """
    Return what is understood of a trace. Keys and their order are part of the interface.

    Args:
        trace: The trace.
        reader: The reader of the trace: adds where each value is read from, and what is wrong (`explain`).
        duplicates: Copies of its spans that were received again.
    """
    root = trace.root
    usage = trace.usage
    found: dict[str, Any] = {
        "trace_id": trace.trace_id,
        "root": None if root is None else root.name,
        "complete": trace.is_complete,
        "dialects": trace.dialects,
        "spans": [_span(span, reader) for span, _ in trace.tree.walk()],
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
        # As the retrievers recorded them; `trace.retrieved_documents` has them in one form.
        "documents": trace.reader.derive(trace, "raw_documents"),
        "model": trace.model,
        "session_id": trace.session_id,
        "user_id": trace.user_id,
        "tags": trace.tags,
        "evaluations": [_evaluation(evaluation) for evaluation in trace.evaluations],
    }
    if reader is not None:
        found["explain"] = explain_trace(trace, reader, duplicates=duplicates)
    return found


def _span(span: Span, reader: ExplainingReader | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "name": span.name,
        "span_type": span.span_type,
        "status": str(span.status.status_code),
        "inputs": span.inputs,
        "outputs": span.outputs,
    }
    if reader is not None:
        found["explain"] = {field: shown_origin(origin) for field, origin in span_origins(span, reader).items()}
    return found


def _evaluation(evaluation: EvaluationResult) -> dict[str, Any]:
    found = dataclasses.asdict(evaluation)
    if evaluation.trace_id is None:
        # Nearly every verdict is about the trace in which it lies.
        del found["trace_id"]
    return found


def _value_or_none(value: Any) -> Any:
    return None if value is MISSING else value
