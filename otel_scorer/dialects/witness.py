"""
Who watches a span being read: what was found in it, and where.

To explain a value it is read once more, by the same code, from a view that notes every look that found something. So
explaining knows no rule of its own, and reading pays nothing for being explainable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from otel_scorer.model.trace import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_scorer.model.trace import (
        AttributeValue,
        LogRecord,
        Reader,
        Scope,
        SpanEvent,
        SpanKind,
        SpanLink,
        SpanStatusCode,
    )

__all__ = ["Look", "Origin", "Witness"]


@dataclass(frozen=True, slots=True)
class Origin:
    """
    What a value was read from.

    Attributes:
        dialect: The dialect that says so; `common` for what everybody borrows.
        key: The place in words: an attribute's key, a pattern of keys, `event NAME, KEY`, `log record NAME, KEY`.
        attributes: The attributes that were read, if the value is made of other ones than `key`.
    """

    dialect: str
    key: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """
    One look that found something.

    Attributes:
        place: Where: an attribute of the span, of an event, of a log record, of the resource, or the span's name.
        key: The attribute's key; empty for a name.
        owner: Name of the event or log record.
    """

    place: Literal["attribute", "event", "log record", "resource", "name"]
    key: str = ""
    owner: str = ""


class Witness(Span):
    """
    A view of a span that notes in `looks` what was found, in order.

    Args:
        span: The span.
        reader: What tells its meaning.
    """

    __slots__ = ("_meaning", "_span", "looks")

    def __init__(self, span: Span, reader: Reader) -> None:
        super().__init__()
        self._span = span
        self._meaning = reader
        self.looks: list[Look] = []
        self.logs: tuple[LogRecord, ...] = tuple(
            replace(record, attributes=self._noting(record.attributes, "log record", record.event_name))
            for record in span.logs
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The span's attributes that were found, each once."""
        return tuple(dict.fromkeys(look.key for look in self.looks if look.place == "attribute"))

    def origin(self, dialect: str, key: str) -> Origin:
        """Return where a value was found that `key` is the place of."""
        places = {look.place for look in self.looks}
        if "log record" in places and "event" not in places and key.startswith("event "):
            key = key.replace("event ", "log record ", 1)
        keys = self.keys
        return Origin(dialect, key, () if keys == (key,) else keys)

    def _reader(self) -> Reader:
        return self._meaning

    def _noting(self, values: Mapping[str, Any], place: Any, owner: str = "") -> _Noting:
        return _Noting(values, lambda key: self.looks.append(Look(place, key, owner)))

    @property
    def trace_id(self) -> str:
        """The span's."""
        return self._span.trace_id

    @property
    def span_id(self) -> str:
        """The span's."""
        return self._span.span_id

    @property
    def parent_id(self) -> str | None:
        """The span's."""
        return self._span.parent_id

    @property
    def name(self) -> str:
        """The span's; noted."""
        self.looks.append(Look("name"))
        return self._span.name

    @property
    def kind(self) -> SpanKind:
        """The span's."""
        return self._span.kind

    @property
    def start_time_ns(self) -> int:
        """The span's."""
        return self._span.start_time_ns

    @property
    def end_time_ns(self) -> int:
        """The span's."""
        return self._span.end_time_ns

    @property
    def is_local_root(self) -> bool:
        """The span's."""
        return self._span.is_local_root

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """The span's; noted."""
        return self._noting(self._span.attributes, "attribute")

    @property
    def events(self) -> Sequence[SpanEvent]:
        """The span's; looks at their attributes are noted."""
        return [
            replace(event, attributes=self._noting(event.attributes, "event", event.name))
            for event in self._span.events
        ]

    @property
    def links(self) -> Sequence[SpanLink]:
        """The span's."""
        return self._span.links

    @property
    def resource(self) -> Mapping[str, AttributeValue]:
        """The span's; noted."""
        return self._noting(self._span.resource, "resource")

    @property
    def scope(self) -> Scope:
        """The span's."""
        return self._span.scope

    @property
    def parent(self) -> Span | None:
        """The span's."""
        return self._span.parent

    @property
    def children(self) -> tuple[Span, ...]:
        """The span's."""
        return self._span.children

    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        status = self._span.status
        return status.otel_status_code, status.description


class _Noting(Mapping[str, Any]):
    """A mapping that tells of every key that was asked for and found."""

    __slots__ = ("_note", "_values")

    def __init__(self, values: Mapping[str, Any], note: Callable[[str], None]) -> None:
        self._values = values
        self._note = note

    def __getitem__(self, key: str) -> Any:
        value = self._values[key]
        self._note(key)
        return value

    def __contains__(self, key: object) -> bool:
        found = key in self._values
        if found:
            self._note(cast("str", key))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
