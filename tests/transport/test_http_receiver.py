# pyright: reportUnnecessaryTypeIgnoreComment=false
from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
import requests
import urllib3
from google.rpc.error_details_pb2 import BadRequest, RetryInfo  # type: ignore[import-untyped]  # no stubs exist
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # no stubs exist
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_scorer.errors import (
    AddressInUseError,
    ConfigError,
    InvalidRequestError,
    OverloadedError,
    RequestError,
    RequestTooLargeError,
    TooManyPartsError,
    UnsupportedSignalError,
)
from otel_scorer.model.wire import Signal
from otel_scorer.transport.exchange import PartialSuccess
from otel_scorer.transport.http_app import HttpLimits
from otel_scorer.transport.http_protocol import PatientProtocol
from otel_scorer.transport.http_receiver import HttpReceiver

LIMIT = 1 << 20
WAIT = 30.0
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
SPAN = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "a span"}


class Client:
    def __init__(self, address: str) -> None:
        self.address = address
        self.pool = urllib3.PoolManager(retries=False)

    def post(
        self, body: bytes, content_type: str | None = PROTOBUF, path: str = "/v1/traces", **headers: str
    ) -> urllib3.BaseHTTPResponse:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            fields["Content-Type"] = content_type
        url = f"http://{self.address}{path}"
        return self.pool.request("POST", url, body=body, headers=fields, timeout=WAIT)

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=WAIT)


def receive_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


@pytest.fixture
def receiver(pipeline: Any) -> Iterator[HttpReceiver]:
    # Nothing ends because a client is slow, and what waits for more of a request than there is waits for ever.
    limits = HttpLimits(request_size=LIMIT, buffered=2 * LIMIT, body_timeout=3600.0, drain_timeout=3600.0)
    receiver = HttpReceiver("127.0.0.1:0", pipeline, limits=limits, header_timeout=3600.0)
    yield receiver
    receiver.shutdown(0.0)


@pytest.fixture
def impatient(pipeline: Any) -> Iterator[Client]:
    """A client of a receiver that waits for nobody: for tests whose client is slow on purpose."""
    limits = HttpLimits(request_size=LIMIT, buffered=2 * LIMIT, body_timeout=1.0, body_rate=1 << 20)
    receiver = HttpReceiver("127.0.0.1:0", pipeline, limits=limits, header_timeout=1.0)
    yield Client(receiver.start())
    receiver.shutdown(0.0)


@pytest.fixture
def client(receiver: HttpReceiver) -> Client:
    return Client(receiver.start())


def refuse_with(pipeline: Any, error: Exception) -> None:
    def refuse(signal: Signal, data: bytes) -> None:
        raise error

    pipeline.answer = refuse


@pytest.mark.parametrize("compression", Compression)
def test_the_sdk_exports_spans(client: Client, pipeline: Any, compression: Compression) -> None:
    exporter = OTLPSpanExporter(f"http://{client.address}/v1/traces", compression=compression)
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))

    tracers.get_tracer("test").start_span("a span").end()
    tracers.shutdown()

    [(signal, data)] = pipeline.requests
    assert signal is Signal.TRACES
    assert b"a span" in data


@pytest.mark.parametrize("signal", Signal)
def test_protobuf_arrives_as_it_was_sent_and_full_success_is_empty(
    client: Client, pipeline: Any, signal: Signal
) -> None:
    response = client.post(b"\xfa\x3f\x05hello", path=f"/v1/{signal}")

    assert (response.status, response.headers["content-type"], response.data) == (200, PROTOBUF, b"")
    assert pipeline.requests == [(signal, b"\xfa\x3f\x05hello")]


@pytest.mark.parametrize("content_type", [JSON, "Application/JSON; charset=utf-8", "application/json;charset=UTF-8"])
def test_json_arrives_as_protobuf(client: Client, pipeline: Any, content_type: str) -> None:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}

    response = client.post(json.dumps(body).encode(), content_type)

    [(_, data)] = pipeline.requests
    assert (response.status, response.headers["content-type"], response.data) == (200, JSON, b"{}")
    request = ExportTraceServiceRequest.FromString(data)
    assert request.resource_spans[0].scope_spans[0].spans[0].trace_id.hex() == SPAN["traceId"]


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress), ("identity", bytes), ("", bytes)],
)
def test_bodies_may_be_compressed(client: Client, pipeline: Any, encoding: str, compress: Any) -> None:
    assert client.post(compress(b"hello"), Content_Encoding=encoding).status == 200

    assert pipeline.requests == [(Signal.TRACES, b"hello")]


