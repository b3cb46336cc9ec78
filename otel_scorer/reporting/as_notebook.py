"""Reports as notebooks show them (`_repr_html_`): the summary and the first failures, small and without a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_scorer.reporting.plain_text import one_line
from otel_scorer.reporting.static_html import cell, headline, shown_text, static_sections, table

if TYPE_CHECKING:
    from otel_scorer.reporting.report import Report

__all__ = ["as_notebook"]

_MAX_FAILURES: Final = 20
_MAX_TEXT: Final = 300
# A notebook has styles of its own, light or dark: this takes its text colour and background as they are.
_STYLE: Final = """
.otel-scorer table { border-collapse: collapse; margin: .3rem 0; }
.otel-scorer th, .otel-scorer td { text-align: left; vertical-align: middle; padding: .25rem .7rem .25rem 0; }
.otel-scorer h2 { font-size: 1.05em; margin: .8rem 0 .2rem; }
.otel-scorer .pass { color: #1f883d; fill: #1f883d; } .otel-scorer .fail { color: #d1242f; fill: #d1242f; }
.otel-scorer .error { color: #9a6700; fill: #9a6700; } .otel-scorer .value { fill: #0969da; }
.otel-scorer .none { fill: #818b98; } .otel-scorer .wide { overflow-x: auto; }
"""


def as_notebook(report: Report) -> str:
    """Return a piece of HTML for `_repr_html_`."""
    parts = [f'<div class="otel-scorer">\n<style>{_STYLE}</style>\n']
    parts.append(f"<p><strong>{shown_text(report.title)}</strong>: {headline(report)}</p>\n")
    parts += static_sections(report)
    failures = report.totals.failures
    if failures:
        rows = [
            [
                cell(row.subject.name),
                cell(row.name),
                f'<td class="{"error" if row.is_error else "fail"}">{shown_text(one_line(row.verdict, 60))}</td>',
                cell(one_line(row.explanation, _MAX_TEXT)),
            ]
            for row in report.first_failures(_MAX_FAILURES)
        ]
        parts.append("<h2>Failures and errors</h2>\n")
        parts += table(("trace", "feedback", "verdict", "why"), rows)
    if failures > _MAX_FAILURES:
        parts.append(f"<p>... and {failures - _MAX_FAILURES:,} more: <code>to_html(path)</code> has them.</p>\n")
    return "".join([*parts, "</div>\n"])
