"""The HTML report as text: whole, safe, and no larger than it says. What it does when opened is tested in Chromium."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reporting.reports import HOSTILE, captured_report, decision, hostile_report, large_report

from otel_scorer.errors import ConfigError
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import MISSING
from otel_scorer.reporting import as_html as page_module
from otel_scorer.reporting.as_html import as_html, write_html
from otel_scorer.reporting.as_notebook import as_notebook
from otel_scorer.reporting.distribution import distribution
from otel_scorer.reporting.evidence_view import DETAIL_LIMIT, details_json, page_json
from otel_scorer.reporting.report import Summary, build_report
from otel_scorer.reporting.subject import Evidence, Subject, row_subject, trace_subject
from otel_scorer.testing import make_span, make_trace


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.data: dict[str, list[Any]] = {}
        self.text = ""
        self._script: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags[tag] += 1
        self.handlers += [name for name in found if name.startswith("on") or name == "style"]
        self.addresses += [found[name] or "" for name in ("href", "src") if name in found]
        self._script = found.get("data-of") or found.get("id") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.data.setdefault(self._script, []).append(json.loads(data))
        else:
            self.text += data


def test_the_page_asks_for_nothing_and_runs_only_its_own_script() -> None:
    page = as_html(captured_report())
    elements = Elements(page)

    assert elements.addresses == []
    assert elements.handlers == []
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_hostile_content_stays_text() -> None:
    report = hostile_report()
    expected = Elements(as_html(captured_report())).tags

    elements = Elements(as_html(report))

    assert elements.tags["img"] == 0
    assert set(elements.tags) - {"ul", "li"} <= set(expected) | {"section"}
    assert elements.tags["script"] == 1 + len(elements.data)
    assert "\u202e" not in as_html(report)
    assert "\x1b" not in as_html(report)
    as_html(report).encode("utf-8")  # no halves of characters


def test_the_notebook_view_is_small_static_and_safe() -> None:
    hostile, large = as_notebook(hostile_report()), as_notebook(large_report(10_000))

    assert Elements(hostile).tags["script"] == 0
    assert Elements(hostile).tags["img"] == 0
    assert "100 failed" in large
    assert "... and 90 more" in large
    assert len(large) < 20_000


def test_every_verdict_and_its_trace_are_there() -> None:
    report = captured_report()

    data = Elements(as_html(report)).data

    [rows] = data["rows"]
    assert len(rows) == len(report.rows) == 9
    [subjects] = data["subjects"]
    assert [each[:4] for each in subjects] == [
        [each.name, each.trace_id, "end_of_file", True] for each in report.subjects
    ]
    assert subjects[0][4] == "What is the weather in Paris, and how much is 100 EUR in XYZ?"
    [details] = data["s0"]
    spans = [(span["depth"], span["name"], span["type"]) for span in details["trace"]["spans"]]
    assert spans[:2] == [(0, "travel_agent", "AGENT"), (1, "CreateEmbeddings", "EMBEDDING")]
    assert [call["name"] for call in details["tools"]] == ["get_weather", "convert_currency"]
    assert details["tools"][1]["failed"]
    assert "raise ValueError" in details["verdicts"][2]["stack"]


def test_a_row_of_data_without_a_trace_has_inputs_outputs_and_expectations() -> None:
    evidence = Evidence(None, {"question": "why?"}, None, {"expected_response": "because"})
    report = build_report([(row_subject(3, lambda: evidence), [decision(Feedback("fine", True), passed=True)])])

    [details] = Elements(as_html(report)).data["s0"]

    assert "row 3" in as_html(report)
    assert details["inputs"] == '{\n  "question": "why?"\n}'
    assert details["outputs"] == "null"
    assert "because" in details["expectations"]
    assert report.subject_count == "1 row"


def test_what_nobody_recorded_is_not_shown_as_nothing() -> None:
    [details] = Elements(as_html(build_report([(row_subject(0, Evidence), [decision(None)])]))).data["s0"]

    assert Evidence().inputs is MISSING
    assert "inputs" not in details


def test_a_row_that_could_not_be_made_is_an_error_of_the_report() -> None:
    report = build_report([(row_subject(0, Evidence, problem="KeyError: 'q'"), [decision(None)])], max_errors=0)

    [row] = [row for chunk in Elements(as_html(report)).data["rows"] for row in chunk if row[3] == "error"]

    assert (row[4], row[6]) == ("failed", "KeyError: 'q'")
    assert report.is_missed
    assert (report.summaries[0].scorer, report.summaries[0].errors) == ("predict_fn", 1)


def test_evidence_that_cannot_be_loaded_costs_only_itself() -> None:
    def fail() -> Evidence:
        raise OSError("the store is gone")

    broken = Subject("away", "0" * 31 + "1", load=fail)
    report = build_report([(broken, [decision(Feedback("fine", 1))]), (row_subject(1, Evidence), [decision(None)])])

    data = Elements(as_html(report)).data

    assert data["s0"][0]["problem"] == "The evidence cannot be shown: OSError: the store is gone"
    assert "s1" in data


def test_a_huge_value_is_cut_and_says_so() -> None:
    text = "x" * 10_000_000
    evidence = Evidence(make_trace(make_span("huge", attributes={"input.value": text, "k": text})), text, [text])
    [row] = build_report([(row_subject(0, Evidence), [decision(Feedback("f", "v", rationale=text))])]).rows

    told = json.loads(details_json([row], evidence))

    assert told["inputs"] == "x" * 20_000 + "\n[9,980,000 more characters]"
    assert told["verdicts"][0]["why"].endswith("[9,980,000 more characters]")
    assert told["trace"]["spans"][0]["attributes"]["k"].endswith("[9,999,700 more characters]")


def test_a_huge_trace_is_cut_to_its_limit_and_says_so() -> None:
    spans = [
        make_span("s" * 100, span=number, parent=number - 1 or None, attributes={"input.value": "y" * 5000})
        for number in range(1, 2001)
    ]

    text = details_json([], Evidence(make_trace(*spans)))

    told = json.loads(text)["trace"]
    assert len(text) <= DETAIL_LIMIT
    assert len(told["spans"]) + told["more"] == 2000
    assert len(told["spans"]) >= 50


def test_many_verdicts_on_one_trace_do_not_make_it_larger_than_its_limit() -> None:
    decisions = [decision(Feedback("f", "v" * 500, rationale="r" * 5000)) for _ in range(3000)]
    rows = build_report([(row_subject(0, Evidence), decisions)]).rows

    assert len(details_json(rows, Evidence())) <= DETAIL_LIMIT


def test_a_page_is_bounded_and_keeps_failures_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "ROWS_LIMIT", 600)
    monkeypatch.setattr(page_module, "DETAILS_LIMIT", 40_000)
    report = large_report(1000)

    page = as_html(report)

    data = Elements(page).data
    rows = [row for chunk in data["rows"] for row in chunk]
    assert len(rows) == 600
    assert sum(row[3] in {"fail", "error"} for row in rows) == 11
    failed = {row[0] for row in rows if row[3] in {"fail", "error"}}
    assert {f"s{number}" for number in failed} <= set(data)
    assert "2,400 more verdicts are not on this page" in page
    assert sum(len(json.dumps(told)) for key, told in data.items() if re.fullmatch(r"s\d+", key)) < 45_000


def test_ten_thousand_rows_make_a_page_of_a_few_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "report.html"

    write_html(large_report(10_000), path)

    assert path.stat().st_size < 12_000_000


def test_evidence_is_let_go_before_the_next_is_loaded() -> None:
    alive: list[int] = []
    most = 0

    class Loaded(dict[str, object]):
        def __del__(self) -> None:
            alive.pop()

    def load() -> Evidence:
        nonlocal most
        alive.append(1)
        most = max(most, len(alive))
        return Evidence(None, Loaded(a=1))

    as_html(build_report((row_subject(number, load), [decision(Feedback("f", 1))]) for number in range(50)))

    assert most <= 2


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Cannot write .*: No such file or directory"):
        write_html(captured_report(), tmp_path / "no" / "report.html")


@given(st.recursive(st.text() | st.none() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_data_in_a_page_means_what_it_meant_and_cannot_end_its_element(value: object) -> None:
    text = page_json(value)

    assert "<" not in text
    assert json.loads(text) == value


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_of_any_size_have_a_distribution(numbers: list[float]) -> None:
    summary = Summary("s", "n", numbers=numbers, is_verdict=False)

    image = distribution(summary)

    sizes = [float(size) for size in re.findall(r' (?:width|height|x|y)="([^ "]+)"', image)]
    assert all(0 <= size <= 180 for size in sizes)


def test_a_distribution_tells_in_words_what_it_shows() -> None:
    summary = Summary("s", "n", numbers=[1.0, 0.0, 1.0], passed=2, failed=1, no_value=4, errors=1)

    assert 'aria-label="2 passed, 1 failed, 4 no value, 1 errors"' in distribution(summary)


def test_a_span_that_ended_before_it_began_can_be_shown() -> None:
    trace = make_trace(make_span("odd", start=5, end=1), make_span("odder", span=2, parent=1, start=-3, end=-9))

    report = build_report([(trace_subject(trace), [decision(Feedback(HOSTILE, 1))])])

    assert Elements(as_html(report)).data["s0"][0]["trace"]["spans"]
