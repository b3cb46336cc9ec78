"""Reports as JSON: one object, or one line per feedback. Keys and their order are part of the interface."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from otel_scorer.model.decision import feedback_to_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.model.feedback import Feedback
    from otel_scorer.reporting.report import Report, Row, Summary

__all__ = ["as_json", "as_jsonl", "json_parts", "jsonl_lines", "row_to_dict"]

_FEEDBACK_KEYS = ("name", "value", "rationale", "source", "metadata", "error")


def as_jsonl(report: Report) -> str:
    """Return one line per feedback, and one with `"feedback": null` per decision that has none."""
    return "".join(jsonl_lines(report))


def jsonl_lines(report: Report) -> Iterator[str]:
    """Yield what `as_jsonl` returns, line by line."""
    return (_dump(row_to_dict(row)) + "\n" for row in report.rows)


def as_json(report: Report) -> str:
    """Return everything as one object; `results` holds what `as_jsonl` writes line by line."""
    return "".join(json_parts(report))


def json_parts(report: Report) -> Iterator[str]:
    """Yield what `as_json` returns, result by result."""
    document: dict[str, Any] = {
        "traces": len(report.judged),
        "errors": report.error_count,
        "summary": [_summary(summary) for summary in report.summaries],
        "bounds": [{"name": bound.name, "found": bound.text, "missed": bound.is_missed} for bound in report.bounds],
        "problems": report.problems,
        "results": [],
    }
    yield _dump(document, indent=2).removesuffix("]\n}")
    separator = "\n    "
    for row in report.rows:
        # A line ends only between values: in texts it is escaped.
        yield separator + _dump(row_to_dict(row), indent=2).replace("\n", "\n    ")
        separator = ",\n    "
    yield "\n  ]\n}\n" if report.totals.rows else "]\n}\n"


def row_to_dict(row: Row) -> dict[str, Any]:
    """Return one line of `score --format jsonl`."""
    return {
        "trace_id": row.subject.trace_id,
        "span_id": row.span_id,
        "scorer": row.scorer,
        "decision": str(row.outcome),
        "reason": row.reason,
        "revision": row.revision,
        "feedback": None if row.feedback is None else _feedback(row.feedback),
        "close_reason": row.subject.close_reason,
        "complete": row.subject.complete,
    }


def _feedback(feedback: Feedback) -> dict[str, Any]:
    found = feedback_to_dict(feedback)
    return {key: found[key] for key in _FEEDBACK_KEYS}


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "scorer": summary.scorer,
        "name": summary.name,
        "mean": summary.mean,
        "values": summary.values,
        "pass_rate": summary.pass_rate,
        "passed": summary.passed,
        "failed": summary.failed,
        "no_value": summary.no_value,
        "errors": summary.errors,
        "outcomes": dict(summary.outcomes),
    }


def _dump(value: object, indent: int | None = None) -> str:
    # Metadata may hold anything that a scorer put there.
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
