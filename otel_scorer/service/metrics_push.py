"""Sends the sidecar's own metrics to an OTLP endpoint, again and again, from a thread of its own."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]

from otel_scorer.errors import TransportError
from otel_scorer.model.wire import Signal
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit

if TYPE_CHECKING:
    from otel_scorer.service.own_metrics import OwnMetrics
    from otel_scorer.transport.exchange import Sender

__all__ = ["MetricsPush"]

logger = logging.getLogger(__name__)


class MetricsPush:
    """
    Sends all metrics every `interval` seconds, and once more at the end.

    What could not be sent is not sent again: the next metrics say it too, as they are cumulative.

    Args:
        metrics: Reads them.
        sender: Where they go; closed at the end.
        interval: Seconds from one time to the next.
        timeout: Seconds that the endpoint may take.
    """

    def __init__(self, metrics: OwnMetrics, sender: Sender, *, interval: float, timeout: float) -> None:
        self._metrics = metrics
        self._sender = sender
        self._interval = interval
        self._timeout = timeout
        self._stopping = threading.Event()
        self._log_limit = LogLimit()
        self._thread = threading.Thread(target=self._run, name="otel-scorer-metrics", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def shutdown(self, timeout: float) -> None:
        """Send what there is in the end, for at most `timeout` seconds."""
        self._timeout = min(self._timeout, max(0.1, timeout))
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        self._sender.close()

    def _run(self) -> None:
        context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
        is_over = False
        while not is_over:
            is_over = self._stopping.wait(self._interval)
            try:
                self._send()
            except Exception:
                # Whatever is wrong with these, the next ones may be sent.
                logger.exception("Cannot send the sidecar's own metrics")

    def _send(self) -> None:
        try:
            partial = self._sender.send(Signal.METRICS, self._metrics.request().SerializeToString(), self._timeout)
        except TransportError as error:
            count("telemetry.pushes", outcome="failed")
            if self._log_limit.allows("failed"):
                logger.warning("Cannot send the sidecar's own metrics: %s", error)
            return
        count("telemetry.pushes", outcome="sent" if partial is None else "partial")
        if partial is not None and self._log_limit.allows("partial"):
            logger.warning("Some of the sidecar's own metrics were refused: %s", partial.message[:300])
