"""
Verdicts on the span they are about, while it has not been sent yet: attributes and span events.

Attributes are flat, `otel_scorer.<name>.value`, `.label`, `.explanation` and `.error`; an event is OTel GenAI's
`gen_ai.evaluation.result`, one per feedback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_scorer.encoders.verdict import AttributeScalar, Verdict, attribute_name, value_text
from otel_scorer.model.wire import field, fixed64_field, key_value

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EVENT_NAME", "encode_attributes", "encode_event", "event_attributes", "span_attributes"]

EVENT_NAME: Final = "gen_ai.evaluation.result"
_PARTS: Final = (".value", ".label", ".explanation", ".error")


def span_attributes(
    verdicts: Iterable[Verdict], *, close_reason: str | None, complete: bool | None
) -> dict[str, AttributeScalar]:
    """Return the attributes that the verdicts add to their common target. Of equal names the last one counts."""
    attributes: dict[str, AttributeScalar] = {}
    for verdict in verdicts:
        prefix = f"otel_scorer.{attribute_name(verdict.name)}"
        for part in _PARTS:
            attributes.pop(prefix + part, None)
        value = verdict.score if verdict.value is None else verdict.value
        if value is not None:
            attributes[prefix + ".value"] = value
        if verdict.label is not None:
            attributes[prefix + ".label"] = verdict.label
        if verdict.explanation is not None:
            attributes[prefix + ".explanation"] = verdict.explanation
        if verdict.error_type is not None:
            attributes[prefix + ".error"] = verdict.error_type
    if attributes and close_reason is not None:
        attributes["otel_scorer.close_reason"] = close_reason
    if attributes and complete is not None:
        attributes["otel_scorer.complete"] = complete
    return attributes


def event_attributes(verdict: Verdict) -> dict[str, AttributeScalar]:
    """Return the attributes of a verdict's span event."""
    attributes = verdict.gen_ai()
    attributes["otel_scorer.scorer.name"] = verdict.scorer
    attributes["otel_scorer.scorer.version"] = verdict.scorer_version
    attributes["otel_scorer.source.type"] = verdict.source_type
    attributes["otel_scorer.source.id"] = verdict.source_id
    if verdict.value is not None:
        attributes["otel_scorer.value"] = verdict.value
        attributes["otel_scorer.value_text"] = value_text(verdict.value)
    for key, value in verdict.metadata:
        attributes[f"otel_scorer.metadata.{key}"] = value
    return attributes


def encode_attributes(attributes: dict[str, AttributeScalar]) -> dict[str, bytes]:
    """Encode attributes for `wire.enrich_span`."""
    return {key: key_value(key, value) for key, value in attributes.items()}


def encode_event(verdict: Verdict, time_ns: int) -> bytes:
    """Encode a verdict as a `trace.v1.Span.Event` at the target's end."""
    attributes = (field(3, key_value(key, value)) for key, value in event_attributes(verdict).items())
    return fixed64_field(1, time_ns) + field(2, EVENT_NAME.encode()) + b"".join(attributes)
