"""Verdicts on the span they are about: attributes and events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import a_decision
from tests.strategies import span_messages

from otel_scorer.encoders.on_span import (
    encode_attributes,
    encode_event,
    event_attributes,
    span_attributes,
    without_verdicts,
)
from otel_scorer.encoders.verdict import verdicts_of
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback
from otel_scorer.model.splicing import enrich_span
from otel_scorer.testing import EPOCH_NS, make_request, make_span, read_spans


def attributes(*feedbacks: Any, **options: Any) -> dict[str, Any]:
    verdicts = verdicts_of(a_decision(*feedbacks, **options))
    return dict(span_attributes(verdicts, close_reason="root_quiet", complete=True))


def source(name: str) -> dict[str, str]:
    return {f"otel_scorer.{name}.source.type": "CODE", f"otel_scorer.{name}.source.id": "default"}


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
        "otel_scorer.is_good.name": "is good",
        **source("is_good"),
        "otel_scorer.speed.value": 0.5,
        **source("speed"),
        "otel_scorer.tone.value": "kind",
        "otel_scorer.tone.label": "kind",
        **source("tone"),
        "otel_scorer.broken.explanation": "bad",
        "otel_scorer.broken.error": "ValueError",
        **source("broken"),
        "otel_scorer.close_reason": "root_quiet",
        "otel_scorer.complete": True,
    }


def test_a_verdict_without_a_value_is_its_explanation() -> None:
    assert attributes(Feedback("q", None, rationale="no tools")) == {
        "otel_scorer.q.explanation": "no tools",
        **source("q"),
        "otel_scorer.close_reason": "root_quiet",
        "otel_scorer.complete": True,
    }


def test_source_and_metadata_are_carried() -> None:
    made = Feedback("q", 1, source=AssessmentSource("HUMAN", "ann"), metadata={"team": "red", "n": 2})

    found = attributes(made)

    assert (found["otel_scorer.q.source.type"], found["otel_scorer.q.source.id"]) == ("HUMAN", "ann")
    assert (found["otel_scorer.q.metadata.team"], found["otel_scorer.q.metadata.n"]) == ("red", "2")


def test_equal_names_are_all_kept_under_keys_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    found = attributes(Feedback("same", True, rationale="old"), Feedback("same.x", 1), Feedback("same", 2))

    assert (found["otel_scorer.same.value"], found["otel_scorer.same.explanation"]) == (True, "old")
    assert (found["otel_scorer.same_2.value"], found["otel_scorer.same_2.name"]) == (2, "same")
    assert found["otel_scorer.same.x.value"] == 1
    assert "otel_scorer.same.name" not in found
    assert ["same_2" in message for message in caplog.messages] == [True]


def test_names_that_become_equal_are_all_kept_and_no_other_key_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    names = ["is it", "is_it_2", "is?it", "is_it"]

    found = attributes(*(Feedback(name, index) for index, name in enumerate(names)))

    values = {key: value for key, value in found.items() if key.endswith(".value")}
    assert values == {
        "otel_scorer.is_it.value": 0,
        "otel_scorer.is_it_2.value": 1,
        "otel_scorer.is_it_3.value": 2,
        "otel_scorer.is_it_4.value": 3,
    }
    assert [found[f"otel_scorer.is_it{end}.name"] for end in ("", "_3", "_4")] == ["is it", "is?it", "is_it"]
    assert len(caplog.messages) == 2


def test_a_verdict_called_like_the_metadata_of_another_is_not_lost() -> None:
    found = attributes(Feedback("a.metadata", 5), Feedback("a", 1, metadata={"value": "x", "k": "v"}))

    assert (found["otel_scorer.a.metadata.value"], found["otel_scorer.a.metadata.k"]) == (5, "v")


@given(st.lists(st.text("ab _2é", max_size=130), max_size=12))
def test_no_verdict_is_lost_whatever_the_names(names: list[str]) -> None:
    found = attributes(*(Feedback(name, index) for index, name in enumerate(names)))

    values = [value for key, value in found.items() if key.endswith(".value")]
    assert sorted(values) == list(range(len(names)))
    assert max((len(key) for key in found if key.endswith(".value")), default=0) <= 128 + len("otel_scorer..value")


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


@given(span_messages(), st.booleans(), st.booleans())
def test_verdicts_can_be_taken_off_again(span: SpanMessage, has_attributes: bool, has_events: bool) -> None:
    verdicts = verdicts_of(a_decision(Feedback("is good", True, rationale="fine", metadata={"a": "b"})))
    flat = span_attributes(verdicts, close_reason="root_quiet", complete=True) if has_attributes else {}
    events = [encode_event(verdict, EPOCH_NS) for verdict in verdicts] if has_events else []
    marked = SpanMessage.FromString(enrich_span(span.SerializeToString(), encode_attributes(flat), events))

    found = without_verdicts(make_request(marked))

    if not has_attributes and not has_events:
        assert found is None
    else:
        assert found is not None
        plain, spans = found
        assert (read_spans(plain), spans) == ([span], 1)


def test_verdicts_are_taken_off_all_spans_of_a_request_but_evaluation_spans() -> None:
    flat = encode_attributes(attributes(Feedback("q", 1)))
    marked = SpanMessage.FromString(enrich_span(make_span("a").SerializeToString(), flat))

    assert without_verdicts(make_request(marked)) is not None
    assert without_verdicts(make_request(marked, scope="otel_scorer")) is None
    assert without_verdicts(make_request(make_span("a"), make_span("b", span=2))) is None
    several = without_verdicts(make_request(marked, make_span("b", span=2), marked))
    assert several is not None
    assert read_spans(several[0]) == [make_span("a"), make_span("b", span=2), make_span("a")]
    assert several[1] == 2
    own = make_request(marked, scope="otel_scorer")
    beside = without_verdicts(own + make_request(marked))
    assert beside is not None
    assert read_spans(beside[0]) == [marked, make_span("a")]
    assert beside[1] == 1
    assert without_verdicts(b"") is None
