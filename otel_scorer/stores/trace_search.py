"""What MLflow's search grammar means for stored traces: SQL where the table knows, a look at the spans where not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_scorer.errors import ConfigError
from otel_scorer.stores.search_filter import Clause, Subject, like_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_scorer.model.trace import Span, Trace

__all__ = ["Condition", "condition"]

OnSpans: TypeAlias = Callable[["Trace"], bool]

_COLUMNS: Final = {
    "name": "t.name",
    "status": "t.state",
    "request_id": "t.trace_id",
    "timestamp_ms": "t.start_ms",
    "end_time_ms": "t.end_ms",
    "execution_time_ms": "(t.end_ms - t.start_ms)",
}
_METADATA: Final = {"mlflow.trace.session": "t.session_id", "mlflow.trace.user": "t.user_id"}
_SPAN_FIELDS: Final[Mapping[str, Callable[[Span], str]]] = {
    "name": lambda span: span.name,
    "type": lambda span: span.span_type,
    "status": lambda span: str(span.status.status_code),
}
_ATTRIBUTES: Final = "attributes."
_PATTERNS: Final = frozenset({"LIKE", "ILIKE", "RLIKE"})
_NULLS: Final = frozenset({"IS NULL", "IS NOT NULL"})
_ORDER: Final = frozenset({"<", "<=", ">", ">="})
_TRACE_PREFIX: Final = "tr-"  # in front of MLflow's trace ids


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
    Return what a filter string means.

    Known are `name`, `status`, `timestamp_ms`, `execution_time_ms`, `end_time_ms`, `request_id`, `run_id`, `tag.*`,
    `metadata.` with MLflow's keys of session and user, `feedback.*`, `expectation.*`, and of spans `name`, `type`,
    `status` and `attributes.*`.

    Raises:
        ConfigError: A clause asks for what is not stored, or has a pattern that cannot be read.
    """
    found = Condition()
    parts: list[str] = []
    about_spans: list[Callable[[Span], bool]] = []
    for clause in clauses:
        if clause.subject is Subject.SPAN:
            about_spans.append(_about_span(clause))
            continue
        sql, parameters = _sql(clause)
        parts.append(sql)
        found.parameters += parameters
    if parts:
        found.sql = " AND ".join(parts)
    if about_spans:
        # As in MLflow: one span of which all of them hold.
        found.on_spans.append(lambda trace: any(all(holds(span) for holds in about_spans) for span in trace.spans))
    return found


def _sql(clause: Clause) -> tuple[str, list[object]]:
    column = _COLUMNS.get(clause.key)
    if clause.subject is Subject.ATTRIBUTE and column is not None:
        return _compared(column, clause)
    if clause.subject is Subject.ATTRIBUTE and clause.key == "run_id":
        sql, parameters = _compared("x.run_id", clause)
        return (
            f"EXISTS (SELECT 1 FROM entries AS x WHERE (x.trace_id, x.unit) = (t.trace_id, t.unit) AND {sql})",
            parameters,
        )
    if clause.subject is Subject.METADATA and clause.key in _METADATA:
        return _compared(_METADATA[clause.key], clause)
    if clause.subject is Subject.TAG:
        return _exists("json_each(t.tags) AS x", "x.key = ?", "x.value", clause)
    if clause.subject in {Subject.FEEDBACK, Subject.EXPECTATION}:
        table = "feedback" if clause.subject is Subject.FEEDBACK else "expectations"
        value = "x.number" if clause.comparator in _ORDER else "x.text"
        of_unit = "AND x.unit = t.unit " if clause.subject is Subject.FEEDBACK else ""
        return _exists(f"{table} AS x", f"x.trace_id = t.trace_id {of_unit}AND x.name = ?", value, clause)
    raise _unknown(clause)


def _exists(source: str, which: str, column: str, clause: Clause) -> tuple[str, list[object]]:
    """Ask for a row of another table; IS NULL asks that there is none."""
    if clause.comparator in _NULLS:
        sql = f"EXISTS (SELECT 1 FROM {source} WHERE {which})"
        return (f"NOT {sql}" if clause.comparator == "IS NULL" else sql), [clause.key]
    sql, parameters = _compared(column, clause)
    return f"EXISTS (SELECT 1 FROM {source} WHERE {which} AND {sql})", [clause.key, *parameters]


def _compared(column: str, clause: Clause) -> tuple[str, list[object]]:
    value = clause.value
    if clause.comparator in _NULLS:
        return f"{column} {clause.comparator}", []
    if clause.comparator in _PATTERNS:
        # SQLite's own LIKE takes small letters for capitals.
        return f"{column} REGEXP ?", [_pattern(clause).pattern]
    if isinstance(value, tuple):
        return f"{column} {clause.comparator} ({', '.join('?' * len(value))})", [
            _literal(clause, item) for item in value
        ]
    return f"{column} {clause.comparator} ?", [_literal(clause, value)]


def _literal(clause: Clause, value: object) -> object:
    if clause.subject is Subject.ATTRIBUTE and isinstance(value, str):
        if clause.key == "status":
            return value.upper()
        if clause.key == "request_id":
            return value.removeprefix(_TRACE_PREFIX)
    return value


def _pattern(clause: Clause) -> re.Pattern[str]:
    try:
        return re.compile(like_pattern(clause))
    except re.error as error:
        raise ConfigError(f"{clause.text}: not a regular expression: {error}") from error


def _about_span(clause: Clause) -> Callable[[Span], bool]:
    """Return what tells whether a span fits."""
    read: Callable[[Span], str | None] | None = _SPAN_FIELDS.get(clause.key)
    if read is None:
        if not clause.key.startswith(_ATTRIBUTES):
            raise _unknown(clause)
        read = partial(_attribute, clause.key.removeprefix(_ATTRIBUTES))
    if clause.comparator in _NULLS:
        return lambda span: (read(span) is None) == (clause.comparator == "IS NULL")
    fits = _test(clause)
    return lambda span: (value := read(span)) is not None and fits(value)


def _attribute(key: str, span: Span) -> str | None:
    """Return an attribute as the text that a filter compares it with."""
    value: Any = span.attributes.get(key)
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _test(clause: Clause) -> Callable[[str], bool]:
    value = clause.value
    if clause.comparator in _PATTERNS:
        pattern = _pattern(clause)
        return lambda found: pattern.search(found) is not None
    wanted = value if isinstance(value, tuple) else (value,)
    if clause.comparator in {"!=", "NOT IN"}:
        return lambda found: found not in wanted
    return lambda found: found in wanted


def _unknown(clause: Clause) -> ConfigError:
    return ConfigError(
        f"{clause.text}: nothing of that kind is stored. There are name, status, timestamp_ms, execution_time_ms, "
        "end_time_ms, request_id, run_id, tag.<key>, metadata.`mlflow.trace.session`, metadata.`mlflow.trace.user`, "
        "feedback.<name>, expectation.<name>, span.name, span.type, span.status and span.attributes.<key>"
    )
