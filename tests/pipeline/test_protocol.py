"""What worker and sidecar say to each other: nothing of a decision is lost on its way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, AssessmentSourceType, Feedback
from otel_scorer.pipeline.workers.protocol import failed_decision, pack, pack_decision, unpack, unpack_decision

SCORERS = st.sampled_from(["polite", "feedback", "höflich"])
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = st.one_of(st.booleans(), st.integers(-(1 << 53), 1 << 53), st.floats(allow_nan=False), TEXTS)
SPAN_IDS = st.sampled_from([None, "00000000000000aa"])
FEEDBACKS = st.builds(
    Feedback,
    st.one_of(SCORERS, TEXTS),
    st.one_of(st.none(), SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(TEXTS, SCALARS, max_size=3)),
    st.one_of(st.none(), st.builds(AssessmentError, TEXTS, st.one_of(st.none(), TEXTS), st.one_of(st.none(), TEXTS))),
    st.one_of(st.none(), st.builds(AssessmentSource, st.sampled_from(AssessmentSourceType), TEXTS)),
    metadata=st.one_of(st.none(), st.dictionaries(TEXTS, SCALARS, min_size=1, max_size=3)),
    span_id=SPAN_IDS,
    create_time_ms=st.one_of(st.none(), st.integers(0, 1 << 42)),
    rationale=st.one_of(st.none(), TEXTS),
)
VERDICTS = st.lists(st.tuples(FEEDBACKS, st.sampled_from([None, True, False])), max_size=3)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    verdicts = draw(VERDICTS)
    return Decision(
        "0" * 31 + "1",
        draw(SPAN_IDS),
        draw(SCORERS),
        "1",
        draw(st.sampled_from(Outcome)),
        draw(st.one_of(st.none(), TEXTS)),
        draw(st.integers(1, 5)),
        tuple(feedback for feedback, _ in verdicts),
        tuple(passed for _, passed in verdicts),
        draw(st.one_of(st.none(), st.floats(0, 1e6))),
    )


@given(decisions())
def test_a_decision_crosses_the_pipe_unchanged(decision: Decision) -> None:
    header, payloads = unpack(pack([pack_decision(decision)], b"spans"))

    read = unpack_decision(header[0], decision.trace_id, decision.scorer, decision.scorer_version, decision.revision)

    assert read == decision
    assert [repr(each.value) for each in read.feedbacks] == [repr(each.value) for each in decision.feedbacks]
    assert [each.create_time_ms for each in read.feedbacks] == [each.create_time_ms for each in decision.feedbacks]
    assert (read.seconds is None) == (decision.seconds is None)
    if read.seconds is not None and decision.seconds is not None:
        assert abs(read.seconds - decision.seconds) < 2e-6
    assert payloads.tobytes() == b"spans"


def test_a_failure_that_the_worker_makes_up_is_read_as_one_of_the_scorer() -> None:
    packed, _ = unpack(pack(failed_decision("00000000000000aa", "polite", "ResultTooLarge", "too large")))

    decision = unpack_decision(packed, "1" * 32, "polite", "1", 1)

    assert (decision.outcome, decision.reason, decision.span_id) == (Outcome.FAILED, "too large", "00000000000000aa")
    assert decision.passed == (None,)
    error = AssessmentError("ResultTooLarge", "too large")
    assert decision.feedbacks == (Feedback("polite", None, error, AssessmentSource("CODE", "polite")),)
