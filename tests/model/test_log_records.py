"""Log records about spans are cut out of requests as they are, and found again by the span they are about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogRecordMessage
from tests.fakes import a_log, logs_request

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.decode import attach_logs, logs_from_raw, logs_from_request
from otel_scorer.model.log_records import RECORD_OVERHEAD, join_logs, read_logs
from otel_scorer.testing import make_span, make_trace


def test_only_events_about_spans_are_cut_out_and_nothing_of_them_is_lost() -> None:
    about_nothing, without_span, a_line = a_log(), a_log(), a_log(name="")
    about_nothing.ClearField("trace_id")
    without_span.ClearField("span_id")
    event = LogRecordMessage.FromString(a_log("yes", trace=3, span=4).SerializeToString() + b"\xc2\x3e\x03new")
    old = a_log("too", old=True)
    no_text = a_log(name="")
    no_text.attributes.add(key="event.name").value.int_value = 5

    first, second = read_logs(logs_request(about_nothing, without_span, a_line, event, old, no_text))

    assert first.data == event.SerializeToString()
    assert (first.trace_id, first.span_id) == (event.trace_id, event.span_id)
    assert first.size == len(first.data) + RECORD_OVERHEAD
    assert second.data == old.SerializeToString()


@pytest.mark.parametrize("change", [{"trace_id": b"short"}, {"span_id": b"short"}, {"trace_id": bytes(17)}])
def test_ids_of_the_wrong_size_are_about_nothing(change: dict[str, bytes]) -> None:
    record = a_log()
    record.MergeFrom(LogRecordMessage(**change))  # type: ignore[arg-type]  # the fields have several types

    assert read_logs(logs_request(record, a_log(name=""))) == []


def test_what_is_no_request_is_refused_if_anybody_has_to_look() -> None:
    assert read_logs(b"nonsense") == []
    with pytest.raises(InvalidRequestError, match="Not an OTLP logs request"):
        read_logs(logs_request(a_log()) + b"\xff")


@given(st.lists(st.builds(a_log, st.text(), trace=st.integers(1, 2), span=st.integers(1, 2), old=st.booleans())))
def test_records_read_the_same_from_their_request_cut_out_and_joined_again(records: list[LogRecordMessage]) -> None:
    data = logs_request(*records)

    raw = read_logs(data)

    assert len(raw) == len(records)
    assert logs_from_raw(raw) == logs_from_request(data) == logs_from_request(join_logs(raw))


def test_a_span_gets_its_records_in_the_order_of_their_times() -> None:
    trace = make_trace(make_span("a", span=1), make_span("b", span=2, parent=1))
    records = [a_log("late", at=9), a_log("early", at=1), a_log("same", at=9), a_log("stranger", trace=2)]

    attach_logs(trace.spans, logs_from_raw(read_logs(logs_request(*records))))

    assert [[record.body for record in span.logs] for span in trace.spans] == [["early", "late", "same"], []]


def test_a_record_without_a_span_belongs_to_the_innermost_span_that_reports_its_response() -> None:
    response = {"gen_ai.response.id": "resp-1"}
    trace = make_trace(
        make_span("agent", attributes=response),
        make_span("call", attributes=response, span=2, parent=1, start=1),
        make_span("other", attributes={"gen_ai.response.id": 5}, span=3, parent=1, start=2),
    )
    about_one, about_another, unnamed = a_log("verdict", at=2), a_log("of no call here"), a_log("unnamed")
    for record, response_id in ((about_one, "resp-1"), (about_another, "resp-2")):
        record.ClearField("span_id")
        record.attributes.add(key="gen_ai.response.id").value.string_value = response_id
    unnamed.ClearField("span_id")
    data = logs_request(about_one, about_another, unnamed, a_log("with a span", span=2, at=1))

    raw = read_logs(data)
    attach_logs(trace.spans, logs_from_raw(raw))

    assert [record.span_id for record in raw] == [b"", b"", bytes.fromhex(trace.spans[1].span_id)]
    assert [[record.body for record in span.logs] for span in trace.spans] == [[], ["with a span", "verdict"], []]
    assert read_logs(logs_request(about_one))
    assert logs_from_request(data) == logs_from_raw(raw)
