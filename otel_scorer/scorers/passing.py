"""
When a value passes: the `pass_if` of a scorer, and what holds without one.

Written as text (`">= 0.7"`, `"== False"`) a condition can stand in YAML; it is taken apart here and never evaluated as
code. A bool is never taken for a number.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from otel_scorer.errors import ConfigError

__all__ = ["Condition", "PassIf", "default_verdict", "parse_condition", "verdict"]

PassIf: TypeAlias = Callable[[Any], bool] | str

_OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_MEMBERSHIP: Final = {"in": True, "not in": False}
_CONDITION: Final = re.compile(r"\s*(==|!=|>=|<=|>|<|not\s+in\b|in\b)\s*(.+?)\s*", re.DOTALL)
_YAML_WORDS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition: an operator and what a value is compared with."""

    operator: str
    operand: Any

    def holds(self, value: object) -> bool | None:
        """Return whether it holds for `value`, or None where the two cannot be compared."""
        wanted = _MEMBERSHIP.get(self.operator)
        if wanted is not None:
            return any(_kind(item) == _kind(value) and item == value for item in self.operand) is wanted
        kind = _kind(value)
        if kind is None or kind != _kind(self.operand):
            return None
        if kind != "number" and self.operator not in {"==", "!="}:
            return None
        return _OPERATORS[self.operator](value, self.operand)


def parse_condition(text: str) -> Condition:
    """
    Take a condition apart.

    Args:
        text: `==`, `!=`, `>=`, `<=`, `>` or `<` and a number, True, False or a quoted string; or `in` / `not in` and a
            list of these.

    Raises:
        ConfigError: It is none of these.
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ConfigError(_explain(text))
    name, written = " ".join(found[1].split()), found[2]
    operand = _YAML_WORDS.get(written, None) if written in _YAML_WORDS else _literal(written, text)
    if name in _MEMBERSHIP:
        usable = isinstance(operand, list | tuple) and all(_kind(item) for item in cast("list[object]", operand))
    else:
        kind = _kind(operand)
        usable = kind == "number" or (kind is not None and name in {"==", "!="})
    if not usable:
        raise ConfigError(_explain(text))
    return Condition(name, operand)


def verdict(value: object, condition: Callable[[Any], bool] | Condition | None) -> bool | None:
    """
    Return whether a feedback's value passes; None where nothing says.

    Without a condition, or where it cannot be compared with the value, a bool is its own verdict and yes/no are read
    as True/False.

    Raises:
        Exception: Whatever a callable condition raises.
    """
    if value is None:
        return None
    if condition is None:
        return default_verdict(value)
    held = condition.holds(value) if isinstance(condition, Condition) else bool(condition(value))
    return default_verdict(value) if held is None else held


def default_verdict(value: object) -> bool | None:
    """Return a bool as it is, "yes"/"no" in any case as True/False, None for everything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return {"yes": True, "no": False}.get(value.strip().lower())
    return None


def _kind(value: object) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else None


def _literal(written: str, text: str) -> object:
    try:
        return ast.literal_eval(written)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ConfigError(_explain(text)) from None


def _explain(text: str) -> str:
    return (
        f"Cannot read pass_if {text!r}: write an operator (==, !=, >=, <=, >, <, in, not in) and a value, "
        'such as ">= 0.7", "== False", "== \'good\'" or "in [\'good\', \'fair\']"'
    )
