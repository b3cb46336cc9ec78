"""
For threads of an application: nothing here waits for what the thread itself, interrupted, may be holding.

A signal handler, a destructor or a log handler may call us while its thread is inside a call of ours already.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from otel_scorer.pipeline.running.suppression import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bell", "KnownLock", "elsewhere"]

T = TypeVar("T")


class Bell:
    """
    Ends the wait of one thread.

    Unlike `threading.Event`, it may be rung by a signal handler or a destructor that comes in between on a thread that
    is ringing it.
    """

    __slots__ = ("_rings",)

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """End the wait, or the next one if nobody waits now."""
        if self._rings.empty():
            self._rings.put(None)

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until somebody rings.

        Args:
            timeout: Seconds; None: for ever.

        Returns:
            Whether somebody did.
        """
        try:
            self._rings.get(timeout=timeout)
        except queue.Empty:
            return False
        return True


class KnownLock:
    """A lock that can tell whether the thread that asks holds it: what is called meanwhile must not wait for it."""

    __slots__ = ("_holder", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    @property
    def is_mine(self) -> bool:
        """Whether this thread holds it."""
        return self._holder == threading.get_ident()

    def acquire(self, timeout: float | None = None) -> bool:
        """Take it, within some seconds; 0: only if it is free. None: wait for ever."""
        is_taken = self._lock.acquire(blocking=False)
        if not is_taken and timeout != 0:
            is_taken = self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        if is_taken:
            self._holder = threading.get_ident()
        return is_taken

    def release(self) -> None:
        """Give it back."""
        self._holder = None
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_raised: object) -> None:
        self.release()


def elsewhere(call: Callable[[], T], timeout: float, name: str) -> T | None:
    """
    Have something done on a thread of ours, so that this one holds no lock.

    Args:
        call: What to do. Must not raise.
        timeout: Seconds to wait for it; it goes on after that.
        name: Of the thread.

    Returns:
        What it returned; None if it took longer.
    """
    answer: queue.SimpleQueue[T] = queue.SimpleQueue()

    def run() -> None:
        with suppressed():
            answer.put(call())

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # no new threads once the interpreter exits
        return call()
    with suppress(queue.Empty):
        return answer.get(timeout=max(0.0, timeout))
    return None
