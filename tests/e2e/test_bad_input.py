"""What is wrong gets a clear answer, and nothing else notices."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from tests.e2e.sidecar import Answer, Sidecar, Traces, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Sink

from otel_scorer.testing import make_request, make_span
from otel_scorer.transport.responses import status_message

LIMIT = 200_000


@pytest.fixture(scope="module")
def sidecar(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    config = tmp_path_factory.mktemp("config") / "sidecar.yaml"
    protocols = f"{{grpc: {{max_request_size: {LIMIT}}}, http: {{max_request_size: {LIMIT}}}}}"
    config.write_text(f"receivers: {{otlp: {{protocols: {protocols}}}}}\n", encoding="utf-8")
    sidecar = Sidecar(
        *("-c", str(config), "--export", sink.grpc, "--scorers", "latency", "tool_errors", "--root-grace", "0.2")
    )
    yield sidecar
    sidecar.close()


def bad_ids() -> bytes:
    """Return a request with two spans of which no id can be used."""
    short, zero = make_span("short", trace=7, span=7), make_span("zero", trace=7, span=8)
    short.trace_id = b"short"
    zero.span_id = bytes(8)
    return make_request(short, zero)


def status_of(answer: Answer) -> str:
    if answer.headers["content-type"] == "application/json":
        return str(json.loads(answer.body)["message"])
    return status_message(answer.body)


GARBAGE = b"\x0a\xff\xff\xff\xff\x0fthis is no protobuf"
CUT = small_trace(9)[:-7]
CASES: dict[str, tuple[bytes, str, dict[str, str], int]] = {
    "garbage": (GARBAGE, "application/x-protobuf", {}, 400),
    "cut off": (CUT, "application/x-protobuf", {}, 400),
    "no valid id": (bad_ids(), "application/x-protobuf", {}, 400),
    "too large": (bytes(LIMIT + 1), "application/x-protobuf", {}, 413),
    "too large once inflated": (
        gzip.compress(bytes(50 * LIMIT)),
        "application/x-protobuf",
        {"Content-Encoding": "gzip"},
        413,
    ),
    "not gzip": (small_trace(9), "application/x-protobuf", {"Content-Encoding": "gzip"}, 400),
    "gzip cut off": (gzip.compress(small_trace(9))[:-9], "application/x-protobuf", {"Content-Encoding": "gzip"}, 400),
    "no JSON": (b'{"resourceSpans": [', "application/json", {}, 400),
    "JSON of something else": (b'{"resourceSpans": 5}', "application/json", {}, 400),
    "no UTF-8": (b'{"resourceSpans": "\xff"}', "application/json", {}, 400),
    "deep JSON": (b"[" * 90_000, "application/json", {}, 400),
    "wrong type": (small_trace(9), "text/plain", {}, 415),
    "wrong encoding": (small_trace(9), "application/x-protobuf", {"Content-Encoding": "br"}, 400),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_is_refused_and_others_pass(case: str, sidecar: Sidecar, sink: Sink) -> None:
    body, content_type, headers, status = CASES[case]
    traces = Traces(list(CASES).index(case) + 1)
    around = [traces.new() for _ in range(8)]
    ids = [id_of(trace) for trace in around]

    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(sidecar.send, small_trace(trace)) for trace in around]
        answers = list(pool.map(lambda _: sidecar.post(body, content_type=content_type, headers=headers), range(4)))
    for sent in good:
        sent.result()

    assert [answer.status for answer in answers] == [status] * 4
    assert all(status_of(answer) for answer in answers)
    assert len(sink.wait_for_scores(16, *ids)) == 16
    assert len(sink.spans_of(*ids)) == 24
    assert sink.raw_of(id_of(9)) == sink.raw_of(id_of(7)) == []


def call(sidecar: Sidecar, data: bytes) -> bytes:
    with grpc.insecure_channel(sidecar.grpc) as channel:
        export = method_of(channel)
        answer: bytes = export(data, timeout=WAIT)
        return answer


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (GARBAGE, grpc.StatusCode.INVALID_ARGUMENT),
        (CUT, grpc.StatusCode.INVALID_ARGUMENT),
        (bad_ids(), grpc.StatusCode.INVALID_ARGUMENT),
        (bytes(LIMIT + 1000), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["garbage", "cut off", "no valid id", "too large"],
)
def test_a_bad_grpc_request_is_refused_and_others_pass(
    data: bytes, code: grpc.StatusCode, sidecar: Sidecar, sink: Sink
) -> None:
    trace = Traces(100 + code.value[0]).new()

    with pytest.raises(grpc.RpcError) as refused:
        call(sidecar, data)
    assert call(sidecar, small_trace(trace)) == b""

    assert refused.value.code() is code
    assert refused.value.details()
    assert len(sink.wait_for_scores(2, id_of(trace))) == 2


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/json"])
def test_an_empty_request_is_fine(content_type: str, sidecar: Sidecar) -> None:
    body, success = (b"{}", b"{}") if content_type == "application/json" else (b"", b"")

    answer = sidecar.post(body, content_type=content_type)

    assert (answer.status, answer.body) == (200, success)
    assert call(sidecar, b"") == b""


def test_spans_with_an_invalid_id_are_left_out_and_the_others_taken(sidecar: Sidecar, sink: Sink) -> None:
    trace = Traces(120).new()

    answer = sidecar.post(bad_ids() + small_trace(trace))

    assert answer.status == 200
    partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert partial.rejected_spans == 2
    assert "id" in partial.error_message
    assert len(sink.wait_for_scores(2, id_of(trace))) == 2
    assert len(sink.spans_of(id_of(trace))) == 3


def test_json_spans_with_an_invalid_id_are_left_out_and_the_others_taken(sidecar: Sidecar, sink: Sink) -> None:
    trace = Traces(130).new()
    times = {"startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    spans = [{"traceId": id_of(trace).hex(), "spanId": f"{number:016x}", "name": "ok", **times} for number in (1, 2)]
    spans += [{"traceId": "xyz", "spanId": "0" * 15 + "3", "name": "bad", **times}]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}

    answer = sidecar.post(json.dumps(body).encode(), content_type="application/json")

    assert answer.status == 200
    partial = json.loads(answer.body)["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert partial["errorMessage"]
    sink.wait_for_spans(2, id_of(trace))
    assert len(sink.wait_for_scores(2, id_of(trace))) == 2


def serve(*flags: str, folder: Path | None = None) -> tuple[int, str, str]:
    """Start a sidecar that cannot start; return its exit code and output."""
    command = [sys.executable, "-m", "otel_scorer", "serve", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, cwd=folder, check=False)
    return ended.returncode, ended.stdout, ended.stderr


FREE = ("--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--export", "http://127.0.0.1:9")


def refused(ended: tuple[int, str, str], *words: str) -> None:
    """Assert that it said what is wrong, in one message."""
    code, output, errors = ended
    assert code == 2
    assert output == ""
    assert "Traceback" not in errors
    assert errors.count("Error:") == 1
    for word in words:
        assert word in errors


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_port_in_use_is_named(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "--http" if protocol == "grpc" else "--grpc"

        ended = serve(f"--{protocol}", address, other, "127.0.0.1:0", "--export", "http://127.0.0.1:9")

    refused(ended, address, "use")


@pytest.mark.parametrize("reference", ["no_such_module:it", "nothing", "missing.py", "otel_scorer.testing:nothing"])
def test_an_unknown_scorer_is_named(reference: str, tmp_path: Path) -> None:
    refused(serve(*FREE, "--scorers", "latency", reference, folder=tmp_path), reference.partition(":")[0])


def test_a_scorer_file_with_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from otel_scorer import scorer\n\ndef broken(:\n", encoding="utf-8")

    refused(serve(*FREE, "--scorers", "mine.py", folder=tmp_path), "mine.py", "3")


def test_a_scorer_file_that_ends_the_process_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import os\nos._exit(7)\n", encoding="utf-8")

    refused(serve(*FREE, "--scorers", "mine.py", folder=tmp_path), "exit code 7")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("forwardin: hold_root\n", ("forwardin", "forwarding")),
        ("assembly: {root_grac: 2s}\n", ("root_grac", "root_grace")),
        ("assembly: {root_grace: soon}\n", ("root_grace",)),
        ("emit: [attributes]\n", ("forwarding", "hold_root")),
        ("scorers: [{use: latency, sample_rate: 2}]\n", ("sample_rate",)),
        ("scorers: [{use: latency, filter: 'trace.('}]\n", ("filter",)),
        ("a: b: c\n", ("1",)),
    ],
)
def test_a_wrong_configuration_is_explained(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text(text, encoding="utf-8")

    refused(serve("-c", str(config), *FREE), *words)


def test_a_second_sidecar_on_the_same_port_leaves_the_first_alone(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    first = start("--export", own_sink.grpc, "--scorers", "latency", "--root-grace", "0.1")

    refused(serve("--grpc", first.grpc, "--http", "127.0.0.1:0", "--export", own_sink.grpc), first.grpc)

    assert call(first, small_trace(1)) == b""
    assert own_sink.wait_for_scores(1, id_of(1))
