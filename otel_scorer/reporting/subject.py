"""What was judged: a trace, a row of a data set, or both. A report holds many; each is loaded only to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_scorer.model.trace import Trace

__all__ = ["Evidence", "Subject", "row_subject", "trace_subject"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What a verdict was made from.

    Attributes:
        trace: The trace; None for a row without one.
        inputs: What was asked; MISSING: nobody says.
        outputs: What was answered; MISSING: nobody says.
        expectations: What the right answer is.
    """

    trace: Trace | None = None
    inputs: Any = MISSING
    outputs: Any = MISSING
    expectations: Mapping[str, Any] | None = None


def _nothing() -> Evidence:
    return Evidence()


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """
    What was judged.

    Attributes:
        name: How people call it: the name of a trace's root, or `row 3`.
        trace_id: 32 hex digits; None for a row without a trace.
        root_id: Span that verdicts on the whole trace are about.
        close_reason: Why the trace was closed.
        complete: Whether it looked complete.
        load: Returns what the verdicts were made from. Called once per look, so a report of many traces does not keep
            them in memory; what it raises is shown in place of the evidence.
        problem: Why there is nothing to judge, where making it failed: an error of the report, under `predict_fn`.
    """

    name: str
    trace_id: str | None = None
    root_id: str | None = None
    close_reason: str | None = None
    complete: bool = True
    load: Callable[[], Evidence] = _nothing
    problem: str | None = None


def trace_subject(trace: Trace, load: Callable[[], Evidence] | None = None, *, problem: str | None = None) -> Subject:
    """
    Return a trace as something to report on.

    Args:
        trace: The trace; kept only when `load` is left out.
        load: See `Subject`. Default: the trace itself.
        problem: See `Subject`.
    """
    root = trace.root
    return Subject(
        name="" if root is None else root.name,
        trace_id=trace.trace_id,
        root_id=None if root is None else root.span_id,
        close_reason=trace.close_reason,
        complete=trace.is_complete,
        load=load or (lambda: Evidence(trace, trace.read("inputs"), trace.read("outputs"), _expectations(trace))),
        problem=problem,
    )


def row_subject(
    position: int, load: Callable[[], Evidence], *, trace_id: str | None = None, problem: str | None = None
) -> Subject:
    """
    Return a row of a data set as something to report on.

    Args:
        position: Which row, from 0.
        load: See `Subject`.
        trace_id: Under which id it was stored, if it was.
        problem: See `Subject`.
    """
    return Subject(name=f"row {position}", trace_id=trace_id, load=load, problem=problem)


def _expectations(trace: Trace) -> dict[str, Any] | None:
    found = {each.name: each.value for each in trace.search_assessments(type="expectation")}
    return found or None
