"""
What a sidecar has acknowledged and is not done with, on disk: requests as they came, and what is to be sent.

Many threads write at a time: whoever comes first commits for all that wait, so that a transaction is shared without
anybody waiting for company. Everything read back is checked against its checksum.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from otel_scorer.errors import ConfigError, RequestTooLargeError, SpoolFullError, StoreError
from otel_scorer.stores.group_commit import GroupCommit, Work
from otel_scorer.stores.space_reserve import SpaceReserve
from otel_scorer.stores.spool_connection import SpoolConnection
from otel_scorer.stores.spool_file import reason_of
from otel_scorer.stores.spool_lock import FolderLock
from otel_scorer.stores.spool_parity import repaired
from otel_scorer.stores.spool_rows import (
    ROW,
    Changes,
    Figures,
    Outgoing,
    PartlyDecided,
    SpooledRequest,
    checksum,
    cut_closed,
    cut_ids,
    delete,
    insert,
    read_marks,
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

# How large the log of writes may become that are not in the file yet; a share of a small spool, or of a small disk.
_LOG: Final = 16 << 20
_SMALLEST_LOG: Final = 1 << 20
_SHARE: Final = 16
# Kept free should the disk be full: for a log of twice that size to be written back, which could not be when it should
# have been, and for the log of deletions. Without it no request is taken.
_LOGS_KEPT_FREE: Final = 2.5
# What is free in the file goes back to the disk if it is so much, less of a small spool, and half of the file, or if
# there is no room for the reserve; so many pages at a time.
_SLACK: Final = 64 << 20
_PAGES_GIVEN_BACK: Final = 1024
_FEW_PAGES: Final = 32
_REQUESTS: Final = "SELECT id, checksum, data FROM requests WHERE signal = ?"
_OUTGOING: Final = "SELECT id, items, checksum, parity, data FROM outgoing WHERE kind = ?"


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
        self._max_size = max_size
        self._closed_limit = closed_limit
        self._slack = min(_SLACK, max_size // _SHARE)
        self._clock = clock
        self._lock = threading.Lock()  # guards the next ids; never held while something is written
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"Cannot make the spool {folder}: {error.strerror}") from error
        self._held = FolderLock(self._folder)
        free = shutil.disk_usage(self._folder).free
        log_size = min(_LOG, max(_SMALLEST_LOG, min(max_size, free) // _SHARE))
        self._reserve = SpaceReserve(self._folder / "reserve", int(_LOGS_KEPT_FREE * log_size), clock)
        try:
            self._file = SpoolConnection(
                self._folder, self._held, synchronous=synchronous, log_size=log_size, clock=clock
            )
        except BaseException:
            self._held.release()
            raise
        self._writing = self._file.writing
        self._group = GroupCommit(self._write_all, self._writing)
        self._next_request, self._next_outgoing = (last + 1 for last in self._file.last_ids)
        self.tend()

    @property
    def last_ids(self) -> tuple[int, int]:
        """The ids of the last request and of the last thing to be sent, 0 if there were none."""
        return self._next_request - 1, self._next_outgoing - 1

    @property
    def is_open(self) -> bool:
        """Whether it can be used: not while a damaged file cannot be replaced."""
        return self._file.is_open

    @property
    def left(self) -> tuple[int, int]:
        """How many requests there are, and how many things to be sent."""
        figures = self._file.figures
        return figures.requests, figures.outgoing

    def gauges(self) -> list[Measured]:
        """Return how much there is."""
        figures = self._file.figures
        return [
            Measured("spool.size", figures.size),
            Measured("spool.capacity", self._max_size),
            Measured("spool.open", int(self.is_open)),
            Measured("spool.requests", figures.requests),
            Measured("spool.outgoing", figures.outgoing),
        ]

    def adopt(self, policy: str) -> None:
        """
        Forget what was noted of requests while they were handled otherwise: it does not say what that leaves to do.

        They are forwarded, and decided about, as if they had just come.

        Args:
            policy: Says how they are handled from now on.

        Raises:
            StoreError: It cannot be written.
        """
        [(before,)] = self._query("SELECT max(policy) FROM progress")
        if before == policy:
            return

        def write(connection: sqlite3.Connection) -> Figures:
            if before is not None:
                connection.execute("DELETE FROM marks")
                connection.execute("DELETE FROM taken WHERE what = 'request'")
            connection.execute("UPDATE progress SET policy = ?", (policy,))
            return Figures()

        self._commit(Work(write, is_urgent=True))

    def add(self, signal: Signal, data: bytes) -> int:
        """
        Write a request down and return its id, once it is committed.

        Raises:
            RequestTooLargeError: It is larger than the spool.
            SpoolFullError: There is no room for it, in the spool or on its disk.
            StoreError: It cannot be written for another reason.
        """
        size = len(data) + ROW
        if size > self._max_size:
            count("spool.refused", reason="too_large")
            raise RequestTooLargeError(f"The request is larger than the spool ({self._max_size} bytes)")
        with self._lock:
            if self._file.figures.size + size > self._max_size:
                count("spool.refused", reason="full")
                raise SpoolFullError(f"The spool is full ({self._max_size} bytes)")
        if not self._reserve.have(now=True):
            count("spool.refused", reason="disk_full")
            raise SpoolFullError(f"The disk of the spool {self._folder} is full")
        with self._lock:
            number = self._next_request
            self._next_request += 1
        row = (number, signal.value, checksum(number, signal.value, data), data)

        def write(connection: sqlite3.Connection) -> Figures:
            connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", row)
            return Figures(size, requests=1)

        self._commit(Work(write))
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

        def write(connection: sqlite3.Connection) -> Figures:
            # What makes room comes first.
            sent, freed = delete(connection, "outgoing", changes.sent)
            finished, freed_too = delete(connection, "requests", changes.finished)
            connection.executemany("DELETE FROM marks WHERE request = ?", [(number,) for number in changes.finished])
            connection.executemany("DELETE FROM partly_decided WHERE trace = ?", [(trace,) for trace in changes.done])
            insert(connection, changes, outgoing)
            size = sum(len(each.data) + ROW for each in outgoing)
            return Figures(size - freed - freed_too, -finished, len(outgoing) - sent, len(changes.closed))

        self._commit(Work(write, is_urgent=True))
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
        for number, written, data in self._rows(_REQUESTS, signal.value, after, limit):
            if written != checksum(number, signal.value, data):
                damaged.append(number)
                continue
            marks = [keys for (keys,) in self._query("SELECT keys FROM marks WHERE request = ?", (number,))]
            found.append(SpooledRequest(number, signal, data, *read_marks(marks), self._taken("request", number)))
        if damaged:
            self._discard(Changes(finished=damaged), "request", len(damaged))
            return found or self.requests(signal, damaged[-1], limit)
        return found

    def outgoing(self, kind: str, after: int, limit: int) -> list[Outgoing]:
        """Return what is to be sent to one place, likewise; what is damaged in one place only is repaired."""
        found: list[Outgoing] = []
        damaged: list[int] = []
        for number, items, written, parity, raw in self._rows(_OUTGOING, kind, after, limit):
            data = raw
            if written != checksum(number, kind, data) and parity is not None:
                data = repaired(raw, parity) or raw
            if written != checksum(number, kind, data):
                damaged.append(number)
                continue
            if data is not raw:
                count("spool.damaged", what="repaired")
                logger.warning("Something to be sent was damaged in the spool, and is repaired")
            found.append(Outgoing(kind, items, data, number, self._taken("outgoing", number)))
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
            trace: PartlyDecided(frozenset(cut_ids(spans)), frozenset(json.loads(scorers)), revision)
            for trace, spans, scorers, revision in self._query(
                "SELECT trace, spans, scorers, revision FROM partly_decided"
            )
        }

    def first_request(self) -> int:
        """Return the id of the first request, or what the next one will have; 0 if nobody can tell."""
        with suppress(StoreError):
            [(first,)] = self._query("SELECT min(id) FROM requests")
            return self._next_request if first is None else int(first)
        return 0

    def tend(self) -> None:
        """Do what can wait: mend files, have the reserve back, forget old traces, give space back. Never raises."""
        try:
            with self._writing:
                self._file.tend()
                self._reserve.have()
                if self._file.is_open:
                    self._prune()
        except (sqlite3.Error, StoreError) as error:
            logger.debug("Cannot tidy up the spool: %s", error)

    def close(self) -> None:
        """Close the files and let others have the folder. Safe to call twice."""
        with self._writing:
            self._file.close()
        self._held.release()

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
        error = self._file.transact(group)
        if error is None:
            return
        # No more requests then; what makes room, and what was acknowledged, still goes on.
        urgent = [work for work in group if work.is_urgent]
        failed = [work for work in group if not work.is_urgent]
        if urgent:
            self._reserve.release()
        # Then the log begins anew: there may be room for the next ones.
        self._file.write_back()
        if urgent and (again := self._file.transact(urgent)) is not None:
            failed += urgent
            error = again
        for work in failed:
            work.error = error

    def _rows(self, select: str, value: str, after: int, limit: int) -> list[Row]:
        with self._writing:
            return self._file.rows(select, value, after, limit)

    def _query(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        with self._writing:
            return self._file.query(statement, parameters)

    def _taken(self, what: str, number: int) -> frozenset[str]:
        found = self._query("SELECT destination FROM taken WHERE what = ? AND id = ?", (what, number))
        return frozenset(destination for (destination,) in found)

    def _discard(self, changes: Changes, what: str, rows: int) -> None:
        count("spool.damaged", rows, what=what)
        logger.error("%d rows of the spool are damaged and cannot be sent: %s", rows, what)
        with suppress(StoreError):
            self.commit(changes)

    def _prune(self) -> None:
        """Under the lock of the file."""
        while self._file.figures.closed > self._closed_limit:
            [(row, traces)] = self._file.query("SELECT id, traces FROM closed ORDER BY id LIMIT 1")

            def write(connection: sqlite3.Connection, row: int = row, traces: int = traces) -> Figures:
                connection.execute("DELETE FROM closed WHERE id = ?", (row,))
                return Figures(closed=-traces)

            if self._file.transact([Work(write)]) is not None:
                return
        pragmas = ("freelist_count", "page_count", "page_size")
        free, pages, size = (self._file.query(f"PRAGMA {name}")[0][0] for name in pragmas)
        is_short = bool(free) and not self._reserve.have()
        if is_short:
            # Giving back writes to the log first.
            self._file.write_back()
            self._file.run(f"PRAGMA incremental_vacuum({_FEW_PAGES})")
            self._file.write_back()
        elif free * size > self._slack and free * 2 > pages:
            self._file.run(f"PRAGMA incremental_vacuum({_PAGES_GIVEN_BACK})")
