"""VoltAgent."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, json_value

__all__ = ["DIALECT"]

_TYPES = {"agent": "AGENT", "llm": "LLM", "tool": "TOOL", "memory": "MEMORY"}

DIALECT = Dialect(
    name="voltagent",
    keys=("voltagent.operation_id", "voltagent.conversation_id"),
    span_types=(SpanTypeKey("span.type", _TYPES), SpanTypeKey("entity.type", _TYPES)),
    fields={
        "inputs": attributes("agent.messages", "llm.messages", "input", decode=json_value),
        "outputs": attributes("output", decode=json_value),
        "tool_name": attributes("tool.name"),
        "tool_args": attributes("input", decode=arguments),
        "tool_result": attributes("output", decode=json_value),
        "input_tokens": attributes("usage.prompt_tokens", "llm.usage.prompt_tokens"),
        "output_tokens": attributes("usage.completion_tokens", "llm.usage.completion_tokens"),
        "total_tokens": attributes("usage.total_tokens", "llm.usage.total_tokens"),
        "session_id": attributes("voltagent.conversation_id"),
    },
)
