"""
What a verdict was made from, as plain data for a page: traces, values, and a limit for everything.

Traces hold what users and models wrote, of any size. A value over its limit is cut and says so; evidence that is too
big as a whole is made again with smaller limits.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from otel_scorer.model.plain import plain
from otel_scorer.model.trace import MISSING
from otel_scorer.reporting.plain_text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_scorer.model.trace import Span, SpanEvent, ToolCall, Trace
    from otel_scorer.reporting.report import Row
    from otel_scorer.reporting.subject import Evidence

__all__ = ["DETAIL_LIMIT", "Limits", "cut", "details_json", "page_json", "preview_of"]

DETAIL_LIMIT: Final = 262_144
"""Characters of all that a page tells about one subject."""


class Limits(NamedTuple):
    """
    How much is shown of one subject.

    Attributes:
        text: Characters of a value.
        spans: Spans of a trace.
        attributes: Attributes of a span or event, and events of a span.
        attribute: Characters of an attribute.
    """

    text: int
    spans: int
    attributes: int
    attribute: int


_PREVIEW: Final = 100
# Tried in turn until the evidence fits.
_LIMITS: Final = (
    Limits(20_000, 500, 40, 300),
    Limits(2_000, 500, 10, 100),
    Limits(200, 200, 0, 0),
    Limits(80, 50, 0, 0),
)


def page_json(value: object) -> str:
    """Return plain data as JSON that can stand in an HTML script element, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Ends or begins nothing in HTML without it. Means the same in JSON: it can only be inside a string.
    return text.replace("<", "\\u003c")


def details_json(rows: Sequence[Row], evidence: Evidence | None, problem: str | None = None) -> str:
    """
    Return what the page shows when a row is opened, at most `DETAIL_LIMIT` characters of JSON.

    Args:
        rows: All verdicts on one subject.
        evidence: What they were made from.
        problem: Why there is no evidence.
    """
    text = ""
    for limits in _LIMITS:
        details: dict[str, Any] = {"verdicts": [_verdict(row, limits) for row in rows[: limits.spans]]}
        if evidence is not None:
            details.update(_evidence(evidence, limits))
        if problem is not None:
            details["problem"] = cut(problem, limits.text)
        text = page_json(details)
        if len(text) <= DETAIL_LIMIT:
            return text
    return page_json({"verdicts": [], "problem": f"Too much to be shown: {len(text):,} characters"})


def preview_of(evidence: Evidence) -> str:
    """Return the first words of what was asked, on one line; nothing if nobody says."""
    inputs: object = evidence.inputs
    if isinstance(inputs, dict):
        values = list(cast("dict[str, object]", inputs).values())
        inputs = values[0] if len(values) == 1 else values  # {"question": "..."}: only the words
    return "" if inputs is MISSING else one_line(_text(inputs, _PREVIEW), _PREVIEW)


def cut(text: str, limit: int) -> str:
    """Return text without control characters, cut to a limit that it says it was cut at."""
    left = len(text) - limit
    return printable(text) if left <= 0 else f"{printable(text[:limit])}\n[{left:,} more characters]"


def _verdict(row: Row, limits: Limits) -> dict[str, Any]:
    feedback = row.feedback
    told: dict[str, Any] = {"why": cut(row.explanation, limits.text)}
    if row.revision > 1:
        told["revision"] = row.revision
    if feedback is None:
        return told
    told["value"] = _text(feedback.value, limits.text)
    if feedback.source is not None:
        told["source"] = cut(f"{feedback.source.source_type} {feedback.source.source_id}", limits.text)
    if feedback.metadata:
        told["metadata"] = _pairs(feedback.metadata, limits)
    if feedback.error is not None:
        told["code"] = cut(str(feedback.error.error_code), limits.text)
        told["stack"] = cut(feedback.error.stack_trace or "", limits.text)
    return told


def _evidence(evidence: Evidence, limits: Limits) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name in ("inputs", "outputs"):
        value = getattr(evidence, name)
        if value is not MISSING:
            told[name] = _text(value, limits.text)
    if evidence.expectations:
        told["expectations"] = _text(dict(evidence.expectations), limits.text)
    if evidence.trace is not None:
        told["trace"] = _trace(evidence.trace, limits)
        told["tools"] = [_tool_call(call, limits) for call in evidence.trace.tool_calls[: limits.spans]]
    return told


def _trace(trace: Trace, limits: Limits) -> dict[str, Any]:
    walked = trace.tree.walk()
    begin = min((span.start_time_ns for span, _ in walked), default=0)
    usage = trace.usage
    return {
        "service": cut(trace.service_name or "", limits.text),
        "dialects": trace.dialects,
        "model": cut(trace.model or "", limits.text),
        "tokens": None if usage is None else [usage.input_tokens, usage.output_tokens],
        "begin": begin // 1_000_000,
        "duration": max((span.end_time_ns for span, _ in walked), default=0) - begin,
        "spans": [_span(span, depth, begin, limits) for span, depth in walked[: limits.spans]],
        "more": max(0, len(walked) - limits.spans),
    }


def _span(span: Span, depth: int, begin: int, limits: Limits) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": span.span_id,
        "depth": depth,
        "name": cut(span.name, 200),
        "type": cut(span.span_type, 40),
        "start": span.start_time_ns - begin,
        "duration": span.duration_ns,
    }
    if span.failed:
        told["error"] = cut(span.status.description or str(span.get_attribute("error.type") or ""), limits.text)
    for name in ("inputs", "outputs"):
        value = span.read(name)
        if value is not MISSING:
            told[name] = _text(value, limits.text)
    if limits.attributes:
        told["attributes"] = _pairs(span.attributes, limits)
        told["events"] = [_event(event, begin, limits) for event in span.events[: limits.attributes]]
    return told


def _event(event: SpanEvent, begin: int, limits: Limits) -> dict[str, Any]:
    attributes = dict(event.attributes)
    stack = attributes.pop("exception.stacktrace", None)
    told = {"name": cut(event.name, 200), "at": event.timestamp - begin, "attributes": _pairs(attributes, limits)}
    return told if stack is None else {**told, "stack": _text(stack, limits.text)}


def _tool_call(call: ToolCall, limits: Limits) -> dict[str, Any]:
    return {
        "name": cut(call.name, 200),
        "span": call.span.span_id,
        "arguments": None if call.arguments is None else _text(call.arguments, limits.text),
        "result": None if call.result is None else _text(call.result, limits.text),
        "failed": call.failed,
    }


def _pairs(values: Mapping[str, Any], limits: Limits) -> dict[str, str]:
    shown = list(values.items())[: limits.attributes]
    told = {cut(str(key), 200): _text(value, limits.attribute) for key, value in shown}
    if len(values) > len(shown):
        told["..."] = f"[{len(values) - len(shown)} more]"
    return told


def _text(value: object, limit: int) -> str:
    if isinstance(value, str):
        return cut(value, limit)
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2, default=plain)
    except (TypeError, ValueError, RecursionError) as error:  # keys that are no text, cycles, depth
        text = f"[{type(value).__name__} that cannot be shown: {error}]"
    return cut(text, limit)
