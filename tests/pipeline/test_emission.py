"""Where each verdict goes: onto its target while that is here, else into a span of its own."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import Counted, a_decision

from otel_scorer.encoders.verdict import Explanations
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.assembly.assembler import ClosedTrace, CloseReason
from otel_scorer.pipeline.verdicts.emission import Emission, Emit, Emitter
from otel_scorer.testing import CollectingSink, make_raw, make_span

ROOT, CHILD = make_raw(make_span("root", span=1), make_span("child", span=2, parent=1))


def a_trace(*spans: RawSpan) -> ClosedTrace[RawSpan]:
    return ClosedTrace(ROOT.trace_id, list(spans), CloseReason.IDLE, complete=False)


def an_emitter(*emit: Emit, explanations: Explanations = Explanations.FULL) -> tuple[Emitter, CollectingSink]:
    sink = CollectingSink()
    return Emitter(Emission(frozenset(emit), explanations), sink.on_scores), sink


def test_nothing_leaves_before_it_is_flushed_and_then_all_of_it_in_one_request() -> None:
    emitter, sink = an_emitter(Emit.EVALUATION_SPAN)

    for _ in range(3):
        emitter.emit(a_trace(ROOT, CHILD), [a_decision(True)])
    assert sink.score_requests == []
    emitter.flush()
    emitter.flush()

    assert len(sink.score_requests) == 1
    assert len(sink.scores) == 3


def test_the_same_verdict_twice_is_the_same_bytes_twice() -> None:
    emitter, sink = an_emitter(Emit.EVALUATION_SPAN)

    for order in ([ROOT, CHILD], [CHILD, ROOT]):
        emitter.emit(a_trace(*order), [a_decision(True)])
        emitter.flush()

    assert sink.score_requests[0] == sink.score_requests[1]


def test_evaluation_spans_last_as_long_as_they_are_told_to() -> None:
    sink = CollectingSink()
    emitter = Emitter(Emission(span_lasts_ns=7), sink.on_scores)

    emitter.emit(a_trace(ROOT, CHILD), [a_decision(True)])
    emitter.flush()

    [score] = sink.scores
    assert score.end_time_unix_nano - score.start_time_unix_nano == 7


def test_a_verdict_on_a_span_that_is_not_here_goes_to_the_root_and_is_counted() -> None:
    emitter, sink = an_emitter(Emit.EVALUATION_SPAN)
    counted = Counted()

    emitter.emit(a_trace(CHILD, ROOT), [a_decision(True, span_id="f" * 16)])
    emitter.emit(a_trace(CHILD, ROOT), [a_decision(True, span_id=CHILD.span_id.hex())])
    emitter.flush()

    assert [score.parent_span_id for score in sink.scores] == [ROOT.span_id, CHILD.span_id]
    assert counted("encoder.unknown_targets") == 1


def test_verdicts_on_a_trace_of_nothing_but_our_own_spans_are_dropped_and_counted() -> None:
    emitter, sink = an_emitter(Emit.EVALUATION_SPAN)
    counted = Counted()
    [own] = make_raw(make_span("own", span=3, parent=1), scope="otel_scorer")

    emitter.emit(a_trace(own), [a_decision(True, False)])
    emitter.flush()

    assert sink.scores == []
    assert counted("encoder.verdicts_dropped{reason=no_span}") == 2


def test_held_spans_that_nobody_judged_come_back_as_they_are() -> None:
    emitter, _ = an_emitter(Emit.ATTRIBUTES, Emit.EVENTS)

    enriched = emitter.enrich(a_trace(CHILD, ROOT), [CHILD, ROOT], [a_decision(True)])

    assert enriched[0] is CHILD
    assert enriched[1].data != ROOT.data
    assert enriched[1].data.startswith(ROOT.data)
    unchanged = ("scope", "trace_id", "span_id", "parent_id", "kind", "is_local_root")
    assert all(getattr(enriched[1], name) == getattr(ROOT, name) for name in unchanged)


def test_a_verdict_whose_target_has_left_is_a_span_whatever_was_chosen() -> None:
    emitter, sink = an_emitter(Emit.ATTRIBUTES)

    [root] = emitter.enrich(
        a_trace(ROOT, CHILD),
        [ROOT],
        [a_decision(True, scorer="on_root"), a_decision(True, span_id=CHILD.span_id.hex())],
    )
    emitter.flush()

    assert "otel_scorer.on_root.value" in {pair.key for pair in SpanMessage.FromString(root.data).attributes}
    assert [(score.name, score.parent_span_id) for score in sink.scores] == [("evaluation check", CHILD.span_id)]


def test_of_two_spans_with_one_id_the_first_to_come_is_the_target() -> None:
    client, server = make_raw(make_span("client", span=5, kind="CLIENT"), make_span("server", span=5, kind="SERVER"))
    emitter, _ = an_emitter(Emit.ATTRIBUTES)

    enriched = emitter.enrich(
        a_trace(client, server), [client, server], [a_decision(True, span_id=client.span_id.hex())]
    )

    assert [span.data != before.data for span, before in zip(enriched, [client, server], strict=True)] == [True, False]


def test_explanations_are_left_out_of_every_encoding_when_told_so() -> None:
    emitter, sink = an_emitter(*Emit, explanations=Explanations.OFF)
    decision = a_decision(Feedback("check", True, rationale="quotes a user"))

    enriched = emitter.enrich(a_trace(ROOT), [ROOT], [decision])
    emitter.flush()

    assert b"quotes" not in enriched[0].data
    assert b"quotes" not in b"".join(sink.score_requests)
