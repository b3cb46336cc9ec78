"""Requests are sliced and spliced without changing a byte of a span, however they were written."""

from __future__ import annotations

import gc
import math
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import assume, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.strategies import ATTRIBUTES, UNKNOWN_FIELDS, length_delimited, pieces_of, requests, span_messages

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model import encoding
from otel_scorer.model.encoding import key_value
from otel_scorer.model.splicing import enrich_span, join_encoded, join_spans, split_request
from otel_scorer.model.wire import ScopeRef, Signal, check_request, count_items, read_traces
from otel_scorer.testing import make_raw, make_request, make_span, read_spans

if TYPE_CHECKING:
    from tests.strategies import WrittenRequest

UNKNOWN = b"\xc2\x3e\x03new"


def placed(request: ExportTraceServiceRequest) -> list[tuple[bytes, ...]]:
    """Every span with what it was sent under, in an order that does not depend on how they were grouped."""
    return sorted(
        (
            span.SerializeToString(deterministic=True),
            resource_spans.resource.SerializeToString(deterministic=True),
            resource_spans.schema_url.encode(),
            scope_spans.scope.SerializeToString(deterministic=True),
            scope_spans.schema_url.encode(),
        )
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    )


def parsed(data: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(data)


@given(requests())
def test_a_request_cut_into_spans_and_joined_again_says_the_same(written: WrittenRequest) -> None:
    joined = join_spans(read_traces(written.data).spans)

    assert placed(parsed(joined)) == placed(parsed(written.data))


@given(requests())
def test_every_span_comes_out_with_the_bytes_it_went_in_with(written: WrittenRequest) -> None:
    spans = read_traces(written.data).spans

    assert [span.data for span in spans] == [span.data for span in written.spans]


@given(requests())
def test_joining_twice_changes_nothing(written: WrittenRequest) -> None:
    once = join_spans(read_traces(written.data).spans)

    assert join_spans(read_traces(once).spans) == once


@given(requests())
def test_a_slice_knows_what_the_message_says(written: WrittenRequest) -> None:
    for span, sent in zip(read_traces(written.data).spans, written.spans, strict=True):
        message = SpanMessage.FromString(sent.data)
        parent_id = message.parent_span_id if any(message.parent_span_id) else None
        assert (span.trace_id, span.span_id, span.parent_id) == (message.trace_id, message.span_id, parent_id)
        assert (span.kind, span.is_local_root) == (message.kind, message.flags & 0x300 == 0x300)


@given(requests())
def test_the_number_of_items_is_the_number_of_spans(written: WrittenRequest) -> None:
    assert count_items(Signal.TRACES, written.data) == len(written.spans)
    assert check_request(Signal.TRACES, written.data) == len(written.spans)


@given(requests(), requests())
def test_two_encoded_requests_in_a_row_are_one_request(first: WrittenRequest, second: WrittenRequest) -> None:
    spans = read_traces(first.data + second.data).spans

    assert [span.data for span in spans] == [span.data for span in [*first.spans, *second.spans]]


def test_unknown_fields_survive_at_every_level() -> None:
    span = make_span().SerializeToString() + UNKNOWN
    scope = length_delimited(1, length_delimited(1, b"scope") + UNKNOWN) + UNKNOWN
    resource = length_delimited(1, UNKNOWN) + UNKNOWN
    data = length_delimited(1, resource + length_delimited(2, scope + length_delimited(2, span)))

    assert join_spans(read_traces(data).spans) == data


def test_a_resource_that_comes_in_two_parts_is_sent_on_in_two_parts() -> None:
    parts = [length_delimited(1, length_delimited(1, key_value(key, "v"))) for key in ("a", "b")]
    scope_spans = length_delimited(2, length_delimited(2, make_span().SerializeToString()))
    data = length_delimited(1, parts[0] + scope_spans + parts[1])

    [span] = read_traces(data).spans

    assert span.scope.resource == parts[0] + parts[1]
    assert [pair.key for pair in parsed(join_spans([span])).resource_spans[0].resource.attributes] == ["a", "b"]


def test_of_an_id_that_comes_twice_in_a_span_the_last_one_counts() -> None:
    data = make_span(trace=1, span=1).SerializeToString() + make_span(trace=2, span=3, parent=4).SerializeToString()

    [span] = read_traces(length_delimited(1, length_delimited(2, length_delimited(2, data)))).spans

    assert span.data == data
    assert (span.trace_id[-1], span.span_id[-1], span.parent_id) == (2, 3, (4).to_bytes(8, "big"))


@pytest.mark.parametrize("extra", [b"\x1a\x02a=", b"\x22\x08pppppppp", b"\x12\x08other id", b"\x0a\x10" + b"t" * 16])
@pytest.mark.parametrize("first", [True, False])
def test_ids_in_unusual_places_are_those_that_protobuf_reads(extra: bytes, first: bool) -> None:
    start = length_delimited(1, b"T" * 16) + length_delimited(2, b"S" * 8)
    data = start + extra + length_delimited(4, b"P" * 8) if first else start + length_delimited(4, b"P" * 8) + extra
    usual = [make_span("root", span=1), make_span("child", span=2, parent=1, remote_parent=True)]
    pieces = (usual[0].SerializeToString(), data, usual[1].SerializeToString())
    scope = b"".join(length_delimited(2, each) for each in pieces)

    spans = read_traces(length_delimited(1, length_delimited(2, scope))).spans

    for span, message in zip(spans, (usual[0], SpanMessage.FromString(data), usual[1]), strict=True):
        assert (span.trace_id, span.span_id) == (message.trace_id, message.span_id)
        assert span.parent_id == (message.parent_span_id or None)
        assert span.is_local_root == (message.flags & 0x300 == 0x300)


@pytest.mark.parametrize("flags", [b"\x82\x01\x04\x01\x03\x00\x00", b"\x82\x01\x03\x01\x03\x00"])
def test_flags_in_the_form_of_a_list_are_a_field_that_nobody_knows(flags: bytes) -> None:
    data = make_span("work").SerializeToString() + flags
    request = length_delimited(1, length_delimited(2, length_delimited(2, data)))

    assert check_request(Signal.TRACES, request) == 1
    [span] = read_traces(request).spans

    assert span.is_local_root is (SpanMessage.FromString(data).flags & 0x300 == 0x300)
    assert span.data == data


def test_schema_urls_stay_with_their_spans() -> None:
    data = make_request(make_span(span=1), schema_url="https://one") + make_request(
        make_span(span=2), schema_url="https://two"
    )

    joined = parsed(join_spans(reversed(read_traces(data).spans)))

    assert [(resource.schema_url, resource.scope_spans[0].schema_url) for resource in joined.resource_spans] == [
        ("https://two", "https://two"),
        ("https://one", "https://one"),
    ]


def test_spans_of_one_scope_share_one_reference_and_it_goes_with_the_last_of_them() -> None:
    data = make_request(make_span(span=1), service="only here")

    [first], [second] = read_traces(data).spans, read_traces(data).spans

    assert first.scope is second.scope
    scope = weakref.ref(first.scope)
    del first
    gc.collect()
    assert scope() is not None
    del second
    gc.collect()
    assert scope() is None


@pytest.mark.parametrize("parent", [b"", bytes(8)], ids=["absent", "all zero"])
def test_a_span_without_a_parent_id_is_a_root(parent: bytes) -> None:
    message = make_span()
    message.parent_span_id = parent

    [span] = make_raw(message)

    assert span.parent_id is None


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("trace_id", b"", "trace_id has 0 bytes instead of 16"),
        ("trace_id", b"1" * 15, "trace_id has 15 bytes instead of 16"),
        ("trace_id", bytes(16), "trace_id is all zero"),
        ("span_id", b"1" * 16, "span_id has 16 bytes instead of 8"),
        ("span_id", bytes(8), "span_id is all zero"),
        ("parent_span_id", b"1" * 7, "parent_span_id has 7 bytes instead of 8"),
    ],
)
def test_a_span_with_an_invalid_id_is_left_out_and_the_others_are_not(field: str, value: bytes, reason: str) -> None:
    bad = make_span("bad", span=2)
    setattr(bad, field, value)
    data = make_request(make_span("good", span=1), bad, make_span("good", span=3))

    request = read_traces(data)

    assert [read_spans(join_spans([span]))[0].name for span in request.spans] == ["good", "good"]
    assert request.rejected == 1
    assert request.message == f"1 span(s) rejected, the last because its {reason}"
    with pytest.raises(InvalidRequestError, match=reason):
        check_request(Signal.TRACES, data)


