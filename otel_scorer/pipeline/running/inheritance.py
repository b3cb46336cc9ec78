"""
What a scorer starts belongs to it: threads, and work that it gives to thread pools, go on in its context.

Python starts threads with an empty context, so that spans made there would be the application's: scored by the scorer,
which makes more of them, without end.
"""

from __future__ import annotations

import threading
from concurrent.futures import thread as pools
from contextvars import copy_context
from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from otel_scorer.pipeline.running.suppression import is_suppressed

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["inherit_context"]

P = ParamSpec("P")
T = TypeVar("T")

_MARK: Final = "__otel_scorer__"


def inherit_context() -> None:
    """
    Have threads and work for thread pools that a scorer starts inherit its context, from now on, in this process.

    Whatever else starts threads is as before. Calling it twice is fine.
    """
    start, submit = threading.Thread.start, pools.ThreadPoolExecutor.submit
    if not hasattr(start, _MARK):
        setattr(threading.Thread, "start", _starting(start))  # noqa: B010 - type checkers know no such assignment
    if not hasattr(submit, _MARK):
        setattr(pools.ThreadPoolExecutor, "submit", _submitting(submit))  # noqa: B010 - as above


def _starting(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @wraps(start)
    def start_below(self: threading.Thread) -> None:
        # The threads of a pool outlive the scorer that was the first to need them, and work for others.
        if not is_suppressed() or getattr(self, "_target", None) is _POOL_WORK:
            start(self)
            return
        context, run = copy_context(), self.run

        def run_below() -> None:
            vars(self).pop("run", None)  # or the thread would hold itself
            context.run(run)

        setattr(self, "run", run_below)  # noqa: B010 - as above
        try:
            start(self)
        except BaseException:
            if vars(self).get("run") is run_below:
                setattr(self, "run", run)  # noqa: B010 - as above; the next attempt finds the thread as it was
            raise

    setattr(start_below, _MARK, True)
    return start_below


def _submitting(submit: Callable[..., Future[T]]) -> Callable[..., Future[T]]:
    @wraps(submit)
    def submit_below(self: ThreadPoolExecutor, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if is_suppressed():
            return submit(self, copy_context().run, fn, *args, **kwargs)
        return submit(self, fn, *args, **kwargs)

    setattr(submit_below, _MARK, True)
    return submit_below


# What the threads of a pool run; it has no public name.
_POOL_WORK: Final[object] = getattr(pools, "_worker", None)
