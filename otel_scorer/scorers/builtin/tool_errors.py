"""Whether the tools that an agent called did their work."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from otel_scorer.model.feedback import Feedback
from otel_scorer.scorers.base import scorer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.trace import ToolCall, Trace

__all__ = ["tool_errors"]

_SHOWN = 3
_MESSAGE_LIMIT = 120


@scorer(description="True if no tool call failed.", version="1", concurrent=True)
def tool_errors(trace: Trace) -> Feedback:
    """Return True if no TOOL span failed; a trace without TOOL spans has no failed one."""
    calls = trace.tool_calls
    failed = [call for call in calls if call.failed]
    if failed:
        return Feedback(value=False, rationale=f"{len(failed)} of {_calls(len(calls))} failed: {_named(failed)}")
    if not calls:
        return Feedback(value=True, rationale="No tool was called")
    succeeded = "The tool call succeeded" if len(calls) == 1 else f"All {len(calls)} tool calls succeeded"
    return Feedback(value=True, rationale=succeeded)


def _calls(number: int) -> str:
    return "1 tool call" if number == 1 else f"{number} tool calls"


def _named(failed: Sequence[ToolCall]) -> str:
    """Name the tools that failed, how often, and what the first message of each said."""
    often = Counter(call.name for call in failed)
    said: dict[str, str] = {}
    for call in failed:
        said.setdefault(call.name, _message(call))
    shown = [f"{name}{f' ({times} times)' if times > 1 else ''}{said[name]}" for name, times in often.items()]
    more = len(shown) - _SHOWN
    return "; ".join(shown[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _message(call: ToolCall) -> str:
    """Return what the outermost span that failed and says why says."""
    said = (" ".join(span.status.description.split()) for span in call.spans if span.failed)
    text = next(filter(None, said), "")
    if not text:
        return ""
    return f" ({text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + '…'})"
