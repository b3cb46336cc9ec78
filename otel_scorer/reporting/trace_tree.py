"""Traces as trees for a terminal (`inspect`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text
from rich.tree import Tree

from otel_scorer.reporting.plain_text import one_line, printable
from otel_scorer.reporting.provenance import span_origins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.dialects import ExplainingReader
    from otel_scorer.dialects.witness import Origin
    from otel_scorer.model.trace import Span, ToolCall, Trace, Usage

__all__ = ["INDENT", "WIDE", "duration_text", "origin_text", "trace_tree", "value_row"]

WIDE: Final = 2000
"""Columns where nothing has to be cut: in a file or a pipe."""

INDENT: Final = 4
"""Columns of one level of the tree."""

_MAX_ARGUMENTS: Final = 60
_MAX_VALUE: Final = 100
_LEAST: Final = 24
_ROOM: Final = 40
_GAPS: Final = 6
# Said once for the trace, and recorded on many spans.
_OF_THE_TRACE: Final = frozenset({"session_id", "user_id", "tags", "metadata"})
_TOOL_SIDES: Final = frozenset({"inputs", "outputs"})
_LABELS: Final = {"span_type": "type", "tool_args": "arguments", "tool_result": "result", "tool_call_id": "call id"}
_MICROSECOND: Final = 1_000
_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_TYPE_STYLES: Final = {
    "AGENT": "magenta",
    "CHAT_MODEL": "cyan",
    "EMBEDDING": "cyan",
    "GUARDRAIL": "yellow",
    "LLM": "cyan",
    "RETRIEVER": "blue",
    "TOOL": "yellow",
    "UNKNOWN": "dim",
}


def trace_tree(trace: Trace, reader: ExplainingReader | None = None, *, width: int = WIDE) -> Tree:
    """
    Return a trace as a tree: names, types, durations, statuses, and what the tools were asked.

    Args:
        trace: The trace.
        reader: The reader of the trace: adds to each span what its values are read from.
        width: Columns that there are.
    """
    calls = {call.span.span_id: call for call in trace.tool_calls}
    tree = Tree(_heading(trace), guide_style="dim")
    branches: list[Tree] = [tree]
    # What is deeper than there is room for is shown at the last level that there is, with its depth.
    deepest = max(1, (width - _ROOM) // INDENT)
    for span, depth in trace.tree.walk():
        level = min(depth, deepest)
        del branches[level + 1 :]
        line = _line(span, calls.get(span.span_id))
        if depth > deepest:
            line = Text.assemble((f"[level {depth}] ", "dim"), line)
        branch = branches[level].add(line)
        branches.append(branch)
        if reader is not None:
            for row in _rows(span, reader, width - INDENT * (level + 2)):
                branch.add(row)
    return tree


def _rows(span: Span, reader: ExplainingReader, width: int) -> Iterator[Text]:
    for field, origin in span_origins(span, reader).items():
        if field in _OF_THE_TRACE or (field in _TOOL_SIDES and span.span_type == "TOOL"):
            continue
        if field == "span_type":
            value: Any = span.span_type
        elif field == "status":
            value = str(span.status.status_code)
        else:
            value = span.read(field)
        yield value_row(_LABELS.get(field, field.replace("_", " ")), value, origin_text(origin), width)


def origin_text(origin: Origin) -> str:
    """Return an origin in words."""
    return printable(origin.key if origin.dialect == "common" else f"{origin.dialect}: {origin.key}")


def value_row(label: str, value: object, source: str, width: int) -> Text:
    """
    Return a value with what it was read from, on one line if there is room, else on two.

    Args:
        label: What it is.
        value: The value; it is cut to fit.
        source: What it was read from.
        width: Columns that there are.
    """
    shown = _short(value, _MAX_VALUE)
    room, between = width - len(label) - len(source) - _GAPS, "  "
    if room < min(_LEAST, len(shown)):
        room, between = max(_LEAST, width - len(label) - 2), "\n  "
    shown = one_line(shown, room) if len(shown) > room else shown
    return Text.assemble((label, "bold"), "  ", shown, between, (f"< {source}", "dim"))


def _heading(trace: Trace) -> Text:
    facts = [trace.service_name, ", ".join(trace.dialects) or "no known dialect"]
    if trace.model:
        facts.append(trace.model)
    if (usage := trace.usage) is not None:
        facts.append(_tokens(usage))
    if not trace.is_complete:
        facts.append("incomplete")
    return Text.assemble((trace.trace_id, "bold"), (f"  {printable(', '.join(filter(None, facts)))}", "dim"))


def _tokens(usage: Usage) -> str:
    if usage.input_tokens is None and usage.output_tokens is None:
        return f"{usage.total_tokens} tokens"
    sides = ("?" if count is None else str(count) for count in (usage.input_tokens, usage.output_tokens))
    return f"{' + '.join(sides)} tokens"


def _line(span: Span, call: ToolCall | None) -> Text:
    line = Text.assemble(
        printable(span.name),
        "  ",
        (span.span_type, _TYPE_STYLES.get(span.span_type, "green")),
        (f"  {duration_text(span.duration_ns)}", "dim"),
    )
    if call is not None and call.arguments is not None:
        line.append(f"  {_short(call.arguments, _MAX_ARGUMENTS)}")
    if span.failed:
        message = span.status.description or str(span.get_attribute("error.type") or "")
        line.append(f"  ERROR {one_line(message, _MAX_VALUE)}".rstrip(), style="bold red")
    return line


def duration_text(nanoseconds: int) -> str:
    """Return a duration with a unit that suits it: `1.25 s`, `12.3 ms`."""
    for size, unit in ((_SECOND, "s"), (_MILLISECOND, "ms"), (_MICROSECOND, "us")):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds} ns"


def _short(value: Any, limit: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return one_line(text, limit)
