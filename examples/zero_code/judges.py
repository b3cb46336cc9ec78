"""Scorers for app.py; named by OTEL_SCORER_SCORERS, imported by nobody else."""

from otel_scorer import Feedback, Trace, scorer


@scorer
def looked_it_up(trace: Trace) -> Feedback:
    asked = [call.name for call in trace.tool_calls]
    return Feedback(value="get_weather" in asked, rationale=f"tools asked for: {', '.join(asked) or 'none'}")


@scorer
def within_budget(trace: Trace) -> bool:
    return (trace.usage.total_tokens or 0) < 1000
