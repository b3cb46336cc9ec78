"""What MLflow's search grammar means for stored traces: SQL where the table knows, a look at the spans where not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from otel_scorer.errors import ConfigError
from otel_scorer.model.search_grammar import Clause, Comparator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.model.trace import Span, Trace

__all__ = ["Condition", "condition"]

OnSpans: TypeAlias = Callable[["Trace"], bool]

_TEXTS: Final = {
    "name": "t.name",
    "status": "t.state",
    "state": "t.state",
    "trace_id": "t.trace_id",
    "request_id": "t.trace_id",
    "service_name": "t.service_name",
    "session_id": "t.session_id",
    "user_id": "t.user_id",
    "close_reason": "t.close_reason",
}
_NUMBERS: Final = {
    "timestamp": "t.start_ms",
    "timestamp_ms": "t.start_ms",
    "request_time": "t.start_ms",
    "end_time": "t.end_ms",
    "end_time_ms": "t.end_ms",
    "execution_time": "(t.end_ms - t.start_ms)",
    "execution_time_ms": "(t.end_ms - t.start_ms)",
    "execution_duration": "(t.end_ms - t.start_ms)",
}
_METADATA: Final = {"mlflow.trace.session": "t.session_id", "mlflow.trace.user": "t.user_id"}
_UPPER: Final = frozenset({"status", "state"})
_SPAN_FIELDS: Final[Mapping[str, Callable[[Span], object]]] = {
    "name": lambda span: span.name,
    "type": lambda span: span.span_type,
    "status": lambda span: str(span.status.status_code),
}
_ORDERED: Final = frozenset({
    Comparator.LESS,
    Comparator.LESS_OR_EQUAL,
    Comparator.GREATER,
    Comparator.GREATER_OR_EQUAL,
})  # fmt: skip
_TRACE_PREFIX: Final = "tr-"


@dataclass(slots=True)
class Condition:
    """
    What a stored trace must fulfil.

    Attributes:
        sql: About a row `t` of the table `traces`.
        parameters: Its parameters.
        on_spans: What must hold beside it, once the trace is read.
    """

    sql: str = "TRUE"
    parameters: list[object] = field(default_factory=list[object])
    on_spans: list[OnSpans] = field(default_factory=list[OnSpans])


def condition(clauses: Iterable[Clause]) -> Condition:
    """
    Return what clauses of the search grammar mean.

    Known are `name`, `status`, `timestamp_ms`, `execution_time_ms`, `end_time_ms`, `request_id`, `run_id`, `tags.*`,
    `metadata.` (session and user), `feedback.*`, `expectation.*`, and of spans `name`, `type`, `status` and
    `attributes.*`; ours are `trace_id`, `service_name`, `session_id`, `user_id` and `close_reason`.

    Raises:
        ConfigError: A clause asks for what is not stored, or compares it in a way that cannot be meant.
    """
    found = Condition()
    parts: list[str] = []
    for clause in clauses:
        if clause.prefix == "span":
            found.on_spans.append(_about_spans(clause))
            continue
        sql, parameters = _sql(clause)
        parts.append(sql)
        found.parameters += parameters
    if parts:
        found.sql = " AND ".join(parts)
    return found


def _sql(clause: Clause) -> tuple[str, list[object]]:
    if clause.prefix == "tag":
        return _exists("json_each(t.tags) AS x", "x.key = ?", ["x.value"], clause)
    if clause.prefix in {"feedback", "expectation"}:
        table = "feedback" if clause.prefix == "feedback" else "expectations"
        column = "x.text" if isinstance(_sample(clause), str) else "x.number"
        return _exists(f"{table} AS x", "x.trace_id = t.trace_id AND x.name = ?", [column], clause)
    if clause.prefix == "metadata" and clause.key in _METADATA:
        return _compared(_METADATA[clause.key], clause)
    if clause.prefix:
        raise _unknown(clause)
    if clause.key == "run_id":
        where = "EXISTS (SELECT 1 FROM entries AS x WHERE x.trace_id = t.trace_id AND {})"
        sql, parameters = _compared("x.run_id", clause)
        return where.format(sql), parameters
    if clause.key in _TEXTS:
        return _compared(_TEXTS[clause.key], clause)
    if clause.key in _NUMBERS:
        if isinstance(_sample(clause), str) or clause.comparator in {Comparator.LIKE, Comparator.ILIKE}:
            raise ConfigError(f"{clause.text}: {clause.key} is a number of milliseconds")
        return _compared(_NUMBERS[clause.key], clause)
    raise _unknown(clause)


def _exists(source: str, which: str, columns: list[str], clause: Clause) -> tuple[str, list[object]]:
    """Ask for a row of another table; IS NULL asks that there is none."""
    if clause.comparator in {Comparator.IS_NULL, Comparator.IS_NOT_NULL}:
        sql = f"EXISTS (SELECT 1 FROM {source} WHERE {which})"
        return (f"NOT {sql}" if clause.comparator is Comparator.IS_NULL else sql), [clause.key]
    sql, parameters = _compared(columns[0], clause)
    return f"EXISTS (SELECT 1 FROM {source} WHERE {which} AND {sql})", [clause.key, *parameters]


def _compared(column: str, clause: Clause) -> tuple[str, list[object]]:
    comparator, value = clause.comparator, clause.value
    if comparator in {Comparator.IS_NULL, Comparator.IS_NOT_NULL}:
        return f"{column} {comparator}", []
    if isinstance(value, tuple):
        marks = ", ".join("?" * len(value))
        return f"{column} {comparator} ({marks})", [_literal(clause, item) for item in value]
    if comparator in {Comparator.LIKE, Comparator.ILIKE, Comparator.RLIKE}:
        if not isinstance(value, str):
            raise ConfigError(f"{clause.text}: {comparator} needs a text")
        # SQLite's own LIKE takes small letters for capitals.
        return f"{column} REGEXP ?", [_pattern(clause)]
    return f"{column} {comparator} ?", [_literal(clause, value)]


def _literal(clause: Clause, value: object) -> object:
    if clause.prefix or not isinstance(value, str):
        return value
    if clause.key in _UPPER:
        return value.upper()
    return value.removeprefix(_TRACE_PREFIX) if clause.key in {"request_id", "trace_id"} else value


def _sample(clause: Clause) -> object:
    return clause.value[0] if isinstance(clause.value, tuple) else clause.value


def _pattern(clause: Clause) -> str:
    text = cast("str", clause.value)
    if clause.comparator is Comparator.RLIKE:
        try:
            re.compile(text)
        except re.error as error:
            raise ConfigError(f"{clause.text}: not a regular expression: {error}") from error
        return text
    mapped = {"%": ".*", "_": "."}
    inside = "".join(mapped.get(character) or re.escape(character) for character in text)
    return f"(?s{'i' if clause.comparator is Comparator.ILIKE else ''})\\A{inside}\\Z"


def _about_spans(clause: Clause) -> OnSpans:
    """Return what tells whether any span of a trace fits."""
    field_name, _, attribute = clause.key.partition(".")
    read = _SPAN_FIELDS.get(clause.key)
    if read is None:
        if field_name != "attributes" or not attribute:
            raise _unknown(clause)
        read = partial(_attribute, attribute)
    fits = _test(clause)
    return lambda trace: any(fits(read(span)) for span in trace.spans)


def _attribute(key: str, span: Span) -> object:
    return span.attributes.get(key)


def _test(clause: Clause) -> Callable[[Any], bool]:
    comparator, value = clause.comparator, clause.value
    if comparator in _ORDERED and isinstance(value, str):
        raise ConfigError(f"{clause.text}: {comparator} compares numbers")
    if comparator in {Comparator.LIKE, Comparator.ILIKE, Comparator.RLIKE}:
        if not isinstance(value, str):
            raise ConfigError(f"{clause.text}: {comparator} needs a text")
        pattern = re.compile(_pattern(clause))
        return lambda found: isinstance(found, str) and pattern.search(found) is not None
    tests: dict[Comparator, Callable[[Any], bool]] = {
        Comparator.EQUAL: lambda found: found == value,
        Comparator.NOT_EQUAL: lambda found: found is not None and found != value,
        Comparator.IN: lambda found: found in cast("tuple[object, ...]", value),
        Comparator.NOT_IN: lambda found: found is not None and found not in cast("tuple[object, ...]", value),
        Comparator.IS_NULL: lambda found: found is None,
        Comparator.IS_NOT_NULL: lambda found: found is not None,
        Comparator.LESS: lambda found: _is_number(found) and found < value,
        Comparator.LESS_OR_EQUAL: lambda found: _is_number(found) and found <= value,
        Comparator.GREATER: lambda found: _is_number(found) and found > value,
        Comparator.GREATER_OR_EQUAL: lambda found: _is_number(found) and found >= value,
    }
    return tests[comparator]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unknown(clause: Clause) -> ConfigError:
    return ConfigError(
        f"{clause.text}: nothing of that kind is stored. There are name, status, timestamp_ms, execution_time_ms, "
        "end_time_ms, request_id, run_id, service_name, session_id, user_id, tags.<key>, feedback.<name>, "
        "expectation.<name>, span.name, span.type, span.status and span.attributes.<key>"
    )
