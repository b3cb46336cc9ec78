"""
MLflow's search grammar, taken apart: `status = 'OK' AND tags.team = 'x' AND feedback.quality >= 0.7`.

Only read here; what a clause means for stored traces (`stores/`) or for a live filter is up to who asks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from otel_scorer.errors import ConfigError

__all__ = ["Clause", "Comparator", "SearchValue", "parse_search"]

SearchValue: TypeAlias = str | int | float | bool | tuple[str | int | float | bool, ...] | None


class Comparator(StrEnum):
    """What may stand between a field and a value."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    LIKE = "LIKE"
    ILIKE = "ILIKE"
    RLIKE = "RLIKE"
    IN = "IN"
    NOT_IN = "NOT IN"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Clause:
    """
    One condition; all of a filter's must hold.

    Attributes:
        prefix: `tags`, `metadata`, `span`, `feedback`, `expectation`, as written in lower case, singular and plural
            alike; empty for a field of the trace itself.
        key: What follows the prefix; without one the name of the field.
        comparator: How it is compared.
        value: With what; a tuple for IN, None for IS NULL.
        text: The clause as it was written, for messages.
    """

    prefix: str
    key: str
    comparator: Comparator
    value: SearchValue
    text: str


_SPACE: Final = re.compile(r"\s*")
_FIELD: Final = re.compile(r"([A-Za-z_]\w*)(?:\.(?:`([^`]+)`|\"([^\"]+)\"|([\w./:@-]+(?:\.`[^`]+`)?)))?")
_COMPARATOR: Final = re.compile(
    r"(!=|<=|>=|=|<|>|(?:I|R)?LIKE\b|NOT\s+IN\b|IN\b|IS\s+NOT\s+NULL\b|IS\s+NULL\b)", re.IGNORECASE
)
_STRING: Final = r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\""
_NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_VALUE: Final = re.compile(rf"({_STRING})|({_NUMBER})(?![\w.])|(true|false)\b", re.IGNORECASE)
_AND: Final = re.compile(r"AND\b", re.IGNORECASE)
_REFUSED: Final = re.compile(r"(OR\b|NOT\b|\()", re.IGNORECASE)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ALIASES: Final = {
    "tags": "tag",
    "request_metadata": "metadata",
    "attribute": "",
    "attributes": "",
    "trace": "",
    "feedbacks": "feedback",
    "expectations": "expectation",
    "spans": "span",
}


def parse_search(text: str) -> list[Clause]:
    """
    Return the clauses of a filter; none for an empty one.

    Raises:
        ConfigError: It cannot be read; says where. The grammar has AND only: OR, NOT and parentheses are refused.
    """
    clauses: list[Clause] = []
    at = _skip(text, 0)
    while at < len(text):
        clause, at = _clause(text, at)
        clauses.append(clause)
        at = _skip(text, at)
        if at == len(text):
            break
        word = _AND.match(text, at)
        if word is None:
            raise _unreadable(text, at, "AND or the end")
        at = _skip(text, word.end())
        if at == len(text):
            raise _unreadable(text, at, "a condition")
    return clauses


def _clause(text: str, begin: int) -> tuple[Clause, int]:
    field = _FIELD.match(text, begin)
    if field is None or _REFUSED.match(text, begin):
        raise _unreadable(text, begin, "a field such as status, tags.team or feedback.quality")
    found = _COMPARATOR.match(text, at := _skip(text, field.end()))
    if found is None:
        raise _unreadable(text, at, "a comparator (=, !=, <, <=, >, >=, LIKE, ILIKE, RLIKE, IN, NOT IN, IS [NOT] NULL)")
    comparator = Comparator(" ".join(found[0].upper().split()))
    value, end = _operand(text, _skip(text, found.end()), comparator)
    word = field[1].lower()
    key = field[2] or field[3] or field[4]
    if key is None:
        prefix, key = "", word
    else:
        prefix = _ALIASES.get(word, word)
        # `span.attributes.`a key``: the quotes are not part of the key.
        key = key.replace("`", "") if prefix else key.lower()
    return Clause(prefix, key, comparator, value, text[begin:end].strip()), end


def _operand(text: str, at: int, comparator: Comparator) -> tuple[SearchValue, int]:
    if comparator in {Comparator.IS_NULL, Comparator.IS_NOT_NULL}:
        return None, at
    if comparator not in {Comparator.IN, Comparator.NOT_IN}:
        return _value(text, at)
    if text[at : at + 1] != "(":
        raise _unreadable(text, at, "a list in parentheses")
    values: list[str | int | float | bool] = []
    mark = ""
    while mark != ")":
        value, at = _value(text, _skip(text, at + 1))
        values.append(value)
        at = _skip(text, at)
        mark = text[at : at + 1]
        if mark not in {",", ")"} or not mark:
            raise _unreadable(text, at, "a comma or a closing parenthesis")
    return tuple(values), at + 1


def _value(text: str, at: int) -> tuple[str | int | float | bool, int]:
    found = _VALUE.match(text, at)
    if found is None:
        raise _unreadable(text, at, "a quoted text, a number, true or false")
    string, number, truth = found.groups()
    if string is not None:
        inside = string[1:-1].replace("''", "'") if string[0] == "'" else string[1:-1]
        return _ESCAPED.sub(r"\1", inside), found.end()
    if number is not None:
        return (int(number) if re.fullmatch(r"[-+]?\d+", number) else float(number)), found.end()
    return truth.lower() == "true", found.end()


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _unreadable(text: str, at: int, expected: str) -> ConfigError:
    rest = text[at:].strip()
    found = f"{rest[:40]!r}" if rest else "the end"
    hint = "; conditions are joined by AND only, without OR, NOT and parentheses" if _REFUSED.match(rest) else ""
    return ConfigError(
        f"Cannot read the filter {text!r}: expected {expected} at character {at + 1}, found {found}{hint}"
    )
