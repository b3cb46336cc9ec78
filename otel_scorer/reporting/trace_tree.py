"""Traces as trees for a terminal (`inspect`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rich.text import Text
from rich.tree import Tree

from otel_scorer.reporting.inspection import explained
from otel_scorer.reporting.plain_text import one_line, printable

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span, ToolCall, Trace
    from otel_scorer.reporting.inspection import Explainer

__all__ = ["duration_text", "trace_tree"]

_MAX_ARGUMENTS: Final = 60
_MAX_VALUE: Final = 100
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


def trace_tree(trace: Trace, explainer: Explainer | None = None) -> Tree:
    """
    Return a trace as a tree: names, types, durations, statuses, and what the tools were asked.

    Args:
        trace: The trace.
        explainer: Adds to each span where its values are read from.
    """
    calls = {call.span.span_id: call for call in trace.tool_calls}
    tree = Tree(_heading(trace), guide_style="dim")
    branches: list[Tree] = [tree]
    for span, depth in trace.tree.walk():
        del branches[depth + 1 :]
        branch = branches[depth].add(_line(span, calls.get(span.span_id)))
        branches.append(branch)
        if explainer is not None:
            for field, origin in explained(span, explainer).items():
                value = _short(span.span_type if field == "span_type" else span.read(field), _MAX_VALUE)
                place = f" ({origin.dialect}: {printable(origin.key)})"
                branch.add(Text.assemble((field, "bold"), (place, "dim"), f" {value}"))
    return tree


def _heading(trace: Trace) -> Text:
    facts = [trace.service_name, ", ".join(trace.dialects) or "no known dialect"]
    if trace.model:
        facts.append(trace.model)
    if (usage := trace.usage) is not None:
        facts.append(f"{usage.input_tokens} + {usage.output_tokens} tokens")
    if not trace.is_complete:
        facts.append("incomplete")
    return Text.assemble((trace.trace_id, "bold"), (f"  {printable(', '.join(filter(None, facts)))}", "dim"))


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
