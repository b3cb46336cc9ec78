"""Gets one batch to one backend: retries, cuts it up where it is too large, and accounts for every item."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import PermanentError, RetryableError, TooLargeError
from otel_scorer.model.wire import count_items, split_request
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.transport.endpoints import Lane
    from otel_scorer.transport.exchange import PartialSuccess, Sender
    from otel_scorer.transport.retry import RetryPolicy

__all__ = ["Delivery", "Stopping"]

_logger = logging.getLogger(__name__)

# Seconds between attempts while stopping, whatever the back-off or the backend says.
_HURRY: Final = 1.0


class Stopping:
    """Tells the sending threads of a forwarder to hurry, and later to give up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadline = 0.0
        self.closing = threading.Event()
        self.expired = threading.Event()

    def begin(self, timeout: float) -> None:
        """Wake whoever waits for a retry: there are `timeout` seconds left."""
        self._deadline = self._clock() + timeout
        self.closing.set()

    def sleep(self, seconds: float) -> None:
        """Wait; less when stopping begins or has begun, as there may be no later, and no longer once the time is up."""
        if self.closing.is_set():
            self.expired.wait(min(seconds, _HURRY))
        else:
            self.closing.wait(seconds)

    def limit(self, timeout: float) -> float:
        """Return how long an attempt may take that usually may take `timeout` seconds."""
        if not self.closing.is_set():
            return timeout
        return min(timeout, max(0.1, self._deadline - self._clock()))


class Delivery:
    """
    The way of one lane to one destination; one batch at a time.

    Args:
        sender: Talks to the backend.
        lane: What is sent.
        destination: Its name.
        retry: When to try again.
        timeout: Seconds for one attempt.
        request_size: Bytes over which a request is cut before it is sent.
        stopping: Shared with the owner, who ends the retries at shutdown.
        clock: Monotonic seconds.
        sleep: Instead of waiting in real time.
    """

    def __init__(
        self,
        sender: Sender,
        lane: Lane,
        destination: str,
        *,
        retry: RetryPolicy,
        timeout: float,
        request_size: int,
        stopping: Stopping,
        clock: Callable[[], float],
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._sender = sender
        self.lane = lane
        self.destination = destination
        self._retry = retry
        self._timeout = timeout
        self._request_size = request_size
        self._stopping = stopping
        self._clock = clock
        self._sleep = sleep or stopping.sleep
        self._log_limit = LogLimit()
        self.gave_up = False
        """Whether anything was dropped because time ran out at shutdown."""
        self._outstanding = 0
        self._is_taken = False
        self._abandoned = False
        self._lock = threading.Lock()  # guards _outstanding and _abandoned

    def deliver(self, data: bytes, items: int) -> bool:
        """
        Send a request that holds `items` items, and return when each of them was taken or dropped. Never raises.

        Returns:
            Whether the backend took any of it.
        """
        with self._lock:
            self._outstanding = items
        self._is_taken = False
        try:
            self._deliver_parts(data, items)
        except Exception as error:  # noqa: BLE001 - a sender that breaks its promise must not end the thread
            self._drop(self._outstanding, "internal", error)
        return self._is_taken

    def abandon(self) -> int:
        """Return how many items are neither taken nor dropped, and leave them to the caller to account for."""
        with self._lock:
            self._abandoned = True
            return self._outstanding

    def drop(self, items: int, reason: str) -> None:
        """Count items that never got as far as being sent."""
        count("forwarder.dropped", items, lane=self.lane, destination=self.destination, reason=reason)
        if items and self._log_limit.allows(reason):
            _logger.warning("Dropped %d %s for %s: %s", items, self.lane, self.destination, reason)

    def _deliver_parts(self, data: bytes, items: int) -> None:
        pending = [(data, items)]
        while pending:
            part, items = pending.pop()
            if len(part) > self._request_size and self._cut(part, pending):
                continue
            try:
                partial = self._attempts(part)
            except TooLargeError as error:
                if not self._cut(part, pending):
                    self._drop(items, "too_large", error)
            except PermanentError as error:
                self._drop(items, error.code, error)
            except RetryableError as error:
                expired = self._stopping.expired.is_set()
                self.gave_up |= expired
                self._drop(items, "shutdown" if expired else "retry_expired", error)
            else:
                self._took(items, partial)

    def _cut(self, part: bytes, pending: list[tuple[bytes, int]]) -> bool:
        """Put both halves of a request in its place, unless it is down to one item."""
        halves = split_request(self.lane.signal, part)
        if halves is None:
            return False
        pending += ((half, count_items(self.lane.signal, half)) for half in reversed(halves))
        return True

    def _attempts(self, part: bytes) -> PartialSuccess | None:
        retrying = self._retry.attempts(
            clock=self._clock, sleep=self._sleep, stopped=self._stopping.expired.is_set, on_retry=self._on_retry
        )
        return retrying(self._attempt, part)

    def _attempt(self, part: bytes) -> PartialSuccess | None:
        return self._sender.send(self.lane.signal, part, self._stopping.limit(self._timeout))

    def _on_retry(self, error: RetryableError) -> None:
        count("forwarder.retries", lane=self.lane, destination=self.destination, code=error.code)
        if self._log_limit.allows("retry", error.code):
            _logger.warning("Will send %s again: %s", self.lane, error)

    def _took(self, items: int, partial: PartialSuccess | None) -> None:
        if not self._settle(items):
            return
        rejected = min(partial.rejected, items) if partial is not None else 0
        self._is_taken |= items > rejected
        count("forwarder.sent", items - rejected, lane=self.lane, destination=self.destination)
        if partial is None:
            return
        count("forwarder.rejected", rejected, lane=self.lane, destination=self.destination)
        if self._log_limit.allows("partial"):
            _logger.warning(
                "%s rejected %d of %d %s: %s", self.destination, rejected, items, self.lane, partial.message[:300]
            )

    def _drop(self, items: int, reason: str, error: Exception) -> None:
        if not self._settle(items):
            return
        count("forwarder.dropped", items, lane=self.lane, destination=self.destination, reason=reason)
        if self._log_limit.allows(reason):
            trace = error if reason == "internal" else None
            _logger.warning("Dropped %d %s for %s: %s", items, self.lane, self.destination, error, exc_info=trace)

    def _settle(self, items: int) -> bool:
        """Take items off the account; False if somebody else has accounted for them."""
        with self._lock:
            self._outstanding -= items
            return not self._abandoned
