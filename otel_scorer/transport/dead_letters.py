"""What was given up on the way to a backend, in a file: one JSON line each, with the reason and with what was sent."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError, InvalidRequestError
from otel_scorer.model.otlp_json import encode_request
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.native_score import NativeScore

__all__ = ["DeadLetterFiles", "DeadLetters"]

_logger = logging.getLogger(__name__)

_MAX_SIZE: Final = 256 << 20


class DeadLetters:
    """
    Appends to a file that only its owner can read: it quotes what users said.

    Args:
        path: Made if it is not there.
        max_size: Bytes; what comes when the file is that large is counted and lost.
        now: Seconds since the epoch.

    Raises:
        ConfigError: The file cannot be opened for appending.
    """

    def __init__(self, path: str | Path, *, max_size: int = _MAX_SIZE, now: Callable[[], float] = time.time) -> None:
        try:
            self._file = open(  # noqa: SIM115 - stays open until close()
                path, "ab", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)
            )
        except OSError as error:
            raise ConfigError(f"Cannot write to {path}: {error.strerror}") from error
        self._path = path
        self._log_limit = LogLimit()
        self._max_size = max_size
        self._now = now
        self._lock = threading.Lock()  # one writer at a time, so that lines stay whole

    def write_scores(self, destination: str, reason: str, message: str, scores: Iterable[NativeScore]) -> None:
        """Append scores, one a line; a disk that is full costs them and nothing else."""
        for score in scores:
            about = self._about(destination, reason, message)
            about |= {"trace_id": score.trace_id, "span_id": score.span_id}
            self._append(json.dumps(about)[:-1].encode() + b', "body": ' + score.body + b"}\n", 1)

    def write_request(
        self, destination: str, reason: str, message: str, *, lane: str, signal: Signal, data: bytes, items: int
    ) -> None:
        """
        Append an encoded request of `items` items; likewise.

        The line is OTLP/JSON with a few keys more, which whoever reads OTLP/JSON ignores: it can be sent as it is.
        """
        about = self._about(destination, reason, message) | {"lane": lane, "items": items}
        try:
            request = encode_request(signal, data)
        except InvalidRequestError:
            count("dead_letters.lost", items, reason="invalid")
            return
        self._append(f"{json.dumps(about)[:-1]}, {request[1:]}\n".encode(), items)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._lock:
            self._file.close()

    def _about(self, destination: str, reason: str, message: str) -> dict[str, object]:
        return {
            "time": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds"),
            "destination": destination,
            "reason": reason,
            "message": message,
        }

    def _append(self, line: bytes, items: int) -> None:
        with self._lock:
            try:
                start = self._file.seek(0, os.SEEK_END)
                if start + len(line) > self._max_size:
                    lost = "full"
                elif self._file.write(line) == len(line):
                    return
                else:
                    # Half a line would spoil the next one too.
                    self._file.truncate(start)
                    lost = "io"
            except (OSError, ValueError):
                lost = "io"
        count("dead_letters.lost", items, reason=lost)
        if self._log_limit.allows(lost):
            _logger.warning("What was given up cannot be kept in %s (%s); reported once a minute", self._path, lost)


class DeadLetterFiles:
    """The files of all destinations: each is opened once, also where several share it."""

    def __init__(self) -> None:
        self._opened: dict[str, DeadLetters] = {}

    def open(self, path: str | None) -> DeadLetters | None:
        """
        Return the file; None if there is no path.

        Raises:
            ConfigError: The file cannot be opened for appending.
        """
        if path is None:
            return None
        if path not in self._opened:
            self._opened[path] = DeadLetters(path)
        return self._opened[path]

    def close(self) -> None:
        """Close all files. Safe to call twice."""
        for letters in self._opened.values():
            letters.close()
