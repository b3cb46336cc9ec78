"""Calls of tools: nested spans of one call merged, what a span does not say taken from the model that asked for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_scorer.dialects.ancestry import nearest_above
from otel_scorer.dialects.values import arguments, is_dict, is_text
from otel_scorer.model.trace import MISSING, SpanType, ToolCall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_scorer.model.trace import Message, Span, Trace

__all__ = ["find_tool_calls"]

# Between two spans of one call there may be a transport, but nobody who decides to call the tool once more.
_DECIDERS: Final = frozenset({SpanType.AGENT, SpanType.WORKFLOW, SpanType.LLM, SpanType.CHAT_MODEL})


@dataclass(slots=True)
class _Group:
    """The TOOL spans of one call, the outermost first, and what they say together."""

    name: str
    spans: list[Span]
    args: object = MISSING
    call_id: str | None = None

    def read(self, field: str) -> object:
        """Return what the outermost span says that says anything."""
        said = (span.read(field) for span in self.spans)
        return next((value for value in said if value is not MISSING), MISSING)


@dataclass(slots=True)
class _Asked:
    """A tool call in a model's answer."""

    call_id: str | None
    name: str
    args: object
    used: bool = False


def find_tool_calls(trace: Trace, llm_spans: Sequence[Span]) -> list[ToolCall]:
    """Return the trace's calls of tools, by start of their outermost span."""
    groups = _merge(trace)
    for group in groups:
        group.args = group.read("tool_args")
        call_id = group.read("tool_call_id")
        group.call_id = call_id if is_text(call_id) else None
    if any(group.args is MISSING or group.call_id is None for group in groups):
        _join(groups, llm_spans)
    return [
        ToolCall(
            group.name,
            None if group.args is MISSING else group.args,
            tool_result(group.read("tool_result")),
            group.spans[0].failed,
            group.call_id,
            group.spans[0],
        )
        for group in groups
    ]


def tool_result(value: object) -> object:
    """Return a tool's result without the envelope of its framework: a LangChain message, LangSmith's `output`."""
    if value is MISSING:
        return None
    if is_dict(value) and set(value) == {"output"}:
        value = value["output"]
    if not is_dict(value):
        return value
    for key in ("kwargs", "data"):
        inner = value.get(key)
        if is_dict(inner) and "tool_call_id" in inner:
            value = inner
    return value["content"] if "tool_call_id" in value and "content" in value else value


def _merge(trace: Trace) -> list[_Group]:
    outer = nearest_above(trace, lambda span: span.span_type == SpanType.TOOL, lambda span: span.span_type in _DECIDERS)
    groups: dict[int, _Group] = {}
    ordered: list[_Group] = []
    for span, _ in trace.tree.walk():
        if span.span_type != SpanType.TOOL:
            continue
        name = _name(span)
        above = outer.get(id(span))
        group = None if above is None else groups[id(above)]
        if group is not None and group.name == name:
            group.spans.append(span)
        else:
            group = _Group(name, [span])
            ordered.append(group)
        groups[id(span)] = group
    return sorted(ordered, key=lambda group: group.spans[0].start_time_ns)


def _name(span: Span) -> str:
    name = span.read("tool_name")
    return name if is_text(name) else span.name


def _join(groups: Sequence[_Group], llm_spans: Sequence[Span]) -> None:
    """Fill in arguments and call ids from the models' answers: by id, else the next unused call of the same name."""
    asked = _asked(llm_spans)
    by_id = {call.call_id: call for call in asked if call.call_id is not None}
    if any(group.call_id not in by_id for group in groups if group.call_id is not None and group.args is MISSING):
        by_id = {call.call_id: call for call in _history(llm_spans) if call.call_id is not None} | by_id
    for group in groups:
        call = None if group.call_id is None else by_id.get(group.call_id)
        if call is not None:
            call.used = True
            _fill(group, call)
    unused: dict[str, deque[_Asked]] = {}
    for call in asked:
        if not call.used:
            unused.setdefault(call.name, deque()).append(call)
    for group in groups:
        if group.call_id is None and unused.get(group.name):
            _fill(group, unused[group.name].popleft())


def _fill(group: _Group, call: _Asked) -> None:
    group.call_id = group.call_id or call.call_id
    if group.args is MISSING and call.args is not None:
        group.args = call.args


def _asked(llm_spans: Sequence[Span]) -> list[_Asked]:
    """Return the tool calls in the models' answers, in order; nested LLM spans tell the same ones."""
    return _distinct(message for span in llm_spans for message in span.read("chat_outputs"))


def _history(llm_spans: Sequence[Span]) -> list[_Asked]:
    """Return the tool calls in what models were told of earlier answers, for where answers were not recorded."""
    return _distinct(
        message for span in llm_spans for message in span.read("chat_inputs") if message.role == "assistant"
    )


def _distinct(messages: Iterable[Message]) -> list[_Asked]:
    found: list[_Asked] = []
    seen: set[object] = set()
    for message in messages:
        for call in message.tool_calls:
            call_id = call.get("id")
            if call_id is not None and call_id in seen:
                continue
            seen.add(call_id)
            given = arguments(call.get("arguments"))
            found.append(_Asked(call_id if is_text(call_id) else None, str(call.get("name", "")), given))
    return found
