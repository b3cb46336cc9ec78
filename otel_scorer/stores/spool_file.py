"""The SQLite file of a spool: its tables, how it is opened, and how it is told that it is damaged."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = [
    "COMMIT",
    "COPY",
    "LOG",
    "NEW",
    "PAGE_SIZE",
    "SCHEMA_VERSION",
    "Damaged",
    "check_file",
    "commits_in",
    "is_damage",
    "lay_out",
    "migrate",
    "move_aside",
    "open_file",
    "reason_of",
    "version_in",
    "write_back",
]

# "otsp": marks a file as ours, for us and for `file(1)`.
_APPLICATION_ID: Final = 0x6F747370
# Requests are some hundred kilobytes: pages of this size cost half the CPU of SQLite's default, measured.
PAGE_SIZE: Final = 16 * 1024
"""Of every file."""
# Looking through a whole file takes a second for each gigabyte or so: a larger one is found out where it is read.
_CHECKED_SIZE: Final = 256 << 20
# Where the number of the schema is in a file.
_VERSION_AT: Final = slice(60, 64)

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
    # one after the other; NULL says that all that was to be forwarded at once has been. The first byte is the length of
    # each key; 0: those are of spans that have been forwarded because they were late.
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
_SECOND: Final = (
    # What repairs the data of a row: see `parity_of`.
    "ALTER TABLE outgoing ADD COLUMN parity BLOB",
    # How many transactions there were, to compare with the mark beside the file.
    """CREATE TABLE progress (
        id INTEGER PRIMARY KEY,
        commits INTEGER NOT NULL
    ) STRICT""",
    "INSERT INTO progress VALUES (1, 0)",
    # Of several destinations: which one has a row of `requests` or `outgoing` already.
    """CREATE TABLE taken (
        what TEXT NOT NULL,
        id INTEGER NOT NULL,
        destination TEXT NOT NULL,
        PRIMARY KEY (what, id, destination)
    ) STRICT, WITHOUT ROWID""",
)
_THIRD: Final = (
    # Where `released`: ids of the spans that have left, one after the other. NULL in rows that are older: nobody knows
    # any more, so all of them leave again.
    "ALTER TABLE partly_decided ADD COLUMN spans BLOB",
)
_FOURTH: Final = (
    # How requests were handled when it was opened last: what is noted of them holds only for that.
    "ALTER TABLE progress ADD COLUMN policy TEXT",
    # The last revision of which a verdict is committed.
    "ALTER TABLE partly_decided ADD COLUMN revision INTEGER NOT NULL DEFAULT 1",
)
# What leads from each version of the schema to the next; only ever appended to.
_MIGRATIONS: Final = (_FIRST, _SECOND, _THIRD, _FOURTH)
SCHEMA_VERSION: Final = len(_MIGRATIONS)
LOG: Final = ".log"
"""What is appended to the name of a damaged file for the log beside it."""
NEW: Final = ".new"
"""What is appended to the name of a file into which what can be read of a damaged one is taken over."""
COPY: Final = ".copy"
"""What is appended to the name of a file that is written anew; unlike the one above it says nothing of damaged ones."""
COMMIT: Final = "UPDATE progress SET commits = commits + 1"
"""Belongs to every transaction."""


class Damaged(NamedTuple):
    """A spool that was set aside: its new name, and what is wrong with it."""

    aside: Path
    reason: str


_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error is about what is in the file, not about the disk, its space or a lock."""
    # The number of the format is damaged then, for which SQLite has no code.
    is_unknown = str(error) == "unsupported file format"
    return is_unknown or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


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
            _schema_of(connection, path)
        finally:
            connection.close()
    except sqlite3.Error as error:
        if not is_damage(error):  # that is mended when it is opened
            raise ConfigError(f"Cannot open the spool {path}: {error}") from error


