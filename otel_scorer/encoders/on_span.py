"""
Verdicts on the span they are about, while it has not been sent yet: attributes and span events.

Attributes are flat, `otel_scorer.<name>.value`, `.label`, `.explanation`, `.error`, `.source.*` and `.metadata.*`; an
event is OTel GenAI's `gen_ai.evaluation.result`, one per feedback.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_scorer.encoders.verdict import MAX_NAME, AttributeScalar, Verdict, attribute_name, value_text
from otel_scorer.model.encoding import field, fixed64_field, key_value
from otel_scorer.model.facts import OWN_SCOPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

__all__ = ["EVENT_NAME", "encode_attributes", "encode_event", "event_attributes", "span_attributes", "without_verdicts"]

logger = logging.getLogger(__name__)

EVENT_NAME: Final = "gen_ai.evaluation.result"
_PREFIX: Final = "otel_scorer."
_WARNINGS: Final = 1000
_warned: set[tuple[str, str]] = set()


def span_attributes(
    verdicts: Iterable[Verdict], *, close_reason: str | None, complete: bool | None
) -> dict[str, AttributeScalar]:
    """
    Return the attributes that the verdicts add to their common target.

    Where two names become the same key, or are the same, the second one's key ends in `_2` and so on, so that nothing
    is lost; `.name` says the name wherever the key does not.
    """
    given = list(verdicts)
    attributes: dict[str, AttributeScalar] = {}
    metadata: dict[str, AttributeScalar] = {}
    for verdict, key in zip(given, _keys([verdict.name for verdict in given]), strict=True):
        prefix = f"otel_scorer.{key}"
        value = verdict.score if verdict.value is None else verdict.value
        if value is not None:
            attributes[prefix + ".value"] = value
        if verdict.label is not None:
            attributes[prefix + ".label"] = verdict.label
        if verdict.explanation is not None:
            attributes[prefix + ".explanation"] = verdict.explanation
        if verdict.error_type is not None:
            attributes[prefix + ".error"] = verdict.error_type
        if key != verdict.name:
            attributes[prefix + ".name"] = verdict.name
        attributes[prefix + ".source.type"] = verdict.source_type
        attributes[prefix + ".source.id"] = verdict.source_id
        for name, text in verdict.metadata:
            metadata[f"{prefix}.metadata.{name}"] = text
    if attributes and close_reason is not None:
        attributes["otel_scorer.close_reason"] = close_reason
    if attributes and complete is not None:
        attributes["otel_scorer.complete"] = complete
    # A verdict that happens to be called `<another one>.metadata` wins over that one's metadata.
    return metadata | attributes if metadata else attributes


def _keys(names: Sequence[str]) -> list[str]:
    """Return what stands for each name in attribute keys, each only once."""
    plain = [attribute_name(name) for name in names]
    taken = set(plain)
    if len(taken) == len(plain):
        return plain
    used: set[str] = set()
    keys: list[str] = []
    for name, key in zip(names, plain, strict=True):
        free = key
        if key in used:
            free = next(candidate for candidate in _numbered(key) if candidate not in taken)
            taken.add(free)
            _warn_of_shared_key(name, key, free)
        used.add(free)
        keys.append(free)
    return keys


def _numbered(key: str) -> Iterator[str]:
    return (f"{key[: MAX_NAME - len(end)]}{end}" for end in (f"_{number}" for number in itertools.count(2)))


def _warn_of_shared_key(name: str, key: str, instead: str) -> None:
    """Say once per name and key; names may be made up per trace, so not for ever."""
    if (name, key) not in _warned and len(_warned) < _WARNINGS:
        _warned.add((name, key))
        logger.warning(
            "Feedback %r: another one on its span has the attributes otel_scorer.%s.*; this one is called %s there",
            name,
            key,
            instead,
        )


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


def without_verdicts(data: bytes) -> tuple[bytes, int] | None:
    """
    Return an encoded request without what verdicts have added to its spans, and on how many there was something.

    None if there is nothing to take off; evaluation spans are left as they are.
    """
    request = ExportTraceServiceRequest.FromString(data)
    scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
    spans = [span for scope in scopes if scope.scope.name != OWN_SCOPE for span in scope.spans]
    lightened = sum([_lighten(span) for span in spans])
    return (request.SerializeToString(), lightened) if lightened else None


def _lighten(span: SpanMessage) -> bool:
    """Take off a span what verdicts have added to it, and tell whether there was anything."""
    attributes = [pair for pair in span.attributes if not pair.key.startswith(_PREFIX)]
    events = [
        event
        for event in span.events
        if event.name != EVENT_NAME or not any(pair.key.startswith(_PREFIX) for pair in event.attributes)
    ]
    if len(attributes) == len(span.attributes) and len(events) == len(span.events):
        return False
    del span.attributes[:]
    del span.events[:]
    span.attributes.extend(attributes)
    span.events.extend(events)
    return True
