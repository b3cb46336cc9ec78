"""`assert_scores`: when it fails, and what its message says."""

from __future__ import annotations

from typing import Any

import pytest

from otel_scorer.errors import ConfigError, ScorerError
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import Span, Trace
from otel_scorer.pytest_plugin import assert_scores
from otel_scorer.scorers.base import scorer
from otel_scorer.testing import make_span, make_trace


def a_trace(number: int = 1, *, fails: bool = False) -> Trace:
    return make_trace(
        make_span("agent", trace=number, span=1, attributes={"gen_ai.operation.name": "invoke_agent"}),
        make_span(
            "execute_tool search",
            trace=number,
            span=2,
            parent=1,
            status="ERROR" if fails else "UNSET",
            message="no answer \x1b[31m" if fails else "",
            attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"},
        ),
    )


@scorer
def seconds(trace: Trace) -> float:
    return trace.info.execution_duration / 1000


@scorer
def no_tools(trace: Trace) -> Feedback:
    return Feedback(value=None, rationale="No tool usage to evaluate")


@scorer
def broken(trace: Trace) -> bool:
    raise ValueError("boom")


@scorer(span_types=["TOOL"])
def tool_fine(span: Span) -> Feedback:
    return Feedback(value=not span.failed, rationale="because of the tool")


def failure(*args: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as raised:
        assert_scores(*args, **options)
    return str(raised.value)


def test_traces_that_all_scorers_pass_are_reported() -> None:
    report = assert_scores([a_trace(1), a_trace(2)], "tool_errors", tool_fine, lambda outputs=None: True)

    assert [(summary.name, summary.passed) for summary in report.summaries] == [
        ("tool_errors", 2),
        ("tool_fine", 2),
        ("lambda", 2),
    ]


def test_a_failure_tells_the_verdict_the_reason_and_shows_the_tree() -> None:
    text = failure([a_trace(1), a_trace(2, fails=True)], "tool_errors", tool_fine)

    lines = text.splitlines()
    assert lines[0] == "tool_errors: False on agent"
    assert lines[1].startswith("    1 of 1 tool call failed: ")
    assert lines[2:4] == ["tool_fine: False on agent, span execute_tool search", "    because of the tool"]
    assert f"{2:032x}" in text
    assert f"{1:032x}" not in text
    assert "└── agent  AGENT  1 s" in text
    assert "    └── execute_tool search  TOOL  1 s  ERROR no answer" in text
    assert "\x1b" not in text


def test_an_error_is_told_with_its_stack_and_can_be_forgiven() -> None:
    text = failure(a_trace(), broken)

    assert text.startswith("broken: Error on agent\n    ValueError: boom\n")
    assert '|     raise ValueError("boom")' in text
    assert_scores(a_trace(), broken, max_errors=1)


def test_a_number_needs_a_condition() -> None:
    assert "seconds: neither passes nor fails: 1 (give pass_if or fail_under)" in failure(a_trace(), seconds)
    assert "seconds: 1 on agent" in failure(a_trace(), seconds, pass_if={"seconds": "< 0.5"})
    assert_scores(a_trace(), seconds, pass_if={"seconds": "< 2"})
    assert_scores(a_trace(), seconds, pass_if={"seconds": lambda value: value < 2})
    assert_scores(a_trace(), seconds.with_options(pass_if="< 2"))
    assert_scores(a_trace(), seconds, required=False)
    assert "pass_if: there is no feedback 'second'" in failure(a_trace(), "tool_errors", pass_if={"second": "< 2"})


def test_a_mean_forgives_single_failures() -> None:
    traces = [a_trace(1), a_trace(2), a_trace(3, fails=True)]

    assert_scores(traces, "tool_errors", fail_under={"tool_errors": 0.6})

    assert "tool_errors: mean 0.666667 (at least 0.7)" in failure(
        traces, "tool_errors", fail_under={"tool_errors": 0.7}
    )


def test_a_scorer_that_has_nothing_to_say_asserts_nothing() -> None:
    assert failure(a_trace(), no_tools).startswith(
        "no_tools: neither passes nor fails: no value No tool usage to evaluate\n"
    )
    assert "expectations" in failure(a_trace(), scorer(lambda expectations: True, name="exact"))
    assert_scores(a_trace(), no_tools, required=False)
    assert failure([], "tool_errors") == "there is no trace"


def test_every_trace_is_scored_whatever_the_sample_rate() -> None:
    report = assert_scores([a_trace(n) for n in range(1, 20)], tool_fine.with_options(sample_rate=0.0))

    assert report.summaries[0].passed == 19


def test_a_message_is_text_that_any_process_can_be_sent() -> None:
    def odd(trace: Trace) -> Feedback:
        return Feedback("n\ud800", False, rationale="\ud800\x00", error=None)

    with pytest.raises(AssertionError) as raised:
        assert_scores(a_trace(), odd)

    str(raised.value).encode()
    assert "n\ufffd: False on agent" in str(raised.value)


def test_long_messages_are_cut() -> None:
    wide = make_trace(make_span("root", status="ERROR"), *(make_span(f"s{n}", span=n, parent=1) for n in range(2, 200)))

    text = failure([wide, *(a_trace(n, fails=True) for n in range(2, 60))], scorer(lambda trace: False, name="never"))

    assert "... and 39 more" in text
    assert "... and 56 more traces" in text
    assert "more lines" in text
    assert len(text.splitlines()) < 200


@pytest.mark.parametrize(
    ("scorers", "options", "error"),
    [
        ([], {}, TypeError),
        ([3], {}, ScorerError),
        (["tool_erors"], {}, ConfigError),
        (["tool_errors"], {"pass_if": {"tool_errors": "high"}}, ConfigError),
    ],
)
def test_what_cannot_be_meant_is_an_error_of_its_own(
    scorers: list[Any], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        assert_scores(a_trace(), *scorers, **options)
