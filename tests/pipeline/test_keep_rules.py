"""What rules for keeping traces say, and what is none."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.fakes import PlainReader, a_decision

from otel_scorer.errors import ConfigError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, Feedback
from otel_scorer.pipeline.keeping.evidence import NUMBERS, Evidence, facts_of, keep_number
from otel_scorer.pipeline.keeping.rules import Judgement, KeepRule, Kept
from otel_scorer.pipeline.running.selection import is_sampled
from otel_scorer.testing import make_span, make_trace

PASSED = a_decision(True, scorer="polite", passed=(True,))
FAILED = a_decision(False, scorer="polite", passed=(False,))
GRADES = a_decision(
    Feedback("length", 12), Feedback("tone", "rude"), scorer="grades", passed=(None, False), outcome=Outcome.SCORED
)
BROKEN = a_decision(
    Feedback("judge", None, AssessmentError("LookupError", "nothing there")), scorer="judge", outcome=Outcome.FAILED
)
ABSENT = a_decision(scorer="polite", outcome=Outcome.NOT_APPLICABLE)
SCORERS = ("polite", "grades", "judge")
TRACE = make_trace(
    make_span("agent", span=1, end=4.0, attributes={"tier": "gold", "vip": True, "retries": 3}),
    make_span("search", span=2, parent=1, end=1.0, status="ERROR"),
    service="shop",
    reader=PlainReader(),
)


def ask(
    expression: str,
    *decisions: Decision,
    is_decided: bool = True,
    is_whole: bool = True,
    number: int = NUMBERS - 1,
) -> Kept:
    rule = KeepRule(expression)
    evidence = Evidence(
        decisions=decisions,
        scorers=SCORERS,
        facts=facts_of(TRACE, rule.facts),
        is_decided=is_decided,
        is_whole=is_whole,
        number=number,
    )
    return rule.judge(evidence).outcome


@pytest.mark.parametrize(
    ("expression", "decisions", "kept"),
    [
        ("any_failed", [PASSED], False),
        ("any_failed", [PASSED, FAILED], True),
        ("any_failed", [GRADES], True),
        ("any_failed", [], False),
        ("not any_failed", [PASSED], True),
        ("any_error", [PASSED, FAILED], False),
        ("any_error", [BROKEN], True),
        ('failed("polite")', [FAILED], True),
        ('failed("polite")', [PASSED, GRADES], False),
        ('failed("grades")', [GRADES], True),
        ('failed("grades", "tone")', [GRADES], True),
        ('failed("grades", "length")', [GRADES], False),
        ('value("polite") == false', [FAILED], True),
        ('value("polite") == False', [PASSED], False),
        ('value("polite")', [PASSED], True),
        ('not value("polite")', [FAILED], True),
        ('value("polite") < 0.5', [FAILED], True),
        ('value("grades", "length") > 11.5', [GRADES], True),
        ('value("grades") in ["rude", "cold"]', [GRADES], True),
        ('value("grades", "tone") == "rude"', [GRADES], True),
        ('value("grades", "length") >= -1 and value("grades", "length") < 12', [GRADES], False),
        # Of several values one is enough.
        ("value('grades') == 12", [GRADES], True),
        ("value('polite') == true", [FAILED, PASSED], True),
        # What is absent compares with nothing, one way or the other.
        ('value("polite") == false', [ABSENT], False),
        ('value("polite") != false', [ABSENT], False),
        ('root.attributes["none"] != "gold"', [], False),
        ('trace.session_id == "s"', [], False),
        ("error", [], True),
        ("duration >= 4", [], True),
        ("duration > 4", [], False),
        ("trace.span_count == 2", [], True),
        ("trace.failed_span_count > 1", [], False),
        ("root.failed", [], False),
        ("root.failed == false", [], True),
        ("not root.failed", [], True),
        ('root.attributes["tier"] == "gold"', [], True),
        ('root.attributes["tier"] in ("silver", "gold")', [], True),
        ('root.attributes["vip"]', [], True),
        ('root.attributes["retries"] not in [1, 2]', [], True),
        ('"agent" in trace.span_names', [], True),
        ('"chat" in trace.span_names', [], False),
        ('root.resource["service.name"] == "shop"', [], True),
        ('trace.service_name == "a&&b||!c"', [], False),
        ("true", [], True),
        ("False", [], False),
        ("(any_failed or false) == true", [FAILED], True),
        ("any_failed\n  or error", [PASSED], True),
        ("  any_failed  ", [FAILED], True),
        ("!any_failed && !(duration > 60 || error)", [PASSED], False),
        ("!any_failed&&duration<60", [PASSED], True),
    ],
)
def test_a_rule_says_which_traces_are_kept(expression: str, decisions: list[Decision], kept: bool) -> None:
    assert ask(expression, *decisions) is (Kept.KEPT if kept else Kept.NOT_KEPT)


@pytest.mark.parametrize(
    ("expression", "decisions", "state"),
    [
        ("any_failed", [PASSED, BROKEN], {}),
        ("not any_failed", [PASSED, BROKEN], {}),
        ('failed("judge") or sample(0)', [BROKEN], {}),
        ('value("judge") > 3', [BROKEN], {}),
        ("any_failed", [a_decision(scorer="polite", outcome=Outcome.SHED)], {}),
        ("any_failed", [a_decision(scorer="polite", outcome=Outcome.TIMED_OUT)], {}),
        ("any_failed", [a_decision(scorer="polite", outcome=Outcome.FILTER_ERROR)], {}),
        ("any_failed", [a_decision(scorer="polite", outcome=Outcome.UNPROCESSABLE)], {}),
        ("any_failed", [a_decision(Feedback("polite", None, "no answer"), scorer="polite")], {}),
        ("any_failed", [PASSED], {"is_decided": False}),
        ("any_error", [PASSED], {"is_decided": False}),
        ("any_failed", [PASSED], {"is_whole": False}),
        ("duration > 60", [], {"is_whole": False}),
        ('failed("a scorer that has gone")', [PASSED], {}),
        # Nobody can say whether a text is more than a number.
        ('value("grades", "tone") > 3', [GRADES], {}),
        ('value("grades") > 13', [GRADES], {}),
    ],
)
def test_what_nobody_knows_is_kept(expression: str, decisions: list[Decision], state: dict[str, bool]) -> None:
    assert ask(expression, *decisions, **state) is Kept.IN_DOUBT


@pytest.mark.parametrize(
    ("expression", "decisions", "state", "outcome"),
    [
        # A doubt that the answer does not depend on is none.
        ("sample(0)", [BROKEN], {"is_decided": False, "is_whole": False}, Kept.NOT_KEPT),
        ('failed("polite")', [PASSED, BROKEN], {}, Kept.NOT_KEPT),
        ("any_failed", [FAILED, BROKEN], {"is_decided": False, "is_whole": False}, Kept.KEPT),
        ("any_failed and false", [BROKEN], {}, Kept.NOT_KEPT),
        ("any_error", [BROKEN], {"is_decided": False}, Kept.KEPT),
        ("duration > 3", [], {"is_whole": False}, Kept.KEPT),
    ],
)
def test_a_doubt_counts_only_where_the_answer_depends_on_it(
    expression: str, decisions: list[Decision], state: dict[str, bool], outcome: Kept
) -> None:
    assert ask(expression, *decisions, **state) is outcome


def test_spans_that_cannot_be_read_are_a_doubt() -> None:
    rule = KeepRule("error or sample(0.5)")

    assert rule.judge(Evidence(facts=None, number=NUMBERS - 1)).outcome is Kept.IN_DOUBT


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("any_faild or sample(0.05)", "there is no `any_faild` (did you mean `any_failed`?)"),
        ('fail("x")', "there is no `fail` (did you mean `failed`?)"),
        ("xyz", "there is no `xyz`; there are any_failed, any_error, failed, "),
        ("trace.durtion > 3", "there is no `trace.durtion` (did you mean `duration`?)"),
        ("root.colour == 1", "there is no `root.colour`; there are name, "),
        ("any_failed or", "it cannot be read"),
        ("any_failed sample(1)", "it cannot be read from `sample(1)` on"),
        ("any_failed) or (true", "it cannot be read from `) or (true` on"),
        ("any_failed # or error", "it cannot be read"),
        ("any_failed; error", "it cannot be read from `; error` on"),
        ("x = 1", "it cannot be read"),
        ("", "it cannot be read"),
        ("(" * 1000, "it cannot be read"),
        ("sample(5)", "`sample(5)` must name a share between 0 and 1, such as sample(0.05)"),
        ("sample(-0.1)", "`sample(-0.1)` must name a share between 0 and 1"),
        ("sample()", "`sample()` must name a share"),
        ('sample("5%")', "must name a share"),
        ("sample(rate=0.1)", "must name a share"),
        ("sample or any_failed", "`sample` must be called, as in sample(0.05)"),
        ("failed or error", '`failed` must be called, as in failed("scorer")'),
        ("value == 3", '`value` must be called, as in value("scorer")'),
        ("failed(polite)", "`failed(polite)` must name a scorer in quotes, and maybe a feedback of it"),
        ('failed("a", "b", "c")', "must name a scorer in quotes"),
        ("failed()", "must name a scorer in quotes"),
        ("duration", "`duration` is neither true nor false: compare it with something"),
        ("root.name or error", "`root.name` is neither true nor false"),
        ('"any_failed"', '`"any_failed"` is neither true nor false'),
        ("not 1", "`1` is neither true nor false"),
        ("1 < duration < 3", "`1 < duration < 3` is no comparison of two values; join several with `and`"),
        ("duration is 3", "`duration is 3` is no comparison"),
        ("trace", "it must say which field of `trace` it means, as in `trace.duration`"),
        ("root == 1", "it must say which field of `root` it means"),
        ("duration + 1 > 3", "`duration + 1` is not understood"),
        ("trace.tags[0] == 1", "`trace.tags[0]` is not understood"),
        ("error if true else false", "is not understood"),
        ("lambda: true", "is not understood"),
        ("root.name.upper() == 'A'", "is not understood"),
        ('__import__("os")', "there is no `__import__`"),
        ("().__class__ == 1", "is not understood"),
        ("duration > None", "`None` is no text and no number"),
        ("duration in [[1]]", "`[[1]]` is no text and no number"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_place(expression: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KeepRule(expression)

    assert problem in str(caught.value)


def test_a_rule_knows_what_it_asks_about() -> None:
    rule = KeepRule('failed("polite") or value("grades", "tone") == "rude" or root.attributes["tier"] == "gold"')

    assert rule.scorers == {"polite", "grades"}
    assert [(fact.subject, fact.name, fact.key) for fact in rule.facts] == [("root", "attributes", "tier")]
    assert rule.asks_scorers
    assert not KeepRule("error or sample(0.1)").asks_scorers


def test_the_share_is_that_of_the_traces_that_would_have_been_kept() -> None:
    rule = KeepRule("any_failed or (any_error and sample(0.5)) or sample(0.125)")

    def judge(*decisions: Decision, number: int) -> Judgement:
        return rule.judge(Evidence(decisions=decisions, scorers=SCORERS, number=number))

    assert judge(FAILED, number=0) == judge(FAILED, number=NUMBERS - 1) == (Kept.KEPT, 1.0)
    assert judge(PASSED, number=0) == (Kept.SAMPLED, 0.125)
    assert judge(PASSED, number=NUMBERS // 8 - 1) == (Kept.SAMPLED, 0.125)
    assert judge(PASSED, number=NUMBERS // 8) == (Kept.NOT_KEPT, 0.125)


@example(rates=[1e-18], negated=True, numbers=[26])
@given(
    rates=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    negated=st.booleans(),
    numbers=st.lists(st.integers(0, NUMBERS - 1), min_size=1, max_size=20),
)
def test_whoever_is_kept_stands_for_as_many_as_the_share_says(
    rates: list[float], negated: bool, numbers: list[int]
) -> None:
    rule = KeepRule(f"{'not ' if negated else ''}({' or '.join(f'sample({rate!r})' for rate in rates)})")
    highest = int(max(rates) * NUMBERS)
    kept_numbers = NUMBERS - highest if negated else highest

    for number in numbers:
        outcome, share = rule.judge(Evidence(number=number))
        kept = (number < highest) is not negated
        assert (outcome is not Kept.NOT_KEPT) is kept
        assert math.isclose(share, kept_numbers / NUMBERS, rel_tol=1e-12)
        if kept:
            assert outcome is (Kept.KEPT if kept_numbers == NUMBERS else Kept.SAMPLED)


def test_the_sample_is_as_large_as_asked_for_and_grows_with_the_rate() -> None:
    numbers = [keep_number(trace.to_bytes(16, "big")) for trace in range(1, 100_001)]

    for rate in (0.01, 0.05, 0.5):
        kept = sum(number < rate * NUMBERS for number in numbers)
        deviation = math.sqrt(len(numbers) * rate * (1 - rate))
        assert abs(kept - rate * len(numbers)) < 4 * deviation


def test_who_is_scored_and_who_is_kept_are_drawn_apart() -> None:
    """Or traces that no scorer saw would never be in the sample that stands for them."""
    ids = [trace.to_bytes(16, "big") for trace in range(1, 40_001)]
    scored = [trace_id for trace_id in ids if is_sampled(trace_id, 0.1)]

    both = sum(keep_number(trace_id) < 0.1 * NUMBERS for trace_id in scored)

    expected = len(scored) * 0.1
    assert abs(both - expected) < 4 * math.sqrt(expected)
