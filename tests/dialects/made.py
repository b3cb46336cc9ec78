"""Spans made by hand, for what no capture shows."""

from __future__ import annotations

import itertools
from typing import Any

from otel_scorer.dialects import READER
from otel_scorer.model.trace import LogRecord, Span, Trace

_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
_counter = itertools.count(1)


def made(
    name: str = "span",
    attributes: dict[str, Any] | None = None,
    *,
    scope: str = "my.app",
    parent: dict[str, Any] | None = None,
    status: str | dict[str, str] = "UNSET",
    **facts: Any,
) -> dict[str, Any]:
    """Return a span as plain data, later than all spans made before it."""
    number = next(_counter)
    return {
        "trace_id": _TRACE_ID,
        "span_id": f"{number:016x}",
        "parent_id": None if parent is None else parent["span_id"],
        "name": name,
        "kind": "INTERNAL",
        "start_time_ns": number * 1000,
        "end_time_ns": number * 1000 + 500,
        "status": {"code": status} if isinstance(status, str) else status,
        "attributes": attributes or {},
        "resource": {"service.name": "app"},
        "scope": {"name": scope, "version": "1"},
        **facts,
    }


def event(name: str, **attributes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "timestamp": 1,
        "attributes": {key.replace("__", "."): value for key, value in attributes.items()},
    }


def trace_of(*spans: dict[str, Any]) -> Trace:
    return Trace.from_dict({"info": {}, "data": {"spans": list(spans)}}, READER)


def view(name: str = "span", attributes: dict[str, Any] | None = None, **facts: Any) -> Span:
    """Return the view of a span that is alone in its trace."""
    [span] = trace_of(made(name, attributes, **facts)).spans
    return span


def log(event_name: str, body: Any = None, **attributes: Any) -> LogRecord:
    return LogRecord(
        event_name, body, {key.replace("__", "."): value for key, value in attributes.items()}, next(_counter)
    )