def test_a_request_without_one_usable_span_is_refused() -> None:
    bad = make_span()
    bad.trace_id = b"short"

    with pytest.raises(InvalidRequestError, match="trace_id has 5 bytes instead of 16"):
        read_traces(make_request(bad))


@pytest.mark.parametrize("data", [b"", make_request()], ids=["no bytes", "no spans"])
def test_an_empty_request_is_fine(data: bytes) -> None:
    request = read_traces(data)

    assert (request.spans, request.rejected, request.message) == ([], 0, "")
    assert check_request(Signal.TRACES, data) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"not protobuf",
        make_request(make_span())[:-1],
        length_delimited(1, length_delimited(2, length_delimited(2, b"\x2a\x02\xff\xfe"))),
        b"\x0a\xff\xff\xff\xff\x0f",
    ],
    ids=["text", "cut off", "name is no UTF-8", "length beyond the end"],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="Not an OTLP traces request"):
        read_traces(data)
    with pytest.raises(InvalidRequestError, match="Not an OTLP traces request"):
        check_request(Signal.TRACES, data)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_being_refused(data: bytes) -> None:
    try:
        spans = read_traces(data).spans
    except InvalidRequestError:
        return
    assert len(read_spans(join_spans(spans))) == len(spans)


@given(requests(), st.data())
def test_checking_refuses_what_the_message_type_refuses_and_nothing_else(
    written: WrittenRequest, draw: st.DataObject
) -> None:
    assume(written.data)
    damaged = bytearray(written.data)
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    data = bytes(damaged)
    try:
        usable = not read_traces(data).rejected
    except InvalidRequestError:
        usable = False
    try:
        items = check_request(Signal.TRACES, data)
    except InvalidRequestError:
        items = None

    assert items == (count_items(Signal.TRACES, data) if usable else None)


