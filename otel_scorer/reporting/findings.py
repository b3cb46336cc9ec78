"""
What is wrong with a trace, or not as good as it could be, for whoever instrumented the application.

Everything is said once for all spans that it is true of, with what to do about it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from otel_scorer.model.trace import MISSING, SpanType
from otel_scorer.reporting.content_marks import cut_values, is_redacted, length_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from otel_scorer.dialects import ExplainingReader
    from otel_scorer.model.trace import Span, Trace

__all__ = ["Finding", "find_problems"]

K = TypeVar("K")
Kind = Literal[
    "missing", "unknown_type", "near_miss", "unread", "redacted", "cut", "dropped", "orphan", "roots", "duplicate",
    "no_span", "counted_once", "counted_twice", "not_said",
]  # fmt: skip

_NAMES_SHOWN: Final = 4
_KEYS_SHOWN: Final = 12
_NUMBER: Final = re.compile(r"\.\d+\.")
_TEXT: Final = 16
_SIMILAR: Final = 0.87
_LLM: Final = frozenset({SpanType.LLM, SpanType.CHAT_MODEL})
# Facts about transport, process and request that are no content: nobody misses them.
_PLAIN: Final = (
    "client.", "cloud.", "code.", "container.", "db.", "deployment.", "dns.", "enduser.", "error.", "exception.",
    "faas.", "feature_flag.", "file.", "gen_ai.request.", "http.", "k8s.", "llm.invocation_parameters", "llm.request.",
    "logfire.", "messaging.", "net.", "network.", "otel.", "peer.", "process.", "rpc.", "server.", "service.",
    "source.", "telemetry.", "thread.", "tls.", "url.", "user_agent.",
)  # fmt: skip
_TRANSPORT: Final = (
    "http.request.method",
    "http.method",
    "db.system",
    "db.system.name",
    "rpc.system",
    "messaging.system",
)
# Words in a key of the user's own that tell what it may hold.
_CONTENT_WORDS: Final = {
    "inputs": ("prompt", "input", "question", "query", "request", "arguments", "args"),
    "outputs": ("output", "response", "result", "answer", "completion", "reply"),
}
_STREAMING: Final = "a streamed answer of OpenAI's API reports them only with stream_options={'include_usage': True}"


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something that is true of some spans of a trace.

    Attributes:
        kind: What it is.
        text: A sentence.
        hint: What to do about it; empty if nothing is to be done.
        span_ids: The spans.
        keys: The attributes.
        is_problem: Whether something is lost, and not just worth knowing.
    """

    kind: Kind
    text: str
    hint: str = ""
    span_ids: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    is_problem: bool = True


def find_problems(trace: Trace, reader: ExplainingReader, *, duplicates: int = 0) -> list[Finding]:
    """
    Return what is to be said about a trace, problems first.

    Args:
        trace: The trace.
        reader: What tells its meaning.
        duplicates: Copies of its spans that were received again.
    """
    found = [
        *_tree(trace, duplicates),
        *_missing(trace, reader),
        *_untyped(trace, reader),
        *_spoiled(trace, reader),
        *_unread(trace, reader),
        *_counted(trace),
        *_not_said(trace),
    ]
    return sorted(found, key=lambda finding: not finding.is_problem)


