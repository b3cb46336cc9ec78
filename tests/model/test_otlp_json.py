from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.json_scalars import UnusableError, payload
from otel_scorer.model.otlp_json import JsonRequest, decode_object, decode_request, encode_request
from otel_scorer.model.wire import Signal
from otel_scorer.telemetry import snapshot

TRACE_ID = "5b8efff798038103d269b633813fc60c"
SPAN_ID = "eee19b7ec3c1b174"


def a_span(**fields: Any) -> dict[str, Any]:
    return {"traceId": TRACE_ID, "spanId": SPAN_ID, "name": "a span"} | fields


def a_request(*spans: object) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def spans_of(request: JsonRequest) -> list[Span]:
    resources = ExportTraceServiceRequest.FromString(request.data).resource_spans
    return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


def decode(*spans: object) -> JsonRequest:
    return decode_request(Signal.TRACES, json.dumps(a_request(*spans)).encode())


def decoded_value(value: object) -> AnyValue:
    [span] = spans_of(decode(a_span(attributes=[{"key": "k", "value": value}])))
    return span.attributes[0].value


@pytest.mark.parametrize("trace_id", [TRACE_ID, TRACE_ID.upper(), TRACE_ID.title()])
def test_ids_are_hex_of_either_case(trace_id: str) -> None:
    [span] = spans_of(decode(a_span(traceId=trace_id, parentSpanId="")))

    assert span.trace_id.hex() == TRACE_ID
    assert span.span_id.hex() == SPAN_ID
    assert span.parent_span_id == b""


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"traceId": f" {TRACE_ID}"}, id="whitespace before an id"),
        pytest.param({"traceId": "5b8efff7 98038103 d269b633 813fc60c"}, id="whitespace within an id"),
        pytest.param({"traceId": TRACE_ID[:-1]}, id="odd id"),
        pytest.param({"spanId": "0x" + SPAN_ID[2:]}, id="0x"),
        pytest.param({"traceId": base64.b64encode(bytes.fromhex(TRACE_ID)).decode()}, id="base64 id"),
        pytest.param({"traceId": 5}, id="numeric id"),
        pytest.param({"parentSpanId": "zz"}, id="parent id"),
        pytest.param({"links": [{"traceId": "x"}]}, id="id of a link"),
        pytest.param({"kind": "SPAN_KIND_SERVER"}, id="enum name"),
        pytest.param({"status": {"code": "STATUS_CODE_OK"}}, id="enum name within"),
        pytest.param({"startTimeUnixNano": -1}, id="negative time"),
        pytest.param({"startTimeUnixNano": "-1"}, id="negative time in a string"),
        pytest.param({"endTimeUnixNano": 1.5}, id="fractional time"),
        pytest.param({"endTimeUnixNano": "1.5"}, id="fractional time in a string"),
        pytest.param({"endTimeUnixNano": "1_000"}, id="underscore"),
        pytest.param({"endTimeUnixNano": " 1"}, id="whitespace"),
        pytest.param({"endTimeUnixNano": "\u0661"}, id="other digits"),
        pytest.param({"endTimeUnixNano": ""}, id="empty time"),
        pytest.param({"endTimeUnixNano": 1 << 64}, id="time over 64 bits"),
        pytest.param({"endTimeUnixNano": str(1 << 64)}, id="time over 64 bits in a string"),
        pytest.param({"endTimeUnixNano": "9" * 5000}, id="time of 5,000 digits in a string"),
        pytest.param({"endTimeUnixNano": True}, id="boolean time"),
        pytest.param({"flags": 1 << 32}, id="flags over 32 bits"),
        pytest.param({"name": 5}, id="numeric name"),
        pytest.param({"attributes": {}}, id="attributes not a list"),
        pytest.param({"attributes": ["x"]}, id="attribute not an object"),
        pytest.param({"attributes": [{"key": 5}]}, id="numeric key"),
        pytest.param({"attributes": [{"key": "k", "value": "v"}]}, id="bare value"),
        pytest.param({"attributes": [{"key": "k", "value": {"stringValue": 5}}]}, id="number as string"),
        pytest.param({"attributes": [{"key": "k", "value": {"intValue": "1.5"}}]}, id="fraction as integer"),
        pytest.param({"attributes": [{"key": "k", "value": {"intValue": 1 << 63}}]}, id="integer over 63 bits"),
        pytest.param({"attributes": [{"key": "k", "value": {"boolValue": "true"}}]}, id="string as boolean"),
        pytest.param({"attributes": [{"key": "k", "value": {"doubleValue": "x"}}]}, id="text as double"),
        pytest.param({"attributes": [{"key": "k", "value": {"doubleValue": 10**400}}]}, id="double out of range"),
        pytest.param({"attributes": [{"key": "k", "value": {"bytesValue": "?"}}]}, id="no base64"),
        pytest.param({"attributes": [{"key": "k", "value": {"arrayValue": []}}]}, id="bare array"),
        pytest.param({"status": []}, id="message not an object"),
    ],
)
def test_an_unusable_span_is_rejected_and_the_others_are_kept(fields: dict[str, Any]) -> None:
    request = decode(a_span(name="first"), a_span(**fields), a_span(name="last"))

    assert [span.name for span in spans_of(request)] == ["first", "last"]
    assert request.rejected == 1
    assert "1 item(s) rejected" in request.message


