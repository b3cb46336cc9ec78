"""
The version of a scorer that does not say one: a digest of where it is defined, its source, and its own fields.

It goes into the ids of verdicts, so it must be the same in every process that loaded the same file, whether by path, as
a module of a package or as the main script: of the module's name only the last part counts.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Final, cast

__all__ = ["digest"]

_DIGITS: Final = 12


def digest(code: Any, fields: Mapping[str, object]) -> str:
    """
    Return the first 12 hex digits of a SHA-256 over a scorer's definition.

    Args:
        code: The function or class.
        fields: The pydantic fields that the scorer's class adds.
    """
    bound: list[object] = []
    while isinstance(code, functools.partial):
        call = cast("functools.partial[object]", code)
        bound += [_stable(list(call.args)), _stable(call.keywords)]
        code = call.func
    code = inspect.unwrap(code)
    named: Any = code if hasattr(code, "__qualname__") else cast("type[Any]", type(code))
    parts = [_module(named), named.__qualname__, _source(named), _stable(fields), bound]
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _module(code: Any) -> str:
    name = getattr(code, "__module__", None) or ""
    if name == "__main__":
        file = getattr(sys.modules.get(name), "__file__", None)
        return PurePath(file).stem if file else name
    return name.rpartition(".")[2]


def _source(code: Any) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError, SyntaxError):
        return ""  # made in an interactive session, by exec, or in C


def _stable(value: object) -> object:
    """Return `value` as JSON data that does not depend on the process: an object counts by its type only."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _stable(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_stable(item), sort_keys=True) for item in cast("Iterable[object]", value))
    if isinstance(value, list | tuple):
        return [_stable(item) for item in cast("list[object]", value)]
    named: Any = value if hasattr(value, "__qualname__") else cast("type[Any]", type(value))
    return f"{_module(named)}.{named.__qualname__}"