def open_file(
    path: Path, *, synchronous: str, log_size: int, check: Callable[[sqlite3.Connection], str] | None = None
) -> sqlite3.Connection | Damaged:
    """
    Open the file of a spool, or make it; set it aside if it is damaged. The caller holds the lock of the folder.

    Args:
        path: The file.
        synchronous: `normal`: what is committed survives a killed process. `full`: a power failure too.
        log_size: Bytes. The log is written back when it has grown by so much, and cut to that should it have grown
            further.
        check: Looks at the file before anything is written to it, and returns what is wrong with it, if anything.

    Raises:
        ConfigError: It is no spool of ours, or was made by a newer version.
        OSError, sqlite3.Error: It cannot be opened or written, or not set aside.
    """
    # One without a byte in it was being made when somebody was killed.
    is_new = not path.exists() or not path.stat().st_size
    is_kept = False
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if is_new:
            path.chmod(0o600)
            lay_out(connection)
        # Nobody else has it: the lock of the folder says so, and this spares a lock for each transaction.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = _schema_of(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous.upper()}")
        # Some builds of SQLite write zeros over what is deleted: twice the work, and room that a full disk has not got.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute(f"PRAGMA wal_autocheckpoint = {log_size // PAGE_SIZE}")
        connection.execute(f"PRAGMA journal_size_limit = {log_size}")
        wrong = "" if is_new or path.stat().st_size > _CHECKED_SIZE else _look_through(connection)
        if not wrong and check is not None:
            wrong = check(connection)
        if not wrong:
            migrate(connection, version)
            is_kept = True
            return connection
        # Before it is closed: the log, which tells more than SQLite sees in it, would be gone.
        aside = move_aside(path)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        aside, wrong = move_aside(path), str(error)
    finally:
        if not is_kept:
            connection.close()
    return Damaged(aside, wrong)


def move_aside(path: Path) -> Path:
    """
    Rename the files of a spool, and return the new name. Whoever has them open still has, and closes them as they are.

    The beginning of a new file says that what is in the old one is not taken over yet.

    Raises:
        OSError: The disk does not let us.
    """
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    path.with_name(path.name + NEW).touch(mode=0o600)
    # The file goes first, and comes back last: whoever is killed in between leaves a log without a file, which tells.
    # The log gets a name that SQLite takes for nothing: it would end at the first damaged frame.
    for name, other in (("", ""), ("-wal", LOG), ("-shm", ".shm")):
        with suppress(FileNotFoundError):
            path.with_name(path.name + name).replace(aside.with_name(aside.name + other))
    return aside


def lay_out(connection: sqlite3.Connection) -> None:
    """Say how a file is to look that has nothing in it yet."""
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    # What a backlog took is given back to the disk once it is gone.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


def migrate(connection: sqlite3.Connection, version: int, to: int = SCHEMA_VERSION) -> None:
    """Make the tables, or bring them up to date; fails now where nothing can be written."""
    connection.execute("BEGIN IMMEDIATE")
    for step in _MIGRATIONS[version:to]:
        for statement in step:
            connection.execute(statement)
    # What may be left of a request that is gone: its id may be given to another one.
    connection.execute("DELETE FROM marks WHERE request NOT IN (SELECT id FROM requests)")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    if to == SCHEMA_VERSION:
        connection.execute("DELETE FROM taken WHERE what = 'request' AND id NOT IN (SELECT id FROM requests)")
        connection.execute("DELETE FROM taken WHERE what = 'outgoing' AND id NOT IN (SELECT id FROM outgoing)")
    connection.execute(f"PRAGMA user_version = {to}")
    connection.execute("COMMIT")


def version_in(page: bytes) -> int:
    """Return which schema a file has by its first bytes; the newest if they do not say."""
    version = int.from_bytes(page[_VERSION_AT], "big")
    return version if 0 < version < SCHEMA_VERSION else SCHEMA_VERSION


def commits_in(connection: sqlite3.Connection) -> int:
    """Return how many transactions a file has seen; 0 if it is of a version that did not count them."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'progress'").fetchone() is None:
        return 0
    [(commits,)] = connection.execute("SELECT coalesce(max(commits), 0) FROM progress")
    return int(commits)


def _schema_of(connection: sqlite3.Connection, path: Path) -> int:
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


def _look_through(connection: sqlite3.Connection) -> str:
    [(answer,)] = connection.execute("PRAGMA quick_check(1)").fetchall()[:1]
    return "" if answer == "ok" else str(answer).splitlines()[-1]
