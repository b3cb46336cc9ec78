"""`otel-scorer scorers`: the lifecycle of registered scorers from a shell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from otel_scorer import get_scorer
from otel_scorer.cli import cli

CAPTURE = str(Path(__file__).resolve().parent / "captures" / "openinference_openai.json")

SCORERS = '''
from otel_scorer import Scorer, scorer


@scorer
def has_answer(outputs: str) -> bool:
    """Is there an answer?"""
    return bool(outputs)


class Length(Scorer):
    """Is it long enough?"""

    name: str = "length"
    words: int = 5
    language: str = "en"

    def __call__(self, outputs: str) -> bool:
        return len(outputs.split()) >= self.words
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_scorers.py").write_text(SCORERS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTEL_SCORER_STORE", raising=False)
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, ["scorers", *args], catch_exceptions=False)


def listed(*args: str) -> list[dict[str, Any]]:
    result = run("list", "--format", "json", *args)
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["registered"]
    return found


def test_a_scorer_goes_through_its_life(folder: Path) -> None:
    said = [
        run("register", "my_scorers.py:Length", "--name", "long", "--param", "words=9", "--param", "language=de"),
        run("start", "long", "--sample-rate", "0.5", "--filter", "status = 'OK'"),
        run("update", "long", "--sample-rate", "1"),
        run("update", "long", "--filter", ""),
    ]
    started = listed()
    said += [run("stop", "long"), run("delete", "long")]

    assert [result.stdout.strip() for result in said] == [
        "long is registered, version 1, stopped",
        "long is started, sample rate 0.5, filter status = 'OK'",
        "long is started, sample rate 1, filter status = 'OK'",
        "long is started, sample rate 1",
        "long is stopped",
        "long is deleted",
    ]
    assert started == [
        {
            "name": "long",
            "version": 1,
            "state": "started",
            "sample_rate": 1.0,
            "filter_string": None,
            "ref": f"{folder / 'my_scorers.py'}:Length",
            "folder": None,
            "parameters": {"words": 9, "language": "de"},
            "options": {},
        }
    ]
    assert listed() == []


def test_a_file_registers_all_its_scorers() -> None:
    result = run("register", "my_scorers.py")

    assert result.stdout == ("has_answer is registered, version 1, stopped\nlength is registered, version 1, stopped\n")
    assert [each["name"] for each in listed()] == ["has_answer", "length"]


def test_the_table_shows_what_runs_and_what_there_is(folder: Path) -> None:
    run("register", "my_scorers.py:Length", "--param", "words=9")
    run("start", "length", "--filter", "span.type = 'TOOL'")

    rows = [re.split(r"\s{2,}", line) for line in run().stdout.splitlines()]

    assert rows[0] == [f"Registered in {folder}/.otel_scorer/traces.db"]
    assert rows[1] == ["name", "state", "sample rate", "filter", "version", "scorer"]
    assert rows[2] == ["length", "started", "1", "span.type = 'TOOL'", "1", f"{folder}/my_scorers.py:Length(words=9)"]
    assert rows[4] == ["Available"]
    assert {row[0] for row in rows[6:]} >= {"tool_errors", "latency"}


def test_without_a_command_references_are_listed() -> None:
    rows = [re.split(r"\s{2,}", line) for line in run("my_scorers.py").stdout.splitlines()]

    assert rows[2:] == [
        ["has_answer", "Is there an answer?", "my_scorers.py"],
        ["length", "Is it long enough?", "my_scorers.py"],
    ]


def test_listing_makes_no_store(folder: Path) -> None:
    assert run().exit_code == run("--store", "other.db").exit_code == 0

    assert not list(folder.glob("**/*.db"))


def test_the_store_is_named_by_an_option_or_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("register", "my_scorers.py", "--store", "a.db")
    monkeypatch.setenv("OTEL_SCORER_STORE", str(folder / "b.db"))
    run("register", "latency")

    assert [each["name"] for each in listed("--store", "a.db")] == ["has_answer", "length"]
    assert [each["name"] for each in listed()] == ["latency"]


def test_a_version_can_be_deleted() -> None:
    run("register", "my_scorers.py:Length", "--param", "words=1")
    assert run("register", "my_scorers.py:Length", "--param", "words=2").stdout.startswith(
        "length is registered, version 2"
    )

    assert run("delete", "length", "--version", "2").stdout == "Version 2 of length is deleted\n"
    assert listed()[0]["parameters"] == {"words": 1}


def test_a_scorer_whose_code_is_gone_can_still_be_stopped_and_listed(folder: Path) -> None:
    run("register", "my_scorers.py:has_answer")
    run("start", "has_answer")
    (folder / "my_scorers.py").unlink()

    assert run("stop", "has_answer").stdout == "has_answer is stopped\n"
    assert listed()[0]["state"] == "stopped"


def test_what_the_shell_registers_python_finds() -> None:
    run("register", "my_scorers.py:Length", "--name", "long", "--param", "words=2")

    assert get_scorer(name="long")(outputs="two words") is True


def test_registered_scorers_can_be_scored_with_by_name() -> None:
    run("register", "my_scorers.py:Length", "--name", "long", "--param", "words=2")

    result = CliRunner().invoke(
        cli, ["score", CAPTURE, "--scorers", "long", "tool_errors", "--format", "jsonl"], catch_exceptions=False
    )

    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["scorer"] for row in rows} == {"long", "tool_errors"}
    # Registered and stopped: that is about live traces.
    assert "scored" in {row["decision"] for row in rows} <= {"scored", "not_applicable"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["start", "nobody"], "There is no registered scorer 'nobody'"),
        (["stop", "nobody"], "There is no registered scorer 'nobody'"),
        (["delete", "nobody"], "There is no registered scorer 'nobody'"),
        (["start", "has_answer", "--filter", "a OR b"], "Cannot read the filter string"),
        (["start", "has_answer", "--sample-rate", "0"], "must be a number above 0"),
        (["start", "has_answer", "--sample-rate", "2"], "0<=x<=1"),
        (["update", "has_answer"], "Say what to change"),
        (["register", "my_scorers.py", "--name", "x"], "needs a reference to one scorer"),
        (["register", "my_scorers.py:Length", "--param", "words"], "FIELD=VALUE"),
        (["register", "my_scorers.py:Length", "--param", "words=many"], "words:"),
        (["register", "missing.py"], "does not exist"),
        (["regsiter"], "Unknown scorer 'regsiter'"),
        (["--store", "my_scorers.py"], "not a database"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_message(args: list[str], message: str) -> None:
    run("register", "my_scorers.py:has_answer")

    result = CliRunner().invoke(cli, ["scorers", *args])

    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
