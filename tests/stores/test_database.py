"""The file in which traces and registered scorers are kept: made, shared, refused, survived."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from otel_scorer.config import store_path
from otel_scorer.errors import ConfigError, StoreError
from otel_scorer.stores.database import _APPLICATION_ID, _MIGRATIONS, Database, default_store_path, open_database

PROCESSES = 4
ROWS = 25

INSERT = "INSERT INTO registrations VALUES (?, 1.0, NULL, 0, 0)"


def names(database: Database) -> list[str]:
    return [name for (name,) in database.query("SELECT name FROM registrations ORDER BY name")]


def revision(database: Database) -> int:
    [(value,)] = database.query("SELECT value FROM revisions WHERE name = 'registrations'")
    return int(value)


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_store_is_made_with_its_folder_and_keeps_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "traces.db"
    with open_database(path) as database, database.transaction() as write:
        write.execute(INSERT, ("one",))

    with open_database(path) as database:
        assert names(database) == ["one"]


def test_what_fails_halfway_is_not_written_at_all(tmp_path: Path) -> None:
    with open_database(tmp_path / "traces.db") as database:
        with pytest.raises(StoreError, match="UNIQUE"), database.transaction() as write:
            write.execute_many(INSERT, [("one",), ("two",), ("one",)])

        assert names(database) == []


def test_every_change_of_a_registration_is_counted(tmp_path: Path) -> None:
    with open_database(tmp_path / "traces.db") as database:
        before = revision(database)
        with database.transaction() as write:
            write.execute(INSERT, ("one",))
            write.execute("UPDATE registrations SET sample_rate = 0")
            write.execute("DELETE FROM registrations")

        assert revision(database) == before + 3


def test_threads_share_a_store(tmp_path: Path) -> None:
    with open_database(tmp_path / "traces.db") as database:

        def write_some(who: int) -> None:
            for number in range(ROWS):
                with database.transaction() as write:
                    write.execute(INSERT, (f"{who} {number}",))

        threads = [threading.Thread(target=write_some, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(names(database)) == 4 * ROWS


def test_processes_make_and_share_a_store_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    code = f"""
import sys
from otel_scorer.stores.database import open_database
sys.stdin.readline()
with open_database(sys.argv[1]) as database:
    for number in range({ROWS}):
        with database.transaction() as write:
            write.execute({INSERT!r}, (f"{{sys.argv[2]}} {{number}}",))
"""
    processes = [run_python(code, str(path), str(who)) for who in range(PROCESSES)]
    ends = [process.communicate("go\n", timeout=100) for process in processes]

    assert [error for _, error in ends] == [""] * PROCESSES
    with open_database(path) as database:
        assert len(names(database)) == PROCESSES * ROWS
        assert revision(database) == PROCESSES * ROWS


def test_a_killed_writer_loses_only_what_it_had_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    code = f"""
import sys
from otel_scorer.stores.database import open_database
database = open_database(sys.argv[1])
with database.transaction() as write:
    write.execute({INSERT!r}, ("finished",))
with database.transaction() as write:
    write.execute({INSERT!r}, ("not finished",))
    print("writing", flush=True)
    sys.stdin.readline()
"""
    process = run_python(code, str(path))
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.communicate(timeout=30)

    with open_database(path) as database:
        assert names(database) == ["finished"]
        with database.transaction() as write:
            write.execute(INSERT, ("next",))


def test_a_forked_process_uses_a_connection_of_its_own(tmp_path: Path) -> None:
    # In a process that has no threads yet: only those may fork.
    code = f"""
import os, sys
from otel_scorer.stores.database import open_database
database = open_database(sys.argv[1])
with database.transaction() as write:
    write.execute({INSERT!r}, ("parent",))
child = os.fork()
with database.transaction() as write:
    write.execute({INSERT!r}, ("child" if child == 0 else "parent again",))
database.close()
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    _, error = run_python(code, str(tmp_path / "traces.db")).communicate(timeout=30)

    assert error == ""
    with open_database(tmp_path / "traces.db") as database:
        assert names(database) == ["child", "parent", "parent again"]


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    database = open_database(tmp_path / "traces.db")
    database.close()
    database.close()

    with pytest.raises(StoreError, match="has been closed"):
        names(database)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are notes, not traces." * 100, encoding="utf-8")

    with pytest.raises(ConfigError, match=r"notes\.txt: it is not a database"):
        open_database(path)

    assert path.read_text(encoding="utf-8") == "These are notes, not traces." * 100


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    before = path.read_bytes()

    with pytest.raises(ConfigError, match="of another program"):
        open_database(path)

    assert path.read_bytes() == before


