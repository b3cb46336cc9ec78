"""
The one SQLite file in which traces, what was said of them, and registered scorers are kept.

Several threads and processes may use a file at the same time. All tables are declared here, so that one version number
says what is in a file.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias
from weakref import WeakSet

from otel_scorer.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

__all__ = ["Database", "Row", "Transaction", "default_store_path", "open_database"]

Row: TypeAlias = tuple[Any, ...]
"""The columns of a row: str, int, float, bytes or None, as the schema says."""

# "otsc": marks a file as ours, for us and for `file(1)`.
_APPLICATION_ID: Final = 0x6F747363
_BUSY_TIMEOUT: Final = 30.0
_PAUSE: Final = 0.02
# What a file grows by before its log is written back; a reader never waits for it.
_PAGES_PER_CHECKPOINT: Final = 4000

_TRACES: Final = (
    # What was scored together.
    """CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        name TEXT,
        created_ms INTEGER NOT NULL,
        details TEXT NOT NULL DEFAULT '{}'
    ) STRICT, WITHOUT ROWID""",
    # `spans` and `logs` are OTLP export requests, byte for byte (`packed`: as zstd frames); the other columns are what
    # searches look at. Times are milliseconds since the epoch.
    """CREATE TABLE traces (
        id INTEGER PRIMARY KEY,
        trace_id TEXT NOT NULL UNIQUE,
        spans BLOB NOT NULL,
        logs BLOB NOT NULL,
        packed INTEGER NOT NULL,
        name TEXT,
        root_id TEXT,
        service_name TEXT,
        session_id TEXT,
        user_id TEXT,
        state TEXT NOT NULL,
        start_ms INTEGER NOT NULL,
        end_ms INTEGER NOT NULL,
        tags TEXT NOT NULL,
        close_reason TEXT,
        complete INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        stored_ms INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX traces_by_start ON traces (start_ms)",
    # One for each time that a trace was judged. `run_id` is NULL for what was judged live; `given` is what a row of a
    # data set said beside its trace; `decisions` is all that scorers said, as JSON.
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        run_id TEXT REFERENCES runs ON DELETE CASCADE,
        trace_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        given TEXT,
        error TEXT,
        decisions TEXT NOT NULL,
        stored_ms INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX entries_by_run ON entries (run_id, position)",
    "CREATE INDEX entries_by_trace ON entries (trace_id)",
    # The feedback in `entries.decisions`, once more, for searches: its value as a number, as text, or neither.
    """CREATE TABLE feedback (
        id INTEGER PRIMARY KEY,
        trace_id TEXT NOT NULL,
        run_id TEXT REFERENCES runs ON DELETE CASCADE,
        name TEXT NOT NULL,
        number REAL,
        text TEXT
    ) STRICT""",
    "CREATE INDEX feedback_by_trace ON feedback (trace_id, name)",
    "CREATE INDEX feedback_by_run ON feedback (run_id)",
    # What the right answer is; the last word on a name counts.
    """CREATE TABLE expectations (
        trace_id TEXT NOT NULL,
        name TEXT NOT NULL,
        number REAL,
        text TEXT,
        document TEXT NOT NULL,
        PRIMARY KEY (trace_id, name)
    ) STRICT, WITHOUT ROWID""",
)
_REGISTRATIONS: Final = (
    # A scorer that runs on live traces, or waits to: stopped is a sample rate of 0.
    """CREATE TABLE registrations (
        name TEXT PRIMARY KEY,
        sample_rate REAL NOT NULL DEFAULT 0,
        filter_string TEXT,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    # Where its code is found, and what it is given; the latest version is the one that runs.
    """CREATE TABLE definitions (
        name TEXT NOT NULL REFERENCES registrations ON DELETE CASCADE,
        version INTEGER NOT NULL,
        ref TEXT NOT NULL,
        folder TEXT,
        parameters TEXT NOT NULL,
        options TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (name, version)
    ) STRICT, WITHOUT ROWID""",
    # Grows with every change of a registration, whoever makes it: cheap to poll.
    "CREATE TABLE revisions (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO revisions VALUES ('registrations', 0)",
    """CREATE TRIGGER registration_made AFTER INSERT ON registrations BEGIN
        UPDATE revisions SET value = value + 1 WHERE name = 'registrations';
    END""",
    """CREATE TRIGGER registration_changed AFTER UPDATE ON registrations BEGIN
        UPDATE revisions SET value = value + 1 WHERE name = 'registrations';
    END""",
    """CREATE TRIGGER registration_deleted AFTER DELETE ON registrations BEGIN
        UPDATE revisions SET value = value + 1 WHERE name = 'registrations';
    END""",
)
# A trace may have several units (see `Trigger.LOCAL_ROOT`), each stored and judged on its own: `unit` is the id of the
# span that it begins with, empty for a whole trace. SQLite cannot take back that a column is unique.
_UNITS: Final = (
    "ALTER TABLE traces RENAME TO whole_traces",
    _TRACES[1]
    .replace("trace_id TEXT NOT NULL UNIQUE", "trace_id TEXT NOT NULL")
    .replace("stored_ms INTEGER NOT NULL", "stored_ms INTEGER NOT NULL, unit TEXT NOT NULL, UNIQUE (trace_id, unit)"),
    "INSERT INTO traces SELECT *, '' FROM whole_traces",
    "DROP TABLE whole_traces",
    "CREATE INDEX traces_by_start ON traces (start_ms)",
    "ALTER TABLE entries ADD COLUMN unit TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE feedback ADD COLUMN unit TEXT NOT NULL DEFAULT ''",
)
# What leads from each version of the schema to the next; only ever appended to.
_MIGRATIONS: Final = ((*_TRACES, *_REGISTRATIONS), _UNITS)


def default_store_path() -> Path:
    """Return where the store is if nobody says: in the folder in which the program runs."""
    return Path(".otel_scorer") / "traces.db"


def open_database(path: str | Path) -> Database:
    """
    Open a store, and make it (with its folder) if there is none.

    Raises:
        ConfigError: It cannot be opened or written, is no store of ours, is damaged, or was made by a newer version.
    """
    return Database(Path(path))


class Database:
    """
    A store that is open. See `open_database`; closing it twice is fine.

    Every method may be called from any thread, and in a process that was forked off.

    Attributes:
        path: The file, as an absolute path: the program may go elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        # Guards the connection; held through a transaction.
        self._lock = threading.RLock()
        self._is_closed = False
        with _opening:
            self._connection: sqlite3.Connection | None = self._open()
            _open_databases.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Generator[Transaction]:
        """
        Write several things at once or not at all; waits up to 30 s for other writers. Keep it short.

        Raises:
            StoreError: It cannot be written: the disk is full, another process keeps it locked, it is damaged.
        """
        with self._lock, self._explained():
            connection = self._own_connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(connection)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has rolled back already after some errors
                    connection.execute("ROLLBACK")
                raise

    def query(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """
        Return all rows of a statement that only reads.

        Raises:
            StoreError: It cannot be read.
        """
        with self._lock, self._explained():
            return self._own_connection().execute(statement, parameters).fetchall()

    def used_bytes(self) -> int:
        """Return how much of the file is in use: what was deleted leaves room in it for what comes."""
        [(pages,)], [(free,)] = self.query("PRAGMA page_count"), self.query("PRAGMA freelist_count")
        [(size,)] = self.query("PRAGMA page_size")
        return (int(pages) - int(free)) * int(size)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._is_closed = True
            self._let_go()

    def before_fork(self) -> None:
        """Wait for who is at it and let go of the connection: SQLite forbids to carry one over, even to close it."""
        self._lock.acquire()
        self._let_go()

    def after_fork(self) -> None:
        """Go on, in either process, with a connection of its own once one is needed."""
        self._lock.release()

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _own_connection(self) -> sqlite3.Connection:
        if self._is_closed:
            raise StoreError(f"The store {self.path} has been closed")
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"The store {self.path} failed: {_explanation(error)}") from error
        except UnicodeEncodeError as error:
            raise StoreError(f"The store {self.path} cannot keep or find text that is no Unicode: {error}") from error

    def _open(self) -> sqlite3.Connection:
        connection = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._prepare(connection)
        except (OSError, sqlite3.Error, ConfigError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, ConfigError):
                raise
            why = error.strerror if isinstance(error, OSError) else _explanation(error)
            raise ConfigError(f"Cannot open the store {self.path}: {why}") from error
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Looked at before anything is written: a file of somebody else must stay as it is. In one transaction, as
        # another process may be making the store at this moment.
        connection.execute("BEGIN")
        version = self._version(connection)
        connection.execute("ROLLBACK")
        if version < len(_MIGRATIONS):
            _use_write_ahead_log(connection)
            connection.execute("BEGIN IMMEDIATE")
            # Again, under the lock: another process may have been faster.
            for step in _MIGRATIONS[self._version(connection) :]:
                for statement in step:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
            connection.execute("COMMIT")
        connection.create_function("regexp", 2, _matches, deterministic=True)
        connection.execute("PRAGMA foreign_keys = ON")
        # Survives a killed process; what a power failure takes is the last moment, never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_PER_CHECKPOINT}")
        # Fails now, not at the first trace, where nothing can be written.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return which schema the file has, 0 if it is empty."""
        [(application,)] = connection.execute("PRAGMA application_id")
        [(version,)] = connection.execute("PRAGMA user_version")
        [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_schema")
        if application != _APPLICATION_ID:
            if application or version or tables:
                raise ConfigError(f"{self.path} is a database of another program, not a store of otel_scorer")
            return 0
        if version > len(_MIGRATIONS):
            raise ConfigError(
                f"The store {self.path} was made by a newer version of otel_scorer (schema {version}, this one knows "
                f"{len(_MIGRATIONS)}): update otel_scorer, or name another file"
            )
        return int(version)


_open_databases: WeakSet[Database] = WeakSet()
_forking: list[Database] = []
_opening = threading.RLock()  # a fork meanwhile would leave SQLite's own locks locked in the child, for any database


def _before_fork() -> None:
    _opening.acquire()
    _forking[:] = _open_databases
    for database in _forking:
        database.before_fork()


def _after_fork() -> None:
    for database in _forking:
        database.after_fork()
    _forking.clear()
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


class Transaction:
    """Takes the statements of one transaction."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Run one statement and return its rows."""
        return self._connection.execute(statement, parameters).fetchall()

    def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row."""
        self._connection.executemany(statement, rows)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Let readers go on while somebody writes. SQLite does not wait for this by itself where others have it open."""
    deadline = time.monotonic() + _BUSY_TIMEOUT
    pause = threading.Event()
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            pause.wait(_PAUSE)
        else:
            return


def _matches(pattern: str, text: object) -> bool:
    """SQL's `text REGEXP pattern`: SQLite has the operator, and asks us for what it means."""
    return isinstance(text, str) and re.search(pattern, text) is not None


_EXPLANATIONS: Final = {
    sqlite3.SQLITE_NOTADB: "it is not a database",
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_READONLY: "it cannot be written, only read",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened or made there",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: f"another process has kept it locked for {_BUSY_TIMEOUT:.0f} s",
    sqlite3.SQLITE_IOERR: "reading or writing the file failed",
}


def _explanation(error: sqlite3.Error) -> str:
    # The low byte is the kind of error, the rest says more.
    code = getattr(error, "sqlite_errorcode", None)
    known = None if code is None else _EXPLANATIONS.get(code & 0xFF)
    return str(error) if known is None else f"{known} ({error})"
