"""What is missing in a spool, or damaged, is noticed and said, costs only itself, and is kept to be looked at."""

from __future__ import annotations

import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.fakes import Counted

from otel_scorer.errors import ConfigError
from otel_scorer.model.wire import Signal
from otel_scorer.stores.spool import Spool
from otel_scorer.stores.spool_file import lay_out, migrate
from otel_scorer.stores.spool_parity import parity_of, repaired
from otel_scorer.stores.spool_rows import Changes, Outgoing, PartlyDecided, SpooledRequest, checksum

ALL = 1 << 40
TRACE = bytes(range(16))
REQUESTS = {number: bytes([number]) * (700 if number % 3 else 70_000) for number in range(1, 31)}
VERDICTS = {number: f"verdict {number} ".encode() * 300 for number in range(1, 4)}
PARTLY = PartlyDecided(released=frozenset({b"span-id-", b"span-id+"}), scorers=frozenset({"quick"}))
PAGE = 16 * 1024
FRAME = PAGE + 24


@contextmanager
def opened(folder: Path) -> Iterator[Spool]:
    spool = Spool(folder, max_size=1 << 30)
    try:
        yield spool
    finally:
        spool.close()


def killed(source: Path, target: Path) -> Path:
    """Return a copy of the files of a spool that is open: what a process leaves that is killed now."""
    target.mkdir(parents=True)
    for name in ("spool.db", "spool.db-wal", "mark"):
        shutil.copy(source / name, target / name)
    return target


