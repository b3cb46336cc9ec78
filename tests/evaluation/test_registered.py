"""Registered scorers, by name or as the instances that `start` returns, judge all that is evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_scorer import ConfigError, Scorer, ScorerSamplingConfig, evaluate, get_scorer
from otel_scorer.evaluation import score_traces
from otel_scorer.model.decision import Outcome
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.testing import make_span, make_trace

ROWS = [{"outputs": "one"}, {"outputs": "one two three"}]

SCORERS = """
from otel_scorer import scorer


@scorer
def words(outputs: str) -> int:
    return len(outputs.split())
"""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_SCORER_STORE", str(tmp_path / "store.db"))
    file = tmp_path / "my_scorers.py"
    file.write_text(SCORERS, encoding="utf-8")
    [words] = load_scorers([f"{file}:words"])
    # As good as no live trace fulfils it.
    return words.register(name="length").start(
        sampling_config=ScorerSamplingConfig(sample_rate=1e-9, filter_string="name = 'nothing'")
    )


def test_a_registered_scorer_can_be_named(started: Scorer) -> None:
    assert evaluate(ROWS, ["length"]).metrics == {"length/mean": 2.0}
    started.stop()
    assert evaluate(ROWS, ["length"], store=False).metrics == {"length/mean": 2.0}


def test_the_instance_that_start_returns_judges_every_row(started: Scorer) -> None:
    for each in (started, get_scorer(name="length")):
        assert evaluate(ROWS, [each], store=False).metrics == {"length/mean": 2.0}


def test_it_judges_every_trace_too(started: Scorer) -> None:
    traces = [make_trace(make_span("root", trace=number, attributes={"output.value": "x"})) for number in range(1, 4)]

    outcomes = {each.decisions[0].outcome for each in score_traces(traces, [started])}

    assert not outcomes & {Outcome.NOT_SAMPLED, Outcome.FILTERED}


def test_the_store_of_an_evaluation_is_where_names_are_looked_up(started: Scorer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown scorer 'length'"):
        evaluate(ROWS, ["length"], store=tmp_path / "other.db")

    assert evaluate(ROWS, ["length"], store=tmp_path / "store.db").metrics == {"length/mean": 2.0}
    assert started.name == "length"


def test_other_references_can_be_named_too(started: Scorer, tmp_path: Path) -> None:
    result = evaluate(ROWS, [str(tmp_path / "my_scorers.py"), lambda outputs: 1], store=False)

    assert result.metrics == {"words/mean": 2.0, "lambda/mean": 1.0}
    assert started.sample_rate == 1e-9
