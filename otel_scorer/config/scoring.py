"""Which scorers there are, and how they are run."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from otel_scorer.config.quantities import Duration  # noqa: TC001 - pydantic evaluates the annotations
from otel_scorer.config.section import Section
from otel_scorer.pipeline.running.runner import DEFAULT_TIMEOUT
from otel_scorer.scorers.loading import ScorerSpec

__all__ = ["ScorerSettings", "ScoringSettings"]


class ScoringSettings(Section):
    """How scorers are run."""

    workers: int = Field(default=1, ge=1, description="Processes that run scorers.")
    timeout: Duration = Field(
        default=DEFAULT_TIMEOUT, description="Time for one scorer on one target, unless the scorer says; 0: no limit."
    )
    concurrency: int = Field(
        default=64, ge=1, description="Coroutine scorers that run at the same time in one process."
    )
    trace_scorers: bool = Field(
        default=False,
        description="In the application: have spans of what scorers do (model calls, HTTP requests) recorded, as "
        "traces of their own, and exported. They are never scored.",
    )


class ScorerSettings(Section):
    """One scorer, or several behind one reference. What is null stays as the scorer's code says."""

    use: str = Field(
        min_length=1,
        description="package.module:attribute, package.module, path/to/file.py, path/to/file.py:attribute, "
        "an entry point of the group otel_scorer.scorers, or the name of a built-in.",
    )
    name: str | None = Field(default=None, min_length=1, description="Another name; for a reference to one scorer.")
    sample_rate: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of traces to score, chosen by trace id: every replica chooses the same.",
    )
    filter: str | None = Field(
        default=None, description="A CEL expression; traces for which it is not true are not scored."
    )
    timeout: Duration | None = Field(default=None, description="Time for one target; 0: no limit.")
    span_types: list[str] | None = Field(
        default=None, description="Score each span of these types, such as [TOOL], instead of the trace."
    )
    pass_if: str | None = Field(default=None, description="When a value passes, such as '>= 0.7' or '== False'.")
    concurrent: bool | None = Field(default=None, description="Calls of this scorer may overlap in one process.")
    parameters: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="Fields of a scorer class; for a reference to one such class."
    )

    @property
    def spec(self) -> ScorerSpec:
        """The same for `load_scorers`."""
        return ScorerSpec(
            use=self.use,
            name=self.name,
            sample_rate=self.sample_rate,
            filter=self.filter,
            timeout=self.timeout,
            span_types=self.span_types,
            pass_if=self.pass_if,
            concurrent=self.concurrent,
            parameters=self.parameters,
        )
