"""The HTML report as somebody uses it: opened from disk in a real browser, with mouse and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chromium import CHROMIUM, Page, chromium
from tests.reporting.reports import captured_report, hostile_report, large_report

from otel_scorer.reporting.as_html import write_html
from otel_scorer.reporting.report import Report

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]

ROWS = "[...document.querySelectorAll('tr.row')]"
FOCUS = "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).trim()"
CONTRASTS = """
(() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parse(color).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if ((parse(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || ["SCRIPT", "STYLE", "OPTION"].includes(node.tagName)) continue;
    if (node.disabled) continue;
    const [one, other] = [light(getComputedStyle(node).color), light(back(node))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) poor.push(`${node.className || node.tagName}: ${contrast.toFixed(2)}`);
  }
  return [...new Set(poor)];
})()
"""
NAMELESS = """
[...document.querySelectorAll("button, input, select, [role=treeitem], [role=img], [role=tree], [role=region]")]
  .filter((node) => !(node.getAttribute("aria-label") || (node.labels?.[0] ?? node).textContent.trim()))
  .map((node) => node.outerHTML)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, tmp_path: Path) -> Iterator[Page]:
    browser.complaints.clear()
    browser.addresses.clear()
    browser.prefer("light")
    browser.resize(1400, 900)
    yield browser
    assert browser.complaints == []


def show(page: Page, tmp_path: Path, report: Report, fragment: str = "") -> None:
    path = tmp_path / "report.html"
    write_html(report, path)
    page.open(path, fragment)


def texts(page: Page, selector: str) -> list[str]:
    found: list[str] = page.run(f"[...document.querySelectorAll({selector!r})].map((node) => node.innerText.trim())")
    return found


def choose(page: Page, label: str, value: str) -> None:
    page.run(
        f"{{ const input = [...document.querySelectorAll('.filters label')].find((each) => "
        f"each.innerText.startsWith({label!r})).querySelector('select'); "
        f"input.value = [...input.options].find((option) => option.text === {value!r}).value; "
        f"input.dispatchEvent(new Event('change')); }}"
    )


def test_it_opens_from_disk_without_asking_the_network(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, captured_report(fail_under=[("tool_errors", 0.9)]))

    assert page.addresses == [(tmp_path / "report.html").as_uri()]
    assert page.run("document.title") == "otel-scorer: 3 traces"
    assert texts(page, "header p") == ["3 traces · 9 verdicts · 1 failed · 3 errors · 1 bound missed"]
    assert page.run(f"{ROWS}.length") == 9


def test_rows_are_filtered_by_everything_that_is_offered(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, captured_report())

    choose(page, "Feedback", "latency")
    assert page.run(f"{ROWS}.length") == 3
    assert texts(page, ".count") == ["1 to 3 of 3 (9 in all)"]

    choose(page, "Verdict", "failed")
    assert texts(page, ".empty") == ["Nothing matches."]

    choose(page, "Feedback", "all")
    assert texts(page, "tr.row .verdict") == ["✗ False\n, failed"]

    page.run("document.querySelector('.filters button[type=reset]').click()")
    choose(page, "Close reason", "end_of_file")
    assert page.run(f"{ROWS}.length") == 9
    page.run("document.querySelector('.filters input[type=checkbox]').click()")
    assert page.run(f"{ROWS}.length") == 3

    page.run("document.querySelector('.filters button[type=reset]').click()")
    page.run("document.querySelector('.filters input[type=search]').focus()")
    page.type("CONVERT_currency")
    page.run("new Promise((done) => setTimeout(done, 50))")
    assert len(texts(page, "tr.row")) == 1


def test_a_column_sorts_up_down_and_not_at_all(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, captured_report())
    choose(page, "Feedback", "latency")
    before = texts(page, "tr.row .verdict")
    click = (
        "[...document.querySelectorAll('.rows > thead button')].find((each) => each.textContent === 'Verdict').click()"
    )

    page.run(click)
    up = texts(page, "tr.row .verdict")
    page.run(click)
    down = texts(page, "tr.row .verdict")
    order = page.run("document.querySelectorAll('.rows > thead th')[3].getAttribute('aria-sort')")
    page.run(click)

    numbers = [float(text.split()[-1]) for text in up]
    assert numbers == sorted(numbers)
    assert down == up[::-1]
    assert order == "descending"
    assert texts(page, "tr.row .verdict") == before


def test_a_row_opens_and_shows_the_trace_and_the_reasons(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, captured_report())
    page.run(f"{ROWS}.find((row) => row.innerText.includes('1 of 2')).querySelector('button').click()")

    assert "1 of 2 tool calls failed" in texts(page, ".rationale")[0]
    assert texts(page, ".values h4") == ["Inputs", "Outputs"]
    assert texts(page, ".span .name") == [
        "travel_agent", "CreateEmbeddings", "ChatCompletion", "get_weather", "ChatCompletion", "convert_currency",
        "ChatCompletion",
    ]  # fmt: skip
    assert texts(page, ".span .type")[:2] == ["AGENT", "EMBEDDING"]
    assert texts(page, ".span .time")[0] == "302 ms"
    boxes = page.run("[...document.querySelectorAll('.bar')].map((bar) => [bar.offsetLeft, bar.offsetWidth])")
    assert boxes[1][0] < boxes[2][0] < boxes[4][0] < boxes[6][0]
    assert boxes[0][1] > 3 * boxes[4][1] > 0
    assert [line.split("\t")[0] for line in texts(page, ".tools tbody tr")] == [
        "get_weather",
        "convert_currency ✗ failed",
    ]

    page.run("document.querySelectorAll('.span')[5].click()")
    assert "unsupported currency: XYZ" in texts(page, ".span-details .error-text")[0]


