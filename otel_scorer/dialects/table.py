"""
What a dialect is: one declarative table per attribute vocabulary.

A dialect says how it is recognised, which attribute tells the span type, and for every field where its value may be,
best source first. Everything else (precedence, joins) happens in `reader` and `structure`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from otel_scorer.dialects.values import identifier, is_text, json_value, same, strict_json
from otel_scorer.model.trace import MISSING, SpanType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_scorer.model.trace import Span

__all__ = [
    "FIELDS",
    "SPAN_TYPES",
    "Attribute",
    "Computed",
    "Dialect",
    "EventAttribute",
    "Flattened",
    "MimeAttribute",
    "NamePart",
    "NameRule",
    "Source",
    "SpanTypeKey",
    "attributes",
]

SPAN_TYPES: Final = frozenset(
    {
        SpanType.AGENT, SpanType.CHAIN, SpanType.WORKFLOW, SpanType.TASK, SpanType.LLM, SpanType.CHAT_MODEL,
        SpanType.TOOL, SpanType.RETRIEVER, SpanType.EMBEDDING, SpanType.RERANKER, SpanType.PARSER, SpanType.GUARDRAIL,
        SpanType.EVALUATOR, SpanType.MEMORY,
    }
)  # fmt: skip
"""All span types that say something, so not UNKNOWN."""

FIELDS: Final = (
    "inputs", "outputs", "chat_inputs", "chat_outputs", "system",
    "tool_name", "tool_call_id", "tool_args", "tool_result", "tool_definitions",
    "documents", "agent_name", "model", "provider",
    "input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens",
    "cost",
    "finish_reasons", "response_id", "session_id", "user_id", "tags", "metadata", "error_type", "error_message",
)  # fmt: skip
"""What a dialect can tell about a span."""


class Source(Protocol):
    """One place where the value of a field may be."""

    @property
    def key(self) -> str:
        """What to call the place when explaining where a value came from, such as the attribute's key."""
        ...

    def read(self, span: Span) -> object:
        """Return the decoded value, or MISSING."""
        ...


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute. Values in `skip` are placeholders and count as absent."""

    key: str
    decode: Callable[[object], object] = same
    skip: tuple[str, ...] = ()

    def read(self, span: Span) -> object:
        """Return the decoded attribute, or MISSING."""
        value = span.get_attribute(self.key, MISSING)
        if value is MISSING or value in self.skip:
            return MISSING
        return self.decode(value)


@dataclass(frozen=True, slots=True)
class MimeAttribute:
    """An attribute that is JSON only if another attribute says `application/json`; if none says, it is text."""

    key: str
    mime_key: str

    def read(self, span: Span) -> object:
        """Return the decoded attribute, or MISSING."""
        value = span.get_attribute(self.key, MISSING)
        return strict_json(value) if span.get_attribute(self.mime_key) == "application/json" else value


@dataclass(frozen=True, slots=True)
class Flattened:
    """A tree that was flattened into attributes, `prefix.0.name`, `prefix.1.name`. See `tree` in `flattened`."""

    prefix: str
    decode: Callable[[Mapping[str, object]], object]

    @property
    def key(self) -> str:
        """The prefix, as a pattern."""
        return f"{self.prefix}.*"

    def read(self, span: Span) -> object:
        """Return the decoded tree, or MISSING if no attribute belongs to it."""
        start = f"{self.prefix}."
        found = {key[len(start) :]: span.attributes[key] for key in span.attributes if key.startswith(start)}
        return self.decode(found) if found else MISSING


@dataclass(frozen=True, slots=True)
class EventAttribute:
    """An attribute of the first event of a name: a span event, else a log record about the span."""

    event: str
    attribute: str
    decode: Callable[[object], object] = json_value

    @property
    def key(self) -> str:
        """Event and attribute."""
        return f"event {self.event}, {self.attribute}"

    def read(self, span: Span) -> object:
        """Return the decoded attribute, or MISSING."""
        for event in span.events:
            if event.name == self.event and self.attribute in event.attributes:
                return self.decode(event.attributes[self.attribute])
        for record in span.logs:
            if record.event_name == self.event and self.attribute in record.attributes:
                return self.decode(record.attributes[self.attribute])
        return MISSING


@dataclass(frozen=True, slots=True)
class NamePart:
    """What the first group of a pattern matches in the span's name."""

    pattern: re.Pattern[str]

    @property
    def key(self) -> str:
        """The pattern."""
        return f"span name {self.pattern.pattern}"

    def read(self, span: Span) -> object:
        """Return the part, or MISSING."""
        found = self.pattern.search(span.name)
        return found[1] if found and found[1] else MISSING


