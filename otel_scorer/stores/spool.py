"""
What a sidecar has acknowledged and is not done with, on disk: requests as they came, and what is to be sent.

Many threads write at a time: whoever comes first commits for all that wait, so that a transaction is shared without
anybody waiting for company. Everything read back is checked against its checksum.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from otel_scorer.errors import ConfigError, SpoolFullError, StoreError
from otel_scorer.stores.group_commit import GroupCommit, Work
from otel_scorer.stores.space_reserve import SpaceReserve
from otel_scorer.stores.spool_file import is_damage, open_file, reason_of, set_aside, write_back
from otel_scorer.stores.spool_lock import FolderLock
from otel_scorer.stores.spool_rows import (
    ROW,
    Changes,
    Outgoing,
    PartlyDecided,
    SpooledRequest,
    checksum,
    cut_closed,
    cut_keys,
    delete,
    insert,
)
from otel_scorer.telemetry import Measured, count, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from otel_scorer.model.wire import Signal
    from otel_scorer.stores.database import Row

__all__ = ["Spool"]

logger = logging.getLogger(__name__)

Synchronous: TypeAlias = Literal["normal", "full"]

# Kept free for the write-ahead log of deletions, should the disk be full; a share of a small spool.
_RESERVE: Final = 16 << 20
_RESERVE_SHARE: Final = 16
# What is free in the file goes back to the disk if it is so much and half of the file; so many pages at a time.
_SLACK: Final = 64 << 20
_PAGES_GIVEN_BACK: Final = 1024


class Spool:
    """
    A folder with everything that must not be lost. Every method may be called from any thread.

    Args:
        folder: Made if it is not there. One process has it at a time.
        max_size: Bytes that rows may take: then requests are refused, and nothing else is.
        synchronous: `normal`: what is committed survives a killed process. `full`: a power failure too.
        closed_limit: How many decided traces are remembered.
        clock: Monotonic seconds.

    Raises:
        ConfigError: The folder cannot be used, or another process uses it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_size: int,
        synchronous: Synchronous = "normal",
        closed_limit: int = 500_000,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._folder = folder.absolute()
        self._path = self._folder / "spool.db"
        self._max_size = max_size
        self._synchronous = synchronous
        self._closed_limit = closed_limit
        self._clock = clock
        self._lock = threading.Lock()  # guards the figures; never held while something is written
        self._writing = threading.RLock()  # guards the connection
        self._group = GroupCommit(self._write_all, self._writing)
        self._reserve = SpaceReserve(self._folder / "reserve", min(_RESERVE, max_size // _RESERVE_SHARE), clock)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"Cannot make the spool {folder}: {error.strerror}") from error
        self._next_request = self._next_outgoing = 1
        self._size = self._requests = self._outgoing = self._closed_traces = 0
        self._connection: sqlite3.Connection | None = None
        self._held = FolderLock(self._folder)
        try:
            self._connection = open_file(self._path, synchronous=synchronous)
            self._measure()
        except BaseException:
            self.close()
            raise
        self.tend()

    @property
    def last_ids(self) -> tuple[int, int]:
        """The ids of the last request and of the last thing to be sent, 0 if there were none."""
        return self._next_request - 1, self._next_outgoing - 1

    @property
    def left(self) -> tuple[int, int]:
        """How many requests there are, and how many things to be sent."""
        return self._requests, self._outgoing

    def gauges(self) -> list[Measured]:
        """Return how much there is."""
        return [
            Measured("spool.size", self._size),
            Measured("spool.capacity", self._max_size),
            Measured("spool.requests", self._requests),
            Measured("spool.outgoing", self._outgoing),
        ]

    def add(self, signal: Signal, data: bytes) -> int:
        """
        Write a request down and return its id, once it is committed.

        Raises:
            SpoolFullError: There is no room for it, in the spool or on its disk.
            StoreError: It cannot be written for another reason.
        """
        with self._lock:
            if self._size + len(data) + ROW > self._max_size:
                count("spool.refused", reason="full")
                raise SpoolFullError(f"The spool is full ({self._max_size} bytes)")
            number = self._next_request
            self._next_request += 1
        row = (number, signal.value, checksum(number, signal.value, data), data)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", row)

        self._commit(Work(write))
        with self._lock:
            self._size += len(data) + ROW
            self._requests += 1
        return number

    def commit(self, changes: Changes) -> list[Outgoing]:
        """
        Write changes and return what is to be sent, with ids.

        Raises:
            StoreError: They cannot be written; nothing of them was.
        """
        with self._lock:
            first = self._next_outgoing
            self._next_outgoing += len(changes.outgoing)
        outgoing = [
            Outgoing(each.kind, each.items, each.data, number)
            for number, each in enumerate(changes.outgoing, start=first)
        ]
        freed = [0, 0, 0]

        def write(connection: sqlite3.Connection) -> None:
            # What makes room comes first.
            freed[:] = (
                delete(connection, "outgoing", changes.sent) + delete(connection, "requests", changes.finished),
                len(changes.sent),
                len(changes.finished),
            )
            finished = [(number,) for number in changes.finished]
            connection.executemany("DELETE FROM marks WHERE request = ?", finished)
            connection.executemany("DELETE FROM partly_decided WHERE trace = ?", [(trace,) for trace in changes.done])
            insert(connection, changes, outgoing)

        self._commit(Work(write, is_urgent=True))
        with self._lock:
            self._size += sum(len(each.data) + ROW for each in outgoing) - freed[0]
            self._outgoing += len(outgoing) - freed[1]
            self._requests -= freed[2]
            self._closed_traces += len(changes.closed)
        return outgoing

    def requests(self, signal: Signal, after: int, limit: int) -> list[SpooledRequest]:
        """
        Return requests of a signal with larger ids, in order: as many as `limit` bytes hold, and one if there is any.

        What is damaged is left out, counted and deleted.

        Raises:
            StoreError: They cannot be read.
        """
        found: list[SpooledRequest] = []
        damaged: list[int] = []
        for number, _, written, data in self._read("requests", "signal", signal.value, after, limit):
            if written != checksum(number, signal.value, data):
                damaged.append(number)
                continue
            marks = [keys for (keys,) in self._query("SELECT keys FROM marks WHERE request = ?", (number,))]
            decided = frozenset(key for keys in marks if keys is not None for key in cut_keys(keys))
            found.append(SpooledRequest(number, signal, data, None in marks, decided))
        if damaged:
            self._discard(Changes(finished=damaged), "request", len(damaged))
            return found or self.requests(signal, damaged[-1], limit)
        return found

    def outgoing(self, kind: str, after: int, limit: int) -> list[Outgoing]:
        """Return what is to be sent to one place, likewise."""
        found: list[Outgoing] = []
        damaged: list[int] = []
        for number, _, items, written, data in self._read("outgoing", "kind", kind, after, limit):
            if written == checksum(number, kind, data):
                found.append(Outgoing(kind, items, data, number))
            else:
                damaged.append(number)
        if damaged:
            self._discard(Changes(sent=damaged), "outgoing", len(damaged))
            return found or self.outgoing(kind, damaged[-1], limit)
        return found

    def kinds(self) -> set[str]:
        """
        Return where there is something to be sent to.

        Raises:
            StoreError: It cannot be read.
        """
        return {kind for (kind,) in self._query("SELECT DISTINCT kind FROM outgoing")}

    def closed(self) -> Iterator[bytes]:
        """
        Yield what was written down of decided traces, the oldest first: as many as are remembered.

        Raises:
            StoreError: They cannot be read.
        """
        for (data,) in self._query("SELECT data FROM closed ORDER BY id"):
            yield from cut_closed(data)

    def partly_decided(self) -> dict[bytes, PartlyDecided]:
        """
        Return the traces that are decided in part.

        Raises:
            StoreError: They cannot be read.
        """
        return {
            trace: PartlyDecided(bool(released), frozenset(json.loads(scorers)))
            for trace, released, scorers in self._query("SELECT trace, released, scorers FROM partly_decided")
        }

    def tend(self) -> None:
        """Do what can wait: have the reserve back, forget old traces, give space back to the disk. Never raises."""
        self._reserve.have()
        try:
            with self._writing:
                if self._connection is not None:
                    self._prune(self._connection)
        except sqlite3.Error as error:
            logger.debug("Cannot tidy up the spool: %s", error)

    def close(self) -> None:
        """Close the files and let others have the folder. Safe to call twice."""
        with self._writing:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._held.release()

    def _measure(self) -> None:
        """Read how much there is, and which ids come next."""
        [(requests, size, last)] = self._query(_FIGURES.format("requests"))
        self._requests, self._size, self._next_request = requests, size, max(last + 1, self._next_request)
        [(outgoing, size, last)] = self._query(_FIGURES.format("outgoing"))
        self._outgoing, self._next_outgoing = outgoing, max(last + 1, self._next_outgoing)
        self._size += size
        [(self._closed_traces,)] = self._query("SELECT coalesce(sum(traces), 0) FROM closed")

    def _commit(self, work: Work) -> None:
        started = self._clock()
        self._group.commit(work)
        record("spool.commit_duration", [self._clock() - started])
        if work.error is not None:
            reason = reason_of(work.error)
            if work.is_urgent:
                raise StoreError(f"Cannot write to the spool {self._folder}: {work.error}") from work.error
            count("spool.refused", reason=reason)
            kind = SpoolFullError if reason == "disk_full" else StoreError
            raise kind(f"Cannot write to the spool {self._folder}: {work.error}") from work.error

    def _write_all(self, group: Sequence[Work]) -> None:
        """Under the lock of the connection: write what several threads want, in one transaction if possible."""
        error = self._transact(group)
        if error is None:
            return
        # No more requests then; what makes room, and what was acknowledged, still goes on.
        urgent = [work for work in group if work.is_urgent]
        failed = [work for work in group if not work.is_urgent]
        if urgent:
            self._reserve.release()
            if self._connection is not None:
                write_back(self._connection)
            if (again := self._transact(urgent)) is not None:
                failed += urgent
                error = again
        for work in failed:
            work.error = error

    def _transact(self, group: Sequence[Work]) -> sqlite3.Error | None:
        """Write a transaction and return why it failed, if it did. A file that turns out to be damaged is replaced."""
        connection = self._connection
        if connection is None:
            return sqlite3.ProgrammingError("the spool is closed")
        try:
            _run(connection, group)
        except sqlite3.Error as error:
            return error if not is_damage(error) else self._replace(group)
        return None

    def _replace(self, group: Sequence[Work]) -> sqlite3.Error | None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        try:
            self._connection = set_aside(self._path, synchronous=self._synchronous)
            with self._lock:
                self._measure()
            _run(self._connection, group)
        except (OSError, sqlite3.Error) as error:
            return error if isinstance(error, sqlite3.Error) else sqlite3.OperationalError(str(error))
        return None

    def _read(self, table: str, column: str, value: str, after: int, limit: int) -> list[Row]:
        rows: list[Row] = []
        size = 0
        with self._writing:
            try:
                if self._connection is None:
                    raise StoreError("The spool is closed")
                # One by one: the last one may be large.
                statement = f"SELECT * FROM {table} WHERE {column} = ? AND id > ? ORDER BY id LIMIT 1"  # noqa: S608 - ours
                found = partial(self._connection.execute, statement)
                while size < limit and (row := found((value, after)).fetchone()) is not None:
                    rows.append(row)
                    after = row[0]
                    size += len(row[-1]) + ROW
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise StoreError(f"Cannot read the spool {self._folder}: {error}") from error
                if (failure := self._replace(())) is not None:
                    raise StoreError(f"Cannot replace the damaged spool {self._folder}: {failure}") from error
        return rows

    def _query(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        with self._writing:
            if self._connection is None:
                raise StoreError("The spool is closed")
            try:
                return self._connection.execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"Cannot read the spool {self._folder}: {error}") from error

    def _discard(self, changes: Changes, what: str, rows: int) -> None:
        count("spool.damaged", rows, what=what)
        logger.error("%d rows of the spool are damaged and cannot be sent: %s", rows, what)
        with suppress(StoreError):
            self.commit(changes)

    def _prune(self, connection: sqlite3.Connection) -> None:
        while self._closed_traces > self._closed_limit:
            [(row, traces)] = connection.execute("SELECT id, traces FROM closed ORDER BY id LIMIT 1").fetchall()
            connection.execute("DELETE FROM closed WHERE id = ?", (row,))
            self._closed_traces -= traces
        pragmas = ("freelist_count", "page_count", "page_size")
        free, pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas)
        if free * size > _SLACK and free * 2 > pages:
            # As a script: `execute` would stop after the first page.
            connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_GIVEN_BACK})")


_FIGURES: Final = f"SELECT count(*), coalesce(sum(length(data) + {ROW}), 0), coalesce(max(id), 0) FROM {{}}"  # noqa: S608


def _run(connection: sqlite3.Connection, group: Sequence[Work]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for work in group:
            work.write(connection)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has rolled back already after some errors
            connection.execute("ROLLBACK")
        raise
