"""
A spool while it is open: what is written in one transaction, and what is done when the file turns out to be damaged.

A damaged file is set aside, what can be read of it is taken over into a new one, and the work goes on.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError, StoreError
from otel_scorer.stores.spool_file import (
    COMMIT,
    COPY,
    PAGE_SIZE,
    Damaged,
    commits_in,
    is_damage,
    move_aside,
    open_file,
    write_back,
)
from otel_scorer.stores.spool_mark import Mark, MarkFile
from otel_scorer.stores.spool_rows import ROW, Figures
from otel_scorer.stores.spool_salvage import copy_whole, move_back, take_over, was_interrupted
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otel_scorer.stores.database import Row
    from otel_scorer.stores.group_commit import Work
    from otel_scorer.stores.spool_lock import FolderLock

__all__ = ["SpoolConnection"]

logger = logging.getLogger(__name__)

# Seconds between two looks at whether the files are there; and between two tries to have them again.
_LOOK: Final = 1.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_CLOSED: Final = "it is closed, or was damaged and could not be replaced"


class SpoolConnection:
    """
    The files of a spool. Whoever shares it holds `writing` for everything but reading figures.

    Args:
        folder: Held by this process.
        lock: Says so.
        synchronous: See `open_file`.
        log_size: Likewise.
        clock: Monotonic seconds.

    Attributes:
        writing: The lock.
        figures: How much there is.
        last_ids: The largest id of a request, and of something to be sent, when it was opened last.

    Raises:
        ConfigError: The files cannot be used.
    """

    def __init__(
        self, folder: Path, lock: FolderLock, *, synchronous: str, log_size: int, clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._lock = lock
        self._clock = clock
        self._path = folder / "spool.db"
        self._open_file = partial(open_file, self._path, synchronous=synchronous, log_size=log_size)
        self.writing = threading.RLock()
        self.figures = Figures()
        self.last_ids = (0, 0)
        self._connection: sqlite3.Connection | None = None
        # What is to be done before it can be used again, if the disk did not let us; and when, after how long a pause.
        self._repair: Callable[[], None] | None = None
        self._pause = 0.0
        self._due = clock()
        self._is_told = False
        # Where each file was found; and a connection to a file that was deleted, and is to be written anew.
        self._seen: dict[Path, int] = {}
        self._deleted: sqlite3.Connection | None = None
        try:
            self._mark = MarkFile(folder / "mark")
        except OSError as error:
            raise ConfigError(f"Cannot write to the spool {folder}: {error.strerror}") from error
        # What the mark said last; before the first transaction that is what it was found to say.
        self._said = self._mark.found or Mark(0, 0, 0)
        try:
            self._open()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise ConfigError(f"Cannot open the spool {self._path}: {error}") from error
        except BaseException:
            self.close()
            raise
        self._is_told = False

    @property
    def is_open(self) -> bool:
        """Whether anything can be read or written."""
        return self._connection is not None

    def transact(self, group: Sequence[Work]) -> sqlite3.Error | None:
        """Write works in one transaction and return why it failed, if it did. A file that is damaged is replaced."""
        if self._connection is None:
            return sqlite3.ProgrammingError(_CLOSED)
        try:
            self._run(self._connection, group)
        except sqlite3.Error as error:
            return error if not is_damage(error) else self._replace(error, group)
        return None

    def rows(self, select: str, value: str, after: int, limit: int) -> list[Row]:
        """
        Return rows with a value and with larger ids: as many as `limit` bytes hold, one if there is any.

        Args:
            select: Compares the value; its first column is the id, its last one the data.
            value: Of the rows.
            after: An id.
            limit: Bytes.

        Raises:
            StoreError: They cannot be read.
        """
        found: list[Row] = []
        size = 0
        try:
            # One by one: the last one may be large.
            statement = f"{select} AND id > ? ORDER BY id LIMIT 1"
            read = partial(self._opened().execute, statement)
            while size < limit and (row := read((value, after)).fetchone()) is not None:
                found.append(row)
                after = row[0]
                size += len(row[-1]) + ROW
        except sqlite3.Error as error:
            self._go_on(error)
        return found

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """
        Return what a statement finds; in a new file with what is readable, if this one is damaged.

        Raises:
            StoreError: It cannot be read.
        """
        try:
            try:
                return self._opened().execute(statement, parameters).fetchall()
            except sqlite3.Error as error:
                self._go_on(error)
            return self._opened().execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"Cannot read the spool {self._folder}: {error}") from error

    def write_back(self) -> None:
        """Get the log into the file, as far as the disk lets us."""
        if self._connection is not None:
            write_back(self._connection)

    def run(self, script: str) -> None:
        """
        Run a script outside of transactions.

        Raises:
            sqlite3.Error: It fails.
        """
        self._opened().executescript(script)

    def tend(self) -> None:
        """Have files again that were damaged, and could not be replaced, or that somebody has deleted. Never raises."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + _LOOK
        if self._repair is not None:
            self._mend(self._repair)
        elif self._connection is not None and self._is_deleted():
            self._tell_damage("The spool %s was deleted while it is used: what is in it is written anew", self._path)
            self._deleted = self._connection
            self._mend(partial(self._write_anew, self._connection))

    def close(self) -> None:
        """Close the files. Safe to call twice."""
        self._repair = None
        for connection in (self._connection, self._deleted):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._connection = self._deleted = None
        self._mark.close()

    def _go_on(self, error: sqlite3.Error) -> None:
        """Replace a file that cannot be read if it is damaged; raise a `StoreError` if it is not, or cannot be."""
        if not is_damage(error):
            raise StoreError(f"Cannot read the spool {self._folder}: {error}") from error
        if (failure := self._replace(error, ())) is not None:
            raise StoreError(f"Cannot replace the damaged spool {self._folder}: {failure}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"The spool {self._folder} cannot be read: {_CLOSED}")
        return self._connection

    def _open(self) -> None:
        """Open the file, or a new one with what can be read of a damaged one."""
        if was_interrupted(self._path):
            move_back(self._path)
        # Of a process that was killed while it wrote the file anew.
        self._path.with_name(self._path.name + COPY).unlink(missing_ok=True)
        size = self._path.stat().st_size if self._path.exists() else 0
        log = self._path.with_name(self._path.name + "-wal")
        is_empty = size < PAGE_SIZE and (
            self._said.commits > 0 or (not size and log.exists() and log.stat().st_size > 0)
        )
        if is_empty:
            opened: sqlite3.Connection | Damaged = Damaged(move_aside(self._path), "it was emptied, or is gone")
        else:
            opened = self._open_file(check=self._check)
        self._begin(opened)

    def _begin(self, opened: sqlite3.Connection | Damaged) -> None:
        connection = self._recover(opened) if isinstance(opened, Damaged) else opened
        self._connection = connection
        commits = commits_in(connection)
        if self._mark.found is None and not self._mark.is_new:
            logger.warning("The file that says how much is in the spool %s is damaged", self._folder)
        self._measure(connection)
        self._seen = {}
        if isinstance(opened, Damaged) or commits == self._said.commits:
            self._tell_lost()
        self._say(commits)

    def _check(self, connection: sqlite3.Connection) -> str:
        """Return what a file lacks that the mark knows of; nothing if it has all of it."""
        missing = self._said.commits - commits_in(connection)
        return f"its last transactions are missing, {missing} of them" if missing > 0 else ""

    def _recover(self, damaged: Damaged) -> sqlite3.Connection:
        """Return a new file with what can be read of a damaged one; that is back in its place if this is impossible."""
        self._tell_damage("The spool %s is damaged: %s", self._path, damaged.reason)
        try:
            requests, outgoing = take_over(damaged.aside, self._path, self._said.commits + 1)
            connection = self._open_file()
        except BaseException:
            move_back(self._path)
            raise
        if isinstance(connection, Damaged):
            raise sqlite3.OperationalError(f"the new file is damaged, too: {connection.reason}")
        logger.error(
            "It was set aside as %s; what was readable is taken over: %d requests, and %d to be sent",
            damaged.aside,
            requests,
            outgoing,
        )
        return connection

    def _tell_lost(self) -> None:
        """Count, and say, how many rows there are less than the mark tells of."""
        for what, there, expected in (
            ("request", self.figures.requests, self._said.requests),
            ("outgoing", self.figures.outgoing, self._said.outgoing),
        ):
            if there < expected:
                count("spool.damaged", expected - there, what=what)
                logger.error("Of %d rows of the spool (%s) %d are lost", expected, what, expected - there)

    def _measure(self, connection: sqlite3.Connection) -> None:
        """Read how much there is, and which ids were the last."""
        [(requests, size, last_request)] = connection.execute(_FIGURES.format("requests"))
        [(outgoing, more, last_outgoing)] = connection.execute(_FIGURES.format("outgoing"))
        [(closed,)] = connection.execute("SELECT coalesce(sum(traces), 0) FROM closed")
        self.figures = Figures(size + more, requests, outgoing, closed)
        self.last_ids = last_request, last_outgoing

    def _say(self, commits: int) -> None:
        self._said = Mark(commits, self.figures.requests, self.figures.outgoing)
        self._mark.write(self._said)

    def _run(self, connection: sqlite3.Connection, group: Sequence[Work]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            changes = [work.write(connection) for work in group]
            connection.execute(COMMIT)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite has rolled back already after some errors
                connection.execute("ROLLBACK")
            raise
        self.figures = sum(changes, self.figures)
        self._say(self._said.commits + 1)

    def _replace(self, error: sqlite3.Error, group: Sequence[Work]) -> sqlite3.Error | None:
        """Go on with a new file, and write what was to be written."""
        self._tell_damage("The spool %s is damaged: %s", self._path, error)
        if (failure := self._mend(partial(self._set_aside, self._opened(), str(error)))) is not None:
            return sqlite3.OperationalError(str(failure))
        try:
            self._run(self._opened(), group)
        except sqlite3.Error as failed:
            return failed
        return None

    def _mend(self, repair: Callable[[], None]) -> Exception | None:
        """Do what makes the spool usable again; if that fails, it is done again after a while. Return why it failed."""
        self._repair, self._connection = repair, None
        try:
            repair()
        except (OSError, sqlite3.Error, ConfigError) as error:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._due = self._clock() + self._pause
            logger.error(  # noqa: TRY400 - the message says it all
                "The spool %s cannot be used, and requests are refused until it can: %s. It is tried again in %g s",
                self._folder,
                error,
                self._pause,
            )
            return error
        if self._pause:
            logger.warning("The spool %s is used again", self._folder)
        self._repair, self._pause, self._is_told = None, 0.0, False
        return None

    def _tell_damage(self, message: str, *values: object) -> None:
        """Count, and say, what is wrong with the file: once, however often it takes to mend it."""
        if not self._is_told:
            self._is_told = True
            logger.error(message, *values)
            count("spool.damaged", what="file")

    def _set_aside(self, damaged: sqlite3.Connection, reason: str) -> None:
        """Go on with a new file."""
        if was_interrupted(self._path):
            move_back(self._path)
        aside = move_aside(self._path)
        with suppress(sqlite3.Error):
            damaged.close()
        # Whatever fails from here on leaves it in its place again.
        self._repair = self._open
        self._begin(Damaged(aside, reason))

    def _is_deleted(self) -> bool:
        """Tell whether the file, or its log, is not where it was: what is written then goes nowhere."""
        for path in (self._path, self._path.with_name(self._path.name + "-wal")):
            try:
                found = path.stat().st_ino
            except (FileNotFoundError, NotADirectoryError):
                found = 0
            except OSError:
                continue
            if found != self._seen.get(path, found):
                return True
            if found:
                self._seen[path] = found
        return False

    def _write_anew(self, deleted: sqlite3.Connection) -> None:
        """Write a file that was deleted once more: it can be read as long as it is open."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.renew()
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino != self._seen.get(self._path):
                raise ConfigError("another one is in its place")
        copy_whole(deleted, self._path)
        self._deleted = None
        self._repair = self._open
        self._mark.close()
        self._mark = MarkFile(self._folder / "mark")
        self._open()


_FIGURES: Final = f"SELECT count(*), coalesce(sum(length(data) + {ROW}), 0), coalesce(max(id), 0) FROM {{}}"  # noqa: S608
