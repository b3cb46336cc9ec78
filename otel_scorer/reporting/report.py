"""What was found, by `score` or `evaluate`: the one form that every output format is made from."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.reporting.rows import Judged, Row, Rows, Totals, is_failure, mean_of, number_of, rows_of, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence

    from otel_scorer.reporting.subject import Subject

__all__ = [
    "Bound", "Judged", "Report", "Row", "Rows", "Summary", "Totals", "build_report", "is_failure", "mean_of",
    "number_of", "shown",
]  # fmt: skip

# Characters of a text that are kept to count it.
_KEPT: Final = 100


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
    numbers: MutableSequence[float] = field(default_factory=lambda: array("d"))
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
    What was found. What is many is not held here: it is read from where it is each time that it is gone through.

    Attributes:
        judged: What was judged, in order, with the decisions about it; some may have none.
        rows: By subject, scorer, target, feedback.
        summaries: One per scorer and feedback name, in the order of the scorers.
        totals: How many there are.
        bounds: What `--fail-under` and `--max-errors` asked for.
        problems: Parts of the input that could not be read.
        title: What the report is about.
    """

    judged: Sequence[Judged]
    rows: Sequence[Row]
    summaries: list[Summary]
    totals: Totals
    bounds: list[Bound] = field(default_factory=list[Bound])
    problems: list[str] = field(default_factory=list[str])
    title: str = "otel-scorer"

    @property
    def subject_count(self) -> str:
        """How many traces or rows were judged, in words."""
        noun = "row" if self.totals.has_rows else "trace"
        return f"{len(self.judged)} {noun}" + ("" if len(self.judged) == 1 else "s")

    @property
    def error_count(self) -> int:
        """Rows without a verdict because something went wrong."""
        return self.totals.errors

    def groups(self) -> Iterator[tuple[Subject, list[Row]]]:
        """Yield each subject with its rows."""
        return ((subject, rows_of(subject, decisions)) for subject, decisions in self.judged)

    @property
    def subjects(self) -> Iterator[Subject]:
        """What was judged, in order; some may have no row."""
        return (subject for subject, _ in self.judged)

    @property
    def failures(self) -> list[Row]:
        """Rows that a reader should look at: failed verdicts and errors."""
        return self.first_failures(self.totals.failures)

    def first_failures(self, most: int) -> list[Row]:
        """Return the first of `failures`."""
        return list(islice(filter(is_failure, self.rows), min(most, self.totals.failures)))

    @property
    def is_missed(self) -> bool:
        """Whether any bound was missed."""
        return any(bound.is_missed for bound in self.bounds)


def build_report(
    scored: Iterable[Judged],
    *,
    fail_under: Sequence[tuple[str, float]] = (),
    max_errors: int | None = None,
    problems: Sequence[str] = (),
    title: str = "otel-scorer",
) -> Report:
    """
    Sum up what was decided.

    Args:
        scored: What was judged, in order, with the decisions about it; a sequence is gone through as often as rows
            are looked at, anything else once, and then kept in memory.
        fail_under: Smallest means that are fine, by feedback name; no scored value at all counts as missed.
        max_errors: Errors that are fine; None: no limit.
        problems: Parts of the input that could not be read.
        title: What the report is about.
    """
    judged = scored if isinstance(scored, Sequence) else list(scored)
    ends, totals, summaries = array("Q"), Totals(), dict[tuple[str, str], Summary]()
    for subject, decisions in judged:
        totals.has_rows |= subject.trace_id is None
        for row in rows_of(subject, decisions):
            totals.add(row)
            key = (row.scorer, row.name)
            summary = summaries.get(key)
            if summary is None:
                summary = summaries[key] = Summary(*key)
            summary.add(row)
        ends.append(totals.rows)
    report = Report(
        judged, Rows(judged, ends), _in_order(summaries.values()), totals, problems=list(problems), title=title
    )
    report.bounds.extend(_mean_bound(name, least, report.summaries) for name, least in fail_under)
    if max_errors is not None:
        found = report.error_count
        report.bounds.append(Bound("errors", f"{found} (at most {max_errors})", found > max_errors))
    return report


def _in_order(summaries: Iterable[Summary]) -> list[Summary]:
    """Return summaries by scorer, in the order in which the scorers were found."""
    found = list(summaries)
    order = {scorer: position for position, scorer in enumerate(dict.fromkeys(each.scorer for each in found))}
    return sorted(found, key=lambda summary: order[summary.scorer])


def _mean_bound(name: str, least: float, summaries: Iterable[Summary]) -> Bound:
    numbers = array("d", chain.from_iterable(each.numbers for each in summaries if each.name == name))
    asked = f"at least {least:g}"
    mean = mean_of(numbers)
    if mean is None:
        return Bound(name, f"no scored value ({asked})", is_missed=True)
    return Bound(name, f"{mean:.6g} ({asked})", is_missed=mean < least)
