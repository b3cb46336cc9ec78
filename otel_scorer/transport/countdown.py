"""One call for many: whoever is told of parts, one by one and on any thread, tells somebody once of the whole."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_after"]


def call_after(times: int, done: Callable[[], None]) -> Callable[[], None]:
    """Return what calls `done` when it has been called so many times; at once if that is never."""
    if not times:
        done()
    lock = threading.Lock()
    left = times

    def count_down() -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            done()

    return done if times == 1 else count_down
