"""Logfire's own instrumentations of model clients."""

from __future__ import annotations

from otel_scorer.dialects.chat import as_messages
from otel_scorer.dialects.message_events import event_array
from otel_scorer.dialects.table import Attribute, Dialect, attributes
from otel_scorer.dialects.values import is_dict, json_value
from otel_scorer.model.trace import MISSING

__all__ = ["DIALECT"]


def _streamed(value: object) -> object:
    """Return the text of a streamed answer."""
    decoded = json_value(value)
    return decoded.get("combined_chunk_content", MISSING) if is_dict(decoded) else MISSING


DIALECT = Dialect(
    name="logfire",
    scopes=("logfire", "logfire.*"),
    keys=("logfire.msg_template", "logfire.span_type"),
    base="otel_genai",
    # Sent when a span starts, as a child of it.
    placeholders={"logfire.span_type": "pending_span"},
    # What `logfire.info(...)` sends. The end of a streamed call is sent so too, and says that it is a model call.
    records={"logfire.span_type": "log"},
    fields={
        "inputs": (
            Attribute("gen_ai.input.messages", as_messages("user")),
            Attribute("request_data", json_value),
            Attribute("events", event_array("in")),
        ),
        "outputs": (
            Attribute("gen_ai.output.messages", as_messages("assistant")),
            Attribute("response_data", json_value),
            Attribute("events", event_array("out")),
        ),
        "chat_outputs": (Attribute("response_data", _streamed),),
        "cost": attributes("operation.cost"),
        "tags": attributes("logfire.tags"),
    },
    capture=(
        "content is recorded unless scrubbing removes it; what a streamed call answered, and its tokens, are on a span "
        "of their own, 'streaming response from ...', which may be a trace of its own"
    ),
)