@pytest.mark.parametrize("with_ids", [True, False])
def test_logs_at_the_traces_endpoint_are_called_logs(with_ids: bool) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1)
    record.body.string_value = "hello"
    if with_ids:
        record.trace_id, record.span_id = b"t" * 16, b"s" * 8

    with pytest.raises(InvalidRequestError, match="it looks like OTLP logs"):
        read_traces(request.SerializeToString())


def test_spans_with_bad_ids_are_not_called_logs() -> None:
    bad = make_span()
    bad.span_id = b""

    with pytest.raises(InvalidRequestError) as caught:
        read_traces(make_request(bad))

    assert "logs" not in str(caught.value)


def some_logs(number: int) -> bytes:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(number):
        records.add(time_unix_nano=1)
    return request.SerializeToString()


def some_metrics(number: int) -> bytes:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    for index in range(number):
        metrics.add(name=f"metric {index}")
    return request.SerializeToString()


@pytest.mark.parametrize(("signal", "data"), [(Signal.LOGS, some_logs(3)), (Signal.METRICS, some_metrics(3))])
def test_logs_and_metrics_are_checked_and_counted(signal: Signal, data: bytes) -> None:
    assert check_request(signal, data) == 3
    assert count_items(signal, data) == 3
    with pytest.raises(InvalidRequestError, match=f"Not an OTLP {signal} request"):
        check_request(signal, b"not protobuf")


@given(requests())
def test_both_halves_of_a_request_together_are_the_request(written: WrittenRequest) -> None:
    halves = split_request(Signal.TRACES, written.data)

    if len(written.spans) < 2:
        assert halves is None
    else:
        assert halves is not None
        assert placed(parsed(halves[0] + halves[1])) == placed(parsed(written.data))
        assert all(count_items(Signal.TRACES, half) for half in halves)


@pytest.mark.parametrize(
    ("sizes", "first"),
    [([1, 1], 1), ([1, 1, 1, 1], 2), ([1, 100], 1), ([100, 1, 1], 1), ([1, 1, 100], 2), ([0, 0, 0], 1)],
)
def test_a_request_is_split_by_bytes(sizes: list[int], first: int) -> None:
    spans = [make_span("x" * size * 1000, span=index + 1) for index, size in enumerate(sizes)]

    halves = split_request(Signal.TRACES, make_request(*spans))

    assert halves is not None
    assert count_items(Signal.TRACES, halves[0]) == first
    assert read_spans(halves[0] + halves[1]) == spans


@pytest.mark.parametrize(("signal", "make"), [(Signal.LOGS, some_logs), (Signal.METRICS, some_metrics)])
def test_logs_and_metrics_can_be_split_down_to_one_item(signal: Signal, make: Any) -> None:
    halves = split_request(signal, make(4))

    assert halves is not None
    assert [count_items(signal, half) for half in halves] == [2, 2]
    assert split_request(signal, make(1)) is None


def test_spans_are_grouped_again_under_their_own_resource_and_scope() -> None:
    spans = [
        *make_raw(make_span(span=1), service="a", scope="x"),
        *make_raw(make_span(span=2), service="b", scope="x"),
        *make_raw(make_span(span=3), service="a", scope="y"),
        *make_raw(make_span(span=4), service="a", scope="x"),
    ]

    joined = parsed(join_spans(spans))

    assert [
        (
            resource.resource.attributes[0].value.string_value,
            [(scope.scope.name, [span.span_id[-1] for span in scope.spans]) for scope in resource.scope_spans],
        )
        for resource in joined.resource_spans
    ] == [("a", [("x", [1, 4]), ("y", [3])]), ("b", [("x", [2])])]


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 16_383, 16_384, 2_100_000])
def test_spans_of_any_size_can_be_joined(size: int) -> None:
    [span] = make_raw(make_span("x" * size))

    assert read_spans(join_spans([span]))[0].name == "x" * size


