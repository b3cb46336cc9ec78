"""Gets one batch to one backend: retries, cuts it up where it is too large, and accounts for every item."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.errors import PermanentError, RetryableError, TooLargeError
from otel_scorer.model.splicing import split_request
from otel_scorer.model.wire import count_items
from otel_scorer.telemetry import count
from otel_scorer.transport.fallback_sender import BAD_REQUEST, FallbackSender
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.transport.dead_letters import DeadLetters
    from otel_scorer.transport.endpoints import Lane
    from otel_scorer.transport.exchange import PartialSuccess, Sender
    from otel_scorer.transport.retry import RetryPolicy

__all__ = ["Delivery", "Stopping"]

_logger = logging.getLogger(__name__)

_Part: TypeAlias = tuple[bytes, int]
"""An encoded request, and how many items it holds."""

# So many refusals of one batch are cut to find the bad items, enough for some five among thousands; and so many in a
# row, before the backend is taken to refuse everything until it takes something.
_MAX_SEARCHES: Final = 64
# Seconds between attempts while stopping, whatever the back-off or the backend says.
_HURRY: Final = 1.0
_SHUTDOWN: Final = "shutdown"
_NO_TIME: Final = "no time was left to send them"


class Stopping:
    """Tells the sending threads of a forwarder to hurry, and later to give up; what is spooled is not lost then."""

    def __init__(self, clock: Callable[[], float], *, is_spooled: bool = False) -> None:
        self._clock = clock
        self.is_spooled = is_spooled
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
        dead_letters: Where goes what is given up.
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
        dead_letters: DeadLetters | None = None,
        stopping: Stopping,
        clock: Callable[[], float],
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._sender = sender
        self.lane = lane
        self.destination = destination
        self._timeout = timeout
        self._request_size = request_size
        self._dead_letters = dead_letters
        self._stopping = stopping
        # One for all requests: it refers to itself, so each would stay until the garbage collector finds it.
        self._retrying = retry.attempts(
            clock=clock, sleep=sleep or stopping.sleep, stopped=stopping.expired.is_set, on_retry=self._on_retry
        )
        self._log_limit = LogLimit()
        self.gave_up = False
        """Whether anything was dropped because time ran out at shutdown."""
        self._lock = threading.Lock()  # guards the three that follow
        self._part: _Part | None = None
        self._pending: list[_Part] = []
        self._abandoned = False
        self._is_taken = False
        self._searches = 0
        self._fruitless = 0

    def deliver(self, data: bytes, items: int) -> bool:
        """
        Send a request that holds `items` items, and return when each of them was taken or dropped. Never raises.

        Returns:
            Whether the backend took any of it.
        """
        with self._lock:
            is_late = self._abandoned
            if not is_late:
                self._pending.append((data, items))
        if is_late:
            self.gave_up = True
            self.drop(data, items, _SHUTDOWN)
            return False
        self._is_taken = False
        self._searches = 0
        while (part := self._next()) is not None:
            try:
                self._deliver(*part)
            except Exception as error:  # noqa: BLE001 - a sender that breaks its promise must not end the thread
                self._give_up("internal", error)
        return self._is_taken

    def abandon(self) -> list[_Part]:
        """Return what is neither taken nor dropped, and leave it to the caller to account for."""
        with self._lock:
            self._abandoned = True
            left = [*self._pending, self._part]
            self._pending.clear()
            self._part = None
            found = [part for part in left if part is not None]
            self.gave_up |= bool(found)
            return found

    def drop(self, data: bytes, items: int, reason: str) -> None:
        """Account for a request that never got as far as being sent."""
        if self._count_dropped(data, items, reason, "it was not sent"):
            _logger.warning("Dropped %d %s for %s: %s", items, self.lane, self.destination, reason)

    def leave(self, parts: Sequence[_Part]) -> None:
        """Account for what time ran out for at shutdown, and say in one line how much that is."""
        for data, items in parts:
            self._count_dropped(data, items, _SHUTDOWN, "it was not sent")
        items = sum(items for _, items in parts)
        if items and not self._stopping.is_spooled:
            _logger.warning("Dropped %d %s for %s: %s", items, self.lane, self.destination, _NO_TIME)

    def _next(self) -> _Part | None:
        with self._lock:
            self._part = self._pending.pop() if self._pending else None
            return self._part

    def _deliver(self, data: bytes, items: int) -> None:
        if len(data) > self._request_size and self._cut(data):
            return
        try:
            partial = self._retrying(self._attempt, data)
        except PermanentError as error:
            if not (self._is_worth_cutting(error) and self._cut(data)) and not self._lighten(data, items, error):
                self._give_up("too_large" if isinstance(error, TooLargeError) else error.code, error)
        except RetryableError as error:
            expired = self._stopping.expired.is_set()
            self.gave_up |= expired
            self._give_up(_SHUTDOWN if expired else "retry_expired", error)
        else:
            self._took(items, partial)

    def _is_worth_cutting(self, error: PermanentError) -> bool:
        """
        Return whether a part of what was refused may be taken.

        One bad item has a backend refuse all that share its request, and they may come from many senders: so it is
        looked for, unless the backend seems to refuse everything, and not for ever.
        """
        if isinstance(error, TooLargeError):
            return True
        if error.code not in BAD_REQUEST:
            return False
        self._searches += 1
        self._fruitless += 1
        return max(self._searches, self._fruitless) <= _MAX_SEARCHES

    def _cut(self, data: bytes) -> bool:
        """Put both halves of a request in its place, unless it is down to one item."""
        halves = split_request(self.lane.signal, data)
        if halves is None:
            return False
        parts = [(half, count_items(self.lane.signal, half)) for half in reversed(halves)]
        with self._lock:
            if not self._abandoned:
                self._pending += parts
                self._part = None
        return True

    def _lighten(self, data: bytes, items: int, error: PermanentError) -> bool:
        """Put a request without verdicts in the place of one that was refused: no span may be lost for what we add."""
        if not isinstance(self._sender, FallbackSender):
            return False
        lighter = self._sender.lightened(data, error)
        if lighter is None:
            return False
        with self._lock:
            if not self._abandoned:
                self._pending.append((lighter, items))
                self._part = None
        return True

    def _attempt(self, part: bytes) -> PartialSuccess | None:
        return self._sender.send(self.lane.signal, part, self._stopping.limit(self._timeout))

    def _on_retry(self, error: RetryableError) -> None:
        count("forwarder.retries", lane=self.lane, destination=self.destination, code=error.code)
        if self._log_limit.allows("retry", error.code):
            _logger.warning("Will send %s again: %s", self.lane, error)

    def _took(self, items: int, partial: PartialSuccess | None) -> None:
        if self._settle() is None:
            return
        rejected = min(partial.rejected, items) if partial is not None else 0
        self._is_taken |= items > rejected
        self._fruitless = 0
        count("forwarder.sent", items - rejected, lane=self.lane, destination=self.destination)
        if partial is None:
            return
        count("forwarder.rejected", rejected, lane=self.lane, destination=self.destination)
        if self._log_limit.allows("partial"):
            _logger.warning(
                "%s rejected %d of %d %s: %s", self.destination, rejected, items, self.lane, partial.message[:300]
            )

    def _give_up(self, reason: str, error: Exception) -> None:
        """Drop what is being sent."""
        part = self._settle()
        if part is not None and self._count_dropped(*part, reason, str(error)):
            trace = error if reason == "internal" else None
            # The last error then is that of a connection which was closed to interrupt it.
            why = _NO_TIME if reason == _SHUTDOWN else error
            _logger.warning("Dropped %d %s for %s: %s", part[1], self.lane, self.destination, why, exc_info=trace)

    def _count_dropped(self, data: bytes, items: int, reason: str, message: str) -> bool:
        """Count what is lost and keep it in the file, if there is one. Return whether to log it."""
        if reason == _SHUTDOWN and self._stopping.is_spooled:
            if items:
                _logger.warning("%d %s for %s stay in the spool", items, self.lane, self.destination)
            return False
        count("forwarder.dropped", items, lane=self.lane, destination=self.destination, reason=reason)
        if self._dead_letters is not None:
            self._dead_letters.write_request(
                self.destination, reason, message, lane=self.lane, signal=self.lane.signal, data=data, items=items
            )
        return items > 0 and self._log_limit.allows(reason)

    def _settle(self) -> _Part | None:
        """Take what is being sent off the account; None if somebody else has accounted for it."""
        with self._lock:
            part, self._part = self._part, None
            return None if self._abandoned else part
