"""Files of a spool that are damaged or deleted while it is used: until they can be had again, requests are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.fakes import Counted

from otel_scorer.errors import StoreError
from otel_scorer.model.wire import Signal
from otel_scorer.stores.spool import Spool
from otel_scorer.stores.spool_rows import Changes, Outgoing
from otel_scorer.testing import ManualClock

ALL = 1 << 40
PAGE = 16 * 1024
LONG = 60.0
"""Seconds: longer than any pause between two tries."""


class Running:
    """A spool, and what is to be in it."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self.clock = clock
        self.spool = Spool(folder, max_size=1 << 24, clock=clock)
        self.expected: dict[int, bytes] = {}

    def add(self, data: bytes) -> None:
        self.expected[self.spool.add(Signal.TRACES, data)] = data

    def wait(self) -> None:
        self.clock.advance(LONG)
        self.spool.tend()

    def found(self) -> dict[int, bytes]:
        return {each.id: each.data for each in self.spool.requests(Signal.TRACES, 0, ALL)}

    def refuses(self) -> bool:
        with pytest.raises(StoreError):
            self.spool.add(Signal.TRACES, b"refused")
        with pytest.raises(StoreError):
            self.spool.commit(Changes(outgoing=[Outgoing("scores", 1, b"refused")]))
        return not self.spool.is_open and _gauge(self.spool) == 0

    def left(self, folder: Path) -> dict[int, bytes]:
        """Return what a process finds that follows one which is killed now."""
        shutil.copytree(self.folder, folder)
        with running(folder) as after:
            return after.found()


def _gauge(spool: Spool) -> float:
    [value] = [each.value for each in spool.gauges() if each.name == "spool.open"]
    return value


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    made = Running(folder, ManualClock())
    try:
        yield made
    finally:
        made.spool.close()


def fill(folder: Path) -> dict[int, bytes]:
    with running(folder) as before:
        for number in range(1, 61):
            before.add(bytes([number]) * 100_000)
    return before.expected


def damage(path: Path) -> None:
    """Overwrite what some requests are in, and where the others are said to be."""
    with path.open("r+b") as file:
        file.seek(3 * PAGE)
        file.write(b"\xff" * PAGE * 30)


def test_a_damaged_file_that_cannot_be_replaced_is_tried_again_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spool"
    filled = fill(folder)
    counted = Counted()
    with running(folder) as now:
        damage(folder / "spool.db")
        obstacle = folder / "spool.db.new"
        obstacle.mkdir()

        with pytest.raises(StoreError):
            now.found()
        assert now.refuses()
        now.spool.tend()
        assert caplog.text.count("It is tried again in") == 1, "not before a while has passed"
        now.wait()
        assert now.refuses()
        assert caplog.text.count("It is tried again in 1 s") == 1, "the next time after a longer while"

        obstacle.rmdir()
        now.wait()

        found = now.found()
        assert found.items() <= filled.items()
        lost = len(filled) - len(found)
        assert lost <= 6
        assert counted("spool.damaged{what=request}") == lost
        assert counted("spool.damaged{what=file}") == 1
        assert _gauge(now.spool) == 1
        now.expected = found
        now.add(b"later")
        assert now.found() == now.left(tmp_path / "killed") == now.expected
    assert "is used again" in caplog.text


def _folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _file(folder: Path) -> None:
    (folder / "spool.db").unlink()


def _log(folder: Path) -> None:
    (folder / "spool.db-wal").unlink()


@pytest.mark.parametrize("delete", [_folder, _file, _log])
def test_what_is_deleted_while_it_is_used_is_written_anew_and_nothing_is_lost(
    delete: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spool"
    fill(folder)
    counted = Counted()
    with running(folder) as now:
        now.expected = now.found()
        now.add(b"in the log")
        now.wait()
        now.spool.commit(Changes(outgoing=[Outgoing("scores", 1, b"a verdict")]))

        delete(folder)
        now.wait()

        now.add(b"later")
        assert now.found() == now.expected
        assert [each.data for each in now.spool.outgoing("scores", 0, ALL)] == [b"a verdict"]
        assert now.left(tmp_path / "killed") == now.expected
        assert counted("spool.damaged{what=file}") == 1
        assert "was deleted while it is used" in caplog.text
        caplog.clear()
        now.wait()
    assert not caplog.messages
    with running(folder) as after:
        assert after.found() == now.expected
    assert not caplog.messages


def test_what_was_deleted_and_cannot_be_put_in_its_place_is_tried_again_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    fill(folder)
    with running(folder) as now:
        now.expected = now.found()
        now.add(b"in the log")
        now.wait()
        (folder / "spool.db").unlink()
        obstacle = folder / "spool.db-wal"
        obstacle.unlink()
        obstacle.mkdir()

        now.wait()
        assert now.refuses()
        now.wait()
        assert now.refuses()
        assert not list(folder.glob("spool.db.*")), "nothing that a start would take for what it is not, or for room"

        obstacle.rmdir()
        now.wait()

        now.add(b"later")
        assert now.found() == now.left(tmp_path / "killed") == now.expected


def test_what_a_kill_left_of_a_file_that_was_written_anew_takes_no_room(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    expected = fill(folder)
    (folder / "spool.db.copy").write_bytes(b"half of it")

    with running(folder) as now:
        assert now.found() == expected
        assert not (folder / "spool.db.copy").exists()


def test_a_folder_that_was_moved_and_that_another_process_has_now_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    fill(folder)
    with running(folder) as now:
        now.expected = now.found()
        now.wait()
        folder.rename(tmp_path / "elsewhere")
        with running(folder) as other:
            other.add(b"of the other")
            now.wait()
            assert now.refuses()
        now.wait()
        assert now.refuses()
    with running(folder) as other:
        assert list(other.found().values()) == [b"of the other"]
    with running(tmp_path / "elsewhere") as after:
        assert after.found() == now.expected
