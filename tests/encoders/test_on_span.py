"""Verdicts on the span they are about: attributes and events."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import a_decision
from tests.strategies import span_messages

from otel_scorer.encoders.on_span import encode_attributes, encode_event, event_attributes, span_attributes
from otel_scorer.encoders.verdict import verdicts_of
from otel_scorer.model.feedback import AssessmentError, Feedback
from otel_scorer.model.wire import enrich_span
from otel_scorer.testing import EPOCH_NS, make_span


def attributes(*feedbacks: Any, **options: Any) -> dict[str, Any]:
    verdicts = verdicts_of(a_decision(*feedbacks, **options))
    return dict(span_attributes(verdicts, close_reason="root_quiet", complete=True))


def test_a_verdict_is_flat_attributes_under_its_name() -> None:
    feedbacks = [
        Feedback("is good", True, rationale="fine"),
        Feedback("speed", 0.5),
        Feedback("tone", "kind"),
        Feedback("broken", None, AssessmentError("ValueError", "bad")),
    ]

    assert attributes(*feedbacks) == {
        "otel_scorer.is_good.value": True,
        "otel_scorer.is_good.label": "pass",
        "otel_scorer.is_good.explanation": "fine",
        "otel_scorer.speed.value": 0.5,
        "otel_scorer.tone.value": "kind",
        "otel_scorer.tone.label": "kind",
        "otel_scorer.broken.explanation": "bad",
        "otel_scorer.broken.error": "ValueError",
        "otel_scorer.close_reason": "root_quiet",
        "otel_scorer.complete": True,
    }


def test_a_verdict_without_a_value_is_its_explanation() -> None:
    assert attributes(Feedback("q", None, rationale="no tools")) == {
        "otel_scorer.q.explanation": "no tools",
        "otel_scorer.close_reason": "root_quiet",
        "otel_scorer.complete": True,
    }


def test_of_equal_names_the_last_one_counts_and_leaves_nothing_of_the_others() -> None:
    found = attributes(Feedback("q", True, rationale="old"), Feedback("q.x", 1), Feedback("q", 2))

    assert found["otel_scorer.q.value"] == 2
    assert not {"otel_scorer.q.label", "otel_scorer.q.explanation"} & found.keys()
    assert found["otel_scorer.q.x.value"] == 1


def test_without_verdicts_there_are_no_attributes() -> None:
    assert attributes() == {}


def test_an_event_is_the_result_of_the_conventions_at_the_end_of_the_target() -> None:
    [verdict] = verdicts_of(a_decision(Feedback("is good", False, rationale="rude"), scorer="judge", version="v1"))

    event = SpanMessage.Event.FromString(encode_event(verdict, EPOCH_NS))

    assert (event.name, event.time_unix_nano) == ("gen_ai.evaluation.result", EPOCH_NS)
    assert [pair.key for pair in event.attributes] == list(event_attributes(verdict))
    assert event_attributes(verdict) == {
        "gen_ai.evaluation.name": "is good",
        "gen_ai.evaluation.score.value": 0.0,
        "gen_ai.evaluation.score.label": "fail",
        "gen_ai.evaluation.explanation": "rude",
        "otel_scorer.scorer.name": "judge",
        "otel_scorer.scorer.version": "v1",
        "otel_scorer.source.type": "CODE",
        "otel_scorer.source.id": "default",
        "otel_scorer.value": False,
        "otel_scorer.value_text": "false",
    }


def test_an_event_carries_what_the_scorer_added() -> None:
    [verdict] = verdicts_of(a_decision(Feedback("parts", [1, 2], metadata={"team": "red"})))

    found = event_attributes(verdict)

    assert (found["otel_scorer.value"], found["otel_scorer.metadata.team"]) == ("[1, 2]", "red")


@given(span_messages(), st.lists(st.sampled_from(["q", "é?", "a b"]), max_size=4), st.booleans())
def test_an_enriched_span_has_no_key_twice_and_is_otherwise_what_it_was(
    message: SpanMessage, names: list[str], is_enriched_already: bool
) -> None:
    verdicts = verdicts_of(a_decision(*(Feedback(name, index) for index, name in enumerate(names))))
    encoded = encode_attributes(span_attributes(verdicts, close_reason="idle", complete=False))
    events = [encode_event(verdict, EPOCH_NS) for verdict in verdicts]
    data = message.SerializeToString()
    if is_enriched_already:
        data = enrich_span(data, encoded)

    enriched = SpanMessage.FromString(enrich_span(data, encoded, events))

    keys = [pair.key for pair in enriched.attributes]
    assert len(keys) == len(set(keys)) == len(message.attributes) + len(encoded)
    assert len(enriched.events) == len(message.events) + len(names)
    del enriched.attributes[len(message.attributes) :], enriched.events[len(message.events) :]
    assert enriched == message


def test_the_span_of_an_earlier_run_gets_the_new_verdict_only() -> None:
    old = make_span(attributes={"otel_scorer.q.value": False, "otel_scorer.q.label": "fail", "kept": 1})

    data = enrich_span(old.SerializeToString(), encode_attributes(attributes(True, scorer="q")))

    found = {pair.key: pair.value for pair in SpanMessage.FromString(data).attributes}
    assert found["otel_scorer.q.value"].bool_value is True
    assert found["otel_scorer.q.label"].string_value == "pass"
    assert found["kept"].int_value == 1
