"""Every form in which OTLP is found in files, whole and damaged."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import ConfigError
from otel_scorer.model.otlp_json import encode_request
from otel_scorer.model.wire import Signal, count_items, read_traces
from otel_scorer.stores.json_texts import salvage
from otel_scorer.stores.otlp_files import OtlpFile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
CAPTURE = CAPTURES / "official_genai_openai.json"


def read(path: Path) -> tuple[list[tuple[Signal, bytes]], OtlpFile]:
    file = OtlpFile(path)
    return list(file.requests()), file


def spans_in(requests: list[tuple[Signal, bytes]]) -> set[bytes]:
    return {span.span_id for signal, data in requests if signal is Signal.TRACES for span in read_traces(data).spans}


@pytest.fixture(scope="module")
def captured() -> list[tuple[Signal, bytes]]:
    requests, file = read(CAPTURE)
    assert not file.problems
    return requests


def lines(requests: list[tuple[Signal, bytes]]) -> bytes:
    return "".join(encode_request(signal, data) + "\n" for signal, data in requests).encode()


def objects(requests: list[tuple[Signal, bytes]]) -> list[Any]:
    return [json.loads(line) for line in lines(requests).splitlines()]


def varint(size: int) -> bytes:
    out = b""
    while size > 0x7F:
        out, size = out + bytes((size & 0x7F | 0x80,)), size >> 7
    return out + bytes((size,))


FORMS: dict[str, Callable[[list[tuple[Signal, bytes]]], bytes]] = {
    "json lines": lines,
    "json lines without a last line break": lambda requests: lines(requests).rstrip(),
    "json lines with empty lines and CRLF": lambda requests: b"\r\n\r\n" + lines(requests).replace(b"\n", b"\r\n\r\n"),
    "json lines behind a byte order mark": lambda requests: b"\xef\xbb\xbf" + lines(requests),
    "an array": lambda requests: json.dumps(objects(requests)).encode(),
    "a pretty array": lambda requests: json.dumps(objects(requests), indent=2).encode(),
    "pretty objects in a row": lambda requests: "\n".join(json.dumps(o, indent=2) for o in objects(requests)).encode(),
    "one object with all signals": lambda requests: json.dumps(
        {key: value for obj in objects(requests) for key, value in obj.items()}, indent=1
    ).encode(),
    "protobuf behind lengths (Collector)": lambda requests: b"".join(
        len(data).to_bytes(4, "big") + data for _, data in requests
    ),
    "protobuf behind varints": lambda requests: b"".join(varint(len(data)) + data for _, data in requests),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip in two members": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("compress", COMPRESSIONS.values(), ids=COMPRESSIONS)
@pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_requests(
    write: Callable[[list[tuple[Signal, bytes]]], bytes],
    compress: Callable[[bytes], bytes],
    captured: list[tuple[Signal, bytes]],
    tmp_path: Path,
) -> None:
    path = tmp_path / "whatever"
    path.write_bytes(compress(write(captured)))

    requests, file = read(path)

    assert file.problems == []
    assert [(signal, count_items(signal, data)) for signal, data in requests] == [
        (signal, count_items(signal, data)) for signal, data in captured
    ]
    assert spans_in(requests) == spans_in(captured)


@pytest.mark.parametrize("signal", [Signal.TRACES, Signal.LOGS])
def test_a_protobuf_request_is_recognised_by_what_is_in_it(
    signal: Signal, captured: list[tuple[Signal, bytes]], tmp_path: Path
) -> None:
    [data] = [data for found, data in captured if found is signal]
    path = tmp_path / "request.bin"
    path.write_bytes(data)

    requests, file = read(path)

    assert requests == [(signal, data)]
    assert file.problems == []


def test_standard_input_is_read(captured: list[tuple[Signal, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(lines(captured)))))

    requests, file = read(Path("-"))

    assert spans_in(requests) == spans_in(captured)
    assert file.problems == []


def test_what_is_no_otlp_in_a_capture_is_not_meant_to_be_read() -> None:
    requests, file = read(CAPTURES / "langfuse.json")

    assert [signal for signal, _ in requests] == [Signal.TRACES]
    assert file.problems == []


def test_a_bad_line_costs_that_line_only(captured: list[tuple[Signal, bytes]], tmp_path: Path) -> None:
    good = lines(captured).splitlines(keepends=True)
    bad = b'{"resourceSpans": [oops]}\n'
    path = tmp_path / "traces.jsonl"
    path.write_bytes(bad + good[0] + b"[]\n" + bad + b'{"some": "thing"}\n' + good[1] + good[1][:-40])

    requests, file = read(path)

    assert spans_in(requests) == spans_in(captured)
    assert [(problem.line, problem.offset) for problem in file.problems] == [
        (1, 0),
        (4, len(bad) + len(good[0]) + 3),
        (5, 2 * len(bad) + len(good[0]) + 3),
        (7, path.stat().st_size - len(good[1]) + 40),
    ]
    assert "not JSON" in str(file.problems[0])
    assert "not OTLP" in file.problems[2].message


def test_a_span_that_cannot_be_meant_is_reported_and_the_others_are_read(
    captured: list[tuple[Signal, bytes]], tmp_path: Path
) -> None:
    request = objects(captured)[0]
    spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans[0]["traceId"] = "nonsense"
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps(request), encoding="utf-8")

    requests, file = read(path)

    assert len(spans_in(requests)) == len(spans_in(captured)) - 1
    [problem] = file.problems
    assert "1 item(s) rejected" in problem.message


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_of_a_pretty_file_that_is_cut_off_the_whole_spans_are_read(share: float, tmp_path: Path) -> None:
    whole = CAPTURE.read_bytes()
    path = tmp_path / "cut.json"
    path.write_bytes(whole[: int(len(whole) * share)])
    all_spans = spans_in(read(CAPTURE)[0])

    requests, file = read(path)

    [problem] = file.problems
    assert problem.offset is not None
    assert problem.offset <= path.stat().st_size
    assert problem.line is not None
    assert spans_in(requests) < all_spans if share < 0.5 else spans_in(requests) <= all_spans
    assert spans_in(requests)


@given(st.data())
def test_what_is_salvaged_was_there(data: st.DataObject) -> None:
    spans = [
        {"spanId": "0" * 15 + str(i), "name": '"}]{[', "attributes": [{"key": "a"}, {"key": "b"}]} for i in range(5)
    ]
    text = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans[:2]}, {"spans": spans[2:]}]}]})
    end = data.draw(st.integers(0, len(text)))

    found = salvage(text[:end])

    got = [
        span
        for resource in (found or {}).get("resourceSpans", [])
        for scope in resource.get("scopeSpans", [])
        for span in scope.get("spans", [])
    ]
    complete = [span for span in spans if json.dumps(span) in text[:end]]
    assert got == complete


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_of_a_compressed_file_that_is_cut_off_the_whole_lines_are_read(
    compress: Callable[[bytes], bytes], captured: list[tuple[Signal, bytes]], tmp_path: Path
) -> None:
    # What compresses badly, so that the cut falls behind the first line.
    data = lines(captured[:1]) + random.Random(1).randbytes(400_000).hex().encode()
    path = tmp_path / "cut"
    path.write_bytes(compress(data)[:-2000])

    requests, file = read(path)

    assert spans_in(requests) == spans_in(captured[:1])
    assert any("the compressed data is cut off" in problem.message for problem in file.problems)


@pytest.mark.parametrize("form", ["protobuf behind lengths (Collector)", "protobuf behind varints"])
@pytest.mark.parametrize("lost", [1, 20, -1])
def test_of_requests_behind_lengths_that_are_cut_off_the_whole_ones_are_read(
    form: str, lost: int, captured: list[tuple[Signal, bytes]], tmp_path: Path
) -> None:
    requests = [*captured, *captured]
    data, last = FORMS[form](requests), FORMS[form](requests[-1:])
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: lost if lost < 0 else len(data) - len(last) + lost])

    found, file = read(path)

    assert found == [(signal, data) for signal, data in requests[:-1] if signal is not Signal.METRICS]
    [problem] = file.problems
    assert problem.message == "the last request is cut off"
    assert problem.offset is not None
    assert len(data) - len(last) < problem.offset <= len(data)


def test_a_damaged_request_behind_a_length_costs_no_other(captured: list[tuple[Signal, bytes]], tmp_path: Path) -> None:
    good = next(data for signal, data in captured if signal is Signal.TRACES)
    path = tmp_path / "damaged.bin"
    path.write_bytes(b"".join(len(data).to_bytes(4, "big") + data for data in (good, b"\xff" * 50, good)))

    found, file = read(path)

    assert [data for _, data in found] == [good, good]
    assert [str(problem) for problem in file.problems] == [f"{path} (byte {len(good) + 8}): not an OTLP request"]


@pytest.mark.parametrize("data", [b"\x00\x00\x00\x05ab", b"\x00\xff\xff\xffabc", b"\xfe\x01", b"\xff" * 30])
def test_what_begins_with_no_length_is_reported_as_a_whole(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "whatever.bin"
    path.write_bytes(data)

    found, file = read(path)

    assert found == []
    assert [problem.offset for problem in file.problems] == [0]


def test_of_a_protobuf_file_that_is_cut_off_the_whole_resources_are_read(
    captured: list[tuple[Signal, bytes]], tmp_path: Path
) -> None:
    [data] = [data for signal, data in captured if signal is Signal.TRACES]
    path = tmp_path / "cut.bin"
    path.write_bytes(data + data[:-10])

    requests, file = read(path)

    assert spans_in(requests) == spans_in(captured)
    [problem] = file.problems
    assert problem.offset == len(data)


@pytest.mark.parametrize(
    "garbage", [b"hello", b"\x00\x01\x02", b"\xff" * 100, b"{", b"[1, 2]", b'"text"', b"{" * 100_000, b"9" * 5000]
)
def test_garbage_is_reported_and_nothing_else_happens(garbage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(garbage)

    requests, file = read(path)

    assert requests == []
    assert file.problem_count >= 1
    assert file.problems[0].offset is not None


@pytest.mark.parametrize("nothing", [b"", b"\n", b"{}", b"[]", b'{"resourceSpans": []}', b'{"requests": []}'])
def test_nothing_is_no_problem(nothing: bytes, tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    path.write_bytes(nothing)

    requests, file = read(path)

    assert spans_in(requests) == set()
    assert file.problems == []


@given(st.binary(max_size=300))
def test_no_bytes_can_break_reading(data: bytes) -> None:
    file = OtlpFile("-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

        list(file.requests())

    assert len(file.problems) <= 100


def test_many_problems_are_counted_and_the_first_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"resourceSpans": []}\n' + "oops\n" * 250, encoding="utf-8")

    _, file = read(path)

    assert file.problem_count == 250
    assert len(file.problems) == 100


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="Is a directory"):
        read(tmp_path)
