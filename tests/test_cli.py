"""The command line as people and pipelines use it: output, messages, exit codes."""

from __future__ import annotations

import gzip
import json
import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from otel_scorer import load_traces, search_traces
from otel_scorer.cli import cli
from otel_scorer.cli.arguments import is_reference
from otel_scorer.stores.spool import Spool

CAPTURES = Path(__file__).resolve().parent / "captures"
CAPTURE = str(CAPTURES / "openinference_openai.json")
EXPECTED: dict[str, Any] = yaml.safe_load((CAPTURES / "expected.yaml").read_text(encoding="utf-8"))["captures"]
BUILT_IN = ["tool_errors", "redundant_tool_calls", "latency"]

SCORERS = """
from otel_scorer.model.feedback import Feedback
from otel_scorer.scorers import scorer

@scorer
def contains_citation(outputs: str) -> str:
    return "yes" if "Paris" in outputs else "no"

@scorer
def broken(trace) -> bool:
    raise ValueError("boom")
"""


@pytest.fixture
def scorers(tmp_path: Path) -> str:
    path = tmp_path / "my_scorers.py"
    path.write_text(SCORERS, encoding="utf-8")
    return str(path)


def run(*args: str, data: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, args, input=data, catch_exceptions=False)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def in_a_process(*args: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "otel_scorer", *args], input=data, capture_output=True, check=False)


def test_scoring_prints_a_summary_and_what_failed() -> None:
    result = run("score", CAPTURE, "--scorers", *BUILT_IN)

    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("3 traces, 3 scorers\n")
    assert "False  tool_errors  travel_agent  503399e1cd4d101da199dc5dda15a9fb" in result.stdout
    assert "convert_currency" in result.stdout
    assert "\x1b" not in result.stdout
    assert not any(line.endswith(" ") for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    "args",
    [
        ["score", CAPTURE, "--scorers", *BUILT_IN, "--format", "jsonl"],
        ["score", "--format", "jsonl", "--scorers", *BUILT_IN, CAPTURE],
        ["score", "--scorers", *BUILT_IN, CAPTURE, "--format=jsonl"],
        ["score", "--scorers=tool_errors", "--scorers", *BUILT_IN[1:], CAPTURE, "--format", "jsonl"],
        ["score", "--scorers", *BUILT_IN[:2], "--scorers=latency", CAPTURE, "--format", "jsonl"],
        ["score", "--format", "jsonl", "--scorers", *BUILT_IN, "--", CAPTURE],
    ],
)  # fmt: skip
def test_a_flag_takes_many_values_or_is_repeated(args: list[str]) -> None:
    result = run(*args)

    assert result.exit_code == 0, result.stderr
    assert [line["scorer"] for line in lines(result)] == BUILT_IN * 3


def test_files_are_joined_and_standard_input_is_one_of_them(scorers: str) -> None:
    data = gzip.compress((CAPTURES / "strands.json").read_bytes())

    both = run("score", CAPTURE, "-", "--scorers", "latency", scorers, "--format", "jsonl", data=data)
    only = run("score", "--scorers", "latency", "-", "--format", "jsonl", data=data)

    assert len({line["trace_id"] for line in lines(both)}) == 4
    assert len({line["trace_id"] for line in lines(only)}) == 1


