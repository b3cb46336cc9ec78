"""Requests of next to nothing but messages are refused before they cost much; those that say something never are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.strategies import length_delimited

from otel_scorer.errors import RequestTooLargeError, TooManyPartsError
from otel_scorer.evaluation import read_recording
from otel_scorer.model.log_records import read_logs
from otel_scorer.model.otlp_json import decode_request
from otel_scorer.model.wire import Signal, check_request, read_traces
from otel_scorer.testing import make_request, make_span
from otel_scorer.transport.responses import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MANY = 3 << 20
"""Empty messages that make a request large enough to be looked through before it is cut."""
SOME = 300_000
"""And one that is not."""
IDS = length_delimited(1, b"\x01" * 16) + length_delimited(2, b"\x02" * 8)


def resources(count: int) -> bytes:
    return b"\x0a\x00" * count


def scopes(count: int) -> bytes:
    return length_delimited(1, b"\x12\x00" * count)


def items(count: int) -> bytes:
    return length_delimited(1, length_delimited(2, b"\x12\x00" * count))


def items_that_say_nothing(count: int) -> bytes:
    return length_delimited(1, length_delimited(2, b"\x12\x02\x18\x00" * count))


def items_beside_a_good_one(count: int) -> bytes:
    return length_delimited(1, length_delimited(2, b"\x12\x00" * count + length_delimited(2, IDS)))


def a_little_of_each(count: int) -> bytes:
    return b"\x0a\x04\x12\x02\x12\x00" * count


def unknown_fields(count: int) -> bytes:
    return length_delimited(1, b"\x28\x00" * count) * 2


BOMBS = [resources, scopes, items, items_that_say_nothing, items_beside_a_good_one, a_little_of_each]


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("count", [SOME, MANY])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_request_of_empty_messages_is_too_large(bomb: Callable[[int], bytes], count: int, signal: Signal) -> None:
    data = bomb(count)

    with pytest.raises(TooManyPartsError):
        check_request(signal, data)
    if signal is Signal.TRACES:
        with pytest.raises(TooManyPartsError):
            read_traces(data)


def test_a_request_of_fields_that_nobody_knows_is_too_large() -> None:
    with pytest.raises(TooManyPartsError):
        read_traces(unknown_fields(MANY))


@pytest.mark.parametrize("size", [1, 130_000])
def test_spans_of_nothing_but_ids_are_taken_each_in_a_resource_and_a_scope_of_its_own(size: int) -> None:
    one = length_delimited(1, length_delimited(1, b"") + length_delimited(2, length_delimited(2, IDS)))

    assert len(read_traces(one * size).spans) == size
    assert check_request(Signal.TRACES, one * size) == size


def test_spans_of_nothing_but_ids_are_taken_all_in_one_scope() -> None:
    data = length_delimited(1, length_delimited(2, length_delimited(2, IDS) * SOME))

    assert len(read_traces(data).spans) == SOME
    assert check_request(Signal.TRACES, data) == SOME


@pytest.mark.parametrize("field", [9, 11, 13])
@pytest.mark.parametrize("first", [True, False])
def test_a_span_full_of_empty_messages_is_one_span(field: int, first: bool) -> None:
    inside = length_delimited(field, b"") * MANY
    data = length_delimited(1, length_delimited(2, length_delimited(2, inside + IDS if first else IDS + inside)))

    [span] = read_traces(data).spans

    assert (span.trace_id, span.kind) == (b"\x01" * 16, 0)
    assert check_request(Signal.TRACES, data) == 1


def test_a_log_record_full_of_empty_attributes_is_one_record() -> None:
    ids = length_delimited(9, b"\x01" * 16) + length_delimited(10, b"\x02" * 8)
    record = length_delimited(6, b"") * MANY + ids + length_delimited(12, b"event")
    data = length_delimited(1, length_delimited(2, length_delimited(2, record)))

    [log] = read_logs(data)

    assert (log.data, log.trace_id, log.span_id) == (record, b"\x01" * 16, b"\x02" * 8)


@pytest.mark.parametrize("cut", [1, 3, 20])
def test_what_is_cut_off_is_no_request_however_much_of_it_there_is(cut: int) -> None:
    whole = make_request(*(make_span(f"span {number}") for number in range(100)))
    data = (whole * (1 + (5 << 20) // len(whole)))[:-cut]

    with pytest.raises(Exception, match="Not an OTLP traces request"):
        read_traces(data)


def in_a_span(field: str, value: str) -> bytes:
    ids = '"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"'
    return f'{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{{{ids}, "{field}": {value}}}]}}]}}]}}'.encode()


def values(one: str, count: int) -> str:
    listed = ",".join([one] * count)
    return f'[{{"key": "k", "value": {{"arrayValue": {{"values": [{listed}]}}}}}}]'


@pytest.mark.parametrize(
    "body",
    [
        in_a_span("attributes", f"[{','.join(['{}'] * MANY)}]"),
        in_a_span("events", f"[{','.join(['{}'] * MANY)}]"),
        in_a_span("unknown", f"[{','.join(['[]'] * MANY)}]"),
        in_a_span("unknown", f"[{','.join(['[' * 50 + ']' * 50] * (MANY // 50))}]"),
        in_a_span("attributes", values("{}", MANY)),
        f'{{"resourceSpans": [{",".join(["{}"] * MANY)}]}}'.encode(),
    ],
    ids=["attributes", "events", "lists", "nested", "values", "resources"],
)
def test_json_of_empty_objects_is_too_large(body: bytes) -> None:
    with pytest.raises(TooManyPartsError):
        decode_request(Signal.TRACES, body)


@pytest.mark.parametrize("name", ["resourceSpans", "resourceLogs", "resourceMetrics"])
def test_a_smaller_request_of_empty_objects_is_too_large_once_it_is_read(name: str) -> None:
    signal = {"resourceSpans": Signal.TRACES, "resourceLogs": Signal.LOGS, "resourceMetrics": Signal.METRICS}[name]
    body = f'{{"{name}": [{",".join(["{}"] * SOME)}]}}'.encode()

    with pytest.raises(TooManyPartsError):
        check_request(signal, decode_request(signal, body).data)


@pytest.mark.parametrize(
    "one",
    [
        '{"intValue":1}',
        '{"stringValue":"{{{{[[[["}',
        json.dumps({"stringValue": 'say "{[{[{" \\'}),
        '{"stringValue":"' + "{[" * 5000 + '"}',
    ],
    ids=["short", "brackets", "quoted", "long"],
)
def test_json_of_real_values_is_taken_whatever_is_in_their_texts(one: str) -> None:
    count = MANY // len(one) + 1

    decoded = decode_request(Signal.TRACES, in_a_span("attributes", values(one, count)))

    [value] = ExportTraceServiceRequest.FromString(decoded.data).resource_spans[0].scope_spans[0].spans[0].attributes
    assert len(value.value.array_value.values) == count


def test_what_only_looks_like_a_text_hides_nothing() -> None:
    body = in_a_span("unknown", f'["\\\\", "\\"{{", {",".join(["{}"] * MANY)}, "]')

    with pytest.raises(TooManyPartsError):
        decode_request(Signal.TRACES, body)


def test_clients_are_told_that_it_is_too_large_and_the_operator_why() -> None:
    answer = refusal(TooManyPartsError("why"))

    assert (answer.http_status, answer.code, answer.retry_after) == (413, 8, None)
    assert answer.outcome == "too_many_parts"
    assert refusal(RequestTooLargeError("why")).outcome == "too_large"


def test_a_file_of_empty_messages_is_a_problem_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "bomb.pb").write_bytes(scopes(SOME))
    (tmp_path / "bomb.json").write_text(f'{{"resourceSpans": [{",".join(["{}"] * SOME)}]}}', encoding="utf-8")
    (tmp_path / "good.pb").write_bytes(make_request(make_span("a span")))

    recording = read_recording(sorted(tmp_path.iterdir()))

    assert [trace.spans[0].name for trace in recording.traces] == ["a span"]
    assert sorted({problem.file.rpartition("/")[2] for problem in recording.problems}) == ["bomb.json", "bomb.pb"]
    assert all("resources and scopes" in problem.message for problem in recording.problems)
