"""
Bytes that may be more than memory should hold: a few of them stay there, the others go to a file without a name.

The file is made in the folder for temporary files (`TMPDIR`) when it is needed, and is gone with what holds it, also if
the process is killed. Reading moves no position, so a forked process may read too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import weakref
from typing import TYPE_CHECKING, Final, Self

from otel_scorer.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Overflow"]

logger = logging.getLogger(__name__)

_MEMORY: Final = 8 * 1024 * 1024
# What goes to the file at a time, once there is one.
_BLOCK: Final = 1024 * 1024


class Overflow:
    """
    Bytes that are added at the end and read anywhere; one thread adds.

    Where no file can be written, everything stays in memory, as if there were no bound, and a warning is logged: what
    is kept here may have taken hours to find.

    Args:
        memory: Bytes that are kept in memory before there is a file.
    """

    def __init__(self, memory: int = _MEMORY) -> None:
        self._left = memory
        # What is not in the file: the end, or everything.
        self._tail = bytearray()
        self._written = 0
        self._file: int | None = None
        self._owner = os.getpid()
        self._is_refused = False

    def __len__(self) -> int:
        return self._written + len(self._tail)

    @property
    def on_disk(self) -> int:
        """Bytes that are in the file."""
        return self._written

    def append(self, data: bytes) -> int:
        """Add bytes and return where they begin."""
        begin = self._written + len(self._tail)
        self._tail += data
        if len(self._tail) > self._left and not self._is_refused:
            self._write()
        return begin

    def read(self, begin: int, size: int) -> bytes:
        """
        Return bytes that were added.

        Raises:
            StoreError: The file cannot be read.
        """
        if begin >= self._written:
            at = begin - self._written
            return bytes(self._tail[at : at + size])
        parts: list[bytes] = []
        end = min(begin + size, self._written)
        while begin < end:
            part = self._read_file(begin, end - begin)
            parts.append(part)
            begin += len(part)
            size -= len(part)
        if size:
            parts.append(bytes(self._tail[:size]))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_file(self, begin: int, size: int) -> bytes:
        try:
            part = os.pread(-1 if self._file is None else self._file, size, begin)
        except OSError as error:
            raise StoreError(f"Cannot read a temporary file again: {error.strerror}") from error
        if not part:
            raise StoreError("Cannot read a temporary file again: somebody has cut it off")
        return part

    def _write(self) -> None:
        if os.getpid() != self._owner:
            # A fork: its parent goes on with the file.
            self._refuse("it belongs to the process that this one was forked from")
            return
        try:
            if self._file is None:
                self._file = _nameless_file()
                # Not before the process ends: somebody may look at what is here until then.
                weakref.finalize(self, os.close, self._file).atexit = False
            with memoryview(self._tail) as data:
                done = 0
                while done < len(data):
                    done += os.pwrite(self._file, data[done:], self._written + done)
        except OSError as error:
            if self._file is not None:
                # A part may be written: it would fill the disk, for everybody, and nobody looks at it.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._written)
            self._refuse(error.strerror or str(error))
            return
        self._written += len(self._tail)
        self._left = _BLOCK
        self._tail = bytearray()

    def _refuse(self, why: str) -> None:
        self._is_refused = True
        logger.warning(
            "Cannot write a temporary file in %s (%s): what does not fit there stays in memory; TMPDIR names another "
            "folder",
            _folder(),
            why,
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        # What is there does not change.
        return self

    def __reduce__(self) -> tuple[Callable[[bytes], Overflow], tuple[bytes]]:
        return _restored, (self.read(0, len(self)),)


def _restored(data: bytes) -> Overflow:
    made = Overflow()
    for begin in range(0, len(data), _BLOCK):
        made.append(data[begin : begin + _BLOCK])
    return made


def _nameless_file() -> int:
    with tempfile.TemporaryFile(prefix="otel-scorer-", buffering=0) as file:
        return os.dup(file.fileno())


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "any folder"
