"""When a running sidecar takes other scorers: on request, or when something that is looked at regularly has changed."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["POLL_INTERVAL", "Reloader"]

logger = logging.getLogger(__name__)

POLL_INTERVAL: Final = 0.5
"""Seconds between two looks at the revision."""


class Reloader:
    """
    Calls `reload` on a thread of its own, one call after the other: starting workers may take a while.

    Requests that come while one is served are served together by the next.
    """

    def __init__(self, reload: Callable[[bool], None], revision: Callable[[], int] | None = None) -> None:
        """
        Nothing runs before `start`.

        Args:
            reload: What to do; told whether somebody asked for it. If it raises, that is logged.
            revision: Asked every `POLL_INTERVAL` seconds: another number than before is a reason, too.
        """
        self._reload = reload
        self._revision = revision
        self._seen: int | None = None
        self._is_blind = False
        self._changed = threading.Condition()  # guards the two flags; notified when one of them is set
        self._requested = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="otel-scorer-reloader", daemon=True)

    def start(self, seen: int | None = None) -> None:
        """Begin to wait for requests. `seen`: the revision that is in place."""
        self._seen = seen
        self._thread.start()

    def request(self) -> None:
        """Have `reload` called soon, and not before this call."""
        with self._changed:
            self._requested = True
            self._changed.notify_all()

    def shutdown(self, timeout: float) -> bool:
        """Serve no more requests and return whether the last one was finished within so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (requested := self._wait()) is not None:
            try:
                self._reload(requested)
            except Exception:
                # Whatever is wrong this time, the next request must still be served.
                logger.exception("Cannot take other scorers; those before them go on")

    def _wait(self) -> bool | None:
        """Wait for something to do and return whether somebody asked for it; None at the end."""
        interval = None if self._revision is None else POLL_INTERVAL
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requested or self._stopping, interval)
                if self._stopping:
                    return None
                requested, self._requested = self._requested, False
            # Looked at before it is served: what changes meanwhile is served next.
            revision = self._look()
            if requested or revision != self._seen:
                self._seen = revision
                return requested

    def _look(self) -> int | None:
        if self._revision is None:
            return self._seen
        try:
            revision = self._revision()
        except Exception:
            if not self._is_blind:
                self._is_blind = True
                logger.exception("Cannot see whether registered scorers have changed")
            return self._seen
        self._is_blind = False
        return revision
