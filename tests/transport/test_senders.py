# pyright: reportUnnecessaryTypeIgnoreComment=false
from __future__ import annotations

import gzip
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # no stubs exist
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # no stubs exist
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from otel_scorer.errors import PermanentError, RetryableError, TooLargeError
from otel_scorer.model.wire import Signal
from otel_scorer.transport.endpoints import Compression, Lane, connect
from otel_scorer.transport.exchange import PartialSuccess, Sender
from otel_scorer.transport.file_sender import ConsoleSender, FileSender
from otel_scorer.transport.http_client import parse_retry_after
from otel_scorer.transport.http_sender import HttpSender

WAIT = 30.0


@pytest.fixture(params=["grpc", "http/protobuf"])
def backend(request: pytest.FixtureRequest) -> Any:
    fixture = "grpc_backend" if request.param == "grpc" else "http_backend"
    backend = request.getfixturevalue(fixture)
    backend.protocol = request.param
    return backend


@pytest.fixture
def reply(grpc_backend: Any) -> Callable[..., Any]:
    """Make a reply; the class is the backend's own."""
    module = __import__("sys").modules[type(grpc_backend).__module__]
    return module.Reply  # type: ignore[no-any-return]


@pytest.fixture
def sender(backend: Any) -> Iterator[Sender]:
    sender = connect(f"http://{backend.address}", protocol=backend.protocol).senders[Lane.SPANS]
    yield sender
    sender.close()


def retry_info(seconds: int) -> bytes:
    return bytes(RetryInfo(retry_delay=Duration(seconds=seconds)).SerializeToString())


def status_with_retry_info(seconds: int) -> bytes:
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
    return bytes(Status(code=8, details=[detail]).SerializeToString())


def test_bytes_are_sent_as_they_are(backend: Any, sender: Sender) -> None:
    for signal in Signal:
        assert sender.send(signal, b"\xfa\x3f\x05hello", WAIT) is None

    assert backend.requests == [b"\xfa\x3f\x05hello"] * 3


def test_http_requests_go_to_the_path_of_their_signal(http_backend: Any) -> None:
    sender = connect(f"http://{http_backend.address}/base/", protocol="http/protobuf").senders[Lane.SPANS]

    for signal in Signal:
        sender.send(signal, b"", WAIT)
    sender.close()

    assert [call[":path"] for call in http_backend.calls] == [f"/base/v1/{signal}" for signal in Signal]


def test_headers_are_sent_with_every_request(backend: Any) -> None:
    headers = {"Authorization": "Bearer x", "X-Project": "p"}
    destination = connect(f"http://{backend.address}", protocol=backend.protocol, headers=headers)

    destination.senders[Lane.SPANS].send(Signal.TRACES, b"", WAIT)
    destination.senders[Lane.SPANS].close()

    [call] = backend.calls
    assert (call["authorization"], call["x-project"]) == ("Bearer x", "p")


def test_requests_can_be_compressed(backend: Any) -> None:
    destination = connect(f"http://{backend.address}", protocol=backend.protocol, compression=Compression.GZIP)
    data = b"hello" * 1000

    destination.senders[Lane.SPANS].send(Signal.TRACES, data, WAIT)
    destination.senders[Lane.SPANS].close()

    [received] = backend.requests
    # gRPC inflates by itself; the test's HTTP server does not.
    assert (gzip.decompress(received) if backend.protocol != "grpc" else received) == data


@pytest.mark.parametrize(
    ("body", "partial"),
    [
        (b"", None),
        (b"\x0a\x00", None),
        (b"\xff\xff", None),
        (
            ExportTraceServiceResponse(
                partial_success=ExportTracePartialSuccess(rejected_spans=3, error_message="why")
            ).SerializeToString(),
            PartialSuccess(3, "why"),
        ),
        (
            ExportTraceServiceResponse(
                partial_success=ExportTracePartialSuccess(rejected_spans=-5)
            ).SerializeToString(),
            None,
        ),
    ],
)
def test_a_partial_success_that_says_something_is_returned(
    backend: Any, sender: Sender, reply: Callable[..., Any], body: bytes, partial: PartialSuccess | None
) -> None:
    backend.replies.append(reply(body=body))

    assert sender.send(Signal.TRACES, b"", WAIT) == partial