def _tree(trace: Trace, duplicates: int) -> Iterator[Finding]:
    here = {span.span_id for span in trace.spans}
    orphans = [span for span in trace.spans if span.parent_id is not None and span.parent_id not in here]
    remote = [span for span in orphans if span.is_local_root]
    lost = [span for span in orphans if not span.is_local_root]
    if lost:
        text = f"{_spans(lost)} {_name(lost, 'names a parent', 'name parents')} that {_is(lost)} not in the input"
        hint = "was the parent exported, to the same place, and has it ended? Or is this only a part of the trace?"
        yield Finding("orphan", text, hint, _ids(lost))
    if remote:
        text = f"the parent of {_spans(remote)} is in another process, whose spans are not in the input"
        yield Finding("orphan", text, "send the spans of all services here", _ids(remote), is_problem=False)
    roots = [span for span in trace.spans if span.parent_id is None]
    if len(roots) > 1:
        text = f"there are {len(roots)} roots; {roots[0].name!r}, which starts first, counts as the root"
        yield Finding("roots", text, "", _ids(roots), is_problem=False)
    if records := trace.placeholders:
        what = _name(records, "is no span", "are no spans")
        text = f"{_quoted(records)} {what} of the trace: sent when a span started, or as a line of a log"
        # A trace of nothing else looks empty.
        yield Finding("no_span", text, "", _ids(records), is_problem=trace.is_pending)
    if duplicates:
        yield Finding(
            "duplicate", f"{duplicates} spans came more than once; the first copy counts",
            "are two processors or exporters at work, or was a request retried?",
        )  # fmt: skip


def _missing(trace: Trace, reader: ExplainingReader) -> Iterator[Finding]:
    calls = trace.llm_calls
    lacking: list[tuple[str, str, list[Span]]] = [
        ("no input", "inputs", [call.span for call in calls if call.span.read("inputs") is MISSING]),
        (
            "no output", "outputs",
            [call.span for call in calls if call.span.read("outputs") is MISSING and not call.failed],
        ),
        ("no model", "model", [call.span for call in calls if call.model is None and not call.failed]),
        (
            "no result", "tool_result",
            [call.span for call in trace.tool_calls if call.result is None and not call.failed
             and call.span.read("tool_result") is MISSING],
        ),
        (
            "no arguments, and no model's answer has them", "tool_args",
            [call.span for call in trace.tool_calls if call.arguments is None],
        ),
        (
            "no documents", "documents",
            [span for span in trace.spans if span.span_type == SpanType.RETRIEVER
             and span.read("documents") is MISSING and not _retriever_inside(span)],
        ),
    ]  # fmt: skip
    for what, field, spans in lacking:
        for remedy, same in _grouped(spans, partial(_remedy, reader, field)):
            yield Finding("missing", f"{_spans(same)} {_name(same, 'records', 'record')} {what}", remedy, _ids(same))
    silent = [call.span for call in calls if call.usage is None and not call.failed]
    if silent:
        hint = _STREAMING if any("gpt" in (call.model or "") for call in calls) else ""
        text = f"{_spans(silent)} {_name(silent, 'reports', 'report')} no tokens"
        yield Finding("missing", text, hint, _ids(silent))
    yield from _silent_root(trace, reader)


def _silent_root(trace: Trace, reader: ExplainingReader) -> Iterator[Finding]:
    """Say what the application as a whole does not tell, if it did something that has inputs and outputs."""
    root = trace.root
    if root is None or not (trace.llm_calls or trace.tool_calls):
        return
    if trace.read("inputs") is MISSING:
        yield Finding(
            "missing", "nothing says what the application was asked", _root_remedy(reader, root, "inputs"),
            (root.span_id,),
        )  # fmt: skip
    # Who failed has no answer.
    if trace.read("outputs") is MISSING and not root.failed:
        yield Finding(
            "missing", "nothing says what the application answered", _root_remedy(reader, root, "outputs"),
            (root.span_id,),
        )  # fmt: skip


def _remedy(reader: ExplainingReader, field: str, span: Span) -> str:
    return reader.remedy(span, field)


def _root_remedy(reader: ExplainingReader, root: Span, side: str) -> str:
    remedy = reader.remedy(root, side)
    return remedy or f"set the attribute {'input' if side == 'inputs' else 'output'}.value on the root"


def _retriever_inside(span: Span) -> bool:
    below = list(span.children)
    while below:
        child = below.pop()
        if child.span_type == SpanType.RETRIEVER:
            return True
        below += child.children
    return False


