"""Stored spans: they read as the spans that were stored, and what is no stored span is told as what it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from tests.fakes import PlainReader
from tests.strategies import span_messages

from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.facts import LogRecord
from otel_scorer.model.recorded import RecordedSpan
from otel_scorer.model.span import Span
from otel_scorer.model.trace import Trace
from otel_scorer.testing import make_raw, make_span

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

PROPERTIES = (
    *sorted(name for name in Span.__abstractmethods__ if name != "_raw_status"),
    *("status", "failed", "duration_ns", "has_odd_times", "has_events", "service_name", "logs"),
)


def view_of(message: SpanMessage) -> Span:
    [span] = spans_from_raw(make_raw(message))
    return span


def stored(span: Span) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(span.to_dict()))
    return data


@given(span_messages())
def test_a_stored_span_reads_as_the_one_that_was_stored(message: SpanMessage) -> None:
    sent = view_of(message)

    read = RecordedSpan(stored(sent))

    assert {name: getattr(read, name) for name in PROPERTIES} == {name: getattr(sent, name) for name in PROPERTIES}
    assert list(read.attributes) == list(sent.attributes)
    assert [list(event.attributes) for event in read.events] == [list(event.attributes) for event in sent.events]
    assert read.to_dict() == sent.to_dict()


@pytest.mark.parametrize(
    "value",
    [
        {"base64": "YR=="},
        b"",
        b"\x00\xff",
        [b"a", {"k": b"b"}],
        {"base64": "no base64!"},
        {"base64": "YQ"},
        {"base64": 5},
        {"base64": {}},
        {"base64": "YWJj"},
        {"base64": b"x"},
        {"kvlist": 1},
        {"kvlist": {"base64": "YWJj"}},
        [{"k": {"base64": "YWJj"}}],
    ],
)
def test_bytes_come_back_and_a_map_that_only_looks_like_them_stays_a_map(value: Any) -> None:
    sent = view_of(make_span(attributes={"k": value}))

    read = RecordedSpan(stored(sent))

    assert read.attributes == {"k": value}
    assert read.to_dict() == sent.to_dict()


def test_attributes_come_in_order_of_the_keys_however_they_were_stored() -> None:
    read = RecordedSpan(stored(view_of(make_span())) | {"attributes": {"b": 1, "a": 2}})

    assert list(read.attributes) == ["a", "b"]


def test_log_records_are_stored_with_their_span() -> None:
    sent = view_of(make_span())
    sent.logs = (LogRecord("gen_ai.choice", {"text": b"\x00"}, {"n": 1}, 5),)

    assert RecordedSpan(stored(sent)).logs == sent.logs


def test_what_need_not_be_there_is_empty() -> None:
    data = stored(view_of(make_span()))
    for key in ("is_local_root", "events", "links", "resource"):
        del data[key]

    read = RecordedSpan(data)

    assert (read.is_local_root, read.events, read.links, read.resource, read.logs) == (False, [], [], {}, ())


def test_a_stored_span_does_not_change_with_the_data_it_was_read_from() -> None:
    data = stored(view_of(make_span(attributes={"list": [1]})))

    read = RecordedSpan(data)
    data["attributes"]["list"].append(2)

    assert read.attributes == {"list": [1]}


EVENT = {"name": "e", "timestamp": 1, "attributes": {}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trace_id": "xyz"}, "`trace_id` .* is 'xyz', expected hex digits"),
        ({"span_id": 5}, "`span_id` .* is 5, expected hex digits"),
        ({"parent_id": 5}, "`parent_id` .* is 5, expected hex digits"),
        ({"name": None}, "`name` .* is None, expected str"),
        ({"name": b"x" * 1000}, r"`name` .* is b'x{78}, expected str"),
        ({"kind": "KIND"}, "`kind` .* is 'KIND', expected one of UNSPECIFIED, INTERNAL"),
        ({"start_time_ns": -1}, "`start_time_ns` .* is -1, expected nanoseconds that fit 64 bits"),
        ({"end_time_ns": 2**64}, "`end_time_ns` .* expected nanoseconds that fit 64 bits"),
        ({"end_time_ns": "now"}, "`end_time_ns` .* is 'now', expected int"),
        ({"status": "OK"}, "`status` .* is 'OK', expected dict"),
        ({"status": {"code": "FINE"}}, "`code` .* is 'FINE', expected one of UNSET, OK, ERROR"),
        ({"attributes": []}, r"`attributes` .* is \[\], expected dict"),
        ({"attributes": {"k": object()}}, "An attribute is <object .*, which is nothing that a span can hold"),
        ({"events": {}}, "`events` .* is {}, expected list"),
        ({"events": [5]}, r"`events` .* is \[5\], expected list of dict"),
        ({"events": [EVENT | {"timestamp": None}]}, "`timestamp` .* is None, expected int"),
        ({"events": [EVENT | {"attributes": None}]}, "`attributes` .* is None, expected dict"),
        ({"links": [{}]}, "`trace_id` .* is missing, expected hex digits"),
        ({"scope": {"name": "s"}}, "`version` .* is missing, expected str"),
        ({"logs": [{"event_name": "e", "timestamp": 1, "attributes": {}}]}, "`body` .* is missing"),
    ],
)
def test_what_is_no_stored_span_is_a_value_error_that_names_the_field(changes: dict[str, Any], said: str) -> None:
    data = stored(view_of(make_span())) | changes

    with pytest.raises(ValueError, match=said):
        RecordedSpan(data)
    with pytest.raises(ValueError, match=rf"Not a trace as Trace.to_dict\(\) writes it: {said}"):
        Trace.from_dict({"info": {}, "data": {"spans": [data]}}, PlainReader())


@pytest.mark.parametrize("key", ["trace_id", "span_id", "parent_id", "name", "kind", "status", "attributes", "scope"])
def test_a_stored_span_must_have_what_every_span_has(key: str) -> None:
    data = stored(view_of(make_span()))
    del data[key]

    with pytest.raises(ValueError, match=f"`{key}` of a span or of a part of it is missing"):
        RecordedSpan(data)


@pytest.mark.parametrize("data", [None, [], "span", 5])
def test_what_is_no_map_is_no_span(data: Any) -> None:
    with pytest.raises(ValueError, match="Not a trace"):
        Trace.from_dict({"info": {}, "data": {"spans": [data]}}, PlainReader())
