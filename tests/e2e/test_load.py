"""Much at once: many clients, many requests, large spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tests.e2e.sidecar import Sidecar, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Sink

from otel_scorer.testing import make_request, make_span


@pytest.mark.parametrize("forwarding", ["passthrough", "hold_root", "hold_trace"])
def test_a_thousand_small_requests_of_many_clients_at_once(
    forwarding: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "latency", "tool_errors", "--root-grace", "0.2"),
        *("--forwarding", forwarding),
    )
    spans = [(trace, span) for span in (2, 3, 1) for trace in range(1, 351)]

    def send(part: int) -> None:
        with grpc.insecure_channel(sidecar.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            export = method_of(channel)
            for trace, span in spans[part::8]:
                parent = None if span == 1 else 1
                export(make_request(make_span("work", trace=trace, span=span, parent=parent)), timeout=WAIT)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))

    ids = [id_of(trace) for trace in range(1, 351)]
    own_sink.wait_for_scores(700, *ids)
    own_sink.wait_for_spans(1050, *ids)
    assert sidecar.stop() == 0
    assert Counter((span.trace_id, span.span_id[-1]) for span in own_sink.raw_of(*ids)) == Counter(
        (id_of(trace), span) for trace, span in spans
    )
    assert Counter((score.raw.trace_id, score.name) for score in own_sink.scores_of(*ids)) == Counter(
        (trace, name) for trace in ids for name in ("latency", "tool_errors")
    )


@pytest.mark.parametrize("forwarding", ["passthrough", "hold_trace"])
def test_spans_of_many_megabytes_pass_and_are_scored(
    forwarding: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "latency", "tool_errors", "--root-grace", "0.2"),
        *("--forwarding", forwarding),
    )
    large = {"text": "x" * 12_000_000}

    sidecar.send(make_request(make_span("large", trace=1, span=2, parent=1, attributes=large)))
    sidecar.send(
        make_request(
            make_span("large", trace=1, span=3, parent=1, attributes=large), make_span("agent", trace=1, span=1)
        )
    )
    sidecar.send(small_trace(2))

    scores = own_sink.wait_for_scores(4, id_of(1), id_of(2))
    own_sink.wait_for_spans(6, id_of(1), id_of(2))
    assert sidecar.stop() == 0
    assert {score.error for score in scores} == {None}
    assert len(own_sink.spans_of(id_of(1))) == 3


def test_a_trace_over_the_limit_is_scored_early_and_the_rest_is_forwarded(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", "tool_errors", "--forwarding", "hold_trace")
    children = [make_span("work", trace=1, span=number, parent=1) for number in range(2, 10_102)]

    sidecar.send(make_request(*children, make_span("agent", trace=1, span=1)))

    (score,) = own_sink.wait_for_scores(1, id_of(1))
    own_sink.wait_for_spans(10_101, id_of(1))
    assert sidecar.stop() == 0
    assert score.attributes["otel_scorer.close_reason"] == "span_limit"
    assert score.attributes["otel_scorer.complete"] is False
    assert len(own_sink.raw_of(id_of(1))) == 10_101
    assert own_sink.score_names() == ["tool_errors"]
