"""`OTEL_EXPORTER_OTLP_*` as settings of ours (OpenTelemetry specification, "OpenTelemetry Protocol Exporter")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from otel_scorer.config.quantities import OFF
from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["exporter_from_environment", "with_scheme"]

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_TRACES_PATH: Final = "/v1/traces"
_MILLISECONDS: Final = 1000
_FILES: Final = {"CERTIFICATE": "ca_file", "CLIENT_CERTIFICATE": "cert_file", "CLIENT_KEY": "key_file"}
_PROTOCOLS: Final = {"grpc": "grpc", "http/protobuf": "http/protobuf", "http/json": "http/protobuf"}


def exporter_from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """
    Return the keys of an `otlp` exporter that the environment sets; empty if it sets none.

    What is set for traces alone wins over what is set for all signals. `..._TIMEOUT` is in milliseconds, as the
    specification says.

    Raises:
        ConfigError: A variable holds something that cannot be meant.
    """
    found = _endpoints(environ)
    if protocol := _either(environ, "PROTOCOL"):
        if protocol not in _PROTOCOLS:
            raise ConfigError(f"{_PREFIX}PROTOCOL must be grpc or http/protobuf, got {protocol!r}")
        found["protocol"] = _PROTOCOLS[protocol]
    if compression := _either(environ, "COMPRESSION"):
        found["compression"] = compression
    if timeout := _either(environ, "TIMEOUT"):
        try:
            found["timeout"] = float(timeout) / _MILLISECONDS
        except ValueError as error:
            raise ConfigError(f"{_PREFIX}TIMEOUT must be a number of milliseconds, got {timeout!r}") from error
    if headers := _either(environ, "HEADERS"):
        found["headers"] = _headers(headers)
    if tls := _tls(environ):
        found["tls"] = tls
    return found


def _tls(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {key: file for name, key in _FILES.items() if (file := _either(environ, name))}
    if insecure := _either(environ, "INSECURE").lower():
        found["insecure"] = insecure == "true"
    return found


def with_scheme(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of the environment for their endpoint: its scheme, if any, says whether TLS is used."""
    endpoint, kept = settings.get("endpoint"), dict(settings)
    if endpoint is None or endpoint.startswith("http://"):  # the default endpoint is plain text
        kept.pop("tls", None)
    elif endpoint.startswith("https://") and "tls" in kept:
        kept["tls"] = {key: value for key, value in kept["tls"].items() if key != "insecure"}
    return kept


def _endpoints(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    endpoint, traces_endpoint = _get(environ, "ENDPOINT"), _get(environ, "TRACES_ENDPOINT")
    if traces_endpoint:
        # An endpoint for all signals is a base, one for a signal is used as it is; ours is a base.
        path = urlsplit(traces_endpoint).path.rstrip("/")
        if path and not path.endswith(_TRACES_PATH):
            raise ConfigError(f"{_PREFIX}TRACES_ENDPOINT must end in {_TRACES_PATH}")
        found["endpoint"] = traces_endpoint.rstrip("/").removesuffix(_TRACES_PATH)
        for signal in ("logs", "metrics"):
            found[f"{signal}_endpoint"] = endpoint or OFF
        if path and not _either(environ, "PROTOCOL"):
            found["protocol"] = "http/protobuf"
    elif endpoint:
        found["endpoint"] = endpoint
    for signal in ("LOGS", "METRICS"):
        if own := _get(environ, f"{signal}_ENDPOINT"):
            found[f"{signal.lower()}_endpoint"] = own
    return found


def _get(environ: Mapping[str, str], name: str) -> str:
    return environ.get(_PREFIX + name, "").strip()


def _either(environ: Mapping[str, str], name: str) -> str:
    return _get(environ, f"TRACES_{name}") or _get(environ, name)


def _headers(text: str) -> dict[str, str]:
    """Read `key=value,key=value` with percent-encoded values. The text may hold secrets: no message quotes it."""
    headers: dict[str, str] = {}
    for position, pair in enumerate(filter(str.strip, text.split(",")), start=1):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{_PREFIX}HEADERS must look like key=value,key=value; entry {position} does not")
        headers[unquote(key.strip()).lower()] = unquote(value.strip())
    return headers
