"""
MLflow's search grammar for traces: `status = 'OK' AND tag.team = 'search' AND span.type = 'TOOL'`.

Clauses are joined by AND; there is no OR, no NOT and no parentheses. What a clause means is up to who reads it: the
store turns it into a search, a registered scorer into a CEL filter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, TypeAlias

from otel_scorer.errors import ConfigError

__all__ = ["Clause", "Subject", "Value", "like_pattern", "parse_filter"]

Value: TypeAlias = str | float | tuple[str, ...] | None


class Subject(StrEnum):
    """What a clause is about."""

    ATTRIBUTE = "attribute"
    TAG = "tag"
    METADATA = "metadata"
    SPAN = "span"
    FEEDBACK = "feedback"
    EXPECTATION = "expectation"
    ISSUE = "issue"


@dataclass(frozen=True, slots=True)
class Clause:
    """
    One comparison.

    Attributes:
        subject: What it is about.
        key: Without quotes, and the one name where MLflow knows several: `timestamp_ms`, `execution_time_ms`.
        comparator: In upper case: `=`, `!=`, `<`, `<=`, `>`, `>=`, `LIKE`, `ILIKE`, `RLIKE`, `IN`, `NOT IN`, `IS NULL`,
            `IS NOT NULL`.
        value: What is compared with; a tuple for IN, None for IS NULL.
        text: As it was written.
    """

    subject: Subject
    key: str
    comparator: str
    value: Value
    text: str


_SUBJECTS: Final = {
    "attribute": Subject.ATTRIBUTE,
    "attributes": Subject.ATTRIBUTE,
    "trace": Subject.ATTRIBUTE,
    "tag": Subject.TAG,
    "tags": Subject.TAG,
    "metadata": Subject.METADATA,
    "request_metadata": Subject.METADATA,
    "span": Subject.SPAN,
    "feedback": Subject.FEEDBACK,
    "expectation": Subject.EXPECTATION,
    "issue": Subject.ISSUE,
}
_ALIASES: Final = {
    "timestamp": "timestamp_ms",
    "execution_time": "execution_time_ms",
    "end_time": "end_time_ms",
    "trace_id": "request_id",
}
_NUMBERS: Final = frozenset({"timestamp_ms", "execution_time_ms", "end_time_ms"})
_TEXTS: Final = frozenset({"request_id", "client_request_id", "name", "status", "run_id", "prompt", "text"})

_EQUAL: Final = frozenset({"=", "!="})
_ORDER: Final = frozenset({"<", "<=", ">", ">="})
_PATTERN: Final = frozenset({"LIKE", "ILIKE", "RLIKE"})
_LIST: Final = frozenset({"IN", "NOT IN"})
_NULL: Final = frozenset({"IS NULL", "IS NOT NULL"})
_COMPARATORS: Final = {
    Subject.TAG: _EQUAL | _PATTERN | _NULL,
    Subject.METADATA: _EQUAL | _PATTERN | _NULL,
    Subject.SPAN: _EQUAL | _PATTERN | _LIST,
    Subject.FEEDBACK: _EQUAL | _ORDER | _PATTERN | _NULL,
    Subject.EXPECTATION: _EQUAL | _ORDER | _PATTERN | _NULL,
    Subject.ISSUE: frozenset({"="}),
}
_SPAN_KEYS: Final = frozenset({"name", "type", "status", "content"})

_QUOTED: Final = r"""'(?:[^']|'')*'|"(?:[^"]|"")*\""""
_KEY: Final = r"(?:`[^`]+`|\"[^\"]+\"|[\w$/:@-]+)(?:\.(?:`[^`]+`|\"[^\"]+\"|[\w$/:@-]+))*"
_COMPARATOR: Final = r"!=|<>|<=|>=|=(?!=)|<|>|NOT\s+IN\b|IN\b|I?LIKE\b|RLIKE\b|IS\s+NOT\s+NULL\b|IS\s+NULL\b"
_NUMBER: Final = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_CLAUSE: Final = re.compile(
    rf"\s*(?P<key>{_KEY})\s*(?P<comparator>{_COMPARATOR})\s*"
    rf"(?P<value>{_QUOTED}|{_NUMBER}|\(\s*(?:{_QUOTED})(?:\s*,\s*(?:{_QUOTED}))*\s*,?\s*\)|)\s*",
    re.IGNORECASE | re.DOTALL,
)
_AND: Final = re.compile(r"AND\b", re.IGNORECASE)
_REFUSED: Final = re.compile(r"(OR|NOT)\b|\(|==|&&|\|\|", re.IGNORECASE)


def parse_filter(text: str) -> list[Clause]:
    """
    Return the clauses of a filter string; all of them must hold. An empty string has none.

    Raises:
        ConfigError: It is not of this grammar; the message says where and why.
    """
    clauses: list[Clause] = []
    at = 0
    while text[at:].strip():
        if clauses:
            joint = _AND.match(text, at)
            if joint is None:
                _refuse(text, at)
            at = joint.end()
        found = _CLAUSE.match(text, at)
        if found is None:
            _refuse(text, at)
        clauses.append(_clause(found, text))
        at = found.end()
    return clauses


