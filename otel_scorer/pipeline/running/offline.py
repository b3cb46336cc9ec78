"""
Scorers on data that is all there: as quick as calling them, and yet nobody waits for one that hangs.

One thread calls the scorers, item after item; coroutine scorers share an event loop, and those whose calls may overlap
(`concurrent=True`) a few more threads. Whoever asked for the decisions feeds it in small batches, so that a stream of
any length is never in memory as a whole, and watches the time meanwhile: a scorer that hangs is left behind in its
thread, another thread goes on, and that scorer is not called again before it has come back.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.pipeline.running.coroutines import CoroutineLanes
from otel_scorer.pipeline.running.suppression import suppressed
from otel_scorer.pipeline.running.threads import HUNG, ThreadLane, called
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
    from otel_scorer.pipeline.running.selection import Choice

__all__ = ["OfflineScoring"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH: Final = 16
# A batch goes early if its items are slow to come: what makes them waits on somebody, and scorers can work meanwhile.
_PATIENCE: Final = 0.05
# What is decoded for one thread that calls scorers should be little: it stays in the processor's cache, and out of the
# garbage collector's sight. Calls that wait for somebody else run at the same time, and need many items for that.
_BATCHES_AHEAD: Final = 2
_BATCHES_AHEAD_OF_CALLS: Final = 20
# Seconds between two looks at what runs.
_TICK: Final = 0.05


class _Slip(Generic[T]):
    """One item, and what was decided about it: a place for each choice."""

    __slots__ = ("choices", "decisions", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.choices: Sequence[Choice] | None = None
        self.decisions: list[Decision | None] = []


class _Batch(Generic[T]):
    __slots__ = ("done", "open", "slips")

    def __init__(self, slips: list[_Slip[T]]) -> None:
        self.slips = slips
        # The thread that goes through the batch, and each coroutine that has not answered.
        self.open = 1
        self.done = threading.Event()


class _Seat(Generic[T]):
    """What a scoring thread is at. An abandoned seat belongs to a thread that hangs in a scorer."""

    __slots__ = ("batch", "call", "is_abandoned", "since", "slip")

    def __init__(self) -> None:
        self.batch: _Batch[T] | None = None
        self.slip = 0
        self.call: Invocation | None = None
        self.since = 0.0
        self.is_abandoned = False


class OfflineScoring(Generic[T]):
    """
    Calls scorers on a stream of items; used once.

    Args:
        choose: Returns the calls to make about an item, and decisions that fell already; called on the scoring thread.
        concurrency: Coroutine scorers that run at the same time.
        on_decided: Called for each item that all plain scorers have seen, on the scoring thread.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        choose: Callable[[T], Sequence[Choice]],
        *,
        concurrency: int = 64,
        on_decided: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._choose = choose
        self._on_decided = on_decided
        self._clock = clock
        self._queue: queue.SimpleQueue[_Batch[T] | None] = queue.SimpleQueue()
        # Guards what follows, and the decisions of a batch that somebody else may fill in.
        self._lock = threading.Lock()
        self._seat: _Seat[T] = _Seat()
        self._hung: set[PreparedScorer] = set()
        self._lanes = CoroutineLanes(concurrency, self._hung)
        self._threads = ThreadLane(clock)
        self._ahead = _BATCHES_AHEAD
        self._is_over = False
        self._problem: BaseException | None = None

    def run(self, items: Iterable[T]) -> Generator[tuple[T, tuple[Decision, ...]]]:
        """
        Yield each item with the decisions about it, in order, soon after it came.

        Raises:
            Exception: What `items` raises, after everything before it, and what `choose` raises.
        """
        waiting: deque[_Batch[T]] = deque()
        source = iter(items)
        self._sit_down(None)
        try:
            while True:
                slips, end = self._collect(source)
                if slips:
                    batch = _Batch(slips)
                    waiting.append(batch)
                    self._queue.put(batch)
                while waiting and (end is not None or len(waiting) > self._ahead or waiting[0].done.is_set()):
                    yield from self._finished(waiting.popleft())
                if end is not None:
                    if not isinstance(end, StopIteration):
                        raise end
                    return
        finally:
            self._is_over = True
            self._queue.put(None)
            self._lanes.shutdown(_TICK)
            self._threads.shutdown()

    def _collect(self, source: Iterator[T]) -> tuple[list[_Slip[T]], BaseException | None]:
        """Take items until a batch is full or they let us wait; return them, and what ended the stream."""
        slips: list[_Slip[T]] = []
        until = self._clock() + _PATIENCE
        while len(slips) < _BATCH:
            try:
                slips.append(_Slip(next(source)))
            except Exception as error:  # noqa: BLE001 - raised again once what came before is through
                return slips, error
            if self._clock() > until:
                break
        return slips, None

    def _finished(self, batch: _Batch[T]) -> Iterator[tuple[T, tuple[Decision, ...]]]:
        while not batch.done.wait(_TICK):
            now = self._clock()
            self._check_seat(now)
            self._lanes.leave_blocked(now)
            self._check_threads(now)
        if self._problem is not None:
            raise self._problem
        counts: dict[tuple[str, Outcome], int] = {}
        for slip in batch.slips:
            decisions = tuple([decision for decision in slip.decisions if decision is not None])
            for decision in decisions:
                key = decision.scorer, decision.outcome
                counts[key] = counts.get(key, 0) + 1
            yield slip.item, decisions
        for (scorer, outcome), number in counts.items():
            count("scoring.decisions", number, scorer=scorer, outcome=outcome.value)

    # The scoring thread.

    def _sit_down(self, resume: tuple[_Batch[T], int] | None) -> None:
        """Start a scoring thread, which begins in the middle of a batch if another one had to leave it."""
        self._seat = seat = _Seat[T]()
        threading.Thread(target=self._score, args=(seat, resume), name="otel-scorer-scoring", daemon=True).start()

    def _score(self, seat: _Seat[T], resume: tuple[_Batch[T], int] | None) -> None:
        # Threading instrumentations give a new thread the context of whoever started it.
        with suppressed():
            if resume is not None and not self._go_through(seat, *resume):
                return
            while (batch := self._queue.get()) is not None:
                if not self._go_through(seat, batch, 0):
                    return

    def _go_through(self, seat: _Seat[T], batch: _Batch[T], begin: int) -> bool:
        """Make the calls about a batch from a slip on; return whether this thread may go on."""
        seat.batch = batch
        try:
            for number in range(begin, len(batch.slips)):
                seat.slip = number
                if not self._decide(seat, batch, batch.slips[number]):
                    return False
                if self._is_over:
                    break
                if self._on_decided is not None:
                    self._on_decided()
        except BaseException as error:  # noqa: BLE001 - raised again where the decisions are asked for
            self._problem = error
        seat.batch = None
        self._close(batch)
        return True

    def _decide(self, seat: _Seat[T], batch: _Batch[T], slip: _Slip[T]) -> bool:
        choices = slip.choices
        if choices is None:
            choices = slip.choices = self._choose(slip.item)
        decisions = slip.decisions
        clock, lock = self._clock, self._lock
        # A thread that takes over from another one begins behind the choice that it hangs in.
        for index in range(len(decisions), len(choices)):
            choice = choices[index]
            if isinstance(choice, Decision):
                decisions.append(choice)
            elif choice.prepared in self._hung:
                decisions.append(choice.timed_out(HUNG))
            elif choice.prepared.is_async or choice.prepared.turn is None:
                decisions.append(None)
                self._hand_over(batch, slip, index, choice)
            else:
                # In this order: whoever sees the call sees when it began.
                seat.since = clock()
                seat.call = choice
                decision = called(choice)
                with lock:
                    seat.call = None
                    if seat.is_abandoned:
                        self._hung.discard(choice.prepared)
                        return False
                decisions.append(decision)
        return True

    def _hand_over(self, batch: _Batch[T], slip: _Slip[T], index: int, call: Invocation) -> None:
        lane = self._lanes.current() if call.prepared.is_async else self._threads
        with self._lock:
            batch.open += 1
            self._ahead = _BATCHES_AHEAD_OF_CALLS

        def settle(decision: Decision) -> None:
            slip.decisions[index] = decision
            self._close(batch)

        lane.submit(call, settle)

    def _close(self, batch: _Batch[T]) -> None:
        with self._lock:
            batch.open -= 1
            if not batch.open:
                batch.done.set()

    # Watching, by who waits for decisions.

    def _check_seat(self, now: float) -> None:
        with self._lock:
            seat = self._seat
            call, batch = seat.call, seat.batch
            if call is None or batch is None or call.prepared.timeout is None:
                return
            if now - seat.since <= call.prepared.timeout + _TICK:
                return
            seat.is_abandoned = True
            self._hung.add(call.prepared)
            batch.slips[seat.slip].decisions.append(call.timed_out())
        count("scoring.worker_restarts", reason=Outcome.TIMED_OUT.value)
        logger.warning("Scorer %r hangs in its thread; another thread goes on without it", call.prepared.name)
        self._sit_down((batch, seat.slip))

    def _check_threads(self, now: float) -> None:
        for prepared in self._threads.leave_late(now, _TICK):
            count("scoring.worker_restarts", reason=Outcome.TIMED_OUT.value)
            logger.warning("Scorer %r hangs in its thread; another thread goes on without it", prepared.name)
