"""What was found, by `score` or `evaluate`: the one form that every output format is made from."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.model.decision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.feedback import Feedback
    from otel_scorer.reporting.subject import Subject

__all__ = ["Bound", "Report", "Row", "Summary", "build_report", "mean_of", "number_of", "shown"]

_WORDS: Final = {"yes": 1.0, "no": 0.0}
# Between these, six digits are not enough for the digits before the point.
_LARGE, _HUGE = 1e6, 1e15
# Characters of a text that are kept to count it.
_KEPT: Final = 100
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


@dataclass(slots=True)
class Summary:
    """
    All rows of one feedback name of one scorer.

    Attributes:
        numbers: The values that count as numbers: bool and yes/no as 1 and 0.
        is_verdict: Whether all of them were bool or yes/no.
        texts: Other values, counted.
        outcomes: Decisions without feedback, counted.
    """

    scorer: str
    name: str
    numbers: list[float] = field(default_factory=list[float])
    is_verdict: bool = True
    passed: int = 0
    failed: int = 0
    no_value: int = 0
    errors: int = 0
    texts: Counter[str] = field(default_factory=Counter[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])

    @property
    def mean(self) -> float | None:
        """Mean of the numbers; None if there is none."""
        return mean_of(self.numbers)

    @property
    def pass_rate(self) -> float | None:
        """Share of those that pass among those that pass or fail; None if there is neither."""
        judged = self.passed + self.failed
        return self.passed / judged if judged else None

    @property
    def values(self) -> int:
        """Number of verdicts with a value."""
        return len(self.numbers) + self.texts.total()

    def add(self, row: Row) -> None:
        """Count one row."""
        if row.is_error:
            self.errors += 1
        elif row.feedback is None:
            self.outcomes[row.verdict] += 1
        elif row.feedback.value is None:
            self.no_value += 1
        else:
            self._add_value(row.feedback.value)
        self.passed += row.passed is True
        self.failed += row.passed is False

    def _add_value(self, value: Any) -> None:
        number = number_of(value)
        if number is None:
            self.texts[shown(value)[:_KEPT]] += 1
            return
        self.numbers.append(number)
        self.is_verdict &= isinstance(value, bool | str)


@dataclass(frozen=True, slots=True)
class Bound:
    """
    A bound that was asked for.

    Attributes:
        name: What it is about.
        text: What was found, and what was asked for.
        is_missed: Whether it was missed.
    """

    name: str
    text: str
    is_missed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """
    What was found.

    Attributes:
        rows: By subject, scorer, target, feedback.
        summaries: One per scorer and feedback name, in the order of the scorers.
        subjects: What was judged, in order; some may have no row.
        bounds: What `--fail-under` and `--max-errors` asked for.
        problems: Parts of the input that could not be read.
        title: What the report is about.
    """

    rows: list[Row]
    summaries: list[Summary]
    subjects: list[Subject]
    bounds: list[Bound] = field(default_factory=list[Bound])
    problems: list[str] = field(default_factory=list[str])
    title: str = "otel-scorer"

    @property
    def subject_count(self) -> str:
        """How many traces or rows were judged, in words."""
        noun = "trace" if all(subject.trace_id is not None for subject in self.subjects) else "row"
        return f"{len(self.subjects)} {noun}" + ("" if len(self.subjects) == 1 else "s")

    @property
    def error_count(self) -> int:
        """Rows without a verdict because something went wrong."""
        return sum(row.is_error for row in self.rows)

    @property
    def failures(self) -> list[Row]:
        """Rows that a reader should look at: failed verdicts and errors."""
        return [row for row in self.rows if row.passed is False or row.is_error]

    @property
    def is_missed(self) -> bool:
        """Whether any bound was missed."""
        return any(bound.is_missed for bound in self.bounds)


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


def build_report(
    scored: Iterable[tuple[Subject, Sequence[Decision]]],
    *,
    fail_under: Sequence[tuple[str, float]] = (),
    max_errors: int | None = None,
    problems: Sequence[str] = (),
    title: str = "otel-scorer",
) -> Report:
    """
    Sum up what was decided.

    Args:
        scored: What was judged, in order, with the decisions about it; read once.
        fail_under: Smallest means that are fine, by feedback name; no scored value at all counts as missed.
        max_errors: Errors that are fine; None: no limit.
        problems: Parts of the input that could not be read.
        title: What the report is about.
    """
    rows: list[Row] = []
    subjects: list[Subject] = []
    for subject, decisions in scored:
        subjects.append(subject)
        if subject.problem is not None:
            rows.append(Row(subject, None, "predict_fn", Outcome.FAILED, subject.problem, 1, None, None))
        rows += [row for decision in decisions for row in _rows(subject, decision)]
    report = Report(rows, _summaries(rows), subjects, problems=list(problems), title=title)
    report.bounds.extend(_mean_bound(name, least, rows) for name, least in fail_under)
    if max_errors is not None:
        found = report.error_count
        report.bounds.append(Bound("errors", f"{found} (at most {max_errors})", found > max_errors))
    return report


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


def _summaries(rows: Iterable[Row]) -> list[Summary]:
    summaries: dict[tuple[str, str], Summary] = {}
    for row in rows:
        key = (row.scorer, row.name)
        summary = summaries.get(key)
        if summary is None:
            summary = summaries[key] = Summary(*key)
        summary.add(row)
    order = {scorer: position for position, scorer in enumerate(dict.fromkeys(scorer for scorer, _ in summaries))}
    return sorted(summaries.values(), key=lambda summary: order[summary.scorer])


def _mean_bound(name: str, least: float, rows: Sequence[Row]) -> Bound:
    numbers = [
        number
        for row in rows
        if row.feedback is not None and row.name == name and not row.is_error
        if (number := number_of(row.feedback.value)) is not None
    ]
    asked = f"at least {least:g}"
    mean = mean_of(numbers)
    if mean is None:
        return Bound(name, f"no scored value ({asked})", is_missed=True)
    return Bound(name, f"{mean:.6g} ({asked})", is_missed=mean < least)
