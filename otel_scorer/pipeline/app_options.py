"""How the processor in the application treats traces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from otel_scorer.pipeline.assembler import AssemblyLimits
from otel_scorer.pipeline.emission import Emission
from otel_scorer.pipeline.engine import Forwarding

__all__ = ["QUEUE_SIZE", "AppOptions"]

QUEUE_SIZE: Final = 2048
"""Closed units that may be in scoring, if nobody says; as many as the SDK's queue takes spans."""


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
    """

    limits: AssemblyLimits = field(default_factory=AssemblyLimits)
    forwarding: Forwarding = Forwarding.HOLD_ROOT
    emission: Emission = field(default_factory=Emission)
    hold_deadline: float = 5.0
    exports_spans: bool = True
    queue_size: int = QUEUE_SIZE
    concurrency: int = 64
