"""What does not fit into memory: the same bytes come back, from wherever they are, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from copy import copy, deepcopy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import StoreError
from otel_scorer.stores import overflow
from otel_scorer.stores.overflow import Overflow

FULL = Path("/dev/full")


def open_files(folder: Path) -> list[Path]:
    """Return our descriptors of files that are, or were, in a folder."""
    return [
        path
        for path in Path("/proc/self/fd").iterdir()
        if path.is_symlink() and str(path.readlink()).startswith(str(folder))
    ]


@given(st.lists(st.binary(max_size=50)), st.integers(0, 200))
def test_every_piece_comes_back_wherever_it_is(pieces: list[bytes], memory: int) -> None:
    kept = Overflow(memory)

    places = [(kept.append(piece), len(piece)) for piece in pieces]

    assert [kept.read(*place) for place in places] == pieces
    assert kept.read(0, len(kept)) == b"".join(pieces)
    assert (kept.on_disk > 0) == (len(b"".join(pieces)) > memory)


def test_a_file_is_made_only_when_it_is_needed_and_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Overflow(10)
    kept.append(b"x" * 10)
    assert kept.on_disk == 0

    kept.append(b"y")

    assert kept.on_disk == 11
    assert list(tmp_path.iterdir()) == []
    assert kept.read(9, 2) == b"xy"


def test_the_file_goes_with_what_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Overflow(0)
    kept.append(b"x")
    assert len(open_files(tmp_path)) == 1

    del kept
    gc.collect()

    assert open_files(tmp_path) == []


def test_where_no_file_can_be_made_everything_stays_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    kept = Overflow(10)

    places = [kept.append(bytes([number]) * 20) for number in range(50)]

    assert [kept.read(place, 20) for place in places] == [bytes([number]) * 20 for number in range(50)]
    [warning] = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "gone") in warning
    assert "No such file or directory" in warning
    assert "TMPDIR" in warning


def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    kept = Overflow(10)
    kept.append(b"a" * 20)
    assert kept.on_disk == 20
    # The real thing: a device that takes nothing.
    monkeypatch.setattr(overflow, "_BLOCK", 0)
    other = Overflow(10)
    monkeypatch.setattr(overflow, "_nameless_file", lambda: os.open(FULL, os.O_RDWR))

    places = [other.append(b"b" * 20), other.append(b"c" * 20)]

    assert [other.read(place, 20) for place in places] == [b"b" * 20, b"c" * 20]
    assert other.on_disk == 0
    assert "No space left on device" in caplog.text
    assert kept.read(0, 20) == b"a" * 20


def test_what_a_disk_took_before_it_was_full_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(overflow, "_BLOCK", 0)
    kept = Overflow(0)
    kept.append(b"a" * 600)
    [file] = open_files(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file of this process grows beyond this: of what comes next it takes a part.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        at = kept.append(b"b" * 600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert Path(file).stat().st_size == 600
    assert kept.read(at - 1, 601) == b"a" + b"b" * 600
    assert "File too large" in caplog.text


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = Overflow(0)
    kept.append(b"abc")
    [file] = open_files(tmp_path)
    os.truncate(file, 1)

    with pytest.raises(StoreError, match="somebody has cut it off"):
        kept.read(0, 3)


@pytest.mark.parametrize("memory", [0, 1000])
def test_a_copy_and_a_pickle_have_the_same_bytes(memory: int) -> None:
    kept = Overflow(memory)
    kept.append(b"abc")

    for other in (copy(kept), deepcopy(kept), pickle.loads(pickle.dumps(kept))):  # noqa: S301 - our own
        assert other.read(0, 3) == b"abc"


# In a process of its own: that of the tests has threads, and Python 3.12 warns of copies of such.
FORKED = """
import os
from otel_scorer.stores.overflow import Overflow
kept = Overflow(0)
kept.append(b"abc")
child = os.fork()
if child == 0:
    is_same = kept.read(0, 3) == b"abc"
    at = kept.append(b"of the child")
    os._exit(0 if is_same and kept.read(at, 12) == b"of the child" else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
at = kept.append(b"def")
print(kept.read(0, 6), at)
"""


def test_a_forked_process_reads_the_file_and_leaves_it_alone() -> None:
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, check=True, text=True)

    assert run.stdout == "b'abcdef' 3\n"