def test_a_word_after_scorers_is_a_reference_unless_it_is_a_file_of_traces(scorers: str, tmp_path: Path) -> None:
    assert is_reference("tool_errors")
    assert is_reference(scorers)
    assert is_reference(f"{scorers}:contains_citation")
    assert is_reference(str(tmp_path / "missing.py"))
    assert not is_reference(CAPTURE)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--fail-under", "tool_errors=0.6"], 0),
        (["--fail-under", "tool_errors=0.7"], 1),
        (["--fail-under", "tool_errors=0.6", "redundant_tool_calls=1"], 0),
        (["--fail-under", "tool_errors=0.6", "--fail-under", "latency=99"], 1),
        (["--fail-under", "never_heard_of=0"], 1),
        (["--max-errors", "0"], 0),
    ],
)
def test_a_missed_bound_is_exit_code_1(args: list[str], code: int) -> None:
    result = run("score", CAPTURE, "--scorers", *BUILT_IN, *args)

    assert result.exit_code == code
    assert ("missed" in result.stdout) == (code == 1)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ([], 0),
        (["--fail-under", "contains_citation=0.5"], 1),
        (["--fail-under", "contains_citation=0.5", "--max-errors", "3"], 0),
        (["--max-errors", "2"], 1),
    ],
)
def test_errors_are_forgiven_up_to_a_number(args: list[str], code: int, scorers: str) -> None:
    assert run("score", CAPTURE, "--scorers", scorers, *args).exit_code == code


def test_every_format_can_be_written_to_a_file(tmp_path: Path) -> None:
    for format_ in ("table", "json", "jsonl", "junit", "markdown", "html"):
        out = tmp_path / f"report.{format_}"

        result = run("score", CAPTURE, "--scorers", "tool_errors", "--format", format_, "--out", str(out))

        assert (result.exit_code, result.stdout) == (0, "")
        assert "convert_currency" in out.read_text(encoding="utf-8").replace("\\_", "_")


def test_errors_alone_are_told_and_do_not_fail(scorers: str) -> None:
    result = run("score", CAPTURE, "--scorers", scorers)
    bounded = run("score", CAPTURE, "--scorers", scorers, "--max-errors", "3")

    assert (result.exit_code, bounded.exit_code) == (0, 0)
    assert result.stderr == "3 errors: they count for the exit code with --max-errors or --fail-under\n"
    assert bounded.stderr == ""


def test_one_run_writes_as_many_reports_as_are_asked_for(tmp_path: Path) -> None:
    names = ["r.html", "r.md", "r.xml", "r.txt"]
    command = ["score", CAPTURE, "--scorers", "tool_errors", "--report", *(str(tmp_path / name) for name in names)]

    result = run(*command, "--report", str(tmp_path / "r.jsonl"), "--format", "json")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["traces"] == 3
    found = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert set(found) == {*names, "r.jsonl"}
    assert found["r.html"].startswith("<!doctype html>")
    assert found["r.md"].startswith("<!-- otel-scorer -->")
    assert found["r.xml"].startswith("<?xml")
    assert found["r.txt"].startswith("3 traces")
    assert len(found["r.jsonl"].splitlines()) == 3


@pytest.mark.parametrize("word", ["traces.jsonl", "traces.json"])
def test_a_second_report_that_may_be_traces_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Path(CAPTURE).read_bytes()
    Path(word).write_bytes(kept)

    result = run("score", "--scorers", "tool_errors", "--report", "r.md", word)

    assert result.exit_code == 2
    assert f"--report ... {word}: a report or a file of traces? Say --report {word}, or name files" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {word}
    assert Path(word).read_bytes() == kept


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (["--report", "traces.jsonl"], "--report: traces.jsonl"),
        (["--out", "./link.jsonl"], "--out: ./link.jsonl"),
        (["--out", "traces.jsonl", "--format", "jsonl"], "--out: traces.jsonl"),
        (["--store", "kept.db", "--out", "kept.db"], "--out: kept.db"),
        (["--report", "a.md", "--report", "b.md", "./a.md"], "--report: ./a.md"),
        (["--out", "a.md", "--report", "a.md"], "--report: a.md"),
    ],
)
def test_no_report_is_written_over_what_the_command_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], flag: str
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Path(CAPTURE).read_bytes()
    Path("traces.jsonl").write_bytes(kept)
    Path("link.jsonl").symlink_to("traces.jsonl")

    result = run("score", "traces.jsonl", "--scorers", "tool_errors", *options)

    assert result.exit_code == 2
    assert f"{flag} would be written over, and this command uses it" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"traces.jsonl", "link.jsonl"}
    assert Path("traces.jsonl").read_bytes() == kept


