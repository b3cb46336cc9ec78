"""The parts of a report that need no script: counts, the summary, bounds, and what could not be read, as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from otel_scorer.reporting.distribution import distribution
from otel_scorer.reporting.plain_text import printable
from otel_scorer.reporting.summary_cells import HEADINGS, cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otel_scorer.reporting.report import Report

__all__ = ["cell", "headline", "shown_text", "static_sections", "table"]


def shown_text(text: str) -> str:
    """Return text of anybody as HTML that stands for itself."""
    return escape(printable(text))


def headline(report: Report) -> str:
    """Return what there is, in counts."""
    missed = sum(bound.is_missed for bound in report.bounds)
    counts = [
        report.subject_count,
        _count(report.totals.rows, "verdict"),
        f"{report.totals.failed:,} failed",
        _count(report.error_count, "error"),
        *([f"{_count(missed, 'bound')} missed"] if missed else []),
    ]
    return " · ".join(counts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def static_sections(report: Report) -> Iterator[str]:
    """Yield a section each for the summary, the bounds and what could not be read; none for what there is not."""
    yield '<section aria-label="Summary">\n<h2>Summary</h2>\n'
    yield from _summary(report)
    yield "</section>\n"
    if report.bounds:
        yield '<section aria-label="Bounds">\n<h2>Bounds</h2>\n'
        marks = {True: '<td class="fail">✗ missed</td>', False: '<td class="pass">✓ met</td>'}
        bounds = ([cell(bound.name), cell(bound.text), marks[bound.is_missed]] for bound in report.bounds)
        yield from table(("bound", "found", "result"), bounds)
        yield "</section>\n"
    if report.problems:
        yield '<section aria-label="Not read">\n<h2>Not read</h2>\n<ul>\n'
        yield from (f"<li>{shown_text(problem)}</li>\n" for problem in report.problems)
        yield "</ul>\n</section>\n"


def _summary(report: Report) -> Iterator[str]:
    if not report.summaries:
        yield "<p>No scores.</p>\n"
        return
    rows: list[list[str]] = []
    for index, summary in enumerate(report.summaries):
        name, *found = cells(summary)
        head = f'<th scope="row" data-name="{index}">{shown_text(name)}</th>'
        rows.append([head, f"<td>{distribution(summary)}</td>", *map(cell, found)])
    yield from table((HEADINGS[0], "distribution", *HEADINGS[1:]), rows)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield a table; its cells are HTML already."""
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
    yield f'<div class="wide" tabindex="0" role="group" aria-label="{escape(headings[0])}s">\n'
    yield f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n"
    yield from (f"<tr>{''.join(row)}</tr>\n" for row in rows)
    yield "</tbody>\n</table>\n</div>\n"


def cell(text: str) -> str:
    """Return text of anybody as a cell."""
    return f"<td>{shown_text(text)}</td>"
