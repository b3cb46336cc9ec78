"""One process at a time in a folder: a lock that goes away with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FolderLock"]

_NAME: Final = "lock"


class FolderLock:
    """
    Holds a folder until `release`.

    Args:
        folder: It must be there.

    Raises:
        ConfigError: Another process holds it, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / _NAME
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"Cannot write to the spool {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Says who, to whoever comes second; the lock itself is not in what the file says.
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._file, 20, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise ConfigError(
                f"The spool {folder} is used by another process{f' ({holder})' if holder.isdigit() else ''}: "
                "each sidecar needs a folder of its own"
            ) from error
        except OSError as error:
            os.close(self._file)
            raise ConfigError(f"Cannot lock the spool {folder}: {error.strerror}") from error

    def renew(self) -> None:
        """
        Hold the folder again should it have been deleted and made anew.

        Raises:
            ConfigError: As when it was held first.
        """
        with suppress(FileNotFoundError):
            if os.path.samestat((self._folder / _NAME).stat(), os.fstat(self._file)):
                return
        other = FolderLock(self._folder)
        self.release()
        self._file = other._file

    def release(self) -> None:
        """Let others have it. Safe to call twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
