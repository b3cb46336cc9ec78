"""OTLP to the letter, case by case, against a running sidecar: what is taken, what is refused, and what it costs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from tests.e2e.sidecar import Sidecar, Traces, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Sink

from otel_scorer.testing import make_request, make_span

MIB = 1 << 20
LIMIT = 4 * MIB
JSON = "application/json"
TRACES = Traces(1)
# What a process holds shall say what we keep, not how many threads glibc gave an arena of their own.
ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}


@pytest.fixture(scope="module")
def sidecar(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = tmp_path_factory.mktemp("config") / "sidecar.yaml"
    protocols = {name: {"max_request_size": LIMIT} for name in ("grpc", "http")}
    config.write_text(json.dumps({"receivers": {"otlp": {"protocols": protocols}}}), encoding="utf-8")
    flags = ("-c", str(config), "--export", sink.grpc, "--scorers", "latency", "--root-grace", "0.2")
    sidecar = Sidecar(*flags, environment=ONE_ARENA)
    yield sidecar
    sidecar.close()


@pytest.fixture(scope="module")
def channel(sidecar: Sidecar) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(sidecar.grpc, [("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def peak(sidecar: Sidecar) -> int:
    """Return the most bytes of memory that the sidecar's main process ever had."""
    status = Path(f"/proc/{sidecar.process.pid}/status")
    [line] = [line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def partial(answer: bytes) -> tuple[int, str]:
    success = ExportTraceServiceResponse.FromString(answer).partial_success
    return success.rejected_spans, success.error_message


def refusal(channel: grpc.Channel, data: bytes, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        method_of(channel)(data, timeout=WAIT, **options)
    assert isinstance(raised.value, grpc.Call)
    return raised.value.code(), raised.value.details() or ""


def nested(depth: int) -> bytes:
    """Encode a value in arrays in one another; protobuf itself refuses to write many of them."""
    value = AnyValue(string_value="deep").SerializeToString()
    for _ in range(depth):
        value = field(5, field(1, value))
    return value


def with_value(encoded: bytes, trace: int) -> bytes:
    """Return a request whose span has an attribute with this encoded value."""
    pair = field(1, b"key") + field(2, encoded)
    span = make_span("deep", trace=trace, span=1).SerializeToString() + field(9, pair)
    return field(1, field(2, field(2, span)))


def field(number: int, data: bytes) -> bytes:
    size, head = len(data), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + data


def test_resources_and_scopes_without_spans_succeed_and_nothing_is_forwarded(
    channel: grpc.Channel, sidecar: Sidecar, sink: Sink
) -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add()
    request.resource_spans.add()
    trace = TRACES.new()

    assert method_of(channel)(request.SerializeToString(), timeout=WAIT) == b""
    sidecar.send(small_trace(trace))

    sink.wait_for_spans(3, id_of(trace))
    assert request.SerializeToString() not in sink.requests()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"\xff\xff\xff", "Not an OTLP traces request", id="garbage"),
        pytest.param(
            make_request(make_span("a name", trace=1)).replace(b"a name", b"a\xff\xfeame"), "UTF-8", id="invalid UTF-8"
        ),
        pytest.param(with_value(nested(60), 1), "Not an OTLP traces request", id="60 arrays in one another"),
    ],
)
def test_what_is_no_request_is_an_invalid_argument(channel: grpc.Channel, data: bytes, words: str) -> None:
    code, details = refusal(channel, data)

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in details


def test_values_may_be_nested_as_deep_as_protobuf_reads(channel: grpc.Channel, sink: Sink) -> None:
    trace = TRACES.new()

    assert method_of(channel)(with_value(nested(40), trace), timeout=WAIT) == b""

    sink.wait_for_spans(1, id_of(trace))