def test_a_request_without_a_usable_span_is_invalid() -> None:
    with pytest.raises(InvalidRequestError, match="kind is not an integer"):
        decode(a_span(kind="SPAN_KIND_SERVER"), a_span(kind="SPAN_KIND_CLIENT"))


def test_a_broken_resource_costs_its_own_spans_only() -> None:
    broken = {"resource": {"attributes": 5}, "scopeSpans": [{"spans": [a_span(), a_span(kind="x")]}]}
    request = decode_object(Signal.TRACES, {"resourceSpans": [broken, *a_request(a_span())["resourceSpans"]]})

    assert len(spans_of(request)) == 1
    assert request.rejected == 2


def test_unknown_fields_are_ignored_at_every_level() -> None:
    body = a_request(a_span(extra={"x": [1]}, status={"extra": 1}, attributes=[{"key": "k", "extra": 1}]))
    body["extra"] = body["resourceSpans"][0]["extra"] = body["resourceSpans"][0]["scopeSpans"][0]["extra"] = "x"

    [span] = spans_of(decode_object(Signal.TRACES, body))

    assert span.attributes[0].key == "k"


def test_an_unknown_enum_number_is_preserved() -> None:
    [span] = spans_of(decode(a_span(kind=99, status={"code": 77})))

    assert (span.kind, span.status.code) == (99, 77)


@pytest.mark.parametrize("number", [9007199254740993, "9007199254740993"])
def test_64_bit_integers_are_exact_as_number_and_as_string(number: int | str) -> None:
    [span] = spans_of(decode(a_span(startTimeUnixNano=number)))

    assert span.start_time_unix_nano == 9007199254740993
    assert decoded_value({"intValue": number}).int_value == 9007199254740993
    assert decoded_value({"intValue": str(-(1 << 63))}).int_value == -(1 << 63)


@pytest.mark.parametrize("written", ["1e3", "1E3", "1e+3", "1000.0", "1.0e3", "10000e-1", "1000", 1000, 1000.0])
def test_an_integer_may_be_written_in_any_way_that_json_writes_numbers(written: str | float) -> None:
    request = decode(a_span(endTimeUnixNano=written, kind=written, flags=written, droppedEventsCount=written))

    [span] = spans_of(request)
    assert (span.end_time_unix_nano, span.kind, span.flags, span.dropped_events_count) == (1000, 1000, 1000, 1000)
    assert decoded_value({"intValue": written}).int_value == 1000


