"""Genkit."""

from __future__ import annotations

from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.table import Dialect, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, json_value

__all__ = ["DIALECT"]

DIALECT = Dialect(
    name="genkit",
    scopes=("genkit-tracer",),
    keys=("genkit:metadata:subtype",),
    span_types=(
        SpanTypeKey(
            "genkit:metadata:subtype",
            {
                "model": "LLM",
                "background-model": "LLM",
                "embedder": "EMBEDDING",
                "tool": "TOOL",
                "tool.v2": "TOOL",
                "retriever": "RETRIEVER",
                "evaluator": "EVALUATOR",
            },
        ),
    ),
    fields={
        "inputs": attributes("genkit:input", decode=json_value),
        "outputs": attributes("genkit:output", decode=json_value),
        "tool_name": attributes("genkit:name"),
        "tool_args": attributes("genkit:input", decode=arguments),
        "tool_result": attributes("genkit:output", decode=json_value),
        "documents": attributes("genkit:output", decode=document_list),
    },
)
