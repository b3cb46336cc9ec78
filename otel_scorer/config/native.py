"""Destinations of scores alone: the APIs by which Phoenix, MLflow and Langfuse take them. Spans go by OTLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, SecretStr, field_validator

from otel_scorer.config.quantities import Duration  # noqa: TC001 - pydantic evaluates the annotations
from otel_scorer.config.section import Section
from otel_scorer.config.sending import ClientTlsSettings, Header, QueueSettings, RetrySettings, Url, basic_auth

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LangfuseExporter", "MlflowExporter", "NativeExporter", "PhoenixExporter"]


class NativeExporter(Section):
    """The score API of a backend."""

    what: ClassVar[str] = "scores"
    """What the backend calls a score."""

    endpoint: Url = Field(description="URL of the backend.")
    headers: dict[str, Header] = Field(
        default_factory=dict[str, SecretStr],
        description="Sent with every request. Take secrets from ${env:NAME} or ${file:PATH}; values are never shown.",
    )
    tls: ClientTlsSettings = Field(
        default_factory=ClientTlsSettings, description="Certificates for https:// endpoints."
    )
    timeout: Duration = Field(default=10.0, gt=0, description="How long one request may take.")
    trace_timeout: Duration = Field(
        default=600.0, gt=0, description="How long a score waits for its trace to be there, before it is given up."
    )
    retry_on_failure: RetrySettings = Field(
        default_factory=RetrySettings, description="What happens when the backend is away or asks to wait."
    )
    sending_queue: QueueSettings = Field(default_factory=QueueSettings, description="What waits for the backend.")
    connections: int = Field(default=4, ge=1, le=64, description="How many requests are on the way at a time.")
    dead_letters: str | None = Field(
        default=None, description="File for scores that are given up, one JSON line each; null: they are only counted."
    )

    @field_validator("endpoint")
    @classmethod
    def _with_scheme(cls, value: str) -> str:
        return value if "://" in value else f"http://{value}"

    def all_headers(self) -> dict[str, str]:
        """Return the headers in clear text, with those that authorise."""
        return {**dict(self._authorisation()), **{key: value.get_secret_value() for key, value in self.headers.items()}}

    def _authorisation(self) -> Iterator[tuple[str, str]]:
        yield from ()


class PhoenixExporter(NativeExporter):
    """Annotations of Phoenix."""

    what = "annotations of traces and spans"

    endpoint: Url = Field(default="http://127.0.0.1:6006", description="URL of Phoenix.")
    connections: int = Field(default=1, ge=1, le=64, description="Requests at a time; each carries up to 100 scores.")
    api_key: SecretStr | None = Field(
        default=None, description="Sent as a bearer token, such as ${env:PHOENIX_API_KEY}."
    )

    def _authorisation(self) -> Iterator[tuple[str, str]]:
        if self.api_key is not None:
            yield "Authorization", f"Bearer {self.api_key.get_secret_value()}"


class MlflowExporter(NativeExporter):
    """Assessments of MLflow 3.17 or newer."""

    what = "assessments"

    endpoint: Url = Field(default="http://127.0.0.1:5000", description="URL of the tracking server.")
    username: str | None = Field(default=None, description="With basic authentication.")
    password: SecretStr | None = Field(default=None, description="Such as ${env:MLFLOW_TRACKING_PASSWORD}.")
    token: SecretStr | None = Field(default=None, description="Sent as a bearer token instead.")

    def _authorisation(self) -> Iterator[tuple[str, str]]:
        if self.token is not None:
            yield "Authorization", f"Bearer {self.token.get_secret_value()}"
        elif self.username is not None:
            yield "Authorization", basic_auth(self.username, _clear(self.password))


class LangfuseExporter(NativeExporter):
    """Scores of Langfuse."""

    endpoint: Url = Field(default="https://cloud.langfuse.com", description="URL of Langfuse.")
    public_key: str | None = Field(default=None, description="Such as ${env:LANGFUSE_PUBLIC_KEY}.")
    secret_key: SecretStr | None = Field(default=None, description="Such as ${env:LANGFUSE_SECRET_KEY}.")

    def _authorisation(self) -> Iterator[tuple[str, str]]:
        if self.public_key is not None:
            yield "Authorization", basic_auth(self.public_key, _clear(self.secret_key))


def _clear(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
