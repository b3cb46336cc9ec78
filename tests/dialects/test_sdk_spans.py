"""A trace says the same whether its spans came over OTLP or straight from the SDK of the application."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from tests.dialects.captured import CAPTURES, expectations, traces_of
from tests.dialects.test_mutations import facts

from otel_scorer.dialects import READER
from otel_scorer.model.decode import spans_from_sdk
from otel_scorer.model.trace import Span, Trace

NAMES = sorted(expectations()["captures"].keys() & {path.stem for path in CAPTURES.glob("*.json")})


def context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(1))


def as_sdk_value(value: Any) -> Any:
    """Return a value as the SDK holds it: sequences are tuples."""
    return tuple(value) if isinstance(value, list) else value


def as_sdk_attributes(attributes: Any) -> dict[str, Any]:
    return {key: as_sdk_value(value) for key, value in dict(attributes).items()}


def readable(span: Span) -> ReadableSpan:
    status = span.status
    return ReadableSpan(
        span.name,
        context=context(span.trace_id, span.span_id),
        parent=None if span.parent_id is None else context(span.trace_id, span.parent_id),
        resource=Resource(as_sdk_attributes(span.resource)),
        attributes=as_sdk_attributes(span.attributes),
        events=[Event(event.name, as_sdk_attributes(event.attributes), event.timestamp) for event in span.events],
        links=[Link(context(link.trace_id, link.span_id), as_sdk_attributes(link.attributes)) for link in span.links],
        kind=SpanKind[span.kind.name],
        status=Status(StatusCode[status.otel_status_code.name], status.description or None),
        start_time=span.start_time_ns,
        end_time=span.end_time_ns,
        instrumentation_scope=InstrumentationScope(span.scope.name, span.scope.version),
    )


@pytest.mark.parametrize("name", NAMES)
def test_spans_of_the_sdk_say_what_spans_over_otlp_say(name: str) -> None:
    for trace in traces_of(name):
        views = spans_from_sdk(readable(span) for span in trace.spans)
        for view, original in zip(views, trace.spans, strict=True):
            view.logs = original.logs

        assert facts(Trace(views, READER)) == facts(trace)