def test_a_store_of_the_first_version_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    connection = sqlite3.connect(path)
    for statement in _MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO traces VALUES "
        "(7, 'abc', x'00', x'', 0, 'name', NULL, NULL, NULL, NULL, 'OK', 1, 2, '{}', NULL, 1, 1, 3)"
    )
    connection.execute("INSERT INTO entries VALUES (1, NULL, 'abc', 0, NULL, NULL, '[]', 3)")
    connection.execute("INSERT INTO feedback VALUES (1, 'abc', NULL, 'check', 1.0, 'true')")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()

    with open_database(path) as database:
        assert database.query("SELECT id, trace_id, name, stored_ms, unit FROM traces") == [(7, "abc", "name", 3, "")]
        assert database.query("SELECT unit FROM entries UNION ALL SELECT unit FROM feedback") == [("",), ("",)]


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    open_database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(ConfigError, match=r"newer version of otel_scorer \(schema 99"):
        open_database(path)


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    with open_database(path) as database, database.transaction() as write:
        for number in range(500):
            write.execute(INSERT, (f"{number}" * 50,))
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)

    with pytest.raises(ConfigError, match="it is damaged"):
        open_database(path)


def test_damage_found_later_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    with open_database(path) as database, database.transaction() as write:
        for number in range(3000):
            write.execute(INSERT, (f"{number}" * 50,))
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half:] = b"\xff" * (len(content) - half)
    path.write_bytes(content)

    with open_database(path) as database, pytest.raises(StoreError, match="it is damaged"):
        names(database)


@contextmanager
def without_privileges() -> Iterator[Path]:
    """Be a user for whom permissions count, as they do not for root, with a folder that this user can reach."""
    nobody = 65534
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        before = os.geteuid()
        open_database(Path(folder) / "traces.db").close()
        (Path(folder) / "traces.db").chmod(0o444)
        if before == 0:
            os.seteuid(nobody)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)


def test_a_store_that_cannot_be_written_is_refused() -> None:
    with without_privileges() as folder, pytest.raises(ConfigError, match="cannot be written"):
        open_database(folder / "traces.db")


def test_a_store_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(ConfigError, match="Cannot open the store"):
        open_database(tmp_path / "file" / "traces.db")
    with pytest.raises(ConfigError, match="Cannot open the store"):
        open_database(tmp_path)


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    with open_database(tmp_path / "traces.db") as database:
        with database.transaction() as write:
            write.execute(INSERT, ("before",))
        # SQLite's own way to say that no page may be added.
        [(pages,)] = database.query("PRAGMA page_count")
        database.query(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(StoreError, match="the disk is full"), database.transaction() as write:
            write.execute(INSERT, ("x" * 1_000_000,))

        assert names(database) == ["before"]


def test_the_environment_says_where_the_store_is() -> None:
    assert store_path({}) == default_store_path() == Path(".otel_scorer/traces.db")
    assert store_path({"OTEL_SCORER_STORE": " "}) == default_store_path()
    assert store_path({"OTEL_SCORER_STORE": "/data/traces.db"}) == Path("/data/traces.db")


OPENING_WHILE_FORKING = """
import os, signal, sqlite3, sys, threading
from otel_scorer.stores.database import open_database

is_over = threading.Event()

def keep_opening():
    while not is_over.is_set():
        open_database(sys.argv[1]).close()

opener = threading.Thread(target=keep_opening)
opener.start()
try:
    for _ in range(200):
        child = os.fork()
        if not child:
            signal.alarm(60)
            sqlite3.connect(":memory:").execute("SELECT 1").fetchall()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
finally:
    is_over.set()
    opener.join()
"""


def test_a_process_that_is_forked_while_a_thread_opens_a_store_can_use_sqlite(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OPENING_WHILE_FORKING, tmp_path / "traces.db"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert (done.returncode, done.stderr) == (0, "")
