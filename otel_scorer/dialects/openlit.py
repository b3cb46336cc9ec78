"""OpenLIT: the OTel conventions on client spans, Python reprs on spans of its decorator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_scorer.dialects.table import Computed, Dialect, attributes
from otel_scorer.dialects.values import call_arguments, literal
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span

__all__ = ["DIALECT"]


def _call(span: Span) -> object:
    given, named = span.attributes.get("function.args"), span.attributes.get("function.kwargs")
    if given is None and named is None:
        return MISSING
    return call_arguments({"args": literal(given), "kwargs": literal(named)})


DIALECT = Dialect(
    name="openlit",
    scopes=("openlit", "openlit.*"),
    resource={"telemetry.sdk.name": "openlit"},
    base="otel_genai",
    fields={
        "inputs": (Computed("function.args and function.kwargs", _call),),
        "cost": attributes("gen_ai.usage.cost"),
        "total_tokens": attributes("gen_ai.usage.total_tokens", "gen_ai.client.token.usage"),
    },
    capture=(
        "leave capture_message_content of openlit.init() on (OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true)"
    ),
)
