"""What otel_scorer measures about itself: counters, histograms, and the tables that name them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.telemetry import COUNTERS, GAUGES, HISTOGRAMS, Distribution, count, counters, distributions, record


def held(**attributes: str) -> Distribution:
    key = tuple(sorted(attributes.items()))
    none = Distribution((0,) * (len(HISTOGRAMS["scoring.duration"].bounds) + 1), 0.0)
    return next((found for name, given, found in distributions() if (name, given) == ("scoring.duration", key)), none)


@given(st.lists(st.floats(0, 1000)))
def test_every_value_falls_into_the_bucket_whose_upper_bound_it_does_not_pass(values: list[float]) -> None:
    bounds = HISTOGRAMS["scoring.duration"].bounds
    before = held(scorer="law", outcome="scored")

    record("scoring.duration", values, scorer="law", outcome="scored")

    after = held(scorer="law", outcome="scored")
    edges: Sequence[float] = (-1.0, *bounds, float("inf"))
    for index, added in enumerate(map(int.__sub__, after.counts, before.counts)):
        assert added == sum(edges[index] < value <= edges[index + 1] for value in values)
    assert after.total - before.total == pytest.approx(sum(values), abs=1e-6)


def test_nothing_recorded_leaves_no_trace() -> None:
    record("scoring.duration", [], scorer="never", outcome="scored")

    assert not [key for _, key, _ in distributions() if ("scorer", "never") in key]


def test_a_name_that_no_table_has_is_a_bug() -> None:
    with pytest.raises(KeyError):
        record("scoring.unheard_of", [1.0])
    with pytest.raises(KeyError):
        count("scoring.duration")


def test_every_metric_has_a_name_of_its_own_and_says_what_it_is() -> None:
    names = [*COUNTERS, *GAUGES, *HISTOGRAMS]

    assert len(set(names)) == len(names)
    for table in (COUNTERS.items(), GAUGES.items(), HISTOGRAMS.items()):
        for name, metric in table:
            assert name == name.lower()
            assert metric.description[0].isupper(), name
            assert not metric.description.endswith("."), name


def test_counters_are_read_apart_by_what_they_are_split_by() -> None:
    count("assembler.closed", 2, reason="of_a_test")

    assert ("assembler.closed", (("reason", "of_a_test"),), 2) in counters()
