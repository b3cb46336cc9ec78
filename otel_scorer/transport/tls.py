"""TLS contexts from PEM files, with errors that name the file."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError
from otel_scorer.transport.exchange import TlsVersion

if TYPE_CHECKING:
    from pathlib import Path

    from otel_scorer.transport.exchange import ServerTls, TlsFiles

__all__ = ["client_context", "read_pem", "server_context"]


_VERSIONS: Final = {TlsVersion.V1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.V1_3: ssl.TLSVersion.TLSv1_3}


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """
    Return what HTTP connections are accepted with.

    Raises:
        ConfigError: A file cannot be read, is not what it should be, or the key belongs to another certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, tls.certificate, tls.key)
    if tls.client_ca is not None:
        _load_authorities(context, tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        # A resumed session is not verified again: it would outlive the authority that it was opened with.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def client_context(tls: TlsFiles) -> ssl.SSLContext:
    """
    Return what HTTP connections are opened with.

    Raises:
        ConfigError: As `server_context`.
    """
    context = ssl.create_default_context() if tls.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca is not None:
        _load_authorities(context, tls.ca)
    if tls.certificate is not None:
        _load_certificate(context, tls.certificate, tls.key)
    return context


def read_pem(path: Path) -> bytes:
    """
    Return the contents of a PEM file.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"Cannot read the TLS file {path}: {error.strerror}") from error


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    # OpenSSL does not say which of the two is missing.
    read_pem(certificate)
    if key is not None:
        read_pem(key)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        files = f"{certificate} and {key}" if key is not None else f"{certificate}"
        raise ConfigError(f"Cannot use the certificate and key in {files}: {_reason(error)}") from error


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    read_pem(path)
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot use the authorities in {path}: {_reason(error)}") from error


def _no_password() -> str:
    # Without this, OpenSSL would ask for one on the terminal.
    raise ConfigError("Keys with a password cannot be used")


def _reason(error: Exception) -> str:
    """Return what OpenSSL calls it, in words."""
    reason = getattr(error, "reason", None)
    if reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate"
    return str(reason or error).replace("_", " ").lower()
