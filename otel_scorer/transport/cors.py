"""Which web pages may send: the answers that browsers ask for (Fetch standard, "CORS protocol")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Cors"]

_Fields = tuple[tuple[str, str], ...]
_ANY: Final = "*"
# What the OpenTelemetry SDK for browsers sends beside what every page may.
_ALWAYS: Final = frozenset({"accept", "content-encoding", "content-language", "content-type", "x-requested-with"})
# Exporters look at it before they send again; scripts see few headers unless told.
_EXPOSED: Final = ("access-control-expose-headers", "Retry-After")


@dataclass(frozen=True, kw_only=True)
class Cors:
    """
    Answers to browsers. A page of an origin that is not allowed gets none, and its browser keeps it from sending.

    Attributes:
        origins: Such as `https://app.example.com` or `https://*.example.com`. `*` allows every page, but then no
            cookies.
        headers: Request headers that pages may set, beside those that OTLP needs; `*`: any.
        max_age: Seconds for which a browser may remember the answer to a preflight; 0: as it likes.
    """

    origins: tuple[str, ...]
    headers: tuple[str, ...] = ()
    max_age: int = 0

    def preflight(self, headers: Mapping[str, str]) -> _Fields:
        """Return the fields of the answer to an OPTIONS request."""
        fields = [("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")]
        allowed = self._about(headers.get("origin", ""))
        asked = [name.strip().lower() for name in headers.get("access-control-request-headers", "").split(",")]
        names = [name for name in asked if name]
        if not allowed or headers.get("access-control-request-method") != "POST" or not self._allows(names):
            return tuple(fields)
        fields += [*allowed, ("access-control-allow-methods", "POST")]
        if names:
            fields.append(("access-control-allow-headers", ", ".join(names)))
        if self.max_age:
            fields.append(("access-control-max-age", str(self.max_age)))
        return tuple(fields)

    def answer(self, headers: Mapping[str, str]) -> _Fields:
        """Return the fields that every answer to a request with these headers needs."""
        allowed = self._about(headers.get("origin", ""))
        return (("vary", "Origin"), *allowed, _EXPOSED) if allowed else (("vary", "Origin"),)

    def _about(self, origin: str) -> _Fields:
        if not origin:
            return ()
        if _ANY in self.origins:
            return (("access-control-allow-origin", _ANY),)
        if not any(pattern.fullmatch(origin) for pattern in self._patterns):
            return ()
        return ("access-control-allow-origin", origin), ("access-control-allow-credentials", "true")

    def _allows(self, names: list[str]) -> bool:
        allowed = {name.lower() for name in self.headers}
        return _ANY in allowed or all(name in _ALWAYS or name in allowed for name in names)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        # An asterisk stands for a part of the host, never for what would make it another one.
        return [
            re.compile("[^/:@]*".join(map(re.escape, origin.split(_ANY))), re.IGNORECASE) for origin in self.origins
        ]
