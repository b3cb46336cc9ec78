"""Genkit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.table import Attribute, Dialect, SpanTypeKey, attributes
from otel_scorer.dialects.values import arguments, is_dict, json_value
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DIALECT"]


def _usage(key: str) -> Callable[[object], object]:
    """Make a decoder of one count in the `usage` of a model's response."""

    def read(value: object) -> object:
        response = json_value(value)
        counts = response.get("usage") if is_dict(response) else None
        return counts.get(key, MISSING) if is_dict(counts) else MISSING

    return read


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
        "input_tokens": (Attribute("genkit:output", _usage("inputTokens")),),
        "output_tokens": (Attribute("genkit:output", _usage("outputTokens")),),
        "total_tokens": (Attribute("genkit:output", _usage("totalTokens")),),
    },
)
