"""
The SQLite file of a spool: its tables, how it is opened, and what is done about one that is damaged.

What cannot be read is set aside under another name; everything in it that still can be is taken over into a new file.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import ConfigError
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_scorer.stores.database import Row

__all__ = ["SCHEMA_VERSION", "check_file", "is_damage", "open_file", "reason_of", "set_aside", "write_back"]

logger = logging.getLogger(__name__)

# "otsp": marks a file as ours, for us and for `file(1)`.
_APPLICATION_ID: Final = 0x6F747370
# Requests are some hundred kilobytes: pages of this size cost half the CPU of SQLite's default, measured.
_PAGE_SIZE: Final = 16 * 1024
# The log is written back when it has grown by this, and cut to this should it have grown further.
_LOG_SIZE: Final = 32 << 20
# Looking through a whole file takes a second for each gigabyte or so: a larger one is found out where it is read.
_CHECKED_SIZE: Final = 256 << 20
# Between damaged pages: ids that are tried one by one.
_PROBES: Final = 10_000

_FIRST: Final = (
    # What was acknowledged, in order of arrival. `checksum` is the CRC-32 of id, signal and data.
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        signal TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX requests_by_signal ON requests (signal)",
    # What of a request is done before all of it is: `keys` are trace ids (or trace ids and span ids) that are decided,
    # one after the other; NULL says that all that was to be forwarded at once has been.
    """CREATE TABLE marks (
        id INTEGER PRIMARY KEY,
        request INTEGER NOT NULL,
        keys BLOB
    ) STRICT""",
    "CREATE INDEX marks_by_request ON marks (request)",
    # What is to be sent, as it is to be sent: verdicts, and spans that waited for them. `kind` says where to.
    """CREATE TABLE outgoing (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        items INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX outgoing_by_kind ON outgoing (kind)",
    # Traces that are decided, so that what comes late is known for what it is: see `Spool.closed`.
    """CREATE TABLE closed (
        id INTEGER PRIMARY KEY,
        traces INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT""",
    # Traces of which some verdicts are committed and others are not.
    """CREATE TABLE partly_decided (
        trace BLOB PRIMARY KEY,
        released INTEGER NOT NULL,
        scorers TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
)
# What leads from each version of the schema to the next; only ever appended to.
_MIGRATIONS: Final = (_FIRST,)
SCHEMA_VERSION: Final = len(_MIGRATIONS)

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error is about what is in the file, not about the disk, its space or a lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def reason_of(error: sqlite3.Error) -> str:
    """Return why something could not be written, as metrics call it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return "disk_full" if code == sqlite3.SQLITE_FULL else "disk_error"


def write_back(connection: sqlite3.Connection) -> None:
    """Get the log into the file, as far as the disk lets us: it is written from its beginning again then."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def check_file(path: Path) -> None:
    """
    See whether a file could be opened, without a lock or a change: whoever has it open may go on.

    Raises:
        ConfigError: It cannot be read, is no spool of ours, or was made by a newer version.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            _version(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        if not is_damage(error):  # that is mended when it is opened
            raise ConfigError(f"Cannot open the spool {path}: {error}") from error


def open_file(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """
    Open the file of a spool, or make it. The caller holds the lock of the folder.

    Args:
        path: The file.
        synchronous: `normal`: what is committed survives a killed process. `full`: a power failure too.

    Raises:
        ConfigError: It cannot be opened or written, is no spool of ours, or was made by a newer version.
    """
    try:
        return _open(path, synchronous)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise ConfigError(f"Cannot open the spool {path}: {error}") from error
        logger.error("The spool %s is damaged (%s)", path, error)  # noqa: TRY400 - the place in our code says nothing
    try:
        return set_aside(path, synchronous=synchronous)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"Cannot set the damaged spool {path} aside: {error}") from error


def set_aside(path: Path, *, synchronous: str) -> sqlite3.Connection:
    """
    Rename a damaged file, make a new one, and take over what can be read; nobody has it open.

    Raises:
        OSError, sqlite3.Error: The disk does not let us.
    """
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))
    count("spool.damaged", what="file")
    connection = _open(path, synchronous)
    taken = 0
    try:
        _mend(aside)
        damaged = sqlite3.connect(aside, isolation_level=None)
    except (OSError, sqlite3.Error):
        damaged = None
    if damaged is not None:
        connection.execute("BEGIN IMMEDIATE")
        taken = _take_over(damaged, connection)
        connection.execute("COMMIT")
        damaged.close()
    logger.error("It was set aside as %s; %d requests in it were still readable and are taken over", aside, taken)
    return connection


