"""
What a trace as a whole says, after its spans were joined.

Rules: a model call is an LLM span without another below it, and its tokens count once; nested TOOL spans of one tool
are one call; what a tool was called with is taken from the model's answer if the TOOL span does not say; what the root
does not say is taken from the agents and chains below it, or from the model calls.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from otel_scorer.dialects.ancestry import nearest_above
from otel_scorer.dialects.chat import last_text
from otel_scorer.dialects.documents import to_documents
from otel_scorer.dialects.evaluations import find_evaluations, locate_evaluations
from otel_scorer.dialects.table import SPAN_TYPES
from otel_scorer.dialects.tool_calls import explain_tool_call, find_tool_calls
from otel_scorer.dialects.values import is_list, is_text
from otel_scorer.model.trace import MISSING, LlmCall, Message, SpanType, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from otel_scorer.model.trace import Document, Span, ToolCall, Trace
    from otel_scorer.model.tree import Tree

__all__ = ["Derivation", "derive", "explain"]

_Accounted: TypeAlias = "tuple[Usage, Span]"
"""The tokens of a call, and the span that reports them."""

LLM_TYPES: Final = frozenset({SpanType.LLM, SpanType.CHAT_MODEL})
_STEP_TYPES: Final = frozenset({SpanType.AGENT, SpanType.WORKFLOW, SpanType.CHAIN})
# What may be an application as a whole; everything else that has a type is a part of one.
_WHOLE_TYPES: Final = _STEP_TYPES | {SpanType.TASK, SpanType.UNKNOWN}


class Derivation(NamedTuple):
    """
    One value of a trace and what says it.

    Attributes:
        field: What of the trace: `inputs`, `usage`, `tool_calls.0.arguments`.
        value: The value, MISSING if nothing says.
        span: The span that says it, or None.
        said_in: The field of that span, or a place in words where no field holds it.
        rule: Why this span counts.
    """

    field: str
    value: object
    span: Span | None
    said_in: str
    rule: str


class _Said(NamedTuple):
    """A value, and the span and field that say it."""

    value: object
    span: Span | None = None
    said_in: str = ""
    rule: str = ""


def derive(trace: Trace, field: str) -> Any:
    """
    Return what the trace says about a field of `model.trace.Reader.derive`.

    Raises:
        KeyError: There is no such field.
    """
    return _FIELDS[field](trace)


def _llm_calls(trace: Trace) -> list[LlmCall]:
    leaves, usages = _counted(trace)
    above = nearest_above(trace, _is_llm)
    return [_llm_call(span, above, _tokens(usages[id(span)])) for span in leaves]


def _llm_call(span: Span, above: Mapping[int, Span], usage: Usage | None) -> LlmCall:
    """Return a call; what its span does not say, a model span above it may (a framework's, around its client's)."""
    said = [span, *_outward(span, above, ())]
    model, given, made = (_first_said(said, field)[0] for field in ("model", "inputs", "outputs"))
    return LlmCall(model or None, given, made, usage, span.failed, span)


def _first_said(spans: Iterable[Span], field: str) -> tuple[Any, Span | None]:
    said = ((value, span) for span in spans if not _is_empty(value := span.read(field)))
    return next(said, (None, None))


def _counted(trace: Trace) -> tuple[list[Span], dict[int, _Accounted | None]]:
    """Return the model spans that count as calls, and their tokens; nothing that was said is decoded."""
    leaves, usages = _leaves(trace)
    if any(usage is not None for usage in usages.values()):
        # Among calls that report tokens, one that neither does nor failed is a helper of its framework (LlamaIndex).
        leaves = [span for span in leaves if usages[id(span)] is not None or span.failed]
    return leaves, usages


def _tokens(accounted: _Accounted | None) -> Usage | None:
    return None if accounted is None else accounted[0]


def _leaves(trace: Trace) -> tuple[list[Span], dict[int, _Accounted | None]]:
    """Return the model spans without another one below, and their tokens."""
    above = nearest_above(trace, _is_llm)
    calls = _models(trace.tree)
    outer = {id(above[id(span)]) for span in calls if id(span) in above}
    leaves = [span for span in calls if id(span) not in outer]
    return leaves, _usages(leaves, above)


def _is_llm(span: Span) -> bool:
    return span.span_type in LLM_TYPES


def _usages(leaves: Sequence[Span], above: Mapping[int, Span]) -> dict[int, _Accounted | None]:
    """
    Return the tokens of each call, and the span that reports them.

    A call that reports none has those of the nearest model span above, unless another call below that one accounts for
    them.
    """
    usages = {id(span): _usage(span) for span in leaves}
    accounted: set[int] = set()
    for span in leaves:
        if usages[id(span)] is not None:
            accounted.update(id(outer) for outer in _outward(span, above, accounted))
    for span in leaves:
        if usages[id(span)] is None:
            for outer in _outward(span, above, accounted):
                accounted.add(id(outer))
                usages[id(span)] = _usage(outer)
                if usages[id(span)] is not None:
                    break
    return usages


def _outward(span: Span, above: Mapping[int, Span], known: Container[int]) -> Iterator[Span]:
    """Yield the model spans above, from the inside out, up to one that is known: then those above it are too."""
    outer = above.get(id(span))
    while outer is not None and id(outer) not in known:
        yield outer
        outer = above.get(id(outer))


def _usage(span: Span) -> _Accounted | None:
    given, made, total = (span.read(field) for field in ("input_tokens", "output_tokens", "total_tokens"))
    if given is MISSING and made is MISSING and total is MISSING:
        return None
    inputs, outputs = (None if count is MISSING else count for count in (given, made))
    return Usage(inputs, outputs, total or (inputs or 0) + (outputs or 0)), span


def _total_usage(trace: Trace) -> Usage | None:
    spans, accounted = _counted(trace)
    usages = [usage for span in spans if (usage := _tokens(accounted[id(span)])) is not None]
    if not usages:
        return None
    return Usage(
        _sum(usage.input_tokens for usage in usages),
        _sum(usage.output_tokens for usage in usages),
        sum(usage.total_tokens for usage in usages),
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    """Return the sum of what is known; None if nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _documents(trace: Trace) -> list[Document]:
    return [document for _, value in _recorded_documents(trace) for document in to_documents(value)]


