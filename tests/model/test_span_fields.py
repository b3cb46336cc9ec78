"""Spans as views read them: the same bytes as OTLP's own message, attributes by key; and log records about spans."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.strategies import span_messages

from otel_scorer.dialects import READER
from otel_scorer.model.decode import logs_from_request, spans_from_raw
from otel_scorer.model.otlp_attributes import Attributes
from otel_scorer.model.span_fields import parse_span
from otel_scorer.model.trace import LogRecord, Trace
from otel_scorer.model.wire import RawSpan, ScopeRef

TRACE_ID, SPAN_ID = bytes(range(16)), bytes(range(8))


def message() -> SpanMessage:
    span = SpanMessage(trace_id=TRACE_ID, span_id=SPAN_ID, name="x", kind=SpanMessage.SPAN_KIND_SERVER, flags=0x301)
    span.status.code = span.status.STATUS_CODE_ERROR
    span.events.add(name="e", time_unix_nano=7).attributes.add(key="k").value.int_value = 1
    span.links.add(trace_id=TRACE_ID, span_id=SPAN_ID)
    return span


def raw(span: SpanMessage) -> RawSpan:
    return RawSpan(span.SerializeToString(), ScopeRef.of(b"", b""), TRACE_ID, SPAN_ID, None, True)


def test_all_fields_are_those_of_the_original_message() -> None:
    span = message()

    fields = parse_span(span.SerializeToString())

    for name in ("trace_id", "span_id", "parent_span_id", "name", "kind", "start_time_unix_nano", "flags", "status"):
        assert getattr(fields, name) == getattr(span, name)
    assert list(fields.events) == list(span.events)
    assert list(fields.links) == list(span.links)


def test_of_a_repeated_key_the_last_value_counts_and_keys_come_in_order() -> None:
    span = message()
    for key, value in (("b", 1), ("a", 2), ("b", 3)):
        span.attributes.add(key=key).value.int_value = value

    [view] = spans_from_raw([raw(span)])

    assert list(view.attributes.items()) == [("a", 2), ("b", 3)]


def test_an_attribute_without_a_value_is_none_and_asking_for_one_that_is_not_there_adds_nothing() -> None:
    span = message()
    span.attributes.add(key="empty")

    [view] = spans_from_raw([raw(span)])

    assert view.attributes["empty"] is None
    assert view.attributes.get("other", "default") == "default"
    with pytest.raises(KeyError):
        view.attributes["other"]
    assert "other" not in view.attributes
    assert len(view.attributes) == 1


def test_the_first_of_several_keys_is_found_whatever_its_value() -> None:
    span = message()
    span.attributes.add(key="b").value.bool_value = False
    span.attributes.add(key="c").value.string_value = ""

    [view] = spans_from_raw([raw(span)])

    assert view.first_of(("a", "b", "c")) == ("b", False)
    assert view.first_of(("c", "b")) == ("c", "")
    assert view.first_of(("a",)) is None


def test_what_is_no_span_is_an_error() -> None:
    with pytest.raises(DecodeError):
        parse_span(b"\xff\xff")


def logs_request() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    new = records.add(trace_id=TRACE_ID, span_id=SPAN_ID, event_name="gen_ai.choice", observed_time_unix_nano=5)
    new.body.string_value = "hello"
    new.attributes.add(key="k").value.int_value = 1
    old = records.add(trace_id=TRACE_ID, span_id=SPAN_ID, time_unix_nano=6)
    old.attributes.add(key="event.name").value.string_value = "gen_ai.user.message"
    old.body.kvlist_value.values.add(key="content").value.string_value = "hi"
    records.add(trace_id=TRACE_ID, span_id=SPAN_ID).body.string_value = "a line of a log"
    records.add(event_name="gen_ai.choice")
    return request


def test_events_are_found_by_the_span_they_are_about() -> None:
    found = logs_from_request(logs_request().SerializeToString())

    assert list(found) == [(TRACE_ID.hex(), SPAN_ID.hex())]
    new, old = found[TRACE_ID.hex(), SPAN_ID.hex()]
    assert (new.event_name, new.body, dict(new.attributes), new.timestamp) == ("gen_ai.choice", "hello", {"k": 1}, 5)
    assert (old.event_name, old.body, old.timestamp) == ("gen_ai.user.message", {"content": "hi"}, 6)


def test_a_stored_trace_keeps_its_log_records() -> None:
    [view] = spans_from_raw([raw(message())])
    view.logs = (LogRecord("gen_ai.choice", {"message": [1, b"x"]}, {"k": b"y"}, 5),)

    restored = Trace.from_json(Trace([view], READER).to_json())

    assert restored.spans[0].logs == view.logs


@given(span_messages())
def test_values_that_are_decoded_late_are_those_of_the_original_message(span: SpanMessage) -> None:
    [view] = spans_from_raw([raw(span)])

    assert dict(view.attributes) == dict(Attributes.of(span.attributes))
    for key in {pair.key for pair in span.attributes}:
        assert view.first_of(["not there", key]) == (key, view.attributes[key])


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 130, 16_383, 16_384])
@pytest.mark.parametrize("letter", ["a", "\n", "é"])
def test_a_text_of_any_length_is_read_as_it_was_sent(length: int, letter: str) -> None:
    span = message()
    span.attributes.add(key="text").value.string_value = letter * length

    [view] = spans_from_raw([raw(span)])

    assert view.attributes["text"] == view.get_attribute("text") == letter * length
