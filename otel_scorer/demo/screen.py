"""What the demo prints: traces as trees with their verdicts below, a table of sums, and what to try next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table
from rich.text import Text

from otel_scorer.demo.backend import verdict_of
from otel_scorer.reporting.plain_text import one_line, printable
from otel_scorer.reporting.report import shown
from otel_scorer.reporting.trace_tree import duration_text
from otel_scorer.scorers.text import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, JustifyMethod

    from otel_scorer.demo.backend import Verdict
    from otel_scorer.demo.tally import Tally
    from otel_scorer.model.trace import Span, Trace

__all__ = ["Screen", "shown_value"]

_TYPE_STYLES: Final = {
    "AGENT": "magenta",
    "CHAT_MODEL": "cyan",
    "LLM": "cyan",
    "RETRIEVER": "blue",
    "TOOL": "yellow",
    "UNKNOWN": "dim",
}
_LABEL_STYLES: Final = {"pass": "bold green", "fail": "bold red"}
_GUIDES: Final = ("├─ ", "└─ ", "│  ", "   ")
_ASCII_GUIDES: Final = ("|- ", "`- ", "|  ", "   ")
_FULL_ID_WIDTH: Final = 76
_ONE_LINE_WIDTH: Final = 100
_NARROW: Final = 64
_MAX_TEXT: Final = 600
_FULL_ID: Final = 16
_SHORT_ID: Final = 8
_GAP: Final = 2
_NAME_WIDTH: Final = 24
_MIN_NAME: Final = 12
_ALIGNMENT: Final[tuple[JustifyMethod, ...]] = ("left", "right", "left", "left")
_HEADINGS: Final = ("scored", "passed", "failed", "no value", "mean", "errors")
_SHORT_HEADINGS: Final = ("all", "pass", "fail", "none", "mean", "err")


class Screen:
    """
    Prints to a console, whatever it is: colours and the moving line only where it is a terminal.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def print_introduction(self, sidecar: str, backend: str) -> None:
        """Say what is going to be seen. The two addresses are `host:port`."""
        self._console.print(
            "[bold]otel_scorer demo[/]: an agent answers questions, and every trace of it is scored as it completes. "
            "[dim]The agent's model is a handful of rules: no key, no network. Everything below was read from what the "
            "backend received.[/]"
        )
        self._console.print()
        self._line(Text.assemble("  agent    ", ("OpenTelemetry SDK, OTLP/gRPC to the sidecar", "dim")))
        self._line(Text.assemble("  sidecar  ", (f"otel-scorer serve, at {sidecar}", "dim")))
        self._line(Text.assemble("  backend  ", (f"gets spans and verdicts over OTLP/gRPC, at {backend}", "dim")))

    def print_trace(self, trace: Trace) -> None:
        """Print one trace and its verdicts."""
        verdicts = [verdict_of(span) for span in trace.own_spans]
        self._console.print()
        self._line(Text.assemble(("trace ", "dim"), (trace.trace_id, "bold"), ("  " + _closing(trace), "dim")))
        for mark, value, side in (("asked     ", trace.inputs, "inputs"), ("answered  ", trace.outputs, "outputs")):
            if value is not None:
                self._console.print(Text.assemble((mark, "dim"), _clean(text_of(value, side))))
        self._console.print(self._tree(trace))
        if verdicts:
            self._print_verdicts(trace, verdicts)

    def print_totals(self, tally: Tally, traces: int) -> None:
        """Print the table of sums."""
        narrow = self._console.width < _NARROW
        self._console.print()
        self._line(Text(f"{traces} trace{'' if traces == 1 else 's'} scored", "bold"))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
        table.add_column("feedback", overflow="fold")
        for heading in _SHORT_HEADINGS if narrow else _HEADINGS:
            table.add_column(heading, justify="right", no_wrap=True)
        for name, totals in tally.by_name.items():
            judged = totals.passed or totals.failed
            table.add_row(
                _clean(name),
                str(totals.scored),
                Text(str(totals.passed), "green") if judged else "-",
                Text(str(totals.failed), "red" if totals.failed else "") if judged else "-",
                str(totals.no_value),
                "-" if totals.mean is None else f"{totals.mean:.3g}",
                Text(str(totals.errors), "yellow" if totals.errors else ""),
            )
        self._console.print(table)

    def print_next(self, steps: Iterable[tuple[str, str]]) -> None:
        """Print commands to try, each with what it does. They are never broken: they are there to be copied."""
        self._line(Text("What next", "bold"))
        for command, purpose in steps:
            self._line(Text(f"  {purpose}", "dim"))
            self._line(Text(f"    {command}", "cyan"))

    def print_problem(self, message: str) -> None:
        """Print what went wrong."""
        self._console.print(Text.assemble(("Problem: ", "bold red"), printable(message)), soft_wrap=True)

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _tree(self, trace: Trace) -> Table:
        narrow = self._console.width < _NARROW
        rows = list(_rows(trace, _ASCII_GUIDES if self._console.options.ascii_only else _GUIDES))
        facts = [_facts(span) if narrow else [*_facts(span), self._id(span.span_id)] for span, _ in rows]
        taken = sum(_GAP + max(map(len, column)) for column in zip(*facts, strict=True))
        table = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(_MIN_NAME, self._console.width - taken))
        for justify in _ALIGNMENT[: len(facts[0])] if facts else ():
            table.add_column(no_wrap=True, justify=justify)
        for (span, guide), cells in zip(rows, facts, strict=True):
            table.add_row(Text.assemble((guide, "dim"), _clean(span.name)), *cells)
        return table

    def _print_verdicts(self, trace: Trace, verdicts: Sequence[Verdict]) -> None:
        """Print a line for each verdict; where there is no room for it, the reason follows on lines of its own."""
        one_line = self._console.width >= _ONE_LINE_WIDTH
        table = Table.grid(padding=(0, _GAP, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=5, max_width=14)
        table.add_column(overflow="fold")
        if one_line:
            table.add_column(overflow="fold")
            table.add_column(no_wrap=True)
        for verdict in verdicts:
            name, why = Text(_clean(verdict.name), "bold"), _why(trace, verdict)
            if one_line:
                table.add_row(Text(*shown_value(verdict)), name, why, self._id(verdict.span_id))
            else:
                head = Text.assemble(name, " " * max(1, _NAME_WIDTH - len(name)), self._id(verdict.span_id))
                table.add_row(Text(*shown_value(verdict)), Text.assemble(head, "\n", why))
        self._console.print(table)

    def _id(self, span_id: str) -> Text:
        return Text(span_id[: self._id_width], "dim")

    @property
    def _id_width(self) -> int:
        return _FULL_ID if self._console.width >= _FULL_ID_WIDTH else _SHORT_ID


def shown_value(verdict: Verdict) -> tuple[str, str]:
    """
    Return a verdict's value as people read it, and its style.

    The rules are MLflow's: yes/no are Pass or Fail, everything else is itself; the style says whether it passed.
    """
    if verdict.error_type is not None:
        return "Error", "bold yellow"
    value = verdict.value
    if value is None:
        return shown(value), "dim"
    text = f"{value:.3g}" if isinstance(value, float) else _clean(shown(value))
    return text, _LABEL_STYLES.get(verdict.label or "", "bold")


def _facts(span: Span) -> list[Text]:
    code = span.status.status_code
    return [
        Text(span.span_type, _TYPE_STYLES.get(span.span_type, "green")),
        Text(duration_text(span.duration_ns)),
        Text(code, "bold red" if code == "ERROR" else "green"),
    ]


def _why(trace: Trace, verdict: Verdict) -> Text:
    why = Text(_clean(verdict.rationale))
    if verdict.error_type is not None:
        why = Text.assemble(f"{_clean(verdict.error_type)}: ", why)
    root = trace.root
    if verdict.target_id is not None and (root is None or root.span_id != verdict.target_id):
        names = [span.name for span in trace.search_spans(span_id=verdict.target_id)]
        why = Text.assemble((f"on {_clean(names[0]) if names else verdict.target_id}: ", "dim"), why)
    return why


def _closing(trace: Trace) -> str:
    if not trace.own_spans:
        return "no verdict arrived"
    complete = trace.own_spans[0].get_attribute("otel_scorer.complete")
    return f"{'complete' if complete else 'incomplete'}, closed by {trace.close_reason}"


def _rows(trace: Trace, guides: Sequence[str]) -> Iterator[tuple[Span, str]]:
    """Yield every span with the lines that lead to it, in pre-order."""
    branch, last, through, empty = guides
    todo = [(head, "", "") for head in reversed(trace.tree.heads)]
    while todo:
        span, own, below = todo.pop()
        yield span, own
        children = span.children
        todo += [
            (child, below + (last if index == 0 else branch), below + (empty if index == 0 else through))
            for index, child in enumerate(reversed(children))
        ]


def _clean(text: str) -> str:
    """Return text of a span so that it cannot move the cursor or fill the screen: it could be anything."""
    return one_line(text, _MAX_TEXT)
