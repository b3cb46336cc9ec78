"""
Where a verdict goes inside the application: onto a copy of its target if that still waits here, else into a span.

The same rules as in `emission`, for the SDK's spans.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from otel_scorer.encoders.on_span import span_attributes
from otel_scorer.encoders.sdk import (
    EnrichedSpan,
    evaluation_readable_span,
    raw_span_of,
    sdk_target_of,
    verdict_event,
)
from otel_scorer.encoders.verdict import Verdict, verdicts_of
from otel_scorer.pipeline.assembly.closing import ClosedTrace
from otel_scorer.pipeline.verdicts.emission import ON_SPAN, Emission, Emit
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.in_app.units import ClosedUnit

__all__ = ["AppEmitter"]

logger = logging.getLogger(__name__)


class AppEmitter:
    """
    Writes verdicts and sends them on.

    Args:
        emission: Which ways are used.
        send: Takes a span to export; must not block.
    """

    def __init__(self, emission: Emission, send: Callable[[ReadableSpan], None]) -> None:
        self._emission = emission
        self._send = send
        self._on_span = emission.emit & ON_SPAN
        # What was to ride on a span that has left goes into one of its own, whether that was asked for or not.
        self._adds_spans = bool(emission.emit & {*ON_SPAN, Emit.EVALUATION_SPAN})

    def emit(self, unit: ClosedUnit[ReadableSpan], decisions: Iterable[Decision]) -> None:
        """Write verdicts on a unit of which every span has left."""
        for target, verdicts in self._by_target(unit, decisions):
            if self._adds_spans:
                self._add_spans(unit, target, verdicts)

    def flush(self) -> None:
        """Have what stands beside spans handed on, as far as it is time to."""
        for sink in self._emission.sinks:
            sink.flush()

    def finish(self) -> None:
        """Have what stands beside spans handed on now."""
        for sink in self._emission.sinks:
            sink.finish()

    def release(
        self, unit: ClosedUnit[ReadableSpan], held: Sequence[ReadableSpan], decisions: Iterable[Decision]
    ) -> None:
        """Send the held spans with the verdicts on those of them that are targets, and the other verdicts as spans."""
        here = {id(span): index for index, span in enumerate(held)}
        spans = list(held)
        loose: list[tuple[ReadableSpan, list[Verdict]]] = []
        for target, verdicts in self._by_target(unit, decisions):
            index = here.get(id(target))
            if index is not None and self._on_span:
                spans[index] = self._enriched(unit, target, verdicts)
            if Emit.EVALUATION_SPAN in self._emission.emit or (index is None and self._adds_spans):
                loose.append((target, verdicts))
        for span in spans:
            self._send(span)
        for target, verdicts in loose:
            self._add_spans(unit, target, verdicts)

    def _by_target(
        self, unit: ClosedUnit[ReadableSpan], decisions: Iterable[Decision]
    ) -> list[tuple[ReadableSpan, list[Verdict]]]:
        verdicts = [item for decision in decisions for item in verdicts_of(decision, self._emission.explanations)]
        main = (unit.root or sdk_target_of(unit.spans)) if verdicts else None
        if main is None:
            count("encoder.verdicts_dropped", len(verdicts), reason="no_span")
            return []
        by_id: dict[str, ReadableSpan] = {}
        if any(verdict.span_id is not None for verdict in verdicts):
            by_id = {format(span.context.span_id, "016x"): span for span in unit.spans if span.context is not None}
        grouped: dict[int, tuple[ReadableSpan, list[Verdict]]] = {}
        for verdict in verdicts:
            span = main
            if verdict.span_id is not None:
                span = by_id.get(verdict.span_id, main)
                count("encoder.unknown_targets", int(verdict.span_id not in by_id))
            grouped.setdefault(id(span), (span, []))[1].append(verdict)
        found = list(grouped.values())
        if self._emission.sinks:
            self._put_beside(unit, found)
        return found

    def _put_beside(
        self, unit: ClosedUnit[ReadableSpan], found: Iterable[tuple[ReadableSpan, Sequence[Verdict]]]
    ) -> None:
        """Hand verdicts to what writes about received spans."""
        trace: ClosedTrace[RawSpan] = ClosedTrace(unit.trace_id, [], unit.reason, unit.complete, revision=unit.revision)
        try:
            for span, verdicts in found:
                target = raw_span_of(span)
                for sink in self._emission.sinks:
                    sink.add(trace, target, verdicts)
            self.flush()
        except Exception:  # the spans that wait for the verdicts must leave all the same
            count("processor.errors", where="emit")
            logger.exception("Verdicts could not be written beside spans")

    def _add_spans(self, unit: ClosedUnit[ReadableSpan], target: ReadableSpan, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            span = evaluation_readable_span(verdict, target, close_reason=unit.reason.value, complete=unit.complete)
            self._send(span)
        count("encoder.verdicts", len(verdicts), encoding=Emit.EVALUATION_SPAN.value)

    def _enriched(
        self, unit: ClosedUnit[ReadableSpan], target: ReadableSpan, verdicts: Sequence[Verdict]
    ) -> EnrichedSpan:
        attributes = {}
        if Emit.ATTRIBUTES in self._on_span:
            attributes = span_attributes(verdicts, close_reason=unit.reason.value, complete=unit.complete)
        events = [verdict_event(verdict, target) for verdict in verdicts] if Emit.EVENTS in self._on_span else []
        for kind in self._on_span:
            count("encoder.verdicts", len(verdicts), encoding=kind.value)
        return EnrichedSpan(target, attributes, events)
