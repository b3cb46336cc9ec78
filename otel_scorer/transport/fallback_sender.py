"""A span that a backend refuses with verdicts on it is sent as it was: what we add must not cost what we were given."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import PermanentError, TooLargeError
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
    Sends through another sender, a second time where that helps.

    Args:
        sender: Talks to the backend.
        destination: Its name.
        lighten: Returns a request of one span without its verdicts; None for any other request.
    """

    def __init__(self, sender: Sender, destination: str, lighten: Callable[[bytes], bytes | None]) -> None:
        self._sender = sender
        self._destination = destination
        self._lighten = lighten
        self._log_limit = LogLimit()

    def send(self, signal: Signal, data: bytes, timeout: float) -> PartialSuccess | None:
        """Send one request, as `exchange.Sender` says."""
        try:
            return self._sender.send(signal, data, timeout)
        except PermanentError as error:
            lighter = None
            if isinstance(error, TooLargeError) or error.code in BAD_REQUEST:
                lighter = self._lighten(data)
            if lighter is None:
                raise
            partial = self._sender.send(signal, lighter, timeout)
            count("forwarder.without_verdicts", destination=self._destination)
            if self._log_limit.allows(error.code):
                _logger.warning("%s took a span only without its verdicts: %s", self._destination, error)
            return partial

    def close(self) -> None:
        """Close the other sender."""
        self._sender.close()
