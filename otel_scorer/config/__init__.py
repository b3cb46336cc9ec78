"""What users can set: read from YAML, flags and the environment, checked once at start. Defaults live here only."""

from __future__ import annotations

from otel_scorer.config.changes import fixed_changes, shown_settings
from otel_scorer.config.dialects import DialectSettings
from otel_scorer.config.exporters import (
    ConsoleExporter,
    Exporter,
    FileExporter,
    OtlpExporter,
    SpanExporter,
)
from otel_scorer.config.in_app import AppSettings, app_settings, environment_outlets, otlp_exporter
from otel_scorer.config.keeping import check_scorers
from otel_scorer.config.model import AssemblySettings, Config, Emit, Forwarding
from otel_scorer.config.native import LangfuseExporter, MlflowExporter, NativeExporter, PhoenixExporter
from otel_scorer.config.presets import PRESETS
from otel_scorer.config.quantities import OFF, format_bytes, format_duration, parse_bytes, parse_duration
from otel_scorer.config.reading import exporters_from_urls, load_config, load_teaching, taught_reader
from otel_scorer.config.sample import generate_sample
from otel_scorer.config.scoring import ScorerSettings, ScoringSettings
from otel_scorer.config.sending import QueueSettings, RetrySettings
from otel_scorer.config.telemetry import MetricsSettings, TelemetrySettings
from otel_scorer.stores.location import STORE_VARIABLE, store_path

__all__ = [
    "OFF",
    "PRESETS",
    "STORE_VARIABLE",
    "AppSettings",
    "AssemblySettings",
    "Config",
    "ConsoleExporter",
    "DialectSettings",
    "Emit",
    "Exporter",
    "FileExporter",
    "Forwarding",
    "LangfuseExporter",
    "MetricsSettings",
    "MlflowExporter",
    "NativeExporter",
    "OtlpExporter",
    "PhoenixExporter",
    "QueueSettings",
    "RetrySettings",
    "ScorerSettings",
    "ScoringSettings",
    "SpanExporter",
    "TelemetrySettings",
    "app_settings",
    "check_scorers",
    "environment_outlets",
    "exporters_from_urls",
    "fixed_changes",
    "format_bytes",
    "format_duration",
    "generate_sample",
    "load_config",
    "load_teaching",
    "otlp_exporter",
    "parse_bytes",
    "parse_duration",
    "shown_settings",
    "store_path",
    "taught_reader",
]
