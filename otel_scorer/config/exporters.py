"""
Where spans and verdicts go: OTLP backends, the console, a file, and the score APIs of backends.

Destinations are told apart by their key, as in the Collector: `otlp`, `otlp/second`, `console`, `file/everything`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from otel_scorer.config.native import LangfuseExporter, MlflowExporter, NativeExporter, PhoenixExporter
from otel_scorer.config.quantities import OFF, ByteSize, Duration
from otel_scorer.config.section import Section
from otel_scorer.config.sending import ClientTlsSettings, Header, QueueSettings, RetrySettings, SignalUrl, Url
from otel_scorer.transport.endpoints import SAME

__all__ = [
    "KINDS",
    "ConsoleExporter",
    "Exporter",
    "Exporters",
    "FileExporter",
    "OtlpExporter",
    "Protocol",
    "SpanExporter",
    "takes",
]

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]


class OtlpExporter(Section):
    """An OTLP backend."""

    endpoint: Url = Field(
        default="http://127.0.0.1:14317",
        description="URL of the backend, without /v1/traces. With https:// the connection is encrypted.",
    )
    protocol: Protocol | None = Field(
        default=None,
        description="grpc or http/protobuf. null: http/protobuf if the URL has a path or port 4318, else grpc.",
    )
    compression: Literal["none", "gzip"] = Field(
        default="none", description="none or gzip. gzip costs more CPU than everything else together."
    )
    headers: dict[str, Header] = Field(
        default_factory=dict[str, SecretStr],
        description="Sent with every request. Take secrets from ${env:NAME} or ${file:PATH}; values are never shown.",
    )
    tls: ClientTlsSettings = Field(
        default_factory=ClientTlsSettings, description="Certificates for https:// endpoints."
    )
    timeout: Duration = Field(default=10.0, gt=0, description="How long one request may take.")
    retry_on_failure: RetrySettings = Field(
        default_factory=RetrySettings, description="What happens when the backend is away or asks to wait."
    )
    sending_queue: QueueSettings = Field(default_factory=QueueSettings, description="What waits for the backend.")
    max_send_size: ByteSize = Field(
        default=4 << 20,
        ge=1024,
        description="Bytes of a request, before compression: what waits is joined up to it, what is larger is cut.",
    )
    dead_letters: str | None = Field(
        default=None,
        min_length=1,
        description="File for what is given up, OTLP/JSON lines with the reason beside; null: it is only counted.",
    )
    logs_endpoint: SignalUrl = Field(default=SAME, description="Where OTLP logs go: same (as endpoint), off, or a URL.")
    metrics_endpoint: SignalUrl = Field(
        default=SAME, description="Where OTLP metrics go: same (as endpoint), off, or a URL."
    )

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        for name in ("endpoint", "logs_endpoint", "metrics_endpoint"):
            url: str = getattr(self, name)
            scheme = urlsplit(url).scheme
            if scheme == "http" and self.tls.is_meant:
                raise PydanticCustomError(
                    "tls", "{name} says http://, which is plain text, and tls wants it encrypted", {"name": name}
                )
            if scheme == "https" and self.tls.insecure:
                raise PydanticCustomError("tls", "{name} says https:// and tls.insecure plain text", {"name": name})
        return self

    def url_of(self, endpoint: str) -> str:
        """Return one of the endpoints with the scheme that `tls` means where it has none."""
        if endpoint in {SAME, OFF} or "://" in endpoint:
            return endpoint
        return f"{'https' if self.tls.is_meant else 'http'}://{endpoint}"


class ConsoleExporter(Section):
    """Standard output, one line of OTLP/JSON a request: needs no backend."""


class FileExporter(Section):
    """A file of OTLP/JSON lines, as the Collector's file exporter writes them."""

    path: str = Field(min_length=1, description="The file; it is appended to.")


SpanExporter: TypeAlias = OtlpExporter | ConsoleExporter | FileExporter
Exporter: TypeAlias = SpanExporter | PhoenixExporter | MlflowExporter | LangfuseExporter


def takes(exporter: Exporter, signal: Literal["logs", "metrics"]) -> bool:
    """Return whether a destination takes logs, or metrics."""
    if not isinstance(exporter, OtlpExporter):
        return not isinstance(exporter, NativeExporter)
    return (exporter.logs_endpoint if signal == "logs" else exporter.metrics_endpoint) != OFF


KINDS: Final[dict[str, type[Exporter]]] = {
    "otlp": OtlpExporter,
    "console": ConsoleExporter,
    "file": FileExporter,
    "phoenix": PhoenixExporter,
    "mlflow": MlflowExporter,
    "langfuse": LangfuseExporter,
}


def _read_exporters(value: object) -> object:
    """Read each destination as the kind that its key names, with errors that point to the setting."""
    if not isinstance(value, Mapping):
        raise PydanticCustomError("exporters", "must be a mapping of destinations, such as otlp: {endpoint: URL}")
    found: dict[str, Exporter] = {}
    errors: list[InitErrorDetails] = []
    for key, settings in cast("Mapping[Any, object]", value).items():
        kind = KINDS.get(str(key).partition("/")[0])
        if kind is None:
            unknown = PydanticCustomError("unknown_key", "unknown key")
            errors.append({"type": unknown, "loc": (str(key),), "input": None})
        elif isinstance(settings, kind):
            found[str(key)] = settings
        else:
            try:
                found[str(key)] = kind.model_validate(settings)
            except ValidationError as error:
                errors += _moved(error, str(key))
    if errors:
        raise ValidationError.from_exception_data("exporters", errors)
    return found


def _moved(error: ValidationError, key: str) -> list[InitErrorDetails]:
    return [
        {
            "type": PydanticCustomError(
                cast("Any", item["type"]), "{reason}", {**item.get("ctx", {}), "reason": item["msg"]}
            ),
            "loc": (key, *item["loc"]),
            "input": item["input"],
        }
        for item in error.errors(include_url=False)
    ]


Exporters = Annotated[dict[str, Exporter], BeforeValidator(_read_exporters)]
"""Destinations by key."""
