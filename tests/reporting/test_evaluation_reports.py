"""Reports on what `evaluate` found, stored or not: rows with and without traces, and rows that could not be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from otel_scorer import EvaluationResult, evaluate, scorer
from otel_scorer.reporting.as_html import as_html
from otel_scorer.reporting.as_json import as_jsonl
from otel_scorer.reporting.as_junit import as_junit
from otel_scorer.reporting.as_markdown import as_markdown
from otel_scorer.reporting.as_table import as_table

ROWS: list[dict[str, Any]] = [
    {"inputs": {"question": "capital of France?"}, "expectations": {"answer": "Paris"}},
    {"inputs": {"question": "capital of nowhere?"}, "expectations": {"answer": "-"}},
]


@scorer
def exact(outputs: str, expectations: dict[str, Any]) -> str:
    return "yes" if outputs == expectations["answer"] else "no"


def answer(question: str) -> str:
    if "nowhere" in question:
        raise LookupError("no such country")
    return "Paris"


@pytest.fixture(params=["stored", "not stored"])
def result(request: pytest.FixtureRequest, tmp_path: Path) -> EvaluationResult:
    return evaluate(ROWS, [exact], answer, store=tmp_path / "traces.db" if request.param == "stored" else False)


def test_every_format_tells_the_verdict_and_the_row_that_could_not_be_made(result: EvaluationResult) -> None:
    for render in (as_table, as_html, as_jsonl, as_junit, as_markdown):
        text = render(result.report)

        assert "LookupError: no such country" in text
        assert "predict" in text
    assert "Pass" in as_html(result.report)
    assert result.report.error_count == 1
    assert not result.passed
    assert result.reason == "predict_fn: row 1: LookupError: no such country"


def test_the_page_has_the_trace_that_predict_fn_made(result: EvaluationResult) -> None:
    page = as_html(result.report)

    details = json.loads(page.partition('id="s0">')[2].partition("</script>")[0])
    assert "capital of France?" in details["inputs"]
    assert details["outputs"] == "Paris"
    assert json.loads(details["expectations"]) == {"answer": "Paris"}
    assert details["trace"]["spans"]


def test_junit_counts_the_row_as_an_error(result: EvaluationResult) -> None:
    top = ET.fromstring(as_junit(result.report).encode("utf-8"))  # noqa: S314 - our own output

    assert top.attrib["errors"] == "1"
    assert top.find("testsuite[@name='predict_fn']/testcase/error") is not None
