"""Spans wait for their verdicts, no longer than they may; every verdict leaves once in each encoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.e2e.sidecar import SCORERS, Gate, Sidecar, id_of, small_trace
from tests.e2e.sink import Sink, plain

from otel_scorer import search_traces
from otel_scorer.testing import make_request, make_span, read_spans

TOOL = {"gen_ai.operation.name": "execute_tool"}
GATED = str(SCORERS / "gated.py")
KINDS = str(SCORERS / "kinds.py")


def agent(trace: int) -> bytes:
    return make_request(
        make_span("search", trace=trace, span=2, parent=1, end=0.5, attributes=TOOL),
        make_span("agent", trace=trace, span=1, attributes={"output.value": "Take the train"}),
    )


def on_span(span: Span) -> tuple[set[str], Counter[str]]:
    """Return the names of the verdicts that a span carries as attributes, and as events."""
    keys = {pair.key.split(".")[1] for pair in span.attributes if pair.key.startswith("otel_scorer.")}
    events = [event for event in span.events if event.name == "gen_ai.evaluation.result"]
    named = [
        pair.value.string_value for event in events for pair in event.attributes if pair.key.endswith("evaluation.name")
    ]
    return keys - {"close_reason", "complete"}, Counter(named)


@pytest.mark.parametrize("emit", [("attributes",), ("events",), ("attributes", "events")])
@pytest.mark.parametrize("forwarding", ["hold_root", "hold_trace"])
def test_each_verdict_leaves_once_in_each_encoding(
    forwarding: str, emit: tuple[str, ...], own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", KINDS, "--root-grace", "0.3"),
        *("--forwarding", forwarding, "--emit", *emit),
    )
    root_verdicts = {"fine", "share", "tone", "broken"}
    child_verdicts = {"per_tool", "child"}

    sidecar.send(agent(1))

    own_sink.wait_for_spans(2, id_of(1))
    if forwarding == "hold_root":
        own_sink.wait_for_scores(2, id_of(1))
    assert sidecar.stop() == 0
    spans = {span.name: span for span in own_sink.spans_of(id_of(1))}
    assert len(own_sink.spans_of(id_of(1))) == 2
    on_root, on_child = on_span(spans["agent"]), on_span(spans["search"])
    assert on_root[0] == (root_verdicts if "attributes" in emit else set())
    assert on_root[1] == (Counter(root_verdicts) if "events" in emit else Counter())
    if forwarding == "hold_trace":
        assert on_child[0] == (child_verdicts if "attributes" in emit else set())
        assert on_child[1] == (Counter(child_verdicts) if "events" in emit else Counter())
        assert own_sink.score_names() == []
    else:
        # The child had left already: nothing can be written on it.
        assert on_child == (set(), Counter())
        assert own_sink.score_names() == sorted(child_verdicts)
        assert {score.span.parent_span_id for score in own_sink.scores_of(id_of(1))} == {spans["search"].span_id}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("emit", ["attributes", "events"])
def test_a_backend_that_refuses_spans_for_what_is_written_on_them_gets_them_as_they_were(
    emit: str, protocol: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    own_sink.tell("plain")
    sidecar = start(
        *("--export", own_sink.grpc if protocol == "grpc" else f"{own_sink.http}/otlp", "--scorers", "latency"),
        *("--root-grace", "0.1", "--forwarding", "hold_trace", "--emit", emit),
    )

    sidecar.send(small_trace(1))

    own_sink.wait_for_spans(3, id_of(1))
    assert sidecar.stop() == 0
    sent = {span.span_id: span for span in read_spans(small_trace(1))}
    assert {span.span_id: span for span in own_sink.spans_of(id_of(1))} == sent
    assert "gets spans without their verdicts" in sidecar.log


def test_children_do_not_wait_for_their_root(own_sink: Sink, start: Callable[..., Sidecar], gate: Gate) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", GATED, "--root-grace", "0.1", "--hold-deadline", "30"),
        *("--forwarding", "hold_root", "--emit", "attributes"),
        environment=gate.environment,
    )

    sidecar.send(agent(1))
    gate.wait_for_scorer()

    own_sink.wait_for_spans(1, id_of(1))
    assert [span.name for span in own_sink.spans_of(id_of(1))] == ["search"]
    gate.open()
    own_sink.wait_for_spans(2, id_of(1))
    assert on_span(own_sink.spans_of(id_of(1))[1])[0] == {"quick", "gated"}
    assert sidecar.stop() == 0
    assert own_sink.score_names() == []


@pytest.mark.parametrize("forwarding", ["hold_root", "hold_trace"])
def test_a_slow_scorer_does_not_keep_spans_longer_than_the_deadline(
    forwarding: str, own_sink: Sink, start: Callable[..., Sidecar], gate: Gate
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", GATED, "--root-grace", "0.1", "--hold-deadline", "3"),
        *("--forwarding", forwarding, "--emit", "attributes", "events"),
        environment=gate.environment,
    )

    sidecar.send(agent(1))
    assert gate.wait_for_scorer() == id_of(1).hex()
    own_sink.wait_for_spans(2, id_of(1))
    gate.open()
    (late,) = own_sink.wait_for_scores(1, id_of(1))

    assert sidecar.stop() == 0
    spans = {span.name: span for span in own_sink.spans_of(id_of(1))}
    # The quick scorer's verdict was in by then; it does not wait for the slow one.
    assert on_span(spans["agent"]) == ({"quick"}, Counter({"quick": 1}))
    assert (late.name, late.value, late.span.parent_span_id) == ("gated", "let through", spans["agent"].span_id)
    assert len(own_sink.scores_of(id_of(1))) == 1


def test_evaluation_spans_may_come_beside_attributes(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "latency", "--root-grace", "0.1"),
        *("--forwarding", "hold_root", "--emit", "attributes", "evaluation_span"),
    )

    sidecar.send(agent(1))

    (score,) = own_sink.wait_for_scores(1, id_of(1))
    own_sink.wait_for_spans(2, id_of(1))
    assert sidecar.stop() == 0
    root = next(span for span in own_sink.spans_of(id_of(1)) if span.name == "agent")
    attributes = {pair.key: plain(pair.value) for pair in root.attributes}
    assert attributes["otel_scorer.latency.value"] == score.value == 1.0
    assert own_sink.score_names() == ["latency"]


def test_a_late_root_leaves_at_once_and_its_verdicts_were_evaluation_spans(
    own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "tool_errors", "--idle-timeout", "0.2", "--root-grace", "0.2"),
        *("--forwarding", "hold_root", "--emit", "attributes"),
    )

    sidecar.send(make_request(make_span("search", trace=1, span=2, parent=1, attributes=TOOL)))
    (score,) = own_sink.wait_for_scores(1, id_of(1))
    sidecar.send(make_request(make_span("agent", trace=1, span=1)))

    own_sink.wait_for_spans(2, id_of(1))
    assert sidecar.stop() == 0
    assert score.attributes["otel_scorer.close_reason"] == "idle"
    assert score.attributes["otel_scorer.complete"] is False
    assert score.span.parent_span_id == (2).to_bytes(8, "big")
    assert own_sink.score_names() == ["tool_errors"]
    assert on_span(own_sink.spans_of(id_of(1))[1]) == (set(), Counter())


def test_late_spans_have_their_trace_scored_again_if_asked_for(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text(
        "assembly: {late_spans: rescore, root_grace: 200ms}\n"
        "forwarding: hold_root\nemit: [attributes]\nscorers: [tool_errors]\n",
        encoding="utf-8",
    )
    store = tmp_path / "traces.db"
    sidecar = start("-c", str(config), "--export", own_sink.grpc, "--store", str(store))

    sidecar.send(make_request(make_span("agent", trace=1, span=1)))
    own_sink.wait_for_spans(1, id_of(1))
    sidecar.send(make_request(make_span("search", trace=1, span=2, parent=1, status="ERROR", attributes=TOOL)))
    (score,) = own_sink.wait_for_scores(1, id_of(1))
    assert sidecar.stop() == 0

    root = own_sink.spans_of(id_of(1))[0]
    assert {pair.key: plain(pair.value) for pair in root.attributes}["otel_scorer.tool_errors.value"] is True
    assert (score.value, score.attributes["otel_scorer.revision"]) == (False, 2)
    [kept] = search_traces(store=store)
    assert (len(kept.spans), [each.value for each in kept.info.assessments]) == (2, [False])


def test_whole_traces_leave_in_one_request_without_any_scorer(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start("--export", own_sink.grpc, "--forwarding", "hold_trace", "--root-grace", "0.2")

    for trace in range(1, 6):
        sidecar.send(make_request(make_span("search", trace=trace, span=2, parent=1)))
    for trace in range(1, 6):
        sidecar.send(make_request(make_span("agent", trace=trace, span=1)))

    own_sink.wait_for_spans(10, *map(id_of, range(1, 6)))
    assert sidecar.stop() == 0
    for data in own_sink.requests():
        counted = Counter(span.trace_id for span in read_spans(data))
        assert set(counted.values()) == {2}