def test_an_empty_body_is_an_empty_request_in_protobuf_and_nothing_in_json(client: Client, pipeline: Any) -> None:
    assert client.post(b"").status == 200
    assert client.post(b"", JSON).status == 400

    assert pipeline.requests == [(Signal.TRACES, b"")]


def test_rejected_items_of_json_and_of_the_pipeline_are_told_together(client: Client, pipeline: Any) -> None:
    pipeline.answer = lambda signal, data: PartialSuccess(2, "later")
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN, SPAN | {"kind": "SPAN_KIND_SERVER"}]}]}]}

    response = client.post(json.dumps(body).encode(), JSON)

    partial = response.json()["partialSuccess"]
    assert response.status == 200
    assert partial["rejectedSpans"] == "3"
    assert "kind is not an integer" in partial["errorMessage"]
    assert partial["errorMessage"].endswith("; later")


def test_partial_success_is_told_in_protobuf_too(client: Client, pipeline: Any) -> None:
    pipeline.answer = lambda signal, data: PartialSuccess(2, "why")

    response = ExportLogsServiceResponse.FromString(client.post(b"", path="/v1/logs").data)

    assert response.partial_success.rejected_log_records == 2
    assert response.partial_success.error_message == "why"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequestError("why"), 400, 3),
        (RequestTooLargeError("why"), 413, 8),
        (TooManyPartsError("why"), 413, 8),
        (UnsupportedSignalError("why"), 404, 12),
        (OverloadedError("why", retry_after=2.1), 503, 14),
    ],
)
def test_errors_are_a_status_in_the_encoding_of_the_request(
    client: Client, pipeline: Any, error: RequestError, status: int, code: int
) -> None:
    refuse_with(pipeline, error)

    binary = client.post(b"")
    text = client.post(b"{}", JSON)

    assert (binary.status, binary.headers["content-type"]) == (status, PROTOBUF)
    assert (text.status, text.headers["content-type"]) == (status, JSON)
    decoded = Status.FromString(binary.data)
    assert (decoded.code, decoded.message) == (code, "why")
    assert (text.json()["code"], text.json()["message"]) == (code, "why")
    assert binary.headers.get("retry-after") == ("3" if status == 503 else None)
    expected = {400: BadRequest, 503: RetryInfo}.get(status)
    assert [detail.type_url for detail in decoded.details] == (
        [f"type.googleapis.com/{expected.DESCRIPTOR.full_name}"] if expected else []
    )
    assert len(text.json().get("details", ())) == len(decoded.details)


def test_an_unexpected_exception_is_a_500_and_the_server_lives(
    client: Client, pipeline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_with(pipeline, ZeroDivisionError("secret"))
    responses = [client.post(b"") for _ in range(3)]
    pipeline.answer = lambda signal, data: None

    assert [response.status for response in responses] == [500] * 3
    assert b"secret" not in responses[0].data
    assert len([record for record in caplog.records if "Cannot handle" in record.message]) == 1
    assert client.post(b"").status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "HEAD"])
def test_another_method_is_not_allowed(client: Client, method: str) -> None:
    response = client.pool.request(method, f"http://{client.address}/v1/traces", timeout=WAIT)

    assert (response.status, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("content_type", ["text/plain", None, "", "application/x-www-form-urlencoded"])
def test_another_content_type_is_unsupported(client: Client, content_type: str | None) -> None:
    assert client.post(b"", content_type).status == 415


@pytest.mark.parametrize("path", ["/", "/v1/trace", "/v1/traces/", "/v1/profiles"])
def test_another_path_is_not_found(client: Client, path: str) -> None:
    assert client.post(b"", path=path).status == 404


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "snappy"])
def test_an_unknown_encoding_is_a_bad_request(client: Client, encoding: str) -> None:
    assert client.post(b"", Content_Encoding=encoding).status == 400


