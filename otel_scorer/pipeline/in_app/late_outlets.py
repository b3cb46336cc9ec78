"""
Outlets for verdicts beside spans that open on a thread of ours: making connections takes longer than a span may.

Verdicts that come before they are open wait here.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, ClassVar, Final

from otel_scorer.pipeline.running.suppression import suppressed
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.encoders.verdict import Verdict
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace
    from otel_scorer.pipeline.verdicts.sinks import VerdictOutlets, VerdictSink

__all__ = ["LateOutlets"]

# Verdicts that may wait for the outlets to open.
_ROOM: Final = 10_000


class LateOutlets:
    """
    Begins to open outlets with `start`, and has one sink for all of theirs.

    Args:
        make: Makes the outlets.
        on_failure: Is told why they cannot be used; all verdicts are dropped then.
    """

    def __init__(self, make: Callable[[], VerdictOutlets], on_failure: Callable[[Exception], None]) -> None:
        self._make = make
        self._on_failure = on_failure
        self._lock = threading.RLock()  # guards what waits, and that it goes first
        self._waiting: list[tuple[ClosedTrace[RawSpan], RawSpan, Sequence[Verdict]]] = []
        self._count = 0
        self._outlets: VerdictOutlets | None = None
        self._is_over = False
        self._is_decided = threading.Event()
        self.sink = _LateSink(self)
        """Takes verdicts."""

    @property
    def sinks(self) -> tuple[VerdictSink, ...]:
        """Take verdicts at once, wherever they are by now."""
        return (self.sink,)

    def start(self) -> None:
        """Begin to open them."""
        try:
            threading.Thread(target=self._open, name="otel-scorer-outlets", daemon=True).start()
        except RuntimeError as error:  # no new threads once the interpreter exits
            self._give_up(error)

    def flush(self, timeout: float) -> bool:
        """Wait until they are open and everything is sent, for so many seconds at most, and return whether it is."""
        deadline = time.monotonic() + timeout
        is_decided = self._is_decided.wait(max(0.0, timeout))
        if self._outlets is None:
            return is_decided
        self.sink.finish()
        return self._outlets.flush(max(0.0, deadline - time.monotonic()))

    def shutdown(self, timeout: float) -> bool:
        """Send what waits, for so many seconds at most, and return whether all of it was sent."""
        deadline = time.monotonic() + timeout
        self._is_decided.wait(max(0.0, timeout))
        with self._lock:
            self._is_over = True
            is_sent = not self._waiting
            self._drop("shutdown")
        if self._outlets is None:
            return is_sent
        self.sink.finish()
        return self._outlets.shutdown(max(0.0, deadline - time.monotonic())) and is_sent

    def hand_on(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        """Take the verdicts on one span."""
        with self._lock:
            outlets = self._outlets
            if outlets is None:
                self._keep(trace, target, verdicts)
                return
        for sink in outlets.sinks:
            sink.add(trace, target, verdicts)

    def opened(self) -> tuple[VerdictSink, ...]:
        """Return the sinks of the outlets, none as long as they are not open."""
        return () if self._outlets is None else self._outlets.sinks

    def _keep(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        """Keep verdicts until the outlets are open; the lock is held."""
        if self._is_over or self._is_decided.is_set():
            count("encoder.verdicts_dropped", len(verdicts), reason="no_outlet")
        elif self._count + len(verdicts) > _ROOM:
            count("encoder.verdicts_dropped", len(verdicts), reason="outlets_not_open")
        else:
            self._waiting.append((trace, target, verdicts))
            self._count += len(verdicts)

    def _drop(self, reason: str) -> None:
        count("encoder.verdicts_dropped", self._count, reason=reason)
        self._waiting, self._count = [], 0

    def _open(self) -> None:
        # Threading instrumentations give a new thread the context of whoever started it: an application's span.
        with suppressed():
            try:
                outlets = self._make()
                outlets.start()
            except Exception as error:  # noqa: BLE001 - spans, and verdicts on them, leave all the same
                self._give_up(error)
                return
            with self._lock:
                waiting, self._waiting, self._count = self._waiting, [], 0
                is_over, self._outlets = self._is_over, outlets
                for trace, target, verdicts in waiting:
                    self.hand_on(trace, target, verdicts)
                self._is_decided.set()
            if is_over:
                outlets.shutdown(0.0)
            self.sink.flush()

    def _give_up(self, error: Exception) -> None:
        self._on_failure(error)
        with self._lock:
            self._is_decided.set()
            self._drop("no_outlet")


class _LateSink:
    needs_trace: ClassVar[bool] = False

    def __init__(self, outlets: LateOutlets) -> None:
        self._outlets = outlets

    def add(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        self._outlets.hand_on(trace, target, verdicts)

    def flush(self) -> None:
        for sink in self._outlets.opened():
            sink.flush()

    def finish(self) -> None:
        for sink in self._outlets.opened():
            sink.finish()
