"""A few threads that work, and more of them for as long as some wait for somebody else."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ElasticPool"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class ElasticPool(Executor):
    """
    An executor whose number of threads follows `resize`.

    More threads than work can use cost time, as they take turns; so there are few, until some of them are stuck.

    Args:
        threads: How many there are at least.
        maximum: And at most.
        name: Of the threads.
    """

    def __init__(self, threads: int, maximum: int, name: str) -> None:
        self._least = threads
        self._maximum = maximum
        self._name = name
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards what follows
        self._wanted = threads
        self._threads = 0
        self._closed = False

    @property
    def size(self) -> int:
        """How many threads there may be at the moment."""
        return self._wanted

    def submit(self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_R]:
        """
        Have a thread call `fn`.

        Raises:
            RuntimeError: The pool was shut down.
        """
        future: Future[_R] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._work.put((future, partial(fn, *args, **kwargs)))
            self._fill()
        return future

    def resize(self, threads: int) -> None:
        """Have this many threads, within the limits; those that are too many end when they are done."""
        with self._lock:
            self._wanted = min(max(self._least, threads), self._maximum)
            if not self._work.empty():
                self._fill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as declared
        """Take no more work; what waits is done, or dropped with `cancel_futures`. Does not wait for the threads."""
        del wait
        with self._lock:
            self._closed = True
            if cancel_futures:
                while not self._work.empty():
                    dropped = self._work.get()
                    if dropped is not None:
                        dropped[0].cancel()
            for _ in range(self._threads):
                self._work.put(None)

    def _fill(self) -> None:
        while self._threads < self._wanted:
            self._threads += 1
            threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            _do(*work)
            del work
            if self._threads > self._wanted:
                with self._lock:
                    if self._threads > self._wanted:
                        self._threads -= 1
                        return


def _do(future: Future[_R], call: Callable[[], _R]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the future's owner gets it, as from any executor
        future.set_exception(error)