@pytest.mark.parametrize("body", [b"plain", gzip.compress(b"x" * 1000)[:-9]], ids=["plain", "truncated"])
def test_a_body_that_is_not_what_its_encoding_says_is_a_bad_request(client: Client, pipeline: Any, body: bytes) -> None:
    assert client.post(body, Content_Encoding="gzip").status == 400
    assert pipeline.requests == []


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b'{"resourceSpans": ' + b"1" * 5000 + b"}"])
def test_malformed_json_is_a_bad_request(client: Client, body: bytes) -> None:
    assert client.post(body, JSON).status == 400


def test_a_body_over_the_limit_is_refused_before_it_is_read(client: Client, pipeline: Any) -> None:
    with client.connect() as connection:
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
        connection.sendall(head.encode())

        response = http.client.HTTPResponse(connection)
        response.begin()

    assert response.status == 413
    assert client.post(bytes(LIMIT)).status == 200
    assert len(pipeline.requests) == 1


def test_a_chunked_body_over_the_limit_is_refused_as_soon_as_it_is_over(client: Client, pipeline: Any) -> None:
    with client.connect() as connection:
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        connection.sendall(head.encode() + chunk * (LIMIT // 0x10000) + b"1\r\nx\r\n")

        response = http.client.HTTPResponse(connection)
        response.begin()

    assert response.status == 413
    assert pipeline.requests == []


def by_urllib(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - our own loopback server
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=WAIT)  # noqa: S310
    with raised.value as answer:
        return answer.code, answer.read()


def by_requests(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    answer = requests.post(url, body, headers=headers, timeout=WAIT)
    return answer.status_code, answer.content


def by_requests_in_chunks(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    chunks = (body[at : at + 0x10000] for at in range(0, len(body), 0x10000))
    answer = requests.post(url, chunks, headers=headers, timeout=WAIT)
    return answer.status_code, answer.content


def by_curl(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    fields = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = [curl, "-sS", "-w", "%{stderr}%{http_code}", *fields, "--data-binary", "@-", url]
    done = subprocess.run(command, input=body, capture_output=True, check=True, timeout=WAIT)
    return int(done.stderr), done.stdout


@pytest.mark.parametrize("send", [by_urllib, by_requests, by_requests_in_chunks, by_curl])
@pytest.mark.parametrize("path", ["traces", "logs"])
def test_clients_that_send_everything_before_they_look_can_read_that_it_was_too_large(
    receiver: HttpReceiver, pipeline: Any, send: Callable[[str, bytes, dict[str, str]], tuple[int, bytes]], path: str
) -> None:
    url = f"http://{receiver.start()}/v1/{path}"

    status, body = send(url, bytes(16 * LIMIT), {"Content-Type": JSON})

    assert status == 413
    assert json.loads(body)["message"] == f"The request is larger than {LIMIT} bytes"
    assert pipeline.requests == []


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/profiles", {"Content-Type": PROTOBUF}, 404),
        ("/v1/traces", {"Content-Type": "text/plain"}, 415),
        ("/v1/traces", {"Content-Type": PROTOBUF, "Content-Encoding": "br"}, 400),
    ],
)
def test_every_other_refusal_can_be_read_by_them_too(
    receiver: HttpReceiver, path: str, headers: dict[str, str], status: int
) -> None:
    answer = by_urllib(f"http://{receiver.start()}{path}", bytes(16 * LIMIT), headers)

    assert answer[0] == status


@pytest.mark.parametrize("limit", [{"drained": LIMIT}, {"drain_timeout": 0.1}])
def test_a_refused_body_that_does_not_end_is_not_read_for_ever(pipeline: Any, limit: dict[str, Any]) -> None:
    receiver = HttpReceiver("127.0.0.1:0", pipeline, limits=HttpLimits(request_size=10, buffered=100, **limit))
    client = Client(receiver.start())
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nConnection: close\r\n"
    with client.connect() as connection:
        connection.sendall(f"{head}Content-Length: {1 << 40}\r\n\r\n".encode())
        with pytest.raises(ConnectionError):  # noqa: PT012 - it fails some time later
            while True:
                connection.sendall(bytes(0x10000))

    assert receiver.shutdown(WAIT)


def test_a_bomb_is_refused(client: Client, pipeline: Any) -> None:
    assert client.post(gzip.compress(bytes(100 << 20)), Content_Encoding="gzip").status == 413
    assert pipeline.requests == []


def test_a_client_that_sends_its_headers_slowly_is_disconnected(impatient: Client) -> None:
    with impatient.connect() as slow, impatient.connect() as silent:
        slow.sendall(b"POST /v1/tr")

        assert receive_all(slow) == b""
        assert receive_all(silent) == b""


def test_hundreds_of_slow_clients_are_disconnected(impatient: Client) -> None:
    with ExitStack() as connections:
        slow = [connections.enter_context(impatient.connect()) for _ in range(500)]
        for connection in slow:
            connection.sendall(b"P")

        assert {receive_all(connection) for connection in slow} == {b""}


def test_hundreds_of_slow_clients_delay_nobody(client: Client) -> None:
    with ExitStack() as connections:
        for _ in range(500):
            connections.enter_context(client.connect()).sendall(b"P")

        assert [client.post(b"").status for _ in range(20)] == [200] * 20


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", id="negative length"),
        pytest.param(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
            id="two lengths",
        ),
        pytest.param(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 49\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /v1/traces HTTP/1.1\r\nHost: x\r\n\r\n",
            id="a length and chunks",
        ),
        pytest.param(b"POST /v1/traces HTTP/1.1\r\nContent-Length: 0\r\n\r\n", id="no host"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="TLS"),
        pytest.param(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", id="no header"),
    ],
)
def test_what_is_no_http_is_told_so_with_a_status(client: Client, pipeline: Any, request_: bytes) -> None:
    with client.connect() as connection:
        connection.sendall(request_)
        head, _, body = receive_all(connection).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/json" in head
    assert json.loads(body)["code"] == 3
    assert pipeline.requests == []


def test_a_refused_body_that_turns_out_to_be_no_http_ends_the_connection_quietly(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    with client.connect() as connection:
        connection.sendall(head + b"5\r\nhello\r\n")
        answer = connection.recv(65536)
        connection.sendall(b"no chunk\r\n")
        answer += receive_all(connection)

    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 415") == 1
    assert client.post(b"").status == 200
    assert caplog.messages == []


def test_a_compressed_answer_may_be_asked_for(client: Client) -> None:
    assert client.post(b"", Accept_Encoding="gzip").status == 200
    assert client.post(b"", path="/nowhere", Accept_Encoding="gzip").status == 404


def test_a_long_message_of_partial_success_is_cut(client: Client, pipeline: Any) -> None:
    pipeline.answer = lambda signal, data: PartialSuccess(1, "why " * (2 << 20))

    assert len(client.post(b"").data) < 4096
    assert len(client.post(b"{}", JSON).data) < 4096


def test_a_client_that_waits_for_our_word_before_its_body_is_refused_without_it(client: Client) -> None:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nExpect: 100-continue\r\n"
    with client.connect() as connection:
        connection.sendall(f"{head}Content-Length: {LIMIT + 1}\r\n\r\n".encode())

        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_client_that_slows_down_on_its_second_request_is_disconnected(impatient: Client) -> None:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 0\r\n\r\n"
    with impatient.connect() as slow:
        slow.sendall(head.encode())
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        slow.sendall(b"P")

        assert receive_all(slow) == b""


def test_a_client_that_sends_its_body_slowly_is_told_so_and_disconnected(impatient: Client, pipeline: Any) -> None:
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 100\r\n\r\nx"
    with impatient.connect() as slow:
        slow.sendall(head.encode())

        assert receive_all(slow).startswith(b"HTTP/1.1 408")

    assert pipeline.requests == []


@pytest.mark.parametrize("headers", [{f"x-{n}": "y" for n in range(200)}, {"x": "y" * (64 << 10)}])
def test_too_many_headers_are_refused(client: Client, headers: dict[str, str]) -> None:
    with client.connect() as connection:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{fields}\r\n".encode())

        answer = receive_all(connection)

    assert answer.startswith(b"HTTP/1.1 431")
    assert client.post(b"").status == 200


def test_requests_on_one_connection_are_answered_in_order(client: Client, pipeline: Any) -> None:
    pipeline.answer = lambda signal, data: PartialSuccess(int(data))
    request = "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}"
    pipelined = "".join(request.format(PROTOBUF, len(str(number)), number) for number in range(1, 101))
    with client.connect() as connection:
        connection.sendall(pipelined.encode())

        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 100:
            part = connection.recv(65536)
            assert part
            answers += part

    assert [int(data) for _, data in pipeline.requests] == list(range(1, 101))


MANY = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 0\r\n\r\n".encode() * 1000


def test_what_a_client_sends_ahead_without_reading_answers_stays_with_it(client: Client) -> None:
    # What the system itself keeps for both ends is less than a quarter of this.
    limit, sent = 64 << 20, 0
    with client.connect() as connection, suppress(TimeoutError):
        connection.settimeout(1.0)
        while sent < limit:
            sent += connection.send(MANY)

    assert sent < limit
    assert client.post(b"").status == 200


def test_a_client_that_does_not_read_its_answers_is_disconnected(
    receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "read_timeout", 0.2)

    def send_for_ever(connection: socket.socket) -> None:
        while True:
            connection.sendall(MANY)

    with Client(receiver.start()).connect() as connection, pytest.raises(ConnectionError):
        send_for_ever(connection)


def test_thousands_of_requests_sent_ahead_are_all_answered(client: Client, pipeline: Any) -> None:
    with client.connect() as connection:
        sending = threading.Thread(target=connection.sendall, args=(MANY * 3,))
        sending.start()
        received = b""
        while received.count(b"HTTP/1.1 200") < 3000:
            part = connection.recv(65536)
            assert part
            received += part
        sending.join(WAIT)

    assert len(pipeline.requests) == 3000


def test_more_than_fits_in_memory_at_once_is_refused_with_a_hint(client: Client, pipeline: Any) -> None:
    inside, leave = threading.Semaphore(0), threading.Event()

    def wait(signal: Signal, data: bytes) -> None:
        inside.release()
        assert leave.wait(WAIT)

    pipeline.answer = wait
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(client.post(bytes(LIMIT)).status)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert inside.acquire(timeout=WAIT)

    refused = client.post(b"one more")
    leave.set()
    for thread in threads:
        thread.join(WAIT)

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert statuses == [200, 200]
    assert client.post(bytes(LIMIT)).status == 200, "on the connection of the refused one, at once"


def test_stopping_answers_what_is_on_the_way_and_refuses_the_rest(receiver: HttpReceiver, pipeline: Any) -> None:
    client = Client(receiver.start())
    inside, leave = threading.Semaphore(0), threading.Event()

    def wait(signal: Signal, data: bytes) -> None:
        inside.release()
        assert leave.wait(WAIT)

    client.post(b"")
    kept = client.connect()
    pipeline.answer = wait
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(client.post(b"x").status)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert inside.acquire(timeout=WAIT)

    assert not receiver.drain(0.0)
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 0\r\n\r\n"
    kept.sendall(head.encode())
    refused = receive_all(kept)
    leave.set()
    assert receiver.drain(WAIT)
    for thread in threads:
        thread.join(WAIT)
    later = client.post(b"x")
    assert receiver.shutdown(WAIT)

    assert refused.startswith(b"HTTP/1.1 503")
    assert (later.status, later.headers["retry-after"], later.headers["connection"]) == (503, "1", "close")
    assert Status.FromString(later.data).message == "Shutting down"
    assert statuses == [200] * 4
    assert len(pipeline.requests) == 5
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, the text is the system's
        client.connect()
    kept.close()


def test_nothing_enters_after_shutdown_even_if_a_request_was_waiting(receiver: HttpReceiver, pipeline: Any) -> None:
    client = Client(receiver.start())
    inside, leave = threading.Semaphore(0), threading.Event()

    def wait(signal: Signal, data: bytes) -> None:
        inside.release()
        assert leave.wait(WAIT)

    pipeline.answer = wait
    connections = [client.connect() for _ in range(8)]
    for connection in connections:
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head.encode())
    for _ in range(4):
        assert inside.acquire(timeout=WAIT)

    assert not receiver.shutdown(0.1)
    leave.set()
    for connection in connections:
        receive_all(connection)
        connection.close()

    assert len(pipeline.requests) <= 4


def test_a_port_in_use_is_a_clear_error(pipeline: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(AddressInUseError, match=f"Cannot listen on {address}: the port is in use"):
            HttpReceiver(address, pipeline).start()


@pytest.mark.parametrize("address", ["4318", "host:port", "127.0.0.1:99999", "192.0.2.1:0", "::1:4318"])
def test_an_address_that_cannot_be_had_is_a_configuration_error(address: str, pipeline: Any) -> None:
    with pytest.raises(ConfigError, match="Cannot listen on"):
        HttpReceiver(address, pipeline).start()
