"""A spool keeps what was committed to it, whoever writes at the same time, and whatever happens to its file."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_scorer.errors import ConfigError, SpoolFullError, StoreError
from otel_scorer.model.wire import Signal
from otel_scorer.stores.spool import Spool
from otel_scorer.stores.spool_file import SCHEMA_VERSION
from otel_scorer.stores.spool_rows import Changes, Outgoing, PartlyDecided, SpooledRequest, Taken
from otel_scorer.telemetry import snapshot

ALL = 1 << 40
TRACE = bytes(range(16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@contextmanager
def opened(folder: Path, max_size: int = 1 << 30, **settings: object) -> Iterator[Spool]:
    spool = Spool(folder, max_size=max_size, **settings)  # type: ignore[arg-type]  # passed on as they are
    try:
        yield spool
    finally:
        spool.close()


def counted(name: str) -> int:
    return snapshot().get(name, 0)


def test_what_is_committed_is_there_when_it_is_opened_again(folder: Path) -> None:
    partly = PartlyDecided(released=frozenset({b"span-id-", b"span-id+"}), scorers=frozenset({"a", "b"}))
    with opened(folder) as spool:
        first = spool.add(Signal.TRACES, b"spans")
        spool.add(Signal.LOGS, b"records")
        [sent] = spool.commit(
            Changes(
                outgoing=[Outgoing("scores", 2, b"verdicts")],
                decided={first: [TRACE, TRACE[::-1]]},
                apart={first: [TRACE + b"span-id-"]},
                forwarded=[first],
                closed=[TRACE, TRACE + b"span-id-"],
                partly={TRACE: partly},
            )
        )

    with opened(folder) as spool:
        assert spool.requests(Signal.TRACES, 0, ALL) == [
            SpooledRequest(
                first,
                Signal.TRACES,
                b"spans",
                is_forwarded=True,
                decided=frozenset({TRACE, TRACE[::-1]}),
                apart=frozenset({TRACE + b"span-id-"}),
            )
        ]
        assert [request.data for request in spool.requests(Signal.LOGS, 0, ALL)] == [b"records"]
        assert spool.outgoing("scores", 0, ALL) == [sent]
        assert spool.kinds() == {"scores"}
        assert list(spool.closed()) == [TRACE, TRACE + b"span-id-"]
        assert spool.partly_decided() == {TRACE: partly}
        assert spool.left == (2, 1)
        assert spool.last_ids == (2, 1)


def test_what_was_noted_of_requests_is_forgotten_when_they_are_handled_otherwise(folder: Path) -> None:
    for policy, is_known in (("hold_root", True), ("hold_root", True), ("hold_trace", False), ("hold_root", False)):
        with opened(folder) as spool:
            spool.adopt(policy)
            if not spool.left[0]:
                number = spool.add(Signal.TRACES, b"spans")
                taken = [Taken("request", number, "one of two")]
                noted = Changes(forwarded=[number], decided={number: [TRACE]}, closed=[TRACE], taken=taken)
                spool.commit(noted)
            [request] = spool.requests(Signal.TRACES, 0, ALL)
            assert list(spool.closed()) == [TRACE]

        if is_known:
            assert request.is_forwarded
            assert request.decided == {TRACE}
            assert request.taken == {"one of two"}
        else:
            assert request == SpooledRequest(request.id, Signal.TRACES, b"spans")


def test_what_is_done_is_gone_and_leaves_nothing(folder: Path) -> None:
    with opened(folder) as spool:
        request = spool.add(Signal.TRACES, b"spans")
        [sent] = spool.commit(Changes(outgoing=[Outgoing("scores", 1, b"verdicts")], decided={request: [TRACE]}))
        spool.commit(Changes(finished=[request], sent=[sent.id], forwarded=[request]))

        assert spool.left == (0, 0)
        assert [gauge.value for gauge in spool.gauges() if gauge.name == "spool.size"] == [0]
    with closing(sqlite3.connect(folder / "spool.db")) as connection:
        assert connection.execute("SELECT count(*) FROM marks").fetchall() == [(0,)]


def test_rows_are_read_in_order_as_many_as_fit(folder: Path) -> None:
    with opened(folder) as spool:
        for number in range(10):
            spool.add(Signal.TRACES, bytes([number]) * 1000)

        found = spool.requests(Signal.TRACES, 0, 3000)
        rest = spool.requests(Signal.TRACES, found[-1].id, ALL)

    assert [request.id for request in found] == [1, 2, 3]
    assert [request.id for request in rest] == [4, 5, 6, 7, 8, 9, 10]


def test_threads_share_transactions_and_each_request_is_there_once(folder: Path) -> None:
    with opened(folder) as spool:
        begin = threading.Barrier(8)
        ids: list[int] = []

        def write(number: int) -> None:
            begin.wait()
            ids.extend(spool.add(Signal.TRACES, f"{number}-{each}".encode()) for each in range(25))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(ids) == list(range(1, 201))
        found = spool.requests(Signal.TRACES, 0, ALL)
        assert sorted(request.data for request in found) == sorted(
            f"{number}-{each}".encode() for number in range(8) for each in range(25)
        )


def test_a_full_spool_takes_no_request_and_everything_else(folder: Path) -> None:
    with opened(folder, max_size=1 << 20) as spool:
        ids = [spool.add(Signal.TRACES, bytes(100_000)) for _ in range(10)]
        before = counted("spool.refused{reason=full}")
        with pytest.raises(SpoolFullError, match="is full"):
            spool.add(Signal.TRACES, bytes(100_000))
        assert counted("spool.refused{reason=full}") == before + 1
        spool.commit(Changes(outgoing=[Outgoing("scores", 1, bytes(100_000))]))

        spool.commit(Changes(finished=ids[:2]))
        spool.add(Signal.TRACES, bytes(10_000))


def fill(spool: Spool) -> None:
    for _ in range(1000):
        spool.add(Signal.TRACES, os.urandom(100_000))


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """No file of this process can grow beyond a size: what a disk that is full does to writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_requests_are_refused_and_deletions_go_on(folder: Path) -> None:
    with opened(folder) as spool:
        ids = [spool.add(Signal.TRACES, bytes(100_000)) for _ in range(20)]
        largest = max(each.stat().st_size for each in folder.iterdir() if each.name != "reserve")
        with files_no_larger_than(largest + 200_000):
            with pytest.raises(StoreError, match="Cannot write to the spool"):
                fill(spool)
            for number in ids:
                spool.commit(Changes(finished=[number]))

        later = spool.add(Signal.TRACES, b"there is space again")
    with opened(folder) as spool:
        found = spool.requests(Signal.TRACES, 0, ALL)
        assert not {request.id for request in found} & set(ids)
        assert found[-1].id == later


