"""Whether an agent asked a tool the same thing twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from otel_scorer.model.feedback import Feedback
from otel_scorer.scorers.base import scorer

if TYPE_CHECKING:
    from otel_scorer.model.trace import ToolCall, Trace

__all__ = ["redundant_tool_calls"]

_SHOWN = 3
_ARGUMENTS_LIMIT = 120


@scorer(description="True if no tool was called twice with the same arguments.", version="1", concurrent=True)
def redundant_tool_calls(trace: Trace) -> Feedback:
    """Return True if no two calls name the same tool and the same arguments. Unrecorded arguments equal nothing."""
    calls = trace.tool_calls
    if len(calls) < 2:  # noqa: PLR2004 - one call repeats nothing
        return Feedback(value=True, rationale="One tool call, nothing to repeat" if calls else "No tool was called")
    by_name: dict[str, list[ToolCall]] = {}
    for call in calls:
        by_name.setdefault(call.name, []).append(call)
    often: dict[tuple[str, str], int] = {}
    for name, same in by_name.items():
        # Nothing is decoded of a tool that was called once.
        for call in same if len(same) > 1 else ():
            if (arguments := call.arguments) is not None:
                what = name, _text(arguments)
                often[what] = often.get(what, 0) + 1
    repeated = [(what, times) for what, times in often.items() if times > 1]
    if not repeated:
        return Feedback(value=True, rationale=f"None of the {len(calls)} tool calls repeats another")
    shown = [f"{name}({_short(arguments)}) called {times} times" for (name, arguments), times in repeated[:_SHOWN]]
    more = len(repeated) - _SHOWN
    return Feedback(value=False, rationale="; ".join(shown) + (f"; and {more} more" if more > 0 else ""))


_text: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode
"""Arguments as JSON, in one order of keys: that is how they are compared."""


def _short(arguments: str) -> str:
    return arguments if len(arguments) <= _ARGUMENTS_LIMIT else arguments[: _ARGUMENTS_LIMIT - 1] + "…"
