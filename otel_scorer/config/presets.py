"""
Settings that suit one backend, under one name: encodings, protocol, signals, headers and score API.

A preset fills in what nobody has set. It is about the first OTLP destination: its headers may hold credentials, which
no other one is to see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit, urlunsplit

from otel_scorer.config.quantities import OFF
from otel_scorer.config.sending import basic_auth
from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRESETS", "Preset", "PresetName", "apply_preset"]

PresetName: TypeAlias = Literal[
    "phoenix", "mlflow", "langfuse", "tempo", "jaeger", "datadog", "clickhouse", "azure", "generic"
]

_HTTP: Final = "http/protobuf"
_TRACES_ONLY: Final = {"logs_endpoint": OFF, "metrics_endpoint": OFF}
_GRPC_PORT: Final = 4317
_PHOENIX_PORT: Final = 6006


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """
    What a backend is sent, and how.

    Attributes:
        tried: With what the preset was tried; None: it is made of documentation and source alone.
        emit: How verdicts go out.
        endpoint: Where it listens by default.
        otlp: Further settings of the destination.
        settings: Settings elsewhere, by full path.
        api: The kind of exporter that writes scores over an API of its own.
    """

    tried: str | None = None
    emit: tuple[str, ...] = ("evaluation_span",)
    endpoint: str | None = None
    otlp: Mapping[str, str] = field(default_factory=dict[str, str])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    api: str | None = None


PRESETS: Final[dict[PresetName, Preset]] = {
    "phoenix": Preset(
        tried="Phoenix 20.26",
        emit=("evaluation_span", "native"),
        endpoint="http://127.0.0.1:6006",
        otlp=_TRACES_ONLY,
        api="phoenix",
    ),
    "mlflow": Preset(
        tried="MLflow 3.17",
        emit=("evaluation_span", "native"),
        endpoint="http://127.0.0.1:5000",
        otlp={"protocol": _HTTP, **_TRACES_ONLY},
        api="mlflow",
    ),
    "langfuse": Preset(
        emit=("evaluation_span", "native"),
        endpoint="https://cloud.langfuse.com",
        otlp={"protocol": _HTTP, **_TRACES_ONLY},
        api="langfuse",
    ),
    "tempo": Preset(tried="Tempo 2.8", otlp=_TRACES_ONLY),
    # To it a span without duration is one whose clock is wrong: it changes and marks it, and finds no repeats any more.
    "jaeger": Preset(tried="Jaeger 2.13", otlp=_TRACES_ONLY, settings={"score_spans.duration": "1ns"}),
    "datadog": Preset(
        emit=("evaluation_span", "metrics"),
        otlp={"logs_endpoint": OFF},
        settings={"score_metrics.temporality": "delta"},
    ),
    "clickhouse": Preset(emit=("evaluation_span", "logs")),
    "azure": Preset(
        emit=("evaluation_span", "logs"),
        settings={"score_logs.attributes": {"microsoft.custom_event.name": "gen_ai.evaluation.result"}},
    ),
    "generic": Preset(tried="the OpenTelemetry Collector 0.152"),
}


def apply_preset(settings: dict[str, Any], environ: Mapping[str, str]) -> None:
    """
    Fill in what the preset of these settings says and they do not. A name that is none is left to validation.

    Args:
        settings: As they were read; changed.
        environ: Where credentials are: `PHOENIX_API_KEY`, `MLFLOW_TRACKING_*`, `LANGFUSE_*_KEY`.

    Raises:
        ConfigError: There is no destination that the preset could be about.
    """
    name = settings.get("preset")
    preset = next((preset for known, preset in PRESETS.items() if known == name), None)
    if preset is None:
        return
    if settings.get("emit") is None:
        settings["emit"] = list(preset.emit)
    for path, value in preset.settings.items():
        section, _, key = path.partition(".")
        _section(settings, section).setdefault(key, value)
    exporters = _section(settings, "exporters")
    if not exporters:
        exporters["otlp"] = {}
    keys = [
        key for key, given in exporters.items() if key.partition("/")[0] == "otlp" and isinstance(given, dict | None)
    ]
    if not keys:
        if preset.api is None:
            return
        raise ConfigError(f"preset {name}: say where it is, such as --export {preset.endpoint}")
    otlp = _section(exporters, keys[0])
    if preset.endpoint is not None:
        otlp.setdefault("endpoint", preset.endpoint)
    _fill_otlp(otlp, preset, environ)
    if (
        preset.api is not None
        and "native" in settings["emit"]
        and not any(key.partition("/")[0] == preset.api for key in exporters)
    ):
        exporters[preset.api] = _api(preset.api, str(otlp["endpoint"]), environ)
    _point_to_otlp(otlp, preset)


def _fill_otlp(otlp: dict[str, Any], preset: Preset, environ: Mapping[str, str]) -> None:
    for key, value in preset.otlp.items():
        otlp.setdefault(key, value)
    given = _section(otlp, "headers")
    known = {key.lower() for key in given}
    given.update((key, value) for key, value in _headers(preset.api, environ).items() if key.lower() not in known)


def _point_to_otlp(otlp: dict[str, Any], preset: Preset) -> None:
    """Make an OTLP endpoint of the address that people know their backend by."""
    parts = urlsplit(str(otlp["endpoint"])) if "endpoint" in otlp else None
    if parts is None or parts.path.strip("/"):
        return
    if preset.api == "langfuse":
        otlp["endpoint"] = urlunsplit(parts._replace(path="/api/public/otel"))
    elif preset.api == "phoenix" and parts.port != _GRPC_PORT:
        otlp.setdefault("protocol", _HTTP)


def _api(kind: str, url: str, environ: Mapping[str, str]) -> dict[str, Any]:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    place = parts.netloc
    if kind == "phoenix" and parts.port == _GRPC_PORT:
        # Its two servers: spans over gRPC, and everything else.
        place = f"{place.rpartition(':')[0]}:{_PHOENIX_PORT}"
    found: dict[str, Any] = {"endpoint": f"{parts.scheme}://{place}"}
    names = {
        "phoenix": {"api_key": "PHOENIX_API_KEY"},
        "mlflow": {
            "username": "MLFLOW_TRACKING_USERNAME",
            "password": "MLFLOW_TRACKING_PASSWORD",
            "token": "MLFLOW_TRACKING_TOKEN",
        },
        "langfuse": {"public_key": "LANGFUSE_PUBLIC_KEY", "secret_key": "LANGFUSE_SECRET_KEY"},
    }[kind]
    return found | {key: environ[name] for key, name in names.items() if environ.get(name)}


def _headers(api: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if api == "phoenix":
        if key := environ.get("PHOENIX_API_KEY"):
            found["Authorization"] = f"Bearer {key}"
        if project := environ.get("PHOENIX_PROJECT_NAME"):
            found["x-project-name"] = project
    elif api == "mlflow":
        found["x-mlflow-experiment-id"] = environ.get("MLFLOW_EXPERIMENT_ID") or "0"
        if token := environ.get("MLFLOW_TRACKING_TOKEN"):
            found["Authorization"] = f"Bearer {token}"
        elif user := environ.get("MLFLOW_TRACKING_USERNAME"):
            found["Authorization"] = basic_auth(user, environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    elif api == "langfuse":
        found["x-langfuse-ingestion-version"] = "4"
        if key := environ.get("LANGFUSE_PUBLIC_KEY"):
            found["Authorization"] = basic_auth(key, environ.get("LANGFUSE_SECRET_KEY", ""))
    return found


def _section(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a mapping below, made if it is not there; what is none is left to validation."""
    if settings.get(key) is None:
        settings[key] = {}
    below: object = settings[key]
    if not isinstance(below, dict):
        raise ConfigError(f"{key} must be a mapping")
    return cast("dict[str, Any]", below)
