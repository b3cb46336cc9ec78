"""Calls of tools: nested spans of one call merged, what a span does not say taken from the model that asked for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.dialects.values import arguments, is_dict, is_text, text_of
from otel_scorer.model.trace import MISSING, SpanType, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from otel_scorer.model.tool_call import CallDetail
    from otel_scorer.model.trace import Message, Span, Trace

__all__ = ["explain_tool_call", "find_tool_calls"]

# Between two spans of one call there may be a transport, but nobody who decides to call the tool once more.
_DECIDERS: Final = frozenset({SpanType.AGENT, SpanType.WORKFLOW, SpanType.LLM, SpanType.CHAT_MODEL})

_TOOL: Final = SpanType.TOOL

_Members: TypeAlias = "tuple[str, list[Span]]"
"""The name of a call and its TOOL spans, the outermost first."""

_FIELDS: Final[Mapping[CallDetail, str]] = {
    "arguments": "tool_args",
    "result": "tool_result",
    "call_id": "tool_call_id",
}

# What google-adk 1 calls a span that answers several calls at once: no model asked for it, and it repeats them.
_NO_CALL: Final = "(merged tools)"


@dataclass(slots=True)
class _Asked:
    """A tool call in a model's answer."""

    call_id: str | None
    name: str
    args: object
    span: Span
    said_in: str
    used: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    """One call, for which an answer is looked for."""

    name: str
    spans: Sequence[Span]

    @property
    def args(self) -> object:
        """The arguments that the spans say, or MISSING."""
        return _said(self.spans, "tool_args")[0]

    @property
    def call_id(self) -> str | None:
        """The model's id of the call, if the spans say it."""
        call_id = _said(self.spans, "tool_call_id")[0]
        return call_id if is_text(call_id) else None


class _Calls:
    """
    All calls of a trace: what their spans say, else the models' answers, joined when that is first asked for.

    Implements `CallSource`. It knows no `ToolCall`: what points at each other is freed by nobody but the garbage
    collector, and all spans with it.

    Args:
        members: Name and TOOL spans of each call, the outermost first.
        find_models: Returns the trace's model spans; called once.
    """

    __slots__ = ("_find_models", "_matches", "_members")

    def __init__(self, members: Sequence[_Members], find_models: Callable[[], Sequence[Span]]) -> None:
        self._members = members
        self._find_models = find_models
        self._matches: dict[Span, _Asked] | None = None

    def find(self, spans: Sequence[Span], detail: CallDetail) -> object:
        field = _FIELDS[detail]
        value = spans[0].read(field)
        if value is MISSING and len(spans) > 1:
            value = _said(spans, field)[0]
        if detail == "result":
            return tool_result(value)
        if detail == "arguments":
            return self.explain_arguments(spans)[0] if value is MISSING else value
        return value if is_text(value) else self.explain_call_id(spans)[0]

    def explain_arguments(self, spans: Sequence[Span]) -> tuple[object, Span | None, str, str]:
        """Return the arguments of the call with these spans, and the span and field that say them and why."""
        args, span = _said(spans, "tool_args")
        if span is not None:
            return args, span, "tool_args", _reason(spans, span)
        asked = self._about(spans)
        return (None, None, "", "") if asked is None else (asked.args, *_joined(asked))

    def explain_call_id(self, spans: Sequence[Span]) -> tuple[str | None, Span | None, str, str]:
        """Likewise the model's id of the call."""
        call_id, span = _said(spans, "tool_call_id")
        if is_text(call_id):
            return call_id, span, "tool_call_id", _reason(spans, span)
        asked = self._about(spans)
        return (None, None, "", "") if asked is None else (asked.call_id, *_joined(asked))

    def _about(self, spans: Sequence[Span]) -> _Asked | None:
        """Return what a model said when it asked for the call, if that can be told."""
        matches = self._matches
        if matches is None:
            joined = _join([_Call(name, spans) for name, spans in self._members], self._find_models())
            matches = self._matches = {call.spans[0]: asked for call, asked in joined.items()}
        return matches.get(spans[0])


def _said(spans: Sequence[Span], field: str) -> tuple[object, Span | None]:
    """Return what the outermost span says that says anything, and that span."""
    for span in spans:
        value = span.read(field)
        if value is not MISSING:
            return value, span
    return MISSING, None


def _reason(spans: Sequence[Span], span: Span | None) -> str:
    """Say which span of the call it is."""
    if span is spans[0]:
        return "the TOOL span"
    return "" if span is None else "a TOOL span of the same call, nested in it"


def _joined(asked: _Asked) -> tuple[Span, str, str]:
    return asked.span, asked.said_in, "joined from the model's messages"


def explain_tool_call(call: ToolCall) -> dict[str, tuple[object, Span | None, str, str]]:
    """Return, for each detail of a call, its value (MISSING: none), the span and the field that say it, and why."""
    source, spans = call.source, call.spans
    if not isinstance(source, _Calls):
        return {}
    name, named = _said(spans, "tool_name")
    result, returned = _said(spans, "tool_result")
    found: dict[str, tuple[object, Span | None, str, str]] = {
        "name": (
            (name, named, "tool_name", _reason(spans, named))
            if is_text(name)
            else (call.name, call.span, "the span's name", "nothing else names the tool")
        ),
        "arguments": source.explain_arguments(spans),
        "result": (tool_result(result), returned, "tool_result", _reason(spans, returned)),
        "call_id": source.explain_call_id(spans),
    }
    return {
        detail: (MISSING if said[1] is None else said[0], said[1], said[2], said[3]) for detail, said in found.items()
    }


