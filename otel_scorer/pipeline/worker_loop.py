"""
The event loop of a scorer worker: coroutine scorers run on it together, on a thread of its own.

Each step of a coroutine is a heartbeat, as each call of a function scorer is: one that blocks the loop, or ends the
process, is told apart from those that only wait.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.scorers.results import error_feedback

if TYPE_CHECKING:
    from otel_scorer.pipeline.protocol import Heartbeat
    from otel_scorer.pipeline.runner import Invocation
    from otel_scorer.pipeline.selection import Choice

__all__ = ["OnDecisions", "WorkerLoop"]

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
        self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(concurrency)
        # Of our own: scorers may keep all threads of the loop's default executor busy.
        self._messenger = ThreadPoolExecutor(1, "otel-scorer-messenger")

    def start(self) -> None:
        """Start the loop."""
        threading.Thread(target=self._run, name="otel-scorer-loop", daemon=True).start()

    def submit(self, job_id: int, index: int, choices: Sequence[Choice]) -> None:
        """Have a scorer's calls about one job made."""
        asyncio.run_coroutine_threadsafe(self._score(job_id, index, choices), self._loop)

    def _run(self) -> None:
        context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
        asyncio.set_event_loop(self._loop)
        while True:
            # Again and again: a scorer may stop the loop, which is not its own.
            self._loop.run_forever()

    async def _score(self, job_id: int, index: int, choices: Sequence[Choice]) -> None:
        decisions = await asyncio.gather(
            *(self._decide(job_id, index, target, choice) for target, choice in enumerate(choices))
        )
        await self._loop.run_in_executor(self._messenger, self._on_decisions, job_id, index, decisions)

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
            feedback = error_feedback(choice.prepared.name, error)
            return choice.decide(Outcome.FAILED, f"{type(error).__name__}: {error}", feedback)


class _Stepwise:
    """Awaits a call, with a heartbeat around each of its steps."""

    __slots__ = ("_beat", "_call", "_heartbeat")

    def __init__(self, call: Invocation, heartbeat: Heartbeat, job_id: int, index: int, target: int) -> None:
        self._call = call
        self._heartbeat = heartbeat
        self._beat = job_id, index, target

    def __await__(self) -> Generator[Any, Any, Decision]:
        steps = self._call.run_async().__await__()
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
