"""Reports as Markdown, for pull requests and job summaries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from otel_scorer.reporting.summary_cells import HEADINGS, cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.reporting.report import Report

__all__ = ["as_markdown"]

_MAX_FAILURES: Final = 100
_MAX_TEXT: Final = 500
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")


def as_markdown(report: Report) -> str:
    """Return the summary, the bounds and what failed, each as a table."""
    parts = [f"## {_cell(report.title)}: {report.subject_count}", ""]
    parts += _table(HEADINGS, [cells(summary) for summary in report.summaries]) if report.summaries else ["No scores."]
    if report.bounds:
        marks = [[bound.name, bound.text, "missed" if bound.is_missed else "met"] for bound in report.bounds]
        parts += ["", "### Bounds", "", *_table(("bound", "found", ""), marks)]
    failures = report.failures
    if failures:
        rows = [
            [f"{row.subject.name} {row.where[:8]}".rstrip(), row.name, row.verdict, row.explanation]
            for row in failures[:_MAX_FAILURES]
        ]
        parts += ["", "### Failures and errors", "", *_table(("trace", "feedback", "verdict", "why"), rows)]
    if len(failures) > _MAX_FAILURES:
        parts += ["", f"... and {len(failures) - _MAX_FAILURES} more."]
    if report.problems:
        parts += ["", "### Not read", "", *(f"- {_cell(problem)}" for problem in report.problems)]
    return "\n".join(parts) + "\n"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *([_cell(text) for text in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(text: str) -> str:
    """Return text that stands for itself in a table: traces hold what users typed."""
    flat = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", flat if len(flat) <= _MAX_TEXT else flat[:_MAX_TEXT] + "...")
