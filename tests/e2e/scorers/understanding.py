"""A scorer that says all that it can see of a trace, one feedback for each field."""

import json

from otel_scorer import Feedback, scorer
from otel_scorer.model.trace import MISSING
from otel_scorer.reporting.inspection import inspect_trace


@scorer
def understanding(trace) -> list[Feedback]:
    seen = inspect_trace(trace)
    seen["spans"] = [(span["name"], span["span_type"]) for span in seen["spans"]]
    for call, tool in zip(trace.tool_calls, seen["tool_calls"], strict=True):
        tool["args_from_span"] = call.span.read("tool_args") is not MISSING
    return [Feedback(name=key, value=True, rationale=json.dumps(value)) for key, value in seen.items()]
