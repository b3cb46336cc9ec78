"""
What a span costs while few or many traces are open, and in small and in large traces: received, assembled, forwarded.

CPU time of an engine that holds whole traces, from the bytes of a request to the bytes of what is forwarded. Time is an
argument, so that as many traces are open as wanted: each round closes as many as it opens. Run it as a program to see a
table of microseconds for each span, beside what it takes to group spans by trace id and nothing else: what grows there
too, objects of Python cost.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Protocol

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tests.benchmarks.agent_traces import places_of

from otel_scorer.model.splicing import join_spans
from otel_scorer.model.wire import RawSpan, read_traces
from otel_scorer.pipeline.assembly.closing import AssemblyLimits
from otel_scorer.pipeline.sidecar.engine import Engine, EngineOptions, Forwarding
from otel_scorer.pipeline.sidecar.releasing import in_requests
from otel_scorer.testing import ManualClock, make_request, make_span

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.pipeline.verdicts.emission import Outlet

OPEN_TRACES = [1_000, 10_000, 100_000, 500_000]
TRACE_SIZES = [1, 2, 10, 100, 1_000, 10_000]
OPEN_SPANS = 20_000  # where sizes are compared
SPANS_PER_REQUEST = 500
SPANS_PER_ROUND = 50_000
ROUNDS = 5
GRACE = 2.0
# Ids that are found again in encoded requests, to put others in their place.
PLACE_OF_TRACE = 0xA1B2_C3D4 << 96
PLACE_OF_SPAN = 0x5EED << 48
WEIGHT = 1000  # bytes that such a span is about worth
ATTRIBUTES = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "text": "x" * 300}


class Requests:
    """
    Encoded requests in which only ids change: to make half a million spans in any other way takes a minute.

    Args:
        size: Spans of each trace. Up to 500 all of them come in one request, their root first; large ones have no root.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._sent = 0
        self._traces = max(1, SPANS_PER_REQUEST // size)
        spans = range(self._traces * min(size, SPANS_PER_REQUEST))
        self._data = bytearray(
            make_request(
                *(
                    make_span(
                        "call",
                        trace=PLACE_OF_TRACE + number // size,
                        span=PLACE_OF_SPAN + number,
                        parent=None if number % size == 0 and size <= SPANS_PER_REQUEST else 1,
                        attributes=ATTRIBUTES,
                    )
                    for number in spans
                )
            )
        )
        self._trace_ids = [
            list(places_of(self._data, (PLACE_OF_TRACE + trace).to_bytes(16, "big"))) for trace in range(self._traces)
        ]
        self._span_ids = [next(places_of(self._data, (PLACE_OF_SPAN + number).to_bytes(8, "big"))) for number in spans]

    def take(self, spans: int) -> list[bytes]:
        """Return the next requests, of at least so many spans."""
        found: list[bytes] = []
        for _ in range(-(-spans // len(self._span_ids))):
            first = self._sent // self._size + 1
            for number, places in enumerate(self._trace_ids, start=first):
                for place in places:
                    self._data[place : place + 16] = number.to_bytes(16, "big")
            for number, place in enumerate(self._span_ids, start=self._sent + 1):
                self._data[place : place + 8] = number.to_bytes(8, "big")
            self._sent += len(self._span_ids)
            found.append(bytes(self._data))
        return found


class Relay(Protocol):
    """Holds traces."""

    def ingest(self, data: bytes) -> object:
        """Take a request."""
        ...

    def tick(self) -> None:
        """Send what is due."""
        ...


class Grouping:
    """The least that holds traces: spans by trace id, each trace sent so long after its first span, no questions."""

    def __init__(self, outlet: Outlet, clock: Callable[[], float]) -> None:
        self._outlet = outlet
        self._clock = clock
        self._traces: dict[bytes, tuple[float, list[RawSpan]]] = {}

    def ingest(self, data: bytes) -> None:
        now = self._clock()
        for span in read_traces(data).spans:
            trace = self._traces.get(span.trace_id)
            if trace is None:
                self._traces[span.trace_id] = (now, [span])
            else:
                trace[1].append(span)

    def tick(self) -> None:
        until = self._clock() - GRACE
        due: list[tuple[bytes, list[RawSpan]]] = []
        for trace_id, (begun, spans) in self._traces.items():
            if begun > until:
                break
            due.append((trace_id, spans))
        for trace_id, _ in due:
            del self._traces[trace_id]
        for spans, since in in_requests((spans, len(spans) * WEIGHT, None) for _, spans in due):
            self._outlet(join_spans(spans), len(spans), since)


def grouping(opened: int, size: int, outlet: Outlet, clock: Callable[[], float]) -> Relay:
    del opened, size
    return Grouping(outlet, clock)


def engine(opened: int, size: int, outlet: Outlet, clock: Callable[[], float]) -> Engine:
    # Large traces have no root: they close after the same quiet time.
    limits = AssemblyLimits(root_grace=GRACE, idle_timeout=GRACE, max_traces=10 * opened, max_spans_per_trace=10 * size)
    options = EngineOptions(limits=limits, forwarding=Forwarding.HOLD_TRACE)
    return Engine(options, (), on_spans=outlet, on_scores=outlet, clock=clock)


class Held:
    """
    Something that has so many traces open, and its sender.

    Args:
        opened: How many.
        size: Spans of each.
        made_by: Makes it.
    """

    def __init__(
        self, opened: int, size: int, made_by: Callable[[int, int, Outlet, Callable[[], float]], Relay] = engine
    ) -> None:
        self._clock = ManualClock()
        self.forwarded = 0
        self._relay = made_by(opened, size, self._count, self._clock)
        self._step = GRACE * SPANS_PER_REQUEST / (opened * size)
        self._requests = Requests(size)
        self.handle(self._requests.take(opened * size))
        self.handle(self.next_round())

    @property
    def opened(self) -> int:
        """How many traces are open."""
        assert isinstance(self._relay, Engine)
        return int(self._relay.gauges()[0].value)

    def next_round(self) -> list[bytes]:
        return self._requests.take(SPANS_PER_ROUND)

    def handle(self, requests: list[bytes]) -> float:
        """Receive requests and forward what is due; return the CPU seconds that it takes."""
        begun = time.process_time()
        for data in requests:
            self._relay.ingest(data)
            self._clock.advance(self._step)
            self._relay.tick()
        return time.process_time() - begun

    def _count(self, data: bytes, spans: int, since: object) -> None:
        self.forwarded += spans


def sizes() -> list[tuple[int, int]]:
    return [(max(1, OPEN_SPANS // size), size) for size in TRACE_SIZES]


@pytest.mark.parametrize("opened", OPEN_TRACES)
def bench_traces_of_one_span(benchmark: BenchmarkFixture, opened: int) -> None:
    compare(benchmark, opened, 1)


@pytest.mark.parametrize(("opened", "size"), sizes(), ids=map(str, TRACE_SIZES))
def bench_traces_of_many_spans(benchmark: BenchmarkFixture, opened: int, size: int) -> None:
    compare(benchmark, opened, size)


def compare(benchmark: BenchmarkFixture, opened: int, size: int) -> None:
    held = Held(opened, size)
    benchmark.pedantic(held.handle, setup=lambda: ((held.next_round(),), {}), rounds=ROUNDS)

    assert abs(held.opened - opened) <= SPANS_PER_REQUEST // size + 1
    assert held.forwarded >= SPANS_PER_ROUND - 2 * size


def main() -> None:
    """Print what a span costs, the fastest round of each."""
    # As `serve` has it.
    gc.freeze()
    gc.set_threshold(250_000, 50, 100)
    for title, cases in {"open traces of one span": [(opened, 1) for opened in OPEN_TRACES], "spans": sizes()}.items():
        print(f"{title:>24}  us/span  grouped by id only")
        for opened, size in cases:
            # One after the other, so that both meet the same neighbours on the processor.
            best = [1e9, 1e9]
            both = [Held(opened, size), Held(opened, size, grouping)]
            for _ in range(ROUNDS):
                best = [min(least, held.handle(held.next_round())) for least, held in zip(best, both, strict=True)]
            ours, bare = (seconds / SPANS_PER_ROUND * 1e6 for seconds in best)
            print(f"{opened if title != 'spans' else size:>24,}  {ours:7.2f}  {bare:18.2f}", flush=True)


if __name__ == "__main__":
    main()
