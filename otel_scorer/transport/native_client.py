"""JSON over HTTP, for score APIs: what each answer means for the scores in a request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.errors import PermanentError, TraceMissingError
from otel_scorer.transport.http_client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.errors import TransportError
    from otel_scorer.transport.exchange import TlsFiles
    from otel_scorer.transport.http_client import HttpAnswer

__all__ = ["Answer", "JsonClient"]

_MISSING: Final = 404
# Errors of the server itself, and: a request timeout, too early, too many requests.
_RETRYABLE: Final = frozenset({408, 425, 429, *range(500, 600)})
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a backend said.

    Attributes:
        http: As it came.
        body: Decoded JSON; None if it is none.
        text: The same as text.
    """

    http: HttpAnswer
    body: Any
    text: str

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.http.status

    @property
    def is_success(self) -> bool:
        """Whether it did what was asked, and said so in JSON: a page for people comes from somebody else."""
        return self.http.is_success and isinstance(self.body, dict)

    def error(self, traces: frozenset[str] = frozenset()) -> TransportError:
        """
        Return what an answer other than success means.

        Args:
            traces: Traces and spans that it says are missing, if it says which.
        """
        error = self.http.error(self._said(), _RETRYABLE)
        if self.http.is_success:
            return PermanentError(f"{error}. Is this the address of the API?", code="not_json")
        if self.status == _MISSING:
            return TraceMissingError(str(error), traces=traces)
        return error

    def _said(self) -> str:
        given: object = self.body
        body = cast("dict[str, object]", given) if isinstance(given, dict) else {}
        said = next((body[key] for key in ("message", "detail", "error") if body.get(key)), self.text)
        return " ".join(str(said)[:_SHOWN].split()) or "nothing"


class JsonClient:
    """
    Talks to one API.

    Args:
        url: Where its paths begin.
        headers: Sent with every request.
        connections: How many requests may be on the way at a time.
        tls: Certificates for https.

    Raises:
        ConfigError: A certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connections: int = 1,
        tls: TlsFiles | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        written = {"Content-Type": "application/json", "Accept": "application/json"}
        self._client = HttpClient(self._url, headers={**(headers or {}), **written}, connections=connections, tls=tls)

    def call(self, method: str, path: str, body: bytes | None, timeout: float) -> Answer:
        """
        Send a request and return the answer, whatever it is.

        Raises:
            RetryableError: There was none.
        """
        answer = self._client.request(method, self._url + path, body, timeout)
        return Answer(answer, _decoded(answer.body), answer.body.decode("utf-8", "replace"))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
