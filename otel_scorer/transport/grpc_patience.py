# pyright: basic
"""Calls whose message does not come: gRPC has no limit for them, and each one occupies a thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import grpc

from otel_scorer.transport.elastic_pool import ElasticPool

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Patience"]

_TICK: Final = 0.05
_IDLE_TICK: Final = 0.2  # while nobody waits
# Most messages are there at once. Others keep their threads from those who come after them.
_STUCK: Final = 0.05
_MAX_THREADS: Final = 128
# When there are no more threads to be had.
_SHORT_TIMEOUT: Final = 1.0


class Patience:
    """
    Waits for messages: with more threads while some clients are slow, and not for ever.

    Args:
        threads: How many there are while nobody is slow.
        timeout: Seconds for a message to come.
    """

    def __init__(self, threads: int, timeout: float) -> None:
        self.pool = ElasticPool(threads, _MAX_THREADS, "otel-scorer-grpc-receiver")
        """For the gRPC server."""
        self._threads = threads
        self._timeout = timeout
        self._waiting: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._lock = threading.Lock()  # guards _waiting
        self._stopping = threading.Event()
        self._timer = threading.Thread(target=self._run, name="otel-scorer-grpc-patience", daemon=True)

    def start(self) -> None:
        """Begin to look at the time."""
        self._timer.start()

    def stop(self) -> None:
        """Drop what waits for a thread, and end no more calls. Safe to call twice, and without `start`."""
        self._stopping.set()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def message_of(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
        """Return the message of a call that has one; None if there is none, or nobody waits for an answer any more."""
        key = id(context)
        with self._lock:
            self._waiting[key] = time.monotonic(), context
        try:
            return next(messages, None)
        except grpc.RpcError:
            return None
        finally:
            with self._lock:
                del self._waiting[key]

    def _run(self) -> None:
        tick = _TICK
        while not self._stopping.wait(tick):
            now = time.monotonic()
            with self._lock:
                waiting = [(now - since, context) for since, context in self._waiting.values()]
            tick = _TICK if waiting else _IDLE_TICK
            stuck = sum(waited > _STUCK for waited, _ in waiting)
            timeout = self._timeout if stuck < _MAX_THREADS else min(_SHORT_TIMEOUT, self._timeout)
            for waited, context in waiting:
                if waited > timeout:
                    _cancel(context)
            # As many to come may be slow as well.
            self.pool.resize(self._threads + 2 * stuck)


def _cancel(context: grpc.ServicerContext) -> None:
    context.cancel()  # type: ignore[no-untyped-call]  # gRPC's stubs leave it out
