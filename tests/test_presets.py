"""Presets: what each fills in, and that nothing is filled in that somebody has set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from otel_scorer.config import (
    PRESETS,
    Config,
    LangfuseExporter,
    MlflowExporter,
    OtlpExporter,
    PhoenixExporter,
    exporters_from_urls,
    load_config,
)
from otel_scorer.config.presets import PresetName
from otel_scorer.errors import ConfigError

PAGE = Path(__file__).parents[1] / "docs" / "backends.md"


def serve(preset: str, *urls: str, environ: Mapping[str, str] | None = None, **settings: Any) -> Config:
    """Return the configuration of `serve --preset NAME --export URL ...`."""
    given = {"preset": preset, **settings}
    if urls:
        given["exporters"] = exporters_from_urls(urls, None, environ or {})
    return load_config(overrides=given, environ=environ or {})


def otlp(config: Config, key: str = "otlp") -> OtlpExporter:
    found = config.exporters[key]
    assert isinstance(found, OtlpExporter)
    return found


def headers(exporter: OtlpExporter) -> dict[str, str]:
    return {key: value.get_secret_value() for key, value in exporter.headers.items()}


@pytest.mark.parametrize("name", get_args(PresetName))
def test_every_preset_is_a_configuration_that_works(name: PresetName) -> None:
    config = serve(name, "http://backend.example:4317")

    assert config.preset == name
    assert config.emit == list(PRESETS[name].emit)
    assert f"`{name}`" in PAGE.read_text(encoding="utf-8")


def test_phoenix_gets_spans_over_http_and_annotations_at_the_same_place() -> None:
    environ = {"PHOENIX_API_KEY": "key", "PHOENIX_PROJECT_NAME": "shop"}

    config = serve("phoenix", "http://phoenix.example:6006", environ=environ)

    assert (otlp(config).endpoint, otlp(config).protocol) == ("http://phoenix.example:6006", "http/protobuf")
    assert (otlp(config).logs_endpoint, otlp(config).metrics_endpoint) == ("off", "off")
    assert headers(otlp(config)) == {"Authorization": "Bearer key", "x-project-name": "shop"}
    api = config.exporters["phoenix"]
    assert isinstance(api, PhoenixExporter)
    assert (api.endpoint, api.all_headers()) == ("http://phoenix.example:6006", {"Authorization": "Bearer key"})


@pytest.mark.parametrize(
    ("url", "protocol", "api"),
    [
        ("http://p.example:4317", None, "http://p.example:6006"),
        ("p.example:4317", None, "http://p.example:6006"),
        ("http://p.example:6006/v1/traces", None, "http://p.example:6006"),
        ("https://p.example", "http/protobuf", "https://p.example"),
        (None, "http/protobuf", "http://127.0.0.1:6006"),
    ],
)
def test_the_two_addresses_of_phoenix(url: str | None, protocol: str | None, api: str) -> None:
    config = serve("phoenix", *([] if url is None else [url]))

    assert otlp(config).protocol == protocol
    found = config.exporters["phoenix"]
    assert isinstance(found, PhoenixExporter)
    assert found.endpoint == api


def test_mlflow_gets_an_experiment_and_its_credentials() -> None:
    environ = {"MLFLOW_EXPERIMENT_ID": "7", "MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "secret"}

    config = serve("mlflow", "http://mlflow.example:5000", environ=environ)

    assert otlp(config).protocol == "http/protobuf"
    basic = {"Authorization": "Basic bWU6c2VjcmV0"}
    assert headers(otlp(config)) == {"x-mlflow-experiment-id": "7", **basic}
    api = config.exporters["mlflow"]
    assert isinstance(api, MlflowExporter)
    assert (api.endpoint, api.all_headers()) == ("http://mlflow.example:5000", basic)
    assert headers(otlp(serve("mlflow", "http://m:5000")))["x-mlflow-experiment-id"] == "0"
    token = serve("mlflow", "http://m:5000", environ={"MLFLOW_TRACKING_TOKEN": "t"})
    assert headers(otlp(token))["Authorization"] == "Bearer t"


def test_langfuse_has_its_own_path_for_otlp() -> None:
    environ = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}

    config = serve("langfuse", "https://langfuse.example", environ=environ)

    assert otlp(config).endpoint == "https://langfuse.example/api/public/otel"
    assert headers(otlp(config)) == {"Authorization": "Basic cGs6c2s=", "x-langfuse-ingestion-version": "4"}
    api = config.exporters["langfuse"]
    assert isinstance(api, LangfuseExporter)
    assert (api.endpoint, api.all_headers()) == ("https://langfuse.example", {"Authorization": "Basic cGs6c2s="})


def test_what_is_set_stays() -> None:
    config = load_config(
        overrides={
            "preset": "mlflow",
            "emit": ["evaluation_span"],
            "exporters": {
                "otlp": {
                    "endpoint": "http://m:5000",
                    "headers": {"X-MLflow-Experiment-Id": "9"},
                    "logs_endpoint": "http://logs:4318",
                }
            },
        },
        environ={},
    )

    assert config.emit == ["evaluation_span"]
    assert list(config.exporters) == ["otlp"]
    assert headers(otlp(config)) == {"X-MLflow-Experiment-Id": "9"}
    assert (otlp(config).logs_endpoint, otlp(config).metrics_endpoint) == ("http://logs:4318", "off")


def test_a_score_api_that_is_set_is_not_set_again() -> None:
    exporters = {"otlp": {"endpoint": "http://p:6006"}, "phoenix/ours": {"endpoint": "http://elsewhere:6006"}}

    config = load_config(overrides={"preset": "phoenix", "exporters": exporters}, environ={})

    assert list(config.exporters) == ["otlp", "phoenix/ours"]


def test_credentials_go_to_the_backend_of_the_preset_alone() -> None:
    config = serve("phoenix", "http://p:6006", "http://other.example:4318", environ={"PHOENIX_API_KEY": "secret"})

    assert headers(otlp(config, "otlp/2")) == {}
    assert otlp(config, "otlp/2").logs_endpoint == "same"
    assert "secret" not in str(config)


def test_azure_finds_verdicts_among_its_custom_events() -> None:
    assert serve("azure", "http://collector:4317").score_logs.attributes == {
        "microsoft.custom_event.name": "gen_ai.evaluation.result"
    }


def test_jaeger_wants_spans_that_last() -> None:
    assert serve("jaeger", "http://jaeger:4317").score_spans.duration == 1e-9


def test_datadog_wants_what_came_since_the_last_time() -> None:
    assert serve("datadog", "http://agent:4317").score_metrics.temporality == "delta"


@pytest.mark.parametrize("name", ["phoenix", "mlflow", "langfuse"])
def test_a_score_api_must_be_somewhere(name: str) -> None:
    with pytest.raises(ConfigError, match=f"preset {name}: say where it is"):
        serve(name, "console")


def test_the_page_says_which_presets_were_tried() -> None:
    page = PAGE.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", page, re.MULTILINE))
    for name, preset in PRESETS.items():
        [(anchor, row)] = re.findall(rf"^\| \[`{name}`\]\(#([\w-]+)\) (.+) \|$", page, re.MULTILINE)
        [section] = [text for title, text in sections.items() if title.lower().replace(" ", "-") == anchor]
        tried = row.rpartition("| ")[2]

        assert tried == (f"with {preset.tried}" if preset.tried else "no")
        assert ("Not tried with the real thing." in section) == (preset.tried is None)
        assert f"--preset {name} " in section


@pytest.mark.parametrize("name", PRESETS)
def test_check_and_the_page_say_the_same_of_a_preset(
    name: PresetName, tmp_path: Path, run_check: Callable[[Path], str]
) -> None:
    file = tmp_path / "sidecar.yaml"
    settings = "scorers: [tool_errors]\nexporters: {otlp: {endpoint: 'http://backend.example:4318'}}\n"
    file.write_text(f"preset: {name}\n{settings}", encoding="utf-8")
    [row] = re.findall(rf"^\| \[`{name}`\]\(#[\w-]+\) \|(.+)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    verdicts, beside, tried = (cell.strip() for cell in row.split("|"))

    said = run_check(file)

    [emits] = re.findall(r"^emits +(.+) \(", said, re.MULTILINE)
    words = {"evaluation_span": "evaluation spans", "metrics": "metrics", "logs": "log records"}
    if "metrics     of verdicts are delta" in said:
        words["metrics"] = "metrics (delta)"
    words["native"] = {"phoenix": "annotations", "mlflow": "assessments"}.get(name, "scores")
    assert ", ".join(words[each] for each in emits.split(", ")) == verdicts
    assert ("logs off" in said, "metrics off" in said) == ("no logs" in beside, "no metrics" in beside)
    assert ("spans       of verdicts last 1ns" in said) == ("last 1 ns" in beside)
    mark = re.search(r"logs        of verdicts have (\S+): gen_ai.evaluation.result\n", said)
    assert (mark is not None) == ("custom events" in beside)
    assert mark is None or f"`{mark[1]}`" in beside
    assert f"preset      {name} (" + ("not tried with the real thing" if tried == "no" else f"tried {tried}") in said


def test_check_says_what_a_preset_will_send(tmp_path: Path, run_check: Callable[[Path], str]) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_text("preset: phoenix\nscorers: [tool_errors]\n", encoding="utf-8")

    said = run_check(file)

    assert "phoenix (tried with Phoenix 20.26)" in said
    assert "evaluation_span, native" in said
    assert "phoenix: http://127.0.0.1:6006, scores alone, as annotations of traces and spans, no credentials" in said


@pytest.fixture
def run_check() -> Callable[[Path], str]:
    from click.testing import CliRunner

    from otel_scorer.cli import cli

    def run(file: Path) -> str:
        result = CliRunner().invoke(cli, ["check", "-c", str(file)])
        assert result.exit_code == 0, result.output
        return result.output

    return run
