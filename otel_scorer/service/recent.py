"""The last traces that were scored, for whoever looks: few of them, and little of each."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_scorer.encoders.target import target_of
from otel_scorer.model.decode import spans_from_raw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.feedback import Feedback
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.closing import ClosedTrace

__all__ = ["RecentTraces"]

_TRACES: Final = 100
_VERDICTS: Final = 20
_WHY: Final = 600
_VALUE: Final = 120
# A root with more than this is not kept: then nobody knows what the trace is called.
_ROOT_BYTES: Final = 32 * 1024
_NANOSECONDS: Final = 1_000_000_000


class _Verdict(NamedTuple):
    """One feedback, or a decision without any, cut to size."""

    scorer: str
    name: str
    value: str
    kind: str
    why: str
    span_id: str | None
    seconds: float | None


class _Kept(NamedTuple):
    """A trace, cut to size: 100 of them take 5 MB at most."""

    at: float
    trace_id: str
    root: RawSpan | None
    spans: int
    close_reason: str
    complete: bool
    revision: int
    verdicts: tuple[_Verdict, ...]
    more: int


class RecentTraces:
    """
    Keeps what was decided about the last 100 traces.

    Args:
        with_reasons: Whether rationales are kept, which may quote user data.
        now: Seconds since the epoch.
    """

    def __init__(self, *, with_reasons: bool = True, now: Callable[[], float] = time.time) -> None:
        self._with_reasons = with_reasons
        self._now = now
        self._lock = threading.Lock()  # guards the traces: workers' threads add, the server's reads
        self._kept: deque[_Kept] = deque(maxlen=_TRACES)

    def keep(self, trace: ClosedTrace[RawSpan], decisions: Sequence[Decision]) -> None:
        """Take a trace that is decided; what runs for every trace, so what can wait for somebody to look does."""
        root = target_of(trace.spans)
        if root is not None and len(root.data) + len(root.scope.resource) + len(root.scope.scope) > _ROOT_BYTES:
            root = None
        verdicts = tuple(self._verdicts(decisions))
        shown = sum(max(1, len(decision.feedbacks)) for decision in decisions)
        kept = _Kept(
            self._now(),
            trace.trace_id.hex(),
            root,
            len(trace.spans),
            trace.reason.value,
            trace.complete,
            trace.revision,
            verdicts,
            shown - len(verdicts),
        )
        with self._lock:
            self._kept.append(kept)

    def to_data(self) -> list[dict[str, Any]]:
        """Return them as plain JSON data, the last one first."""
        with self._lock:
            kept = list(self._kept)
        return [_described(trace) for trace in reversed(kept)]

    def _verdicts(self, decisions: Sequence[Decision]) -> list[_Verdict]:
        found: list[_Verdict] = []
        for decision in decisions:
            if len(found) >= _VERDICTS:
                break
            if not decision.feedbacks:
                why = (decision.reason or "")[:_WHY] if self._with_reasons else ""
                outcome = decision.outcome.value
                found.append(
                    _Verdict(
                        decision.scorer, decision.scorer, outcome, "skipped", why, decision.span_id, decision.seconds
                    )
                )
            passes = decision.passed or (None,) * len(decision.feedbacks)
            for feedback, passed in zip(decision.feedbacks, passes, strict=False):
                found.append(self._verdict(decision, feedback, passed=passed))
        return found[:_VERDICTS]

    def _verdict(self, decision: Decision, feedback: Feedback, *, passed: bool | None) -> _Verdict:
        error = feedback.error
        if error is not None:
            value, kind, why = str(error.error_code), "error", error.error_message or ""
        else:
            kind = "value" if passed is None else "pass" if passed else "fail"
            kind = "none" if feedback.value is None else kind
            given = feedback.value
            value = given if isinstance(given, str) else f"{given:.6g}" if isinstance(given, float) else str(given)
            why = feedback.rationale or ""
        why = str(why)[:_WHY] if self._with_reasons else ""
        span_id = feedback.span_id or decision.span_id
        return _Verdict(
            decision.scorer, str(feedback.name)[:_VALUE], value[:_VALUE], kind, why, span_id, decision.seconds
        )


def _described(kept: _Kept) -> dict[str, Any]:
    name = service = seconds = None
    if kept.root is not None:
        (span,) = spans_from_raw([kept.root])
        name, seconds = span.name[:_VALUE], span.duration_ns / _NANOSECONDS
        service = str(span.resource.get("service.name", ""))[:_VALUE]
    return {
        "at": kept.at,
        "trace_id": kept.trace_id,
        "name": name,
        "service": service,
        "seconds": seconds,
        "spans": kept.spans,
        "close_reason": kept.close_reason,
        "complete": kept.complete,
        "revision": kept.revision,
        "verdicts": [verdict._asdict() for verdict in kept.verdicts],
        "more": kept.more,
    }
