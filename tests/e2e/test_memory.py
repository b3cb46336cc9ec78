"""A sidecar that is short of memory says so, scores what is open early, and is itself again; nothing is lost."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from tests.e2e.sidecar import Sidecar, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Score, Sink

from otel_scorer.testing import make_request, make_span

MIB = 1 << 20


def heavy(trace: int) -> bytes:
    """A trace that waits for its root, which never comes."""
    return make_request(make_span("heavy", trace=trace, span=2, parent=1, attributes={"text": "x" * MIB}))


def memory_of(sidecar: Sidecar) -> int:
    found = re.search(rb"^otel_scorer_memory_used_bytes\S* ([\d.e+]+)$", sidecar.ask("/metrics").body, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def wait_until_it_takes_requests(sidecar: Sidecar) -> None:
    deadline = time.monotonic() + WAIT
    while sidecar.post(b"").status != 200:
        assert time.monotonic() < deadline, sidecar.log


def configured(folder: Path, memory: str) -> tuple[str, ...]:
    path = folder / "sidecar.yaml"
    path.write_text(
        f"assembly: {{root_cap: 500ms}}\nmemory: {memory}\nscorers: [latency]\n"
        "telemetry: {status_page: '127.0.0.1:0'}\n",
        encoding="utf-8",
    )
    return "-c", str(path)


def test_b1_b2_short_of_memory_it_refuses_scores_early_and_takes_requests_again(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    idle = start(*configured(tmp_path, "{soft: 75%}"), "--export", own_sink.grpc)
    base = memory_of(idle)
    assert idle.stop() == 0
    soft = base + 80 * MIB
    sidecar = start(*configured(tmp_path, f"{{soft: {soft}, hard: {soft + 400 * MIB}}}"), "--export", own_sink.grpc)

    taken: list[int] = []
    refused = 0
    for trace in range(1, 600):
        answer = sidecar.post(heavy(trace))
        if answer.status == 200:
            taken.append(trace)
            continue
        refused += 1
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        wait_until_it_takes_requests(sidecar)
        if refused >= 2 and b'closed_total{reason="memory_pressure"}' in sidecar.ask("/metrics").body:
            break

    assert refused >= 2
    sidecar.send(small_trace(1000))
    assert sidecar.stop() == 0
    received = own_sink.raw
    sent = {id_of(trace): 1 for trace in taken} | {id_of(1000): 3}
    assert Counter(span.trace_id for span in received if not span.scope.is_own) == sent
    scores = [Score(span) for span in received if span.scope.is_own]
    assert Counter(score.raw.trace_id for score in scores) == dict.fromkeys(sent, 1)
    assert "memory_pressure" in {score.attributes["otel_scorer.close_reason"] for score in scores}


def test_b1_over_the_soft_limit_both_protocols_say_when_to_come_back(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(*configured(tmp_path, "{soft: 1MiB}"), "--export", own_sink.grpc)

    answers = [sidecar.post(small_trace(1)), sidecar.post(b"", "/v1/logs"), sidecar.post(b"", "/v1/metrics")]
    with grpc.insecure_channel(sidecar.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        method_of(channel)(small_trace(1), timeout=WAIT)

    assert [(answer.status, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 3
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = {str(item[0]) for item in cast("Any", refused.value).trailing_metadata()}
    assert {"grpc-status-details-bin", "google.rpc.retryinfo-bin"} <= trailers
    assert sidecar.stop() == 0
    assert own_sink.spans_of(id_of(1)) == []
