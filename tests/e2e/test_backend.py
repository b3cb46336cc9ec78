"""A backend that is away, slow or busy: nothing is lost, nothing is sent twice, clients are told to come back."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from tests.e2e.sidecar import Sidecar, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Sink

from otel_scorer.testing import make_request, make_span

RETRY = "retry_on_failure: {initial_interval: 50ms, max_interval: 200ms}"


def configured(folder: Path, url: str, settings: str = RETRY) -> tuple[str, str]:
    config = folder / "sidecar.yaml"
    config.write_text(f"exporters: {{otlp: {{endpoint: '{url}', {settings}}}}}\n", encoding="utf-8")
    return "-c", str(config)


def exactly_once(sink: Sink, ids: list[bytes], *scorers: str) -> None:
    spans = Counter((span.trace_id, span.span_id) for span in sink.raw_of(*ids))
    scores = Counter((score.raw.trace_id, score.name) for score in sink.scores_of(*ids))
    assert spans == Counter((trace, span.to_bytes(8, "big")) for trace in ids for span in (1, 2, 3))
    assert scores == Counter((trace, name) for trace in ids for name in scorers)


@pytest.fixture
def away() -> Iterator[socket.socket]:
    """A port that refuses connections, and that nobody else is given as long as the socket is open."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held


def test_a_backend_that_comes_up_later_gets_everything_once(
    start: Callable[..., Sidecar], away: socket.socket, tmp_path: Path
) -> None:
    port = int(away.getsockname()[1])
    sidecar = start(
        *configured(tmp_path, f"http://127.0.0.1:{port}"),
        *("--scorers", "latency", "tool_errors", "--root-grace", "0.05"),
    )
    ids = [id_of(trace) for trace in range(1, 101)]
    for trace in range(1, 101):
        sidecar.send(small_trace(trace))
    sidecar.wait_for_log("Will send scores again")

    away.close()
    sink = Sink(port)
    try:
        sink.wait_for_scores(200, *ids)
        sink.wait_for_spans(300, *ids)
        assert sidecar.stop() == 0
        exactly_once(sink, ids, "latency", "tool_errors")
    finally:
        sink.close()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_backend_that_refuses_for_a_while_gets_everything_once(
    protocol: str, own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    own_sink.tell("refuse")
    url = own_sink.grpc if protocol == "grpc" else f"{own_sink.http}/otlp"
    sidecar = start(*configured(tmp_path, url), "--scorers", "latency", "--root-grace", "0.05")
    ids = [id_of(trace) for trace in range(1, 51)]
    for trace in range(1, 51):
        sidecar.send(small_trace(trace))
    sidecar.wait_for_log("Will send spans again")

    own_sink.tell("take")

    own_sink.wait_for_scores(50, *ids)
    own_sink.wait_for_spans(150, *ids)
    assert sidecar.stop() == 0
    exactly_once(own_sink, ids, "latency")


def test_a_full_queue_is_a_refusal_that_may_be_sent_again(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    own_sink.tell("hold")
    sidecar = start(
        *configured(tmp_path, own_sink.grpc, "sending_queue: {queue_size: 64KiB}, timeout: 60s"),
        *("--scorers", "latency", "--root-grace", "0.05"),
    )
    taken: list[int] = []
    trace = 0
    while True:
        trace += 1
        answer = sidecar.post(large_trace(trace))
        if answer.status != 200:
            break
        taken.append(trace)
    with grpc.insecure_channel(sidecar.grpc) as channel:
        export = method_of(channel)
        with pytest.raises(grpc.RpcError) as refused:
            export(large_trace(trace), timeout=WAIT)

    own_sink.tell("take")
    own_sink.wait_for_scores(len(taken), *map(id_of, taken))
    sidecar.send(large_trace(trace))

    assert 3 < len(taken) < 20
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = {str(item[0]) for item in cast("Any", refused.value).trailing_metadata()}
    assert {"grpc-status-details-bin", "google.rpc.retryinfo-bin"} <= trailers
    ids = [id_of(each) for each in (*taken, trace)]
    own_sink.wait_for_scores(len(ids), *ids)
    assert sidecar.stop() == 0
    exactly_once(own_sink, ids, "latency")


def large_trace(trace: int) -> bytes:
    return small_trace(trace, children=1) + make_request(
        make_span("large", trace=trace, span=3, parent=1, attributes={"text": "x" * 10_000})
    )


def test_one_backend_that_is_away_does_not_keep_the_other_waiting(
    own_sink: Sink, start: Callable[..., Sidecar], away: socket.socket
) -> None:
    nowhere = f"http://127.0.0.1:{away.getsockname()[1]}"
    sidecar = start("--export", own_sink.grpc, nowhere, "--scorers", "latency", "--root-grace", "0.05")

    for trace in range(1, 11):
        sidecar.send(small_trace(trace))

    own_sink.wait_for_scores(10, *map(id_of, range(1, 11)))
    own_sink.wait_for_spans(30, *map(id_of, range(1, 11)))
    # It would go on trying to reach the other one.
    sidecar.process.kill()


def test_what_a_backend_never_took_is_in_a_file_and_can_be_sent_again(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    own_sink.tell("refuse")
    dead = tmp_path / "dead.jsonl"
    settings = f"dead_letters: '{dead}', retry_on_failure: {{enabled: false}}"
    sidecar = start(*configured(tmp_path, own_sink.grpc, settings), "--scorers", "latency", "--root-grace", "0.05")
    sidecar.send(small_trace(1))
    sidecar.wait_for_log("Dropped 3 spans")
    sidecar.wait_for_log("Dropped 1 scores")
    assert sidecar.stop() == 0

    own_sink.tell("take")
    again = start("--export", own_sink.grpc)
    lines = dead.read_bytes().splitlines()
    for line in lines:
        assert again.post(line, content_type="application/json").status == 200

    own_sink.wait_for_spans(3, id_of(1))
    own_sink.wait_for_scores(1, id_of(1))
    exactly_once(own_sink, [id_of(1)], "latency")
    letters = [json.loads(line) for line in lines]
    assert {(letter["lane"], letter["reason"]) for letter in letters} == {
        ("spans", "retry_expired"), ("scores", "retry_expired")
    }  # fmt: skip
    assert dead.stat().st_mode & 0o777 == 0o600


def test_a_file_gets_what_a_backend_gets(start: Callable[..., Sidecar], tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    sidecar = start("--export", f"file:{target}", "--scorers", "latency", "--root-grace", "0.05")

    sidecar.send(small_trace(1))

    assert sidecar.stop() == 0
    lines = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    names = [
        span["name"]
        for line in lines
        for resource in line["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert sorted(names) == ["agent", "evaluation latency", "tool", "tool"]
