# pyright: reportUnnecessaryTypeIgnoreComment=false
from __future__ import annotations

import json
import logging
import queue
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # no stubs exist
from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from otel_scorer import load_traces
from otel_scorer.errors import ConfigError, PermanentError, QueueFullError, RetryableError, TooLargeError
from otel_scorer.model.otlp_json import decode_request
from otel_scorer.model.wire import Signal, count_items
from otel_scorer.telemetry import distributions, snapshot
from otel_scorer.testing import ManualClock, make_request, make_span, read_spans
from otel_scorer.transport.dead_letters import DeadLetters
from otel_scorer.transport.delivery import Delivery, Stopping
from otel_scorer.transport.endpoints import Destination, Lane, connect
from otel_scorer.transport.exchange import PartialSuccess
from otel_scorer.transport.forwarder import Forwarder
from otel_scorer.transport.grpc_receiver import GrpcReceiver
from otel_scorer.transport.http_receiver import HttpReceiver
from otel_scorer.transport.retry import RetryPolicy

WAIT = 30.0
FUTURE = datetime(2126, 1, 1, tzinfo=UTC)
TRAILER = "google.rpc.retryinfo-bin"
QUICK = RetryPolicy(initial_interval=0.01, max_interval=0.02)


class Fake:
    """A sender that remembers, and answers what it is told to."""

    def __init__(self, answer: Callable[[bytes], PartialSuccess | None] = lambda data: None) -> None:
        self.answer = answer
        self.sent: list[tuple[Signal, bytes]] = []
        self.contexts: list[object] = []
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)

    def send(self, signal: Signal, data: bytes, timeout: float) -> PartialSuccess | None:
        self.arrived.release()
        assert self.gate.wait(WAIT)
        self.contexts.append(context.get_value(SUPPRESS))
        partial = self.answer(data)
        self.sent.append((signal, data))
        return partial

    def close(self) -> None:
        self.closed = True


def to(sender: Fake, name: str) -> Destination:
    return Destination(name, dict.fromkeys(Lane, sender))


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A destination's name that only this test counts under."""
    return str(request.node.name)


@pytest.fixture
def counted(name: str) -> Callable[..., int]:
    def counted(counter: str, **attributes: str) -> int:
        attributes = {"destination": name, "lane": "spans"} | attributes
        label = ",".join(f"{key}={value}" for key, value in sorted(attributes.items()))
        return snapshot().get(f"forwarder.{counter}{{{label}}}", 0)

    return counted


@pytest.fixture
def start() -> Iterator[Callable[..., Forwarder]]:
    started: list[Forwarder] = []

    def start(*destinations: Destination, **options: Any) -> Forwarder:
        forwarder = Forwarder(destinations, **dict[str, Any](retry=QUICK) | options)
        forwarder.start()
        started.append(forwarder)
        return forwarder

    yield start
    for forwarder in started:
        forwarder.shutdown(0.0)


def named(destination: Destination, name: str, lanes: Mapping[Lane, Any] | None = None) -> Destination:
    return Destination(name, lanes or destination.senders)


@pytest.mark.parametrize("kind", ["grpc_backend", "http_backend"])
def test_everything_arrives_once_at_a_real_backend(
    request: pytest.FixtureRequest, start: Callable[..., Forwarder], a_request: Callable[..., bytes], kind: str
) -> None:
    backend = request.getfixturevalue(kind)
    protocol = "grpc" if kind == "grpc_backend" else "http/protobuf"
    forwarder = start(connect(f"http://{backend.address}", protocol=protocol))

    for number in range(1, 201):
        forwarder.offer(Lane.SPANS, a_request(number), 1)
    assert forwarder.shutdown(WAIT)

    assert backend.span_ids == list(range(1, 201))


