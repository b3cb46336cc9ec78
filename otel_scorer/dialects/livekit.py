"""LiveKit Agents."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect, NameRule, attributes
from otel_scorer.dialects.values import arguments, json_value

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="livekit",
    scopes=("livekit-agents",),
    keys=(
        "lk.agent_label",
        "lk.agent_name",
        "lk.chat_ctx",
        "lk.function_tool.name",
        "lk.function_tool.output",
        "lk.input_text",
        "lk.job_id",
        "lk.response.function_calls",
        "lk.response.text",
        "lk.room_name",
        "lk.speech_id",
        "lk.user_input",
        "lk.user_transcript",
    ),
    name_rules=(
        NameRule.of("^function_tool$", "TOOL"),
        NameRule.of("^(agent_turn|start_agent_activity)$", "AGENT"),
    ),
    # Later versions call what may be personal `lk.pii.*`.
    fields={
        "inputs": (
            *attributes("lk.user_input", "lk.pii.user_input", "lk.user_transcript", "lk.pii.user_transcript"),
            *attributes("lk.chat_ctx", "lk.pii.chat_ctx", decode=json_value),
            *attributes("lk.input_text", "lk.pii.input_text"),
        ),
        "outputs": (
            *attributes("lk.response.text", "lk.pii.response.text"),
            *attributes("lk.function_tool.output", "lk.pii.function_tool.output", decode=json_value),
            *attributes("lk.response.function_calls", "lk.pii.response.function_calls", decode=json_value),
        ),
        "tool_name": attributes("lk.function_tool.name"),
        "tool_call_id": attributes("lk.function_tool.id"),
        "tool_args": attributes("lk.function_tool.arguments", "lk.pii.function_tool.arguments", decode=arguments),
        "tool_result": attributes("lk.function_tool.output", "lk.pii.function_tool.output", decode=json_value),
    },
)