def test_an_error_shows_its_stack_when_it_is_opened(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, captured_report())
    page.run(f"{ROWS}.find((row) => row.innerText.includes('boom')).querySelector('button').click()")

    assert texts(page, ".judged h3") == ["broken ! Error"]
    assert texts(page, ".rationale") == ["ValueError: boom"]
    assert 'raise ValueError("boom")' in texts(page, "pre.stack")[0]


def test_everything_can_be_done_with_the_keyboard(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, captured_report())
    page.run("document.querySelector('.rows > thead th:last-child button').focus()")

    page.press("Tab")
    assert page.run(FOCUS).startswith("travel_agent: tool_errors")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.run(FOCUS).startswith("travel_agent: broken")
    page.press("Enter")
    assert texts(page, "pre.stack")
    assert page.run(FOCUS).startswith("travel_agent: broken")
    for _ in range(40):
        page.press("Tab")
        if page.run("document.activeElement.getAttribute('role')") == "treeitem":
            break
    assert page.run(FOCUS) == "travel_agent AGENT 302 ms"
    page.press("ArrowDown")
    assert page.run(FOCUS).startswith("CreateEmbeddings")
    assert texts(page, ".span-details h5") == ["CreateEmbeddings"]
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert page.run("[...document.querySelectorAll('.span')].filter((span) => span.checkVisibility()).length") == 1
    page.press("ArrowRight")
    page.press("End")
    assert page.run(FOCUS).startswith("ChatCompletion")
    page.press("Escape")
    assert texts(page, "tr.details") == []
    assert page.run(FOCUS).startswith("travel_agent: broken")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_controls_have_names(page: Page, tmp_path: Path, scheme: str) -> None:
    page.prefer(scheme)
    show(page, tmp_path, captured_report(fail_under=[("latency", 0.0)], problems=["nothing"]))
    page.run(f"{ROWS}[2].querySelector('button').click()")
    background = page.run("getComputedStyle(document.body).backgroundColor")

    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    assert page.run(CONTRASTS) == []
    assert page.run(NAMELESS) == []


def test_it_fits_a_telephone(page: Page, tmp_path: Path) -> None:
    page.resize(390, 800)
    show(page, tmp_path, captured_report())
    page.run(f"{ROWS}[0].querySelector('button').click()")

    assert page.run("document.documentElement.scrollWidth") <= 390


def test_hostile_content_is_shown_and_does_nothing(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, hostile_report())
    for number in range(3):
        page.run(f"{ROWS}[{number}].querySelector('button').click()")
        page.run("document.querySelectorAll('.panel details').forEach((each) => { each.open = true; })")

        assert page.run("document.title").startswith("</script>")
        assert page.run("document.querySelectorAll('img').length") == 0
        assert "onerror=" in texts(page, ".span-details")[0]
    assert page.addresses == [(tmp_path / "report.html").as_uri()]


def test_ten_thousand_rows_open_filter_and_sort_at_once(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, large_report(10_000))

    assert texts(page, ".count") == ["1 to 100 of 30,000"]
    assert page.run("document.querySelectorAll('*').length") < 15_000
    assert page.run("performance.timing.loadEventEnd - performance.timing.navigationStart") < 10_000
    choose(page, "Feedback", "second")
    page.run("[...document.querySelectorAll('.rows > thead button')][2].click()")
    page.run("[...document.querySelectorAll('.rows > thead button')][2].click()")
    assert texts(page, "tr.row td.trace")[0] == "row 9999\nquestion 9999"
    page.run("[...document.querySelectorAll('.pager button')].find((each) => each.textContent === 'Last').click()")
    assert texts(page, "tr.row td.trace")[-1] == "row 0\nquestion 0"
    page.run(f"{ROWS}[0].querySelector('button').click()")
    assert "question 99" in texts(page, ".values")[0]


def test_an_address_can_name_a_row_to_open(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, large_report(1000), "#r2500")

    assert texts(page, "tr.is-open td.trace") == ["row 833\nquestion 833"]
    assert texts(page, ".pager span") == ["Page 26 of 30"]


def test_a_name_in_the_summary_leads_to_its_verdicts(page: Page, tmp_path: Path) -> None:
    show(page, tmp_path, captured_report())

    page.run("[...document.querySelectorAll('th[data-name] button')][1].click()")

    assert set(texts(page, "tr.row td:nth-child(3)")) == {"latency"}
