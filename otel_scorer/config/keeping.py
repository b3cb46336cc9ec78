"""Which traces are sent on, where that depends on their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.keeping.rules import KeepRule

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Rule", "check_scorers", "refuse_parts"]


def _check(expression: str) -> str:
    try:
        KeepRule(expression)
    except ConfigError as error:
        raise PydanticCustomError("keep", "{problem}", {"problem": str(error)}) from None
    return expression


Rule = Annotated[str, AfterValidator(_check)]
"""An expression of `KeepRule`."""


def refuse_parts(forwarding: str, trigger: str) -> None:
    """
    Refuse a rule where traces are not held whole.

    Raises:
        PydanticCustomError: They are not.
    """
    if forwarding != "hold_trace":
        raise PydanticCustomError("keep", "keep: whole traces must wait for their verdicts: set forwarding: hold_trace")
    if trigger == "local_root":
        raise PydanticCustomError(
            "keep", "keep is about whole traces, and assembly.trigger: local_root cuts them up: use auto or root"
        )


def check_scorers(expression: str | None, scorers: Collection[str]) -> None:
    """
    Refuse a rule that names scorers that are not there.

    Raises:
        ConfigError: There is no scorer of such a name.
    """
    if expression is None:
        return
    missing = sorted(KeepRule(expression).scorers - set(scorers))
    if missing:
        known = ", ".join(scorers) or "none"
        raise ConfigError(f"keep: {expression!r}: there is no scorer {missing[0]!r}; there are {known}")
