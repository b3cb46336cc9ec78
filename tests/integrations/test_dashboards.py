"""The Grafana dashboards are valid by Grafana's schema, and every expression in them and in the alerts is PromQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

pytestmark = pytest.mark.integrations

CONFIG = Path(__file__).parents[2] / "config"
DASHBOARDS = sorted((CONFIG / "grafana").glob("*.json"))
ALERTS = CONFIG / "prometheus" / "otel-scorer-alerts.yaml"
PLAIN = (str, int, float, bool)
ANYTHING = ConfigDict(arbitrary_types_allowed=True)


def problems(data: Any) -> Iterator[str]:
    """Yield what Grafana's own models of a dashboard, its panels, their options and queries do not know."""
    sdk = "grafana_foundation_sdk"
    plugins: Any = import_module(f"{sdk}.cog.plugins")
    plugins.register_default_plugins()
    dashboard: Any = import_module(f"{sdk}.models.dashboard")
    encoder: Any = import_module(f"{sdk}.cog.encoder")
    try:
        model = dashboard.Dashboard.from_json(data)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        yield repr(error)
        return
    yield from wrong_values(model, "dashboard")
    yield from left_out(data, json.loads(json.dumps(model, cls=encoder.JSONEncoder)), "dashboard")


def wrong_values(model: Any, place: str) -> Iterator[str]:
    """Yield values that are not of the type that a model declares: it takes whatever it is given."""
    if isinstance(model, list):
        for at, item in enumerate(model):
            yield from wrong_values(item, f"{place}[{at}]")
    elif hasattr(model, "to_json"):
        for name, hint in get_type_hints(type(model).__init__).items():
            if name == "return":
                continue
            value = getattr(model, name)
            if isinstance(value, PLAIN) or (isinstance(value, list) and all(isinstance(each, PLAIN) for each in value)):
                try:
                    TypeAdapter(hint, config=ANYTHING).validate_json(json.dumps(value), strict=True)
                except ValidationError as error:
                    yield f"{place}.{name}: {error}"
            yield from wrong_values(value, f"{place}.{name}")


def left_out(given: Any, written: Any, place: str) -> Iterator[str]:
    """Yield what is not there any more, or is something else, after the models have read and written it."""
    if isinstance(given, dict) and isinstance(written, dict):
        for key, value in given.items():
            if key in written:
                yield from left_out(value, written[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}: unknown"
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for at, (one, other) in enumerate(zip(given, written, strict=True)):
            yield from left_out(one, other, f"{place}[{at}]")
    elif given != written:
        yield f"{place}: {given!r} was read as {written!r}"


@pytest.mark.needs("grafana_foundation_sdk")
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_by_the_schema_of_grafana(path: Path) -> None:
    assert list(problems(json.loads(path.read_text(encoding="utf-8")))) == []


@pytest.mark.needs("grafana_foundation_sdk")
@pytest.mark.parametrize(
    "broken",
    [
        {"titel": "no such key"},
        {"title": 3},
        {"options": {"legend": {"displayMode": "lst"}}},
        {"fieldConfig": {"defaults": {"custom": {"drawStyle": "lin"}}}},
        {"targets": [{"refId": "A", "exprs": "up"}]},
        {"gridPos": {"h": "8", "w": 12, "x": 0, "y": 0}},
        {"targets": "up"},
    ],
    ids=str,
)
def test_what_is_none_is_found(broken: dict[str, Any]) -> None:
    """Or the test above would say nothing."""
    data = json.loads((CONFIG / "grafana" / "otel-scorer-prometheus.json").read_text(encoding="utf-8"))
    panel = next(each for each in data["panels"] if each["type"] == "timeseries")

    panel.update(broken)

    assert list(problems(data)) != []


def expressions() -> list[str]:
    found: list[str] = []
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            found += [target["expr"] for target in panel.get("targets", []) if "expr" in target]
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return found + [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.needs("promql_parser")
def test_every_expression_is_promql() -> None:
    promql_parser: Any = import_module("promql_parser")

    assert len(expressions()) > 30
    for expression in expressions():
        # Grafana puts times there before it asks.
        promql_parser.parse(expression.replace("$__rate_interval", "5m").replace("$__range", "6h"))
