"""
The trace of a row that has none: one span that carries its inputs and outputs, so that it can be stored and found.

They are written as MLflow's SDK writes them, as JSON, because that brings back exactly what was there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from otel_scorer.model.encoding import attribute, field, fixed64_field, varint_field
from otel_scorer.model.trace import MISSING
from otel_scorer.stores.trace_entries import TraceRecord, as_json

if TYPE_CHECKING:
    from otel_scorer.evaluation.items import Item

__all__ = ["INPUTS", "OUTPUTS", "row_record"]

INPUTS: Final = "mlflow.spanInputs"
OUTPUTS: Final = "mlflow.spanOutputs"

_NAME: Final = "row"
_TYPE: Final = attribute("mlflow.spanType", '"UNKNOWN"')
_NAME_AND_KIND: Final = field(5, _NAME.encode()) + varint_field(6, 1)  # SPAN_KIND_INTERNAL
_MILLISECOND: Final = 1_000_000


def row_record(item: Item, now_ns: int) -> TraceRecord:
    """
    Return a row as a trace of one span.

    Args:
        item: The row.
        now_ns: When the span begins and ends, nanoseconds since the epoch.
    """
    ids = os.urandom(24)
    tags = {str(key): str(value) for key, value in item.tags.items()}
    span = [
        field(1, ids[:16]),
        field(2, ids[16:]),
        _NAME_AND_KIND,
        fixed64_field(7, now_ns),
        fixed64_field(8, now_ns),
        _TYPE,
        *(attribute(f"mlflow.traceTag.{key}", value) for key, value in tags.items()),
    ]
    if item.inputs is not MISSING:
        span.append(attribute(INPUTS, as_json(item.inputs)))
    if item.outputs is not MISSING:
        span.append(attribute(OUTPUTS, as_json(item.outputs)))
    milliseconds = now_ns // _MILLISECOND
    return TraceRecord(
        ids[:16].hex(),
        field(1, field(2, field(2, b"".join(span)))),
        name=_NAME,
        root_id=ids[16:].hex(),
        start_ms=milliseconds,
        end_ms=milliseconds,
        tags=tags,
    )
