"""Searches in a trace, by MLflow's rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.model.feedback import Expectation, Feedback
    from otel_scorer.model.span import Span

__all__ = ["matching_assessments", "matching_spans"]

_NAMING: Final = (str, re.Pattern)


def matching_spans(
    spans: list[Span], span_type: str | None, name: str | re.Pattern[str] | None, span_id: str | None
) -> list[Span]:
    """Return the spans that match everything given; see `Trace.search_spans`."""
    _check_type("span_type", span_type, str, "str")
    _check_type("name", name, _NAMING, "str or re.Pattern")
    _check_type("span_id", span_id, str, "str")
    found = spans
    if span_type is not None:
        found = [span for span in found if span.span_type == span_type]
        if name is None and span_id is None:
            return found
    return [
        span
        for span in found
        if (span_id is None or span.span_id == span_id)
        and (name is None or (span.name == name if isinstance(name, str) else name.search(span.name)))
    ]


def matching_assessments(
    assessments: Iterable[Feedback | Expectation],
    name: str | None,
    span_id: str | None,
    type: Literal["expectation", "feedback"] | None,
    *,
    all: bool,
) -> Iterable[Feedback | Expectation]:
    """Return the assessments that match everything given; see `Trace.search_assessments`."""
    for each in assessments:
        if (
            (name is None or each.name == name)
            and (span_id is None or each.span_id == span_id)
            and (all or getattr(each, "valid", None) is not False)
            and (type is None or each.assessment_type == type)
        ):
            yield each


def _check_type(argument: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    if value is not None and not isinstance(value, kind):
        msg = f"Invalid type for '{argument}': expected {expected}, got {type(value).__name__}"
        raise TypeError(msg)
