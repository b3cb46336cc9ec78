"""How much memory the sidecar may use."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from otel_scorer.config.quantities import OFF, format_bytes, parse_bytes
from otel_scorer.config.section import Section
from otel_scorer.errors import ConfigError

__all__ = ["MemorySettings"]

_SHARE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
_WHOLE: Final = 100.0
_ANY: Final = 1 << 40


def _check_amount(value: object) -> str:
    """Accept a share, a size, or `off`, which YAML 1.1 takes for False."""
    if value is False or value == OFF:
        return OFF
    if isinstance(value, str) and (match := _SHARE.fullmatch(value)):
        if 0 < float(match[1]) <= _WHOLE:
            return f"{match[1]}%"
        raise PydanticCustomError("quantity", "a share of the memory is more than 0% and at most 100%")
    try:
        return format_bytes(parse_bytes(value))
    except ValueError as error:
        raise PydanticCustomError("quantity", "write a share or a size, such as 75% or 400MiB, or off") from error


Amount = Annotated[str, BeforeValidator(_check_amount)]


class MemorySettings(Section):
    """How much memory the sidecar may use."""

    soft: Amount = Field(
        default="75%",
        description="Over this, requests are refused for a moment, or wait on disk if there is a spool, and traces "
        "that are open for longer than root_cap are scored early. A share of what the control group (container) "
        "allows, else of all memory, or a size; workers count. off: no limit.",
    )
    hard: Amount = Field(
        default="90%",
        description="Over this, any open trace is scored early, heavy and old ones first, and with a spool requests "
        "are refused, too.",
    )

    worker: Amount = Field(
        default="50%",
        description="What one scorer worker may have for itself: over this it is replaced, and the scorer that runs at "
        "that moment has failed.",
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        # A share and a size can be compared only where they are used.
        if self.soft.endswith("%") == self.hard.endswith("%"):
            try:
                self.limits(_ANY)
            except ConfigError as error:
                raise PydanticCustomError("memory", "{reason}", {"reason": str(error)}) from error
        return self

    def limits(self, available: int) -> tuple[int | None, int | None]:
        """
        Return both in bytes, None for off.

        Args:
            available: Bytes that there are.

        Raises:
            ConfigError: The soft one is not below the hard one.
        """
        soft, hard = (_bytes(amount, available) for amount in (self.soft, self.hard))
        if soft is not None and hard is not None and soft >= hard:
            raise ConfigError(f"memory.soft ({self.soft}) must be less than memory.hard ({self.hard})")
        return soft, hard

    def worker_limit(self, available: int) -> int | None:
        """Return in bytes what one worker may have of what is there; None: no limit."""
        return _bytes(self.worker, available)


def _bytes(amount: str, available: int) -> int | None:
    if amount == OFF:
        return None
    if amount.endswith("%"):
        return int(available * float(amount[:-1]) / _WHOLE)
    return parse_bytes(amount)
