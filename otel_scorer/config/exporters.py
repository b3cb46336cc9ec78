"""
Where spans and verdicts go: OTLP backends, the console, a file.

Destinations are told apart by their key, as in the Collector: `otlp`, `otlp/second`, `console`, `file/everything`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from otel_scorer.config.quantities import OFF, ByteSize, Duration
from otel_scorer.config.section import Section
from otel_scorer.model.wire import Signal

__all__ = [
    "KINDS",
    "ConsoleExporter",
    "Exporter",
    "Exporters",
    "FileExporter",
    "OtlpExporter",
    "Protocol",
    "QueueSettings",
    "RetrySettings",
    "check_url",
    "protocol_of",
    "without_password",
]

Protocol: TypeAlias = Literal["grpc", "http/protobuf"]

_HTTP_PORT: Final = 4318
_SAME: Final = "same"
_TRACES_PATH: Final = "/v1/traces"


def protocol_of(endpoint: str) -> Protocol:
    """Return the protocol that a URL suggests: OTLP/HTTP if it has a path or port 4318, else gRPC."""
    parts = urlsplit(endpoint)
    return "http/protobuf" if parts.port == _HTTP_PORT or parts.path not in {"", "/"} else "grpc"


def check_url(value: object) -> str:
    """
    Return a URL; `HOST:PORT` becomes `http://HOST:PORT`.

    Raises:
        PydanticCustomError: It is none.
    """
    text = value if isinstance(value, str) else ""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(character.isspace() for character in url):
        raise PydanticCustomError("url", "write a URL such as http://127.0.0.1:14317 or https://example.com/otlp")
    return url


def without_password(url: str) -> str:
    """Return the URL with user and password hidden, to be shown or logged."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()


def _signal_endpoint(value: object) -> str:
    return value if isinstance(value, str) and value in {_SAME, OFF} else check_url(value)


Url = Annotated[str, BeforeValidator(check_url), PlainSerializer(without_password, when_used="json")]
SignalUrl = Annotated[str, BeforeValidator(_signal_endpoint), PlainSerializer(without_password, when_used="json")]
Header = Annotated[SecretStr, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]


class RetrySettings(Section):
    """What happens when a backend is away or asks to wait. Keys as in the Collector."""

    enabled: bool = Field(True, description="Send again what the backend may take later.")
    initial_interval: Duration = Field(1.0, gt=0, description="Wait before the first retry.")
    multiplier: float = Field(1.5, ge=1, description="Each further wait is this many times longer.")
    max_interval: Duration = Field(30.0, gt=0, description="The longest wait between two tries.")
    max_elapsed_time: Duration = Field(300.0, description="After this long a request is dropped and counted.")


class QueueSettings(Section):
    """What waits for a backend, in memory."""

    queue_size: ByteSize = Field(
        64 << 20, description="Bytes that may wait; spans and verdicts each have a queue of this size."
    )


class OtlpExporter(Section):
    """An OTLP backend."""

    endpoint: Url = Field(
        "http://127.0.0.1:14317",
        description="URL of the backend, without /v1/traces. With https:// the connection is encrypted.",
    )
    protocol: Protocol | None = Field(
        None,
        description="grpc or http/protobuf. null: http/protobuf if the URL has a path or port 4318, else grpc.",
    )
    compression: Literal["none", "gzip"] = Field(
        "none", description="none or gzip. gzip costs more CPU than everything else together."
    )
    headers: dict[str, Header] = Field(
        default_factory=dict[str, SecretStr],
        description="Sent with every request. Take secrets from ${env:NAME} or ${file:PATH}; values are never shown.",
    )
    timeout: Duration = Field(10.0, gt=0, description="How long one request may take.")
    retry_on_failure: RetrySettings = Field(
        default_factory=RetrySettings, description="What happens when the backend is away or asks to wait."
    )
    sending_queue: QueueSettings = Field(default_factory=QueueSettings, description="What waits for the backend.")
    traces_endpoint: SignalUrl = Field(
        _SAME, description="Where spans and verdicts go: same (as endpoint), or a URL that is used exactly as it is."
    )
    logs_endpoint: SignalUrl = Field(_SAME, description="Where OTLP logs go: same (as endpoint), off, or a URL.")
    metrics_endpoint: SignalUrl = Field(_SAME, description="Where OTLP metrics go: same (as endpoint), off, or a URL.")

    def target(self, signal: Signal) -> tuple[str, Protocol] | None:
        """
        Return where requests of a signal go.

        Returns:
            The full URL (with `/v1/<signal>` for OTLP/HTTP unless the setting is specific to the signal) and the
            protocol, or None if the signal is switched off.
        """
        given = {
            Signal.TRACES: self.traces_endpoint,
            Signal.LOGS: self.logs_endpoint,
            Signal.METRICS: self.metrics_endpoint,
        }[signal]
        if given == OFF:
            return None
        if given != _SAME:
            return given, self.protocol or protocol_of(given)
        protocol = self.protocol or protocol_of(self.endpoint)
        if protocol == "grpc":
            return self.endpoint, protocol
        base = self.endpoint.rstrip("/").removesuffix(_TRACES_PATH)
        return f"{base}/v1/{signal}", protocol


class ConsoleExporter(Section):
    """Standard output, one line of OTLP/JSON a request: needs no backend."""


class FileExporter(Section):
    """A file of OTLP/JSON lines, as the Collector's file exporter writes them."""

    path: str = Field(min_length=1, description="The file; it is appended to.")


Exporter: TypeAlias = OtlpExporter | ConsoleExporter | FileExporter

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
            unknown = PydanticCustomError("unknown_key", "unknown key", {"key": str(key), "known": list(KINDS)})
            errors.append({"type": unknown, "loc": (), "input": None})
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
            "type": PydanticCustomError(cast("Any", item["type"]), "{reason}", {**item.get("ctx", {}), "reason": item["msg"]}),
            "loc": (key, *item["loc"]),
            "input": item["input"],
        }
        for item in error.errors(include_url=False)
    ]


Exporters = Annotated[dict[str, Exporter], BeforeValidator(_read_exporters)]
"""Destinations by key."""
