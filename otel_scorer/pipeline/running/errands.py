"""
Threads for what coroutine scorers have done on threads (`asyncio.to_thread`, `run_in_executor`).

One that hangs is known to belong to its call, costs the others nothing, and does not keep the program from ending: the
pool that event loops have by themselves has few threads, and the interpreter waits for all of them when it exits.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ErrandThreads", "Errands"]

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 1024
_Work: TypeAlias = "tuple[Future[Any], Callable[[], Any]]"

_of_this_call: Final[ContextVar[Errands | None]] = ContextVar("otel_scorer_errands", default=None)


class Errands:
    """What a call of a scorer has given to threads. Knows nothing of the call: contexts that live long refer to it."""

    __slots__ = ("_lock", "_out", "_then")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out = 0
        self._then: Callable[[], object] | None = None

    def enter(self) -> None:
        """Have what this context gives to threads from now on counted here."""
        _of_this_call.set(self)

    def when_back(self, then: Callable[[], object]) -> bool:
        """Have something called, on any thread, once everything has come back; False: nothing is out."""
        with self._lock:
            if self._out:
                self._then = then
            return self._out > 0

    def begin(self) -> None:
        """Count one that goes out."""
        with self._lock:
            self._out += 1

    def end(self) -> None:
        """Count one that has come back."""
        with self._lock:
            self._out -= 1
            then = None if self._out else self._then
        if then is not None:
            then()


class ErrandThreads(ThreadPoolExecutor):
    """The default executor of an event loop; loops take no other kind. Its threads start when they are needed."""

    def __init__(self) -> None:
        super().__init__(_THREADS, "otel-scorer-errand")
        self._errands: SimpleQueue[_Work | None] = SimpleQueue()
        self._guard = threading.Lock()  # guards what follows
        self._living = 0
        self._unoccupied = 0
        self._is_over = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """
        Have a thread call `fn`, in the context of who submits it.

        Raises:
            RuntimeError: It was shut down, or the interpreter exits and allows no new threads.
        """
        future: Future[T] = Future()
        with self._guard:
            if self._is_over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._unoccupied <= 0 and self._living < _THREADS:
                # In an empty context: this thread will work for other scorers too.
                Context().run(threading.Thread(target=self._run, name="otel-scorer-errand", daemon=True).start)
                self._living += 1
            else:
                self._unoccupied -= 1
        errands = _of_this_call.get()
        if errands is not None:
            errands.begin()
            future.add_done_callback(lambda _future: errands.end())
        self._errands.put((future, partial(copy_context().run, partial(fn, *args, **kwargs))))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as declared
        """Take no more work. Does not wait for what is at work."""
        del wait, cancel_futures
        with self._guard:
            self._is_over = True
            for _ in range(self._living):
                self._errands.put(None)

    def _run(self) -> None:
        while (work := self._errands.get()) is not None:
            _do(*work)
            del work
            with self._guard:
                self._unoccupied += 1


def _do(future: Future[T], call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the future's owner gets it, as from any executor
        future.set_exception(error)
