"""Calls of tools: nested spans of one call merged, what a span does not say taken from the model that asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

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
    groups = _merge([span for span in trace.spans if span.span_type == SpanType.TOOL])
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


def _merge(spans: Iterable[Span]) -> list[_Group]:
    groups: dict[int, _Group] = {}
    ordered: list[_Group] = []
    for span in spans:
        name = _name(span)
        above = _outer(span)
        group = groups.get(id(above)) if above is not None else None
        if group is not None and group.name == name:
            group.spans.append(span)
        else:
            group = _Group(name, [span])
            ordered.append(group)
        groups[id(span)] = group
    return ordered


def _name(span: Span) -> str:
    name = span.read("tool_name")
    return name if is_text(name) else span.name


def _outer(span: Span) -> Span | None:
    """Return the nearest TOOL span above that may be the same call."""
    parent = span.parent
    while parent is not None and parent.span_type not in _DECIDERS:
        if parent.span_type == SpanType.TOOL:
            return parent
        parent = parent.parent
    return None


def _join(groups: Sequence[_Group], llm_spans: Sequence[Span]) -> None:
    """Fill in arguments and call ids from the models' answers: by id, else the next unused call of the same name."""
    asked = _asked(llm_spans)
    by_id = {call.call_id: call for call in asked if call.call_id is not None}
    told = {call.call_id: call for call in _history(llm_spans) if call.call_id is not None}
    for group in groups:
        call = None if group.call_id is None else by_id.get(group.call_id) or told.get(group.call_id)
        if call is not None:
            call.used = True
            _fill(group, call)
    for group in groups:
        if group.call_id is None:
            call = next((call for call in asked if call.name == group.name and not call.used), None)
            if call is not None:
                call.used = True
                _fill(group, call)


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
