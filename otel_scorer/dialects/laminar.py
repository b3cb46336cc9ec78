"""Laminar."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, json_value

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="laminar",
    keys=("lmnr.span.type",),
    span_types=(
        SpanTypeKey(
            "lmnr.span.type",
            {
                "LLM": "LLM",
                "CACHED": "LLM",
                "TOOL": "TOOL",
                "DEFAULT": "CHAIN",
                "PIPELINE": "CHAIN",
                "EXECUTOR": "AGENT",
                "EVALUATOR": "EVALUATOR",
                "HUMAN_EVALUATOR": "EVALUATOR",
                "EVALUATION": "EVALUATOR",
            },
        ),
    ),
    fields={
        "inputs": attributes("lmnr.span.input", decode=json_value),
        "outputs": attributes("lmnr.span.output", decode=json_value),
        "tool_args": attributes("lmnr.span.input", decode=arguments),
        "tool_result": attributes("lmnr.span.output", decode=json_value),
        "session_id": attributes("lmnr.association.properties.session_id"),
        "user_id": attributes("lmnr.association.properties.user_id"),
        "tags": attributes("lmnr.association.properties.tags"),
    },
)
