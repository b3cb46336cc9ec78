"""
A read-only view of one span: what its sources have in common.

What a span means (its type, inputs, outputs) is asked of a `Reader`; this module knows no attribute vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.model.facts import MISSING, SpanStatus, SpanStatusCode
from otel_scorer.model.read_only import Immutable, copied

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from weakref import ReferenceType

    from otel_scorer.model.facts import AttributeValue, LogRecord, Scope, SpanEvent, SpanKind, SpanLink
    from otel_scorer.model.reader import Reader
    from otel_scorer.model.trace import Trace

__all__ = ["BYTES_KEY", "MAP_KEY", "Span"]

BYTES_KEY: Final = "base64"
"""In plain data, bytes are a dict with only this key."""

_UNREAD: Final = object()

# Nothing was traced before the year 2000, nor will be from 2200 on: a clock that was never set, or no time at all.
_FIRST_NS: Final = 946_684_800 * 10**9
_LAST_NS: Final = 7_258_118_400 * 10**9

MAP_KEY: Final = "kvlist"
"""In plain data, a map that could be taken for bytes, or for this, is a dict with only this key."""


class Span(Immutable, ABC):
    """
    One span. Subclasses read the raw facts from OTLP bytes, an SDK span or stored data; they mean the same in all.

    Names are those of `mlflow.entities.Span` where it has them.
    """

    __slots__ = ("_cache", "_left", "_trace", "logs")

    def __init__(self) -> None:
        self._trace: Trace | None = None
        self._left: tuple[ReferenceType[Trace], Reader] | None = None
        self._cache: dict[str, Any] = {}
        self.logs: tuple[LogRecord, ...] = ()
        """Log records that were sent about this span; whoever joins logs puts them here before the span is read."""

    @property
    @abstractmethod
    def trace_id(self) -> str:
        """32 lower-case hex digits."""

    @property
    @abstractmethod
    def span_id(self) -> str:
        """16 lower-case hex digits."""

    @property
    @abstractmethod
    def parent_id(self) -> str | None:
        """16 lower-case hex digits, or None for a root."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The span's name."""

    @property
    @abstractmethod
    def kind(self) -> SpanKind:
        """OpenTelemetry's span kind. See `span_type` for what the span does."""

    @property
    @abstractmethod
    def start_time_ns(self) -> int:
        """Nanoseconds since the epoch."""

    @property
    @abstractmethod
    def end_time_ns(self) -> int:
        """Nanoseconds since the epoch."""

    @property
    @abstractmethod
    def is_local_root(self) -> bool:
        """Whether the parent is known to live in another process (OTLP span flags)."""

    @property
    @abstractmethod
    def attributes(self) -> Mapping[str, AttributeValue]:
        """The attributes; a value is converted when it is read."""

    @property
    @abstractmethod
    def events(self) -> Sequence[SpanEvent]:
        """The span events, in order."""

    @property
    @abstractmethod
    def links(self) -> Sequence[SpanLink]:
        """The links, in order."""

    @property
    @abstractmethod
    def resource(self) -> Mapping[str, AttributeValue]:
        """Attributes of the resource that produced the span, such as `service.name`."""

    @property
    @abstractmethod
    def scope(self) -> Scope:
        """The instrumentation scope."""

    @abstractmethod
    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        """Return the status as it was sent: code and message."""

    def forget(self) -> None:
        """Drop what was decoded and can be decoded again; nobody who looks at the span notices."""
        self._cache = {}

    @property
    def has_events(self) -> bool:
        """Whether there are span events; cheaper than reading them."""
        return bool(self.events)

    @property
    def event_names(self) -> Sequence[str]:
        """The names of the span events, in order; cheaper than reading them."""
        return [event.name for event in self.events]

    @property
    def attribute_keys(self) -> Collection[str]:
        """The keys of the attributes, in no order; cheaper than `attributes`."""
        return self.attributes

    @property
    def position(self) -> tuple[int, bytes, bytes]:
        """Start, span id and parent id (empty for a root): what the tree and the order of spans are made from."""
        return self.start_time_ns, bytes.fromhex(self.span_id), bytes.fromhex(self.parent_id or "")

    @property
    def shared(self) -> dict[Any, Any]:
        """Where a reader notes what is the same for all spans of a resource and scope."""
        return self._cache

    @property
    def dropped_count(self) -> int:
        """Attributes and events that the SDK says it dropped."""
        return 0

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from start to end; never negative, whatever the clocks said."""
        return max(0, self.end_time_ns - self.start_time_ns)

    @property
    def has_odd_times(self) -> bool:
        """Whether it ended before it began, or at a time that no clock can have shown: do not trust its duration."""
        return not _FIRST_NS <= self.start_time_ns <= self.end_time_ns < _LAST_NS

    @property
    def status(self) -> SpanStatus:
        """How the span ended; see `SpanStatus` for the rule on unset codes."""
        code, description = self._raw_status()
        read = code
        if code is SpanStatusCode.UNSET:
            read = SpanStatusCode.ERROR if self.failed else SpanStatusCode.OK
        return SpanStatus(read, code, description)

    @property
    def failed(self) -> bool:
        """Whether the status reads ERROR."""
        code, _ = self._raw_status()
        return code is SpanStatusCode.ERROR or (code is SpanStatusCode.UNSET and "error.type" in self.attribute_keys)

    def which_of(self, keys: frozenset[str]) -> frozenset[str]:
        """Return those of the keys that the span has as attributes."""
        return keys.intersection(self.attributes)

    def first_of(self, keys: Iterable[str]) -> tuple[str, AttributeValue] | None:
        """Return the first of `keys` that the span has as an attribute, and its value; None if it has none of them."""
        attributes = self.attributes
        for key in keys:
            if key in attributes:
                return key, attributes[key]
        return None

    def get_attribute(self, key: str, default: Any = None) -> Any:
        """Return the attribute, or `default` if the span does not have it."""
        return self.attributes.get(key, default)

    @property
    def span_type(self) -> str:
        """What the span does: one of the `SpanType` values, `UNKNOWN` if nothing says."""
        value = self._cache.get("span_type")
        if value is None:
            trace = self._trace
            reader = self._reader() if trace is None else trace.reader
            value = self._cache["span_type"] = reader.span_type(self)
        return cast("str", value)

    @property
    def inputs(self) -> Any:
        """What the span says it was given, decoded; None if it does not say."""
        value = self.read("inputs")
        return None if value is MISSING else copied(value)

    @property
    def outputs(self) -> Any:
        """What the span says it returned, decoded; None if it does not say."""
        value = self.read("outputs")
        return None if value is MISSING else copied(value)

    def read(self, field: str) -> Any:
        """Return what the span itself says about a field (see `Reader`), or MISSING; shared, so not to be changed."""
        value = self._cache.get(field, _UNREAD)
        if value is _UNREAD:
            trace = self._trace
            reader = self._reader() if trace is None else trace.reader
            value = self._cache[field] = reader.read(self, field)
        return value

    @property
    def parent(self) -> Span | None:
        """The parent, if it is in this trace."""
        trace = self._home()
        return None if trace is None else trace.tree.parent_of(self)

    @property
    def children(self) -> tuple[Span, ...]:
        """The spans directly below, by start time."""
        trace = self._home()
        return () if trace is None else trace.tree.children_of(self)

    @property
    def service_name(self) -> str | None:
        """The resource's `service.name`."""
        value = self.resource.get("service.name")
        return value if isinstance(value, str) else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was recorded as plain JSON data (see `BYTES_KEY`)."""
        code, description = self._raw_status()
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_id": self.parent_id,
            "name": self.name,
            "kind": str(self.kind),
            "start_time_ns": self.start_time_ns,
            "end_time_ns": self.end_time_ns,
            "status": {"code": str(code), "message": description},
            "is_local_root": self.is_local_root,
            "attributes": _plain(dict(self.attributes)),
            "events": [
                {"name": event.name, "timestamp": event.timestamp, "attributes": _plain(dict(event.attributes))}
                for event in self.events
            ],
            "links": [
                {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": _plain(dict(link.attributes))}
                for link in self.links
            ],
            "resource": _plain(dict(self.resource)),
            "scope": {
                "name": self.scope.name,
                "version": self.scope.version,
                "attributes": _plain(dict(self.scope.attributes)),
            },
            **({"logs": [_plain_log(record) for record in self.logs]} if self.logs else {}),
        }

    def _reader(self) -> Reader:
        if self._trace is not None:
            return self._trace.reader
        if self._left is not None:
            return self._left[1]
        msg = f"Span {self.span_id} belongs to no trace, so nothing can tell what its attributes mean"
        raise RuntimeError(msg)

    def _home(self) -> Trace | None:
        if self._trace is not None or self._left is None:
            return self._trace
        trace = self._left[0]()
        if trace is None:
            msg = f"The trace of span {self.span_id} is gone: hold on to the trace to ask a span for its relatives"
            raise RuntimeError(msg)
        return trace

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.span_id}>"


def _plain_log(record: LogRecord) -> dict[str, Any]:
    return {
        "event_name": record.event_name,
        "timestamp": record.timestamp,
        "body": _plain(record.body),
        "attributes": _plain(dict(record.attributes)),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        import base64

        return {BYTES_KEY: base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        plain = {key: _plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
        return {MAP_KEY: plain} if list(plain) in ([BYTES_KEY], [MAP_KEY]) else plain
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value
