"""Scorers in the sidecar see of every capture what `expected.yaml` says, wherever its log records come in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.dialects.captured import CAPTURES, agrees, expectations, requests_of, traces_of
from tests.e2e.sidecar import SCORERS, Sidecar
from tests.e2e.sink import Sink

from otel_scorer.model.otlp_json import decode_object
from otel_scorer.model.splicing import split_request
from otel_scorer.model.wire import Signal
from otel_scorer.reporting.inspection import inspect_trace
from otel_scorer.testing import make_span, make_trace

NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
DESCRIBED = [name for name in NAMES if name in expectations()["captures"]]
EVALUATED = [name for name in NAMES if name in expectations()["evaluations"]]
LLM = {"LLM", "CHAT_MODEL"}
# What `inspect` calls the fields of `expected.yaml`.
FIELDS = {
    "root": "root",
    "root_inputs": "root_inputs",
    "root_outputs": "root_outputs",
    "derived_inputs": "inputs",
    "derived_outputs": "outputs",
    "llm_calls": "llm_calls",
    "failed_spans": "failed_spans",
    "root_failed": "root_failed",
    "model": "model",
    "session": "session_id",
    "user": "user_id",
    "tags": "tags",
    "documents": "documents",
}
NUMBER_OF_FIELDS = len(inspect_trace(make_trace(make_span())))

Seen = dict[str, dict[str, Any]]
"""What the scorer saw, by trace id."""


def requests(name: str, logs: str) -> list[tuple[Signal, bytes]]:
    """Return a capture's requests, its logs `before`, `between` or `after` its spans."""
    bodies = dict.fromkeys(Signal, b"")
    for request in requests_of(name):
        signal = Signal(request["signal"])
        bodies[signal] += decode_object(signal, request["body"]).data
    spans = [(Signal.TRACES, part) for part in split_request(Signal.TRACES, bodies[Signal.TRACES]) or ()]
    spans = spans or [(Signal.TRACES, bodies[Signal.TRACES])]
    at = {"before": 0, "between": 1, "after": len(spans)}[logs]
    records = [(Signal.LOGS, bodies[Signal.LOGS])] if bodies[Signal.LOGS] else []
    return [*spans[:at], *records, *spans[at:]]


@pytest.fixture(scope="module", params=["before", "between", "after"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """What a scorer in the sidecar saw of all captures; every byte of the logs came out as it went in."""
    config = Path(tmp_path_factory.mktemp("sidecar")) / "sidecar.yaml"
    config.write_text("assembly: {root_grace: 5s, local_root_grace: 5s, idle_timeout: 5s}\n", encoding="utf-8")
    sink = Sink()
    sidecar = Sidecar("-c", str(config), "--export", sink.grpc, "--scorers", str(SCORERS / "understanding.py"))
    traces = [bytes.fromhex(trace.trace_id) for name in NAMES for trace in traces_of(name)]
    sent_logs = b""
    try:
        for name in NAMES:
            for signal, body in requests(name, request.param):
                answer = sidecar.post(body, f"/v1/{signal}")
                assert (answer.status, answer.body) == (200, b""), (name, answer)
                sent_logs += body if signal is Signal.LOGS else b""
        sink.wait_for_scores(len(traces) * NUMBER_OF_FIELDS, *traces)
        # Requests that wait for the backend may leave as one: what counts is what is in them.
        sink.wait_for(lambda: b"".join(sink.requests("logs")) == sent_logs)
        found: Seen = {trace.hex(): {} for trace in traces}
        for score in sink.scores_of(*traces):
            found[score.raw.trace_id.hex()][score.name] = json.loads(str(score.explanation))
        yield found
    finally:
        sidecar.close()
        sink.close()


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_scorer_in_the_sidecar_sees_what_was_written_down_by_hand(name: str, seen: Seen) -> None:
    traces = [seen[trace.trace_id] for trace in traces_of(name)]

    for found, wanted in zip(traces, expectations()["captures"][name]["traces"], strict=True):
        for theirs, ours in FIELDS.items():
            if theirs in wanted:
                assert agrees(found[ours], wanted[theirs]), (ours, found[ours])
        for (span_name, span_type), (name_wanted, kind) in zip(found["spans"], wanted["spans"], strict=True):
            assert span_name == name_wanted
            assert span_type == kind or {span_type, kind} == LLM
        usage = found["usage"]
        assert (None if usage is None else [usage["input_tokens"], usage["output_tokens"]]) == wanted["tokens"]
        tools_agree(found["tool_calls"], wanted)


def tools_agree(found: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    keys = {"name": "name", "failed": "failed", "args": "arguments", "result": "result", "call_id": "call_id"}
    for call, tool in zip(found, wanted["tools"], strict=True):
        for theirs, ours in keys.items():
            if theirs in tool:
                assert agrees(call[ours], tool[theirs]), (ours, call)
        if "args_from" in tool:
            assert call["args_from_span"] == (tool["args_from"] == "span")
    assert sum(call["failed"] for call in found) == wanted["failed_tools"]


@pytest.mark.parametrize("name", EVALUATED)
def test_a_scorer_in_the_sidecar_sees_foreign_evaluations(name: str, seen: Seen) -> None:
    found = [made for trace in traces_of(name) for made in seen[trace.trace_id]["evaluations"]]

    keys = {
        "name": "name",
        "score": "value",
        "label": "label",
        "explanation": "explanation",
        "error_type": "error_type",
    }
    for made, wanted in zip(found, expectations()["evaluations"][name]["results"], strict=True):
        assert {ours: made[ours] for ours in keys.values()} == {ours: wanted.get(key) for key, ours in keys.items()}
