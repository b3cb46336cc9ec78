"""
Chat messages of any shape in one plain form.

Shapes: the OTel convention (parts), OpenAI chat and responses, Anthropic, Gemini, Bedrock, LangChain (three ways of
serialising), the Vercel AI SDK, and whatever is close enough to one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_scorer.dialects.values import arguments, is_dict, is_list, is_text, json_value, text_of
from otel_scorer.model.trace import MISSING, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["as_messages", "as_plain", "blocks", "instructions", "is_chat", "last_text", "to_messages"]

_MAX_DEPTH: Final = 12

_ROLES: Final = {
    "human": "user",
    "HumanMessage": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "model": "assistant",
    "SystemMessage": "system",
    "developer": "system",
    "ToolMessage": "tool",
    "function": "tool",
    "FunctionMessage": "tool",
}
_PLAIN_ROLES: Final = frozenset({"system", "tool"})
# Where a request, a response or a state keeps its messages; the first that is there counts.
_LISTS: Final = (
    "messages", "choices", "generations", "contents", "candidates", "input", "output", "inputs", "outputs", "prompt",
    "message", "content", "update",
)  # fmt: skip
_CALL_TYPES: Final = frozenset({"tool_call", "tool_use", "tool-call", "function_call", "function"})
_RESULT_TYPES: Final = frozenset({"tool_call_response", "tool_result", "tool-result", "function_call_output"})
_REASONING: Final = frozenset({"reasoning", "thinking", "redacted_thinking"})
# Gemini, Bedrock and Genkit name the kind of a part by the key that holds it.
_WRAPPED_CALLS: Final = ("toolUse", "functionCall", "function_call", "toolRequest")
_WRAPPED_RESULTS: Final = ("toolResult", "functionResponse", "function_response", "toolResponse")
# `id` last: the OpenAI responses API has both, and `id` is the item's there.
_CALL_IDS: Final = ("tool_call_id", "call_id", "toolCallId", "toolUseId", "tool_use_id", "ref", "id")
_RESULTS: Final = ("response", "result", "output", "content")


def to_messages(value: object, role: str = "user") -> list[Message]:
    """
    Return the chat messages in a decoded value, whatever shape it has; none if it is no chat.

    Args:
        value: A message, a list of them, a request, a response, or plain text.
        role: Role of what does not say: `user` for inputs, `assistant` for outputs.
    """
    return list(_messages(value, role, 0))


def as_messages(role: str) -> Callable[[object], object]:
    """Make a decoder of chat messages as plain data; what is no chat stays what it was, decoded."""

    def read(value: object) -> object:
        decoded = json_value(value)
        return as_plain(to_messages(decoded, role)) if is_chat(decoded) else decoded

    return read


def instructions(value: object) -> object:
    """Decode a system prompt, plain text or parts, to its text."""
    found = to_messages(blocks(value), "system")
    return "\n".join(message.content for message in found) if found else MISSING


def blocks(content: object) -> object:
    """Return a message's content as its parts, if it is JSON of parts; any other text is what was said."""
    if is_text(content) and content.lstrip()[:1] == "[":
        decoded = json_value(content)
        if is_list(decoded) and decoded and all(is_dict(item) for item in decoded):
            return decoded
    return content


def is_chat(value: object) -> bool:
    """Tell whether a value is a list of objects of which each has a role, or the parts of a message."""
    return (
        is_list(value) and bool(value) and all(is_dict(item) and ("role" in item or "parts" in item) for item in value)
    )


def as_plain(messages: Iterable[Message]) -> list[dict[str, object]]:
    """Return messages as scorers get them in `inputs` and `outputs`: `role`, `content`, and what else a message has."""
    return [_plain(message) for message in messages]


def last_text(messages: Iterable[Message], role: str) -> str:
    """Return the text of the last message of a role; empty if there is none."""
    text = ""
    for message in messages:
        if message.role == role and message.content:
            text = message.content
    return text


