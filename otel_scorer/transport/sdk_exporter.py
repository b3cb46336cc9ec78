"""
Export through the SDK's own BatchSpanProcessor, with what it lacks: a flush that keeps its timeout, and counts.

The SDK ignores the result of an export and drops the oldest spans of a full queue; both are counted here.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

__all__ = ["SdkExport", "destination_of", "exporters_beside", "exporters_of"]

logger = logging.getLogger(__name__)

_SENT: Final = "processor.exported"
_DROPPED: Final = "processor.dropped"
_BATCH: Final = 512
# Flushes that are waited for at the same time; the oldest one beyond them has timed out long ago.
_MOST_ASKED: Final = 1024
_DEFAULT_DELAY: Final = 5.0
# What the SDK takes if nobody says: OTEL_BSP_MAX_QUEUE_SIZE or 2048. It has no public name for it.
_DEFAULT_QUEUE_SIZE: Final[Callable[[], int]] = getattr(BatchSpanProcessor, "_default_max_queue_size", lambda: 2048)


class _Counted(SpanExporter):
    """An exporter of somebody else, with its results counted."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:
            count(_DROPPED, len(spans), reason="export_failed")
            raise
        if result is SpanExportResult.SUCCESS:
            count(_SENT, len(spans))
        else:
            count(_DROPPED, len(spans), reason="export_failed")
        return result

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        # Some exporters take a timeout, which the interface does not have.
        if "timeout_millis" in inspect.signature(self._exporter.shutdown).parameters:
            cast("Callable[..., None]", self._exporter.shutdown)(timeout_millis=timeout_millis)
        else:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class SdkExport:
    """
    Sends spans to an exporter, in batches, from a thread of the SDK. Its queue and delays are `OTEL_BSP_*`.

    Locks and the thread are made by `renew`, in every process of its own: see `AppPipeline.begin`.

    Args:
        exporter: Takes the spans. Shut down together with this.
        queue_size: Spans that may wait. Default: `OTEL_BSP_MAX_QUEUE_SIZE`, else 2048.
        delay: Seconds after which an incomplete batch is sent. Default: `OTEL_BSP_SCHEDULE_DELAY`, else 5.
    """

    def __init__(self, exporter: SpanExporter, *, queue_size: int | None = None, delay: float | None = None) -> None:
        self._exporter = _Counted(exporter)
        self._given_size = queue_size
        self._queue_size: int = queue_size or _DEFAULT_QUEUE_SIZE()
        self._delay = delay
        self.forget()

    def forget(self) -> None:
        """After a fork: forget what the parent process was about. The SDK does the same for its queue."""
        self._processor: BatchSpanProcessor | None = None
        self._send: Callable[[ReadableSpan], None] = self._send_first
        # Who waits for a flush, each with a queue of its own: nobody takes a lock that a signal handler or a destructor
        # which comes in between on the same thread would wait for.
        self._asked: deque[queue.SimpleQueue[None]] = deque(maxlen=_MOST_ASKED)
        # Held while there is a thread that flushes.
        self._flushing = threading.Lock()
        # What the SDK's queue holds is what was put in, less what the exporter got and what was lost. The SDK drops
        # spans without telling anybody; a count that another thread spoils now and then is better than none.
        self._sent = itertools.count(1).__next__
        self._room = self._queue_size
        self._exporter.taken = 0

    def send(self, span: ReadableSpan) -> None:
        """Queue an ended, sampled span. Never blocks: of a full queue the oldest span is dropped, and counted."""
        if self._sent() - self._exporter.taken > self._room:
            self._room += 1
            count(_DROPPED, reason="queue_full")
        self._send(span)

    def renew(self) -> None:
        """Start afresh in this process."""
        self.forget()
        self._processor = self._batches()
        self._send = self._processor.on_end

    def _send_first(self, span: ReadableSpan) -> None:
        self.renew()
        self._send(span)

    def _batches(self) -> BatchSpanProcessor:
        try:
            return BatchSpanProcessor(
                self._exporter,
                max_queue_size=self._queue_size,
                schedule_delay_millis=None if self._delay is None else self._delay * 1000,
                max_export_batch_size=None if self._given_size is None else min(_BATCH, self._given_size),
            )
        except ValueError as error:
            # The application runs already, and variables that contradict each other must not end that.
            logger.warning("OTEL_BSP_* cannot be used, the defaults are: %s", error)
            return BatchSpanProcessor(
                self._exporter,
                max_queue_size=max(_BATCH, self._queue_size),
                schedule_delay_millis=(self._delay or _DEFAULT_DELAY) * 1000,
                max_export_batch_size=_BATCH,
                export_timeout_millis=30_000,
            )

    def flush(self, timeout: float) -> bool:
        """
        Have everything exported that was sent so far, and wait for it.

        Args:
            timeout: Seconds to wait; the export goes on after that.

        Returns:
            Whether it was done in time.
        """
        if self._processor is None:
            return True
        answer: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asked.append(answer)
        if not self._have_flushed():
            return False
        try:
            answer.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return False
        return True

    def shutdown(self, timeout: float) -> bool:
        """
        Export what waits and shut the exporter down.

        Args:
            timeout: Seconds to wait; an exporter that hangs is left behind.

        Returns:
            Whether it was done in time.
        """
        end = self._exporter.shutdown if self._processor is None else self._processor.shutdown
        ending = threading.Thread(target=end, name="otel-scorer-shutdown", daemon=True)
        try:
            ending.start()
        except RuntimeError:  # no new threads once the interpreter exits; the SDK has a timeout of its own here
            ending.run()
            return True
        ending.join(max(0.0, timeout))
        return not ending.is_alive()

    def _have_flushed(self) -> bool:
        """See to it that a thread answers those who ask; there is never more than one."""
        if not self._flushing.acquire(blocking=False):
            return True
        try:
            threading.Thread(target=self._flush, name="otel-scorer-flush", daemon=True).start()
        except RuntimeError:  # no new threads once the interpreter exits; then the SDK exports by itself
            self._flushing.release()
            return False
        return True

    def _flush(self) -> None:
        while True:
            try:
                while self._asked:
                    answers = [self._asked.popleft() for _ in range(len(self._asked))]
                    if self._processor is not None:
                        self._processor.force_flush()
                    for answer in answers:
                        answer.put(None)
            finally:
                self._flushing.release()
            # Somebody may have asked between the last look and the release.
            if not self._asked or not self._flushing.acquire(blocking=False):
                return


