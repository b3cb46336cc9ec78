"""The rows of a report: one for each feedback, and for each decision that has none."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, overload

from otel_scorer.model.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.feedback import Feedback
    from otel_scorer.reporting.subject import Subject

__all__ = ["Judged", "Row", "Rows", "Totals", "is_failure", "mean_of", "number_of", "rows_of", "shown"]

Judged: TypeAlias = "tuple[Subject, Sequence[Decision]]"
"""What was judged, and what became of the scorers."""

_WORDS: Final = {"yes": 1.0, "no": 0.0}
# Between these, six digits are not enough for the digits before the point.
_LARGE, _HUGE = 1e6, 1e15
# A scorer that did not get to a verdict although it should have.
_BROKEN: Final = frozenset({
    Outcome.FAILED,
    Outcome.TIMED_OUT,
    Outcome.FILTER_ERROR,
    Outcome.UNPROCESSABLE,
    Outcome.SHED,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """
    One feedback, or one decision that has none.

    Attributes:
        subject: What was judged.
        span_id: The span that it is about: the target, else the root; None for a decision without a target.
        scorer: Name of the scorer.
        outcome: What became of the scorer.
        reason: Why, where the outcome alone does not say.
        revision: 1, or higher when late spans led to scoring again.
        feedback: What the scorer said.
        passed: Whether it passed; None: does not say.
    """

    subject: Subject
    span_id: str | None
    scorer: str
    outcome: Outcome
    reason: str | None
    revision: int
    feedback: Feedback | None
    passed: bool | None

    @property
    def name(self) -> str:
        """Name of the feedback, else of the scorer."""
        return self.scorer if self.feedback is None else self.feedback.name

    @property
    def is_problem(self) -> bool:
        """Whether it is no scorer's: there was nothing to judge, since making it failed."""
        problem = self.subject.problem
        return problem is not None and self.feedback is None and self.reason is problem

    @property
    def is_error(self) -> bool:
        """Whether there is no verdict because something went wrong."""
        return self.outcome in _BROKEN or (self.feedback is not None and self.feedback.error is not None)

    @property
    def verdict(self) -> str:
        """The value as people read it, `Error`, `no value`, `no feedback`, or what became of the scorer."""
        if self.feedback is None:
            return "no feedback" if self.outcome is Outcome.SCORED else str(self.outcome)
        if self.feedback.error is not None:
            return "Error"
        return shown(self.feedback.value)

    @property
    def where(self) -> str:
        """What it is about, in ids: the trace's, with the span's behind a slash; empty for a row without a trace."""
        ids = self.subject.trace_id or ""
        return ids if self.span_id is None else f"{ids}/{self.span_id}"

    @property
    def explanation(self) -> str:
        """Why: the rationale, the error, or the reason of the decision."""
        feedback = self.feedback
        if feedback is None:
            return self.reason or ""
        if feedback.error is not None:
            message = feedback.error.error_message
            return f"{feedback.error.error_code}: {message}" if message else str(feedback.error.error_code)
        return feedback.rationale or ""


class Rows(Sequence[Row]):
    """
    All verdicts of a report, made when they are looked at: there may be many more than of anything else.

    Args:
        judged: What was judged, with the decisions about it.
        ends: How many rows there are up to each of them, its own included.
    """

    def __init__(self, judged: Sequence[Judged], ends: Sequence[int]) -> None:
        self._judged = judged
        self._ends = ends

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        subject = bisect_right(self._ends, number)
        return rows_of(*self._judged[subject])[number - self._ends[subject]]

    def __iter__(self) -> Iterator[Row]:
        for subject, decisions in self._judged:
            yield from rows_of(subject, decisions)


@dataclass(slots=True)
class Totals:
    """
    What there is, counted.

    Attributes:
        rows: Verdicts, and decisions that have none.
        failed: Verdicts that did not pass.
        errors: Rows without a verdict because something went wrong.
        failures: Rows that a reader should look at: either of both.
        has_rows: Whether any of the subjects is none of a trace.
    """

    rows: int = 0
    failed: int = 0
    errors: int = 0
    failures: int = 0
    has_rows: bool = False

    def add(self, row: Row) -> None:
        """Count one row."""
        self.rows += 1
        self.failed += row.passed is False
        self.errors += row.is_error
        self.failures += is_failure(row)


def is_failure(row: Row) -> bool:
    """Tell whether a reader should look at a row: a failed verdict, or an error."""
    return row.passed is False or row.is_error


def number_of(value: object) -> float | None:
    """Return a value as it enters a mean: bool and yes/no as 1 and 0, numbers as they are, None for anything else."""
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:  # an int with hundreds of digits
        return None


def mean_of(numbers: Sequence[float]) -> float | None:
    """Return the mean; None of nothing."""
    if not numbers:
        return None
    try:
        return math.fsum(numbers) / len(numbers)
    except OverflowError:  # only their sum is too large
        return math.fsum(number / len(numbers) for number in numbers)


def shown(value: object) -> str:
    """
    Return a value as people read it.

    The rules are MLflow's: yes and no read Pass and Fail, True and False as they are, and so do numbers (a float with
    more than six digits is rounded), None is no value. Whether a verdict passed is another question: `Row.passed`.
    """
    if value is None:
        return "no value"
    if isinstance(value, str):
        return {1.0: "Pass", 0.0: "Fail"}.get(_WORDS.get(value.strip().lower(), math.nan), value)
    if isinstance(value, float):
        return f"{value:.0f}" if _LARGE <= abs(value) < _HUGE else f"{value:.6g}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def rows_of(subject: Subject, decisions: Iterable[Decision]) -> list[Row]:
    """Return the rows about a subject, in the order of the decisions."""
    rows = [row for decision in decisions for row in _rows(subject, decision)]
    if subject.problem is not None:
        rows.insert(0, Row(subject, None, "predict_fn", Outcome.FAILED, subject.problem, 1, None, None))
    return rows


def _rows(subject: Subject, decision: Decision) -> list[Row]:
    def row(span_id: str | None, feedback: Feedback | None, *, passed: bool | None) -> Row:
        return Row(
            subject=subject,
            span_id=span_id,
            scorer=decision.scorer,
            outcome=decision.outcome,
            reason=decision.reason,
            revision=decision.revision,
            feedback=feedback,
            passed=passed,
        )

    if not decision.feedbacks:
        return [row(decision.span_id, None, passed=None)]
    return [
        row(feedback.span_id or decision.span_id or subject.root_id, feedback, passed=passed)
        for feedback, passed in zip(decision.feedbacks, decision.passed, strict=True)
    ]
