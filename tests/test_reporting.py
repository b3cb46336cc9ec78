"""One report, six formats; and traces as trees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from otel_scorer.dialects import READER
from otel_scorer.evaluation import load_traces, score_traces
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback
from otel_scorer.model.trace import Span, Trace
from otel_scorer.reporting.as_html import as_html
from otel_scorer.reporting.as_json import as_json, as_jsonl
from otel_scorer.reporting.as_junit import as_junit
from otel_scorer.reporting.as_markdown import as_markdown
from otel_scorer.reporting.as_table import as_table
from otel_scorer.reporting.inspection import inspect_trace
from otel_scorer.reporting.report import Report, build_report, mean_of, number_of, shown
from otel_scorer.reporting.subject import trace_subject
from otel_scorer.reporting.trace_tree import duration_text, trace_tree
from otel_scorer.scorers import scorer

CAPTURE = Path(__file__).resolve().parent / "captures" / "openinference_openai.json"
NASTY = "<script>alert(1)</script> | [red]x[/red] \x1b[31m \x00 \ud800 `x`\n# heading"


@scorer
def polite(trace: Trace) -> Feedback:
    return Feedback(value="no", rationale=NASTY)


@scorer
def length(trace: Trace) -> int:
    return len(trace.spans)


@scorer
def broken(trace: Trace) -> bool:
    raise KeyError(NASTY)


@scorer
def unsure(trace: Trace) -> Feedback:
    return Feedback(value=None, rationale="No tool usage to evaluate")


@scorer
def gives_up(trace: Trace) -> Feedback:
    return Feedback(error=AssessmentError("NO_MODEL", "the model is away"))


@scorer
def silent(trace: Trace) -> None:
    return None


@scorer
def expected(outputs: str, expectations: dict[str, Any]) -> bool:
    return True


@scorer(span_types=["TOOL"])
def tool_fine(span: Span) -> Feedback:
    return Feedback(value=not span.failed, source=AssessmentSource("HUMAN", "me"), metadata={"k": [1]})


@pytest.fixture(scope="module")
def trace() -> Trace:
    return load_traces(CAPTURE)[0]


@pytest.fixture(scope="module")
def report(trace: Trace) -> Report:
    scorers = [polite, length, broken, unsure, gives_up, silent, expected, tool_fine]
    scored = [(trace_subject(each.trace), each.decisions) for each in score_traces([trace], scorers)]
    return build_report(scored, fail_under=[("polite", 0.5), ("length", 7), ("nobody", 0)], max_errors=2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "True"), (False, "False"), ("yes", "Pass"), ("No ", "Fail"), (3, "3"), (0.25, "0.25"), (1.0, "1"),
     (1 / 3, "0.333333"), (12345678.0, "12345678"), (1e-9, "1e-09"), (1e300, "1e+300"),
     ("maybe", "maybe"), (None, "no value"), ({"a": 1}, '{"a": 1}'), ([True, "ä"], '[true, "ä"]')],
)  # fmt: skip
def test_values_read_as_in_mlflow(value: object, text: str) -> None:
    assert shown(value) == text


def test_means_of_the_largest_numbers_are_numbers() -> None:
    assert mean_of([]) is None
    assert mean_of([1e308, 1e308]) == 1e308
    assert mean_of([0.1] * 10) == 0.1
    assert number_of(10**400) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [(True, 1.0), (False, 0.0), ("YES", 1.0), ("no", 0.0), (3, 3.0), ("3", None), (None, None), ([1], None)],
)
def test_bool_and_yes_no_count_as_one_and_zero(value: object, number: float | None) -> None:
    assert number_of(value) == number


def test_a_bound_is_missed_below_it_and_without_any_value(report: Report) -> None:
    assert [(bound.name, bound.is_missed) for bound in report.bounds] == [
        ("polite", True),
        ("length", False),
        ("nobody", True),
        ("errors", False),
    ]
    assert report.is_missed


def test_errors_are_no_values(report: Report) -> None:
    found = {summary.name: summary for summary in report.summaries}

    assert report.error_count == 2
    assert (found["broken"].errors, found["broken"].mean) == (1, None)
    assert (found["gives_up"].errors, found["gives_up"].no_value) == (1, 0)
    assert (found["unsure"].no_value, found["unsure"].errors) == (1, 0)


def test_json_lines_have_the_promised_fields_in_order(report: Report, trace: Trace) -> None:
    lines = [json.loads(line) for line in as_jsonl(report).splitlines()]

    assert trace.root is not None
    assert lines[0] == {
        "trace_id": trace.trace_id,
        "span_id": trace.root.span_id,
        "scorer": "polite",
        "decision": "scored",
        "reason": None,
        "revision": 1,
        "feedback": {
            "name": "polite",
            "value": "no",
            "rationale": NASTY,
            "source": {"source_type": "CODE", "source_id": "default"},
            "metadata": {},
            "error": None,
        },
        "close_reason": "end_of_file",
        "complete": True,
    }
    assert list(lines[0]) == [
        "trace_id", "span_id", "scorer", "decision", "reason", "revision", "feedback", "close_reason", "complete",
    ]  # fmt: skip
    assert [line["scorer"] for line in lines] == [
        "polite", "length", "broken", "unsure", "gives_up", "silent", "expected", "tool_fine", "tool_fine",
    ]  # fmt: skip


def test_a_decision_without_feedback_has_a_line_too(report: Report) -> None:
    lines = {line["scorer"]: line for line in map(json.loads, as_jsonl(report).splitlines())}

    assert (lines["silent"]["decision"], lines["silent"]["feedback"]) == ("scored", None)
    assert (lines["expected"]["decision"], lines["expected"]["feedback"]) == ("not_applicable", None)
    assert "expectations" in lines["expected"]["reason"]
    assert lines["broken"]["decision"] == "failed"
    assert lines["broken"]["feedback"]["error"]["error_code"] == "KeyError"
    assert lines["tool_fine"]["feedback"]["source"] == {"source_type": "HUMAN", "source_id": "me"}


def test_json_holds_the_same_lines_and_the_summary(report: Report) -> None:
    document = json.loads(as_json(report))

    assert document["results"] == [json.loads(line) for line in as_jsonl(report).splitlines()]
    assert [summary["name"] for summary in document["summary"]][:3] == ["polite", "length", "broken"]
    assert document["errors"] == 2


def test_junit_is_xml_whatever_traces_hold(report: Report) -> None:
    top = ET.fromstring(as_junit(report).encode("utf-8"))  # noqa: S314 - our own output

    assert top.attrib == {"name": "otel-scorer", "tests": "13", "failures": "4", "errors": "2"}
    failure = top.find("testsuite[@name='polite']/testcase/failure")
    assert failure is not None
    assert "polite = Fail" in failure.attrib["message"]
    error = top.find("testsuite[@name='broken']/testcase/error")
    assert error is not None
    assert error.attrib["type"] == "KeyError"
    assert "raise KeyError" in (error.text or "")


def test_markdown_cells_cannot_break_out_of_their_table(report: Report) -> None:
    lines = as_markdown(report).splitlines()

    [failure] = [line for line in lines if "alert(1)" in line and "KeyError" not in line]
    assert failure.startswith("| travel\\_agent")
    assert "<script>" not in failure
    assert "# heading" not in [line.strip() for line in lines]


def test_the_table_says_what_failed_and_why(report: Report) -> None:
    text = as_table(report, width=200)

    assert "Fail  polite  travel_agent" in text
    assert "Error  gives_up" in text
    assert "NO_MODEL: the model is away" in text
    assert "[red]x[/red]" in text
    assert "bound missed  nobody: no scored value (at least 0)" in text


def test_what_traces_hold_never_reaches_the_terminal_as_a_command(report: Report, trace: Trace) -> None:
    console = Console(width=200, force_terminal=False, file=None)
    with console.capture() as captured:
        console.print(trace_tree(trace, READER))

    assert "\x1b" not in as_table(report)
    assert "\x1b" not in captured.get()
    assert "\x1b[3" in as_table(report, color=True)
    assert "\x1b[31m \x00" not in as_table(report, color=True)


def test_long_lists_of_failures_are_cut(trace: Trace) -> None:
    scored = [(trace_subject(each.trace), each.decisions) for each in score_traces([trace] * 120, [polite])]
    report = build_report(scored)

    assert "... and 70 more" in as_table(report)
    assert "... and 20 more failures." in as_markdown(report)


def test_a_report_of_nothing_can_be_written() -> None:
    report = build_report([])

    for write in (as_table, as_json, as_jsonl, as_junit, as_markdown, as_html):
        assert isinstance(write(report), str)
    assert not report.is_missed


def test_a_tree_shows_types_durations_arguments_and_errors(trace: Trace) -> None:
    console = Console(width=200, force_terminal=False)
    with console.capture() as captured:
        console.print(trace_tree(trace))

    lines = captured.get().splitlines()
    assert lines[1].startswith("└── travel_agent  AGENT  302 ms")
    assert any('get_weather  TOOL  133 us  {"city": "Paris"}' in line for line in lines)
    assert any("ERROR ValueError: unsupported currency: XYZ" in line for line in lines)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1_500, "1.5 us"), (12_345_678, "12.3 ms"), (61 * 10**9, "61 s")],
)
def test_durations_have_a_unit_that_suits_them(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text


def test_inspection_has_the_promised_keys_in_order(trace: Trace) -> None:
    found = inspect_trace(trace)

    assert list(found) == [
        "trace_id", "root", "complete", "dialects", "spans", "root_inputs", "root_outputs", "inputs", "outputs",
        "tool_calls", "llm_calls", "usage", "failed_spans", "root_failed", "documents", "model", "session_id",
        "user_id", "tags", "evaluations",
    ]  # fmt: skip
    assert list(found["spans"][0]) == ["span_id", "parent_id", "name", "span_type", "status", "inputs", "outputs"]
    assert found["usage"] == {"input_tokens": 330, "output_tokens": 63}
    json.dumps(found)


def test_an_explanation_names_the_dialect_and_the_key(trace: Trace) -> None:
    spans = {span["name"]: span for span in inspect_trace(trace, READER)["spans"]}

    assert spans["get_weather"]["explain"]["inputs"]["dialect"] == "openinference"
    assert spans["ChatCompletion"]["explain"]["input_tokens"] == {
        "dialect": "openinference",
        "key": "llm.token_count.prompt",
    }
