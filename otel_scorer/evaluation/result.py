"""What `evaluate` found: sums, verdict by verdict, and whether it is good enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.errors import OtelScorerError
from otel_scorer.evaluation.frames import result_frame
from otel_scorer.model.trace import MISSING
from otel_scorer.reporting.plain_text import printable
from otel_scorer.reporting.report import Judged, Report, Row, build_report
from otel_scorer.stores.pages import PagedSequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.feedback import Feedback
    from otel_scorer.model.trace import Trace
    from otel_scorer.reporting.subject import Evidence, Subject

__all__ = ["Bounds", "EvaluationResult", "RowResult", "RowResults"]

_REASONS_SHOWN: Final = 20
_PAGE: Final = 64
_HINT: Final = "assertions need a yes/no rating or a bool; `pass_if` of the scorer says what counts as passing"


@dataclass(frozen=True, slots=True, eq=False)
class RowResult:
    """
    What was said of one row. It equals the same row when that is read again.

    Attributes:
        position: Which row, from 0.
        subject: The row as reports show it.
        decisions: What became of each scorer.
        error: Why the row has no outputs, where `predict_fn` failed.
    """

    position: int
    subject: Subject
    decisions: tuple[Decision, ...]
    error: str | None = None

    def __eq__(self, other: object) -> bool:
        # Read again, the subject is another object, with another way to its evidence.
        return self._said() == other._said() if isinstance(other, RowResult) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.position, self.trace_id))

    def _said(self) -> tuple[object, ...]:
        seen = self.subject
        facts = seen.name, seen.trace_id, seen.root_id, seen.close_reason, seen.complete
        return self.position, self.decisions, self.error, facts

    @property
    def trace_id(self) -> str | None:
        """Id of its trace, 32 hex digits; None for a row without one."""
        return self.subject.trace_id

    @property
    def feedbacks(self) -> list[Feedback]:
        """All feedback, in the order of the scorers."""
        return [feedback for decision in self.decisions for feedback in decision.feedbacks]

    def evidence(self) -> Evidence:
        """Return what the verdicts were made from; read anew each time, from the store if there is one."""
        return self.subject.load()

    @property
    def trace(self) -> Trace | None:
        """
        The trace; None for a row that came without one and was not stored.

        `evaluate` stores such a row as a trace of one span, and with `store=False` makes none of it.
        """
        return self.evidence().trace

    @property
    def inputs(self) -> Any:
        """What was asked; None if nobody says."""
        inputs = self.evidence().inputs
        return None if inputs is MISSING else inputs

    @property
    def outputs(self) -> Any:
        """What was answered; None if nobody says."""
        outputs = self.evidence().outputs
        return None if outputs is MISSING else outputs


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    When a result passes.

    Attributes:
        fail_under: Smallest means that are fine, by feedback name.
        max_errors: Errors that are fine.
    """

    fail_under: Mapping[str, float] = field(default_factory=dict[str, float])
    max_errors: int = 0


class RowResults(PagedSequence[RowResult]):
    """
    The rows of a result, read when they are asked for.

    Args:
        judged: What was judged, with what was said of it.
    """

    def __init__(self, judged: Sequence[Judged]) -> None:
        super().__init__(_PAGE)
        self._judged = judged

    def __len__(self) -> int:
        return len(self._judged)

    def _read(self, page: int) -> list[RowResult]:
        begin = page * _PAGE
        return [
            RowResult(begin + place, subject, tuple(decisions), subject.problem)
            for place, (subject, decisions) in enumerate(self._judged[begin : begin + _PAGE])
        ]