def test_no_error_quotes_what_is_secret_in_an_address(http_backend: Any, reply: Callable[..., Any]) -> None:
    http_backend.replies.append(reply(status=403))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        for address, said in ((http_backend.address, "answered HTTP 403"), (nobody, "Connection refused")):
            url = f"http://me:hush@{address}/otlp?key=hush"
            sender = connect(url, protocol="http/protobuf").senders[Lane.SPANS]
            with pytest.raises((PermanentError, RetryableError)) as raised:
                sender.send(Signal.TRACES, b"", WAIT)
            sender.close()

            assert f"http://***@{address}/otlp/v1/traces?***" in str(raised.value)
            assert said in str(raised.value)
            assert "hush" not in str(raised.value)


def test_a_web_page_instead_of_an_answer_is_a_warning(http_backend: Any, reply: Callable[..., Any]) -> None:
    http_backend.replies.append(reply(body=b"<!doctype html>", headers={"Content-Type": "Text/HTML; charset=utf-8"}))
    sender = connect(f"http://{http_backend.address}", protocol="http/protobuf").senders[Lane.SPANS]

    answer = sender.send(Signal.TRACES, b"", WAIT)
    sender.close()

    assert answer is not None
    assert (answer.rejected, "web page" in answer.message) == (0, True)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_grpc_codes_are_retried_as_otlp_says(
    grpc_backend: Any, reply: Callable[..., Any], code: grpc.StatusCode
) -> None:
    grpc_backend.replies.append(reply(code=code, details="why"))
    sender = connect(grpc_backend.address).senders[Lane.SPANS]
    retryable = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}

    with pytest.raises(RetryableError if code.name in retryable else PermanentError, match="why") as raised:
        sender.send(Signal.TRACES, b"", WAIT)
    sender.close()

    assert raised.value.code == code.name


@pytest.mark.parametrize(
    "trailer",
    [("google.rpc.retryinfo-bin", retry_info(3)), ("grpc-status-details-bin", status_with_retry_info(3))],
)
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_grpc_retry_hint_is_read_from_either_trailer(
    grpc_backend: Any, reply: Callable[..., Any], code: grpc.StatusCode, trailer: tuple[str, bytes]
) -> None:
    grpc_backend.replies.append(reply(code=code, trailers=(trailer,)))
    sender = connect(grpc_backend.address).senders[Lane.SPANS]

    with pytest.raises(RetryableError) as raised:
        sender.send(Signal.TRACES, b"", WAIT)
    sender.close()

    assert raised.value.retry_after == 3.0


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 408, 413, 429, 500, 501, 502, 503, 504])
def test_http_statuses_are_retried_as_otlp_says(http_backend: Any, reply: Callable[..., Any], status: int) -> None:
    http_backend.replies.append(reply(status=status, body=Status(message="why").SerializeToString()))
    sender = connect(f"http://{http_backend.address}", protocol="http/protobuf").senders[Lane.SPANS]
    expected = RetryableError if status in {429, 502, 503, 504} else TooLargeError if status == 413 else PermanentError

    with pytest.raises(expected, match="why") as raised:
        sender.send(Signal.TRACES, b"", WAIT)
    sender.close()

    assert raised.value.code == f"HTTP {status}"
    assert type(raised.value) is expected


NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        (format_datetime(datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC), usegmt=True), 9.0),
        (format_datetime(datetime(2025, 1, 1, tzinfo=UTC), usegmt=True), 0.0),
        ("soon", None),
        ("1 Jan 99999999999 00:00:00 GMT", None),
        ("-1", None),
        ("9" * 1000, 9999999999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_the_retry_after_of_an_answer_is_kept(http_backend: Any, reply: Callable[..., Any]) -> None:
    date = format_datetime(datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC), usegmt=True)
    http_backend.replies.append(reply(status=503, headers={"Retry-After": date}))
    sender = HttpSender({Signal.TRACES: f"http://{http_backend.address}/v1/traces"}, now=lambda: NOW)

    with pytest.raises(RetryableError) as raised:
        sender.send(Signal.TRACES, b"", WAIT)
    sender.close()

    assert raised.value.retry_after == 9.0


