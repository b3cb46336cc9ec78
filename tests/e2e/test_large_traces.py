"""Traces of a hundred thousand spans: scored early where limits say so, as a whole where they allow it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.sidecar import Sidecar, id_of, small_trace
from tests.e2e.sink import Score, Sink

from otel_scorer.testing import make_request, make_span

SPANS = 100_000
PLACE = 0x5EED_0000_0000_0000  # the id of a span that is encoded once, found again, and replaced
PATIENCE = 100.0

pytestmark = pytest.mark.timeout(240)


def requests() -> Iterator[bytes]:
    """The children of a large trace, a thousand in a request."""
    pattern = make_request(make_span("work", trace=1, span=PLACE, parent=1))
    for first in range(2, SPANS + 2, 1000):
        ids = (number.to_bytes(8, "big") for number in range(first, first + 1000))
        # Requests that are put behind each other are one.
        yield b"".join(pattern.replace(PLACE.to_bytes(8, "big"), span_id) for span_id in ids)


def wait_for_verdicts(sink: Sink, number: int) -> None:
    """Without decoding everything for each request that comes."""
    sink.wait_for(lambda: sum(data.count(b"evaluation latency") for data in sink.requests()) >= number, PATIENCE)


def scores_by_trace(sink: Sink) -> dict[bytes, list[Score]]:
    found: dict[bytes, list[Score]] = {}
    for span in sink.raw:
        if span.scope.is_own:
            found.setdefault(span.trace_id, []).append(Score(span))
    return found


def assert_all_forwarded_once(sink: Sink) -> None:
    sent = Counter({id_of(1): SPANS + 1, id_of(2): 3})
    spans = [span for span in sink.raw if not span.scope.is_own]
    assert Counter(span.trace_id for span in spans) == sent
    assert len({(span.trace_id, span.span_id) for span in spans}) == SPANS + 1 + 3


@pytest.mark.parametrize("forwarding", ["passthrough", "hold_trace"])
def test_a24_it_is_scored_at_the_limit_and_all_of_it_is_forwarded(
    forwarding: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "latency", "--root-grace", "0.2", "--forwarding", forwarding)
    )

    for number, data in enumerate(requests()):
        sidecar.send(data)
        if number == 50:
            sidecar.send(small_trace(2))
    sidecar.send(make_request(make_span("agent", trace=1, span=1)))

    wait_for_verdicts(own_sink, 2)
    assert sidecar.stop() == 0
    assert_all_forwarded_once(own_sink)
    scores = scores_by_trace(own_sink)
    [large], [small] = scores[id_of(1)], scores[id_of(2)]
    assert (large.attributes["otel_scorer.close_reason"], large.attributes["otel_scorer.complete"]) == (
        "span_limit",
        False,
    )
    assert (small.attributes["otel_scorer.close_reason"], small.attributes["otel_scorer.complete"]) == (
        "root_quiet",
        True,
    )


def test_a24_with_limits_raised_for_it_all_of_it_is_scored(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        "assembly: {max_spans_per_trace: 200000, max_bytes_per_trace: 512MiB, root_grace: 200ms}\n"
        f"scoring: {{timeout: {PATIENCE:g}s}}\ndrain_timeout: {PATIENCE:g}s\nhold_deadline: {PATIENCE:g}s\n"
        "forwarding: hold_trace\nscorers: [latency, redundant_tool_calls]\n",
        encoding="utf-8",
    )
    sidecar = start("-c", str(config), "--export", own_sink.grpc)

    for data in requests():
        sidecar.send(data)
    sidecar.send(small_trace(2))
    sidecar.send(make_request(make_span("agent", trace=1, span=1)))

    wait_for_verdicts(own_sink, 2)
    sidecar.terminate()
    assert sidecar.wait(PATIENCE) == 0
    assert_all_forwarded_once(own_sink)
    scores = scores_by_trace(own_sink)
    assert {trace: sorted(score.name for score in found) for trace, found in scores.items()} == {
        id_of(1): ["latency", "redundant_tool_calls"],
        id_of(2): ["latency", "redundant_tool_calls"],
    }
    assert {score.attributes["otel_scorer.complete"] for score in scores[id_of(1)]} == {True}
