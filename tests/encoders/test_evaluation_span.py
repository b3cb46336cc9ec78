"""A verdict as a span of its own, field by field."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import a_decision

from otel_scorer.encoders.evaluation_span import (
    SCOPE_VERSION,
    encode_evaluation_span,
    evaluation_attributes,
    own_scope,
)
from otel_scorer.encoders.target import Target
from otel_scorer.encoders.verdict import verdicts_of
from otel_scorer.model.encoding import key_value
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback
from otel_scorer.model.wire import ScopeRef
from otel_scorer.testing import EPOCH_NS, make_raw, make_span

TARGET = Target(b"t" * 16, b"s" * 8, EPOCH_NS, 1)


def encoded(feedback: Any, target: Target = TARGET, **options: Any) -> bytes:
    [verdict] = verdicts_of(a_decision(feedback, **options))
    return encode_evaluation_span(verdict, target, close_reason="root_quiet", complete=True)


def written(feedback: Any, target: Target = TARGET, **options: Any) -> SpanMessage:
    return SpanMessage.FromString(encoded(feedback, target, **options))


def plain(value: AnyValue) -> object:
    return getattr(value, value.WhichOneof("value") or "string_value")


def attributes_of(span: SpanMessage) -> dict[str, object]:
    return {pair.key: plain(pair.value) for pair in span.attributes}


def test_the_span_is_a_child_of_its_target_linked_to_it_and_ends_with_it() -> None:
    [verdict] = verdicts_of(a_decision(Feedback("quality", False)))

    span = written(Feedback("quality", False))

    assert span.name == "evaluation quality"
    assert (span.trace_id, span.parent_span_id) == (TARGET.trace_id, TARGET.span_id)
    assert span.span_id == verdict.evaluation_id(TARGET.trace_id, TARGET.span_id)
    assert span.kind == SpanMessage.SPAN_KIND_INTERNAL
    assert span.start_time_unix_nano == span.end_time_unix_nano == EPOCH_NS
    assert span.flags == 0x101
    assert [(link.trace_id, link.span_id, link.flags) for link in span.links] == [(b"t" * 16, b"s" * 8, 1)]
    assert not span.events


def test_a_failing_score_leaves_the_status_unset() -> None:
    for feedback in (Feedback("q", False), Feedback("q", None, "broken")):
        span = written(feedback)
        assert not span.HasField("status")
        assert span.status.code == Status.STATUS_CODE_UNSET


def test_every_attribute_of_a_verdict_on_the_trace() -> None:
    feedback = Feedback("quality", False, rationale="too long", metadata={"words": "900"})

    assert attributes_of(written(feedback, scorer="brevity", version="v1", revision=2)) == {
        "openinference.span.kind": "EVALUATOR",
        "mlflow.spanType": "EVALUATOR",
        "gen_ai.evaluation.name": "quality",
        "gen_ai.evaluation.score.value": 0.0,
        "gen_ai.evaluation.score.label": "fail",
        "gen_ai.evaluation.explanation": "too long",
        "trace.evaluations.0.evaluation.name": "quality",
        "trace.evaluations.0.evaluation.score": 0.0,
        "trace.evaluations.0.evaluation.label": "fail",
        "trace.evaluations.0.evaluation.explanation": "too long",
        "trace.evaluations.0.evaluation.annotator_kind": "CODE",
        "trace.evaluations.0.evaluation.identifier": "default",
        "trace.evaluations.0.evaluation.metadata": '{"words": "900"}',
        "otel_scorer.scorer.name": "brevity",
        "otel_scorer.scorer.version": "v1",
        "otel_scorer.source.type": "CODE",
        "otel_scorer.source.id": "default",
        "otel_scorer.revision": 2,
        "otel_scorer.value": False,
        "otel_scorer.value_text": "false",
        "otel_scorer.close_reason": "root_quiet",
        "otel_scorer.complete": True,
        "otel_scorer.metadata.words": "900",
    }


@pytest.mark.parametrize(
    ("value", "score", "label", "native"),
    [
        (True, 1.0, "pass", True),
        ("no", 0.0, "fail", "no"),
        (3, 3.0, None, 3),
        (0.25, 0.25, None, 0.25),
        ("good", None, "good", "good"),
        ([1, "a"], None, None, '[1, "a"]'),
        (float("nan"), None, None, None),
        (None, None, None, None),
    ],
)
def test_a_value_is_written_in_its_type_and_the_score_as_a_double(
    value: Any, score: float | None, label: str | None, native: object
) -> None:
    attributes = attributes_of(written(Feedback("q", value)))

    assert attributes.get("gen_ai.evaluation.score.value") == score
    assert isinstance(attributes.get("gen_ai.evaluation.score.value"), float | None)
    assert attributes.get("gen_ai.evaluation.score.label") == label
    assert attributes.get("otel_scorer.value") == native
    assert type(attributes.get("otel_scorer.value")) is type(native)
    assert ("otel_scorer.value_text" in attributes) is (native is not None)


def test_an_error_is_said_in_words_of_the_conventions_and_without_its_stack() -> None:
    feedback = Feedback("q", None, AssessmentError("ValueError", "bad", "Traceback (most recent call last)"))
    attributes = attributes_of(written(feedback))

    assert (attributes["error.type"], attributes["gen_ai.evaluation.explanation"]) == ("ValueError", "bad")
    assert "gen_ai.evaluation.score.value" not in attributes
    assert b"Traceback" not in encoded(feedback)


def test_a_verdict_on_a_span_uses_the_keys_of_a_span() -> None:
    attributes = attributes_of(written(Feedback("q", 1), span_id=b"s".hex() * 8))

    assert attributes["evaluations.0.evaluation.name"] == "q"
    assert not [key for key in attributes if key.startswith("trace.")]


@pytest.mark.parametrize(("source", "kind"), [("LLM_JUDGE", "LLM"), ("HUMAN", "HUMAN"), ("CODE", "CODE")])
def test_the_source_is_named_as_openinference_names_annotators(source: str, kind: str) -> None:
    attributes = attributes_of(written(Feedback("q", 1, source=AssessmentSource(source, "who"))))

    assert attributes["trace.evaluations.0.evaluation.annotator_kind"] == kind
    assert attributes["trace.evaluations.0.evaluation.identifier"] == "who"
    assert attributes["otel_scorer.source.type"] == source


def test_what_is_not_known_of_the_trace_is_not_said() -> None:
    [verdict] = verdicts_of(a_decision(True))

    data = encode_evaluation_span(verdict, TARGET, close_reason=None, complete=None)

    assert not {"otel_scorer.close_reason", "otel_scorer.complete"} & attributes_of(SpanMessage.FromString(data)).keys()


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["yes", "No ", "x" * 600, "y" * 40_000]),
    st.lists(st.integers(0, 3), max_size=3),
)
TEXTS = st.one_of(st.text(max_size=5), st.integers(100, 140).map("z".__mul__))


@given(
    value=VALUES,
    error=st.none() | st.builds(AssessmentError, TEXTS, TEXTS, st.none()),
    source=st.none() | st.builds(AssessmentSource, st.sampled_from(["CODE", "LLM_JUDGE", "HUMAN"]), TEXTS),
    metadata=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
    rationale=st.none() | TEXTS,
    name=TEXTS,
    span_id=st.none() | st.just("ab" * 8),
    close_reason=st.none() | st.just("idle"),
    complete=st.none() | st.booleans(),
)
def test_the_bytes_say_what_the_attributes_say_whatever_was_written_before(
    close_reason: str | None, complete: bool | None, **fields: Any
) -> None:
    [verdict] = verdicts_of(a_decision(Feedback(**fields)))

    span = SpanMessage.FromString(encode_evaluation_span(verdict, TARGET, close_reason=close_reason, complete=complete))

    attributes = evaluation_attributes(verdict, close_reason=close_reason, complete=complete)
    assert [pair.SerializeToString() for pair in sorted(span.attributes, key=lambda pair: pair.key)] == [
        key_value(key, attributes[key]) for key in sorted(attributes)
    ]
    assert span.span_id == verdict.evaluation_id(TARGET.trace_id, TARGET.span_id)


def test_no_key_comes_twice() -> None:
    feedback = Feedback("q", 0.5, rationale="r", metadata={"a": 1, "b": 2})

    keys = [pair.key for pair in written(feedback).attributes]

    assert len(keys) == len(set(keys))


def test_the_bytes_do_not_depend_on_when_they_were_made() -> None:
    first = encoded(Feedback("q", 0.5, rationale="r", create_time_ms=1, metadata={"b": 1, "a": 2}))
    second = encoded(Feedback("q", 0.5, rationale="r", create_time_ms=2, metadata={"b": 1, "a": 2}))

    assert first == second


def test_the_bytes_do_not_depend_on_what_was_written_before() -> None:
    for value, before in ((-0.0, 0.0), (0.0, -0.0), (1, True), (True, 1), (1.0, 1)):
        name = f"after {before!r}"
        encoded(Feedback(name, before))
        attributes = attributes_of(written(Feedback(name, value)))
        assert type(attributes["otel_scorer.value"]) is type(value)
        assert attributes["otel_scorer.value_text"] in {"0.0", "1", "1.0", "true"}
        assert str(attributes["otel_scorer.value"]) == str(abs(value) if value == 0 else value)


@pytest.mark.parametrize("name", ["", "Is it good?", "größe", "\ud800", "x" * 256], ids=ascii)
def test_a_name_is_kept_as_it_is_where_it_is_a_value(name: str) -> None:
    sent = name.replace("\ud800", "?")

    span = written(Feedback(name, 1))

    assert span.name == f"evaluation {sent}"
    assert attributes_of(span)["gen_ai.evaluation.name"] == sent


def test_times_at_the_ends_of_the_scale_can_be_written() -> None:
    for end in (0, 2**64 - 1):
        assert written(Feedback("q", 1), Target(b"t" * 16, b"s" * 8, end)).end_time_unix_nano == end


def test_a_span_that_lasts_ends_with_its_target_and_starts_at_the_epoch_at_the_earliest() -> None:
    for end, start in ((EPOCH_NS, EPOCH_NS - 5), (3, 0)):
        span = written(Feedback("q", 1), Target(b"t" * 16, b"s" * 8, end, lasts_ns=5))
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (start, end)


def test_the_target_is_read_from_its_span() -> None:
    message = make_span(span=3, end=5)
    message.flags = 0x301

    target = Target.of(make_raw(message)[0])

    assert target == Target((1).to_bytes(16, "big"), (3).to_bytes(8, "big"), EPOCH_NS + 5_000_000_000, 1)


def test_the_scope_is_our_own_with_the_version_of_the_package() -> None:
    scope = ScopeSpans.FromString(own_scope())

    assert (scope.scope.name, scope.scope.version) == ("otel_scorer", SCOPE_VERSION)
    assert not scope.spans
    assert ScopeRef.of(b"", own_scope()).is_own


def test_long_labels_are_not_kept_in_memory() -> None:
    encoded(Feedback("q", "short"))
    gc.collect()
    tracemalloc.start()
    try:
        for index in range(50):
            encoded(Feedback("q", f"{index} " + "x" * 100_000))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1_000_000


def test_metadata_is_json_in_openinference_and_one_attribute_each_of_ours() -> None:
    attributes = attributes_of(written(Feedback("q", 1, metadata={"é": "ü", "n": 1})))

    assert json.loads(str(attributes["trace.evaluations.0.evaluation.metadata"])) == {"é": "ü", "n": "1"}
    assert (attributes["otel_scorer.metadata.é"], attributes["otel_scorer.metadata.n"]) == ("ü", "1")
