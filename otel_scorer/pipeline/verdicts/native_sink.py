"""Verdicts as scores of one backend, ready for its own API."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from otel_scorer.encoders.native import native_id
from otel_scorer.telemetry import count
from otel_scorer.transport.native_score import NativeScore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.encoders.verdict import Verdict
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace

__all__ = ["NativeSink"]


class NativeSink:
    """
    Hands verdicts to a delivery, each at once.

    Args:
        name: The backend, for self-metrics.
        encode: Returns the body for a verdict, the id of its trace and of its span; None: there is no place for it.
        offer: Takes scores; must not block.
    """

    needs_trace: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        encode: Callable[[Verdict, str, str | None], bytes | None],
        offer: Callable[[Iterable[NativeScore]], None],
    ) -> None:
        self._name = name
        self._encode = encode
        self._offer = offer

    def add(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Sequence[Verdict]) -> None:
        """Send the verdicts on one span, or on the trace that it stands for."""
        trace_id = trace.trace_id.hex()
        scores: list[NativeScore] = []
        for verdict in verdicts:
            # The span that the verdict rides on, should the one that it names not be in the trace.
            span_id = None if verdict.span_id is None else target.span_id.hex()
            body = self._encode(verdict, trace_id, span_id)
            if body is not None:
                scores.append(NativeScore(native_id(verdict, trace_id, span_id), trace_id, span_id, body))
        count("native.left_out", len(verdicts) - len(scores), destination=self._name)
        count("encoder.verdicts", len(scores), encoding="native")
        self._offer(scores)

    def flush(self) -> None:
        """Do nothing: there is nothing that waits here."""

    def finish(self) -> None:
        """Do nothing: the delivery sends what waits when it is shut down."""
