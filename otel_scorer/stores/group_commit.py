"""Transactions that threads share: whoever comes first writes for all that wait, and nobody waits for company."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from otel_scorer.stores.spool_rows import Figures

__all__ = ["GroupCommit", "Work"]


class Work:
    """
    What one thread wants written.

    Attributes:
        write: Writes it, in a transaction, and returns what changes with it.
        is_urgent: Whether it is still worth writing when all of a group cannot be.
        error: Why it was not written, once it was tried.
        is_done: Whether it was tried.
    """

    __slots__ = ("error", "is_done", "is_urgent", "write")

    def __init__(self, write: Callable[[sqlite3.Connection], Figures], *, is_urgent: bool = False) -> None:
        self.write = write
        self.is_urgent = is_urgent
        self.is_done = False
        self.error: sqlite3.Error | None = None


class GroupCommit:
    """
    Has works written in groups.

    Args:
        write_all: Writes a group, holding the lock; notes in each work why it could not.
        writing: The lock.
    """

    def __init__(self, write_all: Callable[[Sequence[Work]], None], writing: AbstractContextManager[bool]) -> None:
        self._write_all = write_all
        self._writing = writing
        self._waiting: list[Work] = []
        self._lock = threading.Lock()  # guards what waits

    def commit(self, work: Work) -> None:
        """Return when a work was written, or could not be: by this thread, or by one that took it along."""
        with self._lock:
            self._waiting.append(work)
        with self._writing:
            if work.is_done:
                return
            with self._lock:
                group, self._waiting = self._waiting, []
            try:
                self._write_all(group)
            except BaseException as error:
                # Whoever waits must not take silence for success.
                for each in group:
                    each.error = sqlite3.OperationalError(f"what was to be written with it failed: {error!r}")
                raise
            finally:
                for each in group:
                    each.is_done = True
