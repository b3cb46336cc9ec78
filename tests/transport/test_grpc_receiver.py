# pyright: reportUnnecessaryTypeIgnoreComment=false
from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]  # no stubs exist
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # no stubs exist
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

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
from otel_scorer.telemetry import snapshot
from otel_scorer.transport.exchange import GRPC_METHODS, PartialSuccess
from otel_scorer.transport.grpc_receiver import GrpcReceiver

LIMIT = 4 << 20
WAIT = 30.0


class Client:
    def __init__(self, address: str, *options: tuple[str, Any]) -> None:
        self.channel = grpc.insecure_channel(address, options)

    def export(self, data: bytes, method: str = GRPC_METHODS[Signal.TRACES], **options: Any) -> bytes:
        response: bytes = self.channel.unary_unary(method, None, None)(data, timeout=WAIT, **options)
        return response

    def trailers(self) -> dict[str, bytes]:
        """Refuse a request and return the binary trailers."""
        trailers = self.refusal().trailing_metadata() or ()
        return {str(name): value for name, value in trailers if isinstance(value, bytes)}

    def refusal(self, data: bytes = b"", **options: Any) -> grpc.Call:
        with pytest.raises(grpc.RpcError) as raised:
            self.export(data, **options)
        assert isinstance(raised.value, grpc.Call)
        return raised.value

    def wait_for_server(self) -> None:
        """Return once all calls of this connection so far have reached the server."""
        # It answers to what it does not know without a thread of the pool, and in the order in which calls came.
        assert self.refusal(method="/nowhere/Nothing").code() is grpc.StatusCode.UNIMPLEMENTED


def wait_until_refused(address: str) -> None:
    """Return once nobody listens there."""
    host, _, port = address.rpartition(":")
    pause = threading.Event()
    for _ in range(int(WAIT * 100)):
        try:
            socket.create_connection((host, int(port)), timeout=WAIT).close()
        except OSError:
            return
        pause.wait(0.01)
    raise AssertionError(f"Somebody still listens on {address}")


@pytest.fixture
def receiver(pipeline: Any) -> Iterator[GrpcReceiver]:
    receiver = GrpcReceiver("127.0.0.1:0", pipeline, max_request_size=LIMIT, threads=4)
    yield receiver
    receiver.shutdown(1.0)


@pytest.fixture
def address(receiver: GrpcReceiver) -> str:
    return receiver.start()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    client = Client(address)
    yield client
    client.channel.close()


def test_the_sdk_exports_spans_and_logs(pipeline: Any, address: str) -> None:
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(address, insecure=True)))
    loggers = LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(address, insecure=True)))

    tracers.get_tracer("test").start_span("a span").end()
    loggers.get_logger("test").emit(LogRecord(body="a record"))
    tracers.shutdown()
    loggers.shutdown()

    assert [signal for signal, _ in pipeline.requests] == [Signal.TRACES, Signal.LOGS]
    assert b"a span" in pipeline.requests[0][1]


@pytest.mark.parametrize("signal", Signal)
def test_bytes_arrive_as_they_were_sent_and_full_success_is_empty(
    client: Client, pipeline: Any, signal: Signal
) -> None:
    data = b"\xfa\x3f\x05hello"

    assert client.export(data, GRPC_METHODS[signal]) == b""
    assert client.export(data, GRPC_METHODS[signal], compression=grpc.Compression.Gzip) == b""

    assert pipeline.requests == [(signal, data)] * 2


def test_an_empty_request_succeeds_without_partial_success(client: Client) -> None:
    assert client.export(b"") == b""


def test_rejected_items_are_told_in_a_partial_success(client: Client, pipeline: Any) -> None:
    pipeline.answer = lambda signal, data: PartialSuccess(3, "x" * 10_000_000)

    response = ExportTraceServiceResponse.FromString(client.export(b""))

    assert response.partial_success.rejected_spans == 3
    assert response.partial_success.error_message.startswith("xxx")
    assert response.ByteSize() < 4 << 20