def fill(spool: Spool) -> None:
    for data in REQUESTS.values():
        spool.add(Signal.TRACES, data)
    for data in VERDICTS.values():
        spool.commit(Changes(outgoing=[Outgoing("scores", 3, data)]))


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a killed process has left: everything is still in the log."""
    folder = tmp_path_factory.mktemp("left")
    with opened(folder / "spool") as spool:
        fill(spool)
        return killed(folder / "spool", folder / "killed")


@pytest.fixture
def folder(left: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(left, tmp_path / "spool"))


def requests_in(spool: Spool) -> dict[int, bytes]:
    return {request.id: request.data for request in spool.requests(Signal.TRACES, 0, ALL)}


def verdicts_in(spool: Spool) -> dict[int, bytes]:
    return {each.id: each.data for each in spool.outgoing("scores", 0, ALL)}


def set_aside(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if ".damaged-" in each.name)


def test_what_a_killed_process_has_left_is_whole_and_nothing_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder) as spool:
        assert requests_in(spool) == REQUESTS
        assert verdicts_in(spool) == VERDICTS

    assert not caplog.messages
    assert not set_aside(folder)


def test_a_process_that_was_killed_before_it_told_of_its_last_transaction_has_lost_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path / "spool") as spool:
        spool.add(Signal.TRACES, b"first")
        before = (tmp_path / "spool" / "mark").read_bytes()
        spool.add(Signal.TRACES, b"second")
        folder = killed(tmp_path / "spool", tmp_path / "killed")
    (folder / "mark").write_bytes(before)

    with opened(folder) as spool:
        assert list(requests_in(spool).values()) == [b"first", b"second"]

    assert not caplog.messages
    assert not set_aside(folder)


@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(share=st.floats(0, 1, exclude_max=True), size=st.sampled_from([1, 512]))
def test_damage_to_the_log_costs_what_is_damaged_and_nothing_behind_it(
    left: Path, tmp_path_factory: pytest.TempPathFactory, share: float, size: int
) -> None:
    folder = Path(shutil.copytree(left, tmp_path_factory.mktemp("damaged") / "spool"))
    log = bytearray((folder / "spool.db-wal").read_bytes())
    at = int(share * len(log))
    log[at : at + size] = bytes(each ^ 0xA5 for each in log[at : at + size])
    (folder / "spool.db-wal").write_bytes(log)
    counted = Counted()

    with opened(folder) as spool:
        requests, verdicts = requests_in(spool), verdicts_in(spool)

    assert requests.items() <= REQUESTS.items()
    assert verdicts.items() <= VERDICTS.items()
    lost = len(REQUESTS) - len(requests) + len(VERDICTS) - len(verdicts)
    # One page, or two, may have ended a transaction or hold several small requests; never what came after it.
    assert lost <= 12
    told = counted("spool.damaged{what=request}") + counted("spool.damaged{what=outgoing}")
    assert told == lost
    shutil.rmtree(folder)


@settings(max_examples=12, deadline=None, phases=[Phase.generate])
@given(share=st.floats(0, 1, exclude_max=True))
def test_of_a_log_that_was_cut_short_it_is_said_what_is_missing(
    left: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    folder = Path(shutil.copytree(left, tmp_path_factory.mktemp("cut") / "spool"))
    log = folder / "spool.db-wal"
    whole = log.stat().st_size
    with log.open("r+b") as file:
        file.truncate(int(share * whole))
    counted = Counted()

    with opened(folder) as spool:
        requests, verdicts = requests_in(spool), verdicts_in(spool)

    assert requests == {number: REQUESTS[number] for number in range(1, len(requests) + 1)}
    assert verdicts.items() <= VERDICTS.items()
    told = counted("spool.damaged{what=request}"), counted("spool.damaged{what=outgoing}")
    assert told == (len(REQUESTS) - len(requests), len(VERDICTS) - len(verdicts))
    assert any(each.name.endswith(".log") for each in set_aside(folder))
    shutil.rmtree(folder)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_empty, Path.unlink], ids=["emptied", "deleted"])
@pytest.mark.parametrize(
    ("names", "left_over"),
    [(("spool.db-wal",), 0), (("spool.db",), 30), (("spool.db", "spool.db-wal"), 0)],
    ids=["log", "file", "both"],
)
def test_what_somebody_has_emptied_is_missed(
    damage: Callable[[Path], object],
    names: tuple[str, ...],
    left_over: int,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in names:
        damage(folder / name)
    counted = Counted()

    with opened(folder) as spool:
        assert len(requests_in(spool)) == left_over
        later = spool.add(Signal.TRACES, b"later")

    assert counted("spool.damaged{what=file}") == 1
    assert counted("spool.damaged{what=request}") == len(REQUESTS) - left_over
    assert "was set aside as" in caplog.text
    # What is there now is complete, and is not said to be damaged again.
    caplog.clear()
    with opened(folder) as spool:
        assert requests_in(spool)[later] == b"later"
    assert not caplog.messages


def test_only_frames_since_the_log_was_begun_anew_count(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        # More than the log may grow: it is written back, and begun from the front again.
        ids = [spool.add(Signal.TRACES, bytes(4 << 20)) for _ in range(12)]
        spool.commit(Changes(finished=ids))
        for number in range(5):
            spool.add(Signal.TRACES, bytes([number + 1]) * 100_000)
        folder = killed(tmp_path / "spool", tmp_path / "killed")
        expected = requests_in(spool)
    log = bytearray((folder / "spool.db-wal").read_bytes())
    at = log.index(bytes([2]) * 8000) + 100
    log[at] ^= 1
    (folder / "spool.db-wal").write_bytes(log)

    with opened(folder) as spool:
        found = requests_in(spool)

    assert found == {number: data for number, data in expected.items() if data[0] != 2}


def test_a_mark_that_is_damaged_is_told_of_and_made_anew(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "mark").write_bytes(b"not a mark")

    with opened(folder) as spool:
        assert requests_in(spool) == REQUESTS
    assert "is damaged" in caplog.text
    caplog.clear()
    with opened(folder):
        pass
    assert not caplog.messages


def test_rows_that_are_gone_from_a_file_that_seems_whole_are_missed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(folder):
        pass
    with closing(sqlite3.connect(folder / "spool.db")) as connection, connection:
        connection.execute("DELETE FROM requests WHERE id IN (4, 5)")

    with opened(folder) as spool:
        assert len(requests_in(spool)) == len(REQUESTS) - 2
    assert "2 are lost" in caplog.text


def test_what_cannot_be_taken_over_is_there_at_the_next_start(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = bytearray((folder / "spool.db-wal").read_bytes())
    at = log.index(REQUESTS[15][:8000]) + 4000
    log[at] ^= 1
    (folder / "spool.db-wal").write_bytes(log)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(ConfigError, match="Cannot open the spool"):
            Spool(folder, max_size=1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not set_aside(folder)

    with opened(folder) as spool:
        assert requests_in(spool) == {number: data for number, data in REQUESTS.items() if number != 15}
    assert "is damaged" in caplog.text


def test_a_process_that_was_killed_while_it_took_over_is_followed_by_one_that_does(folder: Path) -> None:
    _empty(folder / "spool.db")
    # What it looks like then: the old files have another name, the new one is not complete.
    (folder / "spool.db").replace(folder / "spool.db.damaged-20260101T000000000000")
    (folder / "spool.db-wal").replace(folder / "spool.db.damaged-20260101T000000000000.log")
    (folder / "spool.db.new").write_bytes(b"incomplete")

    with opened(folder) as spool:
        assert requests_in(spool) == REQUESTS
        assert verdicts_in(spool) == VERDICTS


KILLED_AT_EACH_STEP = """
import logging
import os
import shutil
import sys
from pathlib import Path

