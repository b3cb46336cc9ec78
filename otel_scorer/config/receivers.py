"""Where spans come from, and who may send them: OTLP over gRPC and HTTP. Keys as in the Collector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, cast

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from otel_scorer.config.quantities import (  # noqa: TC001 - pydantic evaluates the annotations
    Address,
    ByteSize,
    Duration,
)
from otel_scorer.config.section import Empty, Section
from otel_scorer.transport.cors import Cors
from otel_scorer.transport.exchange import RELOAD_INTERVAL, Credentials, ServerTls, TlsVersion

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = [
    "AuthSettings",
    "BasicAuth",
    "BearerTokenAuth",
    "CorsSettings",
    "GrpcSettings",
    "Htpasswd",
    "HttpSettings",
    "OtlpReceiver",
    "Protocols",
    "Receivers",
    "ServerTlsSettings",
    "literal_secrets",
]

_SECRET_KEYS: Final = (
    ("bearertokenauth", "token"),
    ("bearertokenauth", "tokens"),
    ("basicauth", "htpasswd", "inline"),
)

File = Annotated[str, Field(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=1)]
# YAML reads 1.2 as a number.
Version = Annotated[
    Literal["1.2", "1.3"], BeforeValidator(lambda value: str(value) if isinstance(value, float) else value)
]


class ServerTlsSettings(Section):
    """Certificates of a receiver; without them it speaks plain text."""

    cert_file: File | None = Field(
        default=None, description="PEM file: the certificate and those between it and its authority. null: plain text."
    )
    key_file: File | None = Field(default=None, description="PEM file: the key of the certificate.")
    client_ca_file: File | None = Field(
        default=None,
        description="PEM file: authorities of which clients must show a certificate (mTLS). null: no need.",
    )
    min_version: Version = Field(default="1.2", description="Older versions of TLS are refused: 1.2 or 1.3.")
    reload_interval: Duration = Field(
        default=RELOAD_INTERVAL,
        description="How often the files are looked at; connections stay when they have changed. 0s: read once.",
    )

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise PydanticCustomError("tls", "cert_file and key_file need each other")
        if self.client_ca_file is not None and self.cert_file is None:
            raise PydanticCustomError("tls", "client_ca_file needs cert_file and key_file")
        return self

    @property
    def files(self) -> ServerTls | None:
        """What the receiver is given; None: plain text."""
        if self.cert_file is None or self.key_file is None:
            return None
        return ServerTls(
            certificate=Path(self.cert_file),
            key=Path(self.key_file),
            client_ca=_path(self.client_ca_file),
            min_version=TlsVersion(self.min_version),
            reload_interval=self.reload_interval,
        )


class BearerTokenAuth(Section):
    """Tokens that clients send as `Authorization: Bearer TOKEN`."""

    scheme: str = Field(
        default="Bearer", pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$", description="What stands before a token."
    )
    token: Secret | None = Field(
        default=None, description="What is accepted. Only from ${env:NAME} or ${file:PATH}; never shown."
    )
    tokens: Annotated[list[Secret], Empty] = Field(
        default_factory=list[SecretStr], description="More of them, likewise."
    )
    filename: File | None = Field(
        default=None, description="A file with more of them, one per line; read again when it changes."
    )


class Htpasswd(Section):
    """Names and passwords."""

    file: File | None = Field(
        default=None, description="A file with lines of NAME:PASSWORD, plain; read again when it changes."
    )
    inline: Secret | None = Field(
        default=None, description="The same as text. Only from ${env:NAME} or ${file:PATH}; never shown."
    )


class BasicAuth(Section):
    """Names and passwords that clients send as `Authorization: Basic ...`."""

    htpasswd: Htpasswd = Field(default_factory=Htpasswd, description="Who is accepted.")


class AuthSettings(Section):
    """Who may send; with nothing in it, everybody."""

    bearertokenauth: BearerTokenAuth = Field(default_factory=BearerTokenAuth, description="Bearer tokens.")
    basicauth: BasicAuth = Field(default_factory=BasicAuth, description="Names and passwords.")

    @property
    def credentials(self) -> Credentials | None:
        """What is accepted; None: everybody."""
        bearer, htpasswd = self.bearertokenauth, self.basicauth.htpasswd
        token = () if bearer.token is None else (bearer.token.get_secret_value(),)
        found = Credentials(
            tokens=(*token, *(each.get_secret_value() for each in bearer.tokens)),
            token_file=_path(bearer.filename),
            scheme=bearer.scheme,
            users="" if htpasswd.inline is None else htpasswd.inline.get_secret_value(),
            user_file=_path(htpasswd.file),
        )
        return found if any((found.tokens, found.token_file, found.users, found.user_file)) else None


class CorsSettings(Section):
    """Which web pages may send; with no origin in it, none."""

    allowed_origins: Annotated[list[str], Empty] = Field(
        default_factory=list[str],
        description="Such as https://app.example.com or https://*.example.com; '*' is every page, without cookies.",
    )
    allowed_headers: Annotated[list[str], Empty] = Field(
        default_factory=list[str],
        description="Request headers beside those of OTLP, such as Authorization; '*' is any.",
    )
    max_age: int = Field(
        default=0, ge=0, description="Seconds for which a browser may remember what is allowed; 0: as it likes."
    )

    @property
    def answers(self) -> Cors | None:
        """What the receiver is given; None: no web page may send."""
        if not self.allowed_origins:
            return None
        return Cors(origins=tuple(self.allowed_origins), headers=tuple(self.allowed_headers), max_age=self.max_age)


class GrpcSettings(Section):
    """The OTLP/gRPC receiver."""

    endpoint: Address = Field(
        default="127.0.0.1:4317", description="HOST:PORT to listen on; port 0 takes any free one; off switches it off."
    )
    max_request_size: ByteSize = Field(
        default=64 << 20, description="Larger requests are refused; measured after decompression."
    )
    tls: ServerTlsSettings = Field(default_factory=ServerTlsSettings, description="Certificates.")
    auth: AuthSettings = Field(default_factory=AuthSettings, description="Who may send; by default everybody.")

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if self.tls.min_version != "1.2":
            raise PydanticCustomError("tls", "tls.min_version: gRPC takes 1.2 and 1.3, and cannot be told otherwise")
        return self


class HttpSettings(Section):
    """The OTLP/HTTP receiver (protobuf and JSON)."""

    endpoint: Address = Field(
        default="127.0.0.1:4318", description="HOST:PORT to listen on; port 0 takes any free one; off switches it off."
    )
    max_request_size: ByteSize = Field(
        default=64 << 20, description="Larger requests are refused; measured after decompression."
    )
    tls: ServerTlsSettings = Field(default_factory=ServerTlsSettings, description="Certificates.")
    auth: AuthSettings = Field(default_factory=AuthSettings, description="Who may send; by default everybody.")
    cors: CorsSettings = Field(default_factory=CorsSettings, description="Which web pages may send; by default none.")


class Protocols(Section):
    """The protocols that OTLP is received over."""

    grpc: GrpcSettings = Field(default_factory=GrpcSettings, description="OTLP/gRPC.")
    http: HttpSettings = Field(default_factory=HttpSettings, description="OTLP/HTTP, protobuf and JSON.")


class OtlpReceiver(Section):
    """The OTLP receiver."""

    protocols: Protocols = Field(default_factory=Protocols, description="Each protocol has an address of its own.")


class Receivers(Section):
    """Where spans come from."""

    otlp: OtlpReceiver = Field(default_factory=OtlpReceiver, description="OTLP, from applications or a Collector.")


def literal_secrets(
    settings: Mapping[str, Any], filled_in: Collection[tuple[int | str, ...]]
) -> list[tuple[int | str, ...]]:
    """
    Return where secrets are written in the configuration itself.

    Args:
        settings: All settings, valid ones.
        filled_in: Where `${...}` stood.
    """
    found: list[tuple[int | str, ...]] = []
    for protocol in Protocols.model_fields:
        for keys in _SECRET_KEYS:
            path: tuple[int | str, ...] = ("receivers", "otlp", "protocols", protocol, "auth", *keys)
            value = _at(settings, path)
            if isinstance(value, list):
                places = [(*path, index) for index in range(len(cast("list[object]", value)))]
            else:
                places = [] if value is None else [path]
            found += [place for place in places if place not in filled_in]
    return found


def _at(settings: Mapping[str, Any], path: Iterable[object]) -> object:
    value: Any = settings
    for key in path:
        value = None if value is None else value.get(key)
    return cast("object", value)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
