"""Scorers that come with otel_scorer. `BUILT_IN` is the table of their names; a new one is a module and a line here."""

from typing import Final

from otel_scorer.scorers.base import Scorer
from otel_scorer.scorers.builtin.latency import latency
from otel_scorer.scorers.builtin.redundant_tool_calls import redundant_tool_calls
from otel_scorer.scorers.builtin.tool_errors import tool_errors

__all__ = ["BUILT_IN", "latency", "redundant_tool_calls", "tool_errors"]

BUILT_IN: Final[dict[str, Scorer]] = {made.name: made for made in (tool_errors, redundant_tool_calls, latency)}
