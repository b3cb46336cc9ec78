"""Scores that were given up, in a file: one JSON line each, with the reason and with what the backend was sent."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from otel_scorer.transport.native_score import NativeScore

__all__ = ["DeadLetters"]

_MAX_SIZE: Final = 256 << 20


class DeadLetters:
    """
    Appends to a file that only its owner can read: explanations may quote what users said.

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
        self._max_size = max_size
        self._now = now
        self._lock = threading.Lock()  # one writer at a time, so that lines stay whole

    def write(self, destination: str, reason: str, message: str, scores: Iterable[NativeScore]) -> None:
        """Append scores; a disk that is full costs them and nothing else."""
        for score in scores:
            line = self._line(destination, reason, message, score)
            with self._lock:
                try:
                    if self._file.tell() + len(line) <= self._max_size:
                        self._file.write(line)
                        continue
                    lost = "full"
                except (OSError, ValueError):
                    lost = "io"
            count("native.dead_letters_lost", reason=lost)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        with self._lock:
            self._file.close()

    def _line(self, destination: str, reason: str, message: str, score: NativeScore) -> bytes:
        about = {
            "time": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds"),
            "destination": destination,
            "reason": reason,
            "message": message,
            "trace_id": score.trace_id,
            "span_id": score.span_id,
        }
        return json.dumps(about)[:-1].encode() + b', "body": ' + score.body + b"}\n"
