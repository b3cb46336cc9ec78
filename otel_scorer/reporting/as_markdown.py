"""Reports as Markdown, for pull requests and job summaries: what counts first, never longer than a comment may be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from otel_scorer.reporting.plain_text import one_line
from otel_scorer.reporting.summary_cells import HEADINGS, cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_scorer.reporting.report import Report

__all__ = ["LIMIT", "MARKER", "as_markdown"]

LIMIT: Final = 65_536
"""Characters of a whole report: GitHub takes no longer comment."""
MARKER: Final = "<!-- otel-scorer -->"
"""The first line: whoever updates a comment instead of adding another one finds it by this."""

# Characters of the parts before the failures, which get the rest: a part that is too long leaves room for the others.
_BOUNDS: Final = 12_000
_SUMMARY: Final = 24_000
_PROBLEMS: Final = 6_000
_MAX_FAILURES: Final = 100
_MAX_SHOWN: Final = 10
_MAX_TEXT: Final = 500
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~$])")
# What would call people, or name a pull request that has nothing to do with it.
_REFERENCE: Final = re.compile(r"(@|\\#|(?i:\bgh-))(?=\w)")


def as_markdown(report: Report) -> str:
    """
    Return whether the bounds were met, the summary, and what failed, each as a table.

    At most `LIMIT` characters: of what does not fit only the number is told.
    """
    title = f"## {_mark(report)}{_cell(report.title)}: {report.subject_count}"
    bounds = ([each.name, each.text, "❌ missed" if each.is_missed else "✅ met"] for each in report.bounds)
    scores = map(cells, report.summaries)
    problems = [f"- {_cell(problem)}" for problem in report.problems]
    parts = [
        [MARKER, title],
        _fitting(("bound", "found", ""), bounds, len(report.bounds), "bounds", _BOUNDS),
        _fitting(HEADINGS, scores, len(report.summaries), "scores", _SUMMARY) or ["No scores."],
        ["### Not read", "", *_cut(problems, len(problems), "problems", _PROBLEMS)] if problems else [],
    ]
    before = _joined(parts)
    return _joined([*parts, _failures(report, LIMIT - len(before) - 1)])


def _joined(parts: Iterable[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _mark(report: Report) -> str:
    if not report.bounds:
        return ""
    return "❌ " if report.is_missed else "✅ "


def _failures(report: Report, size: int) -> list[str]:
    failures = report.totals.failures
    if not failures:
        return []
    title = f"Failures and errors ({failures})"
    is_folded = failures > _MAX_SHOWN
    head = ["<details>", f"<summary>{title}</summary>", ""] if is_folded else [f"### {title}", ""]
    foot = ["", "</details>"] if is_folded else []
    rows = (
        [f"{row.subject.name} {row.where[:8]}".rstrip(), row.name, row.verdict, row.explanation]
        for row in report.first_failures(_MAX_FAILURES)
    )
    room = size - sum(len(line) + 1 for line in [*head, *foot])
    return [*head, *_fitting(("trace", "feedback", "verdict", "why"), rows, failures, "failures", room), *foot]


def _fitting(headings: Sequence[str], rows: Iterable[Sequence[str]], total: int, what: str, size: int) -> list[str]:
    """Return a table, as many lines of it as fit; nothing without rows."""
    lines = [_line([_cell(text) for text in row]) for row in rows]
    head = [_line(headings), _line(["---"] * len(headings))]
    return [*head, *_cut(lines, total, what, size - sum(len(line) + 1 for line in head))] if lines else []


def _cut(lines: Sequence[str], total: int, what: str, size: int) -> list[str]:
    """Return as many lines as fit, and how many of all are not there."""
    left_out = f"... and {total:,} more {what}."
    left = size - len(left_out) - 2
    shown: list[str] = []
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            break
        shown.append(line)
    more = total - len(shown)
    return [*shown, "", f"... and {more:,} more {what}."] if more else shown


def _line(cells_: Sequence[str]) -> str:
    return f"| {' | '.join(cells_)} |"


def _cell(text: str) -> str:
    """Return text that stands for itself in a table: traces hold what users typed."""
    escaped = _SPECIAL.sub(r"\\\1", one_line(text, _MAX_TEXT).replace("&", "&amp;"))
    return _REFERENCE.sub("\\1\N{ZERO WIDTH SPACE}", escaped)
