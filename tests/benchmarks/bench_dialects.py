"""
What traces cost per capture, and so per dialect: typing all spans, reading all tool calls, and a worker's whole path.

Typing decodes no payload, so its cost is that of parsing the spans; dialects are looked up once per scope and marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.dialects.captured import CAPTURES, expectations, requests_of, traces_of

from otel_scorer.dialects import READER
from otel_scorer.model.decode import spans_from_raw, spans_from_request
from otel_scorer.model.otlp_json import decode_object
from otel_scorer.model.splicing import join_spans
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import RawSpan, Signal, read_traces
from otel_scorer.scorers.builtin import BUILT_IN

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


@pytest.mark.parametrize("name", NAMES)
def bench_scoring_with_the_built_in_scorers(benchmark: BenchmarkFixture, name: str) -> None:
    members: dict[bytes, list[RawSpan]] = {}
    for span in raw_spans(name):
        members.setdefault(span.trace_id, []).append(span)
    requests = [join_spans(spans) for spans in members.values()]
    scorers = [made.code for made in BUILT_IN.values()]
    benchmark.extra_info["spans"] = sum(map(len, members.values()))

    def score() -> None:
        for request in requests:
            trace = Trace(spans_from_request(request), READER)
            for judge in scorers:
                judge(trace)
            trace.let_go()

    benchmark(score)
