"""What several tests make up: a reader that reads two attributes, decisions, and what the counters counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import MISSING, SpanType
from otel_scorer.telemetry import snapshot

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span, Trace

LISTS = {"tool_calls", "llm_calls", "documents", "messages", "tags", "evaluations", "dialects"}


class PlainReader:
    """A vocabulary of three attributes: `type`, `inputs` and `outputs`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def span_type(self, span: Span) -> str:
        self.asked.append((span.name, "span_type"))
        return str(span.attributes.get("type", SpanType.UNKNOWN))

    def read(self, span: Span, field: str) -> Any:
        self.asked.append((span.name, field))
        return span.attributes.get(field, MISSING)

    def derive(self, trace: Trace, field: str) -> Any:
        if field in LISTS:
            return []
        if field in {"inputs", "outputs"}:
            return MISSING if trace.root is None else trace.root.read(field)
        return None


def a_decision(
    *feedbacks: Feedback | float | str | bool,
    trace: int = 1,
    scorer: str = "check",
    version: str = "1",
    outcome: Outcome = Outcome.SCORED,
    span_id: str | None = None,
    revision: int = 1,
    passed: tuple[bool | None, ...] = (),
) -> Decision:
    made = tuple(given if isinstance(given, Feedback) else Feedback(scorer, given) for given in feedbacks)
    return Decision(f"{trace:032x}", span_id, scorer, version, outcome, None, revision, made, passed)


class Counted:
    """What was counted since this was made."""

    def __init__(self) -> None:
        self._before = snapshot()

    def __call__(self, counter: str) -> int:
        return snapshot().get(counter, 0) - self._before.get(counter, 0)
