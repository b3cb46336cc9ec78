"""Verdicts as the SDK's spans: the same, once encoded, as what the sidecar sends."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from otel_scorer.encoders.evaluation_span import encode_evaluation_span
from otel_scorer.encoders.on_span import encode_event, span_attributes
from otel_scorer.encoders.sdk import EnrichedSpan, evaluation_readable_span, sdk_target_of, verdict_event
from otel_scorer.encoders.target import Target
from otel_scorer.encoders.verdict import Verdict, verdicts_of
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.encoding import key_value
from otel_scorer.model.feedback import AssessmentError, Feedback
from otel_scorer.model.splicing import enrich_span
from otel_scorer.model.wire import read_traces

FEEDBACKS = [
    Feedback("passes", value=True, rationale="fine"),
    Feedback("number", value=0.25, metadata={"tokens": 12}),
    Feedback("count", value=3),
    Feedback("huge", value=1 << 80),
    Feedback("text", value="größer als 🙂"),
    Feedback("bad_unicode", value="half \ud800 a pair", rationale="\udfff"),
    Feedback("yes_no", value="yes"),
    Feedback("several", value=["a", 1]),
    Feedback("nothing", value=None, rationale="No tool usage to evaluate"),
    Feedback("error", error=AssessmentError("Boom", "it broke")),
]


def provider(exporter: InMemorySpanExporter, **options: Any) -> TracerProvider:
    made = TracerProvider(resource=Resource({"service.name": "app"}, "https://schema"), **options)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


@pytest.fixture
def spans() -> list[ReadableSpan]:
    """A root with two children, as the SDK hands them over: the children first."""
    exporter = InMemorySpanExporter()
    tracer = provider(exporter).get_tracer("agent", "1.0", schema_url="https://scope")
    with tracer.start_as_current_span("root", attributes={"key": "value", "otel_scorer.passes.label": "old"}) as root:
        root.add_event("happened", {"a": 1})
        with tracer.start_as_current_span("first"):
            pass
        with tracer.start_as_current_span("second"):
            pass
    return list(exporter.get_finished_spans())


def verdict(feedback: Feedback, *, span_id: str | None = None) -> Verdict:
    decision = Decision("1" * 32, span_id, "my_scorer", "abc", Outcome.SCORED, feedbacks=(feedback,))
    [made] = verdicts_of(decision)
    return made


def encoded(span: ReadableSpan) -> SpanMessage:
    return encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]


def without_flags(span: SpanMessage) -> SpanMessage:
    """The SDK's encoder writes flags by itself, without the sampled bit, and an empty status where nothing was set."""
    span.ClearField("flags")
    if span.status.ByteSize() == 0:
        span.ClearField("status")
    for link in span.links:
        link.ClearField("flags")
    return span


@pytest.mark.parametrize("span_id", [None, "target"])
@pytest.mark.parametrize("feedback", FEEDBACKS, ids=lambda feedback: feedback.name)
def test_an_evaluation_span_is_the_one_that_the_sidecar_sends(
    spans: list[ReadableSpan], feedback: Feedback, span_id: str | None
) -> None:
    root = spans[-1]
    [raw] = read_traces(encode_spans([root]).SerializeToString()).spans
    made = verdict(feedback, span_id=span_id and raw.span_id.hex())

    ours = evaluation_readable_span(made, root, close_reason="all_closed", complete=True)

    theirs = encode_evaluation_span(made, Target.of(raw), close_reason="all_closed", complete=True)
    expected = without_flags(SpanMessage.FromString(theirs))
    mine = without_flags(encoded(ours))
    for message in (expected, mine):
        message.attributes.sort(key=lambda pair: pair.key)
    assert mine == expected


