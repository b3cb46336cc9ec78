"""Pydantic AI 1 (events as JSON in attributes) and 2 (OTel conventions and the run's messages)."""

from __future__ import annotations

from otel_scorer.dialects.chat import as_messages
from otel_scorer.dialects.message_events import event_array, first_user_text
from otel_scorer.dialects.table import Attribute, Dialect, NameRule, attributes
from otel_scorer.dialects.values import arguments, json_twice, json_value

__all__ = ["DIALECT"]

_ARGUMENTS = (Attribute("gen_ai.tool.call.arguments", arguments), Attribute("tool_arguments", arguments))
_RESULT = (Attribute("gen_ai.tool.call.result", json_twice), Attribute("tool_response", json_value))


def _details(*names: str) -> tuple[Attribute, ...]:
    return attributes(*(f"gen_ai.usage.details.{name}" for name in names))


DIALECT = Dialect(
    name="pydantic_ai",
    scopes=("pydantic-ai",),
    base="otel_genai",
    name_rules=(
        NameRule.of("^agent run$", "AGENT"),
        NameRule.of("^running tool$", "TOOL"),
        NameRule.of("^running tools$", "CHAIN"),
    ),
    fields={
        "inputs": (
            Attribute("gen_ai.input.messages", as_messages("user")),
            *_ARGUMENTS,
            Attribute("events", event_array("in")),
            Attribute("pydantic_ai.all_messages", first_user_text),
            Attribute("all_messages_events", first_user_text),
        ),
        "outputs": (
            Attribute("gen_ai.output.messages", as_messages("assistant")),
            *_RESULT,
            Attribute("final_result", json_value),
            Attribute("events", event_array("out")),
        ),
        "tool_args": _ARGUMENTS,
        "tool_result": _RESULT,
        "agent_name": attributes("gen_ai.agent.name", "agent_name"),
        "cost": attributes("operation.cost"),
        "input_tokens": attributes("gen_ai.usage.input_tokens"),
        "output_tokens": attributes("gen_ai.usage.output_tokens"),
        # Whatever the provider's answer says beside that, under the provider's names.
        "cache_read_tokens": _details(
            "cache_read_tokens", "cached_tokens", "cache_read_input_tokens", "cached_content_tokens"
        ),
        "cache_write_tokens": _details("cache_write_tokens", "cache_creation_input_tokens"),
        "reasoning_tokens": _details("reasoning_tokens", "thoughts_tokens"),
    },
    capture="leave include_content of InstrumentationSettings on",
)
