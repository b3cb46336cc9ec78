"""What leaves the open units of an application, on its way to the exporter and the scorers, without their lock."""

from __future__ import annotations

import logging
import sys
from collections import deque
from typing import TYPE_CHECKING

from otel_scorer.pipeline.in_app.waiting import WaitingUnit
from otel_scorer.pipeline.running.reentrancy import KnownLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Outbox"]

logger = logging.getLogger(__name__)


class Outbox:
    """
    Keeps the order in which things leave.

    Args:
        send: Takes a span to export.
        submit: Takes a closed unit to score.
    """

    def __init__(self, send: Callable[[ReadableSpan], None], submit: Callable[[WaitingUnit], None]) -> None:
        self._send = send
        self._submit = submit
        self._items: deque[ReadableSpan | WaitingUnit | Callable[[], None]] = deque()
        self.put = self._items.append
        """Puts in a span, a unit, or what is to be done after everything before it."""
        self.busy = KnownLock()
        """Held by who hands out."""

    def hand_out(self, most: int = sys.maxsize) -> None:
        """Send and submit what is there, so much of it at most: one thread at a time, so in order. Others go on."""
        left = most
        while left > 0 and self._items and self.busy.acquire(0):
            try:
                while left > 0 and self._items:
                    left -= 1
                    item = self._items.popleft()
                    if isinstance(item, WaitingUnit):
                        self._submit(item)
                    elif callable(item):
                        item()
                    else:
                        self._send(item)
            except Exception:  # whatever it was, the others must leave
                logger.exception("A span or a trace could not be handed on")
            finally:
                self.busy.release()
