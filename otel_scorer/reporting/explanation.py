"""`inspect`: traces as otel_scorer understands them, a tree or JSON; with `--explain` also why, and what is wrong."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from otel_scorer.reporting.findings import find_problems
from otel_scorer.reporting.inspection import inspect_trace
from otel_scorer.reporting.plain_text import printable
from otel_scorer.reporting.provenance import instrumentations, sources
from otel_scorer.reporting.trace_tree import WIDE, origin_text, trace_tree, value_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from otel_scorer.dialects import ExplainingReader
    from otel_scorer.model.trace import Trace
    from otel_scorer.reporting.findings import Finding
    from otel_scorer.reporting.provenance import Source

__all__ = ["WIDE", "as_json", "as_text"]

_MARGIN: Final = 2
_WHOLE: Final = ("inputs", "outputs", "model", "session_id", "user_id", "tags")
_OWN_SPAN: Final = "the TOOL span"


def as_json(traces: Iterable[Trace], reader: ExplainingReader | None, duplicates: Mapping[str, int]) -> Iterator[str]:
    """
    Yield the text of a JSON list with an object for each trace.

    Args:
        traces: The traces.
        reader: Their reader, if everything is to be explained.
        duplicates: By trace id, copies of spans that were received again.
    """
    is_first = True
    for trace in traces:
        found = inspect_trace(trace, reader, duplicates=duplicates.get(trace.trace_id, 0))
        text = json.dumps(found, ensure_ascii=False, indent=2, default=str)
        yield ("[\n" if is_first else ",\n") + "\n".join(f"  {line}" for line in text.split("\n"))
        is_first = False
    yield "[]\n" if is_first else "\n]\n"


def as_text(
    traces: Iterable[Trace],
    reader: ExplainingReader | None,
    duplicates: Mapping[str, int],
    *,
    width: int = WIDE,
    color: bool = False,
) -> Iterator[str]:
    """
    Yield the lines of trees, one for each trace.

    Args:
        traces: The traces.
        reader: Their reader, if everything is to be explained.
        duplicates: By trace id, copies of spans that were received again.
        width: Columns that there are.
        color: Whether to use colours.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    for position, trace in enumerate(traces):
        with console.capture() as captured:
            if position:
                console.print()
            console.print(trace_tree(trace, reader, width=width))
            if reader is not None:
                for row in _explanation(trace, reader, duplicates.get(trace.trace_id, 0), width):
                    console.print(row)
        for line in captured.get().splitlines():
            yield f"{line.rstrip()}\n"


def _explanation(trace: Trace, reader: ExplainingReader, duplicates: int, width: int) -> Iterator[Text | Padding]:
    if made := instrumentations(trace):
        yield Text("\nSpans from", style="bold")
    for each in made:
        name = " ".join(filter(None, (printable(each["scope"]) or "no scope", printable(each["version"]))))
        speaks = ", ".join(each["dialects"]) or "no known dialect"
        number = "1 span" if each["spans"] == 1 else f"{each['spans']} spans"
        yield _indented(Text.assemble(name, (f"  {number}, {speaks}", "dim")))
    said = [source for source in sources(trace, reader) if source.origin is not None]
    room = width - _MARGIN
    rows = [
        value_row(field.removesuffix("_id"), source.derivation.value, _place(source), room)
        for field in _WHOLE
        for source in said
        if source.derivation.field == field
    ]
    rows += [*_tokens(trace, said, room), *_parts(trace, said, room)]
    if rows:
        yield Text("\nThe trace as a whole", style="bold")
        yield from map(_indented, rows)
    problems = find_problems(trace, reader, duplicates=duplicates)
    if problems:
        yield Text("\nFindings", style="bold")
        for finding in problems:
            yield from _finding(finding)


def _indented(text: Text, more: int = 0) -> Padding:
    return Padding(text, (0, 0, 0, _MARGIN + more), expand=False)


def _place(source: Source) -> str:
    """Say why a span counts, which one it is, and where it says the value."""
    if source.origin is None or source.derivation.span is None:
        return "nothing"
    span = source.derivation.span
    return f"{source.derivation.rule}: {printable(span.name)!r}, {origin_text(source.origin)}"


def _tokens(trace: Trace, said: Sequence[Source], width: int) -> Iterator[Text]:
    usage = trace.usage
    if usage is None:
        return
    for field, total in (("input_tokens", usage.input_tokens), ("output_tokens", usage.output_tokens)):
        places = [
            f"{each.derivation.rule}, {origin_text(each.origin)}"
            for each in said
            if each.derivation.field.endswith(f".{field}") and each.origin is not None
        ]
        where = "; ".join(f"{places.count(place)} x {place}" for place in dict.fromkeys(places))
        if total is not None:
            yield value_row(field.replace("_", " "), total, where, width)


def _parts(trace: Trace, said: Sequence[Source], width: int) -> Iterator[Text]:
    """Say of tool calls what does not come from their own span, and of documents and verdicts where they are."""
    calls = trace.tool_calls
    for source in said:
        kind, _, rest = source.derivation.field.partition(".")
        number, _, detail = rest.partition(".")
        if kind == "tool_calls" and source.derivation.rule != _OWN_SPAN:
            label = f"{kind[:-1].replace('_', ' ')} {printable(calls[int(number)].name)}, {detail.replace('_', ' ')}"
            yield value_row(label, source.derivation.value, _place(source), width)
        elif kind == "documents":
            yield value_row("documents", source.derivation.value, _place(source), width)
        elif kind == "evaluations":
            verdict = trace.evaluations[int(number)]
            value = next(
                (said for said in (verdict.value, verdict.label, verdict.error_type) if said is not None), None
            )
            yield value_row(f"evaluation {printable(verdict.name)}", value, _place(source), width)


def _finding(finding: Finding) -> Iterator[Padding]:
    mark, style = ("!", "bold yellow") if finding.is_problem else ("-", "dim")
    yield _indented(Text.assemble((mark, style), " ", printable(finding.text)))
    if finding.hint:
        yield _indented(Text.assemble(("-> ", "dim"), (printable(finding.hint), "green")), 2)
