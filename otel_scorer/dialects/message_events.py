"""
Message content that comes as events: span events, OTLP log records, or a JSON array of events in an attribute.

The OTel conventions sent one event per message up to 1.36, and one event with all messages since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from otel_scorer.dialects.chat import as_plain, blocks, to_messages
from otel_scorer.dialects.values import is_dict, is_list, is_text, json_value
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_scorer.model.trace import LogRecord, Message, Span

__all__ = ["DetailsEvent", "MessageEvents", "MessageLogs", "event_array", "first_user_text"]

_DETAILS: Final = "gen_ai.client.inference.operation.details"
_CHOICE: Final = "gen_ai.choice"
_ROLES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    _CHOICE: "assistant",
}

_PACKED: Final = "gen_ai.event.content"
_ELIDED: Final = "<elided>"

Side = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class DetailsEvent:
    """An attribute of `gen_ai.client.inference.operation.details`; the span event counts before the log record."""

    attribute: str
    decode: Callable[[object], object]

    @property
    def key(self) -> str:
        """Event and attribute."""
        return f"event {_DETAILS}, {self.attribute}"

    def read(self, span: Span) -> object:
        """Return the decoded attribute, or MISSING."""
        for event in span.events:
            if event.name == _DETAILS and self.attribute in event.attributes:
                return self.decode(event.attributes[self.attribute])
        for record in span.logs:
            if record.event_name == _DETAILS:
                for holder in (record.attributes, record.body):
                    # Attributes since the conventions have this event; senders with the older events API use the body.
                    if isinstance(holder, Mapping) and self.attribute in holder:
                        return self.decode(holder[self.attribute])
        return MISSING


@dataclass(frozen=True, slots=True)
class MessageEvents:
    """Span events with one message each: what the model was given (`in`), or its choices (`out`)."""

    side: Side

    @property
    def key(self) -> str:
        """Names of the events."""
        return "events " + _names(self.side)

    def read(self, span: Span) -> object:
        """Return the messages, or MISSING."""
        return _read(((event.name, _payload(event.attributes)) for event in span.events), self.side)


@dataclass(frozen=True, slots=True)
class MessageLogs:
    """Log records with one message each."""

    side: Side

    @property
    def key(self) -> str:
        """Names of the log records."""
        return "log records " + _names(self.side)

    def read(self, span: Span) -> object:
        """Return the messages, or MISSING."""
        if not span.logs:
            return MISSING
        records = sorted(span.logs, key=lambda record: record.timestamp)
        return _read(((record.event_name, _body(record)) for record in records), self.side)


def event_array(side: Side) -> Callable[[object], object]:
    """Make a decoder of a JSON array of message events, as pydantic-ai 1 and Logfire write it."""

    def read(value: object) -> object:
        decoded = json_value(value)
        return _read(_named(decoded), side) if is_list(decoded) else MISSING

    return read


def first_user_text(value: object) -> object:
    """Decode the messages of a whole run to what the user asked first."""
    decoded = json_value(value)
    found = _messages(_named(decoded), "in") if is_list(decoded) else []
    plain = found or to_messages(decoded)
    first = next((message for message in plain if message.role == "user" and message.content), None)
    return first.content if first is not None else MISSING


def _names(side: Side) -> str:
    return _CHOICE if side == "out" else "gen_ai.*.message"


def _named(items: list[object]) -> list[tuple[str, Mapping[str, object]]]:
    return [(name, item) for item in items if is_dict(item) and is_text(name := item.get("event.name"))]


def _payload(attributes: Mapping[str, object]) -> Mapping[str, object]:
    """Return what a span event says; Azure's SDKs put all of it into one attribute, as JSON."""
    packed = json_value(attributes.get(_PACKED))
    return packed if is_dict(packed) else attributes


def _body(record: LogRecord) -> Mapping[str, object]:
    decoded = json_value(record.body)
    if decoded is None:
        return record.attributes
    return decoded if is_dict(decoded) else {"content": decoded}


def _said(payload: Mapping[str, object]) -> bool:
    """Tell whether there is more than Google's note that content was left out."""
    return payload.get("content", payload.get("message")) != _ELIDED


def _read(events: Iterable[tuple[str, Mapping[str, object]]], side: Side) -> object:
    return as_plain(_messages(events, side)) or MISSING


def _messages(events: Iterable[tuple[str, Mapping[str, object]]], side: Side) -> list[Message]:
    found: list[Message] = []
    for name, payload in events:
        role = _ROLES.get(name)
        if role is not None and (name == _CHOICE) == (side == "out") and _said(payload):
            found += to_messages(_message(role, payload), role)
    return found


def _message(role: str, payload: Mapping[str, object]) -> object:
    """Return one event as a message; a choice has its message inside."""
    if "message" in payload:
        inner = json_value(payload["message"])
        if is_dict(inner):
            return {"role": role, "tool_calls": json_value(payload.get("tool_calls")), **inner}
        return {"role": role, "content": blocks(payload["message"])}
    shaped: dict[str, object] = {"role": payload.get("role") or role, "content": blocks(payload.get("content"))}
    shaped["tool_calls"] = json_value(payload.get("tool_calls"))
    for key in ("id", "name", "tool_call_id"):
        if key in payload:
            shaped[key] = payload[key]
    return shaped
