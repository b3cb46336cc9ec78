from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback

SCALARS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
FEEDBACKS = st.builds(
    Feedback,
    name=st.text(min_size=1),
    value=st.none() | SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS),
    error=st.none() | st.builds(AssessmentError, st.text(), st.none() | st.text(), st.none() | st.text()),
    source=st.builds(AssessmentSource, st.sampled_from(["CODE", "HUMAN", "LLM_JUDGE"]), st.text(min_size=1)),
    metadata=st.none() | st.dictionaries(st.text(), SCALARS, min_size=1),
    span_id=st.none() | st.just("00000000000000aa"),
    rationale=st.none() | st.text(),
)


@given(
    feedbacks=st.lists(FEEDBACKS, max_size=3).map(tuple),
    outcome=st.sampled_from(Outcome),
    reason=st.none() | st.text(),
    passed=st.lists(st.none() | st.booleans(), max_size=3).map(tuple),
)
def test_a_decision_survives_the_way_through_a_pipe(
    feedbacks: tuple[Feedback, ...], outcome: Outcome, reason: str | None, passed: tuple[bool | None, ...]
) -> None:
    decision = Decision("ab" * 16, "cd" * 8, "check", "v1", outcome, reason, 2, feedbacks, passed)

    back = Decision.from_dict(json.loads(json.dumps(decision.to_dict())))

    assert back == decision
    assert repr(back) == repr(decision)
