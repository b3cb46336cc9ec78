"""A progress bar for work that turns out to be long, if somebody watches."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ProgressBar"]

_LONG = 1.0


class ProgressBar:
    """
    Shows up on standard error after a second, only on a terminal; a context manager.

    Args:
        label: What is done.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._is_watched = sys.stderr.isatty()
        self._started = time.monotonic()
        self._lock = threading.Lock()  # updates come from several threads
        self._bar: Any = None
        self._task: Any = None

    def update(self, done: int, total: int) -> None:
        """Say how much is done."""
        if not self._is_watched or time.monotonic() - self._started < _LONG:
            return
        with self._lock:
            if self._bar is None:
                self._start()
            bar: Any = self._bar
            bar.update(self._task, completed=done, total=total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_watched = False
        if self._bar is not None:
            self._bar.stop()

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._label)
        self._bar.start()