def find_tool_calls(trace: Trace, find_models: Callable[[], Sequence[Span]]) -> list[ToolCall]:
    """
    Return the trace's calls of tools, by start of their outermost span.

    Args:
        trace: The trace.
        find_models: Returns its model spans; called once, when a call is asked for what its own spans do not say.
    """
    members = _merge(trace)
    source = _Calls(members, find_models)
    return [ToolCall(name, spans, source) for name, spans in members]


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


def _merge(trace: Trace) -> list[_Members]:
    """Find the calls of tools, by start: a TOOL span below one of the same tool belongs to its call."""
    calls: list[_Members] = []
    # By depth, down to the span that was walked last: the call that what is below would belong to.
    above: list[_Members | None] = []
    for span, depth in trace.tree.walk():
        call = above[depth - 1] if depth else None
        kind = span.span_type
        if kind == _TOOL:
            name = _name(span)
            if name == _NO_CALL:
                pass
            elif call is not None and call[0] == name:
                call[1].append(span)
            else:
                call = name, [span]
                calls.append(call)
        elif call is not None and kind in _DECIDERS:
            call = None
        above[depth:] = (call,)
    calls.sort(key=lambda call: call[1][0].start_time_ns)
    return calls


def _name(span: Span) -> str:
    name = span.read("tool_name")
    return name if is_text(name) else span.name


def _join(calls: Sequence[_Call], llm_spans: Sequence[Span]) -> dict[_Call, _Asked]:
    """
    Find each call in the models' answers: by id, else the next unused call of the same name.

    Of several unused ones the one with the same arguments: parallel calls may start in any order.
    """
    asked = _asked(llm_spans)
    by_id = {each.call_id: each for each in asked if each.call_id is not None}
    ids = {call: call.call_id for call in calls}
    if any(call_id not in by_id and call.args is MISSING for call, call_id in ids.items() if call_id is not None):
        by_id = {each.call_id: each for each in _history(llm_spans) if each.call_id is not None} | by_id
    matches: dict[_Call, _Asked] = {}
    for call, call_id in ids.items():
        if call_id in by_id:
            matches[call] = by_id[call_id]
            by_id[call_id].used = True
    _join_by_name([call for call in calls if call not in matches], asked, matches)
    return matches


def _join_by_name(calls: Sequence[_Call], asked: Sequence[_Asked], matches: dict[_Call, _Asked]) -> None:
    by_name: dict[str, deque[_Asked]] = {}
    by_arguments: dict[tuple[str, str], deque[_Asked]] = {}
    for each in asked:
        if not each.used:
            by_name.setdefault(each.name, deque()).append(each)
            for key in _keys(each.args):
                by_arguments.setdefault((each.name, key), deque()).append(each)
    for call in calls:
        if call.name in by_name and call.args is not MISSING:
            _take(by_arguments.get((call.name, _canonical(call.args))), call, matches)
    for call in calls:
        # A call that says its id and its arguments needs nothing, and would take it from one that does.
        if call not in matches and (call.call_id is None or call.args is MISSING):
            _take(by_name.get(call.name), call, matches)


def _take(unused: deque[_Asked] | None, call: _Call, matches: dict[_Call, _Asked]) -> None:
    """Join a call with the first that is unused."""
    while unused:
        each = unused.popleft()
        if not each.used:
            each.used = True
            matches[call] = each
            return


def _keys(args: object) -> Iterator[str]:
    """Yield the arguments as text, as tools record them: LangChain's have the bare value if there is but one."""
    yield _canonical(args)
    if is_dict(args) and len(args) == 1:
        yield from map(_canonical, args.values())


def _canonical(value: object) -> str:
    """Return arguments as text in which the order of their names makes no difference."""
    return text_of(dict(sorted(value.items())) if is_dict(value) else value)


def _asked(llm_spans: Sequence[Span]) -> list[_Asked]:
    """Return the tool calls in the models' answers, in order; nested LLM spans tell the same ones."""
    return _distinct(((span, message) for span in llm_spans for message in span.read("chat_outputs")), "chat_outputs")


def _history(llm_spans: Sequence[Span]) -> list[_Asked]:
    """Return the tool calls in what models were told of earlier answers, for where answers were not recorded."""
    return _distinct(
        ((span, message) for span in llm_spans for message in span.read("chat_inputs") if message.role == "assistant"),
        "chat_inputs",
    )


def _distinct(messages: Iterable[tuple[Span, Message]], said_in: str) -> list[_Asked]:
    found: list[_Asked] = []
    seen: set[object] = set()
    for span, message in messages:
        for call in message.tool_calls:
            call_id = call.get("id")
            if call_id is not None and call_id in seen:
                continue
            seen.add(call_id)
            given = arguments(call.get("arguments"))
            known_id = call_id if is_text(call_id) else None
            found.append(_Asked(known_id, str(call.get("name", "")), given, span, said_in))
    return found
