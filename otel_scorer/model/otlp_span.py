"""Views of spans over OTLP, converted when somebody looks at them and not before."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.model.facts import Scope, SpanEvent, SpanKind, SpanLink, SpanStatusCode
from otel_scorer.model.otlp_attributes import Attributes, EncodedAttributes, decode_encoded
from otel_scorer.model.span import Span
from otel_scorer.model.span_fields import (
    parse_request,
    parse_resource,
    parse_resource_spans,
    parse_scope,
    parse_scope_spans,
    parse_span,
)
from otel_scorer.model.wire import LOCAL_ROOT_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_scorer.model.facts import AttributeValue
    from otel_scorer.model.span_fields import SpanFields
    from otel_scorer.model.wire import RawSpan, ScopeRef

__all__ = ["Origin", "OtlpSpan", "spans_from_raw", "spans_from_request"]

_KINDS: Final = tuple(SpanKind)
_STATUS_CODES: Final = tuple(SpanStatusCode)
_OK: Final = _STATUS_CODES.index(SpanStatusCode.OK)
_ERROR: Final = _STATUS_CODES.index(SpanStatusCode.ERROR)


class Origin:
    """
    Resource and scope of the spans of one ScopeSpans, decoded once for all of them.

    Args:
        resource: The encoded Resource.
        scope: The encoded InstrumentationScope.
    """

    __slots__ = ("attributes", "notes", "scope")

    def __init__(self, resource: bytes, scope: bytes) -> None:
        fields = parse_scope(scope)
        self.attributes = Attributes(parse_resource(resource).attributes)
        self.scope = Scope(fields.name, fields.version, Attributes(fields.attributes))
        self.notes: dict[Any, Any] = {}
        """See `Span.shared`."""

    @classmethod
    def of(cls, resource: bytes, scope: bytes) -> Origin:
        """Return what the two messages say; for the same bytes the same object, if it was asked for not long ago."""
        if len(resource) + len(scope) > _LARGE:
            return cls(resource, scope)
        origin = _known_origin(resource, scope)
        if len(origin.notes) > _READERS:
            origin.notes.clear()
        return origin


# A program sends spans of a few dozen scopes, and traces of many: what they say need not be decoded for each trace.
_known_origin: Final = lru_cache(maxsize=256)(Origin)
# Bytes of a resource and a scope that are worth keeping; most are below a thousand.
_LARGE: Final = 8192
# A program has one or two readers; who makes a new one for every file must not have them all kept.
_READERS: Final = 8


class OtlpSpan(Span):
    """A span view over OTLP: the message, or its bytes until somebody looks."""

    __slots__ = ("_attributes", "_events", "_fields", "_origin", "_values", "raw")

    def __init__(self, origin: Origin, *, fields: SpanFields | None = None, raw: RawSpan | None = None) -> None:
        # What Span.__init__ does, without the call: every span that is typed, scored or shown comes by here.
        self._trace = None
        self._left = None
        self._cache = {}
        self.logs = ()
        self._origin = origin
        self._fields = fields
        self._values: Mapping[str, bytes] | None = None
        self._attributes: EncodedAttributes | None = None
        self._events: list[SpanEvent] | None = None
        self.raw = raw
        """The slice that the view was made from, if it was."""

    def forget(self) -> None:
        self._cache = {}
        if self.raw is not None:
            self._fields = self._values = self._attributes = self._events = None

    @property
    def fields(self) -> SpanFields:
        """The message with its attributes as a map: what the view reads."""
        fields = self._fields
        if fields is None:
            if self.raw is None:
                msg = "A span view needs a message or its bytes"
                raise RuntimeError(msg)
            fields = self._fields = parse_span(self.raw.data)
        return fields

    @property
    def trace_id(self) -> str:
        return self.fields.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.fields.span_id.hex()

    @property
    def parent_id(self) -> str | None:
        parent_id = self.fields.parent_span_id
        return parent_id.hex() if parent_id and any(parent_id) else None

    @property
    def name(self) -> str:
        return self.fields.name

    @property
    def kind(self) -> SpanKind:
        kind = self.fields.kind
        return _KINDS[kind] if 0 <= kind < len(_KINDS) else SpanKind.UNSPECIFIED

    @property
    def start_time_ns(self) -> int:
        return self.fields.start_time_unix_nano

    @property
    def end_time_ns(self) -> int:
        return self.fields.end_time_unix_nano

    @property
    def is_local_root(self) -> bool:
        return self.fields.flags & LOCAL_ROOT_FLAGS == LOCAL_ROOT_FLAGS

    @property
    def attributes(self) -> EncodedAttributes:
        attributes = self._attributes
        if attributes is None:
            attributes = self._attributes = EncodedAttributes(self.attribute_keys)
        return attributes

    @property
    def attribute_keys(self) -> Mapping[str, bytes]:
        # Kept, since asking the message for its map takes longer than to look something up in it.
        values = self._values
        if values is None:
            fields = self._fields
            values = self._values = (self.fields if fields is None else fields).attributes
        return values

    @property
    def position(self) -> tuple[int, bytes, bytes]:
        fields = self._fields
        if fields is None:
            fields = self.fields
        parent_id = fields.parent_span_id
        return fields.start_time_unix_nano, fields.span_id, parent_id if parent_id.strip(b"\0") else b""

    @property
    def shared(self) -> dict[Any, Any]:
        return self._origin.notes

    def which_of(self, keys: frozenset[str]) -> frozenset[str]:
        # Going through a protobuf map costs a little more per key than asking it for one.
        values = self.attribute_keys
        if len(values) < len(keys):
            return keys.intersection(values)
        return frozenset([key for key in keys if key in values])

    def first_of(self, keys: Iterable[str]) -> tuple[str, AttributeValue] | None:
        # As in the base class, but on the protobuf map: typing a span is this and parsing it.
        values = self.attribute_keys
        for key in keys:
            if key in values:
                return key, decode_encoded(values[key])
        return None

    def get_attribute(self, key: str, default: Any = None) -> Any:
        values = self.attribute_keys
        return decode_encoded(values[key]) if key in values else default

    @property
    def has_events(self) -> bool:
        fields = self._fields
        return bool((self.fields if fields is None else fields).events)

    @property
    def event_names(self) -> Sequence[str]:
        return [event.name for event in self.fields.events]

    @property
    def dropped_count(self) -> int:
        return self.fields.dropped_attributes_count + self.fields.dropped_events_count

    @property
    def events(self) -> Sequence[SpanEvent]:
        events = self._events
        if events is None:
            events = self._events = [
                SpanEvent(event.name, event.time_unix_nano, Attributes.of(event.attributes))
                for event in self.fields.events
            ]
        return list(events)

    @property
    def links(self) -> Sequence[SpanLink]:
        return [
            SpanLink(link.trace_id.hex(), link.span_id.hex(), Attributes.of(link.attributes))
            for link in self.fields.links
        ]

    @property
    def resource(self) -> Attributes:
        return self._origin.attributes

    @property
    def scope(self) -> Scope:
        return self._origin.scope

    @property
    def failed(self) -> bool:
        # As in the base class, without the message.
        fields = self.fields
        code = fields.status.code
        return code == _ERROR or (code != _OK and "error.type" in self.attribute_keys)

    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        status = self.fields.status
        code = status.code
        return (_STATUS_CODES[code] if 0 <= code < len(_STATUS_CODES) else SpanStatusCode.UNSET), status.message


def spans_from_request(data: bytes) -> list[Span]:
    """
    Return views of all spans of an encoded ExportTraceServiceRequest.

    Raises:
        google.protobuf.message.DecodeError: It is none.
    """
    spans: list[Span] = []
    for resource_spans in parse_request(data).resource_spans:
        resource = b"".join(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            origin = Origin.of(resource, b"".join(scope_spans.scope))
            spans += [OtlpSpan(origin, fields=span) for span in scope_spans.spans]
    return spans


def spans_from_raw(spans: Iterable[RawSpan]) -> list[Span]:
    """Return views of span slices; a slice is decoded when somebody looks at it."""
    origins: dict[ScopeRef, Origin] = {}
    views: list[Span] = []
    for raw in spans:
        origin = origins.get(raw.scope)
        if origin is None:
            origin = origins[raw.scope] = _origin_of(raw.scope)
        views.append(OtlpSpan(origin, raw=raw))
    return views


def _origin_of(ref: ScopeRef) -> Origin:
    resource, scope = parse_resource_spans(ref.resource).resource, parse_scope_spans(ref.scope).scope
    return Origin.of(b"".join(resource), b"".join(scope))