class EvaluationResult:
    """
    What an evaluation found.

    Attributes:
        run_id: Id of the run; the same evaluation is found again by `search_traces(run_id=...)` where it was stored.
        metrics: Sums over all rows, by MLflow's names: `<feedback>/mean` and whatever `aggregations` ask for. Errors,
            missing values and `not_applicable` do not enter; `report.summaries` counts them.
        problems: What could not be read of files.
    """

    def __init__(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        judged: Sequence[Judged],
        *,
        bounds: Bounds,
        problems: Sequence[str] = (),
    ) -> None:
        self.run_id = run_id
        self.metrics = dict(metrics)
        self.problems = list(problems)
        self._judged = judged
        self._bounds = bounds

    @cached_property
    def results(self) -> Sequence[RowResult]:
        """
        What was said of each row, in their order.

        Read when it is asked for, from the store or, without one, from where `evaluate` has put it: some megabytes stay
        in memory, the rest is in a temporary file that goes with the result.
        """
        return RowResults(self._judged)

    @cached_property
    def report(self) -> Report:
        """Everything in the form that all output formats are made from: rows, counts and pass rates, bounds."""
        return build_report(
            self._judged,
            fail_under=list(self._bounds.fail_under.items()),
            max_errors=self._bounds.max_errors,
            problems=self.problems,
            title=f"evaluation {self.run_id}",
        )

    @property
    def passed(self) -> bool:
        """
        Whether it is good enough.

        - A feedback named in `fail_under` needs a mean that is not smaller; no value at all is not enough.
        - Of every other feedback each value must pass: by `pass_if` of its scorer, else True and "yes" do. A number or
          a text that nobody can tell good from bad does not pass, as in MLflow.
        - There are no more errors than `max_errors`; a call of `predict_fn` that failed is one.

        `not_applicable`, "no value" and rows where a scorer returned nothing say neither.
        """
        return not self._failures.count

    @property
    def reason(self) -> str:
        """Why it did not pass; empty if it did."""
        count = self._failures.count
        failures = [printable(failure) for failure in self._failures.first]
        if count <= 1:
            return "".join(failures)
        shown = [f"  - {failure}" for failure in failures]
        if count > len(shown):
            shown.append(f"  - and {count - len(shown)} more")
        return "\n".join([f"{count} assertions failed:", *shown])

    @property
    def result_df(self) -> Any:
        """
        A pandas DataFrame with a row for each row that was judged.

        Its columns are MLflow's: `trace_id`, `<feedback>/value`, `/rationale` and `/error_message`, then the trace.

        Raises:
            OtelScorerError: pandas is not installed.
        """
        return result_frame(self.results)

    def to_pandas(self) -> Any:
        """Return `result_df`."""
        return self.result_df

    @property
    def tables(self) -> dict[str, Any]:
        """`result_df` under the name that older code knows."""
        return {"eval_results": self.result_df}

    def to_html(self, path: str | Path) -> None:
        """
        Write a page that opens from disk, without network.

        Raises:
            OtelScorerError: It cannot be written.
        """
        from otel_scorer.reporting.as_html import write_html

        try:
            write_html(self.report, path)
        except OSError as error:
            raise OtelScorerError(f"Cannot write {path}: {error.strerror or error}") from error

    def _repr_html_(self) -> str:
        from otel_scorer.reporting.as_notebook import as_notebook

        return as_notebook(self.report)

    def __repr__(self) -> str:
        metrics = "".join(f"\n    {name}: {value:.6g}" for name, value in self.metrics.items())
        return f"EvaluationResult(\n  run_id: {self.run_id}\n  metrics:{metrics}\n)"

    @cached_property
    def _failures(self) -> _Complaints:
        report = self.report
        missed = (
            f"{bound.name}: {bound.text}" for bound in report.bounds if bound.is_missed and bound.name != "errors"
        )
        calls, errors, failed = _Complaints(), _Complaints(), _Complaints()
        for position, (subject, rows) in enumerate(report.groups()):
            if subject.problem is not None:
                calls.add(f"predict_fn: row {position}: {subject.problem}")
            errors.take(f"{row.name}: {row.explanation}" for row in rows if row.is_error and not row.is_problem)
            for row in rows:
                if row.feedback is not None and not row.is_error and row.name not in self._bounds.fail_under:
                    failed.take(_failure(row, row.feedback))
        found = _Complaints()
        found.take(missed)
        if calls.count + errors.count > self._bounds.max_errors:
            found.join(calls)
            found.join(errors)
        found.join(failed)
        return found


class _Complaints:
    """Why a result does not pass: as many reasons as are shown, and how many there are."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, complaint: str) -> None:
        """Take one."""
        self.count += 1
        if len(self.first) < _REASONS_SHOWN:
            self.first.append(complaint)

    def take(self, complaints: Iterable[str]) -> None:
        """Take some."""
        for complaint in complaints:
            self.add(complaint)

    def join(self, later: _Complaints) -> None:
        """Take those of another, behind these."""
        self.first = [*self.first, *later.first][:_REASONS_SHOWN]
        self.count += later.count


def _failure(row: Row, feedback: Feedback) -> list[str]:
    if row.passed or feedback.value is None:
        return []
    detail = feedback.rationale or f"value={feedback.value!r}"
    if row.passed is None:
        # Of pass_if it is known that it raised; of anything else that there is nothing to tell by.
        said = f"returned {feedback.value!r}; {row.reason or _HINT}"
        detail = f"{feedback.rationale}; {said}" if feedback.rationale else said
    return [f"{row.name}: {detail}"]
