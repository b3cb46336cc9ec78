"""SIGTERM: what is open is scored and sent, what is on its way in is answered, and the process ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable

import pytest
from tests.e2e.sidecar import SCORERS, Gate, Sidecar, id_of, small_trace
from tests.e2e.sink import WAIT, Sink

GATED = str(SCORERS / "gated.py")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("forwarding", ["passthrough", "hold_trace"])
def test_open_traces_are_scored_and_sent(
    number: signal.Signals, forwarding: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    flags = ("--export", own_sink.grpc, "--scorers", "tool_errors", "latency", "--forwarding", forwarding)
    sidecar = start(*flags, "--root-grace", "25")  # none closes by itself, however long sending takes
    traces = range(1, 21)
    for trace in traces:
        sidecar.send(small_trace(trace))

    sidecar.process.send_signal(number)
    code = sidecar.wait()

    assert code == 0
    ids = [id_of(trace) for trace in traces]
    own_sink.wait_for_spans(60, *ids)
    scores = own_sink.wait_for_scores(40, *ids)
    assert len(own_sink.spans_of(*ids)) == 60
    assert Counter(score.name for score in scores) == {"tool_errors": 20, "latency": 20}
    assert {score.attributes["otel_scorer.close_reason"] for score in scores} == {"shutdown"}
    assert {score.attributes["otel_scorer.complete"] for score in scores} == {False}


def test_a_scorer_at_work_is_waited_for(own_sink: Sink, start: Callable[..., Sidecar], gate: Gate) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", GATED, environment=gate.environment)
    sidecar.send(small_trace(1))

    sidecar.terminate()
    gate.wait_for_scorer()
    sidecar.wait_for_log("Draining")
    gate.open()

    assert sidecar.wait() == 0
    assert own_sink.wait_for_scores(2, id_of(1))
    assert own_sink.score_names() == ["gated", "quick"]


def test_http_senders_are_told_to_come_again_while_it_drains(
    own_sink: Sink, start: Callable[..., Sidecar], gate: Gate
) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", GATED, environment=gate.environment)
    sidecar.send(small_trace(1))
    sidecar.terminate()
    gate.wait_for_scorer()

    refused = sidecar.post(small_trace(2))
    gate.open()

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert sidecar.wait() == 0
    assert own_sink.wait_for_scores(2, id_of(1))
    assert not own_sink.spans_of(id_of(2))


def test_a_second_signal_ends_it_at_once_and_leaves_no_worker(
    own_sink: Sink, start: Callable[..., Sidecar], gate: Gate
) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", GATED, environment=gate.environment)
    sidecar.send(small_trace(1))
    sidecar.terminate()
    gate.wait_for_scorer()
    sidecar.wait_for_log("Draining")

    sidecar.terminate()

    assert sidecar.wait() == 128 + signal.SIGTERM
    # The worker holds the other end of our pipe for the log: it is at its end when the last process has ended.
    sidecar._reader.join(WAIT)  # noqa: SLF001 - of the test's own
    assert not sidecar._reader.is_alive()  # noqa: SLF001


def test_a_worker_ends_when_the_sidecar_was_killed(own_sink: Sink, start: Callable[..., Sidecar], gate: Gate) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", GATED, "--root-grace", "0.1", environment=gate.environment)
    sidecar.send(small_trace(1))
    gate.wait_for_scorer()

    os.kill(sidecar.process.pid, signal.SIGKILL)

    sidecar._reader.join(WAIT)  # noqa: SLF001 - of the test's own
    assert not sidecar._reader.is_alive()  # noqa: SLF001


def test_a_request_on_its_way_in_is_answered_and_forwarded(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", "latency")
    body = small_trace(1)
    host, port = sidecar.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as connection:
        head = (
            f"POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-protobuf\r\n"
            f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        # The sidecar is reading the body now.
        assert connection.recv(100).startswith(b"HTTP/1.1 100")

        sidecar.terminate()
        sidecar.wait_for_log("Draining")
        connection.sendall(body)
        answer = connection.recv(1000)

    assert answer.startswith(b"HTTP/1.1 200")
    assert sidecar.wait() == 0
    assert own_sink.wait_for_scores(1, id_of(1))
    assert len(own_sink.spans_of(id_of(1))) == 3


def test_requests_under_way_while_it_stops_are_answered_or_refused_for_later(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", "latency")
    taken: list[int] = []
    running = threading.Event()

    def send(first: int) -> None:
        for trace in range(first, first + 2000):
            try:
                answer = sidecar.post(small_trace(trace))
            except OSError:
                return
            if answer.status != 200:
                assert answer.status == 503
                return
            taken.append(trace)
            if len(taken) > 50:
                running.set()

    clients = [threading.Thread(target=send, args=(number * 10_000 + 1,)) for number in range(4)]
    for client in clients:
        client.start()
    assert running.wait(WAIT)
    assert sidecar.stop() == 0
    for client in clients:
        client.join(WAIT)

    ids = [id_of(trace) for trace in taken]
    own_sink.wait_for_scores(len(ids), *ids)
    spans = Counter((span.trace_id, span.span_id) for span in own_sink.raw_of(*ids))
    assert len(spans) == 3 * len(ids)
    assert set(spans.values()) == {1}