def _plain(message: Message) -> dict[str, object]:
    plain: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [dict(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        plain["name"] = message.name
    return plain


def _messages(value: object, role: str, depth: int) -> Iterator[Message]:
    if depth > _MAX_DEPTH:
        return
    if is_text(value):
        yield Message(role, value)
    elif is_list(value):
        for item in value:
            yield from _messages(item, role, depth + 1)
    elif is_dict(value):
        item = _unwrapped(value)
        if _is_message(item):
            yield from _split_results(item, role)
        else:
            yield from _system(item)
            key = next((key for key in _LISTS if isinstance(item.get(key), list | dict | str)), None)
            if key is not None:
                yield from _messages(item[key], role, depth + 1)
            elif is_text(item.get("text")):
                yield Message(role, str(item["text"]))


def _unwrapped(value: dict[str, object]) -> dict[str, object]:
    """Return a LangChain message, or a choice of a response, as the object that has the content."""
    for _ in range(_MAX_DEPTH):
        message = value.get("message")
        if not is_dict(message):
            break
        value = message
    for key in ("kwargs", "data"):
        inner = value.get(key)
        if is_dict(inner) and "content" in inner:
            kind = value.get("id") if key == "kwargs" else value.get("type")
            name = str(kind[-1] if is_list(kind) and kind else kind)
            return {"role": _ROLES.get(name, name), **inner}
    return value


def _is_message(value: Mapping[str, object]) -> bool:
    kind = _kind(value)
    if "parts" in value or kind in _CALL_TYPES or kind in _RESULT_TYPES:
        return True
    if "role" in value:
        return "content" in value or "tool_calls" in value or "text" in value or len(value) == 1
    # A LangChain message of a state: its type is its role.
    return "content" in value and (kind in _ROLES or kind in _PLAIN_ROLES or kind == "message")


def _kind(value: Mapping[str, object]) -> str:
    """Return what an object says it is; nothing if that is no text."""
    kind = value.get("type")
    return kind if isinstance(kind, str) else ""


def _system(value: Mapping[str, object]) -> Iterator[Message]:
    """Yield the system prompt that a request carries beside its messages (Anthropic, Gemini, OpenAI responses)."""
    config = value.get("config")
    for holder in (value, config if is_dict(config) else {}):
        for key in ("system", "system_instruction", "systemInstruction"):
            if key in holder:
                text = _read_parts(holder[key]).text
                if text:
                    yield Message("system", text)
                    return


class _Parts:
    """What the parts of one message hold."""

    __slots__ = ("calls", "results", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[dict[str, object]] = []
        self.results: list[tuple[str | None, str, str | None]] = []

    @property
    def text(self) -> str:
        """All text, one part per line."""
        return "\n".join(self.texts)

    def add(self, part: object) -> None:
        """Take in one part."""
        if is_text(part):
            self.texts.append(part)
        elif is_dict(part):
            self._add_object(part)

    def _add_object(self, part: dict[str, object]) -> None:
        kind = _kind(part)
        result = next((part[key] for key in _WRAPPED_RESULTS if is_dict(part.get(key))), None)
        call = next((part[key] for key in _WRAPPED_CALLS if is_dict(part.get(key))), None)
        if result is not None or kind in _RESULT_TYPES:
            self._add_result(part if result is None else result)
        elif call is not None or kind in _CALL_TYPES:
            self._add_call(part if call is None else call)
        elif kind not in _REASONING and part.get("thought") is not True:
            text = part.get("text", part.get("content"))
            if is_dict(text):
                text = text.get("value")
            if is_text(text):
                self.texts.append(text)

    def _add_call(self, call: object) -> None:
        if is_dict(call):
            self.calls.append(_tool_call(call))

    def _add_result(self, result: object) -> None:
        if is_dict(result):
            name = result.get("name", result.get("toolName"))
            content = next((result[key] for key in _RESULTS if result.get(key) is not None), None)
            self.results.append((_first_id(result, _CALL_IDS), _result_text(content), name if is_text(name) else None))


def _read_parts(value: object) -> _Parts:
    parts = _Parts()
    if is_dict(value) and is_list(value.get("parts")):
        value = value["parts"]
    for part in value if is_list(value) else [value]:
        parts.add(part)
    return parts


def _split_results(value: dict[str, object], default_role: str) -> Iterator[Message]:
    """Yield a message, and one more for every tool result that came inside it (Anthropic, Bedrock, the convention)."""
    kind = _kind(value)
    lone = kind in _CALL_TYPES or kind in _RESULT_TYPES
    content = value.get("parts", value.get("content", value.get("text")))
    if is_dict(content) and is_dict(content.get("function")):
        # Langfuse lists the tools that a model may call among its input messages.
        return
    parts = _read_parts([value] if lone else content)
    tool_calls = value.get("tool_calls")
    if not lone and is_list(tool_calls):
        known = {call["id"] for call in parts.calls}
        calls = [_tool_call(call) for call in tool_calls if is_dict(call)]
        parts.calls += [call for call in calls if call["id"] is None or call["id"] not in known]
    role = _role(value, default_role)
    name = value.get("name")
    call_id = None if lone else _first_id(value, ("tool_call_id", "toolCallId"))
    if role == "tool" and call_id is None and not lone:
        # The convention up to 1.36 calls it `id`.
        call_id = _first_id(value, ("id",))
    if not lone and is_dict(content) and "type" not in content and not (parts.texts or parts.calls or parts.results):
        parts.texts.append(text_of(content))
    if parts.texts or parts.calls or not parts.results:
        who = "assistant" if lone else role
        label = name if is_text(name) and not lone else None
        yield Message(who, parts.text, tuple(parts.calls), call_id, label)
    for result_id, text, tool in parts.results:
        yield Message("tool", text, (), result_id or call_id, tool)


def _role(value: Mapping[str, object], default: str) -> str:
    role = value.get("role")
    if not is_text(role):
        kind = _kind(value)
        role = kind if kind in _ROLES or kind in _PLAIN_ROLES else default
    return _ROLES.get(role, role)


def _tool_call(call: Mapping[str, object]) -> dict[str, object]:
    function = call.get("function")
    inner = function if is_dict(function) else call
    name = next((inner[key] for key in ("name", "toolName") if is_text(inner.get(key))), "")
    given = next((inner[key] for key in ("arguments", "args", "input") if inner.get(key) is not None), None)
    return {"id": _first_id(call, _CALL_IDS), "name": name, "arguments": arguments(given)}


def _first_id(value: Mapping[str, object], keys: Iterable[str]) -> str | None:
    for key in keys:
        found = value.get(key)
        if is_text(found):
            return found
    return None


def _result_text(value: object) -> str:
    """Return a tool's result as text: the text of its parts, if it is made of parts."""
    value = json_value(value)
    if is_dict(value) and set(value) == {"type", "value"}:
        value = value["value"]
    if is_list(value) and value and all(is_dict(item) and is_text(item.get("text")) for item in value):
        return _read_parts(value).text
    return text_of(value)
