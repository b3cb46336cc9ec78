"""A file that is there to be deleted: room for what must still be written when a disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SpaceReserve"]

# Seconds between two tries to have it back.
_PAUSE: Final = 1.0


class SpaceReserve:
    """
    Takes up space until somebody needs it. Nothing here raises.

    Args:
        path: The file.
        size: Bytes.
        clock: Monotonic seconds.
    """

    def __init__(self, path: Path, size: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._size = size
        self._clock = clock
        self._due = clock()

    def have(self, *, now: bool = False) -> bool:
        """Make the file if it is not there, and it is time to or has to be now; return whether it is there."""
        if self._path.exists():
            return True
        if self._clock() < self._due and not now:
            return False
        self._due = self._clock() + _PAUSE
        try:
            with open(self._path, "xb", opener=_private) as file:
                # Where the system cannot set space aside, bytes do.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._size)
                else:
                    file.write(bytes(self._size))
        except FileExistsError:  # another thread was faster
            return True
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give the space away."""
        self._due = self._clock() + _PAUSE
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