BROKEN_SCORERS = "def broken(:\n"

BAD_INPUT: dict[str, tuple[list[str], str]] = {
    "an unknown scorer": (["score", CAPTURE, "--scorers", "tool_erors"], "did you mean 'tool_errors'?"),
    "an unknown attribute": (["score", CAPTURE, "--scorers", "json:nothing"], "'json:nothing'"),
    "a scorer file with a syntax error": (["score", CAPTURE, "--scorers", "broken.py"], "SyntaxError in"),
    "a scorer file that is not there": (["score", CAPTURE, "--scorers", "missing.py"], "'missing.py' does not exist"),
    "a scorer file without scorers": (["score", CAPTURE, "--scorers", "empty.py"], "There is no scorer in"),
    "a file that is not there": (["score", "missing.json", "--scorers", "latency"], "missing.json: No such file"),
    "a folder": (["inspect", "."], "Is a directory"),
    "garbage": (["score", "garbage.bin", "--scorers", "latency"], "garbage.bin (byte 0)"),
    "a bound that is none": (["score", CAPTURE, "--scorers", "latency", "--fail-under", "high"], "NAME=VALUE"),
    "a bound that is no number": (["score", CAPTURE, "--scorers", "latency", "--fail-under", "a=b"], "NAME=VALUE"),
    "a bound that nothing misses": (["score", CAPTURE, "--scorers", "latency", "--fail-under", "a=nan"], "NAME=VALUE"),
    "a bound of nothing": (["score", CAPTURE, "--scorers", "latency", "--fail-under", "=1"], "NAME=VALUE"),
    "a number of errors that is none": (
        ["score", CAPTURE, "--scorers", "latency", "--max-errors", "x"],
        "--max-errors",
    ),
    "no scorers": (["score", CAPTURE], "Missing option '--scorers'"),
    "no files": (["score", "--scorers", "latency"], "Missing argument 'FILE ...'"),
    "an unknown format": (["score", CAPTURE, "--scorers", "latency", "--format", "xml"], "'xml' is not one of"),
    "a folder to write to that is not there": (["score", CAPTURE, "--scorers", "latency", "--out", "no/x"], "--out"),
    "a report in a folder that is not there": (
        ["score", CAPTURE, "--scorers", "latency", "--report", "no/x.md"],
        "--report: there is no folder no",
    ),
    "a report of no format": (
        ["score", CAPTURE, "--scorers", "latency", "--report", "x.pdf"],
        "--report: x.pdf does not say its format",
    ),
    "a folder to write over": (["score", CAPTURE, "--scorers", "latency", "--out", "."], "Cannot write ."),
    "an unknown command": (["sore"], "No such command 'sore'"),
    "an unknown flag": (["score", CAPTURE, "--scorer", "latency"], "No such option"),
    "an unknown trace": (["inspect", CAPTURE, "--trace-id", "ff"], "There is no trace ff"),
    "an unknown key": (["check", "-c", "unknown.yaml"], "did you mean assembly.root_grace?"),
    "an unknown key, serving": (["serve", "-c", "unknown.yaml"], "did you mean assembly.root_grace?"),
    "a configuration that is not there": (["serve", "-c", "missing.yaml"], "missing.yaml: No such file"),
    "an unknown scorer, checking": (["check", "-c", "scorer.yaml"], "Unknown scorer 'nothing_here'"),
    "an address that is none": (["serve", "--grpc", "here"], "HOST:PORT"),
    "a number of workers that is none": (["serve", "--workers", "0"], "scoring.workers"),
    "an export that is none": (["serve", "--export", "ftp://x"], "exporters.otlp.endpoint"),
    "a spool that is no folder": (["serve", "--spool", __file__], "Cannot make the spool"),
    "a store that is none": (["serve", "--store", __file__], "it is not a database"),
    "a preset that is none": (["serve", "--preset", "phenix"], "preset: must be 'phoenix', 'mlflow'"),
    "a preset without a place": (["serve", "--preset", "mlflow", "--export", "console"], "say where it is"),
    "a backend that is none": (["score", CAPTURE, "--scorers", "latency", "--send", "ftp://h"], "write a URL"),
    "a backend that has the report": (["score", CAPTURE, "--scorers", "latency", "--send", "console"], "--send: "),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "broken.py").write_text(BROKEN_SCORERS, encoding="utf-8")
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    (tmp_path / "garbage.bin").write_bytes(b"\x00\xff\x00")
    (tmp_path / "unknown.yaml").write_text("assembly: {root_grcae: 1s}\n", encoding="utf-8")
    (tmp_path / "scorer.yaml").write_text("scorers: [nothing_here]\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("args", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_message_and_exit_code_2(args: list[str], message: str) -> None:
    result = run(*args)

    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("Error:") == 1
    assert "Traceback" not in result.stderr


def test_no_command_shows_the_help_and_is_a_mistake() -> None:
    result = run()

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")
    assert result.stderr.count("Usage") == 1


def test_a_process_ends_with_the_same_codes_and_messages(tmp_path: Path) -> None:
    fine = in_a_process("score", CAPTURE, "--scorers", "latency")
    missed = in_a_process("score", CAPTURE, "--scorers", "tool_errors", "--fail-under", "tool_errors=1")
    wrong = in_a_process("score", str(tmp_path / "missing"), "--scorers", "latency")

    assert (fine.returncode, fine.stderr) == (0, b"")
    assert (missed.returncode, missed.stderr) == (1, b"")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(b"Error: Cannot read")
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["inspect", CAPTURE], ["score", CAPTURE, "--scorers", "latency"]])
def test_output_that_cannot_be_written_is_one_message_and_exit_code_2(command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "otel_scorer", *command], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert ended.returncode == 2
    assert ended.stderr == b"Error: Cannot write to standard output: No space left on device\n"


