"""A verdict as a log record, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogRecordMessage
from tests.fakes import a_decision

from otel_scorer.encoders.log_record import encode_log_record, log_body
from otel_scorer.encoders.target import Target
from otel_scorer.encoders.verdict import Verdict, verdicts_of
from otel_scorer.model.feedback import AssessmentError, Feedback
from otel_scorer.testing import EPOCH_NS

TARGET = Target(b"t" * 16, b"s" * 8, EPOCH_NS, 1)


def the_verdict(feedback: Any, **options: Any) -> Verdict:
    [verdict] = verdicts_of(a_decision(feedback, **options))
    return verdict


def written(verdict: Verdict, **more: Any) -> LogRecordMessage:
    return LogRecordMessage.FromString(
        encode_log_record(verdict, TARGET, close_reason="root_quiet", complete=True, **more)
    )


def attributes_of(record: LogRecordMessage) -> dict[str, object]:
    found = {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in record.attributes}
    assert len(found) == len(record.attributes)
    return found


def test_the_record_is_about_its_target_at_the_time_that_ended() -> None:
    record = written(the_verdict(True))

    assert (record.trace_id, record.span_id, record.flags) == (TARGET.trace_id, TARGET.span_id, 1)
    assert record.time_unix_nano == record.observed_time_unix_nano == EPOCH_NS
    assert record.event_name == "gen_ai.evaluation.result"


def test_every_attribute_of_a_verdict() -> None:
    feedback = Feedback("quality", False, rationale="too long", metadata={"words": "900"})
    verdict = the_verdict(feedback, scorer="brevity", version="v1", revision=2)

    assert attributes_of(written(verdict, more={"microsoft.custom_event.name": "mark"})) == {
        "event.name": "gen_ai.evaluation.result",
        "gen_ai.evaluation.name": "quality",
        "gen_ai.evaluation.score.value": 0.0,
        "gen_ai.evaluation.score.label": "fail",
        "gen_ai.evaluation.explanation": "too long",
        "otel_scorer.scorer.name": "brevity",
        "otel_scorer.scorer.version": "v1",
        "otel_scorer.source.type": "CODE",
        "otel_scorer.source.id": "default",
        "otel_scorer.value": False,
        "otel_scorer.value_text": "false",
        "otel_scorer.metadata.words": "900",
        "otel_scorer.evaluation_id": verdict.evaluation_id(TARGET.trace_id, TARGET.span_id).hex(),
        "otel_scorer.revision": 2,
        "otel_scorer.close_reason": "root_quiet",
        "otel_scorer.complete": True,
        "microsoft.custom_event.name": "mark",
    }


def test_a_failing_score_is_information_and_a_failing_scorer_a_warning() -> None:
    records = [written(the_verdict(Feedback("q", False))), written(the_verdict(Feedback("q", None, "broken")))]

    assert [(record.severity_number, record.severity_text) for record in records] == [(9, "INFO"), (13, "WARN")]


def test_the_same_verdict_twice_is_the_same_bytes_twice() -> None:
    first, second = (encode_log_record(the_verdict(0.5), TARGET, close_reason=None, complete=None) for _ in range(2))

    assert first == second


@pytest.mark.parametrize(
    ("feedback", "passed", "body"),
    [
        (Feedback("no_error", False, rationale="1 of 3\nfailed"), (), "no_error=false fail: 1 of 3 failed"),
        (Feedback("score", 0.5), (), "score=0.5"),
        (Feedback("score", 0.5), (False,), "score=0.5 fail"),
        (Feedback("verdict", "partial"), (), "verdict=partial"),
        (Feedback("verdict", "a\nb"), (), "verdict=a b"),
        (Feedback("polite", "yes"), (), "polite=yes pass"),
        (Feedback("tools", None, rationale="No tools"), (), "tools no value: No tools"),
        (Feedback("q", None, AssessmentError("TIMEOUT", "no answer")), (), "q error TIMEOUT: no answer"),
        (Feedback("long", "x" * 1000), (), f"long={'x' * 253}..."),
        (Feedback("\ud800", 1), (), "?=1"),
    ],
    ids=lambda value: None,
)
def test_the_body_is_a_line_that_people_can_read(feedback: Feedback, passed: tuple[bool, ...], body: str) -> None:
    verdict = the_verdict(feedback, passed=passed)

    assert written(verdict).body.string_value == body
    assert "\n" not in log_body(verdict)