def test_an_evaluation_span_has_the_resource_of_its_target_and_our_scope(spans: list[ReadableSpan]) -> None:
    made = evaluation_readable_span(verdict(FEEDBACKS[0]), spans[0], close_reason=None, complete=None)

    scope = encode_spans([made]).resource_spans[0].scope_spans[0].scope
    assert made.resource is spans[0].resource
    assert scope.name == "otel_scorer"
    assert scope.version
    assert made.context is not None
    assert made.context.trace_flags == TraceFlags.SAMPLED


def test_an_evaluation_span_is_identical_whenever_it_is_made(spans: list[ReadableSpan]) -> None:
    first, second = (
        evaluation_readable_span(verdict(FEEDBACKS[0]), spans[0], close_reason="shutdown", complete=False)
        for _ in range(2)
    )

    assert encoded(first) == encoded(second)


def test_an_enriched_span_is_the_one_that_the_sidecar_makes(spans: list[ReadableSpan]) -> None:
    root = spans[-1]
    verdicts = [verdict(feedback) for feedback in FEEDBACKS]
    attributes = span_attributes(verdicts, close_reason="all_closed", complete=True)

    ours = encoded(EnrichedSpan(root, attributes, [verdict_event(item, root) for item in verdicts]))

    end = root.end_time or 0
    pairs = {key: key_value(key, value) for key, value in attributes.items()}
    events = [encode_event(item, end) for item in verdicts]
    theirs = SpanMessage.FromString(enrich_span(encoded(root).SerializeToString(), pairs, events))
    for message in (ours, theirs):
        message.attributes.sort(key=lambda pair: pair.key)
    assert ours == theirs


def test_an_enriched_span_keeps_everything_else_of_the_original(spans: list[ReadableSpan]) -> None:
    root = spans[-1]

    copy = EnrichedSpan(root, {})

    assert encode_spans([copy]) == encode_spans([root])
    assert copy is not root


def test_the_original_is_not_touched(spans: list[ReadableSpan]) -> None:
    root = spans[-1]
    before = encoded(root)

    EnrichedSpan(root, {"new": 1}, [verdict_event(verdict(FEEDBACKS[0]), root)])

    assert encoded(root) == before


def test_a_span_at_its_limits_is_enriched_in_full_and_says_what_it_had_dropped() -> None:
    exporter = InMemorySpanExporter()
    limits = SpanLimits(max_span_attributes=128, max_events=1)
    tracer = provider(exporter, span_limits=limits).get_tracer("agent")
    with tracer.start_as_current_span("root") as span:
        for number in range(130):
            span.set_attribute(f"attribute.{number}", number)
        span.add_event("one")
        span.add_event("two")
    [full] = exporter.get_finished_spans()

    copy = EnrichedSpan(full, {"otel_scorer.a.value": 1.0}, [verdict_event(verdict(FEEDBACKS[0]), full)])

    assert copy.attributes is not None
    assert len(copy.attributes) == 129
    assert [event.name for event in copy.events] == ["two", "gen_ai.evaluation.result"]
    assert (copy.dropped_attributes, copy.dropped_events, copy.dropped_links) == (2, 1, 0)
    assert encoded(copy).dropped_attributes_count == 2


def test_the_root_stands_for_the_trace(spans: list[ReadableSpan]) -> None:
    assert sdk_target_of(spans) is spans[-1]


def test_without_a_root_the_earliest_span_without_a_known_parent_stands_for_the_trace(
    spans: list[ReadableSpan],
) -> None:
    first, second, _ = spans

    assert sdk_target_of([second, first]) is first
    assert sdk_target_of([]) is None


def test_a_local_root_goes_before_an_earlier_span_whose_parent_is_missing() -> None:
    exporter = InMemorySpanExporter()
    tracer = provider(exporter).get_tracer("agent")
    for is_remote in (False, True):
        parent = SpanContext(5, 6 + is_remote, is_remote=is_remote, trace_flags=TraceFlags(1))
        tracer.start_span("entry", context=set_span_in_context(NonRecordingSpan(parent))).end()
    orphan, entry = exporter.get_finished_spans()

    assert sdk_target_of([orphan, entry]) is entry
