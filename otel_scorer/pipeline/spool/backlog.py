"""Which rows of a spool wait to be taken up: from an id on, up to the last one that was left for later."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_scorer.errors import InvalidRequestError, OverloadedError, SpoolFullError, StoreError
from otel_scorer.model.wire import Signal, check_request, read_traces
from otel_scorer.transport.exchange import PartialSuccess

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from otel_scorer.stores.spool import Spool
    from otel_scorer.stores.spool_rows import SpooledRequest
    from otel_scorer.transport.log_limit import LogLimit

__all__ = ["Backlog", "BacklogState", "add_request", "check_waiting", "nobody", "take_up"]

logger = logging.getLogger(__name__)

_RETRY_AFTER: Final = 1.0  # seconds


class BacklogState(NamedTuple):
    """The first id that may wait, and the last one."""

    next: int
    last: int


class Backlog:
    """
    A range of ids, empty unless something waits. Whoever shares it guards it.

    Rows in the range that were handled meanwhile do no harm: whoever takes it up knows them, or finds them deleted.

    Args:
        last: Everything up to this id waits; 0: nothing does.
    """

    def __init__(self, last: int = 0) -> None:
        self.state = BacklogState(1, last)

    def __len__(self) -> int:
        """How many may wait."""
        return max(0, self.state.last - self.state.next + 1)

    def add(self, number: int) -> None:
        """Have a row wait."""
        first, last = self.state
        self.state = BacklogState(min(first, number), max(last, number)) if self else BacklogState(number, number)

    def advance(self, before: BacklogState, up_to: int, *, is_empty: bool) -> None:
        """
        Note what was taken up.

        Args:
            before: The range when that began; what was added since then still waits.
            up_to: The last id that was looked at.
            is_empty: There was no row at all: then whatever ids there are between, nothing waits.
        """
        if self.state == before and is_empty:
            self.state = BacklogState(1, 0)
        elif self.state.next == before.next:
            self.state = BacklogState(up_to + 1, self.state.last)


def take_up(backlog: Backlog, lock: threading.Lock, take: Callable[[int], tuple[int, bool]]) -> bool:
    """
    Take up a part of a backlog.

    Args:
        backlog: What waits.
        lock: Guards it; not held while anything is taken up.
        take: Given an id, takes up what comes behind; returns the last id that it looked at, and whether there was
            nothing at all.

    Returns:
        Whether something was taken up and more may wait.
    """
    with lock:
        if not backlog:
            return False
        state = backlog.state
    up_to, is_empty = take(state.next - 1)
    with lock:
        backlog.advance(state, up_to, is_empty=is_empty)
        return bool(backlog) and up_to >= state.next


def add_request(spool: Spool, signal: Signal, data: bytes, log_limit: LogLimit) -> int:
    """
    Write a request down and return its id.

    Raises:
        OverloadedError: There is no room for it now, or it cannot be written.
        RequestTooLargeError: There never is.
    """
    try:
        return spool.add(signal, data)
    except SpoolFullError as error:
        raise OverloadedError(str(error), retry_after=_RETRY_AFTER) from error
    except StoreError as error:
        if log_limit.allows("request"):
            logger.warning("%s", error)
        raise OverloadedError("Cannot write to the spool", retry_after=_RETRY_AFTER) from error


def check_waiting(signal: Signal, data: bytes) -> PartialSuccess | None:
    """Look at a request that will be handled later, and raise as handling it would."""
    try:
        check_request(signal, data)
    except InvalidRequestError:
        if signal is not Signal.TRACES:
            raise
        request = read_traces(data)
        return PartialSuccess(request.rejected, request.message)
    return None


def nobody(request: SpooledRequest) -> PartialSuccess | None:
    """Take up a request before there is anybody who can: its sender is to come again."""
    raise OverloadedError(f"Starting: request {request.id} waits")
