"""The sidecar's own metrics: what is said of them as OTLP, and which names they have where."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from otel_scorer.config import Config
from otel_scorer.service.own_metrics import PREFIX, OwnMetrics, prometheus_name
from otel_scorer.service.parts import span_destinations
from otel_scorer.telemetry import COUNTERS, GAUGES, HISTOGRAMS, Counter, Histogram, Measured, count, record
from otel_scorer.transport.dead_letters import DeadLetterFiles

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
WAITING = Measured("forwarder.queue_size", 42, (("destination", "here"), ("lane", "spans")))


def read(*gauges: Measured) -> dict[str, Metric]:
    clock = iter(range(1_000, 2_000))
    request = OwnMetrics(lambda: gauges, now=lambda: next(clock)).request()
    return {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}


def attributes(point: object) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}  # type: ignore[attr-defined]  # of any kind


def test_counters_are_cumulative_sums_since_the_start() -> None:
    count("assembler.closed", 3, reason="a_test")

    metric = read()["otel_scorer.assembler.closed"]

    (point,) = [each for each in metric.sum.data_points if attributes(each) == {"reason": "a_test"}]
    assert (metric.unit, metric.sum.is_monotonic, metric.sum.aggregation_temporality) == ("{trace}", True, 2)
    assert point.as_int == 3
    assert point.start_time_unix_nano == 1_000
    assert point.time_unix_nano > 1_000


def test_gauges_say_what_their_owner_says() -> None:
    metric = read(WAITING)["otel_scorer.forwarder.queue_size"]

    (point,) = metric.gauge.data_points
    assert (metric.unit, point.as_int, attributes(point)) == ("By", 42, {"destination": "here", "lane": "spans"})


def test_histograms_have_a_count_for_each_bound_and_one_beyond() -> None:
    record("scoring.delay", [0.2, 0.2, 1_000.0], destination="a test")

    metric = read()["otel_scorer.scoring.delay"]

    (point,) = [each for each in metric.histogram.data_points if attributes(each) == {"destination": "a test"}]
    assert (point.count, point.sum, sum(point.bucket_counts)) == (3, 1000.4, 3)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert point.bucket_counts[-1] == 1


def test_the_resource_says_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OwnMetrics(tuple).resource["service.name"] == "otel-scorer"

    monkeypatch.setenv("OTEL_SERVICE_NAME", "judge")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    named = OwnMetrics(tuple).resource

    assert (named["service.name"], named["deployment.environment.name"]) == ("judge", "test")
    assert {"service.instance.id", "service.version"} <= named.keys()


def test_everything_that_is_measured_is_in_the_table_of_the_documentation() -> None:
    rows = [line for kind in (COUNTERS, GAUGES, HISTOGRAMS) for line in documented(kind.items())]

    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("| metric |") :].split("\n\n")[0].splitlines()[2:]
    assert table == rows


def documented(metrics: Iterable[tuple[str, Counter]]) -> Iterable[str]:
    for name, metric in metrics:
        kind = "histogram" if isinstance(metric, Histogram) else "gauge" if name in GAUGES else "counter"
        total = "_total" if kind == "counter" else ""
        split = ", ".join(f"`{each}`" for each in metric.attributes)
        yield (
            f"| `{PREFIX}{name}` | `{prometheus_name(PREFIX + name, metric.unit)}{total}` | {kind}, {metric.unit} "
            f"| {metric.description} | {split} |"
        )


def test_two_exporters_at_one_address_have_names_of_their_own() -> None:
    config = Config.model_validate(
        {
            "exporters": {
                "otlp/a": {"endpoint": "http://127.0.0.1:9/a"},
                "otlp/b": {"endpoint": "http://127.0.0.1:9/b"},
                "otlp/c": {"endpoint": "http://127.0.0.1:8"},
            }
        }
    )

    made = span_destinations(config, DeadLetterFiles())
    for sender in {sender for each in made for sender in each.senders.values()}:
        sender.close()

    names = [each.name for each in made]
    assert names == ["127.0.0.1:9 (otlp/a)", "127.0.0.1:9 (otlp/b)", "127.0.0.1:8"]
