"""What can be said of every scorer, and how a scorer class that could not work is refused when it is defined."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic._internal._model_construction import ModelMetaclass
from pydantic.errors import PydanticUserError

from otel_scorer.errors import ScorerError
from otel_scorer.scorers.passing import PassIf, parse_condition

__all__ = ["OPTION_NAMES", "Aggregation", "ScorerDefinitionError", "ScorerOptions", "ScorerType"]

Aggregation = Literal["min", "max", "mean", "median", "variance", "p90"] | Callable[..., Any]


class ScorerDefinitionError(ScorerError, TypeError):
    """A scorer class or function is written in a way that cannot work."""


class ScorerType(ModelMetaclass):
    """Says in scorer words what pydantic says about class attributes that every instance would share."""

    def __new__(  # noqa: D102 - see the class
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any
    ) -> type:
        try:
            return super().__new__(mcs, name, bases, namespace, **options)
        except PydanticUserError as error:
            found = re.search(r"`(\w+) = |Field '(\w+)'", str(error))
            if found is None or error.code not in {"model-field-missing-annotation", "model-field-overridden"}:
                raise
            _refuse_unannotated(name, found[1] or found[2])


def _refuse_unannotated(class_name: str, attribute: str) -> NoReturn:
    if attribute in OPTION_NAMES:
        kind = str(ScorerOptions.model_fields[attribute].annotation)
        kind = "str" if attribute == "name" else kind.removeprefix("typing.")
        cure = f"write `{attribute}: {kind} = ...`"
        msg = f"Scorer class {class_name!r} sets `{attribute}` without a type annotation: {cure}"
        raise ScorerDefinitionError(msg)
    msg = (
        f"Scorer class {class_name!r} sets `{attribute}` without a type annotation, so all its instances would share "
        f"it. Annotate it to make it a field (`{attribute}: list = []`), set it in `__init__` after "
        f"`super().__init__(...)` (`self.{attribute} = []`), or keep it private with `pydantic.PrivateAttr`"
    )
    raise ScorerDefinitionError(msg)


class ScorerOptions(BaseModel):
    """
    What can be said of every scorer, in code, by `with_options`, or in YAML.

    Attributes:
        name: Name of the scorer, and of feedback that has none of its own.
        description: What it judges, for people.
        aggregations: How `evaluate` sums its values up; default: the mean.
        timeout: Seconds for one call; 0: no limit; None: the limit of whoever runs it.
        version: Its version; default: a digest of its definition.
        pass_if: When a value passes: a callable, or text such as `">= 0.7"`.
        sample_rate: Share of the traces that it sees, 0 to 1.
        filter: CEL expression that a trace (or span) must fulfil.
        span_types: Judge every span of these types, instead of the trace.
        concurrent: Calls on this instance may overlap in a process.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="ignore", protected_namespaces=())

    name: str = Field(min_length=1)
    description: str | None = None
    aggregations: list[Aggregation] | None = None
    timeout: float | None = None
    version: str | None = None
    pass_if: PassIf | None = None
    sample_rate: float = Field(default=1.0, ge=0.0, le=1.0)
    filter: str | None = None
    span_types: tuple[str, ...] = ()
    concurrent: bool = False

    @field_validator("timeout", "sample_rate", mode="before", check_fields=False)
    @classmethod
    def _is_a_number(cls, value: object) -> object:
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)):
            return value
        msg = f"must be a finite number, got {value!r}"
        raise ValueError(msg)

    @field_validator("timeout", check_fields=False)
    @classmethod
    def _is_not_negative(cls, value: float | None) -> float | None:
        if value is not None and value < 0:
            msg = f"must be 0 (no limit) or more seconds, got {value!r}"
            raise ValueError(msg)
        return value

    @field_validator("span_types", mode="before", check_fields=False)
    @classmethod
    def _is_a_sequence(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else () if value is None else value

    @field_validator("pass_if", check_fields=False)
    @classmethod
    def _can_be_read(cls, value: PassIf | None) -> PassIf | None:
        if isinstance(value, str):
            parse_condition(value)
        return value


OPTION_NAMES: Final = frozenset(ScorerOptions.model_fields)
"""Names of the options."""
