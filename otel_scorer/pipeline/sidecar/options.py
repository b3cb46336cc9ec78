"""How the sidecar's engine treats traces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_scorer.pipeline.assembly.closing import AssemblyLimits
from otel_scorer.pipeline.sidecar.holding import Forwarding
from otel_scorer.pipeline.verdicts.emission import Emission

if TYPE_CHECKING:
    from otel_scorer.pipeline.keeping.triage import Keep

__all__ = ["EngineOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """
    How traces are treated; see `AssemblyLimits`, `Emission` and `Keep`. `hold_deadline` is in seconds after closing.

    `keep` chooses traces that are held whole: it goes with `Forwarding.HOLD_TRACE`, and not with units of traces.
    """

    limits: AssemblyLimits = field(default_factory=AssemblyLimits)
    forwarding: Forwarding = Forwarding.PASSTHROUGH
    emission: Emission = field(default_factory=Emission)
    keep: Keep | None = None
    hold_deadline: float = 5.0
