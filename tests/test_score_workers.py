"""`score --workers N`: the same verdicts from processes of their own, also where a scorer hangs or ends its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_scorer.testing import make_request, make_span

ROOT = Path(__file__).resolve().parent.parent
CAPTURES = [str(path) for path in sorted((ROOT / "tests" / "captures").glob("*.json"))]

SCORERS = """
import os
import threading

from otel_scorer import Scorer, scorer


@scorer
def name(trace) -> str:
    return trace.root.name


@scorer(timeout=0.5)
def hangs(trace) -> bool:
    if trace.root.name == "hang":
        threading.Event().wait(60)
    return True


@scorer
def ends(trace) -> bool:
    if trace.root.name == "end":
        os._exit(3)
    return True


@scorer
async def later(trace) -> bool:
    return True


@scorer(sample_rate=0.5)
def sampled(trace) -> bool:
    print("a scorer says something")
    return True


@scorer(span_types=["TOOL"])
def each_tool(span) -> str:
    return span.name


class Length(Scorer):
    name: str = "length"
    least: int = 3

    def __call__(self, trace) -> bool:
        return len(trace.spans) >= self.least
"""


def score(*arguments: str, folder: Path) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "otel_scorer", "score", *arguments, "--format", "jsonl"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_scorers.py").write_text(SCORERS, encoding="utf-8")
    return tmp_path


def test_workers_say_the_same_in_the_same_order(folder: Path) -> None:
    arguments = [*CAPTURES, "--scorers", "my_scorers.py", "tool_errors", "redundant_tool_calls", "latency"]

    code, alone, problems = score(*arguments, folder=folder)
    in_workers = score(*arguments, "--workers", "2", folder=folder)

    assert (code, problems.count("Error")) == (0, 0)
    assert in_workers[:2] == (code, alone)
    assert {row["decision"] for row in alone} >= {"scored", "not_sampled", "not_applicable"}


def test_a_scorer_that_hangs_or_ends_its_process_is_called_again_for_the_next_trace(folder: Path) -> None:
    roots = ["fine", "hang", "fine", "hang", "end", "fine"]
    file = folder / "traces.binpb"
    file.write_bytes(
        b"".join(
            make_request(make_span(name, trace=number, span=1, start=number))
            for number, name in enumerate(roots, start=1)
        )
    )

    code, rows, _ = score(
        *(str(file), "--scorers", "my_scorers.py:hangs", "my_scorers.py:ends", "--workers", "1"), folder=folder
    )

    outcomes = {
        scorer: [row["decision"] for row in rows if row["scorer"] == scorer and row["feedback"]]
        for scorer in ("hangs", "ends")
    }
    assert code == 0
    assert outcomes["hangs"] == ["scored", "timed_out", "scored", "timed_out", "scored", "scored"]
    assert outcomes["ends"] == ["scored", "scored", "scored", "scored", "failed", "scored"]


def test_registered_scorers_and_taught_spans_reach_the_workers(folder: Path) -> None:
    (folder / "spans.yaml").write_text("dialects: {span_types: [{name: '^look', type: TOOL}]}\n", encoding="utf-8")
    (folder / "traces.binpb").write_bytes(
        make_request(make_span("lookup", span=2, parent=1), make_span("root", span=1, end=2.0))
    )
    registered = subprocess.run(
        [
            *(sys.executable, "-m", "otel_scorer", "scorers", "register", "my_scorers.py:Length"),
            *("--name", "long", "--param", "least=2", "--store", "store.db"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )

    code, rows, problems = score(
        *("traces.binpb", "--scorers", "long", "my_scorers.py:each_tool", "--store", "store.db"),
        *("-c", "spans.yaml", "--workers", "1"),
        folder=folder,
    )

    assert registered.returncode == 0, registered.stderr
    assert code == 0, problems
    assert {row["scorer"]: row["feedback"]["value"] for row in rows} == {"long": True, "each_tool": "lookup"}


def test_a_scorer_that_cannot_be_loaded_is_said_in_one_line(folder: Path) -> None:
    code, rows, problems = score(CAPTURES[0], "--scorers", "my_scorers.py:nobody", "--workers", "1", folder=folder)

    assert (code, rows) == (2, [])
    assert "there is no 'nobody'" in problems
    assert "Traceback" not in problems
