"""Views over the SDK's spans, converted when somebody looks at them. Knows nothing of OTLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.model.facts import Scope, SpanEvent, SpanKind, SpanLink, SpanStatusCode
from otel_scorer.model.read_only import ReadOnly
from otel_scorer.model.span import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_scorer.model.facts import AttributeValue

__all__ = ["SdkSpan", "spans_from_sdk"]

_NOTHING: Final = ReadOnly({})


class SdkSpan(Span):
    """A span view over the SDK's ReadableSpan."""

    __slots__ = ("_attributes", "readable")

    def __init__(self, readable: ReadableSpan) -> None:
        super().__init__()
        self.readable = readable
        self._attributes: ReadOnly | None = None

    @property
    def trace_id(self) -> str:
        context = self.readable.context
        return "" if context is None else format(context.trace_id, "032x")

    @property
    def span_id(self) -> str:
        context = self.readable.context
        return "" if context is None else format(context.span_id, "016x")

    @property
    def parent_id(self) -> str | None:
        parent = self.readable.parent
        return None if parent is None or not parent.span_id else format(parent.span_id, "016x")

    @property
    def name(self) -> str:
        return self.readable.name

    @property
    def kind(self) -> SpanKind:
        return SpanKind[self.readable.kind.name]

    @property
    def start_time_ns(self) -> int:
        return self.readable.start_time or 0

    @property
    def end_time_ns(self) -> int:
        return self.readable.end_time or 0

    @property
    def is_local_root(self) -> bool:
        parent = self.readable.parent
        return parent is not None and parent.is_remote

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        attributes = self._attributes
        if attributes is None:
            attributes = self._attributes = _sdk_attributes(self.readable.attributes)
        return attributes

    @property
    def events(self) -> Sequence[SpanEvent]:
        return [
            SpanEvent(event.name, event.timestamp, _sdk_attributes(event.attributes)) for event in self.readable.events
        ]

    @property
    def links(self) -> Sequence[SpanLink]:
        return [
            SpanLink(
                format(link.context.trace_id, "032x"),
                format(link.context.span_id, "016x"),
                _sdk_attributes(link.attributes),
            )
            for link in self.readable.links
        ]

    @property
    def resource(self) -> Mapping[str, AttributeValue]:
        return _sdk_attributes(self.readable.resource.attributes)

    @property
    def scope(self) -> Scope:
        scope = self.readable.instrumentation_scope
        return Scope() if scope is None else Scope(scope.name, scope.version or "", _sdk_attributes(scope.attributes))

    @property
    def position(self) -> tuple[int, bytes, bytes]:
        own, parent = self.readable.context, self.readable.parent
        return (
            self.start_time_ns,
            b"" if own is None else own.span_id.to_bytes(8),
            b"" if parent is None or not parent.span_id else parent.span_id.to_bytes(8),
        )

    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        status = self.readable.status
        return SpanStatusCode[status.status_code.name], status.description or ""


def spans_from_sdk(spans: Iterable[ReadableSpan]) -> list[Span]:
    """Return views of ended SDK spans."""
    return [SdkSpan(span) for span in spans]


def _sdk_attributes(attributes: Mapping[str, Any] | None) -> ReadOnly:
    if not attributes:  # as good as always those of a scope, which every span of a trace is asked for
        return _NOTHING
    # In order of the keys, as over OTLP: whatever walks through them finds the same in both.
    return ReadOnly({key: _sdk_value(value) for key, value in sorted(attributes.items())})


def _sdk_value(value: Any) -> AttributeValue:
    if isinstance(value, str | bool | int | float | bytes) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _sdk_value(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence):
        return [_sdk_value(item) for item in cast("Sequence[Any]", value)]
    return str(value)
