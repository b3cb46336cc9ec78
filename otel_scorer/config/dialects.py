"""What users teach about attributes and spans: the section `dialects`, also read alone, for everything but `serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from otel_scorer.config.section import Empty, Section
from otel_scorer.dialects.patterns import LinearPattern
from otel_scorer.dialects.table import SPAN_TYPES
from otel_scorer.dialects.teaching import SpanTypeRule, Teaching

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AttributeSettings", "DialectSettings", "SpanTypeSettings"]


def _listed(value: object) -> object:
    """A single key stands for a list of one, and nothing for none."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


_Key = Annotated[str, Field(min_length=1)]
_Keys = Annotated[list[_Key], BeforeValidator(_listed)]


def _keys(description: str) -> Any:
    return Field(default_factory=list[str], description=description)


class AttributeSettings(Section):
    """Attribute keys by what they hold, best first."""

    inputs: _Keys = _keys("What a span was given, such as [my.prompt].")
    outputs: _Keys = _keys("What it returned.")
    system_instructions: _Keys = _keys("The system prompt of a model call.")
    tool_name: _Keys = _keys("What the tool is called.")
    tool_call_id: _Keys = _keys("The model's id of the call.")
    tool_arguments: _Keys = _keys("What a tool was called with; inputs count too.")
    tool_result: _Keys = _keys("What it returned; outputs count too.")
    tool_definitions: _Keys = _keys("Tools that a model may call.")
    documents: _Keys = _keys("What a retriever found: a list, or an object that has one.")
    agent_name: _Keys = _keys("Name of the agent.")
    model: _Keys = _keys("Name of the model.")
    provider: _Keys = _keys("Who serves it.")
    input_tokens: _Keys = _keys("Tokens of the prompt.")
    output_tokens: _Keys = _keys("Tokens of the answer.")
    total_tokens: _Keys = _keys("Both.")
    cache_read_tokens: _Keys = _keys("Tokens that came from a cache.")
    cache_write_tokens: _Keys = _keys("Tokens that went into one.")
    reasoning_tokens: _Keys = _keys("Tokens of the answer that nobody sees.")
    cost: _Keys = _keys("What the call cost.")
    finish_reasons: _Keys = _keys("Why the model stopped.")
    response_id: _Keys = _keys("The provider's id of the answer.")
    session_id: _Keys = _keys("Conversation or session.")
    user_id: _Keys = _keys("The user.")
    tags: _Keys = _keys("Tags: a list, or text with commas.")
    metadata: _Keys = _keys("Anything else that belongs to the span.")
    error_type: _Keys = _keys("Class of the error.")
    error_message: _Keys = _keys("What it said.")


class SpanTypeSettings(Section):
    """A rule for what spans are. All conditions in it must hold."""

    type: str = Field(description="One of the span types, such as TOOL; UNKNOWN: none of them.")
    name: str | None = Field(default=None, description="Pattern to search for in the span's name.")
    scope: str | None = Field(default=None, description="Instrumentation scope; a * at the end matches any rest.")
    attribute: str | None = Field(default=None, min_length=1, description="An attribute that the span has.")
    equals: str | int | float | bool | None = Field(default=None, description="The attribute's value.")
    matches: str | None = Field(default=None, description="Pattern to search for in the attribute's value.")

    @field_validator("type")
    @classmethod
    def _check_type(cls, value: str) -> str:
        known = sorted(SPAN_TYPES | {"UNKNOWN"})
        if value.upper() not in known:
            raise PydanticCustomError("span_type", "must be one of {known}", {"known": ", ".join(known)})
        return value.upper()

    @field_validator("name", "matches")
    @classmethod
    def _check_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                LinearPattern(value)
            except ValueError as error:
                raise PydanticCustomError("pattern", "{reason}", {"reason": str(error)}) from error
        return value

    @model_validator(mode="after")
    def _check_conditions(self) -> Self:
        if self.name is None and self.scope is None and self.attribute is None:
            raise PydanticCustomError("rule", "needs a condition: name, scope or attribute")
        if self.attribute is None and (self.equals is not None or self.matches is not None):
            raise PydanticCustomError("rule", "equals and matches need an attribute")
        return self

    @property
    def rule(self) -> SpanTypeRule:
        """The same for a reader."""
        equals = self.equals
        if isinstance(equals, bool):
            equals = "true" if equals else "false"
        return SpanTypeRule(
            type=self.type,
            name=self.name,
            scope=self.scope,
            attribute=self.attribute,
            equals=None if equals is None else str(equals),
            matches=self.matches,
        )


class DialectSettings(Section):
    """What spans mean, beyond the vocabularies that are built in."""

    attributes: AttributeSettings = Field(
        default_factory=AttributeSettings,
        description="More attribute keys, by what they hold; they count before all others. "
        "A key that ends in .* stands for everything below it.",
    )
    span_types: Annotated[list[SpanTypeSettings], Empty] = Field(
        default_factory=list[SpanTypeSettings],
        description="Rules for what spans are, the first that holds counts, before all that spans say: "
        "{name: ^tool_, type: TOOL} or {attribute: my.kind, equals: x, type: AGENT}, with scope and matches too. "
        "Patterns are those of Rust's regex crate, whose time is linear in the text.",
    )
    disabled: Annotated[list[str], Empty] = Field(
        default_factory=list[str], description="Vocabularies that are not used, by name; docs/dialects.md lists them."
    )

    @property
    def teaching(self) -> Teaching:
        """The same for a reader."""
        taught: Mapping[str, list[str]] = self.attributes.model_dump()
        return Teaching(
            attributes={name: keys for name, keys in taught.items() if keys},
            span_types=tuple(setting.rule for setting in self.span_types),
            disabled=tuple(self.disabled),
        )
