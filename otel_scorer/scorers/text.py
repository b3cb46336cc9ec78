"""
The text of a value: what a scorer that is written for `outputs: str` gets when the trace holds a message list.

A string is its own text. In a conversation it is the last message of the assistant (outputs) or the user (inputs),
whichever client wrote it down; anything else is compact JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from otel_scorer.model.plain import plain

__all__ = ["compact_json", "conversation_text", "text_of"]

_ASSISTANT: Final = frozenset({"assistant", "ai", "aimessage", "aimessagechunk", "model"})
_USER: Final = frozenset({"user", "human", "humanmessage"})
_ROLES: Final[dict[str, frozenset[str]]] = {"inputs": _USER, "outputs": _ASSISTANT}

# Where the messages of a conversation lie in what clients record: chat requests, answers of OpenAI (both APIs) and
# Gemini, results of LangChain.
_MESSAGE_LISTS: Final = (
    "messages",
    "input_messages",
    "output_messages",
    "new_messages",
    "all_messages",
    "choices",
    "candidates",
    "generations",
    "contents",
    "input",
    "output",
)
# What wraps one message: a choice, an OpenInference message, a serialised LangChain object, a Gemini candidate.
_WRAPPERS: Final = ("message", "kwargs", "content", "data")
_ROLE_KEYS: Final = ("role", "message.role", "type")
_CONTENT_KEYS: Final = ("content", "parts", "text", "message.content", "contents", "message.contents")
_TEXT_TYPES: Final = frozenset({"text", "output_text", "input_text", "refusal"})
# Deeper nesting is no conversation; the limit keeps hostile spans from exhausting the stack.
_DEPTH_LIMIT: Final = 8


def text_of(value: object, side: str) -> str:
    """
    Return `value` as text.

    Args:
        value: A decoded value.
        side: `inputs` or `outputs`: whose message counts in a conversation, the user's or the assistant's.
    """
    if isinstance(value, str):
        return value
    said = conversation_text(value, side)
    return compact_json(value) if said is None else said


def conversation_text(value: object, side: str) -> str | None:
    """Return the text of the last message that counts in a conversation (see `text_of`); None if it is none."""
    roles = _ROLES.get(side)
    if roles is None or not isinstance(value, Mapping | list | tuple):
        return None
    last = None
    for role, text in _messages(cast("object", value), 0):
        if role in roles and text:
            last = text
    return last


def compact_json(value: object) -> str:
    """Return `value` as JSON without spaces; what JSON does not know is written as `plain` says."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain)
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _messages(value: object, depth: int) -> Iterator[tuple[str, str]]:
    """Yield role and text of every message in `value`, in order."""
    if depth > _DEPTH_LIMIT:
        return
    if isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from _messages(item, depth + 1)
    elif isinstance(value, Mapping):
        message = cast("Mapping[str, Any]", value)
        role = _role(message)
        if role is not None:
            yield role, _content(message, depth)
            return
        for key in (*_MESSAGE_LISTS, *_WRAPPERS):
            inner = message.get(key)
            if inner and isinstance(inner, Mapping | list | tuple):
                yield from _messages(cast("object", inner), depth + 1)
                return


def _role(message: Mapping[str, Any]) -> str | None:
    """Return who speaks, if `message` is one."""
    for key in _ROLE_KEYS:
        role = message.get(key)
        if isinstance(role, str) and (key != "type" or role.lower() in _ASSISTANT | _USER):
            return role.lower()
    return None


def _content(message: Mapping[str, Any], depth: int) -> str:
    for key in _CONTENT_KEYS:
        content = message.get(key)
        if content:
            return _content_text(content, depth + 1)
    # LangChain names the role outside and keeps the rest inside.
    inner = message.get("data") or message.get("kwargs")
    return _content(cast("Mapping[str, Any]", inner), depth + 1) if isinstance(inner, Mapping) else ""


def _content_text(content: object, depth: int) -> str:
    """Return the text of a message's content; images, tool calls and reasoning are not text."""
    if isinstance(content, str):
        return content
    if depth > _DEPTH_LIMIT:
        return ""
    if isinstance(content, list | tuple):
        texts = (_content_text(part, depth + 1) for part in cast("Sequence[object]", content))
        return "\n".join(text for text in texts if text)
    if isinstance(content, Mapping):
        return _part_text(cast("Mapping[str, Any]", content), depth)
    return ""


def _part_text(part: Mapping[str, Any], depth: int) -> str:
    inner = part.get("message_content")
    if isinstance(inner, Mapping):
        return _part_text(cast("Mapping[str, Any]", inner), depth)
    kind = part.get("type", part.get("message_content.type", "text"))
    if kind not in _TEXT_TYPES:
        return ""
    for key in ("text", "content", "refusal", "parts", "message_content.text"):
        if part.get(key):
            return _content_text(part[key], depth + 1)
    return ""