def test_what_can_be_read_of_a_damaged_file_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_bytes(Path(CAPTURE).read_bytes()[:30_000])

    result = run("score", str(path), "--scorers", "tool_errors", "--format", "jsonl", "--fail-under", "tool_errors=2")

    assert result.exit_code == 2
    assert len(lines(result)) == 1
    assert f"{path} (line " in result.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m otel_scorer inspect {CAPTURE} --format json | head -c 10"

    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)

    assert result.stdout == b"[\n  {\n    "
    assert result.stderr == b""


def test_a_warning_is_one_line(scorers: str) -> None:
    result = in_a_process("score", CAPTURE, "--scorers", scorers, scorers, "--max-errors", "6")

    assert result.returncode == 0
    assert result.stderr.startswith(b"Warning: ")
    assert len(result.stderr.splitlines()) == len(set(result.stderr.splitlines())) <= 2


def test_no_traces_are_said_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"")

    result = run("score", str(path), "--scorers", "latency")

    assert result.exit_code == 0
    assert "There are no traces in the input" in result.stderr


@pytest.mark.parametrize("name", EXPECTED)
def test_inspection_agrees_with_what_was_written_down_by_hand(name: str) -> None:
    result = run("inspect", str(CAPTURES / f"{name}.json"), "--format", "json")

    found = json.loads(result.stdout)
    assert result.exit_code == 0
    for trace, expected in zip(found, EXPECTED[name]["traces"], strict=True):
        assert trace["root"] == expected["root"]
        assert trace["llm_calls"] == expected["llm_calls"]
        assert trace["failed_spans"] == expected["failed_spans"]
        assert trace["root_failed"] == expected["root_failed"]
        assert [call["name"] for call in trace["tool_calls"]] == [tool["name"] for tool in expected["tools"]]
        usage = trace["usage"]
        tokens = None if usage is None else [usage["input_tokens"], usage["output_tokens"]]
        assert tokens == expected["tokens"]


