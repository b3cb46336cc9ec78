"""How the processor in the application treats traces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_scorer.pipeline.assembler import AssemblyLimits
from otel_scorer.pipeline.emission import Emission, Emit
from otel_scorer.pipeline.engine import Forwarding

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["QUEUE_SIZE", "AppOptions", "emit_kinds", "forwarding_of"]

QUEUE_SIZE: Final = 2048
"""Closed units that may be in scoring, if nobody says; as many as the SDK's queue takes spans."""

_ON_SPAN: Final = frozenset({Emit.EVENTS, Emit.ATTRIBUTES})
_LATER: Final = frozenset({"logs", "metrics", "native"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """
    How the engine treats units. Times in seconds.

    Attributes:
        limits: When units close; see `UnitAssembler`.
        forwarding: What waits for verdicts.
        emission: How verdicts are written.
        hold_deadline: The longest that spans wait once their unit is closed.
        exports_spans: Whether spans are sent at all, or verdicts only.
        queue_size: Closed units that may be in scoring.
        concurrency: Coroutine scorers that run at the same time.
        scorers_change: Whether other scorers may come, so that no unit is passed by for having none.
    """

    limits: AssemblyLimits = field(default_factory=AssemblyLimits)
    forwarding: Forwarding = Forwarding.HOLD_ROOT
    emission: Emission = field(default_factory=Emission)
    hold_deadline: float = 5.0
    exports_spans: bool = True
    queue_size: int = QUEUE_SIZE
    concurrency: int = 64
    scorers_change: bool = False


def emit_kinds(emit: Iterable[str] | None, *, export_spans: bool) -> frozenset[Emit]:
    """
    Return what verdicts are written as.

    Raises:
        ValueError: A kind is unknown, there is none, or it needs spans that somebody else exports.
    """
    if emit is None:
        return _ON_SPAN if export_spans else frozenset({Emit.EVALUATION_SPAN})
    names = [emit] if isinstance(emit, str) else list(emit)
    for name in names:
        if name in _LATER:
            msg = f"emit={name!r} is not available yet; there are {', '.join(Emit)}"
            raise ValueError(msg)
        if name not in set(Emit):
            msg = f"emit={name!r} is unknown; there are {', '.join(Emit)}"
            raise ValueError(msg)
    kinds = frozenset(map(Emit, names))
    if not kinds:
        msg = f"emit is empty, so no verdict would go anywhere; there are {', '.join(Emit)}"
        raise ValueError(msg)
    if not export_spans and kinds & _ON_SPAN:
        msg = (
            f"emit={', '.join(sorted(kinds & _ON_SPAN))} writes on spans, and with export_spans=False somebody else "
            "exports them: use emit=('evaluation_span',), or let ScoringSpanProcessor export the spans itself"
        )
        raise ValueError(msg)
    return kinds


def forwarding_of(name: str) -> Forwarding:
    """
    Return what waits for verdicts.

    Raises:
        ValueError: There is no such mode.
    """
    if name not in set(Forwarding):
        msg = f"forwarding={name!r} is unknown; there are {', '.join(Forwarding)}"
        raise ValueError(msg)
    return Forwarding(name)
