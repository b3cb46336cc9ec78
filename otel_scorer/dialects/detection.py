"""
Which dialects a span speaks, and what its name says.

What is the same for all spans of a scope and a resource is found out once, and so is what a set of attributes proves:
what is left to do for the thousandth span of a kind is two look-ups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from otel_scorer.dialects.table import NameRule, matches
from otel_scorer.model.trace import SpanType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from otel_scorer.dialects.table import Dialect
    from otel_scorer.model.trace import Span

__all__ = ["Detector", "find_hint", "type_by_hint"]

# Span names of the OTel convention, where nothing but the name is left (google-adk 1 fails that way).
_ANY_NAMES: Final = (
    NameRule.of(r"^execute_tool \S+$", SpanType.TOOL),
    NameRule.of(r"^invoke_agent \S+", SpanType.AGENT),
)
# Attributes that suggest a type where no attribute and no name says it; best first.
_HINTS: Final = (
    ("gen_ai.tool.name", SpanType.TOOL),
    ("gen_ai.tool.call.id", SpanType.TOOL),
    ("gen_ai.retrieval.documents", SpanType.RETRIEVER),
    ("gen_ai.retrieval.query.text", SpanType.RETRIEVER),
)
_HINTS_BY_START: Final = {
    "retrieval.documents.": SpanType.RETRIEVER,
    "embedding.embeddings.": SpanType.EMBEDDING,
}
_STARTS: Final = tuple(_HINTS_BY_START)
_FIRST, _SECOND = (f"\n{start}" for start in _STARTS)
_CONVENTION: Final = "\ngen_ai."
"""How all other keys that suggest a type start."""
_EVALUATION: Final = "gen_ai.evaluation.name"
_OPERATION: Final = "gen_ai.operation.name"
_MODEL: Final = "gen_ai.request.model"
_MODEL_CALL: Final = (
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens",
    "gen_ai.prompt.0.content",
)  # fmt: skip
# Bounds of what is remembered: scopes are names of libraries and spans come in kinds, unless somebody means us harm.
_LONG: Final = 200
_MANY: Final = 1_000
_FEW: Final = 200

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
        named: What their names say, by name.
    """

    names: frozenset[str]
    rules: tuple[NameRule, ...]
    spoken: dict[frozenset[str], _Spoken]
    named: dict[str, str | None]


class Detector:
    """
    Tells dialects of spans by a table of them.

    Args:
        dialects: In order of precedence.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._dialects = tuple(dialects)
        self._bases = {dialect.name: dialect.base for dialect in dialects if dialect.base is not None}
        self._values: dict[str, _Proofs] = {}
        for dialect in dialects:
            for key, value in dialect.values.items():
                whole, starts = self._values.setdefault(key, ({}, {}))
                (starts if value.endswith("*") else whole)[value.rstrip("*")] = dialect.name
        self.marks: Final = frozenset(key for dialect in dialects for key in (*dialect.keys, *dialect.values))
        """The attributes that prove a dialect, by being there or by their value."""
        self._events = {event: dialect.name for dialect in dialects for event in dialect.events}
        self._resources = tuple(
            (key, value, dialect.name) for dialect in dialects for key, value in dialect.resource.items()
        )
        self._names = tuple((name, dialect.name) for dialect in dialects for name in dialect.names)
        self._name_starts = tuple(name.rstrip("*") for name, _ in self._names)
        self._surroundings: dict[tuple[str, tuple[str, ...]], _Surroundings] = {}

    def dialects_of(self, span: Span) -> tuple[str, ...]:
        """Return the names of the span's dialects in order of precedence, those that they build on included."""
        around = self._around(span)
        present = span.which_of(self.marks)
        names, checks = around.spoken.get(present) or self._spoken(around, present)
        said: set[str] = set()
        for key, proofs in checks:
            said.update(_proved(proofs, span.attributes[key]))
        if not said and not span.has_events and not span.name.startswith(self._name_starts):
            return names
        said |= {name for pattern, name in self._names if matches(pattern, span.name)}
        said |= {self._events[event] for event in span.event_names if event in self._events}
        return self._in_order(said.union(names)) if said else names

    def type_by_name(self, span: Span) -> str | None:
        """Return the type that the span's name says, by the rules of its scope or of the conventions."""
        around, name = span.shared.get(self) or self._around(span), span.name
        named = around.named
        if name in named:
            return named[name]
        kind = next((rule.span_type for rule in around.rules if rule.pattern.search(name)), None)
        if len(name) < _LONG and len(around.named) < _FEW:
            around.named[name] = kind
        return kind

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
                speaking = [dialect for dialect in self._dialects if dialect.speaks(scope)]
                rules = (*(rule for dialect in speaking for rule in dialect.name_rules), *_ANY_NAMES)
                around = _Surroundings(frozenset((*said, *(dialect.name for dialect in speaking))), rules, {}, {})
                if len(scope) < _LONG and len(self._surroundings) < _MANY:
                    self._surroundings[scope, said] = around
            span.shared[self] = around
        return around

    def _spoken(self, around: _Surroundings, present: frozenset[str]) -> _Spoken:
        """Return the dialects that the scope and these attributes prove, and what only a value can prove."""
        by_key = {dialect.name for dialect in self._dialects if not present.isdisjoint(dialect.keys)}
        checks = tuple((key, proofs) for key, proofs in self._values.items() if key in present)
        known = self._in_order(around.names | by_key), checks
        if len(around.spoken) < _FEW:
            around.spoken[present] = known
        return known

    def _in_order(self, found: AbstractSet[str]) -> tuple[str, ...]:
        bases = {self._bases[name] for name in found if name in self._bases}
        return tuple(dialect.name for dialect in self._dialects if dialect.name in found or dialect.name in bases)


def _proved(proofs: _Proofs, value: object) -> Iterable[str]:
    whole, starts = proofs
    if not isinstance(value, str):
        return ()
    found = [name for start, name in starts.items() if value.startswith(start)]
    return [*found, whole[value]] if value in whole else found


def type_by_hint(span: Span) -> str | None:
    """Return the type that an attribute suggests; None if none does, or if an operation says that it is another one."""
    hint = find_hint(span.attribute_keys)
    return None if hint is None else hint[1]


def find_hint(keys: Collection[str]) -> tuple[str, str] | None:
    """Return which of the keys, or which pattern of keys, suggests a type, and the type."""
    if _OPERATION in keys:
        return None
    # Nearly always there is none: a few searches through all keys, and no look at each.
    together = "\n".join(("", *keys))
    if _CONVENTION in together:
        for hint, kind in _HINTS:
            if hint in keys:
                return hint, kind
    if _FIRST in together or _SECOND in together:
        for key in keys:
            # Asked for once more, so that whoever watches knows what was found.
            if key.startswith(_STARTS) and key in keys:
                return next((f"{prefix}*", kind) for prefix, kind in _HINTS_BY_START.items() if key.startswith(prefix))
    if _CONVENTION not in together:
        return None
    if _EVALUATION in keys:
        return _EVALUATION, SpanType.EVALUATOR
    called = next((key for key in _MODEL_CALL if key in keys), None) if _MODEL in keys else None
    return None if called is None else (f"{_MODEL} and {called}", SpanType.LLM)
