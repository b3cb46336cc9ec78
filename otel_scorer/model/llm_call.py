"""One logical call of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otel_scorer.model.read_only import copied

if TYPE_CHECKING:
    from otel_scorer.model.facts import Usage
    from otel_scorer.model.span import Span

__all__ = ["LlmCall"]


@dataclass(frozen=True, slots=True)
class LlmCall:
    """
    One logical call of a model: an LLM span without another one below it.

    Attributes:
        model: Its name.
        given: See `inputs`; shared, so not to be changed.
        made: See `outputs`; likewise.
        usage: Tokens; None where nobody reported them.
        failed: Whether the call failed.
        span: The LLM span.
    """

    model: str | None
    given: Any
    made: Any
    usage: Usage | None
    failed: bool
    span: Span

    @property
    def inputs(self) -> Any:
        """What the model was given; None if nobody says."""
        return copied(self.given)

    @property
    def outputs(self) -> Any:
        """What it answered; None if nobody says."""
        return copied(self.made)