def test_encoded_spans_are_joined_under_the_scope_they_are_given_with() -> None:
    scopes = [ScopeRef.of(length_delimited(3, url), length_delimited(3, b"s")) for url in (b"one", b"two")]
    span = make_span().SerializeToString()

    joined = parsed(join_encoded({scopes[0]: [span, span], scopes[1]: [span]}))

    assert [(resource.schema_url, len(resource.scope_spans[0].spans)) for resource in joined.resource_spans] == [
        ("one", 2),
        ("two", 1),
    ]


@pytest.mark.parametrize(("scope", "is_own"), [("otel_scorer", True), ("otel_scorer.extra", False), ("app", False)])
def test_only_our_own_scope_is_our_own(scope: str, is_own: bool) -> None:
    [span] = make_raw(make_span(), scope=scope)

    assert span.is_own is is_own


@given(span_messages(), ATTRIBUTES)
def test_enriching_replaces_the_keys_that_are_there_and_keeps_the_others(
    message: SpanMessage, attributes: dict[str, Any]
) -> None:
    added = {key: key_value(key, "new") for key in attributes}

    enriched = SpanMessage.FromString(enrich_span(message.SerializeToString(), added))

    assert [pair.key for pair in enriched.attributes] == [
        *(pair.key for pair in message.attributes if pair.key not in added),
        *added,
    ]
    assert all(pair.value.string_value == "new" for pair in enriched.attributes if pair.key in added)
    del enriched.attributes[:], message.attributes[:]
    assert enriched == message


@given(span_messages(), st.sampled_from(UNKNOWN_FIELDS))
def test_enriching_keeps_unknown_fields(message: SpanMessage, unknown: bytes) -> None:
    assume(all(pair.key != "k" for pair in message.attributes))
    data = message.SerializeToString() + unknown

    added = enrich_span(data, {"k": key_value("k", 1)}, [SpanMessage.Event(name="e").SerializeToString()])
    replaced = enrich_span(added, {"k": key_value("k", 2)})

    assert added.startswith(data)
    assert unknown in replaced
    assert SpanMessage.FromString(replaced).events[-1].name == "e"
    assert [pair.value.int_value for pair in SpanMessage.FromString(replaced).attributes if pair.key == "k"] == [2]


def test_enriching_a_span_that_has_a_key_twice_leaves_it_once() -> None:
    message = make_span()
    for value in ("a", "b"):
        message.attributes.add(key="k").value.string_value = value

    enriched = SpanMessage.FromString(enrich_span(message.SerializeToString(), {"k": key_value("k", "c")}))

    assert [pair.value.string_value for pair in enriched.attributes] == ["c"]


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        ("text", "string_value", "text"),
        ("", "string_value", ""),
        ("\ud800", "string_value", "?"),
        (True, "bool_value", True),
        (False, "bool_value", False),
        (0, "int_value", 0),
        (-1, "int_value", -1),
        (2**63 - 1, "int_value", 2**63 - 1),
        (-(2**63), "int_value", -(2**63)),
        (2**63, "double_value", 2.0**63),
        (10**400, "double_value", math.inf),
        (-(10**400), "double_value", -math.inf),
        (0.5, "double_value", 0.5),
        (math.inf, "double_value", math.inf),
    ],
    ids=lambda value: repr(value)[:12],
)
def test_a_value_is_encoded_in_its_own_type(value: str | float, kind: str, read: object) -> None:
    pair = KeyValue.FromString(key_value("k", value))

    assert pair.key == "k"
    assert pair.value.WhichOneof("value") == kind
    assert getattr(pair.value, kind) == read


@given(span_messages())
def test_fields_written_here_are_what_protobuf_writes(message: SpanMessage) -> None:
    start = encoding.fixed64_field(7, message.start_time_unix_nano) + encoding.varint_field(6, message.kind)
    name = encoding.field(5, message.name.encode())

    written = SpanMessage.FromString(start + name + encoding.attribute("k", "v"))

    assert (written.start_time_unix_nano, written.kind, written.name) == (
        message.start_time_unix_nano,
        message.kind,
        message.name,
    )
    assert [(pair.key, pair.value.string_value) for pair in written.attributes] == [("k", "v")]


def test_the_pieces_that_these_tests_are_made_of_are_whole_messages() -> None:
    message = make_span(attributes={"a": 1, "b": [True]}, status="ERROR")

    assert SpanMessage.FromString(b"".join(pieces_of(message))) == message
    with pytest.raises(DecodeError):
        SpanMessage.FromString(b"\x0a")
