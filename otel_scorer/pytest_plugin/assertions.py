"""Scorers as assertions: what a test expects of traces; a message with the trees and the reasons if they fail it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.evaluation import score_traces
from otel_scorer.model.trace import Trace
from otel_scorer.reporting.bounds import checked_bounds, checked_max_errors
from otel_scorer.reporting.plain_text import one_line, printable
from otel_scorer.reporting.report import Report, build_report
from otel_scorer.reporting.subject import trace_subject
from otel_scorer.scorers.base import as_scorers
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.scorers.passing import parse_condition, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.reporting.report import Row
    from otel_scorer.scorers.base import Scorer
    from otel_scorer.scorers.passing import PassIf

__all__ = ["assert_scores"]

_TREES: Final = 3
_TREE_LINES: Final = 80
_STACK_LINES: Final = 15
_COMPLAINTS: Final = 20
_WIDTH: Final = 110


def assert_scores(
    traces: Trace | Iterable[Trace],
    *scorers: Callable[..., Any] | str,
    pass_if: Mapping[str, PassIf] | None = None,
    fail_under: Mapping[str, float] | None = None,
    max_errors: int = 0,
    required: bool = True,
    timeout: float = 30.0,
) -> Report:
    """
    Run scorers on traces and fail unless all verdicts pass.

    A verdict passes by its own value (bool, yes/no), by the scorer's `pass_if`, or by the one given here. All traces
    are scored: `sample_rate` does not count in a test, `filter` and `span_types` do.

    Args:
        traces: One or more.
        scorers: Scorers, plain callables, or references as on the command line (`tool_errors`, `path/file.py:name`).
        pass_if: By feedback name, when a value passes: a callable, or text such as `">= 0.7"`.
        fail_under: By feedback name, the smallest mean over all traces that is fine (bool and yes/no count as 1 and 0).
            A single verdict of that name may fail then.
        max_errors: Errors of scorers that are forgiven.
        required: Whether each scorer must come to at least one verdict that passes or fails, or has a mean in
            `fail_under`. Otherwise one that has nothing to say is fine.
        timeout: Seconds for one call of a scorer that does not say; 0: no limit.

    Returns:
        What was found, for further assertions.

    Raises:
        AssertionError: A verdict fails, a mean is too small, or a scorer has errors or nothing to say. The message has
            the reasons and the trees of the traces.
        ScorerError: One of the scorers is none.
        ConfigError: A reference or a condition cannot be read.
    """
    __tracebackhide__ = True
    bounds = checked_bounds(fail_under)
    given = [traces] if isinstance(traces, Trace) else list(traces)
    loaded = [each.with_options(sample_rate=1.0) for each in _loaded(scorers)]
    found = [(trace, _judged(decisions, pass_if or {})) for trace, decisions in _scored(given, loaded, timeout)]
    report = build_report(
        ((trace_subject(trace), decisions) for trace, decisions in found),
        fail_under=bounds,
        max_errors=checked_max_errors(max_errors),
        title="assert_scores",
    )
    complaints = _complaints(report, given, pass_if or {}, fail_under or {})
    if required and given:
        complaints += filter(None, (_silence(each.name, report, fail_under or {}) for each in loaded))
    if complaints:
        # Of no character may a terminal, or pytest-xdist, make something else.
        raise AssertionError(printable(_message(complaints, report, given)))
    return report


def _loaded(scorers: Sequence[Callable[..., Any] | str]) -> list[Scorer]:
    if not scorers:
        msg = "assert_scores needs at least one scorer"
        raise TypeError(msg)
    made: list[Callable[..., Any]] = []
    for each in scorers:
        made += load_scorers([each]) if isinstance(each, str) else [each]
    return as_scorers(made)


def _scored(
    traces: Sequence[Trace], scorers: Sequence[Scorer], timeout: float
) -> Iterable[tuple[Trace, tuple[Decision, ...]]]:
    return [(each.trace, each.decisions) for each in score_traces(traces, scorers, timeout=timeout)]


def _judged(decisions: Iterable[Decision], pass_if: Mapping[str, PassIf]) -> list[Decision]:
    """Return the decisions with whether they pass by the conditions given here."""
    conditions = {name: parse_condition(rule) if isinstance(rule, str) else rule for name, rule in pass_if.items()}
    judged: list[Decision] = []
    for decision in decisions:
        passed = tuple(
            verdict(feedback.value, conditions[feedback.name]) if feedback.name in conditions else known
            for feedback, known in zip(decision.feedbacks, decision.passed, strict=True)
        )
        judged.append(replace(decision, passed=passed))
    return judged


def _complaints(
    report: Report, traces: Sequence[Trace], pass_if: Mapping[str, PassIf], fail_under: Mapping[str, float]
) -> list[str]:
    if not traces:
        return ["there is no trace"]
    complaints = [_told(row) for row in report.rows if row.passed is False and row.name not in fail_under]
    *means, errors = report.bounds
    if errors.is_missed:
        complaints += [_told(row) for row in report.rows if row.is_error]
    complaints += [f"{bound.name}: mean {bound.text}" for bound in means if bound.is_missed]
    names = {row.name for row in report.rows}
    complaints += [f"pass_if: there is no feedback {name!r}" for name in pass_if if name not in names]
    return complaints


def _silence(scorer: str, report: Report, fail_under: Mapping[str, float]) -> str | None:
    """Return why a scorer says nothing that could fail; None if it does, or if it has errors, which are told apart."""
    rows = [row for row in report.rows if row.scorer == scorer]
    if any(row.passed is not None or row.is_error or row.name in fail_under for row in rows):
        return None
    said = "; ".join(dict.fromkeys(one_line(f"{row.verdict} {row.explanation}", 200).strip() for row in rows[:3]))
    cure = (
        " (give pass_if or fail_under)" if any(row.feedback and row.feedback.value is not None for row in rows) else ""
    )
    return f"{scorer}: neither passes nor fails: {said or 'no verdict'}{cure}"


def _told(row: Row) -> str:
    where = row.subject.name or row.subject.trace_id or ""
    span = _span_name(row)
    head = f"{row.name}: {one_line(row.verdict, 200)} on {printable(where)}" + (f", span {span}" if span else "")
    lines = [head, *(f"    {line}" for line in printable(row.explanation).splitlines()[:_STACK_LINES])]
    error = None if row.feedback is None else row.feedback.error
    if error is not None and error.stack_trace:
        lines += [f"    | {line}" for line in printable(error.stack_trace).splitlines()[-_STACK_LINES:]]
    return "\n".join(lines)


def _span_name(row: Row) -> str:
    if row.span_id is None or row.span_id == row.subject.root_id:
        return ""
    trace = row.subject.load().trace
    spans = [] if trace is None else trace.search_spans(span_id=row.span_id)
    return printable(spans[0].name) if spans else row.span_id


def _message(complaints: Sequence[str], report: Report, traces: Sequence[Trace]) -> str:
    shown = list(complaints[:_COMPLAINTS])
    if len(complaints) > _COMPLAINTS:
        shown.append(f"... and {len(complaints) - _COMPLAINTS} more")
    blamed = {row.subject.trace_id for row in report.rows if row.passed is False or row.is_error}
    concerned = [trace for trace in traces if trace.trace_id in blamed] or list(traces)
    trees = [_tree(trace) for trace in concerned[:_TREES]]
    if len(concerned) > _TREES:
        trees.append(f"... and {len(concerned) - _TREES} more traces")
    # The first line alone is what a summary of many tests shows.
    return "\n\n".join(["\n".join(shown), *trees])


def _tree(trace: Trace) -> str:
    from rich.console import Console

    from otel_scorer.reporting.trace_tree import trace_tree

    console = Console(width=_WIDTH, force_terminal=False, color_system=None, highlight=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(trace_tree(trace))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    left = len(lines) - _TREE_LINES
    return "\n".join(lines[:_TREE_LINES] + ([f"... and {left} more lines"] if left > 0 else []))
