"""What a spool is made of, and how it is written: requests, what is to be sent, and what is known of traces."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from otel_scorer.stores.spool_parity import parity_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from otel_scorer.model.wire import RawSpan, Signal

__all__ = [
    "ROW",
    "Changes",
    "Figures",
    "Outgoing",
    "PartlyDecided",
    "SpooledRequest",
    "Taken",
    "checksum",
    "cut_closed",
    "cut_ids",
    "delete",
    "insert",
    "read_marks",
    "span_key",
]

ROW: Final = 64
"""Bytes that a row costs beside its data."""
_LENGTH: Final = 4
_SPAN_ID: Final = 8
# A mark begins with how long each of its keys is; with this, if they are those of spans that were forwarded apart.
_APART: Final = 0
_SPAN_KEY: Final = 24


@dataclass(frozen=True, slots=True)
class Figures:
    """How much there is, or by how much that changes: bytes of rows, requests, things to be sent, decided traces."""

    size: int = 0
    requests: int = 0
    outgoing: int = 0
    closed: int = 0

    def __add__(self, other: Figures) -> Figures:
        return Figures(
            self.size + other.size,
            self.requests + other.requests,
            self.outgoing + other.outgoing,
            self.closed + other.closed,
        )


@dataclass(frozen=True, slots=True)
class SpooledRequest:
    """
    A request that was acknowledged.

    Attributes:
        id: Grows with every request.
        signal: What it holds.
        data: As it came.
        is_forwarded: Whether all that was to be forwarded at once has been.
        decided: Keys of what is decided in it; see `Changes.decided`.
        apart: Keys of those of its spans that are forwarded already because they were late, or our own; see `span_key`.
        taken: Destinations that have taken all that was to be forwarded at once, if others have not.
    """

    id: int
    signal: Signal
    data: bytes
    is_forwarded: bool = False
    decided: frozenset[bytes] = frozenset()
    apart: frozenset[bytes] = frozenset()
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """
    Something to be sent as it is.

    Attributes:
        kind: Where to.
        items: How many spans, records or scores.
        data: What is sent.
        id: Once it is committed.
        taken: Destinations that have taken it, if others have not.
    """

    kind: str
    items: int
    data: bytes
    id: int = -1
    taken: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PartlyDecided:
    """
    How far a trace is.

    Attributes:
        released: Ids of its spans that have left before all was decided.
        scorers: Names of the scorers whose verdicts are committed.
        revision: The last one of which a verdict is committed: spans that come late may have it scored again meanwhile.
    """

    released: frozenset[bytes] = frozenset()
    scorers: frozenset[str] = frozenset()
    revision: int = 1


class Freed(NamedTuple):
    """How many rows were deleted, and how many bytes they took."""

    rows: int
    size: int


class Taken(NamedTuple):
    """One destination that has taken a row: `request` or `outgoing`, its id, and the name of the destination."""

    what: Literal["request", "outgoing"]
    id: int
    destination: str


@dataclass(slots=True)
class Changes:
    """
    What is written at once or not at all.

    Attributes:
        outgoing: To be sent from now on.
        sent: Ids of what has been sent.
        finished: Ids of requests that nobody needs any more.
        forwarded: Ids of requests of which all that was to be forwarded at once has been.
        decided: By id of a request: the keys, all of one length, of what is decided in it.
        apart: By id of a request: `SpooledRequest.apart`.
        closed: For each decided trace what `Spool.closed` is to return.
        partly: Traces that are decided in part.
        done: Of these, those that are decided now.
        taken: Which destination has taken a row that others have not; see `Taken`.
    """

    outgoing: list[Outgoing] = field(default_factory=list[Outgoing])
    sent: list[int] = field(default_factory=list[int])
    finished: list[int] = field(default_factory=list[int])
    forwarded: list[int] = field(default_factory=list[int])
    decided: dict[int, list[bytes]] = field(default_factory=dict[int, list[bytes]])
    apart: dict[int, list[bytes]] = field(default_factory=dict[int, list[bytes]])
    closed: list[bytes] = field(default_factory=list[bytes])
    partly: dict[bytes, PartlyDecided] = field(default_factory=dict[bytes, PartlyDecided])
    done: list[bytes] = field(default_factory=list[bytes])
    taken: list[Taken] = field(default_factory=list["Taken"])

    def __bool__(self) -> bool:
        return any((
            self.outgoing, self.sent, self.finished, self.forwarded, self.decided, self.apart, self.closed, self.partly,
            self.done, self.taken,
        ))  # fmt: skip

    def put_off(self, later: Changes) -> None:
        """Have what is noted of requests, which could not be written, written with other changes."""
        later.finished[:0], later.forwarded[:0], later.taken[:0] = self.finished, self.forwarded, self.taken
        for number, keys in self.apart.items():
            later.apart.setdefault(number, []).extend(keys)


def insert(connection: sqlite3.Connection, changes: Changes, outgoing: Sequence[Outgoing]) -> None:
    """Write the new rows of changes; `outgoing` has what is to be sent, with ids."""
    connection.executemany(
        "INSERT INTO outgoing VALUES (?, ?, ?, ?, ?, ?)",
        [
            (each.id, each.kind, each.items, checksum(each.id, each.kind, each.data), each.data, parity_of(each.data))
            for each in outgoing
        ],
    )
    gone = set(changes.finished)
    marks: list[tuple[int, bytes | None]] = [(number, None) for number in changes.forwarded if number not in gone]
    marks += [
        (number, bytes((len(keys[0]),)) + b"".join(keys))
        for number, keys in changes.decided.items()
        if number not in gone
    ]
    marks += [
        (number, bytes((_APART,)) + b"".join(keys)) for number, keys in changes.apart.items() if number not in gone
    ]
    connection.executemany("INSERT INTO marks (request, keys) VALUES (?, ?)", marks)
    if changes.closed:
        data = b"".join(len(each).to_bytes(_LENGTH, "big") + each for each in changes.closed)
        connection.execute("INSERT INTO closed (traces, data) VALUES (?, ?)", (len(changes.closed), data))
    connection.executemany(
        "INSERT OR REPLACE INTO partly_decided VALUES (?, ?, ?, ?, ?)",
        [
            (trace, bool(each.released), json.dumps(sorted(each.scorers)), b"".join(each.released), each.revision)
            for trace, each in changes.partly.items()
        ],
    )
    # One that was finished meanwhile leaves no trace: its id may be given to another one.
    for each in changes.taken:
        table = "requests" if each.what == "request" else "outgoing"
        statement = f"INSERT OR IGNORE INTO taken SELECT ?, id, ? FROM {table} WHERE id = ?"  # noqa: S608 - ours
        connection.execute(statement, (each.what, each.destination, each.id))


def delete(connection: sqlite3.Connection, table: Literal["requests", "outgoing"], ids: Sequence[int]) -> Freed:
    """Delete rows, with what is known of who has taken them."""
    rows = size = 0
    for number in ids:
        row = connection.execute(f"SELECT length(data) FROM {table} WHERE id = ?", (number,)).fetchone()  # noqa: S608
        if row is not None:
            rows += 1
            size += row[0] + ROW
            connection.execute(f"DELETE FROM {table} WHERE id = ?", (number,))  # noqa: S608 - names of ours
    what = "request" if table == "requests" else "outgoing"
    connection.executemany("DELETE FROM taken WHERE what = ? AND id = ?", [(what, number) for number in ids])
    return Freed(rows, size)


def read_marks(marks: Sequence[bytes | None]) -> tuple[bool, frozenset[bytes], frozenset[bytes]]:
    """Return what the marks of a request say: `is_forwarded`, `decided` and `apart` of a `SpooledRequest`."""
    decided: set[bytes] = set()
    apart: set[bytes] = set()
    for keys in marks:
        if keys is not None:
            size = keys[0] or _SPAN_KEY
            found = decided if keys[0] != _APART else apart
            found.update(keys[at : at + size] for at in range(1, len(keys), size))
    return None in marks, frozenset(decided), frozenset(apart)


def span_key(span: RawSpan) -> bytes:
    """Return what a span is known by in `Changes.apart`; another one of its trace may have the same id, and key."""
    return span.trace_id + span.span_id


def cut_ids(data: bytes | None) -> Iterator[bytes]:
    """Yield the ids of spans that have left; None is what the second schema knew of them."""
    ids = data or b""
    for at in range(0, len(ids), _SPAN_ID):
        yield ids[at : at + _SPAN_ID]


def cut_closed(data: bytes) -> Iterator[bytes]:
    """Yield what is in a row of `closed`, one for each trace."""
    at = 0
    while at < len(data):
        end = at + _LENGTH + int.from_bytes(data[at : at + _LENGTH], "big")
        yield data[at + _LENGTH : end]
        at = end


def checksum(number: int, kind: str, data: bytes) -> int:
    """Return what a row is checked by: the CRC-32 of its id, its signal or kind, and its data."""
    return zlib.crc32(data, zlib.crc32(f"{number} {kind}".encode()))
