"""Strands Agents: content only in span events, one per message (default) or one per side (latest conventions)."""

from __future__ import annotations

from otel_scorer.dialects.chat import as_messages, blocks, to_messages
from otel_scorer.dialects.message_events import DetailsEvent, MessageEvents
from otel_scorer.dialects.table import Attribute, Dialect, EventAttribute
from otel_scorer.dialects.values import arguments, is_dict, is_list, is_text, json_value
from otel_scorer.model.trace import MISSING

__all__ = ["DIALECT"]

_IN, _OUT = "gen_ai.input.messages", "gen_ai.output.messages"


def _result(value: object) -> object:
    """Return a tool's result; its blocks as text, if they are text."""
    decoded = blocks(value)
    if is_list(decoded) and all(is_dict(item) and set(item) == {"text"} for item in decoded):
        return "\n".join(message.content for message in to_messages(decoded))
    return json_value(decoded)


def _called_with(value: object) -> object:
    calls = [call for message in to_messages(json_value(value)) for call in message.tool_calls]
    return calls[0]["arguments"] if calls else MISSING


def _returned(value: object) -> object:
    found = [message.content for message in to_messages(json_value(value)) if message.role == "tool"]
    return found[0] if found and is_text(found[0]) else MISSING


DIALECT = Dialect(
    name="strands",
    scopes=("strands.telemetry.tracer",),
    values={"gen_ai.system": "strands-agents", "gen_ai.provider.name": "strands-agents"},
    base="otel_genai",
    fields={
        "inputs": (DetailsEvent(_IN, as_messages("user")), MessageEvents("in")),
        "outputs": (DetailsEvent(_OUT, as_messages("assistant")), MessageEvents("out")),
        "tool_args": (
            Attribute("gen_ai.tool.call.arguments", arguments),
            EventAttribute("gen_ai.tool.message", "content", arguments),
            DetailsEvent(_IN, _called_with),
        ),
        "tool_result": (EventAttribute("gen_ai.choice", "message", _result), DetailsEvent(_OUT, _returned)),
    },
    capture="Strands records content in span events always",
)
