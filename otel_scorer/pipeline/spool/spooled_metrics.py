"""
Verdicts as metrics, beside a spool: what is counted stays written down until a report of it is written down too.

A killed process leaves what it had counted and not reported, and the next one counts it again, once.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from otel_scorer.encoders.verdict import Verdict
from otel_scorer.model.wire import RawSpan, ScopeRef
from otel_scorer.pipeline.assembly.closing import ClosedTrace, CloseReason
from otel_scorer.pipeline.spool.taking import WHOLE, Parts
from otel_scorer.pipeline.verdicts.metrics import VerdictMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["COUNTS", "SpooledMetrics"]

COUNTS: Final = "verdict_counts"
"""The kind of outgoing data that is counted here."""


class SpooledMetrics:
    """
    A sink for verdicts, and the place that they go to once they are written down. See `VerdictMetrics`.

    Args:
        put: Has data of a kind written down.
        report_kind: The kind of reports.
        interval: Seconds between two reports.
        delta: Report what came since the last time, instead of what came since the start.
    """

    needs_trace: ClassVar[bool] = False

    def __init__(
        self, put: Callable[[str, bytes, int], None], report_kind: str, *, interval: float, delta: bool
    ) -> None:
        self._put = put
        self._report_kind = report_kind
        self._metrics = VerdictMetrics(self._report, interval=interval, delta=delta)
        self._lock = threading.Lock()  # guards everything below
        self._fresh: list[tuple[RawSpan, Sequence[Verdict]]] = []
        # What is to be called when what was counted need not be written down any longer: before a report, and in it.
        self._counted: list[Callable[[], None]] = []
        self._reports: deque[list[Callable[[], None]]] = deque()
        self._in_report = 0

    def add(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        """Take the verdicts on one span; they are counted when they are written down."""
        del trace
        with self._lock:
            self._fresh.append((target, verdicts))

    def flush(self) -> None:
        """Have written down what came, and report if it is time to."""
        self._write()
        self._metrics.flush()

    def finish(self) -> None:
        """Report now."""
        self._write()
        self._metrics.finish()

    def has_room(self, size: int) -> bool:
        """There always is."""
        del size
        return True

    def offer(
        self, data: bytes, items: int, since: Sequence[float], done: Callable[[], None], parts: Parts = WHOLE
    ) -> None:
        """Count what is written down; `done` is called when it is in a report."""
        del items, since, parts
        for resource, trace_id, span_id, verdicts in json.loads(data):
            scope = ScopeRef.of(base64.b64decode(resource), b"")
            target = RawSpan(b"", scope, bytes.fromhex(trace_id), bytes.fromhex(span_id), None, is_local_root=False)
            trace = ClosedTrace(target.trace_id, [target], CloseReason.END_OF_FILE, complete=False)
            self._metrics.add(trace, target, [_verdict(*each) for each in verdicts])
        with self._lock:
            self._counted.append(done)

    def reported(self) -> None:
        """Forget what is in the oldest report: that is written down."""
        with self._lock:
            dones = self._reports.popleft() if self._reports else []
        for done in dones:
            done()

    def _write(self) -> None:
        with self._lock:
            fresh, self._fresh = self._fresh, []
            # What is counted while a report is made may be in it or not.
            self._in_report = len(self._counted)
        if fresh:
            self._put(COUNTS, _pack(fresh), sum(len(verdicts) for _, verdicts in fresh))

    def _report(self, data: bytes, items: int) -> None:
        with self._lock:
            self._reports.append(self._counted[: self._in_report])
            del self._counted[: self._in_report]
            self._in_report = 0
        self._put(self._report_kind, data, items)


def _pack(found: Sequence[tuple[RawSpan, Sequence[Verdict]]]) -> bytes:
    return json.dumps([
        (
            base64.b64encode(target.scope.resource).decode(),
            target.trace_id.hex(),
            target.span_id.hex(),
            [(each.name, each.score, each.label, each.error_type) for each in verdicts],
        )
        for target, verdicts in found
    ]).encode()  # fmt: skip


def _verdict(name: str, score: float | None, label: str | None, error_type: str | None) -> Verdict:
    """Return as much of a verdict as metrics look at."""
    return Verdict(name, score, label, None, error_type, None, "", "", (), "", "", 1, 0, None)
