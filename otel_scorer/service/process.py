"""The sidecar as a process: signals, the line that says it is ready, and how memory is used."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import queue
import signal
import time
from typing import TYPE_CHECKING, Final

from otel_scorer.pipeline.workers.memory_use import keep_freed
from otel_scorer.service.sidecar import Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.config import Config

__all__ = ["run"]

logger = logging.getLogger(__name__)

_SIGNAL_INTERVAL: Final = 0.25


def run(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """
    Run the sidecar until SIGTERM or SIGINT, then drain; a second signal ends it at once.

    Prints one line that begins with `ready` and names the bound addresses once it accepts. SIGHUP has the configuration
    and the scorers read again.

    Args:
        config: How it works.
        reread: Reads the configuration again.

    Returns:
        The exit code: 0 after a complete drain, 1 if something was left behind.

    Raises:
        ConfigError: It cannot start.
    """
    _tune_memory()
    # Not an Event: a handler that interrupts its own thread inside `Event.wait` would wait for a lock that it holds.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    stopping: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        del frame
        if number != signal.SIGHUP:
            if stopping:
                os._exit(128 + number)
            stopping.append(number)
        signals.put(number)

    service = Service(config, reread)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    bound = service.start()
    gc.freeze()
    print("ready " + " ".join(f"{name}={address}" for name, address in bound.items()), flush=True)  # noqa: T201
    while not stopping:
        # The kernel may hand a signal to any thread, and only this one runs handlers: it must not sleep for ever.
        with contextlib.suppress(queue.Empty):
            if signals.get(timeout=_SIGNAL_INTERVAL) == signal.SIGHUP:
                service.request_reload()
    logger.info("Draining: open traces are scored and sent")
    started = time.monotonic()
    clean = service.shutdown()
    logger.info("Stopped after %.1f s%s", time.monotonic() - started, "" if clean else ", with something left behind")
    return 0 if clean else 1


def _tune_memory() -> None:
    """
    Tell the C library to keep what it was given, and the garbage collector to look less often.

    The page faults of requests that come and go would be a third of all CPU, measured. Threads with heaps of their own,
    which grow by a page at a time, would cost another tenth. Spans are freed by reference count; the collector only has
    cycles to find, and looking through what is buffered again and again costs a tenth, and the longest pauses. Hardly
    anything here leaves cycles.
    """
    gc.set_threshold(1_000_000, 50, 100)
    keep_freed(128 << 20, apart=32 << 20, step=16 << 20, heaps=1)
