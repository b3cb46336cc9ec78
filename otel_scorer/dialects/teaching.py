"""
What a user adds to the vocabularies: more attribute keys, and rules for what spans are.

Plain data, so that it can stand in YAML and be handed to worker processes. What is taught counts before every
vocabulary: who configures otel_scorer knows the application.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from otel_scorer.dialects.chat import instructions
from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.explaining import ExplainingReader
from otel_scorer.dialects.flattened import tree
from otel_scorer.dialects.patterns import LinearPattern
from otel_scorer.dialects.table import FIELDS, Attribute, Dialect, Flattened, matches
from otel_scorer.dialects.values import call_arguments, json_twice, json_value, same
from otel_scorer.dialects.witness import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_scorer.dialects.reader import Step
    from otel_scorer.dialects.table import Source
    from otel_scorer.model.trace import Span

__all__ = ["TAUGHT", "TEACHABLE", "SpanTypeRule", "TaughtReader", "Teaching", "taught_dialect"]

TAUGHT: Final = "configuration"
"""Name of the dialect that is made of what was taught."""

_NAMES: Final = {"tool_args": "tool_arguments", "system": "system_instructions"}
TEACHABLE: Final[Mapping[str, str]] = {
    _NAMES.get(name, name): name for name in FIELDS if name not in {"chat_inputs", "chat_outputs"}
}
"""Fields for which keys can be taught, by the name that users know."""

_DECODERS: Final[Mapping[str, Callable[[object], object]]] = {
    **dict.fromkeys(("inputs", "outputs", "tool_definitions", "metadata"), json_value),
    "system": instructions,
    "tool_args": call_arguments,
    "tool_result": json_twice,
    "documents": document_list,
}
# A TOOL span's inputs are its arguments, whoever names the key.
_ALSO: Final = {"tool_args": "inputs", "tool_result": "outputs"}
_ANYTHING: Final = ".*"
# The application's own word on one span counts more than a rule for many.
_OWN_TYPE: Final = ("otel_scorer.span.type",)


@dataclass(frozen=True, slots=True)
class SpanTypeRule:
    """
    A rule for what a span is. All conditions that are given must hold; at least one is given.

    Attributes:
        type: One of the `SpanType` values.
        name: A pattern to search for in the span's name.
        scope: The instrumentation scope; a `*` at the end matches any rest.
        attribute: An attribute that the span has.
        equals: The attribute's value. Numbers and bools are compared as text: `1`, `true`.
        matches: A pattern to search for in the attribute's value, if that is text.
    """

    type: str
    name: str | None = None
    scope: str | None = None
    attribute: str | None = None
    equals: str | None = None
    matches: str | None = None

    def __str__(self) -> str:
        said = [f"name matches {self.name!r}"] if self.name is not None else []
        if self.scope is not None:
            said.append(f"scope is {self.scope!r}")
        if self.equals is not None:
            said.append(f"{self.attribute} is {self.equals!r}")
        if self.matches is not None:
            said.append(f"{self.attribute} matches {self.matches!r}")
        if self.attribute is not None and self.equals is None and self.matches is None:
            said.append(f"{self.attribute} is there")
        return " and ".join(said)


@dataclass(frozen=True, slots=True)
class Teaching:
    """
    What a user adds.

    Attributes:
        attributes: Keys by field (`TEACHABLE`), best first; a key that ends in `.*` stands for all below it.
        span_types: Rules, the first that holds counts.
        disabled: Names of dialects that are not used.
    """

    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    span_types: Sequence[SpanTypeRule] = ()
    disabled: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not (self.attributes or self.span_types or self.disabled)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        return {
            "attributes": {name: list(keys) for name, keys in self.attributes.items()},
            "span_types": [asdict(rule) for rule in self.span_types],
            "disabled": list(self.disabled),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return what `to_dict` was called on."""
        return cls(data["attributes"], tuple(SpanTypeRule(**rule) for rule in data["span_types"]), data["disabled"])


def taught_dialect(attributes: Mapping[str, Sequence[str]]) -> Dialect:
    """
    Return a dialect that reads what the keys name.

    Args:
        attributes: Keys by field, see `Teaching`.

    Raises:
        KeyError: There is no such field.
    """
    keys = {TEACHABLE[name]: tuple(given) for name, given in attributes.items()}
    known = dict.fromkeys(key for given in keys.values() for key in given)
    fields: dict[str, tuple[Source, ...]] = {}
    for name in TEACHABLE.values():
        sources = tuple(dict.fromkeys((*keys.get(name, ()), *keys.get(_ALSO.get(name, ""), ()))))
        if sources:
            fields[name] = tuple(_source(key, _DECODERS.get(name, same)) for key in sources)
    return Dialect(name=TAUGHT, keys=tuple(key for key in known if not key.endswith(_ANYTHING)), fields=fields)


def _source(key: str, decode: Callable[[object], object]) -> Source:
    if key.endswith(_ANYTHING):
        return Flattened(key.removesuffix(_ANYTHING), lambda pairs: decode(tree(pairs)))
    return Attribute(key, decode)


class _Rule:
    """A rule, ready to be asked."""

    __slots__ = ("matches", "name", "rule")

    def __init__(self, rule: SpanTypeRule) -> None:
        self.rule = rule
        self.name = None if rule.name is None else LinearPattern(rule.name)
        self.matches = None if rule.matches is None else LinearPattern(rule.matches)

    def holds(self, span: Span) -> bool:
        rule = self.rule
        if self.name is not None and not self.name.search(span.name):
            return False
        if rule.scope is not None and not matches(rule.scope, span.scope.name):
            return False
        if rule.attribute is None:
            return True
        found = span.first_of((rule.attribute,))
        if found is None or (rule.equals is not None and _text(found[1]) != rule.equals):
            return False
        return self.matches is None or self.matches.search(found[1])


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


class TaughtReader(ExplainingReader):
    """
    A reader for which the user's rules say first what a span is, and the user's keys what its fields are.

    Args:
        dialects: In order of precedence, the one of `taught_dialect` among them.
        rules: The rules; the first that holds counts.
    """

    def __init__(self, dialects: Sequence[Dialect], rules: Sequence[SpanTypeRule]) -> None:
        super().__init__(dialects)
        self._rules = tuple(map(_Rule, rules))
        self._asked = frozenset(rule.attribute for rule in rules if rule.attribute is not None)

    def span_type(self, span: Span) -> str:
        """Return what the first rule that holds says, else what the dialects say."""
        rule = self._ruling(span)
        return super().span_type(span) if rule is None else rule.type

    def explain_type(self, span: Span) -> Origin | None:
        """Return what says the span's type; None if nothing does."""
        rule = self._ruling(span)
        return super().explain_type(span) if rule is None else Origin(TAUGHT, f"span_types: {rule}")

    def unread(self, span: Span) -> list[str]:
        """Return the attributes of a span that neither a dialect of it nor a rule looks at, sorted."""
        return [key for key in super().unread(span) if key not in self._asked]

    def vocabulary(self) -> frozenset[str]:
        """Return all attribute keys that any dialect or rule reads; one that ends in `.*` stands for all below it."""
        return super().vocabulary() | self._asked

    def _plan(self, names: tuple[str, ...], field: str) -> tuple[Step, ...]:
        # Any span may carry what was taught, whatever else it speaks.
        return super()._plan((TAUGHT, *names), field)

    def _ruling(self, span: Span) -> SpanTypeRule | None:
        found = next((each.rule for each in self._rules if each.holds(span)), None)
        return None if found is None or span.first_of(_OWN_TYPE) is not None else found
