"""
The heart of the processor in the application: started and ended spans in, spans to export and verdicts out.

On the application's threads it is only noted that a span has started or ended; everything else runs on threads of ours.
No lock is held while a scorer runs or an exporter is called.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_scorer.model.decision import Outcome
from otel_scorer.model.decode import spans_from_sdk
from otel_scorer.model.trace import OWN_SCOPE, Reader, Trace
from otel_scorer.pipeline.assembly.assembler import CloseReason
from otel_scorer.pipeline.in_app.asking import Desk, Watched
from otel_scorer.pipeline.in_app.emission import AppEmitter
from otel_scorer.pipeline.in_app.intake import MAX_PENDING, Ask, SpanIntake
from otel_scorer.pipeline.in_app.outbox import Outbox
from otel_scorer.pipeline.in_app.quiet_units import QuietUnits
from otel_scorer.pipeline.in_app.units import Place, UnitAssembler
from otel_scorer.pipeline.in_app.waiting import RecentDecisions, WaitingUnit, count_closed, estimated_size, ids_of
from otel_scorer.pipeline.running.local import LocalScoring
from otel_scorer.pipeline.running.reentrancy import KnownLock
from otel_scorer.pipeline.running.suppression import is_suppressed, is_unrecorded, suppressed
from otel_scorer.pipeline.sidecar.engine import Forwarding
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.trace import SpanContext

    from otel_scorer.model.decision import Decision
    from otel_scorer.pipeline.in_app.asking import Answer
    from otel_scorer.pipeline.in_app.intake import Item
    from otel_scorer.pipeline.in_app.options import AppOptions
    from otel_scorer.pipeline.in_app.units import ClosedUnit
    from otel_scorer.pipeline.running.selection import Choice, Selector

__all__ = ["AppEngine"]

logger = logging.getLogger(__name__)

# The timer looks at least this often (seconds), so that nobody has to wake it for a new deadline.
_LONGEST_TICK: Final = 1.0
_SHORTEST_TICK: Final = 0.05
# Seconds that closing a trace, or everything, may wait for what ended before.
_LONGEST_CLOSE: Final = 10.0
# A SpanContext is a tuple, and its properties cost as much as everything else that is done for a span.
_SPAN_ID: Final = 1
_IS_REMOTE: Final = 2


class AppEngine:
    """
    Assembles units, has them scored, and sends spans and verdicts on. `start` first.

    Args:
        options: How units are treated.
        selector: The scorers; to be replaced at any time, for units that are open too.
        reader: What tells the meaning of attributes.
        send: Takes a span to export; must not block.
        pending: Spans that started or ended while there was no engine yet.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        options: AppOptions,
        selector: Selector,
        reader: Reader,
        send: Callable[[ReadableSpan], None],
        *,
        pending: deque[Item] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self.selector = selector
        self._reader = reader
        self._clock = clock
        self._emitter = AppEmitter(options.emission, send)
        self._scoring = LocalScoring(queue_size=options.queue_size, concurrency=options.concurrency, clock=clock)
        forwarding = options.forwarding if options.exports_spans else Forwarding.PASSTHROUGH
        self._holds_root = forwarding is Forwarding.HOLD_ROOT
        self._holds_trace = forwarding is Forwarding.HOLD_TRACE
        self._sends_spans = options.exports_spans
        self._sends_children = options.exports_spans and not self._holds_trace
        self._sends_roots = options.exports_spans and forwarding is Forwarding.PASSTHROUGH
        # Nobody ever wants to look at anything: no scorer, or none with a sample.
        is_wanted = options.scorers_change or any(rule.threshold for rule in selector.selections)
        self.is_off = not is_wanted and not self._holds_trace
        """Whether nothing is ever scored: then nobody needs to know of spans that start below others."""
        # Guards the units. Nothing of anybody else's is called while it is held: no exporter, no log handler.
        self._lock = KnownLock()
        self._outbox = Outbox(send, self._submit)
        self.intake = SpanIntake(
            self._take, self._lock, self._outbox.hand_out, self._outbox.busy, clock=clock, pending=pending
        )
        """Takes starts and ends of spans."""
        self._counted: UnitAssembler[ReadableSpan] = UnitAssembler(options.limits, self._wants, estimated_size)
        self._units: UnitAssembler[ReadableSpan] | QuietUnits = self._counted
        if not options.counts:
            self._units = QuietUnits(options.limits, self._wants, estimated_size)
        # Guards everything below; may be taken while `_lock` is held, never the other way round.
        self._decided = threading.Lock()
        self._desk = Desk(self.intake, self._lock, self._outbox.busy, self._decided, clock)
        self._numbers = itertools.count()
        self._waiting: dict[int, WaitingUnit] = {}
        # (deadline, number) of those that hold spans; the delay is the same for all, so this is the order of time.
        self._held_until: deque[tuple[float, int]] = deque()
        self._recent = RecentDecisions()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start the threads; without them everything waits until somebody asks."""
        if not self.is_off:
            self._scoring.start()
        with suppress(RuntimeError):  # no new threads once the interpreter exits; the shutdown sees to the rest
            timer = threading.Thread(target=self._run_timer, name="otel-scorer-timer", daemon=True)
            timer.start()
            self._desk.server = timer

    # On the application's threads.

    def begun(self, span: Span, context: SpanContext) -> None:
        """Note that a root or a local root has started; other spans go into `intake` at once."""
        scope = span.instrumentation_scope
        if scope is not None and scope.name == OWN_SCOPE:
            return
        if len(self.intake.pending) >= MAX_PENDING:
            return  # its spans are exported as they end, as far as there is room
        # What a scorer itself does is not scored. Nobody else's thread can tell.
        self.intake.pending.append(context.trace_id if is_suppressed() else (span,))

    def arrived(self, spans: Iterable[ReadableSpan]) -> list[ReadableSpan]:
        """Take spans that ended some time ago, where nobody counts; return those that need not wait for verdicts."""
        if self.is_off:
            return list(spans)
        free: list[ReadableSpan] = []
        with self._lock:
            now = self._clock()
            for span in spans:
                place, closed = self._units.ended(*ids_of(span), span, now)
                self._admit(closed)
                if place is Place.NONE or self._leaves(place):
                    free.append(span)
        self._outbox.hand_out()
        return free

    def _take(self, item: Item, now: float) -> None:
        """Take what happened to a span; the caller holds the lock."""
        if isinstance(item, tuple):
            self._started(item[0], now)
        elif isinstance(item, int):
            self._counted.refuse(item)
        elif isinstance(item, Ask):
            item.do(now)
        else:
            self._ended(item, now)

    def _started(self, span: ReadableSpan, now: float) -> None:
        parent = span.parent
        is_remote = parent is not None and parent[_IS_REMOTE]
        closed = self._counted.started(
            *ids_of(span), None if parent is None else parent[_SPAN_ID], now, is_remote_parent=is_remote
        )
        if closed:
            self._admit(closed)

    def _ended(self, span: ReadableSpan, now: float) -> None:
        place, closed = self._counted.ended(*ids_of(span), span, now)
        if (place is Place.NONE and self._sends_spans) or self._leaves(place):
            self._outbox.put(span)
        if closed:
            self._admit(closed)

    def _leaves(self, place: Place) -> bool:
        """Whether a span of a unit waits for nothing."""
        return self._sends_roots or (place is Place.CHILD and self._sends_children)

    # On whatever thread asks; see `Desk`.

    def close_trace(self, trace_id: int) -> bool:
        """Close the open units of a trace now; return whether there was one with an ended span."""

        def close(now: float, answer: Answer[bool]) -> None:
            found = self._admit(self._units.drain(CloseReason.SHUTDOWN, now, trace_id))
            self._outbox.put(partial(answer.put, found))

        found = self._desk.ask(close, _LONGEST_CLOSE)
        return bool(found)

    def wait(self, trace_id: int, timeout: float) -> list[Decision] | None:
        """Wait until every unit of a trace is closed and decided; return its decisions, None if it took too long."""

        def look() -> list[Decision] | None:
            if self._units.is_open(trace_id) or any(unit.trace_id == trace_id for unit in self._waiting.values()):
                return None
            return self._recent.of(trace_id)

        def note(now: float, answer: Answer[list[Decision]]) -> None:
            self._watch(Watched(look, answer, now + timeout))

        return self._desk.ask(note, timeout)

    def flush(self, timeout: float) -> bool:
        """
        Wait until everything that has ended so far is decided and sent.

        Units that only wait for other spans than their root are closed; units whose root has not ended stay open.
        """

        def note(now: float, answer: Answer[bool]) -> None:
            self._admit(self._units.drain_lingering(now))
            with self._decided:
                last = next(self._numbers)

            def look() -> bool | None:
                return next(iter(self._waiting), last) >= last or None

            self._watch(Watched(look, answer, now + timeout, self._emitter.finish))

        if self._desk.ask(note, timeout):
            return True
        self._desk.leave(lambda _now: self._outbox.put(self._emitter.finish))
        return False

    def shutdown(self, timeout: float) -> bool:
        """
        Close and score what is open, and send everything that is held.

        Args:
            timeout: Seconds for the scorers; what is held leaves without their verdicts after that.

        Returns:
            Whether every verdict came in time.
        """

        def close(now: float, answer: Answer[bool]) -> None:
            self._admit(self._units.drain(CloseReason.SHUTDOWN, now))
            self._outbox.put(partial(answer.put, True))  # noqa: FBT003 - SimpleQueue.put

        def note(now: float, answer: Answer[bool]) -> None:
            self._watch(Watched(lambda: not self._waiting or None, answer, now + timeout))

        deadline = self._clock() + timeout
        self._desk.ask(close, timeout)
        in_time = self._scoring.shutdown(max(0.0, deadline - self._clock()))
        self._desk.ask(note, max(0.0, deadline - self._clock()))
        self._stopping.set()
        self.intake.ring()
        with self._decided:
            left = [waiting for waiting in self._waiting.values() if waiting.held]
            gone = [(waiting, *waiting.let_go()) for waiting in left]
        self._release(gone, reason="shutdown")
        self._emitter.finish()
        return in_time

    def _watch(self, watched: Watched) -> None:
        """Watch something from when everything before it has been handed out."""
        self._outbox.put(self._scoring.hurry)
        self._outbox.put(partial(self._desk.watch, watched))

    def _wants(self, trace_id: int, is_head: bool) -> bool:  # noqa: FBT001 - asked by the assembler
        """Whether a unit is assembled: not where nobody scores it, and not what a scorer itself does."""
        if is_unrecorded(trace_id):
            return False
        if self._holds_trace or self.selector.wants(trace_id.to_bytes(16, "big")):
            return True
        if is_head:
            for decision in self.selector.refuse(trace_id.to_bytes(16, "big"), Outcome.NOT_SAMPLED):
                count("scoring.decisions", scorer=decision.scorer, outcome=decision.outcome.value)
        return False

    # Closed units.

    def _admit(self, units: Iterable[ClosedUnit[ReadableSpan]]) -> bool:
        """Put closed units on record; the caller holds the lock. Return whether any has something to score."""
        found = False
        for unit in units:
            held: list[ReadableSpan] = []
            if self._holds_trace:
                held = list(unit.spans)
            elif self._holds_root and unit.root is not None:
                held = [unit.root]
            with self._decided:
                waiting = WaitingUnit(next(self._numbers), unit, held)
                self._waiting[waiting.number] = waiting
                if held:
                    self._held_until.append((self._clock() + self._options.hold_deadline, waiting.number))
            self._outbox.put(waiting)
            found = found or bool(unit.spans)
        return found

    def _submit(self, waiting: WaitingUnit) -> None:
        if not waiting.unit.spans:
            self._refuse(waiting, Outcome.UNPROCESSABLE, "none of its spans has ended")
        elif not self._scoring.submit(partial(self._choose, waiting), partial(self._on_decision, waiting)):
            self._refuse(waiting, Outcome.SHED, "the queue to the scorers is full")

    def _choose(self, waiting: WaitingUnit) -> Sequence[Choice]:
        count_closed(unit := waiting.unit)
        try:
            trace = Trace(
                spans_from_sdk(unit.spans),
                self._reader,
                close_reason=unit.reason.value,
                is_complete=unit.complete,
                revision=unit.revision,
            )
            trace.let_go()
            return self.selector.choose(trace)
        except Exception as error:
            logger.exception("A trace could not be read")
            return self.selector.refuse(unit.trace_id, Outcome.UNPROCESSABLE, f"{type(error).__name__}: {error}")

    def _count_closed(self, unit: ClosedUnit[ReadableSpan]) -> None:
        if self._options.counts:  # the other assembler counts by itself
            count_closed(unit)

    def _refuse(self, waiting: WaitingUnit, outcome: Outcome, reason: str) -> None:
        """Decide about a unit that no scorer sees."""
        self._count_closed(waiting.unit)
        refused = self.selector.refuse(waiting.unit.trace_id, outcome, reason)
        for index, decision in enumerate(refused):
            count("scoring.decisions", scorer=decision.scorer, outcome=decision.outcome.value)
            self._on_decision(waiting, index, decision, index == len(refused) - 1)
        if not refused:
            self._on_decision(waiting, -1, None, True)  # noqa: FBT003 - OnDecision

    def _on_decision(self, waiting: WaitingUnit, index: int, decision: Decision | None, is_last: bool) -> None:  # noqa: FBT001 - OnDecision
        """Take one decision; the last one lets go of what is held."""
        with self._decided:
            rides = bool(waiting.held)
            if decision is not None:
                self._recent.add(waiting, index, decision)
                if rides:
                    waiting.decisions[index] = decision
            gone = [(waiting, *waiting.let_go())] if rides and is_last else []
        try:
            if gone:
                self._release(gone, reason="decided")
            elif decision is not None and not rides:
                self._emitter.emit(waiting.unit, [decision])
        finally:
            if is_last:
                with self._decided:
                    self._waiting.pop(waiting.number, None)
                self._desk.answer(0)

    def _release(self, gone: Sequence[tuple[WaitingUnit, list[ReadableSpan], list[Decision]]], *, reason: str) -> None:
        for waiting, held, decisions in gone:
            self._emitter.release(waiting.unit, held, decisions)
        count("holding.released", len(gone), reason=reason)

    def _run_timer(self) -> None:
        limits = self._options.limits
        tick = min(_LONGEST_TICK, limits.root_cap, limits.max_age, self._options.hold_deadline)
        with suppressed():
            while not self._stopping.is_set():
                try:
                    self.intake.work()
                    self._desk.answer()
                    pause = self._close_due(self._clock())
                except Exception:  # whatever it was, the next round is a new chance
                    logger.exception("Closing traces failed")
                    pause = tick
                self.intake.rest(max(_SHORTEST_TICK, min(tick, pause)))
            self._desk.serve(self._clock() + _LONGEST_CLOSE)

    def _close_due(self, now: float) -> float:
        """Close and let go of what is due; return seconds until something is due again."""
        with self._lock:
            self._admit(self._units.due(now))
            deadline = self._units.next_deadline()
        self._outbox.hand_out()
        with self._decided:
            gone: list[tuple[WaitingUnit, list[ReadableSpan], list[Decision]]] = []
            while self._held_until:
                until, number = self._held_until[0]
                held = self._waiting.get(number)
                if until > now and held is not None and held.held:
                    break
                self._held_until.popleft()
                if held is not None and held.held:
                    gone.append((held, *held.let_go()))
            deadlines = [deadline, self._held_until[0][0] if self._held_until else None]
        self._release(gone, reason="deadline")
        self._emitter.flush()
        return min((then - now for then in deadlines if then is not None), default=_LONGEST_TICK)