from otel_scorer.stores.spool import Spool

STEPS = {"open", "os.chmod", "os.remove", "os.rename", "os.truncate", "sqlite3.connect"}
logging.disable(logging.CRITICAL)
left, target = Path(sys.argv[1]), Path(sys.argv[2])
for last in range(1000):
    folder = Path(shutil.copytree(left, target / str(last)))
    process = os.fork()
    if not process:
        done = 0

        def count(event, arguments):
            global done
            if event in STEPS and str(folder) in str(arguments):
                done += 1
                if done > last:
                    os._exit(1)

        sys.addaudithook(count)
        Spool(folder, max_size=1 << 30)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0:
        break
"""


def test_whatever_step_of_taking_over_a_process_is_killed_at_the_next_one_finds_everything(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        for number in range(1, 6):
            spool.add(Signal.TRACES, bytes([number]) * 70_000)
        left = killed(tmp_path / "spool", tmp_path / "left")
    log = bytearray((left / "spool.db-wal").read_bytes())
    log[log.index(bytes([3]) * 8000) + 4000] ^= 1
    (left / "spool.db-wal").write_bytes(log)
    (tmp_path / "killed").mkdir()

    subprocess.run([sys.executable, "-c", KILLED_AT_EACH_STEP, left, tmp_path / "killed"], check=True, timeout=300)

    folders = list((tmp_path / "killed").iterdir())
    assert len(folders) > 15
    for folder in folders:
        with opened(folder) as spool:
            assert list(requests_in(spool)) == [1, 2, 4, 5], folder.name


def test_a_process_that_was_killed_while_it_made_the_file_is_followed_by_one_that_does(folder: Path) -> None:
    for name in ("spool.db-wal", "mark"):
        (folder / name).unlink()
    (folder / "spool.db").write_bytes(b"")

    with opened(folder) as spool:
        spool.add(Signal.TRACES, b"first")

    assert not set_aside(folder)
    with closing(sqlite3.connect(folder / "spool.db")) as connection:
        assert connection.execute("PRAGMA page_size").fetchone() == (PAGE,)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


@pytest.mark.parametrize("table", ["closed", "marks", "partly_decided", "taken"])
def test_damage_that_is_found_while_it_runs_is_mended_whatever_was_read(
    table: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large = {number: bytes([number]) * (1 << 20) for number in range(1, 6)}
    with opened(tmp_path) as spool:
        for data in large.values():
            spool.add(Signal.TRACES, data)
        spool.commit(Changes(forwarded=[2], closed=[TRACE]))
    with opened(tmp_path) as spool:
        with closing(sqlite3.connect(f"file:{tmp_path / 'spool.db'}?mode=ro&immutable=1", uri=True)) as connection:
            [(page,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,))
        with (tmp_path / "spool.db").open("r+b") as file:
            file.seek((page - 1) * PAGE)
            file.write(b"\xff" * PAGE)

        # More than SQLite keeps in memory: it reads the page again.
        assert requests_in(spool) == large
        assert [each for each in spool.closed() if each != TRACE] == []
        assert spool.partly_decided() == {}
        later = spool.add(Signal.TRACES, b"later")
        assert requests_in(spool) == {**large, later: b"later"}

    assert "was set aside as" in caplog.text
    with opened(tmp_path) as spool:
        assert requests_in(spool) == {**large, later: b"later"}


FIRST_SCHEMA = """
PRAGMA page_size = 16384;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE requests (id INTEGER PRIMARY KEY, signal TEXT NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL)
    STRICT;
