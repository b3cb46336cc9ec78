"""
A trace or span as MLflow's own object, for a parameter whose annotation asks for `mlflow.entities.Trace` or `Span`.

MLflow is there, or nobody could have written that annotation. What spans mean is said in MLflow's attributes, so that
`search_spans`, inputs, outputs and status are the same in both forms.
"""

from __future__ import annotations

import base64
import json
import threading
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.model.feedback import Expectation, Feedback
from otel_scorer.model.trace import MISSING, Span, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.trace import SpanStatusCode

__all__ = ["mlflow_form"]

_STATUS: Final = {"OK": "STATUS_CODE_OK", "ERROR": "STATUS_CODE_ERROR", "UNSET": "STATUS_CODE_UNSET"}

_made: weakref.WeakKeyDictionary[Trace, Any] = weakref.WeakKeyDictionary()
_lock = threading.Lock()  # guards `_made`: several scorers may ask for one trace


def mlflow_form(value: Trace | Span) -> Any:
    """Return a trace as `mlflow.entities.Trace`, made once for all scorers, or a span as `mlflow.entities.Span`."""
    if isinstance(value, Span):
        return _span(value)
    with _lock:
        made = _made.get(value)
    if made is None:
        made = _trace(value)
        with _lock:
            made = _made.setdefault(value, made)
    return made


def _trace(trace: Trace) -> Any:
    entities: Any = import_module("mlflow.entities")
    info = trace.info
    return entities.Trace(
        info=entities.TraceInfo(
            trace_id=_request_id(trace.trace_id),
            trace_location=entities.TraceLocation.from_experiment_id("0"),
            request_time=info.request_time,
            state=entities.TraceState(info.state),
            request_preview=info.request_preview,
            response_preview=info.response_preview,
            execution_duration=info.execution_duration,
            trace_metadata=info.trace_metadata,
            tags=dict(info.tags),
            assessments=[_assessment(assessment, entities) for assessment in info.assessments],
        ),
        data=entities.TraceData(spans=[_span(span) for span in trace.spans]),
    )


def _request_id(trace_id: str) -> str:
    return f"tr-{trace_id}"


def _span(span: Span) -> Any:
    attributes = {key: _json(value) for key, value in span.attributes.items() if not key.startswith("mlflow.span")}
    attributes["mlflow.traceRequestId"] = _json(_request_id(span.trace_id))
    attributes["mlflow.spanType"] = _json(span.span_type)
    for key, value in (("mlflow.spanInputs", span.read("inputs")), ("mlflow.spanOutputs", span.read("outputs"))):
        if value is not MISSING:
            attributes[key] = _json(value)
    made: Any = import_module("mlflow.entities").Span
    return made.from_dict(
        {
            "trace_id": _bytes(span.trace_id),
            "span_id": _bytes(span.span_id),
            "parent_span_id": None if span.parent_id is None else _bytes(span.parent_id),
            "name": span.name,
            "start_time_unix_nano": span.start_time_ns,
            "end_time_unix_nano": span.end_time_ns,
            "status": {"code": _code(span.status.status_code), "message": span.status.description},
            "attributes": attributes,
            "events": [
                {"name": event.name, "time_unix_nano": event.timestamp, "attributes": _plain(event.attributes)}
                for event in span.events
            ],
            "links": [],
        }
    )


def _code(code: SpanStatusCode) -> str:
    return _STATUS[code.value]


def _bytes(hexadecimal: str) -> str:
    """Return an id as MLflow stores it."""
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as an event of MLflow can hold them: nested ones as JSON text."""
    return {
        key: value if isinstance(value, str | bool | int | float) else _json(value)
        for key, value in attributes.items()
        if value is not None
    }


def _assessment(given: Feedback | Expectation, entities: Any) -> Any:
    made: Any = entities.Feedback if isinstance(given, Feedback) else entities.Expectation
    plain = given.to_dictionary()
    return made.from_dictionary(plain)
