"""
Decoders of attribute values. Total: whatever they are given, they return something, and it is the raw value if need be.

Spans come from strangers: broken JSON, wrong types, deep nesting and Python reprs are part of the job.
"""

from __future__ import annotations

import ast
import json
import math
from typing import TYPE_CHECKING, Final, TypeGuard, cast

from pydantic_core import from_json

from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = [
    "arguments",
    "call_arguments",
    "identifier",
    "is_dict",
    "is_list",
    "is_text",
    "json_twice",
    "json_value",
    "literal",
    "number",
    "plain",
    "same",
    "strict_json",
    "string_list",
    "text_of",
    "usage",
]

MAX_LITERAL: Final = 65_536
"""Characters of a Python repr that is worth parsing: the parser's memory is a large multiple of it."""

_MAX_DIGITS: Final = 18


def is_dict(value: object) -> TypeGuard[dict[str, object]]:
    """Tell an object of decoded JSON, whose keys are always strings."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Tell an array of decoded JSON."""
    return isinstance(value, list)


def is_text(value: object) -> TypeGuard[str]:
    """Tell a string that is not empty."""
    return isinstance(value, str) and bool(value)


def same(value: object) -> object:
    """Return the value as it is."""
    return value


def strict_json(value: object) -> object:
    """Parse text as JSON, numbers too; for senders that always encode. What is no JSON stays what it was."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value)
    except (ValueError, TypeError):
        # Stricter than the standard library, which takes lone surrogates (in text: a TypeError) and deeper nesting.
        try:
            return json.loads(value)
        except (ValueError, RecursionError, MemoryError):
            return value


def json_value(value: object) -> object:
    """
    Parse text as JSON unless it may be meant as it is: a bare number stays text.

    Half of all senders write strings as they are and everything else as JSON, so `42` may be either; somebody who
    compares a tool's result with "42" is right more often than somebody who computes with it.
    """
    if isinstance(value, str):
        start = value.lstrip()[:1]
        if start in {"{", "[", '"'} or value in {"true", "false", "null"}:
            return strict_json(value)
    return value


def json_twice(value: object) -> object:
    """Parse like `json_value`; a string in it that is itself an object or array in JSON is parsed again."""
    once = json_value(value)
    if isinstance(once, str) and once.lstrip()[:1] in {"{", "["}:
        return strict_json(once)
    return once


def literal(value: object) -> object:
    """Read text that is the Python repr of a dict, list or tuple; anything else, also a very long repr, stays text."""
    if not isinstance(value, str) or len(value) > MAX_LITERAL or value.lstrip()[:1] not in {"{", "[", "("}:
        return value
    try:
        return plain(ast.literal_eval(value.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return value


def plain(value: object) -> object:
    """
    Return a Python literal as JSON has it: tuples and sets are lists, keys are strings.

    Raises:
        TypeError: JSON has nothing like it.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in cast("Collection[object]", value)]
    if is_dict(value):
        return {str(key): plain(item) for key, item in value.items()}
    msg = f"JSON has no {type(value).__name__}"
    raise TypeError(msg)


def arguments(value: object) -> object:
    """Decode a call's arguments: JSON, JSON in JSON, or a Python repr; a bare value, such as a city, stays text."""
    return literal(json_twice(value))


def call_arguments(value: object) -> object:
    """
    Decode recorded Python call arguments, `{"args": [...], "kwargs": {...}}`.

    Keyword arguments if there are no others, the argument if there is but one, else both. Other forms: see `arguments`.
    """
    decoded = arguments(value)
    if not is_dict(decoded) or not decoded or not _CALL_KEYS.issuperset(decoded):
        return decoded
    positional, keywords = decoded.get("args") or _NO_ARGS, decoded.get("kwargs") or _NO_KWARGS
    if not is_list(positional) or not is_dict(keywords):
        return decoded
    if not positional:
        return keywords
    return positional[0] if len(positional) == 1 and not keywords else {"args": positional, "kwargs": keywords}


# Beside args and kwargs, smolagents records a flag of its own.
_CALL_KEYS: Final = frozenset({"args", "kwargs", "sanitize_inputs_outputs"})
_NO_ARGS: Final[list[object]] = []
_NO_KWARGS: Final[dict[str, object]] = {}


def number(value: object) -> object:
    """Return a whole number, also one that came as text or JSON in JSON, or MISSING."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS + 2:
        value = strict_json(strict_json(value))
    if isinstance(value, bool):
        return MISSING
    if isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return int(value)
    return MISSING


def identifier(value: object) -> object:
    """Return an id or a name as text, or MISSING."""
    if is_text(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return MISSING


def string_list(value: object) -> object:
    """Return strings from a list, a JSON array or a comma separated text, or MISSING."""
    if isinstance(value, str):
        value = json_value(value)
    if isinstance(value, str):
        return [part for part in (piece.strip() for piece in value.split(",")) if part] or MISSING
    if is_list(value):
        return [text_of(item) for item in value] or MISSING
    return MISSING


def usage(*keys: str) -> Callable[[object], object]:
    """Make a decoder that returns the first of `keys` in a JSON object, or MISSING."""

    def read(value: object) -> object:
        decoded = strict_json(value)
        if not is_dict(decoded):
            return MISSING
        return next((decoded[key] for key in keys if decoded.get(key) is not None), MISSING)

    return read


def text_of(value: object) -> str:
    """Return a value as text: a string as it is, None as nothing, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except (ValueError, TypeError, RecursionError):
        return str(type(value).__name__)
