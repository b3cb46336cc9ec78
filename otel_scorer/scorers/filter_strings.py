"""
A registered scorer's `filter_string`: MLflow's search grammar as the CEL filter that is asked of live traces.

| MLflow | CEL |
|---|---|
| `status`, `name`, `request_id` | `trace.state`, `root.name`, `trace.trace_id` |
| `timestamp_ms`, `execution_time_ms`, `end_time_ms` | `trace.request_time`, `.execution_duration`, `.end_time` |
| `tag.<key>` | `trace.tag_values`: resource attributes, and tags that the instrumentation recorded |
| `metadata.mlflow.trace.session`, `metadata.mlflow.trace.user` | `trace.session_id`, `trace.user_id` |
| `span.name`, `.type`, `.status`, `.attributes.<key>` | one span of the trace that fulfils all of these clauses |

What is said of a trace only after it was scored (`feedback`, `expectation`, `issue`, `run_id`, `prompt`), and full-text
search, is refused. As in MLflow, a clause about something that a trace does not have is false.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError
from otel_scorer.stores.search_filter import Subject, like_pattern, parse_filter

if TYPE_CHECKING:
    from otel_scorer.stores.search_filter import Clause

__all__ = ["cel_filter"]

_ATTRIBUTES: Final = {
    "status": "trace.state",
    "name": "root.name",
    "request_id": "trace.trace_id",
    "timestamp_ms": "trace.request_time",
    "execution_time_ms": "trace.execution_duration",
    "end_time_ms": "trace.end_time",
}
_METADATA: Final = {
    "mlflow.trace.session": "trace.session_id",
    "mlflow.trace.user": "trace.user_id",
}
# Of one clause about spans, the list that holds the values: no span needs to be converted for it.
_LISTS: Final = {"name": "trace.span_names", "type": "trace.span_types"}
_SPAN: Final = {"name": "one.name", "type": "one.span_type", "status": "one.status"}
_REFUSED: Final = {
    "text": "live traces are not searched by their full text",
    "run_id": "a live trace belongs to no run",
    "prompt": "a live trace has no record of prompts",
    "client_request_id": "OpenTelemetry has no such id",
}
_MLFLOW_PREFIX: Final = "tr-"


def cel_filter(filter_string: str) -> str:
    """
    Return the CEL expression that says the same of a live trace.

    Raises:
        ConfigError: It is not of MLflow's grammar, or asks what nobody can know of a live trace.
    """
    clauses = parse_filter(filter_string)
    if not clauses:
        raise ConfigError("A filter string is empty; leave it out to see every trace")
    parts = [_about_trace(clause, filter_string) for clause in clauses if clause.subject is not Subject.SPAN]
    about_spans = [clause for clause in clauses if clause.subject is Subject.SPAN]
    if about_spans:
        parts.append(_about_spans(about_spans, filter_string))
    return " && ".join(parts)


def _about_trace(clause: Clause, filter_string: str) -> str:
    match clause.subject:
        case Subject.ATTRIBUTE if clause.key in _ATTRIBUTES:
            return _compared(_ATTRIBUTES[clause.key], clause)
        case Subject.TAG:
            return _compared(
                f"trace.tag_values[{_quoted(clause.key)}]", clause, key_in=("trace.tag_values", clause.key)
            )
        case Subject.METADATA if clause.key in _METADATA:
            return _compared(_METADATA[clause.key], clause)
        case Subject.METADATA:
            raise _refusal(clause, filter_string, f"of a live trace there are {' and '.join(_METADATA)}")
        case Subject.ATTRIBUTE:
            raise _refusal(clause, filter_string, _REFUSED[clause.key])
        case _:
            raise _refusal(clause, filter_string, "assessments are made after a live trace was chosen")


def _about_spans(clauses: list[Clause], filter_string: str) -> str:
    """As in MLflow, there must be one span of which all the clauses hold."""
    for clause in clauses:
        if clause.key == "content":
            raise _refusal(clause, filter_string, _REFUSED["text"])
    if len(clauses) == 1 and (found := _LISTS.get(clauses[0].key)):
        return f"{found}.exists(value, {_compared('value', clauses[0])})"
    conditions: list[str] = []
    for clause in clauses:
        if clause.key in _SPAN:
            conditions.append(_compared(_SPAN[clause.key], clause))
        else:
            key = clause.key.removeprefix("attributes.")
            if clause.value is not None:
                conditions.append(f"{_quoted(key)} in one.attributes")
            conditions.append(_compared(f"one.attributes[{_quoted(key)}]", clause, key_in=("one.attributes", key)))
    return f"trace.spans.exists(one, {' && '.join(conditions)})"


def _compared(field: str, clause: Clause, *, key_in: tuple[str, str] | None = None) -> str:
    comparator, value = clause.comparator, clause.value
    if comparator in {"IS NULL", "IS NOT NULL"}:
        there = f"has({field})" if key_in is None else f"{_quoted(key_in[1])} in {key_in[0]}"
        return there if comparator == "IS NOT NULL" else f"!({there})"
    if comparator.endswith("LIKE"):
        return f"{field}.matches({_quoted(_checked_pattern(clause))})"
    if isinstance(value, tuple):
        listed = f"{field} in [{', '.join(_quoted(_as_known(clause, item)) for item in value)}]"
        return listed if comparator == "IN" else f"!({listed})"
    if isinstance(value, str):
        value = _quoted(_as_known(clause, value))
    return f"{field} {'==' if comparator == '=' else comparator} {value}"


def _as_known(clause: Clause, value: str) -> str:
    """MLflow's trace ids are OpenTelemetry's with something in front."""
    return value.removeprefix(_MLFLOW_PREFIX).lower() if clause.key == "request_id" else value


def _checked_pattern(clause: Clause) -> str:
    """Return a pattern that is known to compile, as far as the extra is there to say so."""
    pattern = like_pattern(clause)
    try:
        import cel
    except ImportError:  # `compile_filter` says so wherever the filter is used
        return pattern
    try:
        cel.evaluate(f'"".matches({_quoted(pattern)})')
    except Exception as error:  # noqa: BLE001 - the engine is not ours, and so are its exceptions
        reason = " ".join(str(error).split())
        raise ConfigError(f"Cannot read the pattern in {clause.text!r}: {reason}") from None
    return pattern


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _refusal(clause: Clause, filter_string: str, why: str) -> ConfigError:
    return ConfigError(
        f"Filter string {filter_string!r}: {clause.text!r} cannot be asked of a live trace: {why}. "
        f"Besides this grammar, a scorer may have a CEL `filter` in its code"
    )
