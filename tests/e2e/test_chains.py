"""Sidecars behind sidecars: evaluation spans that come back in are passed on, and nothing goes round in circles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tests.e2e.sidecar import Sidecar, id_of, small_trace
from tests.e2e.sink import Sink

from otel_scorer.testing import make_request, make_span, read_spans

SCORERS = ("--scorers", "latency", "tool_errors")


def test_evaluation_spans_that_come_back_in_are_forwarded_and_not_scored(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start("--export", own_sink.grpc, *SCORERS, "--root-grace", "0.1")
    sidecar.send(small_trace(1))
    own_sink.wait_for_scores(2, id_of(1))
    (request,) = (data for data in own_sink.requests() if b"evaluation latency" in data)

    sidecar.send(request)
    own_sink.wait_for_scores(4, id_of(1))
    stranger = make_request(make_span("evaluation of theirs", trace=2, span=9, parent=1), scope="otel_scorer")
    sidecar.send(stranger)
    # Whatever would be made of them is made by the time the next trace has its verdicts.
    sidecar.send(small_trace(3))
    own_sink.wait_for_scores(2, id_of(3))

    assert sidecar.stop() == 0
    assert Counter(score.name for score in own_sink.scores_of(id_of(1))) == {"latency": 2, "tool_errors": 2}
    assert len({score.raw.data for score in own_sink.scores_of(id_of(1))}) == 2
    assert len(own_sink.scores_of(id_of(1))) == 4
    assert [span.name for data in own_sink.requests() for span in read_spans(data) if span.trace_id == id_of(2)] == [
        "evaluation of theirs"
    ]


def test_two_sidecars_in_a_row_that_score_the_same_say_the_same(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    second = start("--export", own_sink.grpc, *SCORERS, "--root-grace", "0.5")
    first = start("--export", f"http://{second.grpc}", *SCORERS, "--root-grace", "0.2")
    ids = [id_of(trace) for trace in range(1, 21)]

    for trace in range(1, 21):
        first.send(small_trace(trace))

    own_sink.wait_for_scores(80, *ids)
    assert (first.stop(), second.stop()) == (0, 0)
    assert len(own_sink.spans_of(*ids)) == 60
    copies = Counter(score.raw.data for score in own_sink.scores_of(*ids))
    # A backend that knows an id keeps one of them, and they are equal, so it does not matter which.
    assert len(copies) == 40
    assert set(copies.values()) == {2}


def test_attributes_of_a_sidecar_before_are_replaced_and_not_repeated(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    flags = (*SCORERS, "--root-grace", "0.2", "--forwarding", "hold_root", "--emit", "attributes")
    second = start("--export", own_sink.grpc, *flags)
    first = start("--export", f"http://{second.grpc}", *flags)

    first.send(small_trace(1))

    own_sink.wait_for_spans(3, id_of(1))
    root = next(span for span in own_sink.spans_of(id_of(1)) if span.name == "agent")
    keys = Counter(pair.key for pair in root.attributes)
    assert keys["otel_scorer.latency.value"] == 1
    assert set(keys.values()) == {1}
    assert own_sink.score_names() == []