def test_logs_at_the_wrong_door_are_called_logs(channel: grpc.Channel, sidecar: Sidecar) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1)
    record.body.string_value = "hello"

    code, details = refusal(channel, request.SerializeToString())

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "looks like OTLP logs" in details
    assert b"looks like OTLP logs" in sidecar.post(request.SerializeToString()).body


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("trace_id", b"abc", "trace_id has 3 bytes"),
        ("trace_id", b"", "trace_id has 0 bytes"),
        ("trace_id", bytes(16), "trace_id is all zero"),
        ("span_id", bytes(8), "span_id is all zero"),
        ("span_id", b"123456789", "span_id has 9 bytes"),
    ],
)
def test_a_span_with_an_unusable_id_is_a_partial_success_and_alone_an_error(
    name: str, value: bytes, reason: str, channel: grpc.Channel, sink: Sink
) -> None:
    trace = TRACES.new()
    bad = make_span("bad", trace=trace, span=9)
    setattr(bad, name, value)
    good = [make_span("good", trace=trace, span=number) for number in (1, 2, 3)]

    rejected, message = partial(method_of(channel)(make_request(*good, bad), timeout=WAIT))
    code, details = refusal(channel, make_request(bad))

    assert rejected == 1
    assert reason in message
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in details
    sink.wait_for_spans(3, id_of(trace))
    assert {span.name for span in sink.spans_of(id_of(trace))} == {"good"}


def test_compressed_and_plain_calls_share_a_channel(channel: grpc.Channel, sink: Sink) -> None:
    ids = [TRACES.new() for _ in range(3)]
    for trace, compression in zip(ids, (grpc.Compression.Gzip, None, grpc.Compression.Deflate), strict=True):
        assert method_of(channel)(small_trace(trace), timeout=WAIT, compression=compression) == b""

    sink.wait_for_spans(9, *map(id_of, ids))


def test_bombs_are_refused_without_ever_being_laid_out_in_memory(channel: grpc.Channel, sidecar: Sidecar) -> None:
    bomb = gzip.compress(bytes(64 * MIB)) * 16
    before = peak(sidecar)
    # Far above what malloc keeps of what was within the limit; below one bomb, and below what came in by wire.
    bound = before + 40 * MIB

    for _ in range(100):
        assert sidecar.post(bomb, headers={"Content-Encoding": "gzip"}).status == 413
        assert peak(sidecar) < bound
    for _ in range(2):
        code, details = refusal(channel, bytes(100 * MIB), compression=grpc.Compression.Gzip)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in details
        assert peak(sidecar) < bound


def test_gzip_in_gzip_is_undone_once_and_several_members_are_one_body(sidecar: Sidecar, sink: Sink) -> None:
    trace = TRACES.new()
    data = small_trace(trace)
    head = {"Content-Encoding": "gzip"}

    assert sidecar.post(gzip.compress(gzip.compress(data)), headers=head).status == 400
    assert sidecar.post(gzip.compress(data), headers={"Content-Encoding": "gzip, gzip"}).status == 400
    assert sidecar.post(gzip.compress(data)[:-5], headers=head).status == 400
    assert sidecar.post(gzip.compress(data[:9]) + gzip.compress(data[9:]), headers=head).status == 200

    sink.wait_for_spans(3, id_of(trace))


def a_json_span(trace: int, **fields: object) -> dict[str, object]:
    times = {"startTimeUnixNano": "1700000000000000001", "endTimeUnixNano": 1700000000000000003}
    return {"traceId": id_of(trace).hex(), "spanId": f"{1:016x}", "name": "a span", **times, **fields}


