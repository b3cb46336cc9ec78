"""Verdicts beside the spans: as log records, and for whatever else takes each of them once, however spans are held."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar, Protocol

from otel_scorer.encoders.evaluation_span import own_scope
from otel_scorer.encoders.log_record import encode_log_record
from otel_scorer.encoders.target import Target
from otel_scorer.model.splicing import join_encoded
from otel_scorer.model.wire import ScopeRef
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_scorer.encoders.verdict import Verdict
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace

__all__ = ["LogSink", "VerdictOutlets", "VerdictSink"]


class VerdictSink(Protocol):
    """Takes every verdict once. Called from several threads; must neither block nor raise."""

    needs_trace: ClassVar[bool]
    """Whether a verdict means nothing there without its trace, so that traces that are not kept have none."""

    def add(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        """Take the verdicts on one span, or on the trace that it stands for."""
        ...

    def flush(self) -> None:
        """Hand on what was collected, now or when there is enough of it."""
        ...

    def finish(self) -> None:
        """Hand on everything: no more will come."""
        ...


class VerdictOutlets(Protocol):
    """Sinks, and what sends what they hand on, in one process."""

    @property
    def sinks(self) -> tuple[VerdictSink, ...]:
        """Take verdicts."""
        ...

    def start(self) -> None:
        """Begin to send."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait until everything is sent, for so many seconds at most, and return whether it is."""
        ...

    def shutdown(self, timeout: float) -> bool:
        """Send what waits, for so many seconds at most, and return whether all of it was sent."""
        ...


class LogSink:
    """
    Writes verdicts as log records.

    Args:
        on_logs: Takes an encoded ExportLogsServiceRequest and its number of records; must not block.
        attributes: Put on every record.
    """

    needs_trace: ClassVar[bool] = False

    def __init__(self, on_logs: Callable[[bytes, int], None], attributes: Mapping[str, str] | None = None) -> None:
        self._on_logs = on_logs
        self._attributes = attributes
        self._lock = threading.Lock()  # guards `_pending`
        self._pending: dict[ScopeRef, list[bytes]] = {}

    def add(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        """Write the verdicts on one span."""
        about = Target.of(target)
        records = [
            encode_log_record(
                verdict, about, close_reason=trace.reason.value, complete=trace.complete, more=self._attributes
            )
            for verdict in verdicts
        ]
        scope = ScopeRef.of(target.scope.resource, own_scope())
        with self._lock:
            self._pending.setdefault(scope, []).extend(records)

    def flush(self) -> None:
        """Hand on all records in one request: resources and scopes are encoded alike in all signals."""
        with self._lock:
            pending, self._pending = self._pending, {}
        if pending:
            records = sum(map(len, pending.values()))
            count("encoder.verdicts", records, encoding="logs")
            self._on_logs(join_encoded(pending), records)

    def finish(self) -> None:
        """Hand on all records."""
        self.flush()
