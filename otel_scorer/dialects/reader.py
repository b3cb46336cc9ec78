"""
What one span means: which dialects it speaks, its type, and its fields, each from the best source there is.

The order of the table of dialects is the order of precedence, for span types and for every field. Nothing of a span is
decoded to tell its type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_scorer.dialects import structure
from otel_scorer.dialects.chat import to_messages
from otel_scorer.dialects.detection import Detector, type_by_hint
from otel_scorer.dialects.table import (
    Attribute,
    Computed,
    EventAttribute,
    Flattened,
    MimeAttribute,
    NamePart,
    attributes,
)
from otel_scorer.dialects.values import identifier, number, same, string_list
from otel_scorer.model.read_only import Immutable
from otel_scorer.model.reader import registered_maker
from otel_scorer.model.trace import MISSING, SpanType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_scorer.dialects.table import Dialect, Source
    from otel_scorer.model.reader import Reader
    from otel_scorer.model.trace import Span, Trace

__all__ = ["DialectReader"]

Place: TypeAlias = "tuple[str, Source]"
"""A dialect, and where it has the value of a field."""

Step: TypeAlias = "tuple[str | None, Place]"
"""A place to look at, and the attribute without which there is nothing in it."""

# Tried after what the span's dialects say: the convention that everybody borrows keys from, and keys that are nobody's.
_COMMON_GROUND: Final = "otel_genai"
# Asked of every trace that is stored, and most say nothing: not worth asking each of its spans.
_RARE: Final = ("session_id", "user_id", "tags")
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
# Bounds of what is remembered about values that senders make up.
_LONG: Final = 200
_MANY: Final = 2_000
# The two sides of a TOOL span, as everybody else calls them.
_TOOL_SIDES: Final = {"inputs": "tool_args", "outputs": "tool_result"}
# Fields that make sense for one type of span; for others their sources hold something else.
ONLY_OF: Final = {"tool_args": SpanType.TOOL, "tool_result": SpanType.TOOL, "documents": SpanType.RETRIEVER}
CHAT_SIDES: Final = {"chat_inputs": ("inputs", "user"), "chat_outputs": ("outputs", "assistant")}


class DialectReader(Immutable):
    """
    Reads spans and traces by a table of dialects. Implements `model.trace.Reader`.

    A copy is the reader itself; in a pickle it stands for the dialects in use where that is loaded, as with a trace.

    Args:
        dialects: In order of precedence.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self.dialects = tuple(dialects)
        self._by_name = {dialect.name: dialect for dialect in dialects}
        rules = [rule for dialect in dialects for rule in dialect.span_types]
        self._type_keys = tuple(dict.fromkeys(rule.key for rule in rules))
        self._later_type_keys = {key: self._type_keys[place:] for place, key in enumerate(self._type_keys, 1)}
        self._type_rules = {key: tuple(rule for rule in rules if rule.key == key) for key in self._type_keys}
        self._no_spans: dict[str, dict[object, bool]] = {}
        """By attribute and its value: whether what has it may be a span after all, if something says what it does."""
        for dialect in dialects:
            for said, may_be in ((dialect.placeholders, False), (dialect.records, True)):
                for key, value in said.items():
                    self._no_spans.setdefault(key, {})[value] = may_be
        self._detector = Detector(self.dialects)
        self._answers: dict[tuple[str, object], str] = {}
        # Apart from the answers, so that nobody who makes up values can crowd those out.
        self._no_answers: dict[tuple[str, object], tuple[str | None, str | None]] = {}
        self._plans: dict[tuple[tuple[str, ...], str], tuple[Step, ...]] = {}
        self._marks = {field: marks for field in _RARE if (marks := self._marks_of(field)) is not None}

    def __reduce__(self) -> tuple[Callable[[], Reader], tuple[()]]:
        return registered_maker(), ()

    def span_type(self, span: Span) -> str:
        """Return one of the `SpanType` values (or a type of the user's own), `UNKNOWN` if nothing says."""
        found = span.first_of(self._type_keys)
        # Nearly always the first attribute that says a type says a known one.
        if found is not None and type(found[1]) is str and (answer := self._answers.get(found)):
            return answer
        kind, fallback = self._type_by_keys(span, found)
        return kind or self._detector.type_by_name(span) or type_by_hint(span) or fallback or SpanType.UNKNOWN

    def _type_by_keys(self, span: Span, found: tuple[str, object] | None) -> tuple[str | None, str | None]:
        """
        Return the type that an attribute says, or None, and the one to fall back to, or None.

        Args:
            span: The span.
            found: The first of its attributes that may say a type.
        """
        fallback = None
        while found is not None:
            known = None
            # A list or a map is no key of a dict, and no span type.
            if type(found[1]) is str:
                if answer := self._answers.get(found):
                    return answer, None
                known = self._no_answers.get(found)
            kind, generic = known or self._resolve(*found)
            if kind is not None:
                return kind, None
            fallback = fallback or generic
            found = span.first_of(self._later_type_keys[found[0]])
        return None, fallback

    def read(self, span: Span, field: str) -> Any:
        """
        Return what the span itself says about a field (`FIELDS`, or `dialects`), decoded, or MISSING.

        `chat_inputs` and `chat_outputs` are lists of `Message`, empty rather than MISSING.
        """
        if field == "dialects":
            return self._detector.dialects_of(span)
        if field in CHAT_SIDES:
            side, role = CHAT_SIDES[field]
            value, _ = self._first(span, field)
            return to_messages(span.read(side) if value is MISSING else value, role)
        return (self._find(span, field) if field in _TOOL_SIDES else self._first(span, field))[0]

    def derive(self, trace: Trace, field: str) -> Any:
        """Return what the trace as a whole says about a field, see `structure`; of `placeholders`, which spans are."""
        if field == "placeholders":
            return self._placeholders_of(trace.arrived)
        marks = self._marks.get(field)
        if marks is not None and not _has_any(trace.attribute_keys, *marks):
            return [] if field == "tags" else None
        return structure.derive(trace, field)

    def _placeholders_of(self, spans: Sequence[Span]) -> list[Span]:
        found: list[Span] = []
        for key, values in self._no_spans.items():
            # Asked of every span of every trace, and nearly none has such a mark.
            for span in [span for span in spans if key in span.attribute_keys]:
                value = span.attributes[key]
                if not isinstance(value, str) or value not in values or span in found:
                    continue
                if not values[value] or span.span_type == SpanType.UNKNOWN:
                    found.append(span)
        return found

    def _resolve(self, key: str, value: object) -> tuple[str | None, str | None]:
        """Return the type that an attribute says, or None, and the one to fall back to, or None."""
        kind = generic = None
        for rule in self._type_rules[key]:
            kind, other = rule.resolve(value)
            generic = generic or other
            if kind is not None:
                break
        # There are a few hundred values in the world; whoever makes up more must not fill our memory.
        if isinstance(value, str) and len(value) < _LONG:
            if kind is None and len(self._no_answers) < _MANY:
                self._no_answers[key, value] = None, generic
            elif kind is not None and len(self._answers) < _MANY:
                self._answers[key, value] = kind
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

    def _marks_of(self, field: str) -> tuple[frozenset[str], tuple[str, ...]] | None:
        """Return the attributes, and starts of such, without which no dialect knows a field; None if one may anyway."""
        sources = [*COMMON.get(field, ()), *(each for one in self.dialects for each in one.fields.get(field, ()))]
        if not all(isinstance(source, Attribute | MimeAttribute | Flattened) for source in sources):
            return None
        starts = tuple(f"{source.prefix}." for source in sources if isinstance(source, Flattened))
        return frozenset(key for source in sources if (key := _needed(source)) is not None), starts

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


def _has_any(present: frozenset[str], keys: frozenset[str], starts: tuple[str, ...]) -> bool:
    return not keys.isdisjoint(present) or (bool(starts) and any(key.startswith(starts) for key in present))


def _needed(source: Source) -> str | None:
    return source.key if isinstance(source, Attribute | MimeAttribute) else None
