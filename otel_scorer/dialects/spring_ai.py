"""Spring AI: the OTel conventions, with content in two span events."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect, EventAttribute, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, json_twice

__all__ = ["DIALECT"]

_PROMPT, _COMPLETION = "gen_ai.content.prompt", "gen_ai.content.completion"

DIALECT = Dialect(
    name="spring_ai",
    keys=("spring.ai.kind",),
    events=(_PROMPT, _COMPLETION),
    base="otel_genai",
    span_types=(
        # The operation of all these is `framework`.
        SpanTypeKey(
            "spring.ai.kind",
            {"chat_client": "CHAIN", "advisor": "TASK", "tool_call": "TOOL"},
        ),
    ),
    fields={
        "inputs": (EventAttribute(_PROMPT, "gen_ai.prompt"),),
        "outputs": (EventAttribute(_COMPLETION, "gen_ai.completion"),),
        "tool_name": attributes("spring.ai.tool.definition.name"),
        "tool_args": attributes("spring.ai.tool.call.arguments", decode=arguments),
        "tool_result": attributes("spring.ai.tool.call.result", decode=json_twice),
        "session_id": attributes("spring.ai.chat.client.conversation.id"),
    },
    capture="set spring.ai.chat.observations.log-prompt and log-completion to true",
)