def test_what_gathers_while_sending_goes_in_one_request(
    start: Callable[..., Forwarder], a_request: Callable[..., bytes], name: str
) -> None:
    sender = Fake()
    sender.gate.clear()
    forwarder = start(to(sender, name))

    forwarder.offer(Lane.SPANS, a_request(1), 1)
    assert sender.arrived.acquire(timeout=WAIT)
    for number in range(2, 100):
        forwarder.offer(Lane.SPANS, a_request(number), 1)
    sender.gate.set()
    assert forwarder.shutdown(WAIT)

    assert [count_items(*sent) for sent in sender.sent] == [1, 98]


def test_requests_are_packed_up_to_the_request_size_and_larger_ones_are_cut(
    start: Callable[..., Forwarder],
    a_request: Callable[..., bytes],
    span_ids: Callable[[bytes], list[int]],
    name: str,
) -> None:
    sender = Fake()
    sender.gate.clear()
    forwarder = start(to(sender, name), request_size=10_000)

    forwarder.offer(Lane.SPANS, a_request(1), 1)
    assert sender.arrived.acquire(timeout=WAIT)
    for number in range(2, 32):
        forwarder.offer(Lane.SPANS, a_request(number, size=1000), 1)
    forwarder.offer(Lane.SPANS, a_request(*range(32, 132), size=1000), 100)
    sender.gate.set()
    assert forwarder.shutdown(WAIT)

    assert max(len(data) for _, data in sender.sent) <= 10_000
    assert len(sender.sent) < 30
    assert [number for _, data in sender.sent for number in span_ids(data)] == list(range(1, 132))


def test_each_lane_sends_its_own_signal_and_does_not_wait_for_another(
    start: Callable[..., Forwarder], name: str
) -> None:
    spans, others = Fake(), Fake()
    spans.gate.clear()
    forwarder = start(Destination(name, {lane: spans if lane is Lane.SPANS else others for lane in Lane}))

    for lane in Lane:
        forwarder.offer(lane, b"\x0a\x00", 1)
    for _ in range(len(Lane) - 1):
        assert others.arrived.acquire(timeout=WAIT)
    spans.gate.set()
    assert forwarder.shutdown(WAIT)

    assert sorted(signal for signal, _ in others.sent) == [
        Signal.LOGS, Signal.LOGS, Signal.METRICS, Signal.METRICS, Signal.TRACES
    ]  # fmt: skip
    assert [signal for signal, _ in spans.sent] == [Signal.TRACES]
    assert spans.closed
    assert others.closed


def test_a_dead_destination_does_not_delay_a_healthy_one(
    start: Callable[..., Forwarder], grpc_backend: Any, a_request: Callable[..., bytes]
) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        forwarder = start(connect(f"127.0.0.1:{dead.getsockname()[1]}"), connect(grpc_backend.address))

        for number in range(1, 11):
            forwarder.offer(Lane.SPANS, a_request(number), 1)
        grpc_backend.wait_for(lambda: len(grpc_backend.span_ids) == 10)

        assert not forwarder.shutdown(0.1)