def test_one_trace_can_be_picked_by_the_beginning_of_its_id() -> None:
    result = run("inspect", CAPTURE, "--trace-id", "503399", "--explain")

    assert result.stdout.startswith("503399e1cd4d101da199dc5dda15a9fb")
    assert "< openinference: input.value" in result.stdout
    assert "875757bf" not in result.stdout


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ("exporters: {otlp: {dead_letters: nowhere/dead.jsonl}}", "Cannot write to nowhere/dead.jsonl"),
        ("exporters: {file: {path: nowhere/out.jsonl}}", "Cannot write to nowhere/out.jsonl"),
        ("spool: {directory: file.txt/spool}", "Cannot make the spool file.txt/spool: Not a directory (file.txt)"),
        ("spool: {directory: other}", "is a database of another program, not a spool"),
        ("store: file.txt/kept.db", "Cannot make the store file.txt/kept.db: Not a directory"),
        ("memory: {soft: 50%, hard: 1KiB}", "memory.soft (50%) must be less than memory.hard (1KiB)"),
    ],
)
def test_check_refuses_what_serve_would_refuse_and_leaves_nothing_behind(
    folder: Path, settings: str, problem: str
) -> None:
    (folder / "file.txt").touch()
    (folder / "other").mkdir()
    with closing(sqlite3.connect(folder / "other" / "spool.db")) as connection:
        connection.execute("PRAGMA user_version = 7")
    (folder / "bad.yaml").write_text(settings, encoding="utf-8")
    before = sorted(folder.rglob("*"))

    result = run("check", "-c", "bad.yaml")

    assert result.exit_code == 2
    assert problem in result.stderr
    assert sorted(folder.rglob("*")) == before


def test_check_says_what_may_be_in_memory_and_in_the_spool_and_who_uses_it(folder: Path) -> None:
    (folder / "plain.yaml").write_text("memory: {soft: off, hard: 1GiB, worker: off}", encoding="utf-8")
    (folder / "good.yaml").write_text(
        "spool: {directory: a/spool, max_size: 1536MiB}\nmemory: {soft: 100MiB, hard: 200MiB, worker: 64MiB}\n"
        "exporters: {otlp: {dead_letters: dead.jsonl}}",
        encoding="utf-8",
    )

    plain = run("check", "-c", "plain.yaml").stdout
    fresh = run("check", "-c", "good.yaml").stdout

    assert "memory      no limit for requests, traces are scored early over 1GiB (of " in plain
    assert "spools      nothing: what is acknowledged is lost if the process is killed" in plain
    assert (
        "memory      requests are refused over 100MiB, traces are scored early over 200MiB, "
        "a scorer worker may have 64MiB (of "
    ) in fresh
    assert "spools      to a/spool, up to 1536MiB, synchronous: normal" in fresh
    assert not (folder / "a").exists()
    assert not (folder / "dead.jsonl").exists()

    with closing(Spool(folder / "a" / "spool", max_size=1 << 30)):
        used = run("check", "-c", "good.yaml")
    assert used.exit_code == 0
    assert "note        The spool a/spool is used by another process" in used.stdout
    assert "is used by" not in run("check", "-c", "good.yaml").stdout


def test_check_says_what_will_be_sent_and_hides_secrets(folder: Path) -> None:
    (folder / "good.yaml").write_text(
        "scorers: [tool_errors, {use: latency, sample_rate: 0.5, pass_if: '< 3'}]\n"
        "exporters: {otlp: {endpoint: 'http://user:s3cret@backend:4318', headers: {x-key: s3cret}}}\n"
        "store: kept.db\n",
        encoding="utf-8",
    )

    result = run("check", "-c", "good.yaml")

    assert result.exit_code == 0
    assert "exports to  otlp: http://***@backend:4318, http/protobuf, headers x-key" in result.stdout
    assert "latency (version" in result.stdout
    assert "keeps       scored traces in kept.db" in result.stdout
    assert "0.5 of them, passes if < 3" in result.stdout
    assert "s3cret" not in result.output
    assert result.stdout.endswith("ok\n")


