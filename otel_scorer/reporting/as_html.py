"""Reports as one HTML file that needs no network and no script: open it, mail it, keep it as an artifact."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from otel_scorer.reporting.summary_cells import HEADINGS, cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otel_scorer.reporting.report import Report, Row

__all__ = ["as_html"]

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; --pass: #1a7f37; --fail: #cf222e; --error: #9a6700; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--dim); }
td.why { white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-size: .85em; color: var(--dim); }
.pass { color: var(--pass); } .fail { color: var(--fail); font-weight: 600; }
.error { color: var(--error); font-weight: 600; } .none { color: var(--dim); }
summary { cursor: pointer; } pre { overflow: auto; font-size: .85em; }
"""


def as_html(report: Report) -> str:
    """Return a whole HTML document."""
    return "\n".join(_document(report)) + "\n"


def _document(report: Report) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>otel-scorer</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f"<h1>{escape(report.title)}: {report.subject_count}</h1>"
    yield from _table(HEADINGS, ([_cell(text) for text in cells(summary)] for summary in report.summaries))
    if report.bounds:
        yield "<h2>Bounds</h2>"
        marks = {True: '<td class="fail">missed</td>', False: '<td class="pass">met</td>'}
        rows = ([_cell(bound.name), _cell(bound.text), marks[bound.is_missed]] for bound in report.bounds)
        yield from _table(("bound", "found", ""), rows)
    if report.failures:
        yield f"<h2>Failures and errors ({len(report.failures)})</h2>"
        yield from _rows(report.failures)
    if report.problems:
        yield "<h2>Not read</h2>\n<ul>"
        yield from (f"<li>{escape(problem)}</li>" for problem in report.problems)
        yield "</ul>"
    yield f"<h2>All verdicts ({len(report.rows)})</h2>"
    yield from _rows(report.rows)
    yield "</body>\n</html>"


def _rows(rows: Sequence[Row]) -> Iterator[str]:
    yield from _table(("trace", "feedback", "verdict", "why"), map(_row, rows))


def _row(row: Row) -> list[str]:
    name = row.name if row.name == row.scorer else f"{row.name} ({row.scorer})"
    return [
        f"<td>{escape(row.subject.name)}<br><code>{escape(row.where)}</code></td>",
        _cell(name),
        f'<td class="{_class(row)}">{escape(row.verdict)}</td>',
        f'<td class="why">{escape(row.explanation)}{_stack(row)}</td>',
    ]


def _class(row: Row) -> str:
    if row.is_error:
        return "error"
    return {True: "pass", False: "fail", None: "none" if row.feedback is None else ""}[row.passed]


def _stack(row: Row) -> str:
    error = None if row.feedback is None else row.feedback.error
    if error is None or not error.stack_trace:
        return ""
    return f"<details><summary>stack trace</summary><pre>{escape(error.stack_trace)}</pre></details>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"<table>\n<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in headings)}</tr></thead>\n<tbody>"
    yield from (f"<tr>{''.join(row)}</tr>" for row in rows)
    yield "</tbody>\n</table>"


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"
