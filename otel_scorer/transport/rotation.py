"""What is made from files that others replace while we run: certificates and credentials."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from otel_scorer.errors import ConfigError
from otel_scorer.telemetry import count
from otel_scorer.transport.exchange import RELOAD_INTERVAL
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["FromFiles"]

_logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")
_Signature = tuple[tuple[int, int, int], ...]


class FromFiles(Generic[_Made]):
    """
    A value that is made anew when its files have changed. Thread-safe.

    Nothing runs in the background: whoever needs the value has the files looked at, once per interval. What cannot be
    read, such as a certificate whose key is not written yet, changes nothing: the last good value stays, and the next
    look tries again.

    Args:
        what: For log lines and self-metrics, such as `grpc certificates`.
        paths: The files. None: the value stays as it is.
        make: Makes the value from them.
        interval: Seconds between two looks at the files; 0: they are read once.
        clock: Seconds.

    Raises:
        ConfigError: The value cannot be made to begin with.
    """

    def __init__(
        self,
        what: str,
        paths: Iterable[Path | None],
        make: Callable[[], _Made],
        *,
        interval: float = RELOAD_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what = what
        self._paths = tuple(path for path in paths if path is not None)
        self._make = make
        self._interval = interval
        self._clock = clock
        self._log_limit = LogLimit()
        self._lock = threading.Lock()  # guards what follows
        # Before the value: files that change while it is made are seen as changed.
        self._signature = self._sign()
        self._value = make()
        self._next_look = clock() + interval

    def current(self) -> _Made:
        """Return the value; another object than before if the files have changed."""
        if not self._interval or not self._paths:
            return self._value
        with self._lock:
            now = self._clock()
            if now >= self._next_look:
                self._next_look = now + self._interval
                self._look()
            return self._value

    def _look(self) -> None:
        signature = self._sign()
        if signature == self._signature:
            return
        try:
            self._value = self._make()
        except ConfigError as error:
            count("files.reloads", what=self._what, outcome="refused")
            if self._log_limit.allows():
                _logger.error("The %s stay as they are, since the new ones cannot be used: %s", self._what, error)  # noqa: TRY400 - the message says all
            return
        self._signature = signature
        count("files.reloads", what=self._what, outcome="taken")
        _logger.info("The %s have changed and were read anew", self._what)

    def _sign(self) -> _Signature | None:
        """Return what changes with the contents of the files; None while one of them is not there."""
        try:
            states = [path.stat() for path in self._paths]
        except OSError:
            return None
        return tuple((state.st_mtime_ns, state.st_ino, state.st_size) for state in states)
