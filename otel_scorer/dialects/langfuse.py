"""The Langfuse SDK (3 and later, which sends OTLP)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.table import Attribute, Dialect, Flattened, SpanTypeKey, attributes
from otel_scorer.dialects.values import call_arguments, is_dict, json_twice, json_value, strict_json, usage
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DIALECT"]

_USAGE = "langfuse.observation.usage_details"


def _input_tokens(value: object) -> object:
    """
    Return all tokens that went in.

    Under OpenAI's names the number is complete; under Langfuse's own the buckets exclude one another (`input` 60,
    `input_cache_read` 40), but for audio, which is a part of `input`.
    """
    details = strict_json(value)
    if not is_dict(details):
        return MISSING
    complete = next((details[key] for key in ("prompt_tokens", "input_tokens") if key in details), None)
    if complete is not None or "input" not in details:
        return MISSING if complete is None else complete
    buckets = (details[key] for key in details if key == "input" or key.startswith("input_"))
    audio = details.get("input_audio", 0)
    total = sum(count for count in buckets if isinstance(count, int))
    return total - (audio if isinstance(audio, int) else 0)


def _metadata(values: Mapping[str, object]) -> object:
    return {key: json_twice(value) for key, value in values.items()}


DIALECT = Dialect(
    name="langfuse",
    scopes=("langfuse-sdk",),
    keys=("langfuse.observation.type", "langfuse.observation.input"),
    span_types=(
        SpanTypeKey(
            "langfuse.observation.type",
            {
                "generation": "LLM",
                "embedding": "EMBEDDING",
                "agent": "AGENT",
                "tool": "TOOL",
                "chain": "CHAIN",
                "retriever": "RETRIEVER",
                "guardrail": "GUARDRAIL",
                "evaluator": "EVALUATOR",
            },
        ),
    ),
    fields={
        "inputs": attributes("langfuse.observation.input", "langfuse.trace.input", decode=json_value),
        "outputs": attributes("langfuse.observation.output", "langfuse.trace.output", decode=json_value),
        "tool_call_id": attributes("langfuse.observation.metadata.tool_call_id", decode=json_value),
        "tool_args": attributes("langfuse.observation.input", decode=call_arguments),
        "tool_result": attributes("langfuse.observation.output", decode=json_value),
        "documents": attributes("langfuse.observation.output", decode=document_list),
        "model": attributes("langfuse.observation.model.name"),
        "input_tokens": (Attribute(_USAGE, _input_tokens),),
        "output_tokens": (Attribute(_USAGE, usage("completion_tokens", "output_tokens", "output")),),
        "total_tokens": (Attribute(_USAGE, usage("total_tokens", "total")),),
        "cost": attributes("langfuse.observation.cost_details", decode=usage("total")),
        "session_id": attributes("session.id", "langfuse.session.id"),
        "user_id": attributes("user.id", "langfuse.user.id"),
        "tags": attributes("langfuse.trace.tags"),
        "metadata": (
            Flattened("langfuse.observation.metadata", _metadata),
            Flattened("langfuse.trace.metadata", _metadata),
        ),
        "error_message": attributes("langfuse.observation.status_message"),
    },
    capture=(
        "pass no capture_input=False or capture_output=False to @observe, and unset "
        "LANGFUSE_OBSERVE_DECORATOR_IO_CAPTURE_ENABLED=false"
    ),
)
