"""What a span costs between socket and socket: validated, sliced, grouped into traces and joined again."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from otel_scorer.model.splicing import join_spans
from otel_scorer.model.wire import read_traces
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, TraceAssembler
from otel_scorer.testing import make_request, make_span

TRACES = 100
SPANS_PER_TRACE = 10


@pytest.fixture(scope="module")
def request_bytes() -> bytes:
    return make_request(
        *(
            make_span(
                "call",
                trace=trace,
                span=trace * SPANS_PER_TRACE + number,
                parent=None if number == 0 else trace * SPANS_PER_TRACE,
                attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "text": "x" * 500},
            )
            for trace in range(1, TRACES + 1)
            for number in range(SPANS_PER_TRACE)
        )
    )


def bench_reading_a_request(benchmark: BenchmarkFixture, request_bytes: bytes) -> None:
    request = benchmark(read_traces, request_bytes)

    assert len(request.spans) == TRACES * SPANS_PER_TRACE


def bench_joining_spans_into_a_request(benchmark: BenchmarkFixture, request_bytes: bytes) -> None:
    spans = read_traces(request_bytes).spans

    joined = benchmark(join_spans, spans)

    assert len(joined) <= len(request_bytes)


def bench_assembling_traces(benchmark: BenchmarkFixture, request_bytes: bytes) -> None:
    spans = read_traces(request_bytes).spans

    def assemble() -> int:
        assembler = TraceAssembler(AssemblyLimits(root_grace=1.0))
        assembler.add(spans, now=0.0)
        return len(assembler.due(now=1.0))

    closed = benchmark(assemble)

    assert closed == TRACES
