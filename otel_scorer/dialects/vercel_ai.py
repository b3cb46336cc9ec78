"""The Vercel AI SDK 4 to 6 (`ai.*` keys). From 7 on it speaks the OTel conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_scorer.dialects.table import Computed, Dialect, SpanTypeKey, attributes
from otel_scorer.dialects.values import is_list, is_text, json_twice, json_value, string_list
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span

__all__ = ["DIALECT"]

_TEXT, _OBJECT, _CALLS = "ai.response.text", "ai.response.object", "ai.response.toolCalls"


def _response(span: Span) -> object:
    said = (json_value(span.attributes.get(key)) if key != _TEXT else span.attributes.get(key) for key in _PLACES)
    return next((value for value in said if value not in (None, "", [])), MISSING)


_PLACES = (_TEXT, _OBJECT, _CALLS)


def _answer(span: Span) -> object:
    """Return text and tool calls of a model's answer as one message."""
    text, calls = span.attributes.get(_TEXT), json_value(span.attributes.get(_CALLS))
    if not is_text(text) and not calls:
        return MISSING
    return [{"role": "assistant", "content": text, "tool_calls": calls}]


def _values(value: object) -> object:
    found = string_list(value)
    return [json_value(item) for item in found] if is_list(found) else value


DIALECT = Dialect(
    name="vercel_ai",
    scopes=("ai",),
    keys=("ai.operationId",),
    span_types=(
        SpanTypeKey(
            "ai.operationId",
            {
                # The outer span of a call repeats what the inner one says: it is the agent's loop, not a model call.
                "ai.generateText": "AGENT",
                "ai.streamText": "AGENT",
                "ai.generateObject": "CHAIN",
                "ai.streamObject": "CHAIN",
                "ai.generateText.doGenerate": "CHAT_MODEL",
                "ai.streamText.doStream": "CHAT_MODEL",
                "ai.generateObject.doGenerate": "CHAT_MODEL",
                "ai.streamObject.doStream": "CHAT_MODEL",
                "ai.toolCall": "TOOL",
                "ai.embed": "CHAIN",
                "ai.embedMany": "CHAIN",
                "ai.embed.doEmbed": "EMBEDDING",
                "ai.embedMany.doEmbed": "EMBEDDING",
                "ai.rerank": "CHAIN",
                "ai.rerank.doRerank": "RERANKER",
            },
        ),
    ),
    fields={
        "inputs": (
            *attributes("ai.prompt.messages", "ai.prompt", "ai.toolCall.args", decode=json_value),
            *attributes("ai.value", decode=json_twice),
            *attributes("ai.values", decode=_values),
        ),
        "outputs": (
            Computed(" or ".join(_PLACES), _response),
            *attributes("ai.toolCall.result", decode=json_twice),
            *attributes("ai.embedding", decode=json_value),
            *attributes("ai.embeddings", decode=_values),
        ),
        "chat_outputs": (Computed(f"{_TEXT} and {_CALLS}", _answer),),
        "tool_name": attributes("ai.toolCall.name"),
        "tool_call_id": attributes("ai.toolCall.id"),
        "tool_args": attributes("ai.toolCall.args", decode=json_value),
        "tool_result": attributes("ai.toolCall.result", decode=json_twice),
        "tool_definitions": attributes("ai.prompt.tools", decode=_values),
        "agent_name": attributes("ai.telemetry.functionId"),
        "model": attributes("ai.response.model", "gen_ai.response.model", "ai.model.id"),
        "provider": attributes("ai.model.provider", "gen_ai.system"),
        "input_tokens": attributes(
            "ai.usage.inputTokens", "ai.usage.promptTokens", "gen_ai.usage.input_tokens", "ai.usage.tokens"
        ),
        "output_tokens": attributes("ai.usage.outputTokens", "ai.usage.completionTokens", "gen_ai.usage.output_tokens"),
        "total_tokens": attributes("ai.usage.totalTokens"),
        "cache_read_tokens": attributes("ai.usage.cachedInputTokens", "ai.usage.inputTokenDetails.cacheReadTokens"),
        "finish_reasons": attributes("ai.response.finishReason", "gen_ai.response.finish_reasons"),
        "response_id": attributes("ai.response.id", "gen_ai.response.id"),
        "session_id": attributes("ai.telemetry.metadata.sessionId"),
        "user_id": attributes("ai.telemetry.metadata.userId"),
        "tags": attributes("ai.telemetry.metadata.tags"),
    },
    capture="leave recordInputs and recordOutputs of experimental_telemetry on, with isEnabled: true",
)
