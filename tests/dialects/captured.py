"""Captured traffic of real instrumentations as traces, and what is expected of each (`captures/expected*.yaml`)."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from otel_scorer.dialects import READER
from otel_scorer.model.decode import logs_from_request, spans_from_raw
from otel_scorer.model.otlp_json import decode_object
from otel_scorer.model.trace import LogRecord, Span, Trace
from otel_scorer.model.wire import Signal, read_traces

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CAPTURES = Path(__file__).parent.parent / "captures"
EXPECTED = ("expected.yaml", "expected_others.yaml")
PARTS = ("captures", "evaluations")

Request = dict[str, Any]


@cache
def expectations() -> dict[str, Any]:
    """Return what both files say: `captures` and `evaluations` by name of the capture."""
    files = [yaml.safe_load((CAPTURES / name).read_text(encoding="utf-8")) for name in EXPECTED]
    return {part: {name: said for file in files for name, said in file[part].items()} for part in PARTS}


def agrees(value: Any, wanted: Any) -> bool:
    """Compare a value with what is expected of it: the same, or `{contains: text}`."""
    if isinstance(wanted, dict) and set(wanted) == {"contains"}:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return str(wanted["contains"]) in text
    return bool(value == wanted)


@cache
def _requests(name: str) -> list[Request]:
    found: list[Request] = json.loads((CAPTURES / f"{name}.json").read_text(encoding="utf-8"))["requests"]
    return [request for request in found if request["signal"] in set(Signal)]


def requests_of(name: str) -> list[Request]:
    """Return the OTLP requests of a capture, to be changed at will."""
    return copy.deepcopy(_requests(name))


def traces_of(name: str) -> list[Trace]:
    """Return the traces of a capture by first start, its log records joined."""
    return build(_requests(name))


def build(requests: Iterable[Request]) -> list[Trace]:
    """Return the traces in OTLP/JSON requests by first start, log records joined."""
    spans: list[Span] = []
    logs: dict[tuple[str, str], list[LogRecord]] = {}
    for request in requests:
        signal = Signal(request["signal"])
        data = decode_object(signal, request["body"]).data
        if signal is Signal.TRACES:
            spans += spans_from_raw(read_traces(data).spans)
        elif signal is Signal.LOGS:
            for key, records in logs_from_request(data).items():
                logs.setdefault(key, []).extend(records)
    return traces(spans, logs)


def traces(spans: Sequence[Span], logs: dict[tuple[str, str], list[LogRecord]]) -> list[Trace]:
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        span.logs = tuple(logs.get((span.trace_id, span.span_id), ()))
        by_trace.setdefault(span.trace_id, []).append(span)
    return sorted(
        (Trace(members, READER) for members in by_trace.values()),
        key=lambda trace: min(span.start_time_ns for span in trace.spans),
    )
