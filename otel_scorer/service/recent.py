"""The last traces that were scored, for whoever looks: few of them, and little of each."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from otel_scorer.encoders.target import target_of
from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.feedback import AssessmentError, Feedback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace

__all__ = ["RecentTraces"]

_TRACES: Final = 100
_VERDICTS: Final = 20
_WHY: Final = 600
_VALUE: Final = 120
# A root with more than this is not kept: then nobody knows what the trace is called.
_ROOT_BYTES: Final = 32 * 1024
_NANOSECONDS: Final = 1_000_000_000
# Values whose size is known without a look.
_FIXED: Final = frozenset({type(None), bool, float})
_INTEGER_BITS: Final = 64


class _Kept(NamedTuple):
    """A trace, cut to size: 100 of them take 5 MB at most."""

    at: float
    trace_id: bytes
    root: RawSpan | None
    spans: int
    close_reason: str
    complete: bool
    revision: int
    decisions: Sequence[Decision]
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
        more = 0
        if not self._with_reasons or len(decisions) > _VERDICTS or not all(map(_is_small, decisions)):
            decisions, more = self._cut(decisions)
        kept = _Kept(
            self._now(),
            trace.trace_id,
            root,
            len(trace.spans),
            trace.reason.value,
            trace.complete,
            trace.revision,
            decisions,
            more,
        )
        with self._lock:
            self._kept.append(kept)

    def to_data(self) -> list[dict[str, Any]]:
        """Return them as plain JSON data, the last one first."""
        with self._lock:
            kept = list(self._kept)
        return [_described(trace) for trace in reversed(kept)]

    def _cut(self, decisions: Sequence[Decision]) -> tuple[list[Decision], int]:
        """Return the beginning of the decisions, and how many verdicts are left out."""
        room = _VERDICTS
        found: list[Decision] = []
        for decision in decisions:
            if room <= 0:
                break
            feedbacks = tuple(map(self._shortened, decision.feedbacks[:room]))
            reason = decision.reason[:_WHY] if decision.reason and self._with_reasons else None
            passed = decision.passed[: len(feedbacks)]
            found.append(replace(decision, feedbacks=feedbacks, passed=passed, reason=reason))
            room -= max(1, len(feedbacks))
        verdicts = sum(max(1, len(decision.feedbacks)) for decision in decisions)
        return found, verdicts - (_VERDICTS - max(0, room))

    def _shortened(self, feedback: Feedback) -> Feedback:
        error = feedback.error
        if error is not None:
            message = str(error.error_message or "")[:_WHY] if self._with_reasons else None
            error = AssessmentError(str(error.error_code)[:_VALUE], message)
        return Feedback(
            str(feedback.name)[:_VALUE],
            None if feedback.value is None else _shown(feedback.value)[:_VALUE],
            error,
            rationale=str(feedback.rationale)[:_WHY] if feedback.rationale and self._with_reasons else None,
            span_id=feedback.span_id[:_VALUE] if feedback.span_id else None,
            create_time_ms=feedback.create_time_ms,
        )


def _is_small(decision: Decision) -> bool:
    """Whether a decision can be kept as it is: one verdict, and short texts."""
    if len(decision.feedbacks) != 1:
        return not decision.feedbacks and len(decision.reason or "") <= _WHY
    (feedback,) = decision.feedbacks
    return (
        feedback.error is None
        and not feedback.metadata
        and _is_short(feedback.value)
        and len(feedback.rationale or "") <= _WHY
        and len(feedback.name) <= _VALUE
        and len(feedback.span_id or "") <= _VALUE
        and (feedback.source is None or len(feedback.source.source_id) <= _VALUE)
        and len(decision.reason or "") <= _WHY
    )


def _is_short(value: object) -> bool:
    kind = type(value)
    return (
        kind in _FIXED
        or (kind is str and len(cast("str", value)) <= _VALUE)
        or (kind is int and cast("int", value).bit_length() <= _INTEGER_BITS)
    )


def _verdicts(decisions: Sequence[Decision]) -> Iterator[dict[str, Any]]:
    """Describe each feedback, and each decision without any."""
    for decision in decisions:
        if not decision.feedbacks:
            kind, value = "skipped", decision.outcome.value
            yield _verdict(decision, decision.scorer, value, kind, decision.reason or "", decision.span_id)
        passes = decision.passed or (None,) * len(decision.feedbacks)
        for feedback, passed in zip(decision.feedbacks, passes, strict=False):
            error = feedback.error
            if error is not None:
                value, kind, why = str(error.error_code), "error", error.error_message or ""
            else:
                kind = "value" if passed is None else "pass" if passed else "fail"
                kind = "none" if feedback.value is None else kind
                value, why = _shown(feedback.value), feedback.rationale or ""
            yield _verdict(decision, feedback.name, value, kind, why, feedback.span_id or decision.span_id)


def _verdict(decision: Decision, name: str, value: str, kind: str, why: str, span_id: str | None) -> dict[str, Any]:  # noqa: PLR0917 - one line of the page
    return {
        "scorer": decision.scorer,
        "name": name,
        "value": value[:_VALUE],
        "kind": kind,
        "why": why,
        "span_id": span_id,
        "seconds": decision.seconds,
    }


def _shown(value: object) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _described(kept: _Kept) -> dict[str, Any]:
    name = service = seconds = None
    if kept.root is not None:
        (span,) = spans_from_raw([kept.root])
        name, seconds = span.name[:_VALUE], span.duration_ns / _NANOSECONDS
        service = str(span.resource.get("service.name", ""))[:_VALUE]
    return {
        "at": kept.at,
        "trace_id": kept.trace_id.hex(),
        "name": name,
        "service": service,
        "seconds": seconds,
        "spans": kept.spans,
        "close_reason": kept.close_reason,
        "complete": kept.complete,
        "revision": kept.revision,
        "verdicts": list(_verdicts(kept.decisions)),
        "more": kept.more,
    }
