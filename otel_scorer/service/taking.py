"""What becomes of a request once it is admitted, where that is more than one call."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import OverloadedError, QueueFullError
from otel_scorer.model.wire import Signal, check_request
from otel_scorer.transport.endpoints import Lane
from otel_scorer.transport.exchange import PartialSuccess

if TYPE_CHECKING:
    from otel_scorer.pipeline.sidecar.engine import Engine
    from otel_scorer.pipeline.spool.spooling import Spooling
    from otel_scorer.stores.spool_rows import SpooledRequest
    from otel_scorer.transport.forwarder import Forwarder

__all__ = ["LANES", "QUEUE_RETRY", "join_logs", "pass_on", "take_spooled"]

logger = logging.getLogger(__name__)

LANES: Final = {Signal.TRACES: Lane.SPANS, Signal.LOGS: Lane.LOGS, Signal.METRICS: Lane.METRICS}
"""Where requests go."""
QUEUE_RETRY: Final = 1.0
"""Seconds after which a client may try again where there was no room."""


def take_spooled(engine: Engine, spooling: Spooling, request: SpooledRequest) -> PartialSuccess | None:
    """Handle a request that is written down."""
    if request.signal is Signal.TRACES:
        rejected, message = engine.ingest(request.data, request)
        return PartialSuccess(rejected, message) if rejected else None
    items = check_request(request.signal, request.data)
    spooling.outlet(request)(request.data, items, ())
    if request.signal is Signal.LOGS:
        join_logs(engine, request.data, request)
    return None


def join_logs(engine: Engine, data: bytes, spooled: SpooledRequest | None = None) -> None:
    """Let scorers see what is in logs. Whatever goes wrong costs them the content, and the sender nothing."""
    try:
        engine.ingest_logs(data, spooled)
    except Exception:
        logger.exception("Cannot join log records to traces")


def pass_on(forwarder: Forwarder, engine: Engine, signal_: Signal, data: bytes) -> None:
    """
    Forward a request that is not written down.

    Raises:
        RequestError: It is not usable, or there is no room for it.
    """
    items = check_request(signal_, data)
    try:
        forwarder.offer(LANES[signal_], data, items)
    except QueueFullError as error:
        raise OverloadedError(str(error), retry_after=QUEUE_RETRY) from error
    if signal_ is Signal.LOGS:
        join_logs(engine, data)
