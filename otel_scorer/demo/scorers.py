"""
The demo's own scorers: a function, and a class with a setting.

The sidecar finds both by the module's name; `otel-scorer score --scorers otel_scorer.demo.scorers` does too.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from otel_scorer.model.feedback import Feedback
from otel_scorer.scorers.base import Scorer, scorer

if TYPE_CHECKING:
    from otel_scorer.model.trace import Trace

__all__ = ["GroundedNumbers", "tool_call_efficiency"]

_NUMBER = re.compile(r"\d+(?:[.:]\d+)*")


@scorer(description="False if a tool was called more than once, or failed.")
def tool_call_efficiency(trace: Trace) -> Feedback:
    """Judge how the agent used its tools, by the names and the status of the TOOL spans alone."""
    spans = trace.search_spans(span_type="TOOL")
    if not spans:
        return Feedback(value=None, rationale="The agent used no tool, so there is nothing to judge")
    failed = [span.name for span in spans if span.status.status_code != "OK"]
    if failed:
        return Feedback(value=False, rationale=f"Failed: {', '.join(failed)}")
    repeated = [f"{name}, {times} times" for name, times in Counter(span.name for span in spans).items() if times > 1]
    if repeated:
        return Feedback(value=False, rationale=f"Repeated: {'; '.join(repeated)}")
    return Feedback(value=True, rationale=f"Every call was needed: {', '.join(span.name for span in spans)}")


class GroundedNumbers(Scorer):
    """Whether every number of the answer comes from the question or from a tool. Small ones are let through."""

    name: str = "grounded_numbers"
    min_digits: int = 2

    def __call__(self, inputs: str, outputs: str, trace: Trace) -> Feedback:
        """Look each number of the answer up."""
        known = {*_NUMBER.findall(inputs)}
        for call in trace.tool_calls:
            known.update(_NUMBER.findall(str(call.result)))
        said = [number for number in _NUMBER.findall(outputs) if len(number) >= self.min_digits]
        invented = [number for number in dict.fromkeys(said) if number not in known]
        if invented:
            return Feedback(
                value="no", rationale=f"No tool said {', '.join(invented)}", metadata={"checked": len(said)}
            )
        rationale = f"Numbers with a source: {', '.join(said)}" if said else "The answer states no number"
        return Feedback(value="yes", rationale=rationale, metadata={"checked": len(said)})
