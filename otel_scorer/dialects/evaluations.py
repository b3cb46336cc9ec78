"""
Verdicts that somebody left in a trace: as span events, log records, spans of their own, or attributes.

The same verdict often comes several ways (OpenLIT sends event and log record), so one counts per span and name.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_scorer.dialects.flattened import numbered
from otel_scorer.dialects.values import is_dict, is_list, is_text, json_value
from otel_scorer.model.trace import EvaluationResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_scorer.model.trace import Span, Trace

__all__ = ["find_evaluations", "locate_evaluations", "on_span"]

_EVENTS: Final = frozenset({"gen_ai.evaluation.result", "gen_ai.evaluation"})
_RESULTS_EVENT: Final = "gen_ai.evaluation.results"
_NAME: Final = "gen_ai.evaluation.name"
_VALUE: Final = "gen_ai.evaluation.score.value"
_LABEL: Final = "gen_ai.evaluation.score.label"
_EXPLANATION: Final = "gen_ai.evaluation.explanation"
_COMMENT: Final = "gen_ai.evaluation.comment"
_ERROR: Final = "error.type"
# A verdict of senders that give neither score nor label.
_PASSED: Final = ("gen_ai.evaluation.passed", "gen_ai.evaluation.test_pass")
# OpenInference: PREFIX.<i>.ITEM.*, about the span, its trace or its session.
_INLINE: Final = tuple(
    (f"{scope}{name}s.", name) for scope in ("", "trace.", "session.") for name in ("annotation", "evaluation")
)
_INLINE_STARTS: Final = tuple(prefix for prefix, _ in _INLINE)


class _Target(NamedTuple):
    """The span that a verdict is about, and its trace, if that is another one."""

    span_id: str | None
    trace_id: str | None = None


def find_evaluations(trace: Trace) -> list[EvaluationResult]:
    """Return the verdicts in a trace, in the order of their spans."""
    return [result for result, _, _ in locate_evaluations(trace)]


def locate_evaluations(trace: Trace) -> list[tuple[EvaluationResult, Span, str]]:
    """Return the verdicts with the span that each was found on, and where on it."""
    found: dict[tuple[str | None, str | None, str], tuple[EvaluationResult, Span, str]] = {}
    for span in (*trace.spans, *trace.own_spans):
        for place, results in on_span(span):
            for result in results:
                found.setdefault((result.trace_id, result.span_id, result.name), (result, span, place))
    return list(found.values())


def on_span(span: Span) -> Iterator[tuple[str, Iterator[EvaluationResult]]]:
    """Yield each place where a span may carry verdicts, and the verdicts there."""
    target = _target(span)
    for record in span.logs:
        if record.event_name in _EVENTS:
            said = {**_full(json_value(record.body)), **record.attributes}
            yield f"log record {record.event_name}", _result(said, target)
        elif record.event_name == _RESULTS_EVENT:
            yield f"log record {record.event_name}", _listed(record.body, target)
    for event in span.events:
        if event.name in _EVENTS:
            yield f"event {event.name}", _result(event.attributes, target)
    if _NAME in span.attributes:
        yield _NAME, _result(span.attributes, target)
    if any(key.startswith(_INLINE_STARTS) for key in span.attributes):
        for prefix, item_name in _INLINE:
            yield f"{prefix}*", _inline(span, target, prefix, item_name)
    yield "logfire.feedback.name", _logfire(span)


def _target(span: Span) -> _Target:
    """Return the span that a verdict on `span` is about: another one, if `span` was made to carry it."""
    attributes = span.attributes
    carrier = (
        attributes.get("gen_ai.operation.name") in ("evaluation", "evaluate")
        or attributes.get("openinference.span.kind") == "EVALUATOR"
        or _NAME in attributes
    )
    if not carrier:
        return _Target(span.span_id)
    links = span.links
    if len(links) == 1:
        return _Target(links[0].span_id, _other(links[0].trace_id, span))
    named = attributes.get("gen_ai.evaluation.span_id")
    if is_text(named):
        return _Target(named, _other(attributes.get("gen_ai.evaluation.trace_id"), span))
    return _Target(span.parent_id or span.span_id)


def _other(trace_id: object, span: Span) -> str | None:
    """Return a trace id if it is that of another trace: what carries a verdict may lie in one of its own."""
    return trace_id if is_text(trace_id) and trace_id != span.trace_id else None


def _result(attributes: Mapping[str, object], target: _Target) -> Iterator[EvaluationResult]:
    name = attributes.get(_NAME)
    if not is_text(name):
        return
    value, label = _score(attributes.get(_VALUE)), _label(attributes.get(_LABEL))
    if value is None and label is None:
        passed = next((attributes[key] for key in _PASSED if isinstance(attributes.get(key), bool)), None)
        label = None if passed is None else "pass" if passed else "fail"
    yield EvaluationResult(
        name=name,
        value=value,
        label=label,
        explanation=_label(attributes.get(_EXPLANATION)) or _label(attributes.get(_COMMENT)),
        error_type=_label(attributes.get(_ERROR)),
        span_id=target.span_id,
        trace_id=target.trace_id,
    )


def _listed(body: object, target: _Target) -> Iterator[EvaluationResult]:
    """Read Splunk's record of many results, whose keys may lack their prefix."""
    decoded = json_value(body)
    items = decoded.get("gen_ai.evaluations") if is_dict(decoded) else None
    for item in items if is_list(items) else ():
        yield from _result(_full(item), target)


def _full(item: object) -> dict[str, object]:
    """Return the part of a record's body that is one result, under the keys of the convention."""
    return {_SHORT.get(key, key): item[key] for key in item} if is_dict(item) else {}


_SHORT: Final = {"name": _NAME, "score": _VALUE, "label": _LABEL, "explanation": _EXPLANATION, "error": _ERROR}


def _inline(span: Span, target: _Target, prefix: str, item_name: str) -> Iterator[EvaluationResult]:
    pairs = {key[len(prefix) :]: span.attributes[key] for key in span.attributes if key.startswith(prefix)}
    for item in numbered(pairs):
        inner = item.get(item_name)
        if is_dict(inner) and is_text(inner.get("name")):
            yield EvaluationResult(
                name=str(inner["name"]),
                value=_score(inner.get("score")),
                label=_label(inner.get("label")),
                explanation=_label(inner.get("explanation")),
                error_type=None,
                span_id=target.span_id,
                trace_id=target.trace_id,
            )


def _logfire(span: Span) -> Iterator[EvaluationResult]:
    """Read Logfire's feedback: a child span that names an attribute of its own which holds the value."""
    attributes = span.attributes
    name = attributes.get("logfire.feedback.name")
    if not is_text(name) or attributes.get("logfire.span_type") != "annotation":
        return
    value = attributes.get(name)
    score = _score(value) if not isinstance(value, str) else None
    comment = _label(attributes.get("logfire.feedback.comment"))
    yield EvaluationResult(name, score, value if is_text(value) else None, comment, None, span.parent_id)


def _score(value: object) -> float | None:
    if not isinstance(value, str | int | float):
        return None
    try:
        score = float(value)
    except (ValueError, OverflowError):
        return None
    return score if math.isfinite(score) else None


def _label(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value if is_text(value) else None
