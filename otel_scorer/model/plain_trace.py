"""Traces as plain JSON data, and back: what `Trace.to_dict`, `from_dict` and `from_json` do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from otel_scorer.model.feedback import assessment_from_dictionary
from otel_scorer.model.mlflow_trace import plain_from_mlflow
from otel_scorer.model.recorded import RecordedSpan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.trace import Trace

__all__ = ["plain_trace", "read_plain"]


def plain_trace(trace: Trace) -> dict[str, Any]:
    """Return everything in a trace as plain data; see `Trace.to_dict`."""
    info = trace.info
    return {
        "info": {
            "trace_id": info.trace_id,
            "request_time": info.request_time,
            "execution_duration": info.execution_duration,
            "state": info.state,
            "tags": dict(info.tags),
            "assessments": [assessment.to_dictionary() for assessment in info.assessments],
            "close_reason": trace.close_reason,
            "is_complete": trace.is_complete,
            "revision": trace.revision,
        },
        "data": {"spans": [span.to_dict() for span in [*trace.spans, *trace.placeholders, *trace.own_spans]]},
    }


def read_plain(data: Mapping[str, Any]) -> tuple[list[RecordedSpan], dict[str, Any]]:
    """
    Return the spans in plain data, and what else a trace is made from: arguments of `Trace`.

    Raises:
        ValueError: It is something else; see `Trace.from_dict`.
    """
    try:
        data = plain_from_mlflow(data) or data
        info = data["info"]
        tags = cast("Mapping[str, object]", info.get("tags") or {})
        return [RecordedSpan(span) for span in data["data"]["spans"]], {
            "close_reason": info.get("close_reason"),
            "is_complete": info.get("is_complete"),
            "revision": info.get("revision", 1),
            "assessments": [assessment_from_dictionary(item) for item in info.get("assessments", ())],
            "tags": {str(key): str(value) for key, value in tags.items()},
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        said = error if isinstance(error, ValueError) else repr(error)
        msg = f"Not a trace as Trace.to_dict() writes it: {said}"
        raise ValueError(msg) from error
