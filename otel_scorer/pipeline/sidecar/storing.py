"""
Keeps what a sidecar has scored in a trace store, on a thread of its own.

Nobody waits for it: what comes while too much is waiting, or cannot be written, is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import OtelScorerError
from otel_scorer.model.decode import attach_logs, logs_from_raw, spans_from_raw
from otel_scorer.model.log_records import join_logs
from otel_scorer.model.splicing import join_spans
from otel_scorer.model.trace import Trace
from otel_scorer.stores.trace_entries import Entry, TraceRecord
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.reader import Reader
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace
    from otel_scorer.stores.trace_store import TraceStore

__all__ = ["TraceKeeper"]

logger = logging.getLogger(__name__)

_QUEUE_BYTES: Final = 64 * 1024 * 1024
# Traces in one transaction: it costs as much as writing some dozens of them.
_BATCH: Final = 100
# The size is looked at again after so many of them.
_TRACES_PER_LOOK: Final = 1000


class TraceKeeper:
    """
    Writes traces and decisions to a store. `start` before the first trace; `shutdown` writes what waits.

    Args:
        store: Where they go.
        reader: Tells what attributes mean: searches ask for sessions, users and tags.
        max_bytes: What the store may take on disk: then the oldest traces that were scored live go.
        queue_bytes: What may wait to be written.
    """

    def __init__(self, store: TraceStore, reader: Reader, *, max_bytes: int, queue_bytes: int = _QUEUE_BYTES) -> None:
        self._store = store
        self._reader = reader
        self._max_bytes = max_bytes
        self._limit = queue_bytes
        self._changed = threading.Condition()  # guards what waits, and its size; notified when there is more
        self._waiting: deque[tuple[ClosedTrace[RawSpan], Sequence[Decision]]] = deque()
        self._size = 0
        self._stopping = False
        self._is_failing = False
        self._written = 0
        self._thread = threading.Thread(target=self._run, name="otel-scorer-keeper", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def keep(self, trace: ClosedTrace[RawSpan], decisions: Sequence[Decision]) -> None:
        """Take a trace that is decided; never blocks."""
        with self._changed:
            is_refused = self._stopping or (self._size > 0 and self._size + trace.size > self._limit)
            if not is_refused:
                self._waiting.append((trace, decisions))
                self._size += trace.size
                self._changed.notify()
        if is_refused:
            count("store.traces_dropped", reason="queue_full")

    def shutdown(self, timeout: float) -> bool:
        """Write what waits and return whether that was done within so many seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            with self._changed:
                left = len(self._waiting)
                self._waiting.clear()
            count("store.traces_dropped", left, reason="shutdown")
            return False
        return True

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._store.put([entry for given in batch if (entry := self._entry(*given)) is not None])
                self._prune(len(batch))
                self._is_failing = False
            except OtelScorerError as error:
                count("store.traces_dropped", len(batch), reason="failed")
                if not self._is_failing:
                    self._is_failing = True
                    logger.error("Scored traces are not kept: %s", error)  # noqa: TRY400 - the message says it all
            except Exception:
                count("store.traces_dropped", len(batch), reason="failed")
                logger.exception("Scored traces are not kept")

    def _take(self) -> list[tuple[ClosedTrace[RawSpan], Sequence[Decision]]]:
        """Wait for traces and return some of them; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._size -= sum(trace.size for trace, _ in batch)
            return batch

    def _entry(self, closed: ClosedTrace[RawSpan], decisions: Sequence[Decision]) -> Entry | None:
        try:
            views = spans_from_raw(closed.spans)
            attach_logs(views, logs_from_raw(closed.logs))
            trace = Trace(
                views,
                self._reader,
                close_reason=closed.reason.value,
                is_complete=closed.complete,
                revision=closed.revision,
            )
            spans, logs = join_spans(closed.spans), join_logs(closed.logs)
            record = TraceRecord.of(trace, spans=spans, logs=logs, unit=closed.unit.hex())
        except Exception:
            # One trace that cannot be read must not take the others of its batch with it.
            count("store.traces_dropped", reason="unreadable")
            logger.exception("A scored trace is not kept")
            return None
        return Entry(record, decisions)

    def _prune(self, written: int) -> None:
        count("store.traces", written)
        self._written += written
        if self._written >= _TRACES_PER_LOOK:
            self._written = 0
            count("store.traces_pruned", self._store.prune_live(self._max_bytes))
