"""Traceloop / OpenLLMetry: its own `traceloop.*` keys, and what it wrote before it adopted the OTel conventions."""

from __future__ import annotations

from typing import Final

from otel_scorer.dialects.chat import as_messages
from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.flattened import indexed_messages
from otel_scorer.dialects.table import Attribute, Dialect, Flattened, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, call_arguments, is_dict, strict_json

__all__ = ["DIALECT", "LEGACY"]

# What entity input and output are wrapped in, and what may lie beside it.
_ENVELOPES: Final = ("inputs", "outputs", "input", "output", "input_str", "query")
_BESIDE: Final = frozenset({"input_str", "tags", "metadata", "kwargs"})


def entity(value: object) -> object:
    """Decode `traceloop.entity.input` and `.output`: always JSON, with the content in an envelope."""
    decoded = strict_json(value)
    if not is_dict(decoded):
        return decoded
    for key in _ENVELOPES:
        if key in decoded and _BESIDE.issuperset(decoded.keys() - {key}):
            # LangChain hands a tool its arguments as the repr of a dict.
            return arguments(decoded[key]) if key == "input_str" else decoded[key]
    return call_arguments(decoded)


def _documents(value: object) -> object:
    return document_list(entity(value))


DIALECT = Dialect(
    name="traceloop",
    scopes=("traceloop.tracer", "opentelemetry.instrumentation.langchain", "opentelemetry.instrumentation.openai.v1"),
    keys=("traceloop.span.kind", "traceloop.entity.name", "traceloop.workflow.name"),
    span_types=(
        SpanTypeKey(
            "traceloop.span.kind",
            {"workflow": "WORKFLOW", "task": "TASK", "agent": "AGENT", "tool": "TOOL"},
            # Everything that is nothing else is a workflow or a task; the operation knows better.
            generic=frozenset({"workflow", "task"}),
        ),
    ),
    fields={
        "inputs": (
            Attribute("gen_ai.input.messages", as_messages("user")),
            Attribute("traceloop.entity.input", entity),
            Attribute("gen_ai.tool.call.arguments", entity),
        ),
        "outputs": (
            Attribute("gen_ai.output.messages", as_messages("assistant")),
            Attribute("traceloop.entity.output", entity),
            Attribute("gen_ai.tool.call.result", entity),
        ),
        "tool_name": attributes("gen_ai.tool.name", "traceloop.entity.name"),
        "tool_call_id": attributes("gen_ai.tool.call.id"),
        "tool_args": attributes("traceloop.entity.input", "gen_ai.tool.call.arguments", decode=entity),
        "tool_result": attributes("traceloop.entity.output", "gen_ai.tool.call.result", decode=entity),
        "documents": attributes("traceloop.entity.output", decode=_documents),
        "agent_name": attributes("gen_ai.agent.name", "traceloop.entity.name"),
        "session_id": attributes(
            "traceloop.association.properties.session_id",
            "gen_ai.conversation.id",
            "traceloop.association.properties.thread_id",
        ),
        "user_id": attributes("traceloop.association.properties.user_id"),
    },
    capture="set TRACELOOP_TRACE_CONTENT=true",
)

LEGACY = Dialect(
    name="traceloop_legacy",
    keys=("llm.request.type", "gen_ai.prompt.0.role", "gen_ai.prompt.0.content"),
    span_types=(
        SpanTypeKey(
            "llm.request.type",
            {"chat": "CHAT_MODEL", "completion": "LLM", "embedding": "EMBEDDING", "rerank": "RERANKER"},
        ),
    ),
    fields={
        "inputs": (Flattened("gen_ai.prompt", indexed_messages("user")),),
        "outputs": (Flattened("gen_ai.completion", indexed_messages("assistant")),),
        "model": attributes("gen_ai.response.model", "gen_ai.request.model", "llm.response.model", "llm.request.model"),
        "input_tokens": attributes("gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens"),
        "output_tokens": attributes("gen_ai.usage.completion_tokens", "llm.usage.completion_tokens"),
        "total_tokens": attributes("llm.usage.total_tokens"),
    },
    capture="set TRACELOOP_TRACE_CONTENT=true",
)
