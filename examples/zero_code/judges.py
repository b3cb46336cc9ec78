"""Scorers for app.py, which does not import them: OTEL_SCORER_SCORERS names them."""

from otel_scorer import Feedback, Trace, scorer


@scorer
def says_the_temperature(outputs: str) -> bool:
    return " C " in outputs


@scorer
def within_budget(trace: Trace) -> Feedback:
    used = trace.usage.total_tokens or 0
    return Feedback(value=used < 1000, rationale=f"{used} tokens in {len(trace.llm_calls)} calls")
