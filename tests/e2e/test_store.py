"""What a sidecar with a store has scored can be searched and evaluated afterwards, from another process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.dialects.captured import requests_of, traces_of
from tests.e2e.sidecar import Sidecar, id_of, small_trace
from tests.e2e.sink import Sink

from otel_scorer import evaluate, search_traces
from otel_scorer.scorers.builtin import BUILT_IN

CAPTURE = "official_openai_v2_legacy"


def test_scored_traces_can_be_searched_and_evaluated(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    store = tmp_path / "traces.db"
    flags = ("--export", own_sink.grpc, "--scorers", "tool_errors", "latency", "--store", str(store))
    sidecar = start(*flags, "--root-grace", "25")  # none closes by itself, however long sending takes
    for request in requests_of(CAPTURE):
        body = json.dumps(request["body"]).encode()
        assert sidecar.post(body, f"/v1/{request['signal']}", content_type="application/json").status == 200
    sidecar.send(small_trace(1, service="other"))
    assert sidecar.stop() == 0

    recorded = traces_of(CAPTURE)
    found = {trace.trace_id: trace for trace in search_traces(store=store)}

    assert found.keys() == {id_of(1).hex(), *(trace.trace_id for trace in recorded)}
    for trace in recorded:
        kept = found[trace.trace_id]
        assert [span.to_dict() for span in kept.spans] == [span.to_dict() for span in trace.spans]
        assert any(span.logs for span in kept.spans)
        assert (kept.inputs, kept.outputs, kept.close_reason) == (trace.inputs, trace.outputs, "shutdown")
        scores = own_sink.scores_of(bytes.fromhex(trace.trace_id))
        assert {each.name: each.value for each in kept.info.assessments} == {each.name: each.value for each in scores}
    result = evaluate(list(found.values()), [BUILT_IN["latency"]], store=tmp_path / "other.db")
    assert len(result.results) == len(found)


def test_without_a_store_nothing_is_kept(tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", "latency", folder=tmp_path)
    sidecar.send(small_trace(1))

    assert sidecar.stop() == 0
    assert list(tmp_path.iterdir()) == []
