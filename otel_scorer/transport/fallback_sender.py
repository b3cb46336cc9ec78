"""A span that a backend refuses with verdicts on it is sent as it was: what we add must not cost what we were given."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import PermanentError, TooLargeError
from otel_scorer.model.wire import count_items
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.exchange import PartialSuccess, Sender

__all__ = ["BAD_REQUEST", "FallbackSender"]

_logger = logging.getLogger(__name__)

BAD_REQUEST: Final = frozenset({"HTTP 400", "HTTP 422", "INVALID_ARGUMENT"})
"""What backends answer to a request in which one item is bad."""


class FallbackSender:
    """
    Sends through another sender, a request of one span a second time where that helps.

    Args:
        sender: Talks to the backend.
        destination: Its name.
        lighten: Returns a request without verdicts, and from how many spans some were taken off; None if from none.
    """

    def __init__(self, sender: Sender, destination: str, lighten: Callable[[bytes], tuple[bytes, int] | None]) -> None:
        self._sender = sender
        self._destination = destination
        self._lighten = lighten
        self._log_limit = LogLimit()

    def send(self, signal: Signal, data: bytes, timeout: float) -> PartialSuccess | None:
        """Send one request, as `exchange.Sender` says."""
        try:
            return self._sender.send(signal, data, timeout)
        except PermanentError as error:
            lighter = self.lightened(data, error) if count_items(signal, data) == 1 else None
            if lighter is None:
                raise
            return self._sender.send(signal, lighter, timeout)

    def lightened(self, data: bytes, error: PermanentError) -> bytes | None:
        """Return a request that was refused as it may be sent instead; None if that would not help."""
        may_help = isinstance(error, TooLargeError) or error.code in BAD_REQUEST
        found = self._lighten(data) if may_help else None
        if found is None:
            return None
        lighter, spans = found
        count("forwarder.without_verdicts", spans, destination=self._destination)
        if self._log_limit.allows(error.code):
            _logger.warning("%s gets spans without their verdicts, as it refused: %s", self._destination, error)
        return lighter

    def close(self) -> None:
        """Close the other sender."""
        self._sender.close()
