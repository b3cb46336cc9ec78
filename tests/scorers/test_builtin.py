from __future__ import annotations

from typing import Any

import pytest
from tests.dialects.captured import expectations, traces_of

from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import Trace
from otel_scorer.scorers.builtin import BUILT_IN, latency, redundant_tool_calls, tool_errors
from otel_scorer.testing import make_span, make_trace

ROOT = make_span("travel_agent", span=1, end=2.5, attributes={"gen_ai.operation.name": "invoke_agent"})


def call(number: int, name: str = "search", arguments: str | None = '{"q": 1, "r": 2}', **span: Any) -> Any:
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    if arguments is not None:
        attributes["gen_ai.tool.call.arguments"] = arguments
    return make_span(f"execute_tool {name}", span=number, parent=1, start=number / 10, attributes=attributes, **span)


def judge(scorer: Any, *spans: Any) -> tuple[object, str | None]:
    feedback: Feedback = scorer(trace=make_trace(*spans))
    return feedback.value, feedback.rationale


@pytest.mark.parametrize(
    ("calls", "value", "rationale"),
    [
        ([], True, "No tool was called"),
        ([call(2)], True, "The tool call succeeded"),
        ([call(2), call(3, status="OK")], True, "All 2 tool calls succeeded"),
        ([call(2, status="ERROR")], False, "1 of 1 tool call failed: search"),
        (
            [call(2), call(3, "book", status="ERROR", message="no\n seats")],
            False,
            "1 of 2 tool calls failed: book (no seats)",
        ),
        (
            [call(2, status="ERROR", message="slow"), call(3, status="ERROR"), call(4, "book")],
            False,
            "2 of 3 tool calls failed: search (2 times) (slow)",
        ),
        (
            [call(number, f"t{number}", status="ERROR") for number in range(2, 7)],
            False,
            "5 of 5 tool calls failed: t2; t3; t4; and 2 more",
        ),
    ],
)
def test_tool_errors_says_what_failed(calls: list[Any], value: bool, rationale: str) -> None:
    assert judge(tool_errors, ROOT, *calls) == (value, rationale)


def test_tool_errors_sees_a_failure_inside_a_call_that_went_well() -> None:
    inner = call(3, status="ERROR", message="no route")
    inner.parent_span_id = call(2).span_id

    assert judge(tool_errors, ROOT, call(2), inner) == (False, "1 of 1 tool call failed: search (no route)")


def test_tool_errors_counts_what_the_trace_shows_as_calls() -> None:
    """Nested TOOL spans of one tool are one call, as in `trace.tool_calls`."""
    [trace] = traces_of("fastmcp")
    assert (len(trace.search_spans("TOOL")), len(trace.tool_calls)) == (6, 2)

    feedback = tool_errors(trace=trace)

    assert feedback.value is False
    assert feedback.rationale.startswith("1 of 2 tool calls failed: convert_currency")


def test_tool_errors_names_a_tool_that_has_no_name_after_its_span() -> None:
    nameless = make_span("work", span=2, status="ERROR", attributes={"openinference.span.kind": "TOOL"})

    assert judge(tool_errors, nameless) == (False, "1 of 1 tool call failed: work")


@pytest.mark.parametrize(
    ("calls", "value", "rationale"),
    [
        ([], True, "No tool was called"),
        ([call(2)], True, "One tool call, nothing to repeat"),
        ([call(2), call(3, "book")], True, "None of the 2 tool calls repeats another"),
        ([call(2), call(3, arguments='{"q": 2}')], True, "None of the 2 tool calls repeats another"),
        ([call(2, arguments=None), call(3, arguments=None)], True, "None of the 2 tool calls repeats another"),
        ([call(2), call(3, arguments='{"r": 2, "q": 1}')], False, 'search({"q": 1, "r": 2}) called 2 times'),
        ([call(2, arguments="{}"), call(3, arguments="{}")], False, "search({}) called 2 times"),
    ],
)
def test_redundant_tool_calls_compares_names_and_arguments(calls: list[Any], value: bool, rationale: str) -> None:
    assert judge(redundant_tool_calls, ROOT, *calls) == (value, rationale)


def test_latency_is_that_of_the_root_in_seconds() -> None:
    assert judge(latency, ROOT, call(2)) == (2.5, "travel_agent took 2.50 s")
    assert judge(latency, make_span("quick", end=0.0125)) == (0.0125, "quick took 12.5 ms")


def test_latency_of_a_local_root_is_what_this_process_can_know() -> None:
    assert judge(latency, make_span("serve", span=2, parent=1, remote_parent=True, end=1.5))[0] == 1.5


def test_latency_without_a_root_is_unknown() -> None:
    value, rationale = judge(latency, call(2))

    assert value is None
    assert rationale is not None
    assert "no root span" in rationale


def test_the_table_has_them_by_name() -> None:
    assert list(BUILT_IN) == ["tool_errors", "redundant_tool_calls", "latency"]
    assert all(made.description for made in BUILT_IN.values())


CAPTURED = [
    pytest.param(trace, expected, id=f"{name}-{index}")
    for name, capture in expectations()["captures"].items()
    for index, (trace, expected) in enumerate(zip(traces_of(name), capture["traces"], strict=False))
]


@pytest.mark.parametrize(("trace", "expected"), CAPTURED)
def test_tool_errors_agrees_with_what_real_instrumentations_recorded(trace: Trace, expected: dict[str, Any]) -> None:
    failed = sum(tool["failed"] for tool in expected["tools"])

    assert tool_errors(trace=trace).value is (failed == 0)
