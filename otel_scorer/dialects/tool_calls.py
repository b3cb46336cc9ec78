"""Calls of tools: nested spans of one call merged, what a span does not say taken from the model that asked for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from otel_scorer.dialects.values import arguments, is_dict, is_text, text_of
from otel_scorer.model.trace import MISSING, SpanType, ToolCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from otel_scorer.model.trace import Message, Span, Trace

__all__ = ["explain_tool_call", "find_tool_calls"]

# Between two spans of one call there may be a transport, but nobody who decides to call the tool once more.
_DECIDERS: Final = frozenset({SpanType.AGENT, SpanType.WORKFLOW, SpanType.LLM, SpanType.CHAT_MODEL})

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
class _Group:
    """The TOOL spans of one call, the outermost first, and what they say together."""

    name: str
    spans: list[Span]

    def find(self, field: str) -> tuple[object, Span | None]:
        """Return what the outermost span says that says anything, and that span."""
        for span in self.spans:
            value = span.read(field)
            if value is not MISSING:
                return value, span
        return MISSING, None

    def read(self, field: str) -> object:
        """Return what the outermost span says that says anything."""
        return self.find(field)[0]

    @property
    def args(self) -> object:
        """The arguments, or MISSING."""
        return self.read("tool_args")

    @property
    def call_id(self) -> str | None:
        """The model's id of the call, if the spans say it."""
        call_id = self.read("tool_call_id")
        return call_id if is_text(call_id) else None


class _Answers:
    """What the models' answers say about all calls of a trace, joined when a call first asks for it."""

    __slots__ = ("_find_models", "_groups", "_matches")

    def __init__(self, groups: Sequence[_Group], find_models: Callable[[], Sequence[Span]]) -> None:
        self._groups = groups
        self._find_models = find_models
        self._matches: dict[_Group, _Asked] | None = None

    def about(self, group: _Group) -> _Asked | None:
        """Return what a model said when it asked for the call, if that can be told."""
        matches = self._matches
        if matches is None:
            matches = self._matches = _join(self._groups, self._find_models())
        return matches.get(group)


@dataclass(slots=True, eq=False)
class _Details:
    """The details of one call: from its spans, else from the models' answers. Implements `CallSource`."""

    group: _Group
    answers: _Answers

    def find_arguments(self) -> object:
        args = self.group.args
        return self.arguments()[0] if args is MISSING else args

    def find_result(self) -> object:
        return tool_result(self.group.read("tool_result"))

    def find_call_id(self) -> str | None:
        return self.call_id()[0]

    def arguments(self) -> tuple[object, Span | None, str, str]:
        """Return the arguments, and the span and field that say them and why."""
        args, span = self.group.find("tool_args")
        if span is not None:
            return args, span, "tool_args", self.reason(span)
        asked = self.answers.about(self.group)
        return (None, None, "", "") if asked is None else (asked.args, *_joined(asked))

    def call_id(self) -> tuple[str | None, Span | None, str, str]:
        """Likewise the model's id of the call."""
        call_id = self.group.call_id
        if call_id is not None:
            span = self.group.find("tool_call_id")[1]
            return call_id, span, "tool_call_id", self.reason(span)
        asked = self.answers.about(self.group)
        return (None, None, "", "") if asked is None else (asked.call_id, *_joined(asked))

    def reason(self, span: Span | None) -> str:
        """Say which span of the call it is."""
        if span is self.group.spans[0]:
            return "the TOOL span"
        return "" if span is None else "a TOOL span of the same call, nested in it"


def _joined(asked: _Asked) -> tuple[Span, str, str]:
    return asked.span, asked.said_in, "joined from the model's messages"


def explain_tool_call(call: ToolCall) -> dict[str, tuple[object, Span | None, str, str]]:
    """Return, for each detail of a call, its value (MISSING: none), the span and the field that say it, and why."""
    details = call.source
    if not isinstance(details, _Details):
        return {}
    name, named = details.group.find("tool_name")
    result, returned = details.group.find("tool_result")
    found: dict[str, tuple[object, Span | None, str, str]] = {
        "name": (
            (name, named, "tool_name", details.reason(named))
            if is_text(name)
            else (call.name, call.span, "the span's name", "nothing else names the tool")
        ),
        "arguments": details.arguments(),
        "result": (tool_result(result), returned, "tool_result", details.reason(returned)),
        "call_id": details.call_id(),
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
    groups = _merge(trace)
    answers = _Answers(groups, find_models)
    return [ToolCall(group.name, group.spans[0], _Details(group, answers)) for group in groups]


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
    """Return the calls of tools: a TOOL span below one of the same tool belongs to its call."""
    ordered: list[_Group] = []
    # By depth, down to the span that was walked last: the call that what is below would belong to.
    above: list[_Group | None] = []
    for span, depth in trace.tree.walk():
        group = above[depth - 1] if depth else None
        kind = span.span_type
        if kind == SpanType.TOOL:
            name = _name(span)
            if name == _NO_CALL:
                pass
            elif group is not None and group.name == name:
                group.spans.append(span)
            else:
                group = _Group(name, [span])
                ordered.append(group)
        elif kind in _DECIDERS:
            group = None
        above[depth:] = (group,)
    ordered.sort(key=lambda group: group.spans[0].start_time_ns)
    return ordered


def _name(span: Span) -> str:
    name = span.read("tool_name")
    return name if is_text(name) else span.name


def _join(groups: Sequence[_Group], llm_spans: Sequence[Span]) -> dict[_Group, _Asked]:
    """
    Find each call in the models' answers: by id, else the next unused call of the same name.

    Of several unused ones the one with the same arguments: parallel calls may start in any order.
    """
    asked = _asked(llm_spans)
    by_id = {call.call_id: call for call in asked if call.call_id is not None}
    ids = {group: group.call_id for group in groups}
    if any(call_id not in by_id and group.args is MISSING for group, call_id in ids.items() if call_id is not None):
        by_id = {call.call_id: call for call in _history(llm_spans) if call.call_id is not None} | by_id
    matches: dict[_Group, _Asked] = {}
    for group, call_id in ids.items():
        if call_id in by_id:
            matches[group] = by_id[call_id]
            by_id[call_id].used = True
    _join_by_name([group for group in groups if group not in matches], asked, matches)
    return matches


def _join_by_name(groups: Sequence[_Group], asked: Sequence[_Asked], matches: dict[_Group, _Asked]) -> None:
    by_name: dict[str, deque[_Asked]] = {}
    by_arguments: dict[tuple[str, str], deque[_Asked]] = {}
    for call in asked:
        if not call.used:
            by_name.setdefault(call.name, deque()).append(call)
            for key in _keys(call.args):
                by_arguments.setdefault((call.name, key), deque()).append(call)
    for group in groups:
        if group.name in by_name and group.args is not MISSING:
            _take(by_arguments.get((group.name, _canonical(group.args))), group, matches)
    for group in groups:
        # A call that says its id and its arguments needs nothing, and would take it from one that does.
        if group not in matches and (group.call_id is None or group.args is MISSING):
            _take(by_name.get(group.name), group, matches)


def _take(calls: deque[_Asked] | None, group: _Group, matches: dict[_Group, _Asked]) -> None:
    """Join a call with the first that is unused."""
    while calls:
        call = calls.popleft()
        if not call.used:
            call.used = True
            matches[group] = call
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
