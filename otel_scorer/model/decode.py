"""
The two sources of span views: OTLP messages and the SDK's ReadableSpan.

The only module that reads either. Everything is converted when it is looked at, and not before.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.model.span_fields import parse_span
from otel_scorer.model.trace import (
    AttributeValue,
    LogRecord,
    Scope,
    Span,
    SpanEvent,
    SpanKind,
    SpanLink,
    SpanStatusCode,
    Trace,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_scorer.model.span_fields import SpanFields
    from otel_scorer.model.trace import Reader
    from otel_scorer.model.wire import RawSpan, ScopeRef

__all__ = [
    "LOCAL_ROOT_FLAGS",
    "Attributes",
    "Origin",
    "OtlpSpan",
    "SdkSpan",
    "encode_attributes",
    "logs_from_request",
    "spans_from_raw",
    "spans_from_request",
    "spans_from_sdk",
    "trace_from_dict",
]

LOCAL_ROOT_FLAGS: Final = 0x300
"""SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK of OTLP's trace.proto."""

_KINDS: Final = tuple(SpanKind)
_STATUS_CODES: Final = tuple(SpanStatusCode)


def decode_value(value: AnyValue) -> AttributeValue:
    """Return an OTLP AnyValue as a plain Python value. Empty values are None."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind is None:
        return None
    if kind == "array_value":
        return [decode_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: decode_value(pair.value) for pair in value.kvlist_value.values}
    return cast("AttributeValue", getattr(value, kind))


class Attributes(Mapping[str, AttributeValue]):
    """
    Attributes of an OTLP message, by key and in order of the keys; a value is converted when it is read.

    Of a repeated key the last one counts.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, AnyValue]) -> None:
        self._values = values

    @classmethod
    def of(cls, pairs: Iterable[KeyValue]) -> Attributes:
        """Return the attributes of a message that holds them as a list."""
        return cls({pair.key: pair.value for pair in pairs})

    def __getitem__(self, key: str) -> AttributeValue:
        # No plain look-up: a protobuf map adds the keys that it is asked for.
        value = self._values.get(key)
        if value is None:
            raise KeyError(key)
        return decode_value(value)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        value = self._values.get(key)
        return default if value is None else decode_value(value)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self))


class Origin:
    """Resource and scope of the spans of one ScopeSpans, decoded once for all of them."""

    __slots__ = ("attributes", "scope")

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self.attributes = Attributes.of(resource.attributes)
        self.scope = Scope(scope.name, scope.version, Attributes.of(scope.attributes))

    @classmethod
    def of(cls, ref: ScopeRef) -> Origin:
        """Decode what a span slice refers to."""
        return cls(ResourceSpans.FromString(ref.resource).resource, ScopeSpans.FromString(ref.scope).scope)


class OtlpSpan(Span):
    """A span view over OTLP: the message, or its bytes until somebody looks."""

    __slots__ = ("_attributes", "_events", "_fields", "_message", "_origin", "raw")

    def __init__(self, origin: Origin, *, message: SpanMessage | None = None, raw: RawSpan | None = None) -> None:
        # What Span.__init__ does, without the call: every span that is typed, scored or shown comes by here.
        self._trace = None
        self._cache = {}
        self.logs = ()
        self._origin = origin
        self._message = message
        self._fields: SpanFields | None = None
        self._attributes: Attributes | None = None
        self._events: list[SpanEvent] | None = None
        self.raw = raw
        """The slice that the view was made from, if it was."""

    @property
    def message(self) -> SpanMessage:
        """The decoded message."""
        message = self._message
        if message is None:
            message = self._message = SpanMessage.FromString(self._encoded())
        return message

    @property
    def fields(self) -> SpanFields:
        """The message with its attributes as a map: what the view reads."""
        fields = self._fields
        if fields is None:
            raw = self.raw
            fields = self._fields = parse_span(self._encoded() if raw is None else raw.data)
        return fields

    def _encoded(self) -> bytes:
        if self.raw is not None:
            return self.raw.data
        if self._message is None:
            msg = "A span view needs a message or its bytes"
            raise RuntimeError(msg)
        return self._message.SerializeToString()

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
    def attributes(self) -> Attributes:
        attributes = self._attributes
        if attributes is None:
            attributes = self._attributes = Attributes(self.fields.attributes)
        return attributes

    def first_of(self, keys: Iterable[str]) -> tuple[str, AttributeValue] | None:
        # As in the base class, but on the protobuf map: typing a span is this and parsing it.
        fields = self._fields
        values = (self.fields if fields is None else fields).attributes
        for key in keys:
            if key in values:
                value = values[key]
                return key, value.string_value or decode_value(value)
        return None

    @property
    def events(self) -> Sequence[SpanEvent]:
        events = self._events
        if events is None:
            events = self._events = [
                SpanEvent(event.name, event.time_unix_nano, Attributes.of(event.attributes))
                for event in self.fields.events
            ]
        return events

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

    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        status = self.fields.status
        code = status.code
        return (_STATUS_CODES[code] if 0 <= code < len(_STATUS_CODES) else SpanStatusCode.UNSET), status.message


class SdkSpan(Span):
    """A span view over the SDK's ReadableSpan."""

    __slots__ = ("_attributes", "readable")

    def __init__(self, readable: ReadableSpan) -> None:
        super().__init__()
        self.readable = readable
        self._attributes: dict[str, AttributeValue] | None = None

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

    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        status = self.readable.status
        return SpanStatusCode[status.status_code.name], status.description or ""


