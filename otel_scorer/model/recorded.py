"""Views over stored spans: the plain data that `Span.to_dict` wrote."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from otel_scorer.model.facts import MISSING, LogRecord, Scope, SpanEvent, SpanKind, SpanLink, SpanStatusCode
from otel_scorer.model.read_only import ReadOnly
from otel_scorer.model.span import BYTES_KEY, MAP_KEY, Span

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from otel_scorer.model.facts import AttributeValue

__all__ = ["RecordedSpan"]

_LATEST: Final = 2**64 - 1  # times are fixed64 in OTLP's trace.proto
_LONGEST_SHOWN: Final = 80

T = TypeVar("T")


class RecordedSpan(Span):
    """
    A span view over what `to_dict` wrote, which is checked and copied at once: it may be anything.

    Args:
        data: The plain data.

    Raises:
        ValueError: It is something else; says which field and what is there.
    """

    __slots__ = (
        "_attributes",
        "_end_time_ns",
        "_events",
        "_is_local_root",
        "_kind",
        "_links",
        "_name",
        "_parent_id",
        "_resource",
        "_scope",
        "_span_id",
        "_start_time_ns",
        "_status",
        "_trace_id",
    )

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__()
        self._trace_id = _hex(data, "trace_id")
        self._span_id = _hex(data, "span_id")
        self._parent_id = _parent_id(data)
        self._name = _get(data, "name", str)
        self._kind = SpanKind[_word(data, "kind", SpanKind.__members__)]
        self._start_time_ns = _time(data, "start_time_ns")
        self._end_time_ns = _time(data, "end_time_ns")
        self._is_local_root = bool(data.get("is_local_root"))
        status = _map(data, "status")
        code = SpanStatusCode[_word(status, "code", SpanStatusCode.__members__)]
        self._status = code, _get(status, "message", str, "")
        self._attributes = _attributes(data)
        self._events = [
            SpanEvent(_get(event, "name", str), _time(event, "timestamp"), _attributes(event))
            for event in _items(data, "events")
        ]
        self._links = [
            SpanLink(_hex(link, "trace_id"), _hex(link, "span_id"), _attributes(link)) for link in _items(data, "links")
        ]
        self._resource = _attributes(data, "resource", {})
        scope = _map(data, "scope")
        self._scope = Scope(_get(scope, "name", str), _get(scope, "version", str), _attributes(scope, "attributes", {}))
        self.logs = tuple(_log(record) for record in _items(data, "logs"))

    @property
    def trace_id(self) -> str:
        return self._trace_id

    @property
    def span_id(self) -> str:
        return self._span_id

    @property
    def parent_id(self) -> str | None:
        return self._parent_id

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> SpanKind:
        return self._kind

    @property
    def start_time_ns(self) -> int:
        return self._start_time_ns

    @property
    def end_time_ns(self) -> int:
        return self._end_time_ns

    @property
    def is_local_root(self) -> bool:
        return self._is_local_root

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        return self._attributes

    @property
    def events(self) -> Sequence[SpanEvent]:
        return list(self._events)

    @property
    def links(self) -> Sequence[SpanLink]:
        return list(self._links)

    @property
    def resource(self) -> Mapping[str, AttributeValue]:
        return self._resource

    @property
    def scope(self) -> Scope:
        return self._scope

    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        return self._status


def _get(data: Mapping[str, Any], key: str, kind: type[T], default: T | None = None) -> T:
    value = data.get(key, default)
    if not isinstance(value, kind):
        raise _error(data, key, kind.__name__)
    return value


def _error(data: Mapping[str, Any], key: str, expected: str) -> ValueError:
    found = f"{data[key]!r:.{_LONGEST_SHOWN}}" if key in data else "missing"
    return ValueError(f"`{key}` of a span or of a part of it is {found}, expected {expected}")


def _map(data: Mapping[str, Any], key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    return _get(data, key, dict, default)


def _items(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the items of a list that need not be there."""
    items: list[Any] = _get(data, key, list, [])
    if not all(isinstance(item, dict) for item in items):
        raise _error(data, key, "list of dict")
    return items


def _word(data: Mapping[str, Any], key: str, known: Collection[str]) -> str:
    word = _get(data, key, str)
    if word not in known:
        raise _error(data, key, f"one of {', '.join(known)}")
    return word


def _hex(data: Mapping[str, Any], key: str) -> str:
    try:
        return bytes.fromhex(data.get(key, MISSING)).hex()
    except (TypeError, ValueError) as error:
        raise _error(data, key, "hex digits") from error


def _parent_id(data: Mapping[str, Any]) -> str | None:
    if "parent_id" in data and not data["parent_id"]:
        return None
    parent_id = _hex(data, "parent_id")
    return parent_id if parent_id.strip("0") else None


def _time(data: Mapping[str, Any], key: str) -> int:
    value = _get(data, key, int)
    if not 0 <= value <= _LATEST:
        raise _error(data, key, "nanoseconds that fit 64 bits")
    return value


def _log(record: Mapping[str, Any]) -> LogRecord:
    name, timestamp = _get(record, "event_name", str), _time(record, "timestamp")
    if "body" not in record:
        raise _error(record, "body", "a value or null")
    return LogRecord(name, _from_plain(record["body"]), _attributes(record), timestamp)


def _attributes(data: Mapping[str, Any], key: str = "attributes", default: dict[str, Any] | None = None) -> ReadOnly:
    # In order of the keys, as over OTLP: whatever walks through them finds the same in both.
    return ReadOnly({name: _from_plain(value) for name, value in sorted(_map(data, key, default).items())})


def _from_plain(value: Any) -> AttributeValue:
    if value is None or isinstance(value, str | bool | int | float | bytes):
        return value
    if isinstance(value, list | tuple):
        return [_from_plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value)
        if list(pairs) == [MAP_KEY] and isinstance(pairs[MAP_KEY], Mapping):
            pairs = cast("Mapping[str, Any]", pairs[MAP_KEY])
        elif list(pairs) == [BYTES_KEY] and (encoded := _bytes_of(pairs[BYTES_KEY])) is not None:
            return encoded
        return {key: _from_plain(item) for key, item in pairs.items()}
    msg = f"An attribute is {value!r:.{_LONGEST_SHOWN}}, which is nothing that a span can hold"
    raise ValueError(msg)


def _bytes_of(text: object) -> bytes | None:
    """Return the bytes that `to_dict` wrote as this text; None if it cannot have: then it is somebody's map."""
    if not isinstance(text, str):
        return None
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded).decode() == text else None
