"""MLflow 3 tracing over OTLP: every attribute is JSON, a string too, so its quotes are part of the value."""

from __future__ import annotations

from otel_scorer.dialects.documents import document_list
from otel_scorer.dialects.table import SPAN_TYPES, Attribute, Dialect, Flattened, SpanTypeKey, attributes
from otel_scorer.dialects.values import strict_json, usage

__all__ = ["DIALECT"]


def _documents(value: object) -> object:
    return document_list(strict_json(value))


DIALECT = Dialect(
    name="mlflow",
    scopes=("mlflow.*",),
    keys=("mlflow.spanType", "mlflow.traceRequestId", "mlflow.spanInputs"),
    span_types=(
        SpanTypeKey("mlflow.spanType", {name: name for name in SPAN_TYPES}, decode=strict_json, open_ended=True),
    ),
    fields={
        "inputs": attributes("mlflow.spanInputs", decode=strict_json),
        "outputs": attributes("mlflow.spanOutputs", decode=strict_json),
        "tool_name": attributes("mlflow.tool.name", "mlflow.spanFunctionName", decode=strict_json),
        "tool_call_id": attributes("tool_call_id", decode=strict_json),
        "tool_args": attributes("mlflow.spanInputs", decode=strict_json),
        "tool_result": attributes("mlflow.spanOutputs", decode=strict_json),
        "tool_definitions": attributes("mlflow.chat.tools", decode=strict_json),
        "documents": attributes("mlflow.spanOutputs", decode=_documents),
        "model": attributes("mlflow.llm.model", decode=strict_json),
        "provider": attributes("mlflow.llm.provider", decode=strict_json),
        "input_tokens": attributes("mlflow.chat.tokenUsage", decode=usage("input_tokens")),
        "output_tokens": attributes("mlflow.chat.tokenUsage", decode=usage("output_tokens")),
        "total_tokens": attributes("mlflow.chat.tokenUsage", decode=usage("total_tokens")),
        "cache_read_tokens": attributes("mlflow.chat.tokenUsage", decode=usage("cache_read_input_tokens")),
        "cache_write_tokens": attributes("mlflow.chat.tokenUsage", decode=usage("cache_creation_input_tokens")),
        "cost": (Attribute("mlflow.llm.cost", usage("total_cost")),),
        # Their values are in `trace.info.tags`.
        "tags": (Flattened("mlflow.traceTag", list),),
    },
    capture="MLflow records inputs and outputs of traced functions unless the span was started by hand without them",
)
