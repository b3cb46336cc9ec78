"""Flue: which keys a span has says what it does."""

from __future__ import annotations

from otel_scorer.dialects.table import Dialect, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, json_value

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="flue",
    scopes=("@flue/opentelemetry",),
    keys=("flue.tool.name", "flue.task.id"),
    span_types=(
        SpanTypeKey("flue.tool.name", {}, present="TOOL"),
        SpanTypeKey("flue.tool.call_id", {}, present="TOOL"),
        SpanTypeKey("flue.task.id", {}, present="AGENT"),
        SpanTypeKey("flue.task.agent", {}, present="AGENT"),
    ),
    fields={
        "inputs": (
            *attributes("flue.turn.input", "flue.tool.arguments", decode=json_value),
            *attributes("flue.task.prompt"),
            *attributes("flue.workflow.payload", decode=json_value),
        ),
        "outputs": attributes(
            "flue.turn.output",
            "flue.tool.result",
            "flue.task.result",
            "flue.operation.result",
            "flue.workflow.result",
            decode=json_value,
        ),
        "tool_name": attributes("flue.tool.name"),
        "tool_call_id": attributes("flue.tool.call_id"),
        "tool_args": attributes("flue.tool.arguments", decode=arguments),
        "tool_result": attributes("flue.tool.result", decode=json_value),
    },
)
