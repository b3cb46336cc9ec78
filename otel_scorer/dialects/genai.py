"""The OpenTelemetry conventions for generative AI, every generation: attributes, events, log records, indexed keys."""

from __future__ import annotations

from otel_scorer.dialects.chat import as_messages, instructions
from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.flattened import indexed_messages
from otel_scorer.dialects.message_events import DetailsEvent, MessageEvents, MessageLogs
from otel_scorer.dialects.table import Attribute, Dialect, Flattened, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, json_twice, json_value

__all__ = ["DIALECT"]

_CAPTURE = (
    "set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only and "
    "OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental (with event_only, send logs here too)"
)
_ARGUMENTS = Attribute("gen_ai.tool.call.arguments", arguments)
_RESULT = Attribute("gen_ai.tool.call.result", json_twice)

DIALECT = Dialect(
    name="otel_genai",
    scopes=(
        "opentelemetry.instrumentation.genai.*",
        "opentelemetry.instrumentation.openai_v2",
        "opentelemetry.util.genai.handler",
        "gen_ai",
    ),
    keys=(
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.system",
        "gen_ai.request.model",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.name",
    ),
    span_types=(
        SpanTypeKey(
            "gen_ai.operation.name",
            {
                "chat": "CHAT_MODEL",
                "generate_content": "LLM",
                "text_completion": "LLM",
                "completion": "LLM",
                "generate": "LLM",
                "response": "LLM",
                "llm_call": "LLM",
                "embeddings": "EMBEDDING",
                "retrieval": "RETRIEVER",
                "vector_db_retrieve": "RETRIEVER",
                "rerank": "RERANKER",
                "execute_tool": "TOOL",
                "tool_call": "TOOL",
                "invoke_agent": "AGENT",
                "create_agent": "AGENT",
                "agent_call": "AGENT",
                "invoke_workflow": "WORKFLOW",
                "plan": "TASK",
                "execute_task": "TASK",
                "fetch_response": "TASK",
                "execute_event_loop_cycle": "CHAIN",
                "agent_step": "CHAIN",
                "schedule_tool_calls": "CHAIN",
                "search_memory": "MEMORY",
                "create_memory": "MEMORY",
                "update_memory": "MEMORY",
                "upsert_memory": "MEMORY",
                "delete_memory": "MEMORY",
                "create_memory_store": "MEMORY",
                "delete_memory_store": "MEMORY",
                "evaluation": "EVALUATOR",
                "evaluate": "EVALUATOR",
                "apply_guardrail": "GUARDRAIL",
                "run_guardrail": "GUARDRAIL",
            },
            by_name=True,
        ),
    ),
    fields={
        "inputs": (
            Attribute("gen_ai.input.messages", as_messages("user")),
            _ARGUMENTS,
            Attribute("gen_ai.retrieval.query.text"),
            DetailsEvent("gen_ai.input.messages", as_messages("user")),
            MessageEvents("in"),
            MessageLogs("in"),
            Flattened("gen_ai.prompt", indexed_messages("user")),
            Attribute("gen_ai.prompt", json_value),
        ),
        "outputs": (
            Attribute("gen_ai.output.messages", as_messages("assistant")),
            _RESULT,
            Attribute("gen_ai.retrieval.documents", json_value),
            DetailsEvent("gen_ai.output.messages", as_messages("assistant")),
            MessageEvents("out"),
            MessageLogs("out"),
            Flattened("gen_ai.completion", indexed_messages("assistant")),
            Attribute("gen_ai.completion", json_value),
        ),
        "system": (
            Attribute("gen_ai.system_instructions", instructions),
            DetailsEvent("gen_ai.system_instructions", instructions),
        ),
        "tool_name": attributes("gen_ai.tool.name"),
        # google-adk 1 makes this note of a call that failed.
        "tool_call_id": (Attribute("gen_ai.tool.call.id", skip=("<not specified>",)),),
        "tool_args": (_ARGUMENTS,),
        "tool_result": (_RESULT,),
        "tool_definitions": (
            Attribute("gen_ai.tool.definitions", json_value),
            DetailsEvent("gen_ai.tool.definitions", json_value),
        ),
        "documents": attributes("gen_ai.retrieval.documents", decode=document_list),
        "agent_name": attributes("gen_ai.agent.name", "gen_ai.workflow.name"),
        "model": attributes("gen_ai.response.model", "gen_ai.request.model"),
        "provider": attributes("gen_ai.provider.name", "gen_ai.system"),
        "input_tokens": attributes("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
        "output_tokens": attributes("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        "total_tokens": attributes("gen_ai.usage.total_tokens", "llm.usage.total_tokens"),
        "cache_read_tokens": attributes("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
        "cache_write_tokens": attributes(
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
            "gen_ai.usage.cache_write_input_tokens",
        ),
        "reasoning_tokens": attributes("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens"),
        "finish_reasons": attributes("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason"),
        "response_id": attributes("gen_ai.response.id"),
        "session_id": attributes("gen_ai.conversation.id"),
    },
    capture=_CAPTURE,
    captures={
        "opentelemetry.instrumentation.openai_v2*": (
            "set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true and send logs here too: "
            "the messages come as OTLP log records"
        ),
        "opentelemetry.instrumentation.genai.*": _CAPTURE,
        # The rest of that name space is shared: OpenLLMetry's libraries are called so too.
        "opentelemetry.instrumentation.*": (
            "set OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true, or TRACELOOP_TRACE_CONTENT=true if it is "
            "OpenLLMetry's"
        ),
        "gen_ai": "leave recordInputs and recordOutputs of the AI SDK's telemetry settings on",
    },
)
