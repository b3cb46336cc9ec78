"""Reports for a terminal: a summary per scorer, then what failed and why."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from otel_scorer.reporting.plain_text import printable
from otel_scorer.reporting.summary_cells import HEADINGS, cells

if TYPE_CHECKING:
    from otel_scorer.reporting.report import Report, Row

__all__ = ["as_table"]

_MAX_FAILURES: Final = 50
_MAX_LINES: Final = 6
_MAX_TEXT: Final = 5_000
_STYLES: Final = {"pass": "green", "fail": "red", "errors": "bold red", "no value": "dim", "other": "dim"}


def as_table(report: Report, *, width: int = 100, color: bool = False) -> str:
    """
    Return text for a terminal.

    Args:
        report: The report.
        width: Columns.
        color: Whether to colour it (ANSI).
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    with console.capture() as captured:
        _print(console, report)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _print(console: Console, report: Report) -> None:
    scorers = len({summary.scorer for summary in report.summaries})
    console.print(Text(f"{report.subject_count}, {_count(scorers, 'scorer')}", style="bold"))
    if report.summaries:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading in HEADINGS:
            table.add_column(heading, style=_STYLES.get(heading), overflow="fold")
        for summary in report.summaries:
            table.add_row(*(Text(printable(cell)) for cell in cells(summary)))
        console.print(Padding(table, (1, 0, 0, 0)))
    failures = report.totals.failures
    if failures:
        console.print()
        console.print(Text(f"Failures and errors ({failures})", style="bold"))
    for row in report.first_failures(_MAX_FAILURES):
        _print_failure(console, row)
    if failures > _MAX_FAILURES:
        console.print(Text(f"... and {failures - _MAX_FAILURES} more; --format jsonl has them all", style="dim"))
    if report.bounds:
        console.print()
    for bound in report.bounds:
        mark = Text("missed", style="bold red") if bound.is_missed else Text("met   ", style="green")
        console.print(Text.assemble("bound ", mark, f"  {bound.name}: {bound.text}"))


def _print_failure(console: Console, row: Row) -> None:
    style = "bold red" if row.is_error else "red"
    where = f"  {printable(row.subject.name)}  {row.where}".rstrip()
    console.print(
        Text.assemble("  ", (printable(row.verdict), style), f"  {printable(row.name)}", (where, "dim")), soft_wrap=True
    )
    lines = printable(row.explanation[:_MAX_TEXT]).splitlines()
    shown = lines[:_MAX_LINES] + (["..."] if len(lines) > _MAX_LINES else [])
    for line in shown:
        console.print(Padding(Text(line), (0, 0, 0, 6)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
