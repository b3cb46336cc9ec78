"""
The sidecar's heart: received requests in, forwarded spans and verdicts out.

One lock guards all open state (the assembler, and the traces that wait for verdicts); it is never held while something
is parsed, encoded or sent. Receiver threads call `ingest`, the scoring backend calls `deliver`, and a timer thread of
the engine's own closes what is due. What leaves goes to two callables, one for spans and one for scores.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import InvalidRequestError
from otel_scorer.model.log_records import read_logs
from otel_scorer.model.splicing import join_spans
from otel_scorer.model.wire import Signal, check_request, read_traces
from otel_scorer.pipeline.assembly.assembler import ClosedTrace, CloseReason, TraceAssembler
from otel_scorer.pipeline.keeping.triage import Triage
from otel_scorer.pipeline.sidecar.holding import Forwarding, Holding
from otel_scorer.pipeline.sidecar.options import EngineOptions
from otel_scorer.pipeline.sidecar.releasing import in_requests
from otel_scorer.pipeline.sidecar.spooled_traces import SpooledTraces
from otel_scorer.pipeline.verdicts.emission import Emitter
from otel_scorer.pipeline.workers.jobs import Job, Result, ScorerSet, Waiting, count_decisions, sample_scorers, shed
from otel_scorer.telemetry import Measured, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.spool.spooling import Spooling
    from otel_scorer.pipeline.verdicts.emission import Outlet
    from otel_scorer.pipeline.workers.jobs import ScorerProfile, ScoringBackend
    from otel_scorer.stores.spool_rows import SpooledRequest

__all__ = ["Engine", "EngineOptions", "Forwarding"]

logger = logging.getLogger(__name__)

# The timer looks this often (seconds): closing a trace 0.1 s late costs nobody anything, a request per trace does.
_TICK: Final = 0.1


class Engine:
    """Assembles, has scored, and sends on. `start` before the first request; `drain` scores and sends what is open."""

    def __init__(
        self,
        options: EngineOptions,
        scorers: Sequence[ScorerProfile],
        *,
        on_spans: Outlet,
        on_scores: Outlet,
        on_scored: Callable[[ClosedTrace[RawSpan], Sequence[Decision]], None] | None = None,
        matches: Callable[[RawSpan], bool] | None = None,
        spooling: Spooling | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Put the engine together; nothing runs before `start`.

        Args:
            options: How traces are treated.
            scorers: The scorers that the backend runs, in its order.
            on_spans: Takes spans; must not block.
            on_scores: Takes evaluation spans, likewise.
            on_scored: Takes every trace that scorers were chosen for, with all decisions about it; must not block.
            matches: Which span closes a trace, with `Trigger.MATCH`.
            spooling: Where it is written down what becomes of spooled requests; the outlets are its own then.
            clock: Monotonic seconds.
        """
        self._limits = options.limits
        self._scorers = ScorerSet(scorers)
        self._on_spans = on_spans
        self._on_scored = on_scored
        self._emitter = Emitter(options.emission, on_scores)
        self._clock = clock
        self._assembles = bool(scorers) or options.forwarding is Forwarding.HOLD_TRACE
        self._holding = Holding(options.forwarding, options.limits.trigger, options.hold_deadline)
        self._spooled = SpooledTraces(spooling)
        self._triage = None if options.keep is None else Triage(options.keep, options.limits, self._spooled.held)
        self._assembler = TraceAssembler(options.limits, matches, judges=bool(scorers) or self._triage is not None)
        self._waiting: dict[int, Waiting] = {}
        self._next_job = 0
        # Calls of `deliver` that have taken verdicts and not handed them on yet: the last of them is worth waiting for.
        self._delivering = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._timer = threading.Thread(target=self._run_timer, name="otel-scorer-timer", daemon=True)

    @property
    def is_assembling(self) -> bool:
        """Whether requests are sliced at all; otherwise they are only checked and passed on."""
        return self._assembles

    def gauges(self) -> list[Measured]:
        """Return what is open."""
        with self._lock:
            return [
                Measured("assembler.open_traces", len(self._assembler)),
                Measured("assembler.open_size", self._assembler.size),
                Measured("assembler.kept_size", self._assembler.kept_size),
                Measured("scoring.open_traces", len(self._waiting)),
            ]

    def start(self, backend: ScoringBackend | None = None) -> None:
        """Begin to close what is due. `backend` may be left out if there are no scorers."""
        self._scorers.backend = backend
        if self._assembles:
            self._timer.start()

    def replace_scorers(self, scorers: Sequence[ScorerProfile], backend: ScoringBackend | None) -> ScorerSet:
        """
        Have traces that close from now on scored by others and return those who did until now.

        What they were given is theirs to decide: see `wait_until_decided`. Open traces stay open. Without scorers
        nothing is assembled any more, and what is open leaves when it closes.
        """
        with self._lock:
            replaced, self._scorers = self._scorers, ScorerSet(scorers, backend)
            self._assembles = bool(scorers) or self._holding.trace
            self._assembler.judges = bool(scorers) or self._triage is not None
            if self._assembles and self._timer.ident is None and not self._stopping.is_set():
                self._timer.start()
        return replaced

    def wait_until_decided(self, scorers: ScorerSet) -> None:
        """Wait until a set that was replaced has decided all that it was given."""
        with self._lock:
            self._idle.wait_for(lambda: not scorers.jobs)

    def restore(self, closed: Iterable[bytes]) -> None:
        """Remember traces that an earlier process has decided; see `ClosedTraces.restore`."""
        self._assembler.restore(closed, self._clock())

    def ingest(self, data: bytes, spooled: SpooledRequest | None = None) -> tuple[int, str]:
        """
        Admit an encoded traces request; `spooled` is the same, if it is written down.

        Returns:
            How many of its spans were rejected, and why.

        Raises:
            InvalidRequestError: Nothing in it is usable; nothing was admitted.
        """
        if not self._assembles:
            # Roots may have been held until now: then not all of a request was sent that seems to be.
            for_late = self._holding.root
            return self._pass_on(data, self._spooled.outlet(spooled, self._on_spans, for_late=for_late))
        outlet = self._spooled.outlet(spooled, self._on_spans)
        request = read_traces(data)
        spans = request.spans
        with self._lock:
            added = self._spooled.add(self._assembler, spooled, spans, self._clock())
            self._holding.set_repeats_aside(added)
            if self._triage is not None:
                self._spooled.arrange(self._triage, added, self._assembler, spooled)
        count("receiver.spans_accepted", len(spans))
        if self._holding.trace or self._holding.root:
            spans, late = self._holding.leaving(spans, added)
            self._forward(spans, outlet=outlet)
            late = self._spooled.unsent(late, spooled)
            self._forward(late, outlet=self._spooled.outlet(spooled, self._on_spans, for_late=True))
        elif added.duplicates:
            skipped = {id(span) for span in added.duplicates}
            self._forward((span for span in spans if id(span) not in skipped), outlet=outlet)
        elif request.rejected:
            self._forward(spans, outlet=outlet)
        elif spans:
            outlet(data, len(spans), ())
        self._closed(added.closed)
        return request.rejected, request.message

    def ingest_logs(self, data: bytes, spooled: SpooledRequest | None = None) -> None:
        """
        Join the log records of an encoded logs request to the traces that they belong to; they go nowhere from here.

        Raises:
            InvalidRequestError: It is no such request.
        """
        if not self._scorers.profiles:
            return
        records = read_logs(data)
        if records:
            with self._lock:
                self._spooled.add_logs(self._assembler, spooled, records, self._clock(), self._limits.idle_timeout)

    def deliver(self, results: Iterable[Result]) -> None:
        """Take decisions from the scoring backend."""
        ready: list[tuple[Waiting, list[RawSpan]]] = []
        unheld: list[tuple[Waiting, tuple[Decision, ...], bool]] = []
        done: list[Waiting] = []
        with self._lock:
            for result in results:
                waiting = self._waiting.get(result.job_id)
                if waiting is None:
                    continue
                if waiting.held:
                    waiting.decisions += result.decisions
                else:
                    unheld.append((waiting, result.decisions, waiting.begins_with(result.decisions)))
                if self._on_scored is not None:
                    waiting.all += result.decisions
                if result.done:
                    done.append(waiting)
                    self._holding.end(waiting)
                    waiting.is_done = True
                    del self._waiting[result.job_id]
                    waiting.scorers.jobs -= 1
                    if waiting.held:
                        ready.append((waiting, self._settled(waiting, waiting.held, is_decided=True)))
            self._delivering += 1
        try:
            count_decisions(decision for _, decisions, _ in unheld for decision in decisions)
            count_decisions(decision for each in done if self._spooled.is_on for decision in each.refused)
            with self._spooled.safely():
                for waiting, decisions, is_timed in unheld:
                    self._emitter.emit(waiting.trace, decisions, waiting.fate, is_timed=is_timed)
                self._release(ready, reason="decided")
                self._emitter.flush()
                self._spooled.decide_partly((waiting, decisions) for waiting, decisions, _ in unheld)
                self._spooled.decide(waiting.trace for waiting in done)
            if self._on_scored is not None:
                for waiting in done:
                    self._on_scored(waiting.trace, waiting.all)
        finally:
            with self._lock:
                self._delivering -= 1
                self._idle.notify_all()

    def relieve(self, size: int, urgent: bool) -> None:  # noqa: FBT001 - as the memory guard calls it
        """
        Score traces early that are worth so many bytes, unless as much is being scored already and will leave then.

        Args:
            size: Bytes to give up.
            urgent: Also traces that have not been open for longer than `root_cap`.
        """
        with self._lock:
            size -= sum(waiting.trace.size for waiting in self._waiting.values())
            older_than = 0.0 if urgent else self._limits.root_cap
            closed = self._begun(self._assembler.relieve(size, self._clock(), older_than=older_than))
        self._closed(closed)

    def drain(self, timeout: float) -> bool:
        """
        Close every open trace, wait for the verdicts, and hand everything on.

        Args:
            timeout: Seconds to wait for verdicts; what is held leaves without them after that.

        Returns:
            Whether every verdict came in time.
        """
        self._stopping.set()
        if self._timer.is_alive():
            self._timer.join(timeout)
        with self._lock:
            closed = self._begun(self._assembler.drain(CloseReason.SHUTDOWN, self._clock()))
        self._closed(closed)
        with self._lock:
            decided = self._idle.wait_for(lambda: not self._waiting and not self._delivering, timeout)
            # What is in a spool stays there: it is scored after the next start.
            waiting = () if self._spooled.is_on else self._waiting.values()
            held = [self._holding.let_go(each) for each in waiting if each.held]
            left = [(waiting, self._settled(waiting, spans, is_decided=False)) for waiting, spans in held]
        self._release(left, reason="shutdown")
        with self._spooled.safely():
            self._emitter.finish()
        return decided

    def _pass_on(self, data: bytes, outlet: Outlet) -> tuple[int, str]:
        try:
            items = check_request(Signal.TRACES, data)
        except InvalidRequestError:
            request = read_traces(data)
            count("receiver.spans_accepted", len(request.spans))
            self._forward(request.spans, outlet=outlet)
            return request.rejected, request.message
        count("receiver.spans_accepted", items)
        if items:
            outlet(data, items, ())
        return 0, ""

    def _closed(self, closed: list[ClosedTrace[RawSpan]]) -> None:
        """Have closed traces scored, or let them go."""
        if not closed:
            return
        jobs: list[Job] = []
        unscored: list[ClosedTrace[RawSpan]] = []
        settled: list[tuple[Waiting, list[RawSpan]]] = []
        facts = None if self._triage is None else [self._triage.look(trace) for trace in closed]
        with self._lock:
            scorers = self._scorers
            now = self._clock()
            if not scorers.profiles and self._triage is None:
                closed, unscored = [], closed
            for at, trace in enumerate(closed):
                chosen, refused = sample_scorers(trace, scorers)
                chosen = self._spooled.left(trace, chosen, scorers)
                is_scored = bool(chosen) and scorers.backend is not None
                if refused and not (is_scored and self._spooled.is_on):
                    # What is not decided in a spool may be closed again by another process: it counts at the end.
                    count_decisions(refused)
                if not is_scored and self._triage is None:
                    unscored.append(trace)
                    continue
                held = self._spooled.held(trace, self._spans_of(trace))
                waiting = Waiting(trace, held, scorers, refused=tuple(refused), all=refused)
                if self._triage is not None and facts is not None:
                    waiting.fate, waiting.facts = self._triage.fate_of(trace), facts[at]
                if not is_scored:
                    settled.append((waiting, self._settled(waiting, waiting.held, is_decided=True)))
                    continue
                job = Job(self._next_job, trace, chosen)
                self._next_job += 1
                self._waiting[job.id] = waiting
                self._holding.begin(waiting, now)
                jobs.append(job)
            # Counted before they are submitted: whoever replaces the scorers waits for them.
            scorers.jobs += len(jobs)
        if unscored and not self._spooled.release((self._holding.spans_of(trace), trace) for trace in unscored):
            self._forward_traces([(self._holding.spans_of(trace), trace.size, None) for trace in unscored])
        with self._spooled.safely():
            self._send_on(settled)
            self._spooled.decide(waiting.trace for waiting, _ in settled)
        refused_jobs = scorers.backend.submit(jobs) if scorers.backend is not None and jobs else ()
        if refused_jobs:
            self.deliver(Result(job.id, shed(job, scorers), done=True) for job in refused_jobs)

    def _release(self, ready: Sequence[tuple[Waiting, list[RawSpan]]], *, reason: str) -> None:
        """Let held spans go with the verdicts that are in."""
        count_decisions(decision for waiting, _ in ready for decision in waiting.decisions)
        count("holding.released", len(ready), reason=reason)
        self._send_on(ready)

    def _send_on(self, traces: Sequence[tuple[Waiting, list[RawSpan]]]) -> None:
        """Forward the held spans of traces with their verdicts, unless they are not kept."""
        on_spans = self._emitter.writes_on_spans
        sent: list[tuple[list[RawSpan], int, float | None]] = []
        for waiting, held in traces:
            trace, decisions, fate = waiting.trace, waiting.decisions, waiting.fate
            if fate is not None and not fate.is_kept:
                self._emitter.emit(trace, decisions, fate)
                continue
            with self._lock:
                is_timed = waiting.begins_with(decisions)
            since = trace.last if on_spans and is_timed else None
            sent.append((self._emitter.enrich(trace, held, decisions, fate, is_timed=is_timed), trace.size, since))
        self._forward_traces(sent)

    def _spans_of(self, trace: ClosedTrace[RawSpan]) -> list[RawSpan]:
        return self._holding.spans_of(trace) if self._triage is None else self._triage.spans_of(trace)

    def _begun(self, closed: list[ClosedTrace[RawSpan]]) -> list[ClosedTrace[RawSpan]]:
        """Return traces that were closed just now; the lock must not have been given back meanwhile."""
        if self._triage is not None:
            self._triage.begin(closed)
        self._spooled.close(closed)
        return closed

    def _settled(self, waiting: Waiting, held: list[RawSpan], *, is_decided: bool) -> list[RawSpan]:
        """Return the spans that share the fate of a trace, which is decided by now."""
        return held if self._triage is None else self._triage.settle(waiting, held, is_decided=is_decided)

    def _forward(self, spans: Iterable[RawSpan], since: Sequence[float] = (), *, outlet: Outlet | None = None) -> None:
        if batch := list(spans):
            (outlet or self._on_spans)(join_spans(batch), len(batch), since)

    def _forward_traces(self, traces: Iterable[tuple[list[RawSpan], int, float | None]]) -> None:
        for spans, since in in_requests(traces):
            self._forward(spans, since)

    def _run_timer(self) -> None:
        while not self._stopping.wait(_TICK):
            try:
                self.tick()
            except Exception:
                # Whatever went wrong with these traces, the next ones must still close.
                logger.exception("Cannot handle closed traces")

    def tick(self) -> None:
        """Close what is due and let go what was held long enough; the timer thread calls it."""
        now = self._clock()
        with self._lock:
            closed = self._begun(self._assembler.due(now))
            overdue = [
                (waiting, self._settled(waiting, held, is_decided=False))
                for waiting, held in self._holding.overdue(now)
            ]
        with self._spooled.safely():
            self._closed(closed)
            self._release(overdue, reason="deadline")
            self._emitter.flush()
            self._spooled.let_go(overdue, now)
