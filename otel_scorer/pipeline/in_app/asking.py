"""
Questions about units from the application's threads, answered on ours.

Who asks waits for a queue of its own and takes no lock, so that a signal handler may ask while its thread asks already.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from otel_scorer.pipeline.in_app.intake import Ask
from otel_scorer.pipeline.running.suppression import is_suppressed

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from otel_scorer.pipeline.in_app.intake import SpanIntake
    from otel_scorer.pipeline.running.reentrancy import KnownLock

__all__ = ["Answer", "Desk", "Watched"]

T = TypeVar("T")

Answer: TypeAlias = "queue.SimpleQueue[T]"
"""What an answer comes by."""

# Seconds after which who waits looks whether there is still a thread of ours to answer.
_LOOK: Final = 1.0


@dataclass(slots=True, eq=False)
class Watched:
    """
    Somebody waits for something to become true.

    Attributes:
        look: Returns the answer, or None as long as there is none.
        answer: What it goes into.
        deadline: When nobody waits any more.
        finish: Is called before the answer is given.
    """

    look: Callable[[], Any]
    answer: Answer[Any]
    deadline: float
    finish: Callable[[], None] | None = None


class Desk:
    """
    Takes questions to the thread that looks at spans, and answers them once there is an answer.

    Args:
        intake: Where questions queue up, behind the spans that came before them.
        lock: What that thread holds.
        busy: What whoever does work of ours holds, on the application's threads too.
        decided: What is held, after `lock`, while `Watched.look` is called.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        intake: SpanIntake,
        lock: KnownLock,
        busy: KnownLock,
        decided: threading.Lock,
        clock: Callable[[], float],
    ) -> None:
        self._intake = intake
        self._lock = lock
        self._busy = busy
        self._decided = decided
        self._clock = clock
        self._watched: list[Watched] = []  # guarded by `decided`
        self.server: threading.Thread | None = None
        """The thread that looks at spans, once it was started."""

    def ask(self, do: Callable[[float, Answer[T]], None], timeout: float) -> T | None:
        """
        Have something done and wait for the answer.

        Args:
            do: Is called on the thread that looks at spans, with the time and with what the answer is to be put into.
            timeout: Seconds.

        Returns:
            The answer. None: it took longer; or this thread is one of ours, below a scorer, or was interrupted in the
            middle of our work, so that it would wait for itself.
        """
        if is_suppressed() or self._lock.is_mine or self._busy.is_mine:
            return None
        answer: Answer[T] = queue.SimpleQueue()
        deadline = self._clock() + timeout
        self.leave(lambda now: do(now, answer))
        while True:
            if self.server is None or not self.server.is_alive():
                self.serve(deadline)
            left = deadline - self._clock()
            try:
                return answer.get(timeout=max(0.0, min(left, _LOOK)))
            except queue.Empty:
                if left <= 0:
                    return None

    def leave(self, do: Callable[[float], None]) -> None:
        """Have something done on the thread that looks at spans."""
        self._intake.pending.append(Ask(do))
        self._intake.ring()

    def serve(self, until: float) -> None:
        """Do the work of that thread until some time, where it does not run."""
        if self._lock.acquire(max(0.0, until - self._clock())):
            try:
                self._intake.drain(until)
            finally:
                self._lock.release()
            self._intake.finish()
            self.answer(0)

    def watch(self, watched: Watched) -> None:
        """Answer as soon as there is an answer."""
        with self._decided:
            self._watched.append(watched)
        self.answer(0)

    def answer(self, patience: float | None = None) -> None:
        """
        Give the answers that there are by now.

        Args:
            patience: Seconds to wait for the lock; if it is not to be had, the thread that looks at spans sees to it.
        """
        if not self._watched:
            return
        if not self._lock.acquire(patience):
            self._intake.ring()
            return
        found: list[tuple[Watched, object]] = []
        left: list[Watched] = []
        try:
            now = self._clock()
            with self._decided:
                for watched in self._watched:
                    answer = watched.look()
                    if answer is not None:
                        found.append((watched, answer))
                    elif watched.deadline > now:
                        left.append(watched)
                self._watched = left
        finally:
            self._lock.release()
        for watched, answer in found:
            if watched.finish is not None:
                watched.finish()
            watched.answer.put(answer)
