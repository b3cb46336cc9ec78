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

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
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


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median cost of one span per variant, in microseconds."""
    providers: dict[str, TracerProvider] = {}
    for name, make in VARIANTS.items():
        providers[name] = TracerProvider(shutdown_on_exit=False)
        if (processor := make()) is not None:
            providers[name].add_span_processor(processor)
    costs: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, provider in providers.items():
            gc.collect()
            costs[name].append(nanoseconds_per_span(provider) / 1000)
            provider.force_flush()
    for provider in providers.values():
        provider.shutdown()
    return {name: statistics.median(values) for name, values in costs.items()}


def bench_cost_on_the_callers_thread(capsys: pytest.CaptureFixture[str]) -> None:
    costs = measure()

    with capsys.disabled():
        print(table(costs))
    assert costs["scoring, hold_root"] - costs["BatchSpanProcessor"] < 3.0


def table(costs: dict[str, float]) -> str:
    batch = costs["BatchSpanProcessor"]
    lines = [f"{'':24}{'us/span':>10}{'added':>10}{'ratio':>8}"]
    lines += [f"{name:24}{cost:>10.2f}{cost - batch:>+10.2f}{cost / batch:>8.2f}" for name, cost in costs.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(measure()))
