"""Every TraceQL query of the documentation and of the dashboard, asked of Tempo itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.backends.products import Tempo, tempo
from tests.backends.servers import wait_until
from tests.backends.test_real_backends import FAILING, REPEATING, ask_agent
from tests.e2e.sidecar import Sidecar

from otel_scorer.demo.rules import QUESTIONS

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SCORERS = Path(__file__).parent / "scorers.py"
NAMES = {"tool_errors", "redundant_tool_calls", "helpfulness", "broken"}
ASKED = [*QUESTIONS, FAILING]


class Sent(NamedTuple):
    """A Tempo that has some traces, with their ids by what was asked."""

    tempo: Tempo
    traces: set[str]
    failing: set[str]
    repeating: set[str]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    scorers = ("tool_errors", "redundant_tool_calls", f"{SCORERS}:helpfulness", f"{SCORERS}:broken")
    with tempo(tmp_path_factory.mktemp("tempo")) as running:
        sidecar = Sidecar(
            *("--preset", "tempo", "--export", running.url, "--root-grace", "0.3", "--scorers", *scorers),
            # So that spans say how many traces they stand for.
            *("--forwarding", "hold_trace", "--keep", "true"),
        )
        try:
            traces = ask_agent(sidecar, *ASKED)
            for trace in traces:
                wait_until(partial(running.evaluations, trace), lambda found: len(found) == len(NAMES))
            assert sidecar.stop() == 0
        finally:
            sidecar.close()
        by_question = list(zip(traces, ASKED, strict=True))
        yield Sent(
            running,
            set(traces),
            {trace for trace, question in by_question if question == FAILING},
            {trace for trace, question in by_question if question == REPEATING},
        )


def queries() -> list[str]:
    pages = [
        (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("backends", "dashboards", "keeping")
    ]
    found = [line for page in pages for line in re.findall(r"^\{ .*", page, re.MULTILINE)]
    dashboard = json.loads((ROOT / "config" / "grafana" / "otel-scorer-tempo.json").read_text(encoding="utf-8"))
    found += [target["query"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return list(dict.fromkeys(query.replace("$service", "travel-.*") for query in found))


def expected_traces(query: str, sent: Sent) -> set[str]:
    if "span.error.type" in query:
        return sent.traces
    if '"tool_errors"' in query or '"helpfulness"' in query:
        return sent.failing
    return sent.failing | sent.repeating


def expected_sums(query: str, sent: Sent) -> dict[str, float]:
    """Return what the values of a query add up to."""
    every, failing, repeating = len(sent.traces), len(sent.failing), len(sent.repeating)
    if "adjusted_count" in query:
        return {"sum_over_time": every}
    if "error.type" in query:
        return {"LookupError": every}
    if "close_reason" in query:
        return {"root_quiet": every * len(NAMES)}
    if '"pass"' in query:
        return {"tool_errors": every - failing, "redundant_tool_calls": every - repeating}
    return {"tool_errors": failing, "redundant_tool_calls": repeating}


@pytest.mark.parametrize("query", [query for query in queries() if "_over_time(" not in query])
def test_a_query_for_bad_traces_finds_exactly_these(query: str, sent: Sent) -> None:
    expected = expected_traces(query, sent)

    assert wait_until(partial(sent.tempo.search, query), expected.issubset) == expected


@pytest.mark.parametrize("query", [query for query in queries() if "_over_time(" in query])
def test_a_query_for_metrics_counts_every_verdict(query: str, sent: Sent) -> None:
    if "avg_over_time(" in query:
        # A mean for each minute, of which there may be two.
        wait_until(partial(sent.tempo.metrics, query), lambda found: set(found) == NAMES - {"broken"})
        found = sent.tempo.metrics(query)
        assert all(0.5 <= value <= 0.9 for value in found["helpfulness"])
        assert all(0 <= value <= 1 for values in found.values() for value in values)
        return

    expected = expected_sums(query, sent)
    wait_until(lambda: sums(sent.tempo.metrics(query)), lambda found: found == expected)


def sums(found: dict[str, list[float]]) -> dict[str, float]:
    return {label: sum(values) for label, values in found.items()}