def test_the_log_says_how_much_no_time_was_left_for(
    start: Callable[..., Forwarder], a_request: Callable[..., bytes], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Fake()
    sender.gate.clear()
    forwarder = start(Destination(name, {Lane.SPANS: sender}))

    forwarder.offer(Lane.SPANS, a_request(1), 1)
    assert sender.arrived.acquire(timeout=WAIT)
    for number in range(2, 12):
        forwarder.offer(Lane.SPANS, a_request(number), 1)
    assert not forwarder.shutdown(0.05)
    sender.gate.set()

    dropped = [record for record in caplog.records if "no time was left" in record.getMessage()]
    assert [record.args and record.args[0] for record in dropped] == [11]  # type: ignore[index]  # a tuple here
    assert name in dropped[0].getMessage()


def test_a_lane_that_is_off_takes_nothing(start: Callable[..., Forwarder], name: str) -> None:
    sender = Fake()
    forwarder = start(Destination(name, {Lane.SPANS: sender}))

    forwarder.offer(Lane.LOGS, b"\x0a\x00", 1)
    assert forwarder.shutdown(WAIT)

    assert [lane for lane in Lane if forwarder.takes(lane)] == [Lane.SPANS]
    assert sender.sent == []


def test_sending_is_not_traced(start: Callable[..., Forwarder], name: str) -> None:
    sender = Fake()
    forwarder = start(to(sender, name))

    forwarder.offer(Lane.SPANS, b"\x0a\x00", 1)
    assert forwarder.shutdown(WAIT)

    assert sender.contexts == [True]
    assert context.get_value(SUPPRESS) is None


def test_a_full_queue_refuses_for_all_destinations_or_for_none(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    stuck, healthy = Fake(), Fake()
    stuck.gate.clear()
    forwarder = start(to(healthy, "healthy"), to(stuck, name), queue_size=10)

    forwarder.offer(Lane.SPANS, b"\x0a\x00" * 5, 5)
    assert stuck.arrived.acquire(timeout=WAIT)
    with pytest.raises(QueueFullError, match="is full"):
        forwarder.offer(Lane.SPANS, b"\x0a\x00", 1)
    for _ in range(2):
        forwarder.offer(Lane.SCORES, b"\x0a\x00" * 5, 5)
    stuck.gate.set()
    assert forwarder.shutdown(WAIT)

    assert sum(len(data) for signal, data in healthy.sent) <= 30
    assert counted("sent") == 5
    assert counted("dropped", lane="scores", reason="queue_full") in {0, 5}
    with pytest.raises(QueueFullError):
        forwarder.offer(Lane.SPANS, b"\x0a\x00", 1)


def test_scores_without_room_are_dropped_and_counted(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    sender = Fake()
    sender.gate.clear()
    forwarder = start(to(sender, name), queue_size=10)

    forwarder.offer(Lane.SCORES, b"\x0a\x00" * 5, 5)
    forwarder.offer(Lane.SCORES, b"\x0a\x00", 1)
    sender.gate.set()
    assert forwarder.shutdown(WAIT)

    assert counted("sent", lane="scores") == 5
    assert counted("dropped", lane="scores", reason="queue_full") == 1


def test_there_is_room_again_once_requests_are_done(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    sender = Fake()
    forwarder = start(to(sender, name), queue_size=100)

    for _ in range(1000):
        try:
            forwarder.offer(Lane.SPANS, b"\x0a\x00" * 20, 20)
        except QueueFullError:
            # What was on the way may be done by now, and nothing more to come.
            sender.arrived.acquire(timeout=0.01)
    assert forwarder.shutdown(WAIT)

    assert sum(len(data) // 2 for _, data in sender.sent) == counted("sent") > 100


RETRY_INFO = RetryInfo(retry_delay=Duration(seconds=7)).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "answer", "at_least"),
    [
        ("http_backend", {"status": 503, "headers": {"Retry-After": "7"}}, 7.0),
        ("http_backend", {"status": 503, "headers": {"Retry-After": format_datetime(FUTURE, usegmt=True)}}, 3600.0),
        ("http_backend", {"status": 429}, 0.0),
        ("grpc_backend", {"code": grpc.StatusCode.UNAVAILABLE, "trailers": ((TRAILER, RETRY_INFO),)}, 7.0),
        ("grpc_backend", {"code": grpc.StatusCode.RESOURCE_EXHAUSTED, "trailers": ((TRAILER, RETRY_INFO),)}, 7.0),
        ("grpc_backend", {"code": grpc.StatusCode.UNAVAILABLE}, 0.0),
    ],
)
def test_a_backend_is_asked_again_when_it_said_or_after_a_growing_delay(
    *,
    request: pytest.FixtureRequest,
    start: Callable[..., Forwarder],
    a_request: Callable[..., bytes],
    kind: str,
    answer: dict[str, Any],
    at_least: float,
) -> None:
    backend = request.getfixturevalue(kind)
    reply = sys.modules[type(backend).__module__].Reply
    backend.replies.extend([reply(**answer)] * 3)
    slept: list[float] = []
    forwarder = start(
        connect(f"http://{backend.address}", protocol="grpc" if kind == "grpc_backend" else "http/protobuf"),
        retry=RetryPolicy(initial_interval=1.0, multiplier=2.0, max_interval=4.0, max_elapsed=0),
        sleep=slept.append,
    )

    forwarder.offer(Lane.SPANS, a_request(1), 1)
    backend.wait_for(lambda: backend.span_ids == [1])

    assert len(slept) == 3
    assert all(seconds >= at_least for seconds in slept)
    if not at_least:
        assert all(seconds <= bound for seconds, bound in zip(slept, (1.0, 2.0, 4.0), strict=True))


def test_an_outage_passes_and_everything_arrives_once(
    start: Callable[..., Forwarder], grpc_backend: Any, a_request: Callable[..., bytes]
) -> None:
    reply = sys.modules[type(grpc_backend).__module__].Reply
    grpc_backend.replies.extend([reply(code=grpc.StatusCode.UNAVAILABLE)] * 20)
    forwarder = start(connect(grpc_backend.address))

    for number in range(1, 101):
        forwarder.offer(Lane.SPANS, a_request(number), 1)
    grpc_backend.wait_for(lambda: len(grpc_backend.span_ids) == 100)

    assert sorted(grpc_backend.span_ids) == list(range(1, 101))


def test_a_backend_that_fails_seven_times_of_ten_gets_everything_once(
    start: Callable[..., Forwarder], http_backend: Any, a_request: Callable[..., bytes]
) -> None:
    reply = sys.modules[type(http_backend).__module__].Reply
    dice = random.Random(7)
    http_backend.decide = lambda data: reply(status=503 if dice.random() < 0.7 else 200)
    forwarder = start(connect(f"http://{http_backend.address}", protocol="http/protobuf"), request_size=100)

    for number in range(1, 101):
        forwarder.offer(Lane.SPANS, a_request(number), 1)
    assert forwarder.shutdown(WAIT)

    assert sorted(http_backend.span_ids) == list(range(1, 101))


def test_only_the_item_that_is_too_large_is_lost(
    *,
    start: Callable[..., Forwarder],
    http_backend: Any,
    a_request: Callable[..., bytes],
    name: str,
    counted: Callable[..., int],
) -> None:
    reply = sys.modules[type(http_backend).__module__].Reply
    http_backend.decide = lambda data: reply(status=413 if len(data) > 100_000 else 200)
    destination = named(connect(f"http://{http_backend.address}", protocol="http/protobuf"), name)
    forwarder = start(destination)
    poison = a_request(250, size=200_000)

    forwarder.offer(Lane.SPANS, a_request(*range(1, 250), size=10) + poison + a_request(*range(251, 501), size=10), 500)
    assert forwarder.shutdown(WAIT)

    assert sorted(http_backend.span_ids) == [number for number in range(1, 501) if number != 250]
    assert counted("sent") == 499
    assert counted("dropped", reason="too_large") == 1


def test_a_grpc_backend_with_a_limit_of_its_own_gets_all_but_what_is_over_it(
    *, start: Callable[..., Forwarder], a_request: Callable[..., bytes], name: str, counted: Callable[..., int]
) -> None:
    received: list[bytes] = []
    backend = GrpcReceiver("127.0.0.1:0", lambda signal, data: received.append(data), max_request_size=4 << 20)
    forwarder = start(named(connect(backend.start(), protocol="grpc"), name), request_size=64 << 20)
    poison = a_request(250, size=20 << 20)
    try:
        data = a_request(*range(1, 250), size=10) + poison + a_request(*range(251, 501), size=10)
        forwarder.offer(Lane.SPANS, data, 500)
        assert forwarder.shutdown(3 * WAIT)
    finally:
        backend.shutdown(WAIT)

    ids = [int.from_bytes(span.span_id) for data in received for span in read_spans(data)]
    assert sorted(ids) == [number for number in range(1, 501) if number != 250]
    assert counted("dropped", reason="too_large") == 1


def bad_spans(reply: Any, *bad: int) -> Callable[[bytes], Any]:
    """Refuse, as a backend over HTTP and over gRPC does, requests that hold one of these spans."""
    refusal = reply(status=400, code=grpc.StatusCode.INVALID_ARGUMENT, details="bad span")
    return lambda data: refusal if any(number.to_bytes(8) in data for number in bad) else reply()


@pytest.mark.parametrize("kind", ["grpc_backend", "http_backend"])
def test_bad_items_are_found_and_cost_the_others_of_their_request_nothing(
    *,
    request: pytest.FixtureRequest,
    start: Callable[..., Forwarder],
    a_request: Callable[..., bytes],
    name: str,
    counted: Callable[..., int],
    kind: str,
) -> None:
    backend = request.getfixturevalue(kind)
    protocol, code = ("grpc", "INVALID_ARGUMENT") if kind == "grpc_backend" else ("http/protobuf", "HTTP 400")
    backend.decide = bad_spans(sys.modules[type(backend).__module__].Reply, 7, 250, 251)
    forwarder = start(named(connect(f"http://{backend.address}", protocol=protocol), name))

    forwarder.offer(Lane.SPANS, a_request(*range(1, 501)), 500)
    assert forwarder.shutdown(WAIT)

    assert sorted(backend.span_ids) == [number for number in range(1, 501) if number not in {7, 250, 251}]
    assert counted("sent") == 497
    assert counted("dropped", reason=code) == 3


def test_a_backend_that_refuses_everything_as_bad_is_not_asked_for_every_item(
    a_request: Callable[..., bytes], name: str, counted: Callable[..., int]
) -> None:
    attempts: list[bytes] = []

    def refuse(data: bytes) -> None:
        attempts.append(data)
        raise PermanentError("bad", code="HTTP 400")

    sender = Fake(refuse)
    delivery = Delivery(
        *(sender, Lane.SPANS, name),
        retry=QUICK,
        timeout=WAIT,
        request_size=4 << 20,
        stopping=Stopping(time.monotonic),
        clock=time.monotonic,
    )
    batch = a_request(*range(1, 1001))

    assert not delivery.deliver(batch, 1000)
    first = len(attempts)
    assert not delivery.deliver(batch, 1000)
    second = len(attempts) - first
    sender.answer = lambda data: None
    assert delivery.deliver(a_request(1), 1)
    sender.answer = lambda data: refuse(data) if (7).to_bytes(8) in data else None
    assert delivery.deliver(batch, 1000)

    assert 64 < first < 100
    assert second == 1
    assert counted("dropped", reason="HTTP 400") == 2001
    assert counted("sent") == 1000


@pytest.mark.parametrize("lane", [Lane.SPANS, Lane.SCORES])
def test_what_is_given_up_is_kept_as_otlp_json_that_can_be_read_and_sent_again(
    *, start: Callable[..., Forwarder], http_backend: Any, tmp_path: Path, name: str, lane: Lane
) -> None:
    http_backend.decide = bad_spans(sys.modules[type(http_backend).__module__].Reply, 2)
    path = tmp_path / "dead.jsonl"
    letters = DeadLetters(path, now=lambda: 0.0)
    senders = connect(f"http://{http_backend.address}", protocol="http/protobuf").senders
    forwarder = start(Destination(name, senders, dead_letters=letters))
    spans = [make_span(f"\N{SNOWMAN} {number}", trace=5, span=number) for number in (1, 2, 3)]

    forwarder.offer(lane, make_request(*spans), 3)
    assert forwarder.shutdown(WAIT)
    letters.close()

    [line] = path.read_text(encoding="utf-8").splitlines()
    letter = json.loads(line)
    assert (letter["destination"], letter["lane"], letter["reason"], letter["items"]) == (name, lane, "HTTP 400", 1)
    assert letter["time"] == "1970-01-01T00:00:00.000+00:00"
    assert "HTTP 400" in letter["message"]
    [trace] = load_traces(path)
    assert [span.name for span in trace.spans] == ["\N{SNOWMAN} 2"]
    again = decode_request(Signal.TRACES, line.encode())
    assert read_spans(again.data) == spans[1:2]


def test_what_no_time_is_left_for_is_kept_too(
    *,
    start: Callable[..., Forwarder],
    a_request: Callable[..., bytes],
    tmp_path: Path,
    name: str,
    counted: Callable[..., int],
) -> None:
    path = tmp_path / "dead.jsonl"
    sender = Fake()
    sender.gate.clear()
    file = DeadLetters(path)
    forwarder = start(Destination(name, dict.fromkeys(Lane, sender), queue_size=200, dead_letters=file))

    forwarder.offer(Lane.SPANS, a_request(1), 1)
    assert sender.arrived.acquire(timeout=WAIT)
    forwarder.offer(Lane.SPANS, a_request(2, 3), 2)
    for number in range(4, 14):
        forwarder.offer(Lane.SCORES, a_request(number), 1)
    assert not forwarder.shutdown(0.05)
    sender.gate.set()
    file.close()

    letters = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = Counter[tuple[str, str]]()
    for letter in letters:
        kept[letter["lane"], letter["reason"]] += letter["items"]
    assert kept["spans", "shutdown"] == 3
    assert kept["scores", "queue_full"] > 0
    assert kept["scores", "queue_full"] + kept["scores", "shutdown"] == 10
    assert counted("dropped", reason="shutdown") == 3


def test_each_destination_has_requests_of_its_own_size(
    start: Callable[..., Forwarder], a_request: Callable[..., bytes], name: str
) -> None:
    small, large = Fake(), Fake()
    forwarder = start(Destination(name, {Lane.SPANS: small}, request_size=2_000), to(large, name))

    forwarder.offer(Lane.SPANS, a_request(*range(1, 31), size=100), 30)
    assert forwarder.shutdown(WAIT)

    assert max(len(data) for _, data in small.sent) <= 2_000
    assert len(small.sent) > 1
    assert len(large.sent) == 1


def test_a_backend_that_accepts_and_never_answers_costs_no_threads_and_delays_nobody(
    start: Callable[..., Forwarder], grpc_backend: Any, a_request: Callable[..., bytes]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hanging = [connect(address, protocol=protocol) for protocol in ("grpc", "http/protobuf")]
        forwarder = start(*hanging, connect(grpc_backend.address), timeout=0.05)
        threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("otel-scorer-forward")}

        for number in range(1, 51):
            forwarder.offer(Lane.SPANS, a_request(number), 1)
        grpc_backend.wait_for(lambda: len(grpc_backend.span_ids) == 50)

        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("otel-scorer-forward")]
        assert set(names) == threads
        assert not forwarder.shutdown(0.1)


def test_scores_that_a_backend_refuses_keep_no_span_from_it(
    *,
    start: Callable[..., Forwarder],
    http_backend: Any,
    a_request: Callable[..., bytes],
    name: str,
    counted: Callable[..., int],
) -> None:
    reply = sys.modules[type(http_backend).__module__].Reply
    refusing = threading.Event()
    refusing.set()
    scores = range(1000, 1010)
    http_backend.decide = lambda data: reply(status=503 if refusing.is_set() and is_score(data) else 200)

    def is_score(data: bytes) -> bool:
        return any(number.to_bytes(8) in data for number in scores)

    forwarder = start(named(connect(f"http://{http_backend.address}", protocol="http/protobuf"), name))
    for number in scores:
        forwarder.offer(Lane.SCORES, a_request(number), 1)
    for number in range(1, 11):
        forwarder.offer(Lane.SPANS, a_request(number), 1)
    http_backend.wait_for(lambda: len(http_backend.span_ids) == 10)
    assert sorted(http_backend.span_ids) == list(range(1, 11))

    refusing.clear()
    assert forwarder.shutdown(WAIT)

    assert sorted(http_backend.span_ids) == [*range(1, 11), *scores]
    assert counted("sent", lane="scores") == 10


@pytest.mark.parametrize(
    ("receiver", "protocol", "second"), [(GrpcReceiver, "grpc", "[::1]"), (HttpReceiver, "http/protobuf", "127.0.0.2")]
)
def test_a_backend_that_comes_back_at_another_address_of_its_name_is_found(
    *,
    start: Callable[..., Forwarder],
    a_request: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    receiver: type[GrpcReceiver | HttpReceiver],
    protocol: str,
    second: str,
) -> None:
    took: queue.SimpleQueue[int] = queue.SimpleQueue()
    first = receiver("127.0.0.1:0", lambda signal, data: took.put(count_items(signal, data)))
    port = first.start().rpartition(":")[2]
    # gRPC has a resolver of its own, for which localhost has two addresses.
    forwarder = start(connect(f"http://localhost:{port}", protocol=protocol))
    forwarder.offer(Lane.SPANS, a_request(1), 1)
    assert took.get(timeout=WAIT) == 1
    first.shutdown(WAIT)

    other = receiver(f"{second}:{port}", lambda signal, data: took.put(count_items(signal, data)))
    try:
        other.start()
    except ConfigError as error:
        pytest.skip(f"needs a second loopback address: {error}")
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest: resolve(second if host == "localhost" else host, *rest)
    )
    try:
        forwarder.offer(Lane.SPANS, a_request(1, 2), 2)
        assert took.get(timeout=3 * WAIT) == 2
    finally:
        other.shutdown(0.0)


def test_a_partial_success_is_counted_and_not_retried(
    *,
    start: Callable[..., Forwarder],
    grpc_backend: Any,
    a_request: Callable[..., bytes],
    name: str,
    counted: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="why")
    reply = sys.modules[type(grpc_backend).__module__].Reply
    body = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    grpc_backend.decide = lambda data: reply(body=body)
    forwarder = start(named(connect(grpc_backend.address), name), request_size=1)

    for _ in range(5):
        forwarder.offer(Lane.SPANS, a_request(1, 2, 3, 4), 4)
    assert forwarder.shutdown(WAIT)

    assert counted("sent") + counted("rejected") == 20
    assert len([record for record in caplog.records if "why" in record.message]) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermanentError("why", code="HTTP 401"), "HTTP 401"),
        (TooLargeError("why", code="HTTP 413"), "too_large"),
        (ZeroDivisionError("why"), "internal"),
    ],
)
def test_what_will_fail_again_is_dropped_counted_and_logged_once(
    *,
    start: Callable[..., Forwarder],
    a_request: Callable[..., bytes],
    name: str,
    counted: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
) -> None:
    def fail(data: bytes) -> None:
        raise error

    forwarder = start(to(Fake(fail), name), request_size=1)

    for number in range(1, 6):
        forwarder.offer(Lane.SPANS, a_request(number), 1)
    assert forwarder.shutdown(WAIT)

    assert counted("dropped", reason=reason) == 5
    assert counted("sent") == 0
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_what_cannot_be_sent_in_time_is_dropped_as_expired(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    now = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def fail(data: bytes) -> None:
        raise RetryableError("down", code="UNAVAILABLE", retry_after=50.0)

    forwarder = start(to(Fake(fail), name), retry=RetryPolicy(max_elapsed=120.0), clock=lambda: now[0], sleep=sleep)
    forwarder.offer(Lane.SPANS, b"\x0a\x00", 7)
    assert forwarder.shutdown(WAIT)

    assert slept == [50.0, 50.0]
    assert counted("dropped", reason="retry_expired") == 7
    assert counted("retries", code="UNAVAILABLE") == 2


def test_shutdown_sends_what_is_queued(start: Callable[..., Forwarder], name: str, counted: Callable[..., int]) -> None:
    sender = Fake()
    sender.gate.clear()
    forwarder = start(to(sender, name))
    for _ in range(50):
        forwarder.offer(Lane.SPANS, b"\x0a\x00", 1)
    threading.Timer(0.05, sender.gate.set).start()

    assert forwarder.shutdown(WAIT)

    assert counted("sent") == 50


def test_shutdown_cuts_a_long_wait_for_a_retry_short(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    answers = iter([RetryableError("down", code="UNAVAILABLE", retry_after=3600.0)])

    def fail_once(data: bytes) -> None:
        if (error := next(answers, None)) is not None:
            raise error

    sender = Fake(fail_once)
    forwarder = start(to(sender, name), retry=RetryPolicy(max_elapsed=0))
    forwarder.offer(Lane.SPANS, b"\x0a\x00", 1)
    assert sender.arrived.acquire(timeout=WAIT)

    assert forwarder.shutdown(WAIT)

    assert counted("sent") == 1


def test_what_is_left_at_the_end_of_shutdown_is_counted_once(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    sender = Fake()
    sender.gate.clear()
    forwarder = start(to(sender, name))
    forwarder.offer(Lane.SPANS, b"\x0a\x00", 3)
    assert sender.arrived.acquire(timeout=WAIT)
    forwarder.offer(Lane.SPANS, b"\x0a\x00", 4)

    assert not forwarder.shutdown(0.05)
    sender.gate.set()

    assert counted("dropped", reason="shutdown") == 7
    assert counted("sent") == 0
    forwarder.shutdown(0.0)
    assert counted("dropped", reason="shutdown") == 7


def test_scores_that_come_after_shutdown_are_counted_as_dropped(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    forwarder = start(to(Fake(), name))
    assert forwarder.shutdown(WAIT)

    forwarder.offer(Lane.SCORES, b"\x0a\x00", 2)

    assert counted("dropped", lane="scores", reason="shutdown") == 2


def test_room_can_be_asked_for_before_and_what_was_admitted_is_never_refused(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    sender = Fake()
    sender.gate.clear()
    forwarder = start(to(sender, name), queue_size=10)

    forwarder.check_room(Lane.SPANS, 10)
    forwarder.offer(Lane.SPANS, b"\x0a\x00" * 5, 5)
    with pytest.raises(QueueFullError):
        forwarder.check_room(Lane.SPANS, 1)
    forwarder.offer(Lane.SPANS, b"\x0a\x00" * 5, 5, admitted=True)
    sender.gate.set()
    assert forwarder.shutdown(WAIT)

    assert counted("sent") == 10


def test_a_backend_that_is_down_at_shutdown_gets_the_time_there_is(
    start: Callable[..., Forwarder], name: str, counted: Callable[..., int]
) -> None:
    def fail(data: bytes) -> None:
        raise RetryableError("down", code="UNAVAILABLE")

    forwarder = start(to(Fake(fail), name))
    forwarder.offer(Lane.SPANS, b"\x0a\x00", 3)

    assert not forwarder.shutdown(0.1)

    assert counted("dropped", reason="shutdown") == 3
    assert counted("retries", code="UNAVAILABLE") >= 1


def test_the_age_of_verdicts_is_recorded_once_a_backend_has_them(
    start: Callable[..., Forwarder], a_request: Callable[..., bytes], name: str
) -> None:
    clock = ManualClock()
    sender = Fake()
    sender.gate.clear()
    refusing = Fake(answer=raising(PermanentError("no", code="no")))
    forwarder = start(to(sender, name), to(refusing, f"{name}, refused"), clock=clock)
    ended = clock()

    clock.advance(3.0)
    forwarder.offer(Lane.SCORES, a_request(1), 1, since=[ended, ended + 1])
    assert sender.arrived.acquire(timeout=WAIT)
    scores = (("destination", name), ("lane", "scores"))
    waiting = {each.name: each.value for each in forwarder.gauges() if each.attributes == scores}
    clock.advance(4.0)
    sender.gate.set()
    assert forwarder.shutdown(WAIT)

    found = {dict(key)["destination"]: held for metric, key, held in distributions() if metric == "scoring.delay"}
    assert found[name].total == 13.0
    assert sum(found[name].counts) == 2
    assert f"{name}, refused" not in found
    assert waiting["forwarder.queue_size"] == len(a_request(1))


def raising(error: Exception) -> Callable[[bytes], PartialSuccess | None]:
    def answer(_data: bytes) -> PartialSuccess | None:
        raise error

    return answer
