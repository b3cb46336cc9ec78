"""OpenInference (Arize Phoenix and its instrumentations), and what single instrumentations do differently."""

from __future__ import annotations

from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.flattened import oi_documents, oi_messages
from otel_scorer.dialects.table import SPAN_TYPES, Attribute, Dialect, Flattened, MimeAttribute, SpanTypeKey, attributes
from otel_scorer.dialects.values import call_arguments, json_value, strict_json

__all__ = ["DIALECTS"]

_OUTPUT = MimeAttribute("output.value", "output.mime_type")

_OPENINFERENCE = Dialect(
    name="openinference",
    scopes=("openinference.instrumentation.*",),
    keys=("openinference.span.kind", "input.value", "output.value", "llm.model_name"),
    span_types=(SpanTypeKey("openinference.span.kind", {**{name: name for name in SPAN_TYPES}, "PROMPT": "PARSER"}),),
    fields={
        "inputs": (
            MimeAttribute("input.value", "input.mime_type"),
            Flattened("llm.input_messages", oi_messages("user")),
        ),
        "outputs": (
            _OUTPUT,
            Flattened("llm.output_messages", oi_messages("assistant")),
            Flattened("retrieval.documents", oi_documents),
        ),
        "chat_inputs": (Flattened("llm.input_messages", oi_messages("user")),),
        "chat_outputs": (Flattened("llm.output_messages", oi_messages("assistant")),),
        "tool_name": attributes("tool.name", "tool_call.function.name"),
        "tool_call_id": attributes("tool.id", "tool_call.id"),
        # Never tool.parameters: nearly everywhere that is the JSON schema of the tool.
        "tool_args": (
            Attribute("input.value", call_arguments),
            Attribute("tool_call.function.arguments", call_arguments),
        ),
        "tool_result": (_OUTPUT,),
        "documents": (Flattened("retrieval.documents", oi_documents), Attribute("output.value", document_list)),
        "agent_name": attributes("agent.name", "graph.node.name"),
        "model": attributes(
            "llm.response.model_name",
            "llm.model_name",
            "llm.request.model_name",
            "embedding.model_name",
            "reranker.model_name",
        ),
        "provider": attributes("llm.provider", "llm.system"),
        "input_tokens": attributes("llm.token_count.prompt"),
        "output_tokens": attributes("llm.token_count.completion"),
        "total_tokens": attributes("llm.token_count.total"),
        "cache_read_tokens": attributes("llm.token_count.prompt_details.cache_read"),
        "cache_write_tokens": attributes("llm.token_count.prompt_details.cache_write"),
        "reasoning_tokens": attributes("llm.token_count.completion_details.reasoning"),
        "cost": attributes("llm.cost.total"),
        "finish_reasons": attributes("llm.finish_reason"),
        "session_id": attributes("session.id"),
        "user_id": attributes("user.id"),
        "tags": attributes("tag.tags"),
        "metadata": attributes("metadata", decode=json_value),
    },
    capture=(
        "unset OPENINFERENCE_HIDE_INPUTS, OPENINFERENCE_HIDE_OUTPUTS and the other OPENINFERENCE_HIDE_* variables, and "
        "the same in TraceConfig"
    ),
)

# The agent repeats the summed usage, the step around a failing tool fails too, and the final answer is a tool call; the
# rules for all dialects cover that.
_SMOLAGENTS = Dialect(
    name="smolagents",
    scopes=("openinference.instrumentation.smolagents",),
    keys=("smolagents.max_steps",),
    base="openinference",
)
_CREWAI = Dialect(
    name="crewai_openinference",
    scopes=("openinference.instrumentation.crewai",),
    base="openinference",
    # The crew's own span has no input.value.
    fields={
        "inputs": (MimeAttribute("input.value", "input.mime_type"), Attribute("crew_inputs", strict_json, ("", "{}")))
    },
)
_HAYSTACK = Dialect(
    name="haystack_openinference", scopes=("openinference.instrumentation.haystack",), base="openinference"
)

DIALECTS = (_SMOLAGENTS, _CREWAI, _HAYSTACK, _OPENINFERENCE)
