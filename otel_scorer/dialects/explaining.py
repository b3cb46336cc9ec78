"""
Where values were read, and what nobody read: what `inspect --explain` asks.

Nothing here knows how to read: to say where a value is from, the reader reads it again from a span that watches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_scorer.dialects import structure
from otel_scorer.dialects.detection import find_hint
from otel_scorer.dialects.evaluations import on_span
from otel_scorer.dialects.reader import CHAT_SIDES, COMMON, ONLY_OF, DialectReader
from otel_scorer.dialects.table import FIELDS
from otel_scorer.dialects.witness import Origin, Witness
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from otel_scorer.dialects.structure import Derivation
    from otel_scorer.model.trace import Span, Trace

__all__ = ["ExplainingReader"]


class ExplainingReader(DialectReader):
    """A reader that can be asked why."""

    def explain_trace(self, trace: Trace) -> list[Derivation]:
        """Return what the trace as a whole says (`derive`), value by value, and which field of which span says it."""
        return structure.explain(trace)

    def explain(self, span: Span) -> dict[str, Origin]:
        """Return, for `span_type` and for every field that the span tells, what it is read from."""
        found: dict[str, Origin] = {}
        origin = self.explain_type(span)
        if origin is not None:
            found["span_type"] = origin
        kind = span.span_type
        for field in FIELDS:
            # What was said is told by inputs and outputs; as chat messages they are only more uniform.
            if field in CHAT_SIDES or ONLY_OF.get(field, kind) != kind:
                continue
            if (origin := self.explain_field(span, field)) is not None:
                found[field] = origin
        return found

    def explain_field(self, span: Span, field: str) -> Origin | None:
        """Return what a field is read from; None if the span does not tell it."""
        value, place = self._find(span, field)
        if place is None or value is MISSING:
            return self.explain_field(span, CHAT_SIDES[field][0]) if field in CHAT_SIDES else None
        name, source = place
        witness = Witness(span, self)
        source.read(witness)
        return witness.origin(name, source.key)

    def explain_type(self, span: Span) -> Origin | None:
        """Return what says the span's type; None if nothing does."""
        witness = Witness(span, self)
        kind, fallback = self._type_by_keys(witness, witness.first_of(self._type_keys))
        if kind is not None:
            return witness.origin(self._name_of_type_key(witness.keys[-1]), witness.keys[-1])
        said = witness.keys
        if self._detector.type_by_name(span) is not None:
            return Origin(self._name_of_rule(span), "span name")
        witness = Witness(span, self)
        if (hint := find_hint(witness.attribute_keys)) is not None:
            return witness.origin("common", hint[0])
        if fallback is None:
            return None
        key = next(key for key in said if self._resolve(key, span.attributes[key])[1] is not None)
        return Origin(self._name_of_type_key(key), key)

    def unread(self, span: Span) -> list[str]:
        """Return the attributes of a span that no dialect of it looks at, sorted."""
        witness = Witness(span, self)
        for field in FIELDS:
            for _, (_, source) in self._plan(span.read("dialects"), field):
                source.read(witness)
        for _, verdicts in on_span(witness):
            list(verdicts)
        return sorted(set(span.attributes) - set(witness.keys) - self._detector.marks - set(self._type_keys))

    def unknown_types(self, span: Span) -> list[tuple[str, object]]:
        """Return the attributes that should say the span's type, with a value that means none."""
        return [(key, span.attributes[key]) for key in self._type_keys if key in span.attributes]

    def vocabulary(self) -> frozenset[str]:
        """Return all attribute keys that any dialect reads; one that ends in `.*` stands for all below it."""
        places = [source.key for dialect in self.dialects for sources in dialect.fields.values() for source in sources]
        places += [source.key for sources in COMMON.values() for source in sources]
        return frozenset(key for key in places if " " not in key) | self._detector.marks | set(self._type_keys)

    def remedy(self, span: Span, field: str) -> str:
        """Return what would make a span tell a field: a setting of its instrumentation, or an attribute to set."""
        by_name = (self._by_name[name] for name in span.read("dialects"))
        said = next((said for dialect in by_name if (said := dialect.capture_of(span.scope.name))), "")
        # The name of a model is no content: no setting withholds it.
        if said and field != "model":
            return said
        needed = (key for key, _ in self._plan(span.read("dialects"), field) if key is not None)
        return f"set the attribute {key}" if (key := next(needed, "")) else ""

    def _name_of_type_key(self, key: str) -> str:
        return next(dialect.name for dialect in self.dialects if any(rule.key == key for rule in dialect.span_types))

    def _name_of_rule(self, span: Span) -> str:
        name, scope = span.name, span.scope.name
        speaking = (dialect for dialect in self.dialects if dialect.speaks(scope))
        return next(
            (each.name for each in speaking if any(rule.pattern.search(name) for rule in each.name_rules)), "common"
        )
