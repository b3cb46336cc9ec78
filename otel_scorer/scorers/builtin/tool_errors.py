"""Whether the tools that an agent called did their work."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import SpanType
from otel_scorer.scorers.base import scorer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.trace import Span, Trace

__all__ = ["tool_errors"]

_SHOWN = 3
_MESSAGE_LIMIT = 120


@scorer(description="True if no tool call failed.", version="1", concurrent=True)
def tool_errors(trace: Trace) -> Feedback:
    """Return True if no TOOL span failed; a trace without TOOL spans has no failed one."""
    spans = trace.search_spans(span_type=SpanType.TOOL)
    failed = [span for span in spans if span.failed]
    if failed:
        return Feedback(value=False, rationale=f"{len(failed)} of {_calls(len(spans))} failed: {_named(failed)}")
    if not spans:
        return Feedback(value=True, rationale="No tool was called")
    succeeded = "The tool call succeeded" if len(spans) == 1 else f"All {len(spans)} tool calls succeeded"
    return Feedback(value=True, rationale=succeeded)


def _calls(number: int) -> str:
    return "1 tool call" if number == 1 else f"{number} tool calls"


def _named(failed: Sequence[Span]) -> str:
    """Name the tools that failed, how often, and what the first message of each said."""
    often = Counter(map(_name, failed))
    said: dict[str, str] = {}
    for span in failed:
        said.setdefault(_name(span), _message(span))
    shown = [f"{name}{f' ({times} times)' if times > 1 else ''}{said[name]}" for name, times in often.items()]
    more = len(shown) - _SHOWN
    return "; ".join(shown[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _name(span: Span) -> str:
    name = span.read("tool_name")
    return name if isinstance(name, str) and name else span.name


def _message(span: Span) -> str:
    text = " ".join(span.status.description.split())
    if not text:
        return ""
    return f" ({text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + '…'})"