@pytest.mark.parametrize(
    ("written", "number"),
    [("-1.2e1", -12), ("9007199254740993.0", 9007199254740993), ("-9223372036854775808e0", -(1 << 63)), ("0e999", 0)],
)
def test_however_an_integer_is_written_it_is_exact(written: str, number: int) -> None:
    assert decoded_value({"intValue": written}).int_value == number


@pytest.mark.parametrize(
    "written",
    [
        *("1e-3", "1.5e0", "1e19", "1e999999999", "1e99999999999999999999", "1e-99999999999999999999", "1e", "e3"),
        *(".5e1", "+1e3", "0x1e3", "1e3 ", "1e3_0", "Infinity", "NaN", "1e\u0663", "9223372036854775808.0"),
        *("1." + "0" * 5000, 1e300),
    ],
)
def test_what_is_no_integer_in_range_is_refused_however_it_is_written(written: str | float) -> None:
    with pytest.raises(InvalidRequestError, match=r"intValue is (not an integer|out of range)"):
        decode(a_span(attributes=[{"key": "k", "value": {"intValue": written}}]))


@pytest.mark.parametrize("number", [0, 10**19 - 1, 10**19, (1 << 64) - 1])
def test_times_of_any_64_bits_are_exact(number: int) -> None:
    [span] = spans_of(decode(a_span(startTimeUnixNano=number, endTimeUnixNano=str(number))))

    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (number, number)


def test_snake_case_keys_are_accepted_and_counted() -> None:
    before = snapshot().get("json.snake_case_keys", 0)

    request = decode_object(
        Signal.TRACES,
        {"resource_spans": [{"scope_spans": [{"spans": [
            {"trace_id": TRACE_ID, "span_id": SPAN_ID, "start_time_unix_nano": "5",
             "attributes": [{"key": "k", "value": {"array_value": {"values": [{"string_value": "v"}]}}}]}
        ]}]}]},
    )  # fmt: skip

    [span] = spans_of(request)
    assert span.trace_id.hex() == TRACE_ID
    assert span.start_time_unix_nano == 5
    assert span.attributes[0].value.array_value.values[0].string_value == "v"
    assert snapshot()["json.snake_case_keys"] - before == 7


def test_null_means_not_set() -> None:
    [span] = spans_of(decode(a_span(attributes=None, kind=None, events=None, status=None, name=None)))

    assert span == Span(trace_id=bytes.fromhex(TRACE_ID), span_id=bytes.fromhex(SPAN_ID))
    assert spans_of(decode_object(Signal.TRACES, {"resourceSpans": None})) == []
    assert decoded_value(None) == AnyValue()
    assert decoded_value({"stringValue": None}) == AnyValue()
    assert len(decoded_value({"arrayValue": {"values": [None, {"intValue": 1}]}}).array_value.values) == 2


def test_an_empty_any_value_is_kept_apart_from_a_missing_one() -> None:
    [span] = spans_of(decode(a_span(attributes=[{"key": "empty", "value": {}}, {"key": "missing"}])))

    assert [pair.HasField("value") for pair in span.attributes] == [True, False]
    assert decoded_value({}).WhichOneof("value") is None


@pytest.mark.parametrize("zero", [{"stringValue": ""}, {"intValue": "0"}, {"boolValue": False}, {"doubleValue": 0}])
def test_a_value_that_is_zero_is_kept(zero: dict[str, object]) -> None:
    [name] = zero

    assert decoded_value(zero).WhichOneof("value") == name.replace("Value", "_value")


@pytest.mark.parametrize("text", ["aGk/PiA+", "aGk_PiA-", "aGk="])
def test_bytes_are_base64_of_either_alphabet(text: str) -> None:
    assert decoded_value({"bytesValue": text}).bytes_value.startswith(b"hi")
    assert decoded_value({"bytesValue": text.rstrip("=")}) == decoded_value({"bytesValue": text})


def test_doubles_come_as_numbers_and_as_strings() -> None:
    assert decoded_value({"doubleValue": 5}).double_value == 5.0
    assert decoded_value({"doubleValue": "-Infinity"}).double_value == -math.inf
    assert math.isnan(decoded_value({"doubleValue": "NaN"}).double_value)