def a_json_request(*spans: object) -> dict[str, object]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def test_json_is_read_as_otlp_maps_it(sidecar: Sidecar, sink: Sink) -> None:
    trace = TRACES.new()
    values: list[object] = [
        {"stringValue": "a\ud800b"},
        {"intValue": "9007199254740993"},
        {"intValue": 9007199254740993},
        {"doubleValue": "NaN"},
        {"doubleValue": "Infinity"},
        {"bytesValue": "aGk="},
        {},
        {"arrayValue": {"values": None}},
    ]
    span = a_json_span(
        trace,
        traceId=id_of(trace).hex().upper(),
        kind=99,
        unknown={"field": [1]},
        parentSpanId=None,
        links=None,
        attributes=[{"key": f"k{index}", "value": value} for index, value in enumerate(values)],
    )

    answer = sidecar.post(json.dumps(a_json_request(span)).encode(), content_type="Application/JSON; charset=utf-8")

    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"{}", JSON)
    sink.wait_for_spans(1, id_of(trace))
    [found] = sink.spans_of(id_of(trace))
    taken = [pair.value for pair in found.attributes]
    assert (found.kind, found.start_time_unix_nano, found.parent_span_id) == (99, 1700000000000000001, b"")
    assert taken[0].string_value == "a\ufffdb"
    assert [value.int_value for value in taken[1:3]] == [9007199254740993] * 2
    assert taken[3].double_value != taken[3].double_value
    assert taken[5].bytes_value == b"hi"
    assert taken[6].WhichOneof("value") is None
    assert taken[7].WhichOneof("value") == "array_value"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"traceId": "5b8efff7 98038103 d269b633 813fc60"}, id="whitespace in an id"),
        pytest.param({"spanId": "0x00000000000001"}, id="0x before an id"),
        pytest.param({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, id="id in base64"),
        pytest.param({"kind": "SPAN_KIND_SERVER"}, id="name of an enum value"),
        pytest.param({"startTimeUnixNano": -1}, id="negative time"),
        pytest.param({"startTimeUnixNano": 1.5}, id="fraction of a nanosecond"),
    ],
)
def test_a_json_span_that_otlp_does_not_allow_is_a_partial_success(
    fields: dict[str, object], sidecar: Sidecar, sink: Sink
) -> None:
    trace = TRACES.new()
    bad = a_json_span(trace, **{"spanId": f"{2:016x}", **fields})
    body = json.dumps(a_json_request(a_json_span(trace), bad))

    answer = sidecar.post(body.encode(), content_type=JSON)

    assert answer.status == 200
    assert json.loads(answer.body)["partialSuccess"]["rejectedSpans"] == "1"
    sink.wait_for_spans(1, id_of(trace))


def test_snake_case_keys_are_taken_and_of_two_equal_keys_the_last_one(sidecar: Sidecar, sink: Sink) -> None:
    trace = TRACES.new()
    body = json.dumps({"resource_spans": [{"scope_spans": [{"spans": [a_json_span(trace)]}]}]})

    answer = sidecar.post(body.replace('"name": "a span"', '"name": "a", "name": "b"').encode(), content_type=JSON)

    assert answer.status == 200
    sink.wait_for_spans(1, id_of(trace))
    assert [span.name for span in sink.spans_of(id_of(trace))] == ["b"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[" * 100_000, id="100,000 brackets"),
        pytest.param(b'{"resourceSpans": ' + b"1" * 5000 + b"}", id="number of 5,000 digits"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param(b"NaN", id="NaN"),
    ],
)
def test_what_is_no_json_request_is_a_bad_request_with_a_status_in_json(body: bytes, sidecar: Sidecar) -> None:
    answer = sidecar.post(body, content_type=JSON)

    assert (answer.status, answer.headers["content-type"]) == (400, JSON)
    assert json.loads(answer.body)["code"] == 3


def test_a_dead_backend_costs_a_bounded_queue_and_then_senders_are_told_to_wait(
    start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    exporter = {"endpoint": "http://127.0.0.1:9", "sending_queue": {"queue_size": "2MiB"}}
    config = tmp_path / "sidecar.yaml"
    config.write_text(json.dumps({"exporters": {"otlp": exporter}, "drain_timeout": "100ms"}), encoding="utf-8")
    sidecar = start("-c", str(config), environment=ONE_ARENA)
    data = make_request(*(make_span("x" * 1000, trace=1, span=number) for number in range(1, 201)))
    sidecar.send(b"")
    before = peak(sidecar)

    answers = [sidecar.post(data) for _ in range(500)]

    refused = [answer for answer in answers if answer.status == 503]
    accepted = [answer for answer in answers if answer.status == 200]
    assert len(refused) + len(accepted) == 500
    assert 5 < len(accepted) < 15, "some 200 kB each, 2 MiB in all"
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert peak(sidecar) - before < 500 * len(data) / 2, "what was refused is gone"
