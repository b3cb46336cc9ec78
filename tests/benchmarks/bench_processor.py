"""
What the processor costs the application's thread, side by side with the SDK's BatchSpanProcessor in one run.

CPU time of the thread that starts and ends the spans: what exporters and scorers use elsewhere does not count. Rounds
of all variants alternate, so that a busy machine is unfair to all of them alike. Run it as a program to see a table.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_scorer.processor import ScoringSpanProcessor
from otel_scorer.scorers.base import scorer

SPANS_PER_TRACE = 10
TRACES_PER_ROUND = 200
ROUNDS = 15
ATTRIBUTES = {f"attribute.{number}": f"value {number}" for number in range(8)}


class Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def no_failures(trace: object) -> bool:
    return True


VARIANTS: dict[str, Callable[[], SpanProcessor | None]] = {
    "no processor": lambda: None,
    "BatchSpanProcessor": lambda: BatchSpanProcessor(Nowhere()),
    "scoring, hold_root": lambda: ScoringSpanProcessor(Nowhere(), [no_failures]),
    "scoring, hold_trace": lambda: ScoringSpanProcessor(Nowhere(), [no_failures], forwarding="hold_trace"),
    "scoring, sampling 0": lambda: ScoringSpanProcessor(Nowhere(), [scorer(no_failures, sample_rate=0.0)]),
}


def nanoseconds_per_span(provider: TracerProvider, traces: int = TRACES_PER_ROUND) -> float:
    tracer = provider.get_tracer("benchmark")
    begin = time.thread_time_ns()
    for _ in range(traces):
        with tracer.start_as_current_span("root", attributes=ATTRIBUTES):
            for _ in range(SPANS_PER_TRACE - 1):
                with tracer.start_as_current_span("child", attributes=ATTRIBUTES):
                    pass
    return (time.thread_time_ns() - begin) / (traces * SPANS_PER_TRACE)


class Recorder(SpanProcessor):
    """Keeps the calls that a processor gets, to be repeated."""

    def __init__(self) -> None:
        self.calls: list[tuple[bool, Any]] = []

    def on_start(self, span: Span, parent_context: object = None) -> None:
        self.calls.append((True, span))

    def on_end(self, span: ReadableSpan) -> None:
        self.calls.append((False, span))


def nanoseconds_per_call_pair(processor: SpanProcessor, calls: list[tuple[bool, Any]], repeat: int = 30) -> float:
    """Return the cost of on_start and on_end alone, one trace over and over, next to nothing else."""
    begin = time.thread_time_ns()
    for _ in range(repeat):
        for is_start, span in calls:
            if is_start:
                processor.on_start(span)
            else:
                processor.on_end(span)
    return (time.thread_time_ns() - begin) / (repeat * len(calls) / 2)


def measure(rounds: int = ROUNDS) -> tuple[dict[str, float], dict[str, float]]:
    """Return per variant the cost of the two calls (best) and of a whole span (median), in microseconds."""
    recorder = Recorder()
    recording = TracerProvider(shutdown_on_exit=False)
    recording.add_span_processor(recorder)
    nanoseconds_per_span(recording, 1)
    providers: dict[str, TracerProvider] = {}
    processors = {name: make() or SpanProcessor() for name, make in VARIANTS.items()}
    for name, processor in processors.items():
        providers[name] = TracerProvider(shutdown_on_exit=False)
        providers[name].add_span_processor(processor)
    calls: dict[str, list[float]] = {name: [] for name in VARIANTS}
    spans: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, provider in providers.items():
            gc.collect()
            calls[name].append(nanoseconds_per_call_pair(processors[name], recorder.calls) / 1000)
            spans[name].append(nanoseconds_per_span(provider) / 1000)
            provider.force_flush()
    for provider in providers.values():
        provider.shutdown()
    return {name: min(costs) for name, costs in calls.items()}, {
        name: statistics.median(costs) for name, costs in spans.items()
    }


def bench_cost_on_the_callers_thread(capsys: pytest.CaptureFixture[str]) -> None:
    calls, spans = measure()

    with capsys.disabled():
        print(table(calls, spans))


def table(calls: dict[str, float], spans: dict[str, float]) -> str:
    columns = (("on_start + on_end", calls), ("whole span", spans))
    lines = [f"{'us per span':22}" + "".join(f"{title:>20}{'added':>8}{'ratio':>7}" for title, _ in columns)]
    for name in VARIANTS:
        line = f"{name:22}"
        for _, costs in columns:
            batch = costs["BatchSpanProcessor"]
            line += f"{costs[name]:>20.2f}{costs[name] - batch:>+8.2f}{costs[name] / batch:>7.2f}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(*measure()))