def like_pattern(clause: Clause) -> str:
    r"""Return the regular expression for the value of a LIKE, ILIKE or RLIKE; of a syntax that Python and RE2 share."""
    value = str(clause.value)
    if clause.comparator == "RLIKE":
        return value
    parts = {"%": ".*", "_": "."}
    body = "".join(parts.get(sign) or re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", sign) for sign in value)
    return f"(?{'i' if clause.comparator == 'ILIKE' else ''}s)^(?:{body})$"


def _refuse(text: str, at: int) -> NoReturn:
    rest = text[at:].strip()
    found = _REFUSED.match(rest)
    why = "clauses are `key comparator value`, joined by AND"
    if found is not None:
        why = f"{found[0]!r} is not part of it: {why}; there is no OR, no NOT and no parentheses"
    elif not rest:
        why = "there is nothing after the last AND"
    raise ConfigError(f"Cannot read the filter string {text!r} at {rest[:40]!r}: {why}")


def _clause(found: re.Match[str], text: str) -> Clause:
    written = found[0].strip()
    comparator = " ".join(found["comparator"].upper().split()).replace("<>", "!=")
    subject, key = _identifier(found["key"], text)
    try:
        _check(subject, key, comparator)
        return Clause(subject, key, comparator, _value(subject, key, comparator, found["value"]), written)
    except ValueError as error:
        raise ConfigError(f"Filter string {text!r}: in {written!r}, {error}") from None


def _identifier(written: str, text: str) -> tuple[Subject, str]:
    first, _, rest = written.partition(".")
    subject = _SUBJECTS.get(_bare(first).lower())
    if not rest or (subject is None and written[0] in '`"'):
        return Subject.ATTRIBUTE, _attribute(_bare(written), text)
    if subject is None:
        known = ", ".join(f"{name}." for name in ("tag", "metadata", "trace", "span", "feedback", "expectation"))
        raise ConfigError(f"Filter string {text!r}: {first!r} is unknown; keys begin with {known}, or are of the trace")
    if subject is Subject.ATTRIBUTE:
        return subject, _attribute(_bare(rest), text)
    if subject is Subject.SPAN:
        head, dot, name = rest.partition(".")
        return subject, f"attributes.{_bare(name)}" if dot and head.lower() == "attributes" else _bare(rest)
    return subject, _bare(rest)


def _attribute(name: str, text: str) -> str:
    key = _ALIASES.get(name.lower(), name.lower())
    if key not in _NUMBERS | _TEXTS:
        known = ", ".join(sorted(_NUMBERS | _TEXTS))
        raise ConfigError(f"Filter string {text!r}: a trace has no {name!r}; there are {known}, and tag.<key>")
    return key


def _bare(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] in '`"' and name[-1] == name[0] else name


def _check(subject: Subject, key: str, comparator: str) -> None:
    if subject is Subject.SPAN and key not in _SPAN_KEYS and not key.startswith("attributes."):
        raise ValueError("there are span.name, span.type, span.status, span.content and span.attributes.<key>")
    if subject is Subject.ISSUE and key != "id":
        raise ValueError("there is issue.id only")
    if subject is Subject.ATTRIBUTE:
        allowed = _EQUAL | _ORDER if key in _NUMBERS else _EQUAL | _PATTERN | _LIST
    elif subject is Subject.SPAN and key == "content":
        allowed = frozenset({"LIKE", "ILIKE"})
    elif subject is Subject.SPAN and key.startswith("attributes."):
        allowed = _COMPARATORS[subject] | _NULL  # MLflow has no such question about attributes, and people ask it
    else:
        allowed = _COMPARATORS[subject]
    if comparator not in allowed:
        raise ValueError(f"it can be compared by {', '.join(sorted(allowed))}")


def _value(subject: Subject, key: str, comparator: str, written: str) -> Value:
    if comparator in _NULL:
        if written:
            raise ValueError(f"{comparator} takes no value")
        return None
    if comparator in _LIST:
        if not written.startswith("("):
            raise ValueError(f"{comparator} takes a list such as ('a', 'b')")
        return tuple(_unquoted(item) for item in re.findall(_QUOTED, written))
    is_assessment = subject in {Subject.FEEDBACK, Subject.EXPECTATION}
    wants_number = (subject is Subject.ATTRIBUTE and key in _NUMBERS) or (is_assessment and comparator in _ORDER)
    if wants_number and re.fullmatch(_NUMBER, written):
        return float(written) if re.search(r"[.eE]", written) else int(written)
    if not wants_number and written[:1] in {"'", '"'}:
        return _unquoted(written)
    raise ValueError(f"it is compared with a {'number' if wants_number else 'quoted text'}")


def _unquoted(value: str) -> str:
    quote = value[0]
    return value[1:-1].replace(quote * 2, quote)
