"""The door between a receiver and the pipeline: counts who is inside, and lets nobody in once it is closed."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from otel_scorer.errors import OverloadedError, RequestError
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit
from otel_scorer.transport.responses import Refusal, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.wire import Signal
    from otel_scorer.transport.exchange import PartialSuccess

__all__ = ["Admission"]

_logger = logging.getLogger(__name__)


class Admission:
    """Runs the calls of one receiver into the pipeline, on the receiver's threads."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._inside = 0
        self._closed = False
        self._changed = threading.Condition()  # guards _inside and _closed
        self._log_limit = LogLimit()

    def answer(self, signal: Signal, call: Callable[[], PartialSuccess | None]) -> PartialSuccess | Refusal | None:
        """Run `call` unless closed, and return its result, or what to tell the client about its error."""
        answer: PartialSuccess | Refusal | None
        try:
            answer = self._enter_and(call)
        except RequestError as error:
            answer = refusal(error)
        except Exception as error:  # whatever went wrong with one request, the server answers it and lives
            if self._log_limit.allows(type(error).__qualname__):
                _logger.exception("Cannot handle a %s request; reported once a minute", signal)
            answer = refusal(error)
        self.count(signal, answer)
        return answer

    def count(self, signal: Signal, answer: PartialSuccess | Refusal | None) -> None:
        """Count a request that was answered."""
        success = "ok" if answer is None else "partial"
        outcome = answer.outcome if isinstance(answer, Refusal) else success
        count("receiver.requests", signal=signal, protocol=self._protocol, outcome=outcome)

    def close(self, timeout: float) -> bool:
        """Let nobody in any more and wait for those inside. Return whether all have left."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            while self._inside and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._inside

    def _enter_and(self, call: Callable[[], PartialSuccess | None]) -> PartialSuccess | None:
        with self._changed:
            if self._closed:
                raise OverloadedError("Shutting down")
            self._inside += 1
        try:
            partial = call()
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()
        # OTLP: partial_success must be unset on full success.
        return partial if partial is not None and (partial.rejected or partial.message) else None
