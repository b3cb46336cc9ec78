"""Trees that were flattened into attributes (`llm.input_messages.0.message.role`), put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_scorer.dialects.chat import as_plain, blocks, to_messages
from otel_scorer.dialects.values import is_dict, is_list, is_text, json_value
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["indexed_messages", "numbered", "oi_documents", "oi_messages"]

_MAX_DEPTH: Final = 12
_MAX_DIGITS: Final = 9


def tree(pairs: Mapping[str, object]) -> object:
    """
    Return the tree that the dotted keys describe; where all keys of a level are numbers, it is a list in their order.

    Keys that contradict others (`a` and `a.b`) and absurdly deep ones are left out.
    """
    root: dict[str, object] = {}
    for key in sorted(pairs):
        parts = key.split(".", _MAX_DEPTH)
        node: dict[str, object] = root
        for part in parts[:-1]:
            child = node.setdefault(part, {})
            if not is_dict(child):
                break
            node = child
        else:
            node.setdefault(parts[-1], pairs[key])
    return _with_lists(root)


def _with_lists(node: dict[str, object]) -> object:
    done = {key: _with_lists(value) if is_dict(value) else value for key, value in node.items()}
    if done and all(key.isdecimal() and len(key) <= _MAX_DIGITS for key in done):
        return [done[key] for key in sorted(done, key=int)]
    return done


def oi_messages(role: str) -> Callable[[Mapping[str, object]], object]:
    """Make a decoder of OpenInference's `PREFIX.<i>.message.*`."""

    def read(pairs: Mapping[str, object]) -> object:
        items = tree(pairs)
        found = [_oi_message(item["message"]) for item in _objects(items) if is_dict(item.get("message"))]
        return as_plain(to_messages(found, role)) or MISSING

    return read


def _oi_message(message: object) -> object:
    if not is_dict(message):
        return message
    shaped = dict(message)
    contents = [item["message_content"] for item in _objects(message.get("contents")) if "message_content" in item]
    if contents and not is_text(message.get("content")):
        shaped["content"] = contents
    shaped["tool_calls"] = [item["tool_call"] for item in _objects(message.get("tool_calls")) if "tool_call" in item]
    # A message of which only the role was recorded says nothing.
    return shaped if shaped.get("content") or shaped["tool_calls"] else None


def oi_documents(pairs: Mapping[str, object]) -> object:
    """Decode OpenInference's `retrieval.documents.<i>.document.*`."""
    found = [item["document"] for item in numbered(pairs) if is_dict(item.get("document"))]
    return [
        {key: json_value(value) if key == "metadata" else value for key, value in document.items()}
        for document in found
        if is_dict(document)
    ] or MISSING


def indexed_messages(role: str) -> Callable[[Mapping[str, object]], object]:
    """Make a decoder of `gen_ai.prompt.<i>.*` and `gen_ai.completion.<i>.*`, as OpenLLMetry wrote them until 0.4x."""

    def read(pairs: Mapping[str, object]) -> object:
        found = [{"role": role, **item, "content": blocks(item.get("content"))} for item in numbered(pairs)]
        return as_plain(to_messages(found, role)) or MISSING

    return read


def numbered(pairs: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the objects that the keys number (`0.name`, `1.name`), in order."""
    return _objects(tree(pairs))


def _objects(value: object) -> list[dict[str, object]]:
    if is_dict(value):
        # A single number missing from 0..n still makes a list; anything else beside numbers makes an object.
        value = [item for key, item in value.items() if key.isdecimal()]
    return [item for item in value if is_dict(item)] if is_list(value) else []