def destination_of(exporter: object) -> tuple[str, str] | None:
    """
    Return what tells where an exporter sends to, as far as it can be seen; None where that cannot be seen.

    OTLP over gRPC and HTTP to one host count as the same: they are two ports of one backend as often as not.
    """
    endpoint = getattr(exporter, "_endpoint", None)
    if not isinstance(endpoint, str):
        return None
    is_otlp = any(base.__name__.startswith("OTLP") for base in type(exporter).__mro__)
    host = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname
    return ("otlp", host or endpoint) if is_otlp else (type(exporter).__name__, endpoint)


def exporters_beside(processor: SpanProcessor, span: Span) -> list[object]:
    """Return the exporters of the other processors of the provider that a started span comes from."""
    return _exporters(getattr(span, "_span_processor", None), processor)


def exporters_of(provider: TracerProvider) -> list[object]:
    """Return the exporters of a provider's processors, as far as they can be seen."""
    return _exporters(getattr(provider, "_active_span_processor", None), None)


def _exporters(of: object, but: SpanProcessor | None) -> list[object]:
    # The SDK has no public way to ask; without these attributes there is nobody to be found.
    siblings: object = getattr(of, "_span_processors", ())
    found = [
        getattr(sibling, "span_exporter", None)
        for sibling in (cast("Iterable[object]", siblings) if isinstance(siblings, tuple | list) else ())
        if sibling is not but and getattr(sibling, "exports_spans", True)
    ]
    return [exporter for exporter in found if exporter is not None]