def _untyped(trace: Trace, reader: ExplainingReader) -> Iterator[Finding]:
    unknown = [span for span in trace.spans if span.span_type == SpanType.UNKNOWN]
    transport = [span for span in unknown if _is_transport(span)]
    if transport:
        text = f"{_spans(transport)} {_name(transport, 'is a call', 'are calls')} of a server or database: type UNKNOWN"
        yield Finding("unknown_type", text, "", _ids(transport), is_problem=False)
    for reason, spans in _grouped(
        [span for span in unknown if not _is_transport(span)], lambda span: _why(span, reader)
    ):
        rule = f'dialects: {{span_types: [{{scope: "{spans[0].scope.name}", name: "^...", type: ...}}]}}'
        text = f"{_spans(spans)} {_name(spans, 'has', 'have')} type UNKNOWN: {reason}"
        # A span that only groups others says nothing that would be lost.
        is_problem = any(_content_keys(span, reader) or reader.unknown_types(span) for span in spans)
        hint = f"set otel_scorer.span.type, or teach it: {rule}"
        yield Finding("unknown_type", text, hint if is_problem else "", _ids(spans), is_problem=is_problem)


def _is_transport(span: Span) -> bool:
    return any(key in span.attributes for key in _TRANSPORT)


def _why(span: Span, reader: ExplainingReader) -> str:
    said = [f"{key} is {str(value)[:60]!r}, which is no type" for key, value in reader.unknown_types(span)]
    scope = f"scope {span.scope.name!r}" if span.scope.name else "no scope"
    return "; ".join(said) or f"no attribute, name or {scope} that says what it does"


def _spoiled(trace: Trace, reader: ExplainingReader) -> Iterator[Finding]:
    limit = length_limit(trace.spans)
    for keys, spans in _grouped(trace.spans, lambda span: tuple(cut_values(span, limit))):
        if keys:
            cut = f" after {limit} characters" if limit is not None else ""
            yield Finding(
                "cut", f"the end of {_listed(keys)} is missing on {_spans(spans)}: cut{cut}",
                "raise OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, or the limit of the "
                "instrumentation", _ids(spans), keys,
            )  # fmt: skip
    for keys, spans in _grouped(trace.spans, _redacted):
        if keys:
            text = f"{_listed(keys)} on {_spans(spans)} {'is' if len(keys) == 1 else 'are'} blanked out"
            yield Finding("redacted", text, reader.remedy(spans[0], "inputs"), _ids(spans), keys)
    dropped = [span for span in trace.spans if span.dropped_count]
    if dropped:
        number = sum(span.dropped_count for span in dropped)
        text = f"the SDK dropped {number} attributes or events of {_spans(dropped)}"
        hint = "raise OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and OTEL_SPAN_EVENT_COUNT_LIMIT (128 by default)"
        yield Finding("dropped", text, hint, _ids(dropped))


def _redacted(span: Span) -> tuple[str, ...]:
    keys = [key for key, value in span.attributes.items() if is_redacted(value)]
    return tuple(sorted(keys))


def _unread(trace: Trace, reader: ExplainingReader) -> Iterator[Finding]:
    known = reader.vocabulary()
    by_key: dict[str, list[Span]] = {}
    for span in trace.spans:
        for key in _content_keys(span, reader):
            by_key.setdefault(key, []).append(span)
    rest: list[str] = []
    for key, spans in by_key.items():
        near = _nearest(key, known)
        side = _content_side(key, spans)
        if near is not None:
            text = f"nothing reads {key} on {_spans(spans)}; did you mean {near}?"
            yield Finding("near_miss", text, "", _ids(spans), (key,))
        elif side is not None:
            text = f"nothing reads {key} on {_spans(spans)}, which {_name(spans, 'lacks', 'lack')} {side}"
            hint = f"teach it: dialects: {{attributes: {{{side}: [{key}]}}}}"
            yield Finding("unread", text, hint, _ids(spans), (key,))
        else:
            rest.append(key)
    if rest:
        patterns = sorted({_NUMBER.sub(".*.", key) for key in rest})
        text = f"not read: {_listed(patterns, _KEYS_SHOWN)}"
        yield Finding("unread", text, "", (), tuple(sorted(rest)), is_problem=False)


