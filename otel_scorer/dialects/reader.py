"""
What one span means: which dialects it speaks, its type, and its fields, each from the best source there is.

The order of the table of dialects is the order of precedence, for span types and for every field. Nothing of a span is
decoded to tell its type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from otel_scorer.dialects import structure
from otel_scorer.dialects.chat import to_messages
from otel_scorer.dialects.table import (
    Attribute,
    Computed,
    EventAttribute,
    MimeAttribute,
    NamePart,
    NameRule,
    attributes,
    matches,
)
from otel_scorer.dialects.values import identifier, number, same, string_list
from otel_scorer.model.trace import MISSING, SpanType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otel_scorer.dialects.table import Dialect, Source
    from otel_scorer.model.trace import Span, Trace

__all__ = ["DialectReader"]

Place: TypeAlias = "tuple[str, Source]"
"""A dialect, and where it has the value of a field."""

Step: TypeAlias = "tuple[str | None, Place]"
"""A place to look at, and the attribute without which there is nothing in it."""

# Tried after what the span's dialects say: the convention that everybody borrows keys from, and keys that are nobody's.
_COMMON_GROUND: Final = "otel_genai"
COMMON: Final[Mapping[str, tuple[Source, ...]]] = {
    "session_id": attributes(
        "session.id",
        "gen_ai.conversation.id",
        "langfuse.session.id",
        "gcp.vertex.agent.session_id",
        "ai.telemetry.metadata.sessionId",
        "traceloop.association.properties.session_id",
        "langsmith.metadata.session_id",
    ),
    "user_id": attributes(
        "user.id",
        "enduser.id",
        "langfuse.user.id",
        "ai.telemetry.metadata.userId",
        "traceloop.association.properties.user_id",
        "langsmith.metadata.user_id",
    ),
    "tags": attributes(
        "tag.tags", "langfuse.trace.tags", "langsmith.span.tags", "tags", "logfire.tags", "ai.telemetry.metadata.tags"
    ),
    "cost": attributes("llm.cost.total", "gen_ai.usage.cost", "operation.cost", "gen_ai.cost.amount", "litellm.cost"),
    "tool_name": (NamePart(re.compile(r"^execute_tool (.+)$")),),
    "error_type": (
        Attribute("error.type"),
        EventAttribute("exception", "exception.type", same),
        EventAttribute("gen_ai.client.operation.exception", "exception.type", same),
    ),
    "error_message": (
        EventAttribute("exception", "exception.message", same),
        Computed("status message", lambda span: span.status.description or MISSING),
        Attribute("langfuse.observation.status_message"),
    ),
}
# What a field is, whichever dialect tells it.
_FINISH: Final[Mapping[str, Callable[[object], object]]] = {
    **dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), number),
    **dict.fromkeys(("cache_read_tokens", "cache_write_tokens", "reasoning_tokens"), number),
    **dict.fromkeys(("tool_name", "tool_call_id", "agent_name", "model", "provider"), identifier),
    **dict.fromkeys(("response_id", "session_id", "user_id"), identifier),
    **dict.fromkeys(("tags", "finish_reasons"), string_list),
}
# Attributes that suggest a type where no attribute and no name says it; best first.
HINTS: Final = (
    ("gen_ai.tool.name", SpanType.TOOL),
    ("gen_ai.tool.call.id", SpanType.TOOL),
    ("gen_ai.retrieval.documents", SpanType.RETRIEVER),
    ("gen_ai.retrieval.query.text", SpanType.RETRIEVER),
    ("retrieval.documents.*", SpanType.RETRIEVER),
    ("embedding.embeddings.*", SpanType.EMBEDDING),
    ("gen_ai.evaluation.name", SpanType.EVALUATOR),
)
# Span names of the OTel convention, where nothing but the name is left (google-adk 1 fails that way).
_ANY_NAMES: Final = (
    NameRule.of(r"^execute_tool \S+$", SpanType.TOOL),
    NameRule.of(r"^invoke_agent \S+", SpanType.AGENT),
)
_OPERATION: Final = "gen_ai.operation.name"
_MODEL: Final = "gen_ai.request.model"
_MODEL_CALL: Final = (
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens",
    "gen_ai.prompt.0.content",
)  # fmt: skip
# Bounds of what is remembered about values that senders make up.
_LONG: Final = 200
_MANY: Final = 2_000
# The two sides of a TOOL span, as everybody else calls them.
_TOOL_SIDES: Final = {"inputs": "tool_args", "outputs": "tool_result"}
# Fields that make sense for one type of span; for others their sources hold something else.
ONLY_OF: Final = {"tool_args": SpanType.TOOL, "tool_result": SpanType.TOOL, "documents": SpanType.RETRIEVER}
CHAT_SIDES: Final = {"chat_inputs": ("inputs", "user"), "chat_outputs": ("outputs", "assistant")}


_Proofs: TypeAlias = "tuple[dict[str, str], dict[str, str]]"
"""Which dialect a value proves: by the whole value, and by how it starts."""

_Spoken: TypeAlias = "tuple[tuple[str, ...], tuple[tuple[str, _Proofs], ...]]"
"""Names of dialects in order, and the attributes whose value may prove one more."""


class _Surroundings(NamedTuple):
    """
    What a scope and a resource say about all of their spans.

    Attributes:
        names: The dialects that they speak.
        rules: Which names of theirs say what a span does.
        spoken: What was found out about their spans, by the marks of dialects that a span has.
    """

    names: frozenset[str]
    rules: tuple[NameRule, ...]
    spoken: dict[frozenset[str], _Spoken]


class DialectReader:
    """
    Reads spans and traces by a table of dialects. Implements `model.trace.Reader`.

    Args:
        dialects: In order of precedence.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self.dialects = tuple(dialects)
        self._by_name = {dialect.name: dialect for dialect in dialects}
        rules = [rule for dialect in dialects for rule in dialect.span_types]
        self._type_keys = tuple(dict.fromkeys(rule.key for rule in rules))
        self._type_rules = {key: tuple(rule for rule in rules if rule.key == key) for key in self._type_keys}
        self._values: dict[str, _Proofs] = {}
        for dialect in dialects:
            for key, value in dialect.values.items():
                whole, starts = self._values.setdefault(key, ({}, {}))
                (starts if value.endswith("*") else whole)[value.rstrip("*")] = dialect.name
        self._marks = frozenset(key for dialect in dialects for key in (*dialect.keys, *dialect.values))
        self._events = {event: dialect.name for dialect in dialects for event in dialect.events}
        self._resources = tuple(
            (key, value, dialect.name) for dialect in dialects for key, value in dialect.resource.items()
        )
        self._names = tuple((name, dialect.name) for dialect in dialects for name in dialect.names)
        self._name_starts = tuple(name.rstrip("*") for name, _ in self._names)
        self._surroundings: dict[tuple[str, tuple[str, ...]], _Surroundings] = {}
        self._answers: dict[tuple[str, object], tuple[str | None, str | None]] = {}
        self._plans: dict[tuple[tuple[str, ...], str], tuple[Step, ...]] = {}

    def span_type(self, span: Span) -> str:
        """Return one of the `SpanType` values (or a type of the user's own), `UNKNOWN` if nothing says."""
        kind, fallback = self._type_by_keys(span)
        return kind or self._type_by_name(span) or type_by_hints(span) or fallback or SpanType.UNKNOWN

    def _type_by_keys(self, span: Span) -> tuple[str | None, str | None]:
        """Return the type that an attribute says, or None, and the one to fall back to, or None."""
        keys, fallback = self._type_keys, None
        while (found := span.first_of(keys)) is not None:
            try:
                answer = self._answers.get(found)
            except TypeError:
                # A list or a map, which is no key of a dict and no span type.
                answer = None
            kind, generic = answer or self._resolve(*found)
            if kind is not None:
                return kind, None
            fallback = fallback or generic
            keys = self._type_keys[self._type_keys.index(found[0]) + 1 :]
        return None, fallback

    def read(self, span: Span, field: str) -> Any:
        """
        Return what the span itself says about a field (`FIELDS`, or `dialects`), decoded, or MISSING.

        `chat_inputs` and `chat_outputs` are lists of `Message`, empty rather than MISSING.
        """
        if field == "dialects":
            return self._detect(span)
        value, _ = self._find(span, field)
        if field in CHAT_SIDES:
            side, role = CHAT_SIDES[field]
            return to_messages(span.read(side) if value is MISSING else value, role)
        return value

    def derive(self, trace: Trace, field: str) -> Any:
        """Return what the trace as a whole says about a field, see `structure`."""
        return structure.derive(trace, field)

    def _resolve(self, key: str, value: object) -> tuple[str | None, str | None]:
        """Return the type that an attribute says, or None, and the one to fall back to, or None."""
        kind = generic = None
        for rule in self._type_rules[key]:
            kind, other = rule.resolve(value)
            generic = generic or other
            if kind is not None:
                break
        # There are a few hundred values in the world; whoever makes up more must not fill our memory.
        told = kind is not None or generic is not None
        if told and isinstance(value, str) and len(value) < _LONG and len(self._answers) < _MANY:
            self._answers[key, value] = kind, generic
        return kind, generic

    def _find(self, span: Span, field: str) -> tuple[object, Place | None]:
        if field in _TOOL_SIDES and span.span_type == SpanType.TOOL:
            value, place = self._first(span, _TOOL_SIDES[field])
            if place is not None:
                return value, place
        return self._first(span, field)

    def _first(self, span: Span, field: str) -> tuple[object, Place | None]:
        """Return the first value that is not empty, else an empty one, and where it is from."""
        finish = _FINISH.get(field)
        empty: tuple[object, Place | None] = (MISSING, None)
        keys = span.attribute_keys
        for needed, place in self._plan(span.read("dialects"), field):
            if needed is not None and needed not in keys:
                continue
            value = place[1].read(span)
            if finish is not None and value is not MISSING:
                value = finish(value)
            if value is MISSING:
                continue
            if value is not None and value != "":
                return value, place
            if empty[1] is None:
                empty = (value, place)
        return empty

    def _plan(self, names: tuple[str, ...], field: str) -> tuple[Step, ...]:
        plan = self._plans.get((names, field))
        if plan is None:
            asked = [name for name in (*names, _COMMON_GROUND) if name in self._by_name]
            places = [
                (name, source) for name in dict.fromkeys(asked) for source in self._by_name[name].fields.get(field, ())
            ]
            places += [("common", source) for source in COMMON.get(field, ())]
            plan = tuple((_needed(source), (name, source)) for name, source in places)
            if len(self._plans) < _MANY:
                self._plans[names, field] = plan
        return plan

    def _detect(self, span: Span) -> tuple[str, ...]:
        """Return the names of the span's dialects in order of precedence, those that they build on included."""
        around = self._around(span)
        present = span.which_of(self._marks)
        known = around.spoken.get(present)
        if known is None:
            known = self._spoken(around, present)
        names, checks = known
        said: set[str] = set()
        for key, proofs in checks:
            said.update(_proved(proofs, span.attributes[key]))
        if not said and not span.has_events and not span.name.startswith(self._name_starts):
            return names
        said |= {name for pattern, name in self._names if matches(pattern, span.name)}
        said |= {self._events[event] for event in span.event_names if event in self._events}
        return self._in_order(said.union(names)) if said else names

    def _around(self, span: Span) -> _Surroundings:
        """Return what a span's scope and resource say: looked up once for all of their spans in a trace."""
        around: _Surroundings | None = span.shared.get(self)
        if around is None:
            scope, resource = span.scope.name, span.resource
            said = tuple(
                [name for key, value, name in self._resources if key in resource and matches(value, resource[key])]
            )
            around = self._surroundings.get((scope, said))
            if around is None:
                speaking = [dialect for dialect in self.dialects if dialect.speaks(scope)]
                rules = (*(rule for dialect in speaking for rule in dialect.name_rules), *_ANY_NAMES)
                around = _Surroundings(frozenset((*said, *(dialect.name for dialect in speaking))), rules, {})
                # Scopes are names of libraries: there are not many, unless somebody means us harm.
                if len(scope) < _LONG and len(self._surroundings) < _MANY:
                    self._surroundings[scope, said] = around
            span.shared[self] = around
        return around

    def _spoken(self, around: _Surroundings, present: frozenset[str]) -> _Spoken:
        """Return the dialects that the scope and these attributes prove, and what only a value can prove."""
        by_key = {dialect.name for dialect in self.dialects if not present.isdisjoint(dialect.keys)}
        checks = tuple((key, proofs) for key, proofs in self._values.items() if key in present)
        known = self._in_order(around.names | by_key), checks
        # Spans of one kind have the same marks: what is left to do for the thousandth of them is one look-up.
        if len(around.spoken) < _MANY:
            around.spoken[present] = known
        return known

    def _in_order(self, found: set[str] | frozenset[str]) -> tuple[str, ...]:
        bases = {base for name in found if (base := self._by_name[name].base) is not None}
        return tuple(dialect.name for dialect in self.dialects if dialect.name in found or dialect.name in bases)

    def _type_by_name(self, span: Span) -> str | None:
        name = span.name
        return next((rule.span_type for rule in self._around(span).rules if rule.pattern.search(name)), None)


def type_by_hints(span: Span) -> str | None:
    present = span.attributes
    if _OPERATION in present:
        return None
    hint = next((kind for pattern, kind in HINTS if is_there(pattern, present)), None)
    if hint is not None:
        return hint
    return SpanType.LLM if _MODEL in present and any(key in present for key in _MODEL_CALL) else None


def is_there(pattern: str, keys: Mapping[str, object]) -> bool:
    return any(matches(pattern, key) for key in keys) if pattern.endswith("*") else pattern in keys


def _needed(source: Source) -> str | None:
    return source.key if isinstance(source, Attribute | MimeAttribute) else None


def _proved(proofs: _Proofs, value: object) -> Iterable[str]:
    whole, starts = proofs
    if not isinstance(value, str):
        return ()
    found = [name for start, name in starts.items() if value.startswith(start)] if starts else []
    return [*found, whole[value]] if value in whole else found