def _raw_documents(trace: Trace) -> list[object]:
    return [item for _, value in _recorded_documents(trace) for item in (value if is_list(value) else [value])]


def _recorded_documents(trace: Trace) -> list[tuple[Span, object]]:
    """Return what each retrieval recorded; of nested ones (a framework and its client) only the outermost that did."""
    said = {
        id(span): value
        for span in trace.spans
        if span.span_type == SpanType.RETRIEVER and not _is_empty(value := span.read("documents"))
    }
    inside = nearest_above(trace, lambda span: id(span) in said)
    return [(span, said[id(span)]) for span in trace.spans if id(span) in said and id(span) not in inside]


def _messages(trace: Trace) -> list[Message]:
    above = nearest_above(trace, _is_llm)
    for call in reversed(trace.llm_calls):
        for span in (call.span, *_outward(call.span, above, ())):
            given: list[Message] = span.read("chat_inputs")
            made: list[Message] = span.read("chat_outputs")
            if given or made:
                system = span.read("system")
                if is_text(system) and not any(message.role == "system" for message in given):
                    given = [Message("system", system), *given]
                return given + made
    return []


def _application(trace: Trace) -> Span | None:
    """Return the root, unless that is a part of an application whose own span is missing: a tool, a model call."""
    root = trace.root
    if root is None or root.parent_id is None or root.is_local_root or root.span_type in _WHOLE_TYPES:
        return root
    # A type of the user's own may be anything.
    return None if root.span_type in SPAN_TYPES else root


def _inputs(trace: Trace) -> _Said:
    root = _application(trace)
    own = MISSING if root is None else root.read("inputs")
    if own is not MISSING and own != "":
        return _Said(own, root, "inputs", "the root says so")
    for _, step in _steps(trace, "inputs"):
        return _Said(step.read("inputs"), step, "inputs", "the first agent or chain below the root that says something")
    said = _chat_text(trace, trace.llm_calls[:1], "chat_inputs", "user")
    if said is not None:
        return _Said(*said, "chat_inputs", "the user's last message to the first model call")
    return _nothing_else(trace, "inputs")


def _outputs(trace: Trace) -> _Said:
    root = _application(trace)
    own = MISSING if root is None else root.read("outputs")
    if own is not MISSING and own != "":
        return _Said(own, root, "outputs", "the root says so")
    steps = _steps(trace, "outputs")
    for depth, _ in steps[:1]:
        step = [step for other, step in steps if other == depth][-1]
        return _Said(step.read("outputs"), step, "outputs", "the last of the highest agents or chains below the root")
    # An answer that only calls a tool has no text: it is not yet an answer.
    said = _chat_text(trace, trace.llm_calls[-1:], "chat_outputs", "assistant")
    if said is not None:
        return _Said(*said, "chat_outputs", "the text of the last model call")
    return _nothing_else(trace, "outputs")


def _nothing_else(trace: Trace, side: str) -> _Said:
    """Return what the root recorded after all: an empty text, or what a part says that stands for a missing root."""
    root = trace.root
    own = MISSING if root is None else root.read(side)
    return _Said(MISSING) if own is MISSING else _Said(own, root, side, "the root says so, and nobody says more")


