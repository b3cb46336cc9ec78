"""
The way of requests and verdicts through a spool: written down before they are acknowledged or sent, deleted when done.

What has no room in memory waits on disk, in its order, and so does what an earlier process has left: one thread takes
it up again as room permits. Verdicts are written down together with the fact that their trace is decided.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import RequestError, StoreError
from otel_scorer.model.wire import Signal
from otel_scorer.pipeline.spool.backlog import Backlog, add_request, check_waiting, nobody, take_up
from otel_scorer.pipeline.spool.batch import Batch, Decided, commit_patiently
from otel_scorer.pipeline.spool.outgoing import CHUNK, Place, SpooledOutgoing
from otel_scorer.pipeline.spool.progress import Progress
from otel_scorer.pipeline.spool.taking import RequestsTaken
from otel_scorer.pipeline.spool.tracking import RequestTracker
from otel_scorer.stores.spool_rows import Changes, Outgoing, SpooledRequest
from otel_scorer.telemetry import Measured, count
from otel_scorer.transport.countdown import call_after
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.log_records import RawLog
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import Added, ClosedTrace
    from otel_scorer.pipeline.verdicts.emission import Outlet
    from otel_scorer.stores.spool import Spool
    from otel_scorer.transport.exchange import PartialSuccess

__all__ = ["Spooling"]

logger = logging.getLogger(__name__)

# Seconds between two looks at what is to be deleted or taken up.
_TICK: Final = 0.05


class Spooling:
    """
    Stands between receivers, engine and whoever sends. `start` before the first request; `shutdown` last.

    Args:
        spool: Where everything is written down.
        entrances: For each signal that is taken: where its requests go first. Without room there they wait on disk.
        places: By kind of outgoing data: where it goes.
        by_unit: Whether units of traces are assembled.
        released: Of which kind traces are written down to be sent about which there is nothing to decide. None: they
            are sent as they were written down when they came.
        clock: Monotonic seconds.

    Attributes:
        spool: As above.
        progress: Which traces are decided in part.
    """

    def __init__(
        self,
        spool: Spool,
        entrances: Mapping[Signal, Place],
        places: Mapping[str, Place],
        *,
        by_unit: bool,
        released: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spool = spool
        self._entrances = entrances
        self._by_unit = by_unit
        self._released_kind = released
        self._lock = threading.Lock()  # guards everything down to the batch
        self._tracker = RequestTracker(Changes(), by_unit=by_unit)
        self._taken = RequestsTaken(self._tracker, self._lock, clock)
        # Traces that were sent without a verdict, and not deleted yet.
        self._released: list[Decided] = []
        last_request, _ = spool.last_ids
        self.progress = Progress(spool.partly_decided(), last_request)
        self._requests = {signal: Backlog(last_request) for signal in entrances}
        self._outgoing = SpooledOutgoing(spool, places, clock)
        # Guards the batch, and keeps the order: engine lock and `_lock` may be taken while it is held.
        self._batching = threading.RLock()
        self._batch: Batch | None = None
        self._ingest: Callable[[SpooledRequest], PartialSuccess | None] = nobody
        self._log_limit = LogLimit()
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-scorer-spool", daemon=True)

    def start(self, ingest: Callable[[SpooledRequest], PartialSuccess | None]) -> None:
        """Begin to take up what an earlier process has left. `ingest` takes a request that is written down."""
        self._ingest = ingest
        requests, outgoing = self.spool.left
        if requests or outgoing:
            logger.info("The spool has %d requests and %d requests to be sent: they are taken up", requests, outgoing)
        self._thread.start()

    def drain(self) -> None:
        """Take up no more requests from disk, and wait no longer for one that is full."""
        self._draining.set()

    def stop(self) -> None:
        """Take up nothing more from disk. Safe to call twice."""
        self.drain()
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def shutdown(self) -> tuple[int, int]:
        """Write down what is done and return how many requests, and how many of those to be sent, stay."""
        self.stop()
        self._forget_released()
        self._flush()
        left = self.spool.left
        self.spool.close()
        return left

    def turn(self) -> bool:
        """
        Delete what is done and take up what waits, once; the thread calls it.

        Returns:
            Whether more may wait.
        """
        self.spool.tend()
        self._forget_released()
        self._flush()
        is_busy = self._outgoing.take_up(self._stopping.is_set)
        for signal, backlog in self._requests.items():
            is_busy |= take_up(backlog, self._lock, partial(self._next_requests, signal))
        return is_busy

    def gauges(self) -> list[Measured]:
        """Return how much there is."""
        with self._lock:
            waiting = sum(map(len, self._requests.values()))
        return [*self.spool.gauges(), Measured("spool.backlog", waiting + self._outgoing.waiting)]

    def take(self, signal: Signal, data: bytes) -> PartialSuccess | None:
        """
        Write a request down and have it handled, now or when there is room.

        Args:
            signal: What it holds.
            data: As it came.

        Raises:
            RequestError: It is not usable, or there is no room for it; then nothing is left of it.
        """
        has_room = self._entrances[signal].has_room(len(data))
        number = add_request(self.spool, signal, data, self._log_limit)
        request = SpooledRequest(number, signal, data)
        with self._lock:
            is_next = has_room and not self._requests[signal]
            if is_next:
                self._tracker.begin(number)
        if is_next:
            return self._handle(request)
        try:
            answer = check_waiting(signal, data)
        except BaseException:
            with self._lock:
                self._tracker.begin(number)
                self._tracker.drop(number)
            raise
        with self._lock:
            self._requests[signal].add(number)
        return answer

    def outlet(self, request: SpooledRequest, *, for_late: bool = False) -> Outlet:
        """
        Return what forwards parts of a request at once.

        With `for_late` a part depends on what came before the request. So it may be another one than an earlier process
        has forwarded, and is not left out.
        """

        def forward(data: bytes, items: int, since: Sequence[float]) -> None:
            if items and (for_late or not request.is_forwarded):
                with self._lock:
                    self._tracker.forward(request.id)
                done, parts = partial(self._forwarded, request.id), self._taken.parts_of(request)
                if for_late:
                    parts = parts._replace(without=frozenset())
                self._entrances[request.signal].offer(data, items, since, done, parts)

        return forward

    def buffered(self, request: SpooledRequest, spans: Sequence[RawSpan], added: Added) -> None:
        """Note what became of the spans of a request, before they can be decided."""
        apart = (*added.late, *added.own, *added.duplicates)
        elsewhere = {id(span) for span in apart}
        waiting = [span for span in spans if id(span) not in elsewhere] if apart else spans
        with self._lock:
            if self._by_unit and added.late:
                self._tracker.give_up(request.id, added.late)
            self._tracker.buffer(request.id, waiting, (*added.late, *added.own), request.apart)

    def held(self, request: SpooledRequest, spans: Iterable[RawSpan]) -> None:
        """Note that spans of a request, late ones or our own, wait with a trace that is not decided."""
        with self._lock:
            self._tracker.attach(request.id, spans)

    def buffered_logs(self, request: SpooledRequest, records: Iterable[RawLog], until: float) -> None:
        """Note that log records wait with their trace; until that time for one that is not there yet."""
        with self._lock:
            self._tracker.buffer_early(request.id, records, until)

    def expire(self, now: float) -> None:
        """Give up on log records whose trace has not come."""
        with self._lock:
            self._tracker.expire(now)

    def closed(self, traces: Iterable[ClosedTrace[RawSpan]]) -> None:
        """Note that traces are closed, before anything else can come for them."""
        with self._lock:
            for trace in traces:
                self.progress.begin(trace)
                self._tracker.close(trace)

    @contextmanager
    def batch(self) -> Generator[None]:
        """Collect what is put, and what is decided, until the outermost block ends; then write it, then send it."""
        with self._batching:
            if self._batch is not None:
                yield
                return
            batch = self._batch = Batch()
            try:
                yield
            finally:
                self._batch = None
                self._write(batch)

    def put(self, kind: str, data: bytes, items: int, since: Sequence[float] = ()) -> None:
        """Have something sent, once it is written down."""
        with self.batch():
            batch = self._batch
            if batch is not None and items:
                batch.changes.outgoing.append(Outgoing(kind, items, data))
                batch.since.append(since)

    def decided(self, trace: ClosedTrace[RawSpan]) -> None:
        """Note, in a batch, that everything about a trace is decided and put."""
        if self._batch is not None and trace.revision == 1:
            self._batch.decide([self._take(trace)])
        else:
            self.partly_decided(trace, ())

    def release(self, requests: Sequence[tuple[bytes, int]], traces: Sequence[ClosedTrace[RawSpan]]) -> None:
        """
        Send traces about which there is nothing to decide.

        Args:
            requests: Their spans, and how many those are.
            traces: The traces.
        """
        taken = [self._take(trace) for trace in traces if trace.revision == 1]
        if self._released_kind is not None and requests:
            with self.batch():
                for data, items in requests:
                    self.put(self._released_kind, data, items)
                if self._batch is not None:
                    self._batch.decide(taken)
            return
        # They stay as they were written down until they are sent.
        sent = call_after(len(requests), partial(self._release, taken))
        for data, items in requests:
            self._entrances[Signal.TRACES].offer(data, items, (), sent)

    def partly_decided(
        self, trace: ClosedTrace[RawSpan], decisions: Iterable[Decision], released: Sequence[RawSpan] = ()
    ) -> None:
        """Note, in a batch, that these decisions about a trace are put, and these of its spans, but not all of them."""
        if self._batch is not None:
            self._batch.changes.partly |= self.progress.add(trace, decisions, released)

    def _handle(self, request: SpooledRequest) -> PartialSuccess | None:
        try:
            return self._ingest(request)
        except BaseException:
            # The client is told, or, of one that was acknowledged, everybody is.
            with self._lock:
                self._tracker.drop(request.id)
            raise
        finally:
            with self._lock:
                self._tracker.unpin((request.id,))

    def _take(self, trace: ClosedTrace[RawSpan]) -> Decided:
        """Take out what waits for a trace."""
        ids = b"".join(span.span_id for span in trace.spans if not span.scope.is_own) if self._by_unit else b""
        with self._lock:
            return Decided(self._tracker.take(trace), trace.trace_id + ids, self.progress.end(trace))

    def _release(self, traces: Sequence[Decided]) -> None:
        with self._lock:
            self._released += traces

    def _forget_released(self) -> None:
        """Write down what was sent without a verdict."""
        with self._lock:
            released, self._released = self._released, []
        if released:
            with self.batch():
                if self._batch is not None:
                    self._batch.decide(released)

    def _forwarded(self, number: int) -> None:
        with self._lock:
            is_over = self._tracker.forwarded(number)
        if is_over:
            self._taken.forget(number)

    def _write(self, batch: Batch) -> None:
        """Commit a batch, however long that takes, and send what is in it."""
        changes = batch.changes
        with self._lock:
            pinned = [number for waiting in batch.decided for number in self._tracker.decide(waiting, changes)]
            self._tracker.finish(pinned, changes)
        if not changes:
            return
        # What is done makes room, on a disk that is full.
        outgoing = commit_patiently(self.spool, changes, self._flush, self._draining, self._log_limit)
        if outgoing is None:
            return
        with self._lock:
            self._tracker.forget(changes.finished)
            self._tracker.unpin(pinned)
        for each, since in zip(outgoing, batch.since, strict=True):
            self._outgoing.send(each, since)

    def _flush(self) -> None:
        """Write down what is done; what cannot be written now is written later."""
        with self._lock:
            changes, self._tracker.changes = self._tracker.changes, Changes()
        changes.sent = self._outgoing.sent()
        changes.taken += [*self._taken.due(), *self._outgoing.partly_taken.due()]
        changes.done += self.progress.outdated(self.spool.first_request)
        if not changes:
            return
        try:
            self.spool.commit(changes)
        except StoreError as error:
            logger.debug("%s", error)
            self._outgoing.keep(changes.sent)
            with self._lock:
                changes.put_off(self._tracker.changes)
            return
        self._outgoing.forget(changes.sent)
        with self._lock:
            self._tracker.forget(changes.finished)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                is_busy = self.turn()
            except Exception as error:
                is_busy = False
                if self._log_limit.allows("turn"):
                    is_known = isinstance(error, StoreError)
                    logger.warning("Cannot take up what is in the spool: %s", error, exc_info=not is_known)
            if not is_busy:
                self._stopping.wait(_TICK)

    def _next_requests(self, signal: Signal, after: int) -> tuple[int, bool]:
        """Take up requests and return the id of the last one, and whether there was none."""
        entrance = self._entrances[signal]
        if self._draining.is_set() or not entrance.has_room(1):
            return after, False
        found = self.spool.requests(signal, after, CHUNK)
        for request in found:
            if self._draining.is_set() or not entrance.has_room(len(request.data)):
                break
            with self._lock:
                is_known = request.id in self._tracker
                if not is_known:
                    self._tracker.begin(request.id)
            after = request.id
            if is_known:
                continue
            count("spool.replayed", what="request")
            try:
                self._handle(request)
            except RequestError:
                count("spool.dropped", reason="invalid")
            except Exception:
                count("spool.dropped", reason="internal")
                logger.exception("Cannot take up a request of the spool")
        return after, not found
