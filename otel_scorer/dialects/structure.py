"""
What a trace as a whole says, after its spans were joined.

Rules: a model call is an LLM span without another below it, and its tokens count once; nested TOOL spans of one tool
are one call; what a tool was called with is taken from the model's answer if the TOOL span does not say; what the root
does not say is taken from the agents and chains below it, or from the model calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_scorer.dialects.ancestry import nearest_above
from otel_scorer.dialects.chat import last_text
from otel_scorer.dialects.documents import to_documents
from otel_scorer.dialects.evaluations import find_evaluations
from otel_scorer.dialects.tool_calls import find_tool_calls
from otel_scorer.dialects.values import is_list, is_text
from otel_scorer.model.trace import MISSING, LlmCall, Message, SpanType, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from otel_scorer.model.trace import Document, Span, Trace

__all__ = ["derive"]

LLM_TYPES: Final = frozenset({SpanType.LLM, SpanType.CHAT_MODEL})
_STEP_TYPES: Final = frozenset({SpanType.AGENT, SpanType.WORKFLOW, SpanType.CHAIN})


def derive(trace: Trace, field: str) -> Any:
    """
    Return what the trace says about a field of `model.trace.Reader.derive`.

    Raises:
        KeyError: There is no such field.
    """
    return _FIELDS[field](trace)


def _llm_calls(trace: Trace) -> list[LlmCall]:
    above = nearest_above(trace, _is_llm)
    calls = [span for span in trace.spans if _is_llm(span)]
    outer = {id(above[id(span)]) for span in calls if id(span) in above}
    leaves = [span for span in calls if id(span) not in outer]
    usages = _usages(leaves, above)
    if any(usage is not None for usage in usages.values()):
        # Among calls that report tokens, one that neither does nor failed is a helper of its framework (LlamaIndex).
        leaves = [span for span in leaves if usages[id(span)] is not None or span.failed]
    return [
        LlmCall(span.read("model") or None, span.inputs, span.outputs, usages[id(span)], span.failed, span)
        for span in leaves
    ]


def _is_llm(span: Span) -> bool:
    return span.span_type in LLM_TYPES


def _usages(leaves: Sequence[Span], above: Mapping[int, Span]) -> dict[int, Usage | None]:
    """
    Return the tokens of each call.

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


def _usage(span: Span) -> Usage | None:
    given, made, total = (span.read(field) for field in ("input_tokens", "output_tokens", "total_tokens"))
    if given is MISSING and made is MISSING and total is MISSING:
        return None
    inputs, outputs = given or 0, made or 0
    return Usage(inputs, outputs, total or inputs + outputs)


def _total_usage(trace: Trace) -> Usage | None:
    usages = [call.usage for call in trace.llm_calls if call.usage is not None]
    if not usages:
        return None
    return Usage(
        sum(usage.input_tokens for usage in usages),
        sum(usage.output_tokens for usage in usages),
        sum(usage.total_tokens for usage in usages),
    )


def _documents(trace: Trace) -> list[Document]:
    return [document for value in _recorded_documents(trace) for document in to_documents(value)]


def _raw_documents(trace: Trace) -> list[object]:
    return [item for value in _recorded_documents(trace) for item in (value if is_list(value) else [value])]


def _recorded_documents(trace: Trace) -> list[object]:
    """Return what each retrieval recorded; of nested ones (a framework and its client) only the outermost that did."""
    said = {
        id(span): value
        for span in trace.spans
        if span.span_type == SpanType.RETRIEVER and not _is_empty(value := span.read("documents"))
    }
    inside = nearest_above(trace, lambda span: id(span) in said)
    return [said[id(span)] for span in trace.spans if id(span) in said and id(span) not in inside]


def _messages(trace: Trace) -> list[Message]:
    for call in reversed(trace.llm_calls):
        given: list[Message] = call.span.read("chat_inputs")
        made: list[Message] = call.span.read("chat_outputs")
        if given or made:
            system = call.span.read("system")
            if is_text(system) and not any(message.role == "system" for message in given):
                given = [Message("system", system), *given]
            return given + made
    return []


def _inputs(trace: Trace) -> object:
    root = trace.root
    own = MISSING if root is None else root.read("inputs")
    if own is not MISSING:
        return own
    for _, step in _steps(trace, "inputs"):
        return step.read("inputs")
    for call in trace.llm_calls[:1]:
        return last_text(call.span.read("chat_inputs"), "user") or MISSING
    return MISSING


def _outputs(trace: Trace) -> object:
    root = trace.root
    own = MISSING if root is None else root.read("outputs")
    if own is not MISSING:
        return own
    steps = _steps(trace, "outputs")
    for depth, _ in steps[:1]:
        return [step for other, step in steps if other == depth][-1].read("outputs")
    for call in trace.llm_calls[-1:]:
        # An answer that only calls a tool has no text: it is not yet an answer.
        return last_text(call.span.read("chat_outputs"), "assistant") or MISSING
    return MISSING


def _steps(trace: Trace, side: str) -> list[tuple[int, Span]]:
    """Return agents, workflows and chains that say something, with their depth: the highest first, then by start."""
    walked = [(depth, span) for span, depth in trace.tree.walk() if span.span_type in _STEP_TYPES]
    walked.sort(key=lambda entry: (entry[0], entry[1].start_time_ns))
    return [(depth, span) for depth, span in walked if not _is_empty(span.read(side))]


def _is_empty(value: object) -> bool:
    return value is MISSING or value is None or value == ""


def _first(field: str) -> Callable[[Trace], object]:
    """Make a rule: what the first span says that says anything, from the root down."""

    def find(trace: Trace) -> object:
        said = (span.read(field) for span, _ in trace.tree.walk())
        return next((value for value in said if not _is_empty(value)), None)

    return find


def _tags(trace: Trace) -> object:
    return _first("tags")(trace) or []


def _model(trace: Trace) -> object:
    return next((call.model for call in trace.llm_calls if call.model is not None), None)


def _dialects(trace: Trace) -> list[str]:
    return sorted({name for span in trace.spans for name in span.read("dialects")})


def _tool_calls(trace: Trace) -> object:
    return find_tool_calls(trace, [span for span in trace.spans if _is_llm(span)])


_FIELDS: Final[Mapping[str, Callable[[Trace], object]]] = {
    "tool_calls": _tool_calls,
    "llm_calls": _llm_calls,
    "usage": _total_usage,
    "documents": _documents,
    "raw_documents": _raw_documents,
    "messages": _messages,
    "inputs": _inputs,
    "outputs": _outputs,
    "session_id": _first("session_id"),
    "user_id": _first("user_id"),
    "model": _model,
    "tags": _tags,
    "evaluations": find_evaluations,
    "dialects": _dialects,
}
