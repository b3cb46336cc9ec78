"""Where spans come from: OTLP over gRPC and HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from otel_scorer.config.quantities import Address, ByteSize  # noqa: TC001 - pydantic evaluates the annotations
from otel_scorer.config.section import NotYet, Section

__all__ = ["GrpcSettings", "HttpSettings", "OtlpReceiver", "Protocols", "Receivers"]


class GrpcSettings(Section):
    """The OTLP/gRPC receiver."""

    endpoint: Address = Field(
        default="127.0.0.1:4317", description="HOST:PORT to listen on; port 0 takes any free one; off switches it off."
    )
    max_request_size: ByteSize = Field(
        default=64 << 20, description="Larger requests are refused; measured after decompression."
    )
    tls: Annotated[dict[str, Any] | None, NotYet] = Field(default=None, description="Certificates. Not available yet.")
    auth: Annotated[dict[str, Any] | None, NotYet] = Field(
        default=None, description="Bearer tokens. Not available yet."
    )


class HttpSettings(Section):
    """The OTLP/HTTP receiver (protobuf and JSON)."""

    endpoint: Address = Field(
        default="127.0.0.1:4318", description="HOST:PORT to listen on; port 0 takes any free one; off switches it off."
    )
    max_request_size: ByteSize = Field(
        default=64 << 20, description="Larger requests are refused; measured after decompression."
    )
    tls: Annotated[dict[str, Any] | None, NotYet] = Field(default=None, description="Certificates. Not available yet.")
    auth: Annotated[dict[str, Any] | None, NotYet] = Field(
        default=None, description="Bearer tokens. Not available yet."
    )
    cors: Annotated[dict[str, Any] | None, NotYet] = Field(
        default=None, description="Origins of browsers that may send. Not available yet."
    )


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
