"""JSON over HTTP, for score APIs: a pool of connections, and what each answer means for the scores in a request."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from otel_scorer.errors import PermanentError, RetryableError, TooLargeError, TraceMissingError
from otel_scorer.transport.exchange import TlsFiles
from otel_scorer.transport.http_sender import parse_retry_after
from otel_scorer.transport.rotation import FromFiles
from otel_scorer.transport.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_scorer.errors import TransportError

__all__ = ["Answer", "JsonClient"]

_SUCCESS: Final = range(200, 300)
_MISSING: Final = 404
_TOO_LARGE: Final = 413
_SERVER_ERRORS: Final = range(500, 600)
# Beside errors of the server itself: a request timeout, too early, too many requests.
_RETRYABLE: Final = frozenset({408, 425, 429})
_MAX_ANSWER: Final = 1 << 20
_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a backend said.

    Attributes:
        url: Who was asked.
        status: HTTP status.
        body: Decoded JSON; None if it is none.
        text: The same as text.
        retry_after: Seconds that it asks to wait, if it does.
    """

    url: str
    status: int
    body: Any
    text: str
    retry_after: float | None

    @property
    def is_success(self) -> bool:
        """Whether it did what was asked, and said so in JSON: a page for people comes from somebody else."""
        return self.status in _SUCCESS and isinstance(self.body, dict)

    def error(self, traces: frozenset[str] = frozenset()) -> TransportError:
        """
        Return what an answer other than success means.

        Args:
            traces: Traces and spans that it says are missing, if it says which.
        """
        code = f"HTTP {self.status}"
        message = f"{self.url} answered {code}: {self._said()}"
        if self.status in _SUCCESS:
            return PermanentError(f"{message}. Is this the address of the API?", code="not_json")
        if self.status == _MISSING:
            return TraceMissingError(message, traces=traces)
        if self.status == _TOO_LARGE:
            return TooLargeError(message, code=code)
        if self.status in _RETRYABLE or self.status in _SERVER_ERRORS:
            return RetryableError(message, code=code, retry_after=self.retry_after)
        return PermanentError(message, code=code)

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
        now: Seconds since the epoch, for a Retry-After that is a date.

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
        now: Callable[[], float] = time.time,
    ) -> None:
        self._url = url.rstrip("/")
        self._headers = {**(headers or {}), "Content-Type": "application/json", "Accept": "application/json"}
        self._now = now
        files = tls or TlsFiles()
        self._pool = FromFiles(
            f"certificates for {self._url}",
            files.paths,
            partial(_connections, files, connections),
            interval=files.reload_interval,
        )

    def call(self, method: str, path: str, body: bytes | None, timeout: float) -> Answer:
        """
        Send a request and return the answer, whatever it is.

        Raises:
            RetryableError: There was none.
        """
        url = self._url + path
        try:
            response = self._pool.current().request(
                method,
                url,
                body=body,
                headers=self._headers,
                timeout=urllib3.Timeout(total=timeout),
                redirect=False,
                preload_content=False,
            )
            data = response.read(_MAX_ANSWER, decode_content=True)
            # What is longer is no answer of an API: the connection is not worth reading it to the end.
            response.release_conn() if len(data) < _MAX_ANSWER else response.close()
        except PoolTimeoutError as error:
            raise RetryableError(f"No answer from {url} in {timeout:g} s", code="timeout") from error
        except HTTPError as error:
            raise RetryableError(f"Cannot reach {url}: {error}", code="connect") from error
        delay = parse_retry_after(response.headers.get("Retry-After"), self._now())
        return Answer(url, response.status, _decoded(data), data.decode("utf-8", "replace"), delay)

    def close(self) -> None:
        """Close the connections."""
        self._pool.current().clear()


def _connections(tls: TlsFiles, connections: int) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=connections,
        retries=False,
        ssl_context=client_context(tls),
        server_hostname=tls.server_name,
    )


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