def test_a_reserve_is_given_up_for_what_must_be_written_and_had_again(folder: Path) -> None:
    now = [0.0]
    with opened(folder, clock=lambda: now[0]) as spool:
        assert (folder / "reserve").stat().st_size > 0
        with files_no_larger_than(100_000), pytest.raises(StoreError):
            spool.commit(Changes(outgoing=[Outgoing("scores", 1, bytes(1_000_000))]))
        assert not (folder / "reserve").exists()

        now[0] = 10.0
        spool.tend()
        assert (folder / "reserve").stat().st_size > 0


def test_two_spools_in_one_folder_are_one_too_many(folder: Path) -> None:
    with opened(folder), pytest.raises(ConfigError, match="used by another process"):
        Spool(folder, max_size=1 << 30)
    with opened(folder):
        pass


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ((f"PRAGMA user_version = {SCHEMA_VERSION + 1}",), "newer version of otel_scorer"),
        (("PRAGMA application_id = 1",), "database of another program"),
    ],
)
def test_a_file_that_is_not_for_this_version_stays_as_it_is(
    statements: tuple[str, ...], message: str, folder: Path
) -> None:
    with opened(folder) as spool:
        spool.add(Signal.TRACES, b"spans")
    with closing(sqlite3.connect(folder / "spool.db")) as connection:
        for statement in statements:
            connection.execute(statement)
    before = (folder / "spool.db").read_bytes()

    with pytest.raises(ConfigError, match=message):
        Spool(folder, max_size=1 << 30)

    assert (folder / "spool.db").read_bytes() == before


def test_a_folder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="Cannot make the spool"):
        Spool(tmp_path / "file" / "spool", max_size=1 << 30)


def filled(folder: Path) -> None:
    with opened(folder) as spool:
        for number in range(1, 201):
            spool.add(Signal.TRACES, bytes([number]) * 5000)


def _cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _break_the_beginning(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * 20)


def _break_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(40_000))