def test_the_last_of_duplicate_keys_and_of_several_members_counts() -> None:
    body = json.dumps(a_request(a_span())).replace('"name": "a span"', '"name": "a", "name": "b"')

    [span] = spans_of(decode_request(Signal.TRACES, body.encode()))

    assert span.name == "b"
    assert decoded_value({"stringValue": "x", "intValue": 1}).int_value == 1


def test_lone_surrogates_become_replacement_characters_and_pairs_stay() -> None:
    body = json.dumps(a_request(a_span(name="NAME", attributes=[{"key": "KEY", "value": {"stringValue": "VALUE"}}])))
    body = body.replace("NAME", r"a\ud800b").replace("KEY", r"\udc00").replace("VALUE", r"\ud83d\ude00\ud83d")

    [span] = spans_of(decode_request(Signal.TRACES, body.encode()))

    assert span.name == "a\ufffdb"
    assert span.attributes[0].key == "\ufffd"
    assert span.attributes[0].value.string_value == "\N{GRINNING FACE}\ufffd"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 100_000, id="100,000 brackets"),
        pytest.param(b'{"a":' * 100_000, id="100,000 braces"),
        pytest.param(b'{"resourceSpans": ' + b"1" * 5000 + b"}", id="integer of 5,000 digits"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
        pytest.param("{}".encode("utf-16-le"), id="UTF-16 without mark"),
        pytest.param(b'{"a": "\xff"}', id="no UTF-8"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"null", id="null"),
        pytest.param(b"5", id="number"),
        pytest.param(b"{} {}", id="two objects"),
        pytest.param(b'{"resourceSpans": 5}', id="root not a list"),
        pytest.param(b'{"resourceSpans": [5]}', id="resource not an object"),
        pytest.param(b'{"resourceLogs": [{}]}', id="logs"),
    ],
)
def test_a_body_that_is_no_traces_request_is_invalid(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        decode_request(Signal.TRACES, body)


def test_a_byte_order_mark_is_ignored_and_an_empty_request_is_fine() -> None:
    assert decode_request(Signal.TRACES, b"\xef\xbb\xbf{}") == JsonRequest(b"")
    assert decode_request(Signal.TRACES, b'{"resourceSpans": []}') == JsonRequest(b"")


@pytest.mark.parametrize("key", ["arrayValue", "kvlistValue"])
def test_what_is_accepted_is_nested_no_deeper_than_protobuf_can_read(key: str) -> None:
    accepted = 0
    for depth in range(70):
        value: dict[str, Any] = {"stringValue": "x"}
        for _ in range(depth):
            value = {key: {"values": [value if key == "arrayValue" else {"key": "k", "value": value}]}}
        request = decode(a_span(), a_span(events=[{"attributes": [{"key": "k", "value": value}]}]))
        spans_of(request)  # raises if it is nested too deeply
        accepted += not request.rejected

    assert 25 < accepted < 60


def test_metrics_are_rejected_by_data_point() -> None:
    points = [{"asInt": "5", "timeUnixNano": "1"}, {"asInt": 1.5}, {"asDouble": 1.5}]
    histogram = {"bucketCounts": ["1", 2], "explicitBounds": [0.5], "count": "3", "sum": 1, "min": 0}
    body = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "a", "gauge": {"dataPoints": points}},
        {"name": "b", "histogram": {"aggregationTemporality": 2, "dataPoints": [histogram]}},
        {"name": 5, "sum": {"dataPoints": [{}, {}]}},
    ]}]}]}  # fmt: skip

    request = decode_object(Signal.METRICS, body)

    metrics = ExportMetricsServiceRequest.FromString(request.data).resource_metrics[0].scope_metrics[0].metrics
    assert [point.as_int or point.as_double for point in metrics[0].gauge.data_points] == [5, 1.5]
    assert list(metrics[1].histogram.data_points[0].bucket_counts) == [1, 2]
    assert metrics[1].histogram.data_points[0].HasField("min")
    assert request.rejected == 3


