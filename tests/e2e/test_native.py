"""Verdicts over the score API of a backend, beside the spans."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.sidecar import Sidecar, Traces, id_of, small_trace
from tests.e2e.sink import Sink
from tests.score_server import Call, Reply, ScoreServer

TRACES = Traces(81)


@pytest.fixture
def api() -> Iterator[ScoreServer]:
    server = ScoreServer()
    yield server
    server.close()


@pytest.fixture
def other_api() -> Iterator[ScoreServer]:
    server = ScoreServer()
    yield server
    server.close()


@pytest.fixture
def launch(
    start: Callable[..., Sidecar], own_sink: Sink, api: ScoreServer, other_api: ScoreServer, tmp_path: Path
) -> Callable[[], Sidecar]:
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        "scorers: [tool_errors, {use: latency, span_types: [UNKNOWN]}]\n"
        "emit: [evaluation_span, native]\n"
        "assembly: {root_grace: 100ms}\n"
        "exporters:\n"
        f"  otlp: {{endpoint: '{own_sink.grpc}'}}\n"
        f"  mlflow: {{endpoint: '{other_api.url}'}}\n"
        f"  phoenix: {{endpoint: '{api.url}', api_key: '${{env:KEY}}', dead_letters: '{tmp_path}/dead.jsonl',\n"
        "            retry_on_failure: {initial_interval: 10ms}}\n",
        encoding="utf-8",
    )
    return lambda: start("-c", str(config), environment={"KEY": "secret-key"})


def test_scores_go_to_the_api_of_the_backend(api: ScoreServer, own_sink: Sink, launch: Callable[[], Sidecar]) -> None:
    sidecar = launch()
    trace = TRACES.new()

    sidecar.send(small_trace(trace))
    own_sink.wait_for_scores(1, id_of(trace))
    api.wait_for(lambda: bool(api.calls))
    assert sidecar.stop() == 0

    sent = [each for call in api.calls for each in call.body["data"]]
    [on_trace] = [each for each in sent if "trace_id" in each]
    assert (on_trace["name"], on_trace["trace_id"]) == ("tool_errors", id_of(trace).hex())
    assert {call.headers["Authorization"] for call in api.calls} == {"Bearer secret-key"}
    assert "secret-key" not in sidecar.log


def test_a_backend_that_refuses_everything_delays_no_span_and_keeps_nothing_from_the_others(
    api: ScoreServer, own_sink: Sink, launch: Callable[[], Sidecar], tmp_path: Path
) -> None:
    api.answer = lambda call: Reply(401, {"detail": "Unauthorized"})
    sidecar = launch()
    traces = [TRACES.new() for _ in range(3)]

    for trace in traces:
        sidecar.send(small_trace(trace))
    own_sink.wait_for_spans(9, *map(id_of, traces))
    own_sink.wait_for_scores(3, *map(id_of, traces))
    assert sidecar.stop() == 0

    letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {id_of(trace).hex() for trace in traces} <= {letter["trace_id"] for letter in letters}
    assert {letter["reason"] for letter in letters} == {"HTTP 401"}
    assert sidecar.log.count("Unauthorized") == 1


@pytest.mark.server
@pytest.mark.parametrize(
    "reply",
    [
        Reply(401, {"detail": "Unauthorized"}),
        Reply(404, {"detail": "Not Found"}),
        Reply(413, b"too large"),
        Reply(429, {}, {"Retry-After": "3600"}),
        Reply(500, {"message": "UNIQUE constraint failed"}),
        Reply(200, b"<!doctype html><title>Sign in</title>", {"Content-Type": "text/html"}),
        Reply(None),
        None,
    ],
    ids=["401", "404", "413", "429", "500", "a page", "nothing", "silence"],
)
def test_whatever_a_backend_answers_no_span_and_no_other_destination_waits_for_it(
    api: ScoreServer, other_api: ScoreServer, own_sink: Sink, launch: Callable[[], Sidecar], reply: Reply | None
) -> None:
    gate = threading.Event()

    def answer(call: Call) -> Reply:
        if reply is None:
            gate.wait(120)
        return reply or Reply(None)

    api.answer = answer
    sidecar = launch()
    traces = [TRACES.new() for _ in range(3)]
    try:
        for trace in traces:
            sidecar.send(small_trace(trace))
            # Not before it has answered, or been asked in vain, so that it could be waited for.
            api.wait_for(lambda: bool(api.calls))
        own_sink.wait_for_spans(9, *map(id_of, traces))
        own_sink.wait_for_scores(3, *map(id_of, traces))
        other_api.wait_for(
            lambda: all(any(id_of(trace).hex() in call.path for call in other_api.calls) for trace in traces)
        )
    finally:
        # It would go on trying for a while.
        sidecar.process.kill()
        gate.set()


def test_a_sidecar_that_was_killed_and_is_sent_the_trace_again_leaves_one_score(
    api: ScoreServer, launch: Callable[[], Sidecar]
) -> None:
    kept: set[tuple[str, str, str]] = set()

    def keep(call: Call) -> Reply:
        kept.update(
            (each.get("trace_id") or each["span_id"], each["name"], each["identifier"]) for each in call.body["data"]
        )
        return Reply(200, {"data": []})

    api.answer = keep
    data = small_trace(TRACES.new())
    for _ in range(2):
        api.calls.clear()
        sidecar = launch()
        sidecar.send(data)
        api.wait_for(lambda: any("tool_errors" in str(call.body) for call in api.calls))
        sidecar.process.kill()
        sidecar.wait()

    assert len([name for _, name, _ in kept if name == "tool_errors"]) == 1
