"""The LangSmith SDK with OTLP export. Its `session_name` is a project, not a session."""

from __future__ import annotations

from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.table import Dialect, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, is_dict, is_text, json_value, literal

__all__ = ["DIALECT"]


def _arguments(value: object) -> object:
    """Decode a tool's arguments; LangChain's tools have them as `{"input": "<Python repr>"}`."""
    decoded = arguments(value)
    if is_dict(decoded) and set(decoded) == {"input"} and is_text(decoded["input"]):
        inner = literal(decoded["input"])
        return decoded if isinstance(inner, str) else inner
    return decoded


DIALECT = Dialect(
    name="langsmith",
    scopes=("langsmith",),
    keys=("langsmith.span.kind",),
    span_types=(
        SpanTypeKey(
            "langsmith.span.kind",
            {
                "llm": "LLM",
                "chain": "CHAIN",
                "tool": "TOOL",
                "retriever": "RETRIEVER",
                "embedding": "EMBEDDING",
                "prompt": "PARSER",
                "parser": "PARSER",
                "agent": "AGENT",
            },
        ),
    ),
    fields={
        "inputs": attributes("gen_ai.prompt", decode=json_value),
        "outputs": attributes("gen_ai.completion", decode=json_value),
        "tool_name": attributes("gen_ai.tool.name"),
        "tool_call_id": attributes("gen_ai.tool.call.id"),
        "tool_args": attributes("gen_ai.prompt", decode=_arguments),
        "tool_result": attributes("gen_ai.completion", decode=json_value),
        "documents": attributes("gen_ai.completion", decode=document_list),
        "model": attributes("gen_ai.response.model", "gen_ai.request.model"),
        "input_tokens": attributes("gen_ai.usage.input_tokens"),
        "output_tokens": attributes("gen_ai.usage.output_tokens"),
        "session_id": attributes(
            "langsmith.metadata.session_id", "langsmith.metadata.thread_id", "langsmith.trace.session_id"
        ),
        "user_id": attributes("langsmith.metadata.user_id"),
        "tags": attributes("langsmith.span.tags"),
    },
    capture="unset LANGSMITH_HIDE_INPUTS and LANGSMITH_HIDE_OUTPUTS",
)
