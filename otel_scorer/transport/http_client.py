"""HTTP from our side: one request over a pool of connections, the answer whatever it is, and what a refusal means."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from otel_scorer.errors import PermanentError, RetryableError, TooLargeError
from otel_scorer.transport.addresses import shown_url
from otel_scorer.transport.exchange import TlsFiles
from otel_scorer.transport.rotation import FromFiles
from otel_scorer.transport.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from otel_scorer.errors import TransportError

__all__ = ["HttpAnswer", "HttpClient", "parse_retry_after"]

_SUCCESS: Final = range(200, 300)
_TOO_LARGE: Final = 413
_MAX_ANSWER: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """
    What a backend said.

    Attributes:
        url: Who was asked, without what may be secret in it.
        status: HTTP status.
        body: As it came, decompressed.
        content_type: What it says it is, in lower case and without parameters.
        retry_after: Seconds that it asks to wait, if it does.
    """

    url: str
    status: int
    body: bytes
    content_type: str
    retry_after: float | None

    @property
    def is_success(self) -> bool:
        """Whether the status says that it did what was asked."""
        return self.status in _SUCCESS

    def error(self, said: str, retryable: Container[int]) -> TransportError:
        """
        Return what a refusal means for the request.

        Args:
            said: What the body says, for people.
            retryable: The statuses after which it may be sent again.
        """
        code = f"HTTP {self.status}"
        message = f"{self.url} answered {code}: {said}"
        if self.status in retryable:
            return RetryableError(message, code=code, retry_after=self.retry_after)
        if self.status == _TOO_LARGE:
            return TooLargeError(message, code=code)
        return PermanentError(message, code=code)


class HttpClient:
    """
    Talks to one server; may be used by several threads at once.

    Args:
        url: The server, for log lines.
        headers: Sent with every request.
        connections: How many are kept; more requests at a time open more.
        tls: Certificates for https.
        now: Seconds since the epoch, for a Retry-After that is a date.

    Raises:
        ConfigError: A certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        connections: int = 1,
        tls: TlsFiles | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._headers = dict(headers)
        self._now = now
        files = tls or TlsFiles()
        # Renewed certificates mean new connections; a request on the way finishes on its old one.
        self._pool = FromFiles(
            f"certificates for {shown_url(url)}",
            files.paths,
            partial(_connections, files, connections),
            interval=files.reload_interval,
        )

    def request(self, method: str, url: str, body: bytes | None, timeout: float) -> HttpAnswer:
        """
        Send a request and return the answer, whatever it is; redirections are not followed.

        Raises:
            RetryableError: There was none within `timeout` seconds, or no connection.
        """
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
            answer = response.read(_MAX_ANSWER, decode_content=True)
            # What is longer is no answer that we asked for: the connection is not worth reading it to the end.
            response.release_conn() if len(answer) < _MAX_ANSWER else response.close()
        except NewConnectionError as error:  # for urllib3 that is a timeout, too
            raise RetryableError(f"Cannot reach {shown_url(url)}: {error}", code="connect") from error
        except PoolTimeoutError as error:
            raise RetryableError(f"No answer from {shown_url(url)} in {timeout:g} s", code="timeout") from error
        except HTTPError as error:
            raise RetryableError(f"Cannot reach {shown_url(url)}: {error}", code="connect") from error
        delay = parse_retry_after(response.headers.get("Retry-After"), self._now())
        content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        return HttpAnswer(shown_url(url), response.status, answer, content_type, delay)

    def close(self) -> None:
        """Close the idle connections; those in use follow when they are done."""
        self._pool.current().clear()


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds of a Retry-After header, given in seconds or as a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    text = value.strip()
    if text.isdecimal():
        return float(text[:10])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _connections(tls: TlsFiles, connections: int) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        maxsize=connections,
        retries=False,
        ssl_context=client_context(tls),
        server_hostname=tls.server_name,
        assert_hostname=tls.server_name,
    )
