"""Which options the processor refuses, and what it warns of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.instrumented_app import span_count

from otel_scorer.errors import ConfigError, ScorerError
from otel_scorer.processor import ScoringSpanProcessor


class Unsent(OTLPSpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emit": ["events"], "export_spans": False}, "export_spans=False somebody else"),
        ({"emit": ["attributes"], "export_spans": False}, "export_spans=False somebody else"),
        ({"emit": ["logs"]}, "not available yet"),
        ({"emit": ["everything"]}, "unknown"),
        ({"emit": []}, "emit is empty"),
        ({"forwarding": "hold_everything"}, "forwarding='hold_everything' is unknown"),
        ({"explanations": "some"}, "some"),
        ({"max_traces": 0}, "max_traces must be positive"),
        ({"hold_deadline": -1}, "hold_deadline must be positive"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoringSpanProcessor(InMemorySpanExporter(), [span_count], **options)


def test_what_is_no_exporter_is_refused() -> None:
    with pytest.raises(TypeError, match="give its exporter"):
        ScoringSpanProcessor(SimpleSpanProcessor(InMemorySpanExporter()), [span_count])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a SpanExporter"):
        ScoringSpanProcessor("http://localhost:4318", [span_count])  # type: ignore[arg-type]


def test_what_is_no_scorer_is_refused() -> None:
    with pytest.raises(ScorerError):
        ScoringSpanProcessor(InMemorySpanExporter(), span_count)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        ScoringSpanProcessor(InMemorySpanExporter(), ["no_such_module:scorer"])


@pytest.mark.parametrize(
    ("other", "warns"),
    [
        (lambda: BatchSpanProcessor(OTLPSpanExporter("http://localhost:4318/v1/traces")), True),
        (lambda: SimpleSpanProcessor(ConsoleSpanExporter()), False),
        (lambda: BatchSpanProcessor(OTLPSpanExporter("http://elsewhere:4318/v1/traces")), False),
    ],
)
def test_it_warns_once_of_spans_that_are_exported_twice(
    other: Callable[[], Any], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = Unsent("http://localhost:4318/v1/traces")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ScoringSpanProcessor(exporter, [span_count]))
    beside = other()
    beside.on_end = lambda span: None
    provider.add_span_processor(beside)

    with caplog.at_level(logging.WARNING, "otel_scorer"):
        for _ in range(3):
            provider.get_tracer("app").start_span("root").end()
    provider.shutdown()

    assert [record.message.startswith("Spans are exported twice") for record in caplog.records] == [True] * warns