def spans_from_request(data: bytes) -> list[Span]:
    """
    Return views of all spans of an encoded ExportTraceServiceRequest.

    Raises:
        google.protobuf.message.DecodeError: It is none.
    """
    spans: list[Span] = []
    for resource_spans in ExportTraceServiceRequest.FromString(data).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            origin = Origin(resource_spans.resource, scope_spans.scope)
            spans += [OtlpSpan(origin, message=span) for span in scope_spans.spans]
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


def spans_from_sdk(spans: Iterable[ReadableSpan]) -> list[Span]:
    """Return views of ended SDK spans."""
    return [SdkSpan(span) for span in spans]


def logs_from_request(data: bytes) -> dict[tuple[str, str], list[LogRecord]]:
    """
    Return the events of an encoded ExportLogsServiceRequest by trace id and span id, both lower-case hex.

    Log records without a span or without an event name are left out: they are lines of a log, nothing reads them.

    Raises:
        google.protobuf.message.DecodeError: It is no such request.
    """
    found: dict[tuple[str, str], list[LogRecord]] = {}
    for resource_logs in ExportLogsServiceRequest.FromString(data).resource_logs:
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                attributes = Attributes.of(record.attributes)
                name = record.event_name or attributes.get("event.name")
                if not record.span_id or not isinstance(name, str) or not name:
                    continue
                timestamp = record.time_unix_nano or record.observed_time_unix_nano
                event = LogRecord(name, decode_value(record.body), attributes, timestamp)
                found.setdefault((record.trace_id.hex(), record.span_id.hex()), []).append(event)
    return found


def trace_from_dict(data: Mapping[str, Any], reader: Reader) -> Trace:
    """
    Build a trace from what `Trace.to_dict` returned.

    Raises:
        ValueError: It is something else.
    """
    from otel_scorer.model.feedback import assessment_from_dictionary  # noqa: PLC0415 - only stored traces carry assessments

    try:
        info = data["info"]
        return Trace(
            [_span_from_dict(span) for span in data["data"]["spans"]],
            reader,
            close_reason=info.get("close_reason"),
            is_complete=info.get("is_complete"),
            revision=info.get("revision", 1),
            assessments=[assessment_from_dictionary(item) for item in info.get("assessments", ())],
        )
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"Not a trace as Trace.to_dict() writes it: {error!r}"
        raise ValueError(msg) from error


def _span_from_dict(data: Mapping[str, Any]) -> Span:
    message = SpanMessage(
        trace_id=bytes.fromhex(data["trace_id"]),
        span_id=bytes.fromhex(data["span_id"]),
        parent_span_id=bytes.fromhex(data["parent_id"] or ""),
        name=data["name"],
        kind=cast("Any", _KINDS.index(SpanKind(data["kind"]))),
        start_time_unix_nano=data["start_time_ns"],
        end_time_unix_nano=data["end_time_ns"],
        flags=LOCAL_ROOT_FLAGS if data.get("is_local_root") else 0,
    )
    message.status.code = cast("Any", _STATUS_CODES.index(SpanStatusCode(data["status"]["code"])))
    message.status.message = data["status"].get("message", "")
    encode_attributes(message.attributes, data["attributes"])
    for event in data.get("events", ()):
        added = message.events.add(name=event["name"], time_unix_nano=event["timestamp"])
        encode_attributes(added.attributes, event["attributes"])
    for link in data.get("links", ()):
        added_link = message.links.add(trace_id=bytes.fromhex(link["trace_id"]), span_id=bytes.fromhex(link["span_id"]))
        encode_attributes(added_link.attributes, link["attributes"])
    origin = ResourceSpans()
    encode_attributes(origin.resource.attributes, data.get("resource", {}))
    scope = origin.scope_spans.add().scope
    scope.name, scope.version = data["scope"]["name"], data["scope"]["version"]
    encode_attributes(scope.attributes, data["scope"].get("attributes", {}))
    span = OtlpSpan(Origin(origin.resource, scope), message=message)
    span.logs = tuple(
        LogRecord(
            record["event_name"], _from_plain(record["body"]), _from_plain(record["attributes"]), record["timestamp"]
        )
        for record in data.get("logs", ())
    )
    return span


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
        if list(pairs) == ["base64"]:
            return base64.b64decode(pairs["base64"])
        return {key: _from_plain(item) for key, item in pairs.items()}
    return value


def encode_attributes(pairs: Any, values: Mapping[str, Any]) -> None:
    """
    Add plain Python values to a repeated field of KeyValue messages.

    Raises:
        ValueError: An integer does not fit 64 bits.
    """
    for key, value in values.items():
        _encode_value(pairs.add(key=key).value, value)


def _encode_value(target: AnyValue, value: Any) -> None:
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for item in cast("list[Any]", value):
            _encode_value(target.array_value.values.add(), item)
    elif isinstance(value, dict) and list(cast("dict[str, Any]", value)) == ["base64"]:
        target.bytes_value = base64.b64decode(cast("dict[str, str]", value)["base64"])
    elif isinstance(value, dict):
        target.kvlist_value.SetInParent()
        encode_attributes(target.kvlist_value.values, cast("dict[str, Any]", value))


def _sdk_attributes(attributes: Mapping[str, Any] | None) -> dict[str, AttributeValue]:
    # In order of the keys, as over OTLP: whatever walks through them finds the same in both.
    return {key: _sdk_value(value) for key, value in sorted((attributes or {}).items())}


def _sdk_value(value: Any) -> AttributeValue:
    if isinstance(value, str | bool | int | float | bytes) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _sdk_value(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence):
        return [_sdk_value(item) for item in cast("Sequence[Any]", value)]
    return str(value)