def test_a_partial_success_that_says_nothing_is_left_out(client: Client, pipeline: Any) -> None:
    pipeline.answer = lambda signal, data: PartialSuccess(0)

    assert client.export(b"") == b""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequestError("why"), grpc.StatusCode.INVALID_ARGUMENT),
        (RequestTooLargeError("why"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (TooManyPartsError("why"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (UnsupportedSignalError("why"), grpc.StatusCode.UNIMPLEMENTED),
        (OverloadedError("why"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_errors_have_the_code_that_otlp_gives_them(
    client: Client, pipeline: Any, error: RequestError, code: grpc.StatusCode
) -> None:
    def refuse(signal: Signal, data: bytes) -> None:
        raise error

    pipeline.answer = refuse

    call = client.refusal()

    status = Status.FromString(client.trailers()["grpc-status-details-bin"])
    assert (call.code(), call.details()) == (code, "why")
    assert (status.code, status.message) == (code.value[0], "why")
    assert any(detail.type_url.endswith("/google.rpc.BadRequest") for detail in status.details) == isinstance(
        error, InvalidRequestError
    )


def test_overload_is_told_with_a_retry_hint_in_both_trailers(client: Client, pipeline: Any) -> None:
    def refuse(signal: Signal, data: bytes) -> None:
        raise OverloadedError("busy", retry_after=2.5)

    pipeline.answer = refuse

    trailers = client.trailers()

    [detail] = Status.FromString(trailers["grpc-status-details-bin"]).details
    in_status = RetryInfo()
    assert isinstance(detail, AnyMessage)
    assert detail.Unpack(in_status)
    alone = RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
    assert in_status == alone
    assert alone.retry_delay.ToMilliseconds() == 2500


def test_the_sdk_waits_as_long_as_it_was_told(address: str, pipeline: Any) -> None:
    answers = iter([OverloadedError("busy", retry_after=0.05), None])

    def refuse_once(signal: Signal, data: bytes) -> None:
        if (error := next(answers)) is not None:
            raise error

    pipeline.answer = refuse_once
    exporter = OTLPSpanExporter(address, insecure=True)

    # Without the hint the exporter would wait for a second; its whole timeout is less.
    exporter._timeout = 0.7  # noqa: SLF001 - the argument takes whole seconds only
    result = exporter.export([])
    exporter.shutdown()

    assert result is SpanExportResult.SUCCESS


def test_an_unexpected_exception_is_internal_and_the_server_lives(
    client: Client, pipeline: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(signal: Signal, data: bytes) -> None:
        raise ZeroDivisionError("secret")

    pipeline.answer = fail
    calls = [client.refusal() for _ in range(5)]
    pipeline.answer = lambda signal, data: None

    assert {call.code() for call in calls} == {grpc.StatusCode.INTERNAL}
    assert "secret" not in (calls[0].details() or "")
    assert len([record for record in caplog.records if "Cannot handle" in record.message]) == 1
    assert client.export(b"") == b""


def test_a_request_over_the_limit_is_refused_for_good(client: Client, pipeline: Any) -> None:
    assert client.export(bytes(LIMIT)) == b""

    call = client.refusal(bytes(LIMIT + 1))

    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in dict(call.trailing_metadata() or ())
    assert len(pipeline.requests) == 1


def test_a_bomb_is_refused(client: Client, pipeline: Any) -> None:
    call = client.refusal(bytes(100 << 20), compression=grpc.Compression.Gzip)

    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert pipeline.requests == []


@pytest.mark.parametrize("method", ["/x.Y/Z", "/opentelemetry.proto.collector.trace.v1.TraceService/Import"])
def test_an_unknown_method_is_unimplemented(client: Client, method: str) -> None:
    assert client.refusal(method=method).code() is grpc.StatusCode.UNIMPLEMENTED


def test_huge_metadata_harms_nobody_else(client: Client) -> None:
    with pytest.raises(grpc.RpcError):
        client.export(b"", metadata=(("key", "x" * 20_000),))

    assert client.export(b"") == b""


def test_a_thousand_calls_at_once_on_one_connection_are_all_answered(client: Client, pipeline: Any) -> None:
    export = client.channel.unary_unary(GRPC_METHODS[Signal.TRACES], None, None)

    calls = [export.future(b"x" * 1000, timeout=WAIT * 3) for _ in range(1000)]

    assert {call.result() for call in calls} == {b""}
    assert len(pipeline.requests) == 1000


def test_a_call_whose_client_gave_up_while_it_waited_is_not_admitted(address: str, pipeline: Any) -> None:
    inside, leave = threading.Semaphore(0), threading.Event()

    def wait(signal: Signal, data: bytes) -> None:
        inside.release()
        assert leave.wait(WAIT)

    pipeline.answer = wait
    client = Client(address)
    export = client.channel.unary_unary(GRPC_METHODS[Signal.TRACES], None, None)
    busy = [export.future(b"busy", timeout=WAIT) for _ in range(4)]
    for _ in busy:
        assert inside.acquire(timeout=WAIT)

    late = export.future(b"late", timeout=WAIT)
    client.wait_for_server()
    late.cancel()  # type: ignore[no-untyped-call]  # its stubs leave the types out
    client.wait_for_server()
    leave.set()
    for call in busy:
        call.result()
    client.export(b"after")
    client.channel.close()

    assert [data for _, data in pipeline.requests] == [b"busy"] * 4 + [b"after"]


def test_a_client_that_pings_every_ten_seconds_is_not_abusing(address: str) -> None:
    client = Client(
        address,
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )

    assert client.export(b"") == b""
    client.channel.close()


def silent_calls(address: str, number: int, silence: threading.Event) -> tuple[grpc.Channel, list[Any]]:
    """Begin calls whose message does not come before the silence ends."""
    channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
    begin = channel.stream_unary(GRPC_METHODS[Signal.TRACES], None, None)

    def nothing() -> Iterator[bytes]:
        silence.wait(WAIT)
        yield from ()

    return channel, [begin.future(nothing()) for _ in range(number)]


def test_calls_whose_message_does_not_come_keep_nobody_waiting(client: Client, address: str, pipeline: Any) -> None:
    silence = threading.Event()
    channel, calls = silent_calls(address, 100, silence)

    assert [client.export(b"x") for _ in range(20)] == [b""] * 20

    assert not any(call.done() for call in calls)
    silence.set()
    for call in calls:
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, "a call without a message is no request"
    channel.close()
    assert len(pipeline.requests) == 20


def test_calls_whose_message_does_not_come_in_time_are_ended_for_a_later_try(pipeline: Any) -> None:
    receiver = GrpcReceiver("127.0.0.1:0", pipeline, message_timeout=0.3)
    silence = threading.Event()
    channel, [call] = silent_calls(receiver.start(), 1, silence)

    code = call.code()
    silence.set()
    channel.close()
    receiver.shutdown(1.0)

    assert code is grpc.StatusCode.CANCELLED
    assert pipeline.requests == []


def test_more_silent_calls_than_threads_are_ended_soon(client: Client, address: str) -> None:
    silence = threading.Event()
    channel, calls = silent_calls(address, 300, silence)

    assert client.export(b"x") == b""

    ended = [call for call in calls if call.done()]
    silence.set()
    channel.close()
    assert ended, "a new call was served only because older ones were ended"
    assert {call.code() for call in ended} == {grpc.StatusCode.CANCELLED}


def test_a_connection_without_a_word_is_closed(pipeline: Any) -> None:
    receiver = GrpcReceiver("127.0.0.1:0", pipeline, handshake_timeout=0.3)
    host, _, port = receiver.start().rpartition(":")
    with socket.create_connection((host, int(port)), WAIT) as silent:
        while silent.recv(1000):
            pass  # the server's settings come first
    receiver.shutdown(1.0)


def test_a_client_that_pings_too_often_is_sent_away_and_comes_back(address: str) -> None:
    client = Client(
        address,
        ("grpc.keepalive_time_ms", 1),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )

    assert [client.export(b"x", wait_for_ready=True) for _ in range(5)] == [b""] * 5
    client.channel.close()


def test_stopping_answers_what_is_on_the_way_and_refuses_the_rest(receiver: GrpcReceiver, pipeline: Any) -> None:
    address = receiver.start()
    inside, leave = threading.Semaphore(0), threading.Event()

    def wait(signal: Signal, data: bytes) -> None:
        inside.release()
        assert leave.wait(WAIT)

    pipeline.answer = wait
    clients = [Client(address) for _ in range(5)]
    export = [client.channel.unary_unary(GRPC_METHODS[Signal.TRACES], None, None) for client in clients]
    calls = [export[number % 5].future(b"x", timeout=WAIT) for number in range(50)]
    for _ in range(4):
        assert inside.acquire(timeout=WAIT)
    for client in clients:
        client.wait_for_server()

    answered: list[bool] = []
    stopping = threading.Thread(target=lambda: answered.append(receiver.drain(WAIT)))
    stopping.start()
    wait_until_refused(address)
    refused = Client(address).refusal(b"new")
    leave.set()
    results = [call.result() for call in calls]
    stopping.join(WAIT)
    assert answered == [True]

    assert results == [b""] * 50
    # Cancelled if the call overtook the news that the server stops; OTLP's clients try both again.
    assert refused.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    assert len(pipeline.requests) == 50


def test_nothing_enters_after_shutdown_even_if_a_request_was_waiting(receiver: GrpcReceiver, pipeline: Any) -> None:
    address = receiver.start()
    inside, leave = threading.Semaphore(0), threading.Event()

    def wait(signal: Signal, data: bytes) -> None:
        inside.release()
        assert leave.wait(WAIT)

    pipeline.answer = wait
    client = Client(address)
    export = client.channel.unary_unary(GRPC_METHODS[Signal.TRACES], None, None)
    calls = [export.future(b"x", timeout=WAIT) for _ in range(10)]
    for _ in range(4):
        assert inside.acquire(timeout=WAIT)

    assert not receiver.shutdown(0.1)
    leave.set()
    for call in calls:
        with pytest.raises(grpc.RpcError):
            call.result()

    assert len(pipeline.requests) <= 4


def test_a_port_in_use_is_a_clear_error(pipeline: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(AddressInUseError, match=f"Cannot listen on {address}: the port is in use"):
            GrpcReceiver(address, pipeline).start()


def test_two_receivers_cannot_share_a_port(address: str, pipeline: Any) -> None:
    with pytest.raises(AddressInUseError):
        GrpcReceiver(address, pipeline).start()


@pytest.mark.parametrize(
    "address", ["4317", "host:port", "127.0.0.1:99999", "192.0.2.1:0", "::1:4317", "no.such.host.invalid:1"]
)
def test_an_address_that_cannot_be_had_is_a_configuration_error(address: str, pipeline: Any) -> None:
    with pytest.raises(ConfigError, match="Cannot listen on"):
        GrpcReceiver(address, pipeline).start()


def test_requests_are_counted_by_outcome(client: Client, pipeline: Any) -> None:
    key = "receiver.requests{outcome=invalid,protocol=grpc,signal=traces}"
    before = snapshot().get(key, 0)

    def refuse(signal: Signal, data: bytes) -> None:
        raise InvalidRequestError("why")

    pipeline.answer = refuse
    client.refusal()

    assert snapshot()[key] == before + 1


def test_many_connections_are_served_at_once(address: str, pipeline: Any) -> None:
    def one(_: int) -> bytes:
        client = Client(address, ("grpc.use_local_subchannel_pool", 1))
        response = client.export(b"x")
        client.channel.close()
        return response

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(64))) == [b""] * 64
