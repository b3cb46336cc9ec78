"""
What became of one scorer on one target: there is exactly one Decision per trace, scorer, target span and revision.

A decision is plain data: it crosses the pipe from a worker process and is written to reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Decision", "Outcome", "feedback_from_dict", "feedback_to_dict"]


class Outcome(StrEnum):
    """
    What became of a scorer. Also the value of the attribute `outcome` of the counter of decisions.

    A scorer that returned `Feedback(error=...)` was `scored`; one that raised, or returned what nobody can read,
    `failed`.
    """

    SCORED = "scored"
    NOT_APPLICABLE = "not_applicable"
    NOT_SAMPLED = "not_sampled"
    FILTERED = "filtered"
    FILTER_ERROR = "filter_error"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    SHED = "shed"
    UNPROCESSABLE = "unprocessable"


@dataclass(slots=True)  # not frozen: that would triple the time it takes to make one, and there are many
class Decision:
    """
    What became of one scorer on one target. Nobody changes one.

    Attributes:
        trace_id: 32 lower-case hex digits.
        span_id: The target span of a scorer with `span_types`; None where the trace is the target, or where the
            decision fell before anybody looked for spans.
        scorer: Name of the scorer.
        scorer_version: Its version.
        outcome: What became of it.
        reason: Why, where the outcome alone does not say.
        revision: 1, or higher when late spans led to scoring again.
        feedbacks: What the scorer said, in its order; an error where it timed out or failed.
        passed: Per feedback whether it passed: by the scorer's `pass_if`, else for bool and yes/no; None: does not say.
        seconds: How long the call took; None where there was none, or where it did not come to an end. It says nothing
            about the decision: two that differ in it alone are equal, and it is not written down.
    """

    trace_id: str
    span_id: str | None
    scorer: str
    scorer_version: str
    outcome: Outcome
    reason: str | None = None
    revision: int = 1
    feedbacks: tuple[Feedback, ...] = ()
    passed: tuple[bool | None, ...] = ()
    seconds: float | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; `from_dict` reads it back."""
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "scorer": self.scorer,
            "scorer_version": self.scorer_version,
            "outcome": str(self.outcome),
            "reason": self.reason,
            "revision": self.revision,
            "feedbacks": [feedback_to_dict(feedback) for feedback in self.feedbacks],
            "passed": list(self.passed),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """
        Read back what `to_dict` returned.

        Raises:
            KeyError: A field is missing.
        """
        return cls(
            data["trace_id"],
            data["span_id"],
            data["scorer"],
            data["scorer_version"],
            Outcome(data["outcome"]),
            data["reason"],
            data["revision"],
            tuple(feedback_from_dict(feedback) for feedback in data["feedbacks"]),
            tuple(data["passed"]),
        )


def feedback_to_dict(feedback: Feedback) -> dict[str, Any]:
    """Return a feedback as plain JSON data in the form of `score --format jsonl`, with metadata as it is."""
    source = feedback.source
    error: AssessmentError | None = feedback.error
    return {
        "name": feedback.name,
        "value": feedback.value,
        "rationale": feedback.rationale,
        "source": None if source is None else source.to_dictionary(),
        "metadata": dict(feedback.metadata or {}),
        "error": None if error is None else error.to_dictionary(),
        "span_id": feedback.span_id,
        "trace_id": feedback.trace_id,
        "create_time_ms": feedback.create_time_ms,
        "overrides": feedback.overrides,
        "valid": feedback.valid,
    }


def feedback_from_dict(data: Mapping[str, Any]) -> Feedback:
    """Read back what `feedback_to_dict` returned."""
    source, error = data["source"], data["error"]
    return Feedback(
        data["name"],
        data["value"],
        None if error is None else AssessmentError.from_dictionary(error),
        None if source is None else AssessmentSource.from_dictionary(source),
        data.get("trace_id"),
        data["metadata"] or None,
        data["span_id"],
        data.get("create_time_ms"),
        rationale=data["rationale"],
        overrides=data.get("overrides"),
        valid=data.get("valid", True),
    )
