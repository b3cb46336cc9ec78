"""Takes over into a new file whatever can still be read of a spool that was set aside, damaged."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from otel_scorer.stores.spool_file import COPY, LOG, NEW, PAGE_SIZE, lay_out, migrate, version_in
from otel_scorer.stores.spool_log import write_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_scorer.stores.database import Row

__all__ = ["copy_whole", "move_back", "take_over", "was_interrupted"]

# What may be beside a file that was set aside, and is no part of it.
_OTHERS: Final = ("-wal", "-shm", "-journal", ".shm", ".fresh")
# Between damaged pages: ids that are tried one by one.
_PROBES: Final = 10_000
_FEW_PROBES: Final = 500
# Columns of each table, and their number in the first version; what is new since then may be missing.
_TABLES: Final = {
    "requests": "id, signal, checksum, data",
    "marks": "id, request, keys",
    "outgoing": "id, kind, items, checksum, data",
    "closed": "id, traces, data",
}


def take_over(aside: Path, path: Path, commits: int) -> tuple[int, int]:
    """
    Make a new file with what can be read of one that was set aside. It is in its place when it is complete.

    Args:
        aside: As `move_aside` named it.
        path: Where the new file is to be.
        commits: How many transactions it is to tell of.

    Returns:
        How many requests, and how many things to be sent, could be read.

    Raises:
        OSError, sqlite3.Error: The disk does not let us.
    """
    new = path.with_name(path.name + NEW)
    new.with_name(new.name + "-journal").unlink(missing_ok=True)
    # Emptied, never gone: without it the next start would not know that there is something to take over.
    new.write_bytes(b"")
    connection = sqlite3.connect(new, isolation_level=None)
    try:
        new.chmod(0o600)
        lay_out(connection)
        migrate(connection, 0)
        taken = _copy_all(aside, connection)
        connection.execute("UPDATE progress SET commits = ?", (commits,))
    finally:
        connection.close()
    new.replace(path)
    return taken


def copy_whole(deleted: sqlite3.Connection, path: Path) -> None:
    """
    Write a file anew that was deleted, or whose log was, while it was open; then it is closed.

    Raises:
        OSError, sqlite3.Error: The disk does not let us; it is still open then.
    """
    new = path.with_name(path.name + COPY)
    try:
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        copy = sqlite3.connect(new, isolation_level=None)
        try:
            deleted.backup(copy)
        finally:
            copy.close()
        for name in ("-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        new.replace(path)
    except BaseException:
        # The disk may be full, and nobody else looks for it before the next try.
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    # Only now: until the copy is in its place this is all that there is.
    with suppress(sqlite3.Error):
        deleted.close()


def was_interrupted(path: Path) -> bool:
    """Tell whether a file was set aside and not taken over to its end."""
    return path.with_name(path.name + NEW).exists()


def move_back(path: Path) -> None:
    """Undo a `move_aside` that nothing came of; a disk that does not let us keeps what it has."""
    with suppress(OSError):
        found = [each.name for each in path.parent.glob(f"{path.name}.damaged-*")]
        asides = sorted({name.removesuffix(LOG) for name in found if not name.endswith(_OTHERS)})
        if asides and not path.exists():
            for name, other in (("-wal", LOG), ("", "")):  # see `move_aside`
                with suppress(FileNotFoundError):
                    path.with_name(asides[-1] + other).replace(path.with_name(path.name + name))
        path.with_name(path.name + NEW).unlink(missing_ok=True)


def _copy_all(aside: Path, connection: sqlite3.Connection) -> tuple[int, int]:
    _mend(aside)
    try:
        damaged = sqlite3.connect(aside, isolation_level=None)
    except sqlite3.Error:
        return 0, 0
    try:
        connection.execute("BEGIN IMMEDIATE")
        taken = _copy(damaged, connection)
        connection.execute("COMMIT")
    finally:
        damaged.close()
    return taken


def _mend(path: Path) -> None:
    """
    Write what is in the log into the file, and the first page anew: where each table begins.

    Without that not even what is whole could be read.

    The page is the same in all files of a version: tables are only ever made at the beginning, and stay where they are.
    """
    path.touch(mode=0o600)
    log = path.with_name(path.name + LOG)
    if log.exists():
        write_pages(log, path, PAGE_SIZE)
    with path.open("rb") as file:
        version = version_in(file.read(PAGE_SIZE))
    fresh = path.with_name(path.name + ".fresh")
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        lay_out(connection)
        migrate(connection, 0, version)
    finally:
        connection.close()
        page = bytearray(fresh.read_bytes()[:PAGE_SIZE])
        fresh.unlink()
    pages = path.stat().st_size // PAGE_SIZE
    page[18:20] = b"\x02\x02"  # a write-ahead log, for reading and writing
    page[28:32] = pages.to_bytes(4, "big")
    page[32:40] = bytes(8)  # no free pages: nobody will write
    with path.open("r+b") as file:
        file.write(page)


def _copy(damaged: sqlite3.Connection, connection: sqlite3.Connection) -> tuple[int, int]:
    taken = dict.fromkeys(_TABLES, 0)
    for table, columns in _TABLES.items():
        places = ", ".join("?" * (columns.count(",") + 1))
        for row in _rows(damaged, table, columns):
            with suppress(sqlite3.IntegrityError):  # a damaged column is not of its type any more
                statement = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})"  # noqa: S608 - names of ours
                taken[table] += connection.execute(statement, row).rowcount
    for statement, copy in (
        ("SELECT id, parity FROM outgoing", "UPDATE outgoing SET parity = ?2 WHERE id = ?1"),
        (
            "SELECT trace, released, scorers FROM partly_decided",
            "INSERT OR IGNORE INTO partly_decided (trace, released, scorers) VALUES (?, ?, ?)",
        ),
        ("SELECT trace, spans FROM partly_decided", "UPDATE partly_decided SET spans = ?2 WHERE trace = ?1"),
        ("SELECT trace, revision FROM partly_decided", "UPDATE partly_decided SET revision = ?2 WHERE trace = ?1"),
        ("SELECT * FROM taken", "INSERT OR IGNORE INTO taken VALUES (?, ?, ?)"),
        ("SELECT policy FROM progress", "UPDATE progress SET policy = ?"),
    ):
        with suppress(sqlite3.DatabaseError):
            for row in damaged.execute(statement):
                connection.execute(copy, row)
    return taken["requests"], taken["outgoing"]


def _rows(damaged: sqlite3.Connection, table: str, columns: str) -> Iterator[Row]:
    """Yield the rows of a table up to the damage, then from the end back to it, then what is in between."""
    low, high = -1, None
    try:
        for row in damaged.execute(f"SELECT {columns} FROM {table} ORDER BY id"):  # noqa: S608 - names of ours
            low = row[0]
            yield row
    except sqlite3.DatabaseError:
        pass
    else:
        return
    with suppress(sqlite3.DatabaseError):
        for row in damaged.execute(f"SELECT {columns} FROM {table} WHERE id > ? ORDER BY id DESC", (low,)):  # noqa: S608
            high = row[0]
            yield row
    if high is None:
        # Neither end: where the table begins cannot be read, or hardly anything is left of it.
        high = low + _FEW_PROBES
    for number in range(low + 1, min(low + _PROBES, high)):
        with suppress(sqlite3.DatabaseError):
            yield from damaged.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (number,))  # noqa: S608
