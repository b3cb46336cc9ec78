"""Who may send: bearer tokens (RFC 6750) and user names with passwords (RFC 7617), compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError
from otel_scorer.transport.exchange import RELOAD_INTERVAL
from otel_scorer.transport.responses import UNAUTHENTICATED, Refusal
from otel_scorer.transport.rotation import FromFiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_scorer.transport.exchange import Credentials

__all__ = ["Authenticator"]

_BASIC: Final = "Basic"
# How htpasswd marks what is not a plain password; each check would cost milliseconds on purpose.
_HASHED: Final = re.compile(r"\$(apr1|1|2[abxy]?|5|6)\$|\{(SHA|SSHA)\}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class Authenticator:
    """
    Says whether a request may come in.

    Args:
        credentials: What is accepted.
        name: Of the receiver, for log lines.
        interval: Seconds between two looks at the files.

    Raises:
        ConfigError: A file cannot be read or has nothing in it, or a password is hashed.
    """

    def __init__(self, credentials: Credentials, name: str, *, interval: float = RELOAD_INTERVAL) -> None:
        paths = (credentials.token_file, credentials.user_file)
        self._accepted = FromFiles(f"{name} credentials", paths, lambda: _read(credentials), interval=interval)
        schemes: list[str] = []
        if credentials.tokens or credentials.token_file:
            schemes.append(credentials.scheme)
        if credentials.users or credentials.user_file:
            schemes.append(f'{_BASIC} realm="otlp", charset="UTF-8"')
        challenge = tuple(("www-authenticate", scheme) for scheme in schemes)
        message = "The Authorization is missing or not accepted"
        self._refusal = Refusal(UNAUTHENTICATED, 401, message, "unauthenticated", headers=challenge)

    def refusal_of(self, authorization: str | None) -> Refusal | None:
        """Return how to refuse a request with this Authorization header, or None to take it."""
        scheme, _, given = (authorization or "").strip().partition(" ")
        digest = _digest(scheme, given.strip())
        # All are compared, so that the time says nothing about which one nearly was right.
        matches = [hmac.compare_digest(digest, accepted) for accepted in self._accepted.current()]
        return None if any(matches) else self._refusal


def _read(credentials: Credentials) -> tuple[bytes, ...]:
    """Return the digests of what is accepted."""
    tokens = [*credentials.tokens, *_lines(credentials.token_file)]
    users = [*filter(None, map(str.strip, credentials.users.splitlines())), *_lines(credentials.user_file)]
    for token in tokens:
        if not _TOKEN.fullmatch(token):
            raise ConfigError("A token must be one word of ASCII characters")
    return (
        *(_digest(credentials.scheme, token) for token in tokens),
        *(_digest(_BASIC, base64.b64encode(_user(line)).decode()) for line in users),
    )


def _lines(path: Path | None) -> Iterator[str]:
    if path is None:
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise ConfigError(f"Cannot read the credentials in {path}: {reason}") from error
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"There are no credentials in {path}")
    yield from found


def _user(line: str) -> bytes:
    name, colon, password = line.partition(":")
    if not name or not colon or not password:
        raise ConfigError("A line of htpasswd must be NAME:PASSWORD")
    if _HASHED.match(password):
        raise ConfigError(
            f"The password of {name} is hashed: only plain ones can be used, in a file that others cannot read"
        )
    return line.encode()


def _digest(scheme: str, given: str) -> bytes:
    """Return equal digests for equal credentials, however long these are."""
    scheme = scheme.lower()
    if scheme == _BASIC.lower():
        # Two ways to write the same bytes in base64 are the same credentials.
        try:
            given = base64.b64decode(given, validate=True).hex()
        except (binascii.Error, ValueError):
            return b""
    return hashlib.sha256(f"{scheme} {given}".encode()).digest()
