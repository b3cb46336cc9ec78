"""
What the processor costs an application, side by side in one run with the SDK's BatchSpanProcessor, and with Logfire's
tail sampling and the online evaluation of pydantic-evals where these are installed (requirements/in-app.txt).

On the caller's thread: CPU time of the thread that starts and ends the spans; what exporters and scorers use elsewhere
does not count. For an application of eight threads: spans per second of wall time, everything included. Rounds of all
variants alternate, so that a busy machine is unfair to all of them alike. Run it as a program to see the tables.
"""

from __future__ import annotations

import gc
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import set_span_in_context

from otel_scorer.processor import ScoringSpanProcessor
from otel_scorer.scorers.base import scorer

SPANS_PER_TRACE = 10
TRACES_PER_ROUND = 200
ROUNDS = 15
THREADS = 8
ATTRIBUTES = {f"attribute.{number}": f"value {number}" for number in range(8)}


class Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def no_failures(trace: object) -> bool:
    return True


class SpanInfo(Protocol):
    """What Logfire tells about a span, of which only this is needed here."""

    event: str
    span: ReadableSpan


class TailSampling(Protocol):
    """Logfire's processor, which keeps the spans of a trace until its root has ended."""

    def __call__(
        self, processor: SpanProcessor, get_tail_sample_rate: Callable[[SpanInfo], float]
    ) -> SpanProcessor: ...


class Evaluate(Protocol):
    """The decorator of pydantic-evals that has each call of a function evaluated in the background."""

    def __call__(self, *evaluators: object) -> Callable[[Callable[[], None]], Callable[[], None]]: ...


def tail_sampling() -> SpanProcessor:
    """Make Logfire's processor, which passes everything on once the root has ended."""
    made: TailSampling = import_module("logfire.sampling._tail_sampling").TailSamplingProcessor

    def keep(info: SpanInfo) -> float:
        return 1.0 if info.event == "end" and info.span.parent is None else 0.0

    return made(BatchSpanProcessor(Nowhere()), keep)


def evaluated_online(root: Callable[[], None]) -> Callable[[], None]:
    """Have pydantic-evals evaluate each call of a function in the background."""
    evaluator: type = import_module("pydantic_evals.evaluators").Evaluator
    evaluate: Evaluate = import_module("pydantic_evals.online").evaluate

    def always_true(self: object, ctx: object) -> bool:
        return True

    no_failures_there = type("NoFailures", (evaluator,), {"evaluate": always_true})
    return evaluate(no_failures_there())(root)


def as_it_is(root: Callable[[], None]) -> Callable[[], None]:
    return root


VARIANTS: dict[str, Callable[[], SpanProcessor | None]] = {
    "no processor": lambda: None,
    "BatchSpanProcessor": lambda: BatchSpanProcessor(Nowhere()),
    "scoring, hold_root": lambda: ScoringSpanProcessor(Nowhere(), [no_failures]),
    "scoring, hold_trace": lambda: ScoringSpanProcessor(Nowhere(), [no_failures], forwarding="hold_trace"),
    "scoring, passthrough": lambda: ScoringSpanProcessor(Nowhere(), [no_failures], forwarding="passthrough"),
    "scoring, sampling 0": lambda: ScoringSpanProcessor(Nowhere(), [scorer(no_failures, sample_rate=0.0)]),
}
ONLINE = "pydantic-evals online"
if find_spec("logfire") is not None:
    VARIANTS["Logfire's tail sampling"] = tail_sampling
if find_spec("pydantic_evals") is not None:
    VARIANTS[ONLINE] = lambda: BatchSpanProcessor(Nowhere())


def nanoseconds_per_span(
    provider: TracerProvider,
    traces: int = TRACES_PER_ROUND,
    wrapped: Callable[[Callable[[], None]], Callable[[], None]] = as_it_is,
) -> float:
    tracer = provider.get_tracer("benchmark")

    def a_trace() -> None:
        with tracer.start_as_current_span("root", attributes=ATTRIBUTES):
            for _ in range(SPANS_PER_TRACE - 1):
                with tracer.start_as_current_span("child", attributes=ATTRIBUTES):
                    pass

    run = wrapped(a_trace)
    begin = time.thread_time_ns()
    for _ in range(traces):
        run()
    return (time.thread_time_ns() - begin) / (traces * SPANS_PER_TRACE)


