"""
Where a verdict goes: onto its target if that has not been sent yet, into a span of its own, and to sinks beside spans.

A span cannot be updated once a backend has it, so a verdict that was to ride on one that has left becomes an evaluation
span. Sinks (log records, metrics, score APIs) take every verdict once, wherever spans are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.encoders.evaluation_span import encode_evaluation_span, own_scope
from otel_scorer.encoders.on_span import encode_attributes, encode_event, span_attributes
from otel_scorer.encoders.target import Target, target_of
from otel_scorer.encoders.verdict import Explanations, Verdict, verdicts_of
from otel_scorer.model.splicing import enrich_span, join_encoded
from otel_scorer.model.wire import RawSpan, ScopeRef
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_scorer.model.decision import Decision
    from otel_scorer.pipeline.assembly.assembler import ClosedTrace
    from otel_scorer.pipeline.keeping.triage import Fate
    from otel_scorer.pipeline.verdicts.sinks import VerdictSink

__all__ = ["ON_SPAN", "Emission", "Emit", "Emitter", "Outlet"]

Outlet: TypeAlias = Callable[[bytes, int, Sequence[float]], None]
"""Takes an encoded ExportTraceServiceRequest, its number of spans, and when the traces ended that it judges."""


class Emit(StrEnum):
    """One way to write a verdict."""

    EVALUATION_SPAN = "evaluation_span"
    ATTRIBUTES = "attributes"
    EVENTS = "events"
    LOGS = "logs"
    METRICS = "metrics"
    NATIVE = "native"


ON_SPAN: Final = frozenset({Emit.ATTRIBUTES, Emit.EVENTS})
"""These are written on the target itself."""


@dataclass(frozen=True, slots=True)
class Emission:
    """
    Which ways are used, together.

    Attributes:
        emit: The ways.
        explanations: How much of a rationale is sent.
        sinks: What takes verdicts beside spans.
        span_lasts_ns: How long an evaluation span lasts, nanoseconds.
    """

    emit: frozenset[Emit] = frozenset({Emit.EVALUATION_SPAN})
    explanations: Explanations = Explanations.FULL
    sinks: tuple[VerdictSink, ...] = ()
    span_lasts_ns: int = 0


class Emitter:
    """Writes verdicts. Evaluation spans are collected until `flush`, so that many traces share a request."""

    def __init__(self, emission: Emission, on_scores: Outlet) -> None:
        """
        Collect nothing yet.

        Args:
            emission: How verdicts are written.
            on_scores: Takes evaluation spans.
        """
        self._emission = emission
        self._on_scores = on_scores
        # What was to ride on a span that has left goes into one of its own, whether that was asked for or not.
        self._adds_spans = bool(emission.emit & {*ON_SPAN, Emit.EVALUATION_SPAN})
        self._lock = threading.Lock()  # guards `_pending`: results and deadlines come from different threads
        self._pending: dict[bytes, list[bytes]] = {}  # evaluation spans by the resource of their targets
        self._since: list[float] = []
        self.writes_on_spans = bool(emission.emit & ON_SPAN)
        """Whether verdicts ride on spans that were held for them."""

    def emit(
        self,
        trace: ClosedTrace[RawSpan],
        decisions: Iterable[Decision],
        fate: Fate | None = None,
        *,
        is_timed: bool = True,
    ) -> None:
        """
        Write the verdicts of decisions on a trace of which every span has left, or never will.

        About a trace that is not kept nothing is written where it would be looked for. With `is_timed` the end of the
        trace is handed on with them.
        """
        is_kept = fate is None or fate.is_kept
        found = self._by_target(trace, decisions, is_kept=is_kept)
        if self._adds_spans and is_kept:
            self._add_spans(trace, found, fate, is_timed=is_timed)
        elif self._adds_spans:
            count("encoder.verdicts_dropped", sum(len(verdicts) for _, verdicts in found), reason="not_kept")

    def enrich(
        self,
        trace: ClosedTrace[RawSpan],
        held: Sequence[RawSpan],
        decisions: Sequence[Decision],
        fate: Fate | None = None,
        *,
        is_timed: bool = True,
    ) -> list[RawSpan]:
        """
        Return the held spans with the verdicts on those of them that are targets; write the others as spans.

        Where not all traces are kept, each span says for how many it stands. With `is_timed` the end of the trace is
        handed on with the spans that are written, unless the caller does so with the held ones as verdicts are on them.
        """
        found = self._by_target(trace, decisions)
        spans = list(held)
        if self.writes_on_spans:
            found = self._write_on(trace, found, spans)
        if self._adds_spans:
            self._add_spans(trace, found, fate, is_timed=is_timed and not self.writes_on_spans)
        return spans if fate is None else [span._replace(data=fate.mark(span.data)) for span in spans]

    def flush(self) -> None:
        """Hand on what was collected."""
        with self._lock:
            pending, self._pending = self._pending, {}
            since, self._since = self._since, []
        if pending:
            spans = sum(map(len, pending.values()))
            count("encoder.verdicts", spans, encoding=Emit.EVALUATION_SPAN.value)
            scopes = {ScopeRef.of(resource, own_scope()): encoded for resource, encoded in pending.items()}
            self._on_scores(join_encoded(scopes), spans, since)
        for sink in self._emission.sinks:
            sink.flush()

    def finish(self) -> None:
        """Hand on everything: no more verdicts will come."""
        self.flush()
        for sink in self._emission.sinks:
            sink.finish()

    def _by_target(
        self, trace: ClosedTrace[RawSpan], decisions: Iterable[Decision], *, is_kept: bool = True
    ) -> list[tuple[RawSpan, list[Verdict]]]:
        explanations = self._emission.explanations
        verdicts = [verdict for decision in decisions for verdict in verdicts_of(decision, explanations)]
        if not verdicts:
            return []
        main = target_of(trace.spans)
        if main is None:
            count("encoder.verdicts_dropped", len(verdicts), reason="no_span")
            return []
        found = [(main, verdicts)]
        if any(verdict.span_id is not None for verdict in verdicts):
            found = _grouped(verdicts, main, trace.spans)
        for sink in self._emission.sinks:
            if is_kept or not sink.needs_trace:
                for span, about_it in found:
                    sink.add(trace, span, about_it)
        return found

    def _add_spans(
        self,
        trace: ClosedTrace[RawSpan],
        given: Sequence[tuple[RawSpan, Sequence[Verdict]]],
        fate: Fate | None,
        *,
        is_timed: bool,
    ) -> None:
        """Put verdicts about spans of one trace with what is sent next."""
        if not given:
            return
        reason, complete = str(trace.reason), trace.complete
        found: list[tuple[bytes, list[bytes]]] = []
        for span, verdicts in given:
            target = Target.of(span, self._emission.span_lasts_ns)
            encoded = [
                encode_evaluation_span(verdict, target, close_reason=reason, complete=complete) for verdict in verdicts
            ]
            if fate is not None:
                encoded = [fate.mark(data) for data in encoded]
            found.append((span.scope.resource, encoded))
        with self._lock:
            for resource, encoded in found:
                self._pending.setdefault(resource, []).extend(encoded)
            if is_timed:
                self._since.append(trace.last)

    def _write_on(
        self, trace: ClosedTrace[RawSpan], found: Iterable[tuple[RawSpan, list[Verdict]]], spans: list[RawSpan]
    ) -> list[tuple[RawSpan, list[Verdict]]]:
        """Put verdicts on those of the spans that are their targets; return which need spans of their own."""
        here = {id(span): index for index, span in enumerate(spans)}
        apart: list[tuple[RawSpan, list[Verdict]]] = []
        for span, verdicts in found:
            index = here.get(id(span))
            if index is not None:
                spans[index] = self._enriched(trace, span, verdicts)
            if index is None or Emit.EVALUATION_SPAN in self._emission.emit:
                apart.append((span, verdicts))
        return apart

    def _enriched(self, trace: ClosedTrace[RawSpan], span: RawSpan, verdicts: Sequence[Verdict]) -> RawSpan:
        attributes: dict[str, bytes] = {}
        events: list[bytes] = []
        if Emit.ATTRIBUTES in self._emission.emit:
            attributes = encode_attributes(
                span_attributes(verdicts, close_reason=trace.reason.value, complete=trace.complete)
            )
            count("encoder.verdicts", len(verdicts), encoding=Emit.ATTRIBUTES.value)
        if Emit.EVENTS in self._emission.emit:
            end = Target.of(span).end_time_ns
            events = [encode_event(verdict, end) for verdict in verdicts]
            count("encoder.verdicts", len(verdicts), encoding=Emit.EVENTS.value)
        data = enrich_span(span.data, attributes, events)
        return span._replace(data=data)


def _grouped(
    verdicts: Sequence[Verdict], main: RawSpan, spans: Sequence[RawSpan]
) -> list[tuple[RawSpan, list[Verdict]]]:
    """Return verdicts by the span that each is about; those on the trace, or on a span that is not here, go to one."""
    by_id = {span.span_id.hex(): span for span in reversed(spans)}
    grouped: dict[int, tuple[RawSpan, list[Verdict]]] = {}
    for verdict in verdicts:
        span = main
        if verdict.span_id is not None:
            span = by_id.get(verdict.span_id, main)
            count("encoder.unknown_targets", int(verdict.span_id not in by_id))
        grouped.setdefault(id(span), (span, []))[1].append(verdict)
    return list(grouped.values())
