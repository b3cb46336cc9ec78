"""Senders that need no backend: OTLP/JSON lines to a file, like the Collector's file exporter, or to a screen."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from otel_scorer.errors import ConfigError, InvalidRequestError, PermanentError, RetryableError
from otel_scorer.model.otlp_json import encode_request

if TYPE_CHECKING:
    from typing import TextIO

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.exchange import PartialSuccess

__all__ = ["ConsoleSender", "FileSender"]


class FileSender:
    """
    Appends each request as one line; a line is in the file, whole, when `send` returns.

    Args:
        path: Created if it is not there.

    Raises:
        ConfigError: The file cannot be opened for appending.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - stays open until close()
        except OSError as error:
            raise ConfigError(f"Cannot write to {path}: {error.strerror}") from error
        self._lock = threading.Lock()  # one writer at a time, so that lines stay whole

    def send(self, signal: Signal, data: bytes, timeout: float) -> PartialSuccess | None:
        """Append one request; a disk has no time limit."""
        del timeout
        line = memoryview(_encode(signal, data).encode() + b"\n")
        with self._lock:
            if self._file.closed:
                raise PermanentError("The file is closed", code="closed")
            start = self._file.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[self._file.write(line) or 0 :]
            except OSError as error:
                # Half a line would spoil the next one too.
                with contextlib.suppress(OSError):
                    self._file.truncate(start)
                raise RetryableError(f"Cannot write to {self._file.name}: {error.strerror}", code="io") from error
        return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


class ConsoleSender:
    """Prints each request as one line, to standard output unless told otherwise."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._any_text = (self._stream.encoding or "utf-8").lower().startswith("utf")
        self._lock = threading.Lock()  # one writer at a time, so that lines stay whole

    def send(self, signal: Signal, data: bytes, timeout: float) -> PartialSuccess | None:
        """Print one request."""
        del timeout
        line = _encode(signal, data)
        if not self._any_text:
            line = "".join(char if char.isascii() else json.dumps(char)[1:-1] for char in line)
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError) as error:
                raise PermanentError(f"Cannot print: {error}", code="io") from error
        return None

    def close(self) -> None:
        """Do nothing: the stream is not ours."""


def _encode(signal: Signal, data: bytes) -> str:
    try:
        return encode_request(signal, data)
    except InvalidRequestError as error:
        raise PermanentError(str(error), code="invalid") from error
