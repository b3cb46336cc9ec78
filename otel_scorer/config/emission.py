"""Verdicts as spans of their own, log records and metrics: the settings of each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from otel_scorer.config.quantities import Duration  # noqa: TC001 - pydantic evaluates the annotations
from otel_scorer.config.section import Section

__all__ = ["ScoreLogs", "ScoreMetrics", "ScoreSpans"]


class ScoreLogs(Section):
    """Log records about verdicts."""

    attributes: dict[str, str] = Field(
        default_factory=dict[str, str],
        description="Put on every such record, for backends that want a mark on them.",
    )


class ScoreMetrics(Section):
    """Metrics about verdicts."""

    interval: Duration = Field(default=10.0, gt=0, description="Time between two reports.")
    temporality: Literal["cumulative", "delta"] = Field(
        default="cumulative",
        description="cumulative (Prometheus and most others) or delta: what came since the report before.",
    )


class ScoreSpans(Section):
    """Evaluation spans."""

    duration: Duration = Field(
        default=0.0,
        le=1.0,
        description="How long they last, to the end of what was scored. Jaeger calls none at all an error: 1ns.",
    )
