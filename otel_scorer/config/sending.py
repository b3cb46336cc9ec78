"""What destinations of every kind have: an address, headers, retries, and room to wait."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Final, Self, cast

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from otel_scorer.config.quantities import OFF, ByteSize, Duration
from otel_scorer.config.section import Section
from otel_scorer.errors import ConfigError
from otel_scorer.transport.addresses import shown_url
from otel_scorer.transport.endpoints import SAME, choose_protocol
from otel_scorer.transport.exchange import RELOAD_INTERVAL, TlsFiles
from otel_scorer.transport.retry import RetryPolicy

__all__ = [
    "ClientTlsSettings",
    "Header",
    "QueueSettings",
    "RetrySettings",
    "SignalUrl",
    "Url",
    "basic_auth",
]


def _check_url(value: object) -> str:
    try:
        choose_protocol(value if isinstance(value, str) else "")
    except ConfigError as error:
        raise PydanticCustomError(
            "url", "write a URL such as http://127.0.0.1:14317 or https://example.com/otlp"
        ) from error
    return cast("str", value)


def basic_auth(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _signal_endpoint(value: object) -> str:
    return value if isinstance(value, str) and value in {SAME, OFF} else _check_url(value)


Url = Annotated[str, BeforeValidator(_check_url), PlainSerializer(shown_url, when_used="json")]
SignalUrl = Annotated[str, BeforeValidator(_signal_endpoint), PlainSerializer(shown_url, when_used="json")]
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
        default=_RETRY.max_elapsed,
        description="After this long a request is dropped and counted; 0: never, as with a spool if this is not set.",
    )

    def policy(self, *, is_spooled: bool) -> RetryPolicy:
        """Return the same for senders. What waits in a spool waits for as long as it takes, unless a limit is set."""
        is_patient = is_spooled and "max_elapsed_time" not in self.model_fields_set
        return RetryPolicy(
            enabled=self.enabled,
            initial_interval=self.initial_interval,
            multiplier=self.multiplier,
            max_interval=self.max_interval,
            max_elapsed=0.0 if is_patient else self.max_elapsed_time,
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
