"""The status page as somebody uses it: a running sidecar, and Chromium on the same machine."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.chromium import CHROMIUM, Page, chromium
from tests.e2e.sidecar import Answer, Sidecar, id_of
from tests.e2e.sink import Sink

from otel_scorer.testing import make_request, make_span

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]

HOSTILE = "<img src=x onerror=document.title='owned'></script><script>document.title='owned'</script>\u202e\x00{{7*7}}"
SCORERS = """
from otel_scorer import Feedback, scorer

@scorer
def suspicious(trace):
    return Feedback(value=False, rationale=trace.root.name * 2)

@scorer(name="<b>bold</b>")
def bold(trace):
    return trace.root.name

@scorer
def broken(trace):
    raise ValueError(trace.root.name)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Sidecar]:
    folder = tmp_path_factory.mktemp("sidecar")
    (folder / "scorers.py").write_text(SCORERS, encoding="utf-8")
    (folder / "sidecar.yaml").write_text(
        f"scorers: [scorers.py, latency]\nassembly: {{root_grace: 0.2s}}\ntelemetry: {{status_page: '127.0.0.1:0'}}\n"
        f"exporters: {{otlp: {{endpoint: '{sink.grpc}', headers: {{x-key: '${{env:KEY}}', plain: in-the-open}}}}}}\n",
        encoding="utf-8",
    )
    sidecar = Sidecar("-c", "sidecar.yaml", environment={"KEY": "s3cret"}, folder=folder)
    yield sidecar
    sidecar.close()


@pytest.fixture
def page(browser: Page, sidecar: Sidecar) -> Iterator[Page]:
    browser.complaints.clear()
    browser.addresses.clear()
    assert sidecar.status is not None
    browser.visit(f"{sidecar.status}/")
    looked(browser)
    yield browser
    assert browser.complaints == []


def looked(page: Page, times: int = 1) -> None:
    """Wait until the page has asked so many times more."""
    page.run(
        "new Promise((done) => { const looks = () => Number(document.documentElement.dataset.looks ?? 0); "
        f"const enough = Math.max({times}, looks() + {times} - 1); "
        "const wait = () => looks() >= enough ? done() : setTimeout(wait, 20); wait(); })"
    )


def text(page: Page, selector: str) -> str:
    found: str = page.run(f"document.querySelector({selector!r}).innerText")
    return found


def score(sidecar: Sidecar, sink: Sink, trace: int, name: str) -> None:
    sidecar.send(make_request(make_span(name, trace=trace, span=1, end=0.5), service="shop"))
    sink.wait_for_scores(4, id_of(trace))


def test_a_scored_trace_is_there_with_verdicts_and_why(page: Page, sidecar: Sidecar, sink: Sink) -> None:
    score(sidecar, sink, 1, "answer the question")
    looked(page, 3)

    summary = text(page, "#traces summary")
    assert "answer the question shop" in summary
    assert "✗ suspicious False , failed" in " ".join(summary.split())
    page.run("document.querySelector('#traces summary').click()")
    assert "answer the questionanswer the question" in text(page, "#traces .panel")
    assert "1 span, closed by root_quiet, complete" in text(page, "#traces .panel")
    assert "ValueError" in text(page, "#traces .panel")
    assert "suspicious" in text(page, "#decisions")
    assert "latency" in text(page, "#decisions")
    assert "scores" in text(page, "#queues")
    assert text(page, "#phase") == "ready"


def test_it_follows_without_touching_what_stays_as_it_is(page: Page, sidecar: Sidecar, sink: Sink) -> None:
    score(sidecar, sink, 2, "first")
    looked(page, 3)
    page.run("document.querySelector('#traces summary').click()")
    page.run(
        "window.changes = 0; window.opened = document.querySelector('#traces details[open]'); "
        "new MutationObserver((found) => { window.changes += found.filter((each) => !each.target.closest?.("
        "'#about, #tiles')).length; }).observe(document.querySelector('main'), {childList: true, subtree: true, "
        "characterData: true, attributes: true})"
    )

    looked(page, 3)
    assert page.run("window.changes") == 0

    score(sidecar, sink, 3, "second")
    looked(page, 3)
    assert "second" in text(page, "#traces summary")
    assert page.run("window.opened.isConnected && window.opened.open")


def test_hostile_content_stays_text(page: Page, sidecar: Sidecar, sink: Sink) -> None:
    score(sidecar, sink, 4, HOSTILE)
    looked(page, 3)

    assert page.run("document.title") == "otel-scorer"
    assert page.run("document.querySelectorAll('img, main b, main script').length") == 0
    assert "<img src=x" in text(page, "#traces summary")
    assert "<b>bold</b>" in text(page, "#decisions")


def test_nothing_is_asked_of_anybody_else(page: Page, sidecar: Sidecar) -> None:
    looked(page, 2)

    assert {address.rsplit("/", 1)[0] for address in page.addresses if not address.startswith("data:")} == {
        sidecar.status
    }


def test_settings_are_shown_without_secrets(page: Page) -> None:
    settings: str = page.run("document.querySelector('#settings').textContent")

    assert "root_grace" in settings
    assert "s3cret" not in settings
    assert "in-the-open" not in settings


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_either_scheme(page: Page, scheme: str) -> None:
    page.prefer(scheme)

    back: str = page.run("getComputedStyle(document.body).backgroundColor")
    front: str = page.run("getComputedStyle(document.body).color")

    assert (back, front) == (
        ("rgb(255, 255, 255)", "rgb(31, 35, 40)") if scheme == "light" else ("rgb(13, 17, 23)", "rgb(240, 246, 252)")
    )


@pytest.mark.parametrize("width", [1400, 420])
def test_it_fits_the_window(page: Page, width: int) -> None:
    page.resize(width, 900)

    assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    "headers",
    [{"Host": "rebound.example"}, {"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}],
    ids=["another name", "through a proxy", "through another"],
)
def test_what_quotes_traces_is_for_this_machine_only(sidecar: Sidecar, headers: dict[str, str]) -> None:
    refused: list[Answer] = [
        sidecar.ask("/status.json", headers),
        sidecar.ask("/", {**headers, "Accept": "text/html"}),
    ]

    assert [answer.status for answer in refused] == [403, 403]
    assert sidecar.ask("/readyz", headers).status == 200
    assert json.loads(sidecar.ask("/status.json", {"Host": "localhost:1"}).body)["phase"] == "ready"
