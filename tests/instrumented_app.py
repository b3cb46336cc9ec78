"""An instrumented application with the processor in it, and scorers that wait until a test lets them go."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from otel_scorer.model.trace import Trace
from otel_scorer.processor import ScoringSpanProcessor

WAIT = 20.0


def span_count(trace: Trace) -> int:
    return len(trace.spans)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


class Exporter(InMemorySpanExporter):
    """Keeps what it gets, and lets a test wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._changed:
            result = super().export(spans)
            self._changed.notify_all()
        return result

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.get_finished_spans()]

    def wait_for(self, name: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: name in self.names, WAIT), self.names


class App:
    """An application with the processor: everything that it exported, by name and in order."""

    def __init__(
        self, *scorers: Any, sampler: Sampler | None = None, exporter: SpanExporter | None = None, **options: Any
    ) -> None:
        self.exporter = Exporter()
        self.processor = ScoringSpanProcessor(exporter or self.exporter, scorers or [span_count], **options)
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("app")

    def trace(self, children: int = 2) -> int:
        with self.tracer.start_as_current_span("root") as root:
            for number in range(children):
                with self.tracer.start_as_current_span(f"child {number}"):
                    pass
        return root.get_span_context().trace_id

    @property
    def exported(self) -> list[ReadableSpan]:
        assert self.processor.force_flush(int(WAIT * 1000))
        return list(self.exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.exported]

    @property
    def names_so_far(self) -> list[str]:
        """What is exported without waiting for any verdict."""
        # Spans of this scope leave at once, so whatever was sent before is there when this one is.
        self.provider.get_tracer("otel_scorer").start_span("marker").end()
        self.processor.force_flush(1)
        self.exporter.wait_for("marker")
        names = self.exporter.names
        self.exporter.clear()
        return [name for name in names if name != "marker"]

    def __getitem__(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.exported if span.name == name]
        return span


class Gate:
    """A scorer that waits until the test lets it go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def slow(self, trace: Trace) -> bool:
        self.entered.set()
        return self.opened.wait(WAIT)
