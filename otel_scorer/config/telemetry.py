"""What the sidecar says about itself, where, and how."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from otel_scorer.config.exporters import OtlpExporter, Protocol
from otel_scorer.config.quantities import Address, Duration  # noqa: TC001 - likewise
from otel_scorer.config.section import Section
from otel_scorer.config.sending import ClientTlsSettings, Header, Url

__all__ = ["MetricsSettings", "TelemetrySettings"]


class MetricsSettings(Section):
    """Where the sidecar's own metrics are sent, as OTLP. Prometheus asks for them at `telemetry.status_page`."""

    endpoint: Url | None = Field(
        default=None, description="URL of an OTLP endpoint, without /v1/metrics. null: they are not sent."
    )
    protocol: Protocol | None = Field(
        default=None,
        description="grpc or http/protobuf. null: http/protobuf if the URL has a path or port 4318, else grpc.",
    )
    interval: Duration = Field(default=60.0, gt=0, description="Time from one time they are sent to the next.")
    headers: dict[str, Header] = Field(
        default_factory=dict[str, SecretStr], description="Sent with every request; values are never shown."
    )
    compression: Literal["none", "gzip"] = Field(default="none", description="none or gzip.")
    timeout: Duration = Field(default=10.0, gt=0, description="How long one request may take.")
    tls: ClientTlsSettings = Field(default_factory=ClientTlsSettings, description="Certificates, as of an exporter.")

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        _ = self.exporter
        return self

    @property
    def exporter(self) -> OtlpExporter | None:
        """The same as a destination; None if they are not sent."""
        if self.endpoint is None:
            return None
        return OtlpExporter(
            endpoint=self.endpoint,
            protocol=self.protocol,
            headers=self.headers,
            compression=self.compression,
            timeout=self.timeout,
            tls=self.tls,
        )


class TelemetrySettings(Section):
    """What otel_scorer says about itself."""

    metrics: MetricsSettings = Field(
        default_factory=MetricsSettings, description="Its own metrics, sent as OTLP; docs/operating.md lists them."
    )
    status_page: Address = Field(
        default="127.0.0.1:13133",
        description="HOST:PORT of the status page, /healthz, /readyz, and /metrics for Prometheus; off switches it "
        "off. What is in traces and settings is shown to this machine only.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged to standard error."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="text for people, or json: one object a line."
    )