@dataclass(frozen=True, slots=True)
class Computed:
    """Something that takes more than one look at the span."""

    key: str
    compute: Callable[[Span], object]

    def read(self, span: Span) -> object:
        """Return the value, or MISSING."""
        return self.compute(span)


def attributes(*keys: str, decode: Callable[[object], object] = same) -> tuple[Attribute, ...]:
    """Return sources for these attributes, best first."""
    return tuple(Attribute(key, decode) for key in keys)


@dataclass(frozen=True, slots=True)
class SpanTypeKey:
    """
    An attribute that says what a span does.

    Attributes:
        key: The attribute.
        types: Span type by value of the attribute.
        generic: Values that only count if no other dialect knows better.
        decode: For values that are encoded.
        present: Span type of whatever has the attribute at all.
        by_name: Whether a value that is the name of a span type, in any case, means that type.
        open_ended: Whether unknown values are span types of the user's own.
    """

    key: str
    types: Mapping[str, str]
    generic: frozenset[str] = frozenset()
    decode: Callable[[object], object] = identifier
    present: str | None = None
    by_name: bool = False
    open_ended: bool = False

    def resolve(self, value: object) -> tuple[str | None, str | None]:
        """Return the type that the value means, or None, and the type to fall back to, or None."""
        if self.present is not None:
            return self.present, None
        decoded = self.decode(value)
        if not is_text(decoded):
            return None, None
        folded = decoded.lower()
        found = next((kind for name, kind in self.types.items() if name.lower() == folded), None)
        if found is None and self.by_name and decoded.upper() in SPAN_TYPES:
            found = decoded.upper()
        if found is None:
            return None, decoded if self.open_ended else None
        if found == SpanType.UNKNOWN:
            return None, None
        return (None, found) if folded in self.generic else (found, None)


@dataclass(frozen=True, slots=True)
class NameRule:
    """A span name that says what a span does, for spans whose attributes do not."""

    pattern: re.Pattern[str]
    span_type: str

    @classmethod
    def of(cls, pattern: str, span_type: str) -> NameRule:
        """Compile the pattern."""
        return cls(re.compile(pattern), span_type)


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    One attribute vocabulary.

    Attributes:
        name: Its name, as `trace.dialects` shows it.
        scopes: Instrumentation scopes that speak it; a `*` at the end matches any rest.
        keys: Attributes of which each proves the dialect.
        values: Attributes that prove it by their value; a `*` at the end matches any rest.
        resource: The same for attributes of the resource.
        events: Span events of which each proves it.
        names: Span names that prove it; a `*` at the end matches any rest.
        placeholders: Attributes that, with this value, mark a record which stands for a span until that ends: it is no
            span of the trace.
        records: Attributes that, with this value, mark a line of a log that was sent as a span: no span of the trace
            either, unless something says what it does.
        base: The dialect that it builds on, asked for what this one does not say.
        span_types: Attributes that say what a span does, best first.
        name_rules: Span names that do, within `scopes`.
        fields: Where the value of a field may be, best source first. Names are in `FIELDS`.
        capture: Which setting of the instrumentation makes it record content.
        captures: The same for single instrumentation scopes, by pattern; the first that matches counts.
    """

    name: str
    scopes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict[str, str])
    resource: Mapping[str, str] = field(default_factory=dict[str, str])
    events: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    placeholders: Mapping[str, str] = field(default_factory=dict[str, str])
    records: Mapping[str, str] = field(default_factory=dict[str, str])
    base: str | None = None
    span_types: tuple[SpanTypeKey, ...] = ()
    name_rules: tuple[NameRule, ...] = ()
    fields: Mapping[str, tuple[Source, ...]] = field(default_factory=dict[str, "tuple[Source, ...]"])
    capture: str = ""
    captures: Mapping[str, str] = field(default_factory=dict[str, str])

    def speaks(self, scope: str) -> bool:
        """Tell whether spans of this instrumentation scope speak the dialect."""
        return any(matches(pattern, scope) for pattern in self.scopes)

    def capture_of(self, scope: str) -> str:
        """
        Return which setting makes an instrumentation scope record content; empty if that cannot be told.

        Spans that speak a dialect without being of its scopes are somebody else's, who has other settings.
        """
        said = next((said for pattern, said in self.captures.items() if matches(pattern, scope)), None)
        if said is None:
            said = self.capture if not self.scopes or self.speaks(scope) else ""
        return said


def matches(pattern: str, text: object) -> bool:
    """Compare text with a pattern that may end in `*`."""
    if not isinstance(text, str):
        return False
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