def test_every_kind_of_metric_survives_the_way_to_json_and_back() -> None:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add(schema_url="r").scope_metrics.add(schema_url="s").metrics
    point = metrics.add(name="sum", unit="1", description="d").sum.data_points.add(as_int=-(1 << 63), flags=1)
    point.exemplars.add(trace_id=bytes(range(16)), span_id=bytes(range(8)), as_double=0.5, time_unix_nano=5)
    metrics.add(name="gauge").gauge.data_points.add(as_double=0.0, start_time_unix_nano=1, time_unix_nano=(1 << 64) - 1)
    metrics.add(name="histogram").histogram.data_points.add(
        count=3, sum=0.0, bucket_counts=[0, 1, 1 << 63], explicit_bounds=[-1.5, math.inf], min=-0.0, max=9
    )
    exponential = metrics.add(name="exponential").exponential_histogram.data_points.add(
        scale=-5, zero_count=1, zero_threshold=0.1
    )
    exponential.positive.offset = -3
    exponential.positive.bucket_counts.extend([1, 2, 1 << 60])
    exponential.negative.SetInParent()
    summary = metrics.add(name="summary").summary.data_points.add(count=1, sum=2.5)
    summary.quantile_values.add(quantile=0.5, value=-1)
    metrics[-1].metadata.add(key="k").value.kvlist_value.values.add(key="v").value.int_value = 7
    request.resource_metrics[0].resource.entity_refs.add(type="service", id_keys=["a", ""])

    line = encode_request(Signal.METRICS, request.SerializeToString())
    back = decode_request(Signal.METRICS, line.encode())

    assert ExportMetricsServiceRequest.FromString(back.data) == request
    assert back.rejected == 0


def test_logs_are_rejected_by_record() -> None:
    records = [{"body": {"stringValue": "x"}, "severityNumber": 9, "traceId": TRACE_ID}, {"traceId": "?"}]

    request = decode_object(Signal.LOGS, {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})

    [record] = ExportLogsServiceRequest.FromString(request.data).resource_logs[0].scope_logs[0].log_records
    assert (record.body.string_value, record.severity_number, record.trace_id.hex()) == ("x", 9, TRACE_ID)
    assert request.rejected == 1


def test_a_line_of_json_has_hex_ids_string_integers_and_numeric_enums() -> None:
    span = Span(
        trace_id=bytes.fromhex(TRACE_ID),
        span_id=bytes.fromhex(SPAN_ID),
        name="two\nlines \u2028 \N{GRINNING FACE}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=1 << 63,
        flags=257,
    )
    for value in (
        AnyValue(bytes_value=b"\xff"),
        AnyValue(double_value=math.nan),
        AnyValue(int_value=-5),
        AnyValue(string_value=""),
        AnyValue(),
    ):
        span.attributes.add(key="k", value=value)
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.append(span)

    line = encode_request(Signal.TRACES, request.SerializeToString())

    assert line.splitlines() == [line]
    assert json.loads(line) == a_request(
        {
            "traceId": TRACE_ID,
            "spanId": SPAN_ID,
            "name": "two\nlines \u2028 \N{GRINNING FACE}",
            "kind": 2,
            "startTimeUnixNano": str(1 << 63),
            "flags": 257,
            "attributes": [
                {"key": "k", "value": value}
                for value in (
                    {"bytesValue": "/w=="},
                    {"doubleValue": "NaN"},
                    {"intValue": "-5"},
                    {"stringValue": ""},
                    {},
                )
            ],
        }
    )


def test_bytes_that_are_no_request_cannot_be_encoded() -> None:
    with pytest.raises(InvalidRequestError):
        encode_request(Signal.TRACES, b"\xff\xff\xff")


texts = st.text(max_size=20)
scalars = st.one_of(
    st.just(AnyValue()),
    texts.map(lambda text: AnyValue(string_value=text)),
    st.booleans().map(lambda value: AnyValue(bool_value=value)),
    st.integers(-(1 << 63), (1 << 63) - 1).map(lambda value: AnyValue(int_value=value)),
    st.floats(allow_nan=False).map(lambda value: AnyValue(double_value=value)),
    st.binary(max_size=20).map(lambda value: AnyValue(bytes_value=value)),
)