def _chat_text(trace: Trace, calls: Sequence[LlmCall], side: str, role: str) -> tuple[str, Span] | None:
    """Return the last text of a role on one side of a call, and the span that says it."""
    above = nearest_above(trace, _is_llm)
    for call in calls:
        for span in (call.span, *_outward(call.span, above, ())):
            messages: list[Message] = span.read(side)
            if messages:
                text = last_text(messages, role)
                return (text, span) if text else None
    return None


def _steps(trace: Trace, side: str) -> list[tuple[int, Span]]:
    """Return agents, workflows and chains that say something, with their depth: the highest first, then by start."""
    walked = [(depth, span) for span, depth in trace.tree.walk() if span.span_type in _STEP_TYPES]
    walked.sort(key=lambda entry: (entry[0], entry[1].start_time_ns))
    return [(depth, span) for depth, span in walked if not _is_empty(span.read(side))]


def _is_empty(value: object) -> bool:
    return value is MISSING or value is None or value == ""


def _first(trace: Trace, field: str) -> _Said:
    """Return what the first span says that says anything, from the root down."""
    for span, _ in trace.tree.walk():
        value = span.read(field)
        if not _is_empty(value):
            return _Said(value, span, field, "the first span that says so, from the root down")
    return _Said(MISSING)


def _first_or_none(field: str) -> Callable[[Trace], object]:
    def find(trace: Trace) -> object:
        value = _first(trace, field).value
        return None if value is MISSING else value

    return find


def _tags(trace: Trace) -> object:
    value = _first(trace, "tags").value
    return [] if value is MISSING else value


def _model(trace: Trace) -> object:
    return next((call.model for call in trace.llm_calls if call.model is not None), None)


def _dialects(trace: Trace) -> list[str]:
    return sorted({name for span in trace.spans for name in span.read("dialects")})


def _tool_calls(trace: Trace) -> list[ToolCall]:
    # The calls are kept with the trace: if they held it in turn, only the garbage collector could free it.
    return find_tool_calls(trace, partial(_models, trace.tree))


def _models(tree: Tree) -> list[Span]:
    return [span for span in tree.by_start() if span.span_type in LLM_TYPES]


_FIELDS: Final[Mapping[str, Callable[[Trace], object]]] = {
    "tool_calls": _tool_calls,
    "llm_calls": _llm_calls,
    "usage": _total_usage,
    "documents": _documents,
    "raw_documents": _raw_documents,
    "messages": _messages,
    "inputs": lambda trace: _inputs(trace).value,
    "outputs": lambda trace: _outputs(trace).value,
    "session_id": _first_or_none("session_id"),
    "user_id": _first_or_none("user_id"),
    "model": _model,
    "tags": _tags,
    "evaluations": find_evaluations,
    "dialects": _dialects,
}


def explain(trace: Trace) -> list[Derivation]:
    """Return every value that the trace as a whole says, with the span and the field that say it."""
    found = [Derivation("inputs", *_inputs(trace)), Derivation("outputs", *_outputs(trace))]
    found += [Derivation(field, *_first(trace, field)) for field in ("session_id", "user_id", "tags")]
    found.append(Derivation("model", *_first_model(trace)))
    leaves, usages = _leaves(trace)
    counted = {id(call.span) for call in trace.llm_calls}
    for number, span in enumerate(span for span in leaves if id(span) in counted):
        accounted = usages[id(span)]
        for field in ("input_tokens", "output_tokens"):
            if accounted is None:
                found.append(Derivation(f"llm_calls.{number}.{field}", MISSING, span, field, ""))
                continue
            tokens, reporter = accounted
            rule = "the model call" if reporter is span else "the model span around the call, which reports its tokens"
            count: int | None = getattr(tokens, field)
            known = MISSING if count is None else count
            found.append(Derivation(f"llm_calls.{number}.{field}", known, reporter, field, rule))
    for number, call in enumerate(trace.tool_calls):
        for field, said in explain_tool_call(call).items():
            found.append(Derivation(f"tool_calls.{number}.{field}", *said))
    for number, (span, value) in enumerate(_recorded_documents(trace)):
        found.append(Derivation(f"documents.{number}", value, span, "documents", "the outermost retriever"))
    for number, (result, span, place) in enumerate(locate_evaluations(trace)):
        found.append(Derivation(f"evaluations.{number}", result, span, place, "a verdict in the trace"))
    return found


def _first_model(trace: Trace) -> _Said:
    above = nearest_above(trace, _is_llm)
    for call in trace.llm_calls:
        model, span = _first_said([call.span, *_outward(call.span, above, ())], "model")
        if span is not None:
            rule = "the first model call that says so" if span is call.span else "the model span around the first call"
            return _Said(model, span, "model", rule)
    return _Said(MISSING)
