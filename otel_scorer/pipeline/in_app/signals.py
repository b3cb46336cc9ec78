"""SIGTERM ends a Python program at once, with everything that was not exported; this makes it wait for that."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["finish_on_sigterm"]


def finish_on_sigterm(finish: Callable[[bool], None]) -> None:
    """
    Have something finished before SIGTERM does what it would have done.

    A second SIGTERM does not wait. To be called on the main thread.

    Args:
        finish: Is called on a thread of its own: what the signal interrupts may hold any lock. The argument tells
            whether the program ends right after, or a handler of the application's sees to that.

    Raises:
        ValueError: This is not the main thread.
    """
    before = signal.getsignal(signal.SIGTERM)
    is_the_end = before == signal.SIG_DFL

    def then_end() -> None:
        finish(is_the_end)
        os.kill(os.getpid(), signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        with suppress(RuntimeError):  # no new threads once the interpreter exits
            threading.Thread(target=then_end, name="otel-scorer-sigterm", daemon=True).start()
            return
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_sigterm)