def array_of(values: list[AnyValue]) -> AnyValue:
    value = AnyValue()
    value.array_value.values.extend(values)
    return value


def kvlist_of(values: dict[str, AnyValue]) -> AnyValue:
    value = AnyValue()
    value.kvlist_value.SetInParent()
    for key, item in values.items():
        value.kvlist_value.values.add(key=key, value=item)
    return value


values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(array_of) | st.dictionaries(texts, inner, max_size=3).map(kvlist_of),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        resource = request.resource_spans.add(schema_url=draw(texts))
        resource.resource.attributes.add(key=draw(texts), value=draw(values))
        scope = resource.scope_spans.add()
        scope.scope.name = draw(texts)
        for _ in range(draw(st.integers(0, 3))):
            span = scope.spans.add(
                trace_id=draw(st.binary(min_size=16, max_size=16)),
                span_id=draw(st.binary(min_size=8, max_size=8)),
                name=draw(texts),
                kind=draw(st.integers(0, 5)),
                start_time_unix_nano=draw(st.integers(0, (1 << 64) - 1)),
                dropped_events_count=draw(st.integers(0, (1 << 32) - 1)),
            )
            for key, value in draw(st.dictionaries(texts, values, max_size=3)).items():
                span.attributes.add(key=key, value=value)
            span.events.add(name=draw(texts)).attributes.add(key=draw(texts), value=draw(values))
    return request


@given(requests())
def test_a_request_survives_the_way_to_json_and_back(request: ExportTraceServiceRequest) -> None:
    line = encode_request(Signal.TRACES, request.SerializeToString())

    back = decode_request(Signal.TRACES, line.encode())

    assert ExportTraceServiceRequest.FromString(back.data) == request
    assert encode_request(Signal.TRACES, back.data) == line


@given(requests())
def test_the_json_differs_from_protobufs_own_in_ids_and_enums_only(request: ExportTraceServiceRequest) -> None:
    ours = json.loads(encode_request(Signal.TRACES, request.SerializeToString()))

    theirs = json_format.MessageToDict(request, use_integers_for_enums=True)

    for resource in theirs.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                for key in ("traceId", "spanId"):
                    span[key] = base64.b64decode(span[key]).hex()
    assert ours == theirs


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resourceSpans", "scopeSpans", "spans", "traceId", "attributes", "key", "value", "kind",
                             "stringValue", "intValue", "arrayValue", "values", "resource", "status"]),
            inner, max_size=4)
    ),
    max_leaves=15,
)  # fmt: skip


@given(json_values)
def test_any_json_is_decoded_or_refused(value: object) -> None:
    try:
        request = decode_request(Signal.TRACES, json.dumps({"resourceSpans": value}).encode())
    except InvalidRequestError:
        return

    spans_of(request)


def scalar_fields(message: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        if field.message_type is None:
            yield field
        else:
            yield from scalar_fields(field.message_type, seen)


# One for each way to encode.
SCALARS = {
    payload(field): field
    for message in (ExportTraceServiceRequest, ExportLogsServiceRequest, ExportMetricsServiceRequest)
    for field in scalar_fields(message.DESCRIPTOR, set())
}


@pytest.mark.parametrize("field", SCALARS.values(), ids=lambda field: field.full_name)
@given(
    value=st.sampled_from([0, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**400]).flatmap(
        lambda bound: st.sampled_from([bound, bound - 1, -bound, -bound - 1, str(bound), str(bound - 1), str(-bound)])
    )
    | st.text()
    | json_values
)
def test_any_value_of_any_field_is_encoded_or_refused(field: FieldDescriptor, value: Any) -> None:
    _, encode = payload(field)

    with suppress(UnusableError):
        assert isinstance(encode(value, field.name), bytes)
