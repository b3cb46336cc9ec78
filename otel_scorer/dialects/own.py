"""What a user of otel_scorer says about a span: `otel_scorer.span.type` overrides everything else."""

from __future__ import annotations

from otel_scorer.dialects.table import SPAN_TYPES, Dialect, SpanTypeKey

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="otel_scorer",
    keys=("otel_scorer.span.type",),
    span_types=(SpanTypeKey("otel_scorer.span.type", {name: name for name in SPAN_TYPES}, open_ended=True),),
)