@pytest.mark.parametrize(
    ("damage", "least"), [(_cut_short, 1), (_break_the_beginning, 200), (_break_pages, 100)]
)  # fmt: skip
def test_a_damaged_file_is_set_aside_and_what_is_readable_is_taken_over(
    damage: Callable[[Path], None], least: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(folder)
    damage(folder / "spool.db")
    before = counted("spool.damaged{what=file}")

    with opened(folder) as spool:
        found = spool.requests(Signal.TRACES, 0, ALL)
        assert spool.add(Signal.TRACES, b"more") > found[-1].id

    assert len(found) >= least
    assert all(request.data == bytes([request.id]) * 5000 for request in found)
    assert counted("spool.damaged{what=file}") == before + 1
    assert "was set aside as" in caplog.text
    assert any(".damaged-" in each.name for each in folder.iterdir())


def test_a_request_that_is_damaged_is_left_out(folder: Path) -> None:
    filled(folder)
    data = (folder / "spool.db").read_bytes()
    at = data.index(bytes([77]) * 3000) + 1000
    (folder / "spool.db").write_bytes(data[:at] + b"\x00" + data[at + 1 :])
    before = counted("spool.damaged{what=request}")

    with opened(folder) as spool:
        found = [request.id for request in spool.requests(Signal.TRACES, 0, ALL)]
        assert spool.left == (199, 0)

    assert found == [number for number in range(1, 201) if number != 77]
    assert counted("spool.damaged{what=request}") == before + 1


BODIES = {1: bytes(range(10)), 2: bytes(range(250)) * 20, 3: bytes(range(240)) * 250}


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "spool"
    with opened(folder) as spool:
        for body in BODIES.values():
            spool.add(Signal.TRACES, body)
    return folder / "spool.db"


@settings(max_examples=25, deadline=None)
@given(at=st.integers(0, 4000) | st.integers(0, 200_000), bit=st.integers(0, 7))
def test_no_flipped_bit_makes_a_spool_say_what_was_not_written(
    tmp_path_factory: pytest.TempPathFactory, small_file: Path, at: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    content = bytearray(small_file.read_bytes())
    content[at % len(content)] ^= 1 << bit
    (folder / "spool.db").write_bytes(content)

    try:
        with opened(folder) as spool:
            found = {request.id: request.data for request in spool.requests(Signal.TRACES, 0, ALL)}
    except ConfigError as error:
        # The number of its version, or the mark that says whose it is.
        assert "newer version" in str(error) or "another program" in str(error)  # noqa: PT017
    else:
        assert found.items() <= BODIES.items()
        assert len(found) >= 2
    shutil.rmtree(folder)


def test_decided_traces_are_remembered_up_to_a_limit(folder: Path) -> None:
    with opened(folder, closed_limit=100) as spool:
        for number in range(30):
            spool.commit(Changes(closed=[bytes([number]) * 16 for _ in range(10)]))
        spool.tend()

    with opened(folder, closed_limit=100) as spool:
        assert [trace[0] for trace in spool.closed()][::10] == list(range(20, 30))


def test_what_a_backlog_took_is_given_back_to_the_disk(folder: Path) -> None:
    with opened(folder) as spool:
        ids = [spool.add(Signal.TRACES, bytes(4 << 20)) for _ in range(25)]
        spool.commit(Changes(finished=ids))
        for _ in range(20):
            spool.tend()

    assert (folder / "spool.db").stat().st_size < 80 << 20


def test_a_spool_that_is_closed_says_so(folder: Path) -> None:
    with opened(folder) as spool:
        pass

    with pytest.raises(StoreError, match="is closed"):
        spool.add(Signal.TRACES, b"")
    with pytest.raises(StoreError, match="is closed"):
        spool.requests(Signal.TRACES, 0, ALL)


def test_g9_an_error_of_the_disk_refuses_and_costs_nothing_that_was_committed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    with opened(folder) as spool:
        spool.add(Signal.TRACES, b"before")
        # A descriptor that cannot be written to stands for a disk that cannot.
        log = next(
            int(each.name) for each in Path("/proc/self/fd").iterdir() if each.readlink() == folder / "spool.db-wal"
        )
        kept, broken = os.dup(log), os.open(tmp_path / "other", os.O_RDONLY)
        before = counted("spool.refused{reason=disk_error}")
        os.dup2(broken, log)
        try:
            with pytest.raises(StoreError, match="disk I/O error"):
                spool.add(Signal.TRACES, b"refused")
        finally:
            os.dup2(kept, log)
            os.close(kept)
            os.close(broken)
        assert counted("spool.refused{reason=disk_error}") == before + 1
        spool.add(Signal.TRACES, b"after")

    with opened(folder) as spool:
        assert [request.data for request in spool.requests(Signal.TRACES, 0, ALL)] == [b"before", b"after"]


def test_what_could_not_be_noted_of_requests_is_noted_with_what_comes_later() -> None:
    later = Changes(finished=[3], apart={1: [b"b"]})

    Changes(finished=[1], forwarded=[2], apart={1: [b"a"], 2: [b"c"]}, taken=[Taken("request", 2, "p")]).put_off(later)

    assert (later.finished, later.forwarded, later.taken) == ([1, 3], [2], [Taken("request", 2, "p")])
    assert {number: sorted(keys) for number, keys in later.apart.items()} == {1: [b"a", b"b"], 2: [b"c"]}
