"""What it costs to type all spans of a trace, and to read all its tool calls, per capture and so per dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.dialects.captured import CAPTURES, expectations, requests_of, traces_of

from otel_scorer.dialects import READER
from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.otlp_json import decode_object
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import RawSpan, Signal, read_traces

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from otel_scorer.model.trace import Span

NAMES = sorted(expectations()["captures"].keys() & {path.stem for path in CAPTURES.glob("*.json")})


def raw_spans(name: str) -> list[RawSpan]:
    return [
        span
        for request in requests_of(name)
        if request["signal"] == Signal.TRACES
        for span in read_traces(decode_object(Signal.TRACES, request["body"]).data).spans
    ]


def type_all(spans: list[Span]) -> None:
    for span in spans:
        READER.span_type(span)


@pytest.mark.parametrize("name", NAMES)
def bench_typing_all_spans_from_their_bytes(benchmark: BenchmarkFixture, name: str) -> None:
    raw = raw_spans(name) * 20
    benchmark.extra_info["spans"] = len(raw)

    # A span is parsed when it is first looked at, so each round needs new views; making them is not what is measured.
    measure: Callable[..., object] = benchmark.pedantic
    measure(type_all, setup=lambda: ((spans_from_raw(raw),), {}), rounds=20)


@pytest.mark.parametrize("name", NAMES)
def bench_reading_all_tool_calls(benchmark: BenchmarkFixture, name: str) -> None:
    logs = {(span.trace_id, span.span_id): span.logs for trace in traces_of(name) for span in trace.spans}
    raw: dict[bytes, list[RawSpan]] = {}
    for span in raw_spans(name):
        raw.setdefault(span.trace_id, []).append(span)
    benchmark.extra_info["spans"] = sum(map(len, raw.values()))

    def read() -> int:
        count = 0
        for members in raw.values():
            trace = Trace(spans_from_raw(members), READER)
            for span in trace.spans:
                span.logs = logs[span.trace_id, span.span_id]
            count += len(trace.tool_calls)
        return count

    benchmark(read)