def spans_per_second(provider: TracerProvider, threads: int = THREADS) -> float:
    """Return how fast an application of several threads makes spans that do nothing else."""
    workers = [
        threading.Thread(target=nanoseconds_per_span, args=(provider, TRACES_PER_ROUND // 4)) for _ in range(threads)
    ]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * (TRACES_PER_ROUND // 4) * SPANS_PER_TRACE / (time.perf_counter() - begin)


def kilobytes_per_open_trace(processor: SpanProcessor, traces: int = 200) -> float:
    """Return what a trace whose root is open and whose other spans have ended keeps in memory."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmark")
    gc.collect()
    tracemalloc.start()
    roots = [tracer.start_span("root", attributes=ATTRIBUTES) for _ in range(traces)]
    for root in roots:
        for _ in range(SPANS_PER_TRACE - 1):
            tracer.start_span("child", set_span_in_context(root), attributes=ATTRIBUTES).end()
    provider.force_flush()
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for root in roots:
        root.end()
    provider.shutdown()
    return kept / traces / 1024


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
            wrapped = evaluated_online if name == ONLINE else as_it_is
            spans[name].append(nanoseconds_per_span(provider, wrapped=wrapped) / 1000)
            provider.force_flush()
    for provider in providers.values():
        provider.shutdown()
    return {name: min(costs) for name, costs in calls.items()}, {
        name: statistics.median(costs) for name, costs in spans.items()
    }


def measure_whole(rounds: int = 5) -> tuple[dict[str, float], dict[str, float]]:
    """Return per variant spans per second of an application of several threads (median), and KB per open trace."""
    variants = {name: make for name, make in VARIANTS.items() if name != ONLINE}  # no different from BatchSpanProcessor
    speed: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, make in variants.items():
            provider = TracerProvider(shutdown_on_exit=False)
            if (processor := make()) is not None:
                provider.add_span_processor(processor)
            gc.collect()
            speed[name].append(spans_per_second(provider))
            provider.shutdown()
    memory = {name: kilobytes_per_open_trace(make() or SpanProcessor()) for name, make in variants.items()}
    return {name: statistics.median(found) for name, found in speed.items()}, memory


def whole_table(speed: dict[str, float], memory: dict[str, float]) -> str:
    lines = [f"{'':24}{f'spans/s, {THREADS} threads':>24}{'ratio':>7}{'KB per open trace':>20}"]
    for name, found in speed.items():
        ratio = found / speed["BatchSpanProcessor"]
        lines.append(f"{name:24}{found:>24,.0f}{ratio:>7.2f}{memory[name]:>20.1f}")
    return "\n".join(lines)


def bench_an_application_of_eight_threads(capsys: pytest.CaptureFixture[str]) -> None:
    speed, memory = measure_whole()

    with capsys.disabled():
        print(whole_table(speed, memory))


def bench_cost_on_the_callers_thread(capsys: pytest.CaptureFixture[str]) -> None:
    calls, spans = measure()

    with capsys.disabled():
        print(table(calls, spans))


def table(calls: dict[str, float], spans: dict[str, float]) -> str:
    columns = (("on_start + on_end", calls), ("whole span", spans))
    lines = [f"{'us per span':24}" + "".join(f"{title:>20}{'added':>8}{'ratio':>7}" for title, _ in columns)]
    for name in VARIANTS:
        line = f"{name:24}"
        for _, costs in columns:
            batch = costs["BatchSpanProcessor"]
            line += f"{costs[name]:>20.2f}{costs[name] - batch:>+8.2f}{costs[name] / batch:>7.2f}"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(*measure()))
    print()
    print(whole_table(*measure_whole()))