@pytest.mark.parametrize(
    "details",
    [
        "SERVER: Received message larger than max (1 vs. 0)",
        "grpc: received message after decompression larger than max 4",
    ],
)
def test_too_large_for_a_grpc_server_is_told_apart_from_out_of_quota(
    grpc_backend: Any, reply: Callable[..., Any], details: str
) -> None:
    grpc_backend.replies.append(reply(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details=details))
    sender = connect(grpc_backend.address).senders[Lane.SPANS]

    with pytest.raises(TooLargeError):
        sender.send(Signal.TRACES, b"", WAIT)
    sender.close()


def test_what_a_real_server_says_about_size_is_understood(grpc_backend: Any) -> None:
    sender = connect(grpc_backend.address).senders[Lane.SPANS]

    with pytest.raises(TooLargeError):
        sender.send(Signal.TRACES, bytes((64 << 20) + 1), WAIT)
    sender.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_backend_that_is_not_there_may_come_back(protocol: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        sender = connect(f"http://127.0.0.1:{held.getsockname()[1]}", protocol=protocol).senders[Lane.SPANS]

        with pytest.raises(RetryableError):
            sender.send(Signal.TRACES, b"", WAIT)
        sender.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_backend_that_never_answers_is_given_up_after_the_timeout(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        sender = connect(f"http://{address}", protocol=protocol).senders[Lane.SPANS]

        with pytest.raises(RetryableError):
            sender.send(Signal.TRACES, b"", 0.2)
        sender.close()


def test_a_grpc_request_on_the_way_is_interrupted_by_closing(grpc_backend: Any) -> None:
    grpc_backend.gate.clear()
    sender = connect(grpc_backend.address).senders[Lane.SPANS]
    raised: list[Exception] = []

    def send() -> None:
        try:
            sender.send(Signal.TRACES, b"", WAIT * 3)
        except RetryableError as error:
            raised.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    assert grpc_backend.arrived.acquire(timeout=WAIT)
    sender.close()
    thread.join(WAIT)

    assert [error.code for error in raised if isinstance(error, RetryableError)] == ["CANCELLED"]
    with pytest.raises(RetryableError):
        sender.send(Signal.TRACES, b"", WAIT)


def test_a_file_gets_one_line_of_json_for_each_request(tmp_path: Path, a_request: Callable[..., bytes]) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("{}\n")
    sender = FileSender(path)

    sender.send(Signal.TRACES, a_request(1, 2), WAIT)
    sender.send(Signal.TRACES, a_request(3), WAIT)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ids = [[span["spanId"] for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]] for line in lines[1:]]
    assert lines[0] == {}
    assert ids == [["0000000000000001", "0000000000000002"], ["0000000000000003"]]
    sender.close()
    with pytest.raises(PermanentError):
        sender.send(Signal.TRACES, b"", WAIT)


def test_a_full_disk_may_have_room_again() -> None:
    sender = FileSender("/dev/full")

    with pytest.raises(RetryableError, match="No space left"):
        sender.send(Signal.TRACES, b"", WAIT)
    sender.close()


def test_the_console_prints_any_text_in_any_encoding(a_request: Callable[..., bytes]) -> None:
    raw = io.BytesIO()
    sender = ConsoleSender(io.TextIOWrapper(raw, encoding="ascii"))
    data = a_request(1, size=4).replace(b"xxxx", "\N{GRINNING FACE}".encode())

    sender.send(Signal.TRACES, data, WAIT)
    sender.close()

    [line] = raw.getvalue().decode().splitlines()
    assert json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "\N{GRINNING FACE}"


@pytest.mark.parametrize("make", [FileSender, lambda path: ConsoleSender(io.StringIO())])
def test_bytes_that_are_no_request_are_refused(make: Callable[[Path], Sender], tmp_path: Path) -> None:
    sender = make(tmp_path / "out.jsonl")

    with pytest.raises(PermanentError):
        sender.send(Signal.TRACES, b"\xff\xff", WAIT)
    sender.close()
