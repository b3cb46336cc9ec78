"""
Verdicts for the SDK's exporters: an enriched copy of an ended span, and evaluation spans as the SDK's ReadableSpan.

An ended span cannot be changed, and its containers are shared with every other processor: hence the copy. What is
written is the same as in `on_span` and `evaluation_span`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

from otel_scorer.encoders.evaluation_span import SCOPE_VERSION, evaluation_attributes
from otel_scorer.encoders.on_span import EVENT_NAME, event_attributes
from otel_scorer.model.trace import OWN_SCOPE
from otel_scorer.model.wire import read_traces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_scorer.encoders.verdict import AttributeScalar, Verdict
    from otel_scorer.model.wire import RawSpan

__all__ = ["EnrichedSpan", "evaluation_readable_span", "raw_span_of", "sdk_target_of", "verdict_event"]

_OWN_SCOPE: Final = InstrumentationScope(OWN_SCOPE, SCOPE_VERSION)
_INT64: Final = 1 << 63


class EnrichedSpan(ReadableSpan):
    """
    A copy of an ended span with more attributes and events. The limits of the original do not apply to these.

    Args:
        span: The original.
        attributes: Added to the attributes of the original; of the same key the new one counts.
        events: Added to the events of the original.
    """

    def __init__(
        self, span: ReadableSpan, attributes: Mapping[str, AttributeScalar], events: Sequence[Event] = ()
    ) -> None:
        super().__init__(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes={**(span.attributes or {}), **_exportable(attributes)},
            events=(*span.events, *events),
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._dropped = (span.dropped_attributes, span.dropped_events, span.dropped_links)

    @property
    def dropped_attributes(self) -> int:
        """What the original lost to its limits; the base class would ask a container that the copy does not have."""
        return self._dropped[0]

    @property
    def dropped_events(self) -> int:
        """See `dropped_attributes`."""
        return self._dropped[1]

    @property
    def dropped_links(self) -> int:
        """See `dropped_attributes`."""
        return self._dropped[2]


def verdict_event(verdict: Verdict, target: ReadableSpan) -> Event:
    """Return a verdict as a span event at the target's end."""
    return Event(EVENT_NAME, _exportable(event_attributes(verdict)), target.end_time)


def evaluation_readable_span(
    verdict: Verdict, target: ReadableSpan, *, close_reason: str | None, complete: bool | None
) -> ReadableSpan:
    """
    Return the evaluation span of a verdict, as `evaluation_span.encode_evaluation_span` would encode it.

    Args:
        verdict: What to say.
        target: The span that it is about, or that stands for the trace.
        close_reason: Why the trace was closed.
        complete: Whether it looked complete.

    Raises:
        ValueError: The target has no context.
    """
    context = target.context
    if context is None:
        msg = "A span without a context cannot be the target of a verdict"
        raise ValueError(msg)
    own_id = verdict.evaluation_id(context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big"))
    parent = SpanContext(context.trace_id, context.span_id, is_remote=False, trace_flags=context.trace_flags)
    return ReadableSpan(
        name=_text(f"evaluation {verdict.name}"),
        context=SpanContext(
            context.trace_id,
            int.from_bytes(own_id, "big"),
            is_remote=False,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        ),
        parent=parent,
        resource=target.resource,
        attributes=_exportable(evaluation_attributes(verdict, close_reason=close_reason, complete=complete)),
        links=(Link(parent),),
        kind=SpanKind.INTERNAL,
        start_time=target.end_time,
        end_time=target.end_time,
        instrumentation_scope=_OWN_SCOPE,
    )


def sdk_target_of(spans: Iterable[ReadableSpan]) -> ReadableSpan | None:
    """
    Return the span that stands for its trace: the root, else the local root, else the earliest without a known parent.

    Of several the one that started first; the same rule as `target.target_of`.
    """
    scored = [span for span in spans if span.context is not None and not _is_own(span)]
    roots = [span for span in scored if span.parent is None]
    if not roots:
        ids = {span.context.span_id for span in scored if span.context is not None}
        heads = [span for span in scored if span.parent is not None and span.parent.span_id not in ids]
        roots = [span for span in heads if span.parent is not None and span.parent.is_remote] or heads or scored
    return min(roots, key=_by_start, default=None)


def raw_span_of(span: ReadableSpan) -> RawSpan:
    """Return an ended span as it would be received from the SDK's exporter, for who writes about received spans."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    [raw] = read_traces(encode_spans([span]).SerializeToString()).spans
    return raw


def _is_own(span: ReadableSpan) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name == OWN_SCOPE


def _by_start(span: ReadableSpan) -> tuple[int, int]:
    return (span.start_time or 0, 0 if span.context is None else span.context.span_id)


def _exportable(attributes: Mapping[str, AttributeScalar]) -> dict[str, AttributeScalar]:
    """Make values that protobuf can carry, by the rule of `wire.key_value`: any other one costs the whole batch."""
    return {_text(key): _carried(value) for key, value in attributes.items()}


def _carried(value: AttributeScalar) -> AttributeScalar:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool | float) or -_INT64 <= value < _INT64:
        return value
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _text(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
