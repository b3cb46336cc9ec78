"""
The event loop of a scorer worker: coroutine scorers run on it together, on a thread of its own.

Each step of a coroutine is a heartbeat, as each call of a function scorer is: one that blocks the loop, or ends the
process, is told apart from those that only wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from asyncio.tasks import _unregister_task as hide  # pyright: ignore[reportPrivateUsage]
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.scorers.results import error_feedback

if TYPE_CHECKING:
    from otel_scorer.pipeline.running.runner import Invocation
    from otel_scorer.pipeline.running.selection import Choice
    from otel_scorer.pipeline.workers.protocol import Heartbeat

__all__ = ["HIGH_DESCRIPTOR", "OnDecisions", "WorkerLoop"]

HIGH_DESCRIPTOR: Final = 200
"""What a worker needs is moved up here: programs that tidy up close the first descriptors, whoever they belong to."""

_THREADS: Final = 1024
# Seconds that a coroutine has to end after it was cancelled; connections are closed in them, say.
_UNWINDING: Final = 5.0

OnDecisions: TypeAlias = Callable[[int, int, Sequence[Decision]], None]
"""Takes a job's id, a scorer's index, and all decisions of that scorer on that job; may block for a while."""


class WorkerLoop:
    """
    Runs coroutine scorers. `start` before the first job; it ends with the process.

    Args:
        heartbeat: Where the step that runs is written down.
        on_decisions: Takes what was decided, on a thread of the loop's.
        concurrency: Calls of `concurrent` scorers at the same time; of any other scorer one call runs.
    """

    def __init__(self, heartbeat: Heartbeat, on_decisions: OnDecisions, concurrency: int) -> None:
        self._heartbeat = heartbeat
        self._on_decisions = on_decisions
        self._loop = _make_loop()
        # A call that hangs in a thread keeps it after its timeout: the others must still find one.
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "otel-scorer-thread"))
        self._slots = asyncio.Semaphore(concurrency)
        # Of our own: scorers may keep all threads of the loop's default executor busy.
        self._messenger = ThreadPoolExecutor(1, "otel-scorer-messenger")
        self._open: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        """Start the loop."""
        threading.Thread(target=self._run, name="otel-scorer-loop", daemon=True).start()

    def submit(self, job_id: int, index: int, choices: Sequence[Choice]) -> None:
        """Have a scorer's calls about one job made."""
        self._loop.call_soon_threadsafe(self._score, job_id, index, choices)

    def leave_to_parent(self) -> None:
        """In a process that a scorer has forked: see `Heartbeat.leave_to_parent`."""
        self._heartbeat.leave_to_parent()

    def _run(self) -> None:
        context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
        asyncio.set_event_loop(self._loop)
        while not self._loop.is_closed():
            # Again and again: a scorer may stop the loop, which is not its own, and what a task of its raises may end
            # it: SystemExit and KeyboardInterrupt do.
            with contextlib.suppress(BaseException):
                self._loop.run_forever()
        # Nothing more can be done here, and nobody can say who has closed the loop: what is open runs elsewhere.
        os._exit(1)

    def _score(self, job_id: int, index: int, choices: Sequence[Choice]) -> None:
        # Not a task itself, which a scorer could cancel: whatever becomes of the calls, there is a decision for each.
        calls = [
            self._loop.create_task(self._decide(job_id, index, target, choice)) for target, choice in enumerate(choices)
        ]
        for call in calls:
            # A scorer that tidies up with `asyncio.all_tasks` shall not find the calls of others there.
            hide(call)
        every = asyncio.gather(*calls, return_exceptions=True)
        self._open.add(every)
        every.add_done_callback(partial(self._finish, job_id, index, choices))

    def _finish(
        self,
        job_id: int,
        index: int,
        choices: Sequence[Choice],
        every: asyncio.Future[list[Decision | BaseException]],
    ) -> None:
        self._open.discard(every)
        results: Sequence[Decision | BaseException]
        try:
            results = every.result()
        except BaseException as error:  # noqa: BLE001 - a cancellation, which was not ours
            results = [error] * len(choices)
        decisions = [
            found if isinstance(found, Decision) else _failed(choice, found)
            for choice, found in zip(choices, results, strict=True)
        ]
        self._messenger.submit(self._on_decisions, job_id, index, decisions)

    async def _decide(self, job_id: int, index: int, target: int, choice: Choice) -> Decision:
        if isinstance(choice, Decision):
            return choice
        call = _Stepwise(choice, self._heartbeat, job_id, index, target)
        try:
            # Whoever waits for the scorer's turn must not keep a slot from other scorers.
            if choice.prepared.turn is not None:
                return await call
            async with self._slots:
                return await call
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, and the loop must go on
            return _failed(choice, error)


def _make_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that does not live on the first descriptors: see `HIGH_DESCRIPTOR`."""
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):  # there may not be as many
            while not taken or taken[-1] < HIGH_DESCRIPTOR:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        return asyncio.new_event_loop()
    finally:
        for descriptor in taken:
            os.close(descriptor)


def _failed(choice: Choice, error: BaseException) -> Decision:
    if isinstance(choice, Decision):
        return choice
    feedback = error_feedback(choice.prepared.name, error)
    return choice.decide(Outcome.FAILED, f"{type(error).__name__}: {feedback.error_message}", feedback)


class _Stepwise:
    """
    Awaits a call, with a heartbeat around each of its steps.

    A call that does not end although it was cancelled when its time was over keeps its turn for ever. So it is made one
    that blocks the loop, about which the sidecar knows what to do.
    """

    __slots__ = ("_beat", "_call", "_heartbeat", "_watch")

    def __init__(self, call: Invocation, heartbeat: Heartbeat, job_id: int, index: int, target: int) -> None:
        self._call = call
        self._heartbeat = heartbeat
        self._beat = job_id, index, target
        self._watch: asyncio.TimerHandle | None = None

    def _begin(self) -> None:
        timeout = self._call.prepared.timeout
        if timeout is not None:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(timeout + _UNWINDING, self._block, time.monotonic())

    def _block(self, since: float) -> None:
        self._heartbeat.begin(*self._beat, since)
        threading.Event().wait()

    def __await__(self) -> Generator[Any, Any, Decision]:
        try:
            return (yield from self._steps())
        finally:
            if self._watch is not None:
                self._watch.cancel()

    def _steps(self) -> Generator[Any, Any, Decision]:
        steps = self._call.run_async(self._begin).__await__()
        step: Callable[[Any], Any] = steps.send
        value: Any = None
        while True:
            self._heartbeat.begin(*self._beat, time.monotonic())
            try:
                waits_for = step(value)
            except StopIteration as end:
                decision: Decision = end.value
                return decision
            finally:
                self._heartbeat.end()
            try:
                value = yield waits_for
                step = steps.send
            except BaseException as error:  # noqa: BLE001 - a cancellation, say: it belongs to the call
                value = error
                step = steps.throw