def _open(path: Path, synchronous: str) -> sqlite3.Connection:
    is_new = not path.exists()
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if is_new:
            path.chmod(0o600)
            _lay_out(connection)
        # Nobody else has it: the lock of the folder says so, and this spares a lock for each transaction.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = _version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_SIZE // _PAGE_SIZE}")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_SIZE}")
        if not is_new and path.stat().st_size <= _CHECKED_SIZE:
            _check(connection)
        _migrate(connection, version)
    except BaseException:
        connection.close()
        raise
    return connection


def _lay_out(connection: sqlite3.Connection) -> None:
    """Say how a file is to look that has nothing in it yet."""
    connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
    # What a backlog took is given back to the disk once it is gone.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """Make the tables, or bring them up to date; fails now where nothing can be written."""
    connection.execute("BEGIN IMMEDIATE")
    for step in _MIGRATIONS[version:]:
        for statement in step:
            connection.execute(statement)
    # What may be left of a request that is gone: its id may be given to another one.
    connection.execute("DELETE FROM marks WHERE request NOT IN (SELECT id FROM requests)")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return which schema the file has, 0 if it is empty."""
    [(application,)] = connection.execute("PRAGMA application_id")
    [(version,)] = connection.execute("PRAGMA user_version")
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_schema")
    if application != _APPLICATION_ID:
        if application or version or tables:
            raise ConfigError(f"{path} is a database of another program, not a spool of otel_scorer")
        return 0
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"The spool {path} was made by a newer version of otel_scorer (schema {version}, this one knows "
            f"{SCHEMA_VERSION}): update otel_scorer, or name another folder"
        )
    return int(version)


def _check(connection: sqlite3.Connection) -> None:
    [(answer,)] = connection.execute("PRAGMA quick_check(1)").fetchall()[:1]
    if answer != "ok":
        error = sqlite3.DatabaseError(str(answer).splitlines()[-1])
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _mend(path: Path) -> None:
    """
    Write the first page of a file anew: where each table begins, without which not even what is whole could be read.

    It is the same in all files of a version: tables are only ever made at the beginning, and stay where they are.
    """
    fresh = path.with_name(path.name + ".fresh")
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        _lay_out(connection)
        _migrate(connection, 0)
    finally:
        connection.close()
        page = bytearray(fresh.read_bytes()[:_PAGE_SIZE])
        fresh.unlink()
    pages = path.stat().st_size // _PAGE_SIZE
    page[18:20] = b"\x02\x02"  # a write-ahead log, for reading and writing
    page[28:32] = pages.to_bytes(4, "big")
    page[32:40] = bytes(8)  # no free pages: nobody will write
    with path.open("r+b") as file:
        file.write(page)


def _take_over(damaged: sqlite3.Connection, connection: sqlite3.Connection) -> int:
    """Copy what can be read and return how many requests that was."""
    taken = 0
    for table, columns in (("requests", 4), ("marks", 3), ("outgoing", 5), ("closed", 3)):
        places = ", ".join("?" * columns)
        for row in _rows(damaged, table):
            with suppress(sqlite3.IntegrityError):  # a damaged column is not of its type any more
                connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", row)  # noqa: S608 - names of ours
                taken += table == "requests"
    with suppress(sqlite3.DatabaseError):
        for row in damaged.execute("SELECT * FROM partly_decided"):
            connection.execute("INSERT OR IGNORE INTO partly_decided VALUES (?, ?, ?)", row)
    return taken


def _rows(damaged: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Yield the rows of a table up to the damage, then from the end back to it, then what is in between."""
    low, high = -1, None
    try:
        for row in damaged.execute(f"SELECT * FROM {table} ORDER BY id"):  # noqa: S608 - names of ours
            low = row[0]
            yield row
    except sqlite3.DatabaseError:
        pass
    else:
        return
    with suppress(sqlite3.DatabaseError):
        for row in damaged.execute(f"SELECT * FROM {table} WHERE id > ? ORDER BY id DESC", (low,)):  # noqa: S608
            high = row[0]
            yield row
    for number in range(low + 1, min(low + _PROBES, high) if high is not None else low + _PROBES):
        with suppress(sqlite3.DatabaseError):
            yield from damaged.execute(f"SELECT * FROM {table} WHERE id = ?", (number,))  # noqa: S608
