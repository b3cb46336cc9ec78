"""Views over OTLP bytes and over the SDK's spans: the same span reads the same through both."""

from __future__ import annotations

import math
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel_trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from tests.fakes import PlainReader
from tests.strategies import ATTRIBUTES, TEXT, span_messages

from otel_scorer.model.decode import (
    Attributes,
    OtlpSpan,
    SdkSpan,
    encode_attributes,
    logs_from_request,
    spans_from_raw,
    spans_from_request,
    spans_from_sdk,
)
from otel_scorer.model.encoding import field
from otel_scorer.model.trace import Scope, Span, Trace
from otel_scorer.model.wire import read_traces
from otel_scorer.testing import make_raw, make_request, make_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Tracer

FACTS = (
    "trace_id",
    "span_id",
    "parent_id",
    "name",
    "kind",
    "start_time_ns",
    "end_time_ns",
    "duration_ns",
    "has_odd_times",
    "status",
    "failed",
    "is_local_root",
    "attributes",
    "events",
    "links",
    "resource",
    "scope",
    "service_name",
)
REMOTE = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))


def facts(span: Span) -> dict[str, Any]:
    return {fact: getattr(span, fact) for fact in FACTS} | {"order": list(span.attributes)}


@cache
def sdk() -> tuple[Tracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    resource = Resource({"service.name": "shop", "numbers": (1, 2), "flag": True})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("my.library", "1.2", attributes={"tier": "gold"}), exporter


def recorded(work: Callable[[Tracer], None]) -> list[ReadableSpan]:
    tracer, exporter = sdk()
    exporter.clear()
    work(tracer)
    return list(exporter.get_finished_spans())


def both_views(spans: list[ReadableSpan]) -> tuple[dict[str, Span], dict[str, Span]]:
    request = encode_spans(spans).SerializeToString()
    from_bytes = spans_from_raw(read_traces(request).spans)
    return {span.span_id: span for span in spans_from_sdk(spans)}, {span.span_id: span for span in from_bytes}


def assert_the_views_agree(spans: list[ReadableSpan]) -> None:
    from_sdk, from_bytes = both_views(spans)
    assert from_sdk.keys() == from_bytes.keys()
    for span_id, span in from_sdk.items():
        assert facts(span) == facts(from_bytes[span_id])


def everything(tracer: Tracer) -> None:
    parent = otel_trace.set_span_in_context(NonRecordingSpan(REMOTE))
    link = Link(REMOTE, {"why": "retry", "count": 2})
    root = tracer.start_span("GET /", context=parent, kind=SpanKind.SERVER, start_time=100, links=[link])
    root.set_attributes(
        {
            "z": "last",
            "a": ["x", "y"],
            "int": 2**63 - 1,
            "float": 0.5,
            "bool": False,
            "empty": "",
            "bools": (True, False),
            "10": "ten",
            "9": "nine",
        }
    )
    root.add_event("said", {"text": "hé", "sizes": (1.5, 2.5)}, timestamp=150)
    child = tracer.start_span(
        "work", context=otel_trace.set_span_in_context(root), kind=SpanKind.CLIENT, start_time=120
    )
    child.set_status(Status(StatusCode.ERROR, "no route"))
    child.record_exception(ValueError("no"), timestamp=130)
    child.end(140)
    fine = tracer.start_span("fine", context=otel_trace.set_span_in_context(root), start_time=120)
    fine.set_status(StatusCode.OK)
    fine.end(130)
    failed = tracer.start_span("failed", context=otel_trace.set_span_in_context(root), start_time=120)
    failed.set_attribute("error.type", "timeout")
    failed.end(119)
    root.end(200)
    tracer.start_span("alone", kind=SpanKind.PRODUCER, start_time=1).end(2)
    tracer.start_span("consumes", kind=SpanKind.CONSUMER, start_time=1).end(2)


def test_a_span_of_the_sdk_reads_the_same_as_the_bytes_that_its_exporter_sends() -> None:
    assert_the_views_agree(recorded(everything))


def test_the_root_of_another_process_is_a_local_root_in_both_views() -> None:
    for views in both_views(recorded(everything)):
        by_name = {span.name: span for span in views.values()}
        assert {name for name, span in by_name.items() if span.is_local_root} == {"GET /"}
        assert by_name["GET /"].parent_id == f"{0xDEF:016x}"
        assert by_name["alone"].parent_id is None


def test_a_trace_of_the_sdk_is_the_same_data_as_the_one_over_otlp() -> None:
    from_sdk, from_bytes = both_views(recorded(everything))

    first, second = (Trace(list(views.values()), PlainReader()) for views in (from_sdk, from_bytes))

    assert first.to_dict() == second.to_dict()
    assert first.to_json() == second.to_json()


@given(
    TEXT,
    st.dictionaries(
        TEXT.filter(bool),
        st.one_of(
            TEXT,
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.lists(TEXT, max_size=3),
            st.lists(st.integers(-5, 5), max_size=3),
        ),
        max_size=5,
    ),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
)
def test_any_span_of_the_sdk_reads_the_same_in_both_views(
    name: str, attributes: dict[str, Any], start: int, end: int
) -> None:
    def work(tracer: Tracer) -> None:
        span = tracer.start_span(name, attributes=attributes, start_time=start)
        span.add_event(name, attributes, timestamp=start)
        span.end(end)

    assert_the_views_agree(recorded(work))


def test_attributes_that_the_sdk_does_not_check_read_the_same_in_both_views() -> None:
    context = SpanContext(1, 2, is_remote=False)
    attributes: Any = {"b": b"\x00", "map": {"k": [1, None, {"deep": True}]}, "none": None, "mixed": [1, "a"], "e": []}
    span = ReadableSpan("raw", context=context, attributes=attributes, resource=Resource.get_empty(), start_time=5)

    [from_sdk], [from_bytes] = (list(views.values()) for views in both_views([span]))

    assert dict(from_sdk.attributes) == dict(from_bytes.attributes) == attributes
    assert (from_sdk.end_time_ns, from_bytes.end_time_ns) == (0, 0)


def test_an_sdk_span_without_context_or_scope_can_be_read() -> None:
    span = SdkSpan(ReadableSpan("bare"))

    assert (span.trace_id, span.span_id, span.parent_id, span.scope.name) == ("", "", None, "")
    assert (span.start_time_ns, span.end_time_ns, span.attributes, span.events) == (0, 0, {}, [])


@given(span_messages())
def test_a_view_reads_what_is_in_the_message(message: SpanMessage) -> None:
    [from_request] = spans_from_request(make_request(message))
    [from_raw] = spans_from_raw(make_raw(message))

    assert facts(from_request) == facts(from_raw)
    assert from_raw.trace_id == message.trace_id.hex()
    assert (from_raw.start_time_ns, from_raw.end_time_ns) == (message.start_time_unix_nano, message.end_time_unix_nano)
    assert len(from_raw.events) == len(message.events)
    assert [(link.trace_id, link.span_id) for link in from_raw.links] == [("74" * 16, "73" * 8)] * len(message.links)


@given(ATTRIBUTES)
def test_attributes_are_read_as_they_were_written(attributes: dict[str, Any]) -> None:
    message = SpanMessage()
    encode_attributes(message.attributes, attributes)

    for read in (Attributes.of(message.attributes), spans_from_raw(make_raw(with_ids(message)))[0].attributes):
        assert dict(read) == attributes
        assert list(read) == sorted(attributes)
        assert len(read) == len(attributes)
        assert all(key in read and read.get(key) == value for key, value in attributes.items())


def with_ids(message: SpanMessage) -> SpanMessage:
    message.trace_id, message.span_id = b"t" * 16, b"s" * 8
    return message


def test_asking_for_what_is_not_there_adds_nothing() -> None:
    [span] = spans_from_raw(make_raw(make_span(attributes={"a": 1})))

    assert span.get_attribute("b") is None
    assert span.attributes.get("b", 5) == 5
    assert "b" not in span.attributes
    with pytest.raises(KeyError):
        span.attributes["b"]
    assert dict(span.attributes) == {"a": 1}
    assert span.first_of(["b", "a"]) == ("a", 1)
    assert span.first_of(["b"]) is None


def test_of_an_attribute_that_comes_twice_the_last_one_counts() -> None:
    message = make_span()
    for value in ("first", "last"):
        message.attributes.add(key="k").value.string_value = value

    [span] = spans_from_raw(make_raw(message))

    assert dict(span.attributes) == {"k": "last"}


def test_nan_and_infinity_are_read_as_numbers() -> None:
    [span] = spans_from_raw(make_raw(make_span(attributes={"nan": math.nan, "inf": math.inf})))

    assert math.isnan(span.attributes["nan"])  # type: ignore[arg-type]  # it is a float
    assert span.attributes["inf"] == math.inf


def test_spans_of_one_scope_share_what_was_decoded_of_it() -> None:
    first, second = spans_from_raw(make_raw(make_span(span=1), make_span(span=2)))

    assert first.resource is second.resource
    assert first.scope is second.scope


def scope_of(**request: Any) -> Scope:
    [span] = spans_from_request(make_request(make_span(), **request))
    return span.scope


def test_what_was_decoded_of_a_resource_and_a_scope_is_shared_by_the_traces_that_have_them() -> None:
    [from_raw] = spans_from_raw(make_raw(make_span(), scope="shared"))

    assert scope_of(scope="shared") is scope_of(scope="shared") is from_raw.scope
    assert scope_of(scope="shared") is not scope_of(scope="other")
    assert scope_of(scope="shared") is not scope_of(scope="shared", service="other")


def test_only_so_many_scopes_of_any_sender_are_kept_and_no_large_one() -> None:
    first = scope_of(scope="kept for a while")
    large = {"text": "x" * 100_000}

    assert scope_of(scope="large", resource=large) is not scope_of(scope="large", resource=large)
    for number in range(1_000):
        scope_of(scope=f"made up {number}")
    assert scope_of(scope="kept for a while") is not first


def test_what_readers_note_of_a_shared_scope_does_not_pile_up() -> None:
    spans = [spans_from_request(make_request(make_span(), scope="read by many"))[0] for _ in range(100)]
    for number, span in enumerate(spans):
        span.shared[number] = "noted"
        spans_from_request(make_request(make_span(), scope="read by many"))

    assert len(spans[0].shared) < 20


def test_a_resource_and_a_scope_that_come_in_several_parts_are_one_message() -> None:
    resource, more = ResourceMessage(), ResourceMessage()
    encode_attributes(resource.attributes, {"service.name": "a", "host": "x"})
    encode_attributes(more.attributes, {"service.name": "b"})
    scopes = [InstrumentationScope(name="one", version="1"), InstrumentationScope(name="two")]
    scope_spans = b"".join(field(1, scope.SerializeToString()) for scope in scopes)
    scope_spans += field(2, make_span().SerializeToString())
    parts = field(1, resource.SerializeToString()), field(2, scope_spans), field(1, more.SerializeToString())

    [span] = spans_from_request(field(1, b"".join(parts)))

    assert dict(span.resource) == {"service.name": "b", "host": "x"}
    assert (span.scope.name, span.scope.version) == ("two", "1")


def test_a_view_keeps_the_slice_that_it_was_made_from() -> None:
    [raw] = make_raw(make_span())

    [span] = spans_from_raw([raw])

    assert isinstance(span, OtlpSpan)
    assert span.raw is raw
    assert span.name == SpanMessage.FromString(raw.data).name


def test_what_otlp_cannot_hold_becomes_what_is_nearest() -> None:
    message = make_span(attributes={"big": 2**63, "bigger": 10**400, "a\ud800": ["b\ud800", -(2**63)]})

    attributes = dict(Attributes.of(message.attributes))

    assert attributes == {"big": 2.0**63, "bigger": math.inf, "a?": ["b?", -(2**63)]}


def test_log_records_about_spans_are_found_by_trace_and_span() -> None:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    ids = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
    records.add(**ids, event_name="gen_ai.choice", time_unix_nano=7, observed_time_unix_nano=9).body.string_value = "hi"
    old = records.add(**ids, observed_time_unix_nano=9)
    encode_attributes(old.attributes, {"event.name": "gen_ai.user.message", "n": 1})
    records.add(**ids).body.string_value = "a line without a name"
    records.add(trace_id=b"t" * 16, event_name="about no span")
    encode_attributes(records.add(**ids).attributes, {"event.name": 5})

    found = logs_from_request(request.SerializeToString())

    assert list(found) == [("74" * 16, "73" * 8)]
    [choice, message] = found["74" * 16, "73" * 8]
    assert (choice.event_name, choice.body, choice.timestamp) == ("gen_ai.choice", "hi", 7)
    assert (message.event_name, message.body, message.timestamp) == ("gen_ai.user.message", None, 9)
    assert message.attributes["n"] == 1
    with pytest.raises(DecodeError):
        logs_from_request(b"no logs")


def test_the_view_over_the_sdk_knows_nothing_of_protobuf() -> None:
    code = "import sys, otel_scorer.model.sdk_span; print(*[name for name in sys.modules if 'protobuf' in name])"

    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.split() == []
