from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_scorer.errors import ConfigError
from otel_scorer.telemetry import snapshot
from otel_scorer.transport.rotation import FromFiles


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one", encoding="utf-8")
    return path


def reader(*paths: Path) -> Callable[[], list[str]]:
    def read() -> list[str]:
        texts = [path.read_text(encoding="utf-8") for path in paths if path.exists()]
        if len(set(texts)) != 1:
            raise ConfigError("they do not fit together")
        return texts

    return read


def test_a_changed_file_is_read_at_the_next_look_and_not_before(file: Path, clock: Clock) -> None:
    value = FromFiles("files", [file, None], reader(file), interval=10.0, clock=clock)
    first = value.current()

    file.write_text("longer", encoding="utf-8")
    clock.now = 9.9
    assert value.current() is first
    clock.now = 10.0
    assert value.current() == ["longer"]


def test_an_unchanged_file_gives_the_same_object(file: Path, clock: Clock) -> None:
    value = FromFiles("files", [file], reader(file), interval=1.0, clock=clock)
    first = value.current()
    clock.now = 50.0

    assert value.current() is first


def test_a_file_of_the_same_size_that_was_put_in_its_place_is_seen(file: Path, clock: Clock, tmp_path: Path) -> None:
    value = FromFiles("files", [file], reader(file), interval=1.0, clock=clock)
    times = file.stat()
    other = tmp_path / "other"
    other.write_text("two", encoding="utf-8")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)
    clock.now = 1.0

    assert value.current() == ["two"]


def test_what_does_not_fit_together_yet_is_tried_again_and_the_last_good_value_stays(
    file: Path, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second = tmp_path / "second"
    second.write_text("one", encoding="utf-8")
    value = FromFiles("pairs", [file, second], reader(file, second), interval=1.0, clock=clock)

    file.write_text("two", encoding="utf-8")
    for clock.now in (1.0, 2.0, 3.0):
        assert value.current() == ["one", "one"]
    second.write_text("two", encoding="utf-8")
    clock.now = 4.0

    assert value.current() == ["two", "two"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1, "one line, not three"
    assert snapshot()["files.reloads{outcome=refused,what=pairs}"] == 3
    assert snapshot()["files.reloads{outcome=taken,what=pairs}"] == 1


def test_a_file_that_is_gone_changes_nothing(file: Path, clock: Clock) -> None:
    value = FromFiles("files", [file], reader(file), interval=1.0, clock=clock)
    file.unlink()
    clock.now = 1.0

    assert value.current() == ["one"]


def test_with_an_interval_of_zero_files_are_read_once(file: Path, clock: Clock) -> None:
    value = FromFiles("files", [file], reader(file), interval=0.0, clock=clock)
    file.write_text("two", encoding="utf-8")
    clock.now = 1e9

    assert value.current() == ["one"]


def test_what_cannot_be_made_to_begin_with_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fit together"):
        FromFiles("files", [], reader(tmp_path / "none"))
