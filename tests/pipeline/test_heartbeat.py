"""What a worker says about what runs in it, on a page of memory that the sidecar reads at any moment."""

from __future__ import annotations

import mmap
import subprocess
import sys
from typing import cast

from otel_scorer.pipeline.workers.protocol import HEARTBEAT_BYTES, Beat, Heartbeat


class Midway:
    """A number that has the heartbeat read when it is written."""

    def __init__(self, number: float, reader: Heartbeat) -> None:
        self._number = number
        self._reader = reader
        self.seen: list[Beat | None] = []

    def __index__(self) -> int:
        self.seen.append(self._reader.read())
        return int(self._number)

    def __float__(self) -> float:
        self.seen.append(self._reader.read())
        return self._number


def test_what_was_written_is_read_and_slots_do_not_touch_each_other() -> None:
    page = mmap.mmap(-1, HEARTBEAT_BYTES)
    first, second = Heartbeat(page, 0), Heartbeat(page, 1)

    first.begin(1, 2, 3, 4.5)
    second.begin(1 << 60, 7, 8, 9.25)

    assert Heartbeat(page, 0).read() == Beat(1, 2, 3, 4.5)
    assert Heartbeat(page, 1).read() == Beat(1 << 60, 7, 8, 9.25)
    first.end()
    assert Heartbeat(page, 0).read() is None
    assert Heartbeat(page, 1).read() == Beat(1 << 60, 7, 8, 9.25)


def test_nothing_is_read_while_a_part_of_it_is_written() -> None:
    page = mmap.mmap(-1, HEARTBEAT_BYTES)
    writer, reader = Heartbeat(page), Heartbeat(page)
    writer.begin(1, 2, 3, 4.5)
    target, since = Midway(6, reader), Midway(7.5, reader)

    writer.begin(5, 5, cast("int", target), cast("float", since))

    assert target.seen == [None]
    assert since.seen == [None]
    assert reader.read() == Beat(5, 5, 6, 7.5)


COPY = """
import mmap, os
from otel_scorer.pipeline.workers.protocol import HEARTBEAT_BYTES, Heartbeat
heartbeat = Heartbeat(mmap.mmap(-1, HEARTBEAT_BYTES))
heartbeat.begin(1, 2, 3, 4.5)
copy = os.fork()
if copy == 0:
    heartbeat.leave_to_parent()
    heartbeat.end()
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), heartbeat.read())
"""


def test_a_copy_of_a_worker_ends_where_it_would_write() -> None:
    run = subprocess.run([sys.executable, "-c", COPY], capture_output=True, check=True, text=True)

    assert run.stdout.split(maxsplit=1) == ["0", f"{Beat(1, 2, 3, 4.5)}\n"]
