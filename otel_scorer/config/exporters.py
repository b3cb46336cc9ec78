"""
Where spans and verdicts go: OTLP backends, the console, a file.

Destinations are told apart by their key, as in the Collector: `otlp`, `otlp/second`, `console`, `file/everything`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from otel_scorer.config.quantities import OFF, ByteSize, Duration
from otel_scorer.config.section import Section
from otel_scorer.errors import ConfigError
from otel_scorer.transport.endpoints import SAME, choose_protocol
from otel_scorer.transport.exchange import RELOAD_INTERVAL, TlsFiles
from otel_scorer.transport.retry import RetryPolicy

__all__ = [
    "KINDS",
    "ClientTlsSettings",
    "ConsoleExporter",
    "Exporter",
    "Exporters",
    "FileExporter",
    "OtlpExporter",
    "Protocol",
    "QueueSettings",
    "RetrySettings",
    "takes",
    "without_password",
]

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]


def _check_url(value: object) -> str:
    try:
        choose_protocol(value if isinstance(value, str) else "")
    except ConfigError as error:
        raise PydanticCustomError(
            "url", "write a URL such as http://127.0.0.1:14317 or https://example.com/otlp"
        ) from error
    return cast("str", value)


def without_password(url: str) -> str:
    """Return the URL with user and password hidden, to be shown or logged."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()


def _signal_endpoint(value: object) -> str:
    return value if isinstance(value, str) and value in {SAME, OFF} else _check_url(value)


Url = Annotated[str, BeforeValidator(_check_url), PlainSerializer(without_password, when_used="json")]
SignalUrl = Annotated[str, BeforeValidator(_signal_endpoint), PlainSerializer(without_password, when_used="json")]
Header = Annotated[SecretStr, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]


File = Annotated[str, Field(min_length=1)]

_RETRY: Final = RetryPolicy()


class RetrySettings(Section):
    """What happens when a backend is away or asks to wait. Keys as in the Collector."""

    enabled: bool = Field(default=_RETRY.enabled, description="Send again what the backend may take later.")
    initial_interval: Duration = Field(
        default=_RETRY.initial_interval, gt=0, description="Wait before the first retry."
    )
    multiplier: float = Field(
        default=_RETRY.multiplier, ge=1, description="Each further wait is this many times longer."
    )
    max_interval: Duration = Field(default=_RETRY.max_interval, gt=0, description="The longest wait between two tries.")
    max_elapsed_time: Duration = Field(
        default=_RETRY.max_elapsed, description="After this long a request is dropped and counted; 0: never."
    )


class QueueSettings(Section):
    """What waits for a backend, in memory."""

    queue_size: ByteSize = Field(
        default=256 << 20,
        description="Bytes that may wait; spans, verdicts, logs and metrics each have a queue of this size.",
    )


class ClientTlsSettings(Section):
    """How a connection to a backend is encrypted. Keys as in the Collector."""

    insecure: bool | None = Field(
        default=None,
        description="For an endpoint without http:// or https://: true is plain text, false is TLS. "
        "null: TLS if a file is named below.",
    )
    ca_file: File | None = Field(
        default=None,
        description="PEM file: authorities that the backend's certificate may come from. null: the system's.",
    )
    cert_file: File | None = Field(
        default=None, description="PEM file: a certificate to show where the backend wants one (mTLS)."
    )
    key_file: File | None = Field(default=None, description="PEM file: the key of that certificate.")
    server_name_override: File | None = Field(
        default=None, description="The name in the backend's certificate, where it is not the one in the endpoint."
    )
    reload_interval: Duration = Field(
        default=RELOAD_INTERVAL,
        description="How often the files are looked at; renewed ones mean a new connection. 0s: read once.",
    )

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise PydanticCustomError("tls", "cert_file and key_file need each other")
        return self

    @property
    def is_meant(self) -> bool:
        """Whether something here asks for TLS."""
        if self.insecure is not None:
            return not self.insecure
        return any(each is not None for each in (self.ca_file, self.cert_file, self.server_name_override))

    @property
    def files(self) -> TlsFiles:
        """What a sender is given."""
        ca, certificate, key = (
            None if name is None else Path(name) for name in (self.ca_file, self.cert_file, self.key_file)
        )
        return TlsFiles(
            ca=ca,
            certificate=certificate,
            key=key,
            server_name=self.server_name_override,
            reload_interval=self.reload_interval,
        )


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


Exporter: TypeAlias = OtlpExporter | ConsoleExporter | FileExporter


def takes(exporter: Exporter, signal: Literal["logs", "metrics"]) -> bool:
    """Return whether a destination takes logs, or metrics."""
    if not isinstance(exporter, OtlpExporter):
        return True
    return (exporter.logs_endpoint if signal == "logs" else exporter.metrics_endpoint) != OFF


KINDS: Final[dict[str, type[OtlpExporter | ConsoleExporter | FileExporter]]] = {
    "otlp": OtlpExporter,
    "console": ConsoleExporter,
    "file": FileExporter,
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
        elif isinstance(settings, OtlpExporter | ConsoleExporter | FileExporter):
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
