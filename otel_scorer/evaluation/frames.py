"""Traces and results as pandas DataFrames, under MLflow's column names. pandas is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from otel_scorer.errors import OtelScorerError
from otel_scorer.model.otlp_attributes import utf8_text
from otel_scorer.model.trace import MISSING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.evaluation.result import RowResult
    from otel_scorer.model.trace import Trace
    from otel_scorer.reporting.subject import Evidence

__all__ = ["result_frame", "trace_frame"]

_TRACE_COLUMNS = (
    "trace_id",
    "trace",
    "client_request_id",
    "state",
    "request_time",
    "execution_duration",
    "request",
    "response",
    "trace_metadata",
    "tags",
    "spans",
    "assessments",
)


def trace_frame(traces: Iterable[Trace]) -> Any:
    """
    Return a row for each trace; the column `trace` is its JSON, which `evaluate` takes.

    Raises:
        OtelScorerError: pandas is not installed.
    """
    return _pandas().DataFrame([_utf8(_trace_columns(trace)) for trace in traces], columns=list(_TRACE_COLUMNS))


def result_frame(results: Iterable[RowResult]) -> Any:
    """
    Return a row for each row that was judged.

    Raises:
        OtelScorerError: pandas is not installed.
    """
    pandas = _pandas()
    verdicts: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for result in results:
        evidence = result.evidence()
        verdicts.append({"trace_id": result.trace_id, **_verdicts(result, evidence)})
        columns = _row_columns(evidence) if evidence.trace is None else _trace_columns(evidence.trace)
        if evidence.trace is not None:
            # What a row of the data said wins over what is in the trace.
            columns |= _row_columns(evidence)
        columns.pop("trace_id", None)
        if result.error is not None:
            columns["error"] = result.error
        rest.append(columns)
    return pandas.concat([pandas.DataFrame(map(_utf8, each)) for each in (verdicts, rest)], axis=1)


def _verdicts(result: RowResult, evidence: Evidence) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for feedback in result.feedbacks:
        columns[f"{feedback.name}/value"] = feedback.value
        if feedback.rationale is not None:
            columns[f"{feedback.name}/rationale"] = feedback.rationale
        if feedback.error is not None:
            columns[f"{feedback.name}/error_message"] = feedback.error_message
            columns[f"{feedback.name}/error_code"] = feedback.error_code
    for name, value in (evidence.expectations or {}).items():
        columns.setdefault(f"{name}/value", value)
    return columns


def _row_columns(evidence: Evidence) -> dict[str, Any]:
    columns = {"request": evidence.inputs, "response": evidence.outputs}
    return {name: value for name, value in columns.items() if value is not MISSING}


def _trace_columns(trace: Trace) -> dict[str, Any]:
    info = trace.info
    return {
        "trace_id": info.trace_id,
        "trace": trace.to_json(),
        "client_request_id": info.client_request_id,
        "state": str(info.state),
        "request_time": info.request_time,
        "execution_duration": info.execution_duration,
        "request": trace.inputs,
        "response": trace.outputs,
        "trace_metadata": info.trace_metadata,
        "tags": info.tags,
        "spans": [span.to_dict() for span in trace.spans],
        "assessments": [assessment.to_dictionary() for assessment in info.assessments],
    }


def _utf8(columns: dict[str, Any]) -> dict[str, Any]:
    """Return a row as pandas takes it: since version 3 it refuses text that UTF-8 cannot carry."""
    return {utf8_text(key): utf8_text(value) if isinstance(value, str) else value for key, value in columns.items()}


def _pandas() -> Any:
    try:
        return import_module("pandas")
    except ImportError as error:
        raise OtelScorerError("DataFrames need pandas: pip install pandas") from error