def test_what_was_scored_is_kept_in_a_store(tmp_path: Path, scorers: str) -> None:
    store = tmp_path / "traces.db"

    first = run("score", CAPTURE, "--scorers", scorers, "--store", str(store), "--format", "jsonl")
    again = run("score", CAPTURE, "--scorers", "latency", "--store", str(store))

    kept = search_traces(store=store)
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert {trace.trace_id for trace in kept} == {trace.trace_id for trace in load_traces(CAPTURE)}
    said = {(trace.trace_id, each.name) for trace in kept for each in trace.search_assessments(type="feedback")}
    assert said >= {(line["trace_id"], line["feedback"]["name"]) for line in lines(first) if line["feedback"]}
    assert {name for _, name in said} == {"contains_citation", "broken", "latency"}


def test_what_could_be_read_of_a_damaged_file_is_kept_too(tmp_path: Path) -> None:
    text = Path(CAPTURE).read_text(encoding="utf-8")
    (tmp_path / "cut.json").write_text(text[: len(text) // 2], encoding="utf-8")

    result = run("score", str(tmp_path / "cut.json"), "--scorers", "latency", "--store", str(tmp_path / "traces.db"))

    assert result.exit_code == 2
    assert "cut.json (line" in result.stderr
    assert "byte" in result.stderr
    assert "not JSON" in result.stderr
    assert len(search_traces(store=tmp_path / "traces.db")) > 0


def test_a_store_that_is_none_is_refused_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes" * 1000, encoding="utf-8")

    done = in_a_process("score", CAPTURE, "--scorers", "latency", "--store", str(tmp_path / "notes.txt"))

    assert done.returncode == 2
    assert b"notes.txt: it is not a database" in done.stderr
    assert b"Traceback" not in done.stderr


def test_scorers_lists_what_is_built_in_and_what_a_reference_holds(scorers: str) -> None:
    plain, listed, named = run("scorers"), run("scorers", "list"), run("scorers", "list", scorers)

    assert [line.split()[0] for line in plain.stdout.splitlines()[2:]] == BUILT_IN
    assert listed.stdout == plain.stdout
    assert [line.split()[0] for line in named.stdout.splitlines()[2:]] == ["contains_citation", "broken"]


def test_help_and_version_need_nothing_heavy() -> None:
    code = (
        "import sys\nfrom otel_scorer.cli import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "score" in result.stdout
    assert {"grpc", "google.protobuf", "pydantic", "rich", "yaml"}.isdisjoint(result.stderr.split())
    assert run("--version").stdout.startswith("otel-scorer ")


def on_a_terminal(*args: str) -> tuple[bytes, int]:
    """Run a command with a terminal as its output and return what it wrote there."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environ.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "otel_scorer", *args], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 65_536):
                seen += part
        except OSError:
            pass  # Linux reports the end of a terminal as an error
        os.close(ours)
        return seen, process.wait(30)


def test_there_are_colours_and_a_progress_bar_only_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "takes_its_time.py"
    path.write_text(
        "import threading\nfrom otel_scorer.scorers import scorer\n\n"
        "@scorer\ndef slow(trace) -> bool:\n    threading.Event().wait(0.7)\n    return False\n",
        encoding="utf-8",
    )

    terminal, code = on_a_terminal("score", CAPTURE, "--scorers", str(path))
    piped = in_a_process("score", CAPTURE, "--scorers", str(path))

    assert code == 0
    assert b"scoring" in terminal
    assert b"\x1b[31mFalse" in terminal or b"\x1b[31m" in terminal
    assert b"scoring" not in piped.stderr + piped.stdout
    assert b"\x1b" not in piped.stdout