CREATE INDEX requests_by_signal ON requests (signal);
CREATE TABLE marks (id INTEGER PRIMARY KEY, request INTEGER NOT NULL, keys BLOB) STRICT;
CREATE INDEX marks_by_request ON marks (request);
CREATE TABLE outgoing (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, items INTEGER NOT NULL, checksum INTEGER NOT NULL,
    data BLOB NOT NULL) STRICT;
CREATE INDEX outgoing_by_kind ON outgoing (kind);
CREATE TABLE closed (id INTEGER PRIMARY KEY, traces INTEGER NOT NULL, data BLOB NOT NULL) STRICT;
CREATE TABLE partly_decided (trace BLOB PRIMARY KEY, released INTEGER NOT NULL, scorers TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
PRAGMA application_id = 1869902704;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A spool that the first version has left, with rows in it."""
    folder = tmp_path / "old"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "spool.db")) as connection:
        connection.executescript(FIRST_SCHEMA)
        with connection:
            connection.executemany(
                "INSERT INTO requests VALUES (?, 'traces', ?, ?)",
                [(number, checksum(number, "traces", data), data) for number, data in REQUESTS.items()],
            )
            connection.executemany(
                "INSERT INTO outgoing VALUES (?, 'scores', 3, ?, ?)",
                [(number, checksum(number, "scores", data), data) for number, data in VERDICTS.items()],
            )
    return folder


def test_g7_a_spool_of_the_first_version_is_brought_up_to_date(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(old) as spool:
        assert requests_in(spool) == REQUESTS
        assert verdicts_in(spool) == VERDICTS
        assert spool.requests(Signal.TRACES, 0, 1)[0].taken == frozenset()
        spool.add(Signal.TRACES, b"later")

    assert not caplog.messages


def test_of_what_the_second_version_has_sent_without_all_verdicts_it_is_not_known_which_spans_that_were(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as connection:
        lay_out(connection)
        migrate(connection, 0, 2)
        connection.execute("INSERT INTO partly_decided VALUES (?, 1, ?)", (TRACE, '["quick"]'))

    with opened(tmp_path) as spool:
        assert spool.partly_decided() == {TRACE: PartlyDecided(frozenset(), frozenset({"quick"}))}
        spool.commit(Changes(partly={TRACE: PARTLY}))
        assert spool.partly_decided() == {TRACE: PARTLY}


def test_what_the_third_version_has_noted_of_a_request_still_counts(tmp_path: Path) -> None:
    data = b"spans"
    with closing(sqlite3.connect(tmp_path / "spool.db", isolation_level=None)) as connection:
        lay_out(connection)
        migrate(connection, 0, 3)
        connection.execute("INSERT INTO requests VALUES (1, 'traces', ?, ?)", (checksum(1, "traces", data), data))
        connection.execute("INSERT INTO marks (request, keys) VALUES (1, NULL), (1, ?)", (bytes([16]) + TRACE,))
        connection.execute("INSERT INTO partly_decided VALUES (?, 1, ?, ?)", (TRACE, '["quick"]', b"span-id-"))

    with opened(tmp_path) as spool:
        spool.adopt("hold_root")
        [request] = spool.requests(Signal.TRACES, 0, ALL)
        assert request == SpooledRequest(1, Signal.TRACES, data, is_forwarded=True, decided=frozenset({TRACE}))
        assert spool.partly_decided() == {TRACE: PartlyDecided(frozenset({b"span-id-"}), frozenset({"quick"}))}


def test_which_spans_have_left_is_taken_over_from_a_damaged_spool(folder: Path) -> None:
    with opened(folder) as spool:
        spool.commit(Changes(partly={TRACE: PARTLY}))
    with (folder / "spool.db").open("r+b") as file:
        file.write(b"\xff" * 300)

    with opened(folder) as spool:
        assert spool.partly_decided() == {TRACE: PARTLY}


def test_tables_are_where_they_are_in_every_file(old: Path, tmp_path: Path) -> None:
    """What is known of a file whose first page is gone: else nothing in it could be read."""
    places: list[dict[str, int]] = []
    for folder in (old, tmp_path / "new"):
        with opened(folder):
            pass
        with closing(sqlite3.connect(folder / "spool.db")) as connection:
            places.append(dict(connection.execute("SELECT name, rootpage FROM sqlite_schema")))

    assert places[0] == places[1]


@pytest.mark.parametrize("is_known", [True, False], ids=["version known", "version unknown"])
def test_g7_a_damaged_spool_of_the_first_version_is_taken_over(is_known: bool, old: Path) -> None:
    with (old / "spool.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 200)
        if not is_known:
            file.seek(0)
            file.write(b"\xff" * 100)

    with opened(old) as spool:
        assert requests_in(spool) == REQUESTS
        assert verdicts_in(spool) == VERDICTS


@pytest.mark.parametrize(
    ("at", "size", "what"), [(1000, 60, "repaired"), (10, 2000, "outgoing")], ids=["in one place", "beyond repair"]
)
def test_something_to_be_sent_that_is_damaged_is_repaired_or_costs_only_itself(
    at: int, size: int, what: str, folder: Path
) -> None:
    with opened(folder):
        pass
    data = bytearray((folder / "spool.db").read_bytes())
    at += data.index(VERDICTS[2])
    data[at : at + size] = bytes(size)
    (folder / "spool.db").write_bytes(data)
    counted = Counted()

    with opened(folder) as spool:
        found = verdicts_in(spool)

    assert found == {number: data for number, data in VERDICTS.items() if what == "repaired" or number != 2}
    assert {each: counted(f"spool.damaged{{what={each}}}") for each in ("repaired", "outgoing")} == {
        "repaired": int(what == "repaired"),
        "outgoing": int(what == "outgoing"),
    }


@settings(deadline=None)
@given(
    size=st.integers(1, 100_000),
    share=st.floats(0, 1, exclude_max=True),
    run=st.floats(0, 1),
)
def test_any_run_of_damage_up_to_a_block_is_repaired(size: int, share: float, run: float) -> None:
    data = random.Random(size).randbytes(size)
    parity = parity_of(data)
    assert repaired(data, parity) == data

    at = int(share * len(data))
    length = 1 + int(run * (min(4096, max(64, len(data) // 16)) - 1))
    damaged = data[:at] + bytes(each ^ 0xFF for each in data[at : at + length]) + data[at + length :]
    assert repaired(damaged, parity) == data


@given(data=st.binary(max_size=2000), parity=st.binary(max_size=300))
def test_no_parity_makes_repairing_fail(data: bytes, parity: bytes) -> None:
    assert repaired(data, parity) is None or len(repaired(data, parity) or b"") == len(data)
