"""JUnit and Markdown as CI systems take them: readable by their rules, and safe whatever a trace holds."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from tests.reporting.reports import captured_report, decision, hostile_report, large_report

from otel_scorer.model.feedback import Feedback
from otel_scorer.reporting.as_junit import as_junit
from otel_scorer.reporting.as_markdown import LIMIT, MARKER, as_markdown
from otel_scorer.reporting.report import Report, build_report
from otel_scorer.reporting.subject import Evidence, row_subject

COUNTS = {"tests", "failures", "errors"}
# What the schemas of Jenkins 4 and 10 both have: children, and attributes with those that must be there first.
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"testsuite"}, set(), {"name", "time", *COUNTS}),
    "testsuite": ({"testcase", "properties"}, {"name", *COUNTS}, {"time", "skipped"}),
    "testcase": ({"skipped", "error", "failure", "system-out"}, {"name", "classname", "time"}, set()),
    "failure": (set(), {"message", "type"}, set()),
    "error": (set(), {"message", "type"}, set()),
    "skipped": (set(), {"message"}, set()),
    "system-out": (set(), set(), set()),
}


def parsed(report: Report) -> ET.Element:
    return ET.fromstring(as_junit(report).encode("utf-8"))  # noqa: S314 - our own output


@pytest.mark.parametrize("report", [captured_report(fail_under=[("x", 1.0)]), hostile_report(), build_report([])])
def test_junit_keeps_to_the_common_schema(report: Report) -> None:
    for element in parsed(report).iter():
        children, needed, allowed = SCHEMA[element.tag]
        assert {child.tag for child in element} <= children
        assert needed <= set(element.attrib) <= needed | allowed
        if element.tag == "testcase":
            assert len(element) <= 1


def test_junit_counts_what_is_there() -> None:
    top = parsed(captured_report(fail_under=[("tool_errors", 0.9), ("latency", 0.0)]))

    assert top.attrib == {"name": "otel-scorer", "tests": "11", "failures": "2", "errors": "3"}
    for suite in top:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    assert [suite.attrib["name"] for suite in top] == ["tool_errors", "latency", "broken", "bounds"]
    failure = top.find("testsuite[@name='tool_errors']//failure")
    assert failure is not None
    assert failure.text == "1 of 2 tool calls failed: convert_currency (ValueError: unsupported currency: XYZ)"


def test_a_scorer_called_bounds_does_not_lose_its_verdicts() -> None:
    scored = [(row_subject(0, Evidence), [decision(Feedback("bounds", 1.0), name="bounds")])]

    [suite] = parsed(build_report(scored, fail_under=[("bounds", 0.5)]))

    assert suite.attrib["tests"] == "2"


def test_junit_cuts_what_is_huge() -> None:
    huge = Feedback("f" * 1000, value=False, rationale="r" * 10_000_000)

    text = as_junit(build_report([(row_subject(0, Evidence), [decision(huge, passed=False)])]))

    assert len(text) < 20_000
    assert "more characters]" in text


def test_markdown_says_first_whether_the_bounds_were_met() -> None:
    missed, met, none = (
        as_markdown(captured_report(fail_under=bounds)).splitlines()
        for bounds in ([("tool_errors", 0.9), ("latency", 0)], [("latency", 0)], [])
    )

    assert missed[:2] == [MARKER, "## ❌ otel-scorer: 3 traces"]
    assert "| tool\\_errors | 0.666667 (at least 0.9) | ❌ missed |" in missed
    assert met[1] == "## ✅ otel-scorer: 3 traces"
    assert none[1] == "## otel-scorer: 3 traces"
    assert "| tool\\_errors | 67% | 0.6667 |  | 2 | 1 |  |  |  |" in none


def test_many_failures_are_folded_and_counted() -> None:
    text = as_markdown(large_report(20_000))

    assert "<summary>Failures and errors (220)</summary>" in text
    assert "... and 120 more failures." in text
    assert text.endswith("\n</details>\n")


@pytest.mark.parametrize("length", [10, 100, 1000])
def test_markdown_is_never_longer_than_a_comment(length: int) -> None:
    scored = [
        (row_subject(number, Evidence), [decision(said, passed=False, name="n" * length + str(number))])
        for number in range(1500)
        for said in [Feedback("n" * length + str(number), value=False, rationale="_" * 2000)]
    ]
    problems = ["p" * length] * 500

    text = as_markdown(build_report(scored, fail_under=[("b" * length, 1.0)] * 500, problems=problems))

    assert len(text) <= LIMIT
    for what in ("bounds", "scores", "problems", "failures"):
        assert re.search(rf"\.\.\. and [\d,]+ more {what}\.", text)
    assert text.splitlines()[1].startswith("## ❌")


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("a | b", "a \\| b"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("&lt;", "&amp;lt;"),
        ("![x](http://h)", "!\\[x\\](http://h)"),
        ("ask @everyone", "ask @\u200beveryone"),
        ("see #12", "see \\#\u200b12"),
        ("two\nlines", "two lines"),
        ("\x1b[31m\u202e", "\ufffd\\[31m\ufffd"),
    ],
)
def test_what_users_typed_stands_for_itself(typed: str, written: str) -> None:
    said = decision(Feedback("f", value=False, rationale=typed), passed=False)

    assert f"| {written} |" in as_markdown(build_report([(row_subject(0, Evidence), [said])]))


def test_hostile_content_stays_in_its_cell() -> None:
    lines = as_markdown(hostile_report()).splitlines()

    assert not [line for line in lines if "<script>" in line.replace("\\<", "")]
    tables = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {4, 5, 10}
