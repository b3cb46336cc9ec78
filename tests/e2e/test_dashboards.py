"""The dashboards and alerts ask for metrics, labels and attributes that a real sidecar has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.sidecar import SCORERS, Sidecar, id_of
from tests.e2e.sink import Sink

from otel_scorer.service.own_metrics import prometheus_name
from otel_scorer.telemetry import COUNTERS
from otel_scorer.testing import make_request, make_span

CONFIG = Path(__file__).parents[2] / "config"
PROMETHEUS = CONFIG / "grafana" / "otel-scorer-prometheus.json"
TEMPO = CONFIG / "grafana" / "otel-scorer-tempo.json"
ALERTS = CONFIG / "prometheus" / "otel-scorer-alerts.yaml"

# What Prometheus itself adds to everything that it scrapes or is sent.
FROM_PROMETHEUS = {"job", "instance", "le"}
METRIC = re.compile(r"\b((?:otel_scorer|gen_ai)_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
ATTRIBUTE = re.compile(r"\b(span|resource)\.([a-z_]+(?:\.[a-z_]+)*)")

Labels = dict[str, set[str]]
"""Names of metrics, and of their labels."""


def panels(path: Path) -> Iterator[Any]:
    yield from json.loads(path.read_text(encoding="utf-8"))["panels"]


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in panels(PROMETHEUS) for target in panel.get("targets", [])]


def variable_queries() -> list[tuple[str, str]]:
    variables = json.loads(PROMETHEUS.read_text(encoding="utf-8"))["templating"]["list"]
    found = [
        re.fullmatch(r"label_values\((\w+), (\w+)\)", each["query"]) for each in variables if each["type"] == "query"
    ]
    return [(match[1], match[2]) for match in found if match is not None]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def traceql_queries() -> list[str]:
    return [target["query"] for panel in panels(TEMPO) for target in panel.get("targets", [])]


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def known(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Labels:
    """What a sidecar says of itself after it scored a trace, and sends of the verdicts, as Prometheus names it."""
    folder = tmp_path_factory.mktemp("dashboards")
    config = folder / "sidecar.yaml"
    config.write_text(
        "forwarding: hold_trace\nkeep: 'true'\nemit: [evaluation_span, metrics]\nscore_metrics: {interval: 100ms}\n"
        "hold_deadline: 100s\nassembly: {root_grace: 200ms}\ntelemetry: {status_page: 127.0.0.1:0}\n"
        f"spool: {{directory: {folder / 'spool'}}}\n",
        encoding="utf-8",
    )
    sidecar = Sidecar("-c", str(config), "--export", sink.grpc, "--scorers", str(SCORERS / "kinds.py"))
    try:
        tool = make_span("search", trace=1, span=2, parent=1, attributes={"gen_ai.operation.name": "execute_tool"})
        sidecar.send(make_request(tool, make_span("agent", trace=1, attributes={"output.value": "Take the train"})))
        sink.wait_for_scores(6, id_of(1))
        sink.wait_for(lambda: bool(sink.requests("metrics")))
        # Late, so that this is counted too.
        sidecar.send(make_request(make_span("late", trace=1, span=3, parent=1)))
        sink.wait_for_spans(3, id_of(1))
        found = scraped(sidecar.ask("/metrics").body.decode())
        assert sidecar.stop() == 0
    finally:
        sidecar.close()
    for data in sink.requests("metrics"):
        for name, labels in sent(data):
            found.setdefault(name, set()).update(labels)
    return found


def scraped(text: str) -> Labels:
    found: Labels = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def sent(data: bytes) -> Iterator[tuple[str, set[str]]]:
    """Yield metrics of a request by the names that OpenTelemetry's rules for Prometheus give them."""
    for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                name = prometheus_name(metric.name)
                points: Any = getattr(metric, str(metric.WhichOneof("data"))).data_points
                labels = {prometheus_name(pair.key) for point in points for pair in point.attributes}
                suffixes = ("_total",) if metric.HasField("sum") else ("_sum", "_count", "_bucket")
                yield from ((name + suffix, labels) for suffix in suffixes)


def labels_of(metric: str, known: Labels) -> set[str] | None:
    """Return the labels of a metric; of one that has not counted yet, those that it will have."""
    if metric in known:
        return known[metric]
    for name, counter in COUNTERS.items():
        if metric == f"{prometheus_name(f'otel_scorer.{name}', counter.unit)}_total":
            return {prometheus_name(attribute) for attribute in counter.attributes}
    return None


@pytest.mark.parametrize("query", [*dashboard_queries(), *(rule["expr"] for rule in rules())])
def test_what_a_query_asks_for_is_there(query: str, known: Labels) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    plain = re.sub("|".join(map(re.escape, recorded)), "recorded", query)
    asked = METRIC.findall(GROUPED.sub("", plain))

    assert asked or "up{" in plain or "recorded" in plain
    labels: set[str] = set()
    for metric, selector in asked:
        has = labels_of(metric, known)
        assert has is not None, metric
        assert set(LABEL.findall(selector)) <= has | FROM_PROMETHEUS, metric
        labels |= has
    for group in GROUPED.findall(plain):
        assert {label.strip() for label in group.split(",")} <= labels | FROM_PROMETHEUS


def test_what_the_variables_of_the_dashboard_ask_for_is_there(known: Labels) -> None:
    assert len(variable_queries()) == 3
    for metric, label in variable_queries():
        assert label in known[metric] | FROM_PROMETHEUS


def test_counters_are_called_as_the_table_of_metrics_says(known: Labels) -> None:
    named = {f"{prometheus_name(f'otel_scorer.{name}', each.unit)}_total": each for name, each in COUNTERS.items()}
    counted = {name: labels for name, labels in known.items() if name in named}

    assert len(counted) > 8
    assert {name: {prometheus_name(key) for key in named[name].attributes} for name in counted} == counted


@pytest.mark.parametrize("query", traceql_queries())
def test_what_a_query_for_traces_asks_for_is_on_evaluation_spans(query: str, known: Labels, sink: Sink) -> None:
    del known  # the traces were sent for it
    there = {("span", key) for score in sink.scores_of(id_of(1)) for key in score.attributes}
    there |= {("resource", "service.name")}

    asked = set(ATTRIBUTE.findall(query))

    assert asked
    assert asked <= there


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]

    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("path", [PROMETHEUS, TEMPO], ids=["prometheus", "tempo"])
def test_panels_neither_overlap_nor_leave_the_grid(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(path):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in panels(path)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("label", ["alert", "record"])
def test_the_page_about_alerts_names_each(label: str) -> None:
    page = (CONFIG.parent / "docs" / "dashboards.md").read_text(encoding="utf-8")

    assert [rule[label] for rule in rules() if label in rule and f"`{rule[label]}`" not in page] == []
