"""What the engine tells a spool, if there is one: which traces wait, are closed, and are decided."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from otel_scorer.model.splicing import join_spans
from otel_scorer.pipeline.sidecar.releasing import in_requests
from otel_scorer.pipeline.spool.tracking import undecided
from otel_scorer.stores.spool_rows import span_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.log_records import RawLog
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.assembler import TraceAssembler
    from otel_scorer.pipeline.assembly.closing import Added, ClosedTrace
    from otel_scorer.pipeline.keeping.triage import Triage
    from otel_scorer.pipeline.spool.spooling import Spooling
    from otel_scorer.pipeline.verdicts.emission import Outlet
    from otel_scorer.pipeline.workers.jobs import ScorerSet, Waiting
    from otel_scorer.stores.spool_rows import SpooledRequest

__all__ = ["SpooledTraces"]


class SpooledTraces:
    """
    Everything here does nothing without a spool. `add`, `add_logs` and `close` are called under the engine's lock.

    Args:
        spooling: The spool.
    """

    def __init__(self, spooling: Spooling | None) -> None:
        self._spooling = spooling
        self.is_on = spooling is not None
        """Whether there is a spool."""

    def safely(self) -> AbstractContextManager[None]:
        """Have what is put in a block written down together, before any of it is sent."""
        return nullcontext() if self._spooling is None else self._spooling.batch()

    def outlet(self, spooled: SpooledRequest | None, otherwise: Outlet, *, for_late: bool = False) -> Outlet:
        """Return what forwards parts of a request at once; see `Spooling.outlet`."""
        if spooled is None or self._spooling is None:
            return otherwise
        return self._spooling.outlet(spooled, for_late=for_late)

    def unsent(self, spans: list[RawSpan], spooled: SpooledRequest | None) -> list[RawSpan]:
        """Return those of late spans that an earlier process has not sent."""
        if spooled is None or not spooled.apart:
            return spans
        return [span for span in spans if span_key(span) not in spooled.apart]

    def add(
        self, assembler: TraceAssembler, spooled: SpooledRequest | None, spans: Sequence[RawSpan], now: float
    ) -> Added:
        """Buffer spans; of a request that is written down those that are not decided yet."""
        if spooled is None or self._spooling is None:
            return assembler.add(spans, now)
        left = undecided(spooled, spans)
        added = assembler.add(left, now)
        self._spooling.buffered(spooled, left, added)
        self._spooling.closed(added.closed)
        if self._spooling.progress.is_earlier(spooled):
            # Requests may have come in another order then: the other copy is not the one that was sent.
            added.duplicates = []
        return added

    def arrange(self, triage: Triage, added: Added, assembler: TraceAssembler, spooled: SpooledRequest | None) -> None:
        """Leave of spans those that are to be sent at once; the others wait for the fate of their trace."""
        apart = [*added.late, *added.own]
        triage.arrange(added, assembler)
        if apart and spooled is not None and self._spooling is not None:
            sent = {id(span) for span in (*added.late, *added.own)}
            self._spooling.held(spooled, [span for span in apart if id(span) not in sent])

    def add_logs(
        self,
        assembler: TraceAssembler,
        spooled: SpooledRequest | None,
        records: Sequence[RawLog],
        now: float,
        patience: float,
    ) -> None:
        """Buffer log records: they wait with their trace, unless it is closed already, or so long for one."""
        if spooled is not None and self._spooling is not None:
            waiting = [record for record in records if not assembler.is_late(record)]
            self._spooling.buffered_logs(spooled, waiting, now + patience)
        assembler.add_logs(records, now)

    def close(self, closed: Sequence[ClosedTrace[RawSpan]]) -> None:
        """Note that traces are closed, before anything else can come for them."""
        if closed and self._spooling is not None:
            self._spooling.closed(closed)

    def held(self, trace: ClosedTrace[RawSpan], spans: list[RawSpan]) -> list[RawSpan]:
        """Return what is still held of a trace, after what an earlier process has sent."""
        return spans if self._spooling is None else self._spooling.progress.left(trace, spans)

    def left(self, trace: ClosedTrace[RawSpan], chosen: tuple[int, ...], scorers: ScorerSet) -> tuple[int, ...]:
        """Return who still has to judge a trace, after those whom an earlier process has asked."""
        progress = None if self._spooling is None else self._spooling.progress.of(trace)
        if progress is None:
            return chosen
        return tuple(each for each in chosen if scorers.profiles[each].name not in progress.scorers)

    def release(self, traces: Iterable[tuple[list[RawSpan], ClosedTrace[RawSpan]]]) -> bool:
        """Send traces about which there is nothing to decide; return whether there is a spool that sees to it."""
        if self._spooling is None:
            return False
        sent = list(traces)
        requests = in_requests((self.held(trace, spans), trace.size, None) for spans, trace in sent)
        self._spooling.release([(join_spans(spans), len(spans)) for spans, _ in requests], [trace for _, trace in sent])
        return True

    def decide(self, traces: Iterable[ClosedTrace[RawSpan]]) -> None:
        """Note, within `safely`, that all about these traces is put."""
        if self._spooling is not None:
            for trace in traces:
                self._spooling.decided(trace)

    def decide_partly(self, unheld: Iterable[tuple[Waiting, Sequence[Decision]]]) -> None:
        """Note, within `safely`, which decisions are put about traces of which others are missing."""
        if self._spooling is not None:
            for waiting, decisions in unheld:
                if not waiting.is_done:
                    self._spooling.partly_decided(waiting.trace, decisions)

    def let_go(self, overdue: Iterable[tuple[Waiting, Sequence[RawSpan]]], now: float) -> None:
        """Note, within `safely`, which spans were put without all verdicts on them; and what has waited long enough."""
        if self._spooling is not None:
            self._spooling.expire(now)
            for waiting, spans in overdue:
                # One that is done meanwhile is noted by whoever brought the last verdict.
                if not waiting.is_done:
                    self._spooling.partly_decided(waiting.trace, waiting.decisions, spans)