def _content_keys(span: Span, reader: ExplainingReader) -> list[str]:
    return [key for key in reader.unread(span) if not key.startswith(_PLAIN)]


def _nearest(key: str, known: frozenset[str]) -> str | None:
    if key in known or any(known_key.endswith(".*") and key.startswith(known_key[:-1]) for known_key in known):
        return None
    exact = [name for name in known if not name.endswith(".*")]
    folded = {_folded(name): name for name in exact}
    if _folded(key) in folded:
        return folded[_folded(key)]
    alike = [name for name in exact if name.count(".") == key.count(".")]
    close = difflib.get_close_matches(key, alike, n=1, cutoff=_SIMILAR)
    if not close:
        return None
    # The last part is what keys of one name space differ in.
    mine, theirs = key.rpartition(".")[2], close[0].rpartition(".")[2]
    return close[0] if difflib.SequenceMatcher(None, mine, theirs).ratio() >= _SIMILAR else None


def _folded(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "").replace(".", "")


def _content_side(key: str, spans: Sequence[Span]) -> str | None:
    """Return the side that an attribute of the user's own may be, if spans that have it lack that side."""
    for side, words in _CONTENT_WORDS.items():
        if any(word in key.lower() for word in words):
            lacking = (span.attributes[key] for span in spans if span.read(side) is MISSING)
            if any(isinstance(value, str) and len(value) >= _TEXT for value in lacking):
                return side
    return None


def _counted(trace: Trace) -> Iterator[Finding]:
    leaves = {call.span.span_id for call in trace.llm_calls}
    outer = [span for span in trace.spans if span.span_type in _LLM and span.span_id not in leaves]
    if outer:
        scopes = sorted({span.scope.name for span in (*outer, *(call.span for call in trace.llm_calls))})
        by = f" by {_listed(scopes)}" if len(scopes) > 1 else ""
        text = f"{_spans(outer)} {_name(outer, 'holds', 'hold')} another model span{by}: each call counts once"
        yield Finding("counted_once", text, "", _ids(outer), is_problem=False)
    by_response: dict[str, list[Span]] = {}
    for call in trace.llm_calls:
        response = call.span.read("response_id")
        if isinstance(response, str):
            by_response.setdefault(response, []).append(call.span)
    for response, spans in by_response.items():
        if len(spans) > 1 and len({span.scope.name for span in spans}) > 1:
            text = f"{_spans(spans)} tell of one answer ({response}), side by side: it counts {len(spans)} times"
            yield Finding("counted_twice", text, "let one instrumentation record model calls", _ids(spans))


def _not_said(trace: Trace) -> Iterator[Finding]:
    absent = [
        f"{what} ({key})"
        for what, key, value in (
            ("session", "session.id", trace.session_id), ("user", "user.id", trace.user_id),
        )
        if value is None
    ]  # fmt: skip
    if absent:
        yield Finding("not_said", f"no span says the {' or the '.join(absent)}", is_problem=False)


def _grouped(spans: Iterable[Span], key: Callable[[Span], K]) -> list[tuple[K, list[Span]]]:
    groups: dict[K, list[Span]] = {}
    for span in spans:
        groups.setdefault(key(span), []).append(span)
    return list(groups.items())


def _spans(spans: Sequence[Span]) -> str:
    if len(spans) == 1:
        return f"the span {_quoted(spans)}"
    return f"{len(spans)} spans ({_quoted(spans)})"


def _quoted(spans: Iterable[Span]) -> str:
    return _listed([f"{name!r}" for name in dict.fromkeys(span.name for span in spans)])


def _listed(words: Sequence[str], limit: int = _NAMES_SHOWN) -> str:
    shown = ", ".join(words[:limit])
    return shown if len(words) <= limit else f"{shown} and {len(words) - limit} more"


def _name(spans: Sequence[Span], one: str, many: str) -> str:
    return one if len(spans) == 1 else many


def _is(spans: Sequence[Span]) -> str:
    return _name(spans, "is", "are")


def _ids(spans: Iterable[Span]) -> tuple[str, ...]:
    return tuple(span.span_id for span in spans)
