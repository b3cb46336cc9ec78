"""Views of spans over OTLP, converted when somebody looks at them and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from otel_scorer.model.facts import Scope, SpanEvent, SpanKind, SpanLink, SpanStatusCode
from otel_scorer.model.otlp_attributes import Attributes, EncodedAttributes, decode_encoded
from otel_scorer.model.span import Span
from otel_scorer.model.span_fields import parse_request, parse_resource_spans, parse_scope_spans, parse_span
from otel_scorer.model.wire import LOCAL_ROOT_FLAGS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from otel_scorer.model.facts import AttributeValue
    from otel_scorer.model.span_fields import OriginFields, SpanFields
    from otel_scorer.model.wire import RawSpan, ScopeRef

__all__ = ["Origin", "OtlpSpan", "spans_from_raw", "spans_from_request"]

"""SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK of OTLP's trace.proto."""

_KINDS: Final = tuple(SpanKind)
_STATUS_CODES: Final = tuple(SpanStatusCode)
_OK: Final = _STATUS_CODES.index(SpanStatusCode.OK)
_ERROR: Final = _STATUS_CODES.index(SpanStatusCode.ERROR)


class Origin:
    """Resource and scope of the spans of one ScopeSpans, decoded once for all of them."""

    __slots__ = ("attributes", "notes", "scope")

    def __init__(self, resource: OriginFields, scope: OriginFields) -> None:
        self.attributes = Attributes(resource.attributes)
        self.scope = Scope(scope.name, scope.version, Attributes(scope.attributes))
        self.notes: dict[Any, Any] = {}
        """See `Span.shared`."""

    @classmethod
    def of(cls, ref: ScopeRef) -> Origin:
        """Return what a span slice refers to, decoded once for all traces that have spans of it."""
        origin = _origins.get(ref)
        if origin is None or len(origin.notes) > _READERS:
            made = cls(parse_resource_spans(ref.resource).resource, parse_scope_spans(ref.scope).scope)
            origin = _origins[ref] = made
        return origin


# They go with the last span that refers to them.
_origins: Final[WeakKeyDictionary[ScopeRef, Origin]] = WeakKeyDictionary()
# A program has one or two readers; who makes a new one for every file must not have them all kept.
_READERS: Final = 8


class OtlpSpan(Span):
    """A span view over OTLP: the message, or its bytes until somebody looks."""

    __slots__ = ("_attributes", "_events", "_fields", "_origin", "raw")

    def __init__(self, origin: Origin, *, fields: SpanFields | None = None, raw: RawSpan | None = None) -> None:
        # What Span.__init__ does, without the call: every span that is typed, scored or shown comes by here.
        self._trace = None
        self._left = None
        self._cache = {}
        self.logs = ()
        self._origin = origin
        self._fields = fields
        self._attributes: EncodedAttributes | None = None
        self._events: list[SpanEvent] | None = None
        self.raw = raw
        """The slice that the view was made from, if it was."""

    def forget(self) -> None:
        self._cache = {}
        if self.raw is not None:
            self._fields = self._attributes = self._events = None

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
            attributes = self._attributes = EncodedAttributes(self.fields.attributes)
        return attributes

    @property
    def attribute_keys(self) -> Collection[str]:
        fields = self._fields
        return (self.fields if fields is None else fields).attributes

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
        attributes = self.fields.attributes
        if len(attributes) < len(keys):
            return keys.intersection(attributes)
        return frozenset([key for key in keys if key in attributes])

    def first_of(self, keys: Iterable[str]) -> tuple[str, AttributeValue] | None:
        # As in the base class, but on the protobuf map: typing a span is this and parsing it.
        fields = self._fields
        values = (self.fields if fields is None else fields).attributes
        for key in keys:
            if key in values:
                return key, decode_encoded(values[key])
        return None

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
        return code == _ERROR or (code != _OK and "error.type" in fields.attributes)

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
        for scope_spans in resource_spans.scope_spans:
            origin = Origin(resource_spans.resource, scope_spans.scope)
            spans += [OtlpSpan(origin, fields=span) for span in scope_spans.spans]
    return spans


def spans_from_raw(spans: Iterable[RawSpan]) -> list[Span]:
    """Return views of span slices; a slice is decoded when somebody looks at it."""
    origins: dict[ScopeRef, Origin] = {}
    views: list[Span] = []
    for raw in spans:
        origin = origins.get(raw.scope)
        if origin is None:
            origin = origins[raw.scope] = Origin.of(raw.scope)
        views.append(OtlpSpan(origin, raw=raw))
    return views
