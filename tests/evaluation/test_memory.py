"""Memory stays flat however many rows and traces there are, and what was said of them is there all the same."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_scorer import evaluate, load_traces, scorer
from otel_scorer.reporting import judgements
from otel_scorer.stores.overflow import Overflow

CAPTURE = Path(__file__).resolve().parents[1] / "captures" / "openinference_openai.json"
# What ten times as much may take more. If it all stayed in memory it would be at least a hundred.
SLACK = 40
MEASURED = """
import json, sys
from otel_scorer import evaluate
from otel_scorer.testing import make_span, make_trace

number = int(sys.argv[1])
text = "x" * 20_000


def long(outputs): return len(outputs) > 3
def last(outputs): return outputs[-1]


def traces():
    for each in range(number):
        yield make_trace(make_span("root", attributes={"input.value": "q", "output.value": f"{each}" + text}))


def rows():
    for each in range(number):
        yield {"inputs": {"n": each}, "outputs": f"{each}" + text}
"""
KINDS = {
    "rows": "result = evaluate(rows(), [long, last], store=False)",
    "stored rows": "result = evaluate(rows(), [long, last], store=sys.argv[2])",
    "traces": "result = evaluate(traces(), [long, last], store=False)",
}
LOOKS = """
assert result.metrics["long/mean"] == 1
assert len(result.results) == number == sum(1 for each in result.results if each.feedbacks[0].value)
assert result.results[-1].outputs.startswith(str(number - 1))
assert not result.passed
result.to_html(sys.argv[2] + ".html")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""

# In a process of its own: that of the tests has threads, and Python 3.12 warns of copies of such.
FORKED = """
import os
from otel_scorer import evaluate
from otel_scorer.reporting import judgements
from otel_scorer.stores.overflow import Overflow
judgements.Overflow = lambda: Overflow(0)
def echo(outputs): return outputs
result = evaluate(({"inputs": {"n": n}, "outputs": n} for n in range(200)), [echo], store=False)
child = os.fork()
if child == 0:
    os._exit([row.outputs for row in result.results] != list(range(200)))
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), [row.outputs for row in result.results] == list(range(200)))
"""


def peak(script: str, *arguments: str) -> float:
    """Return the most memory that a program of its own took, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.parametrize("kind", KINDS)
def test_ten_times_as_many_take_no_more_memory(kind: str, tmp_path: Path) -> None:
    script = MEASURED + KINDS[kind] + LOOKS

    few, many = (peak(script, str(number), str(tmp_path / f"{number}.db")) for number in (700, 7000))

    assert many < few + SLACK


FILE = """
import json, sys

number, path = int(sys.argv[1]), sys.argv[2]
text = "x" * 20_000
with open(path, "w") as file:
    # Roots first and what is below them far behind: no trace is complete before the end.
    for parent in (None, "root"):
        for each in range(number):
            ids = {"traceId": f"{each + 1:032x}", "spanId": "00000000000000" + ("02" if parent else "01")}
            if parent:
                ids["parentSpanId"] = "0000000000000001"
            said = [{"key": "output.value", "value": {"stringValue": f"{each}" + text}}]
            span = {**ids, "name": "step", "startTimeUnixNano": "1", "endTimeUnixNano": "2", "attributes": said}
            print(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}), file=file)
"""
EVALUATED = """
import sys
from otel_scorer import evaluate


def last(outputs): return outputs[-1]


number = int(sys.argv[1])
result = evaluate(sys.argv[2], [last, lambda trace: len(trace.spans) == 2], store=False)
assert result.metrics == {"lambda/mean": 1}
assert len(result.results) == number
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
SCORED = """
import sys
from pathlib import Path
from otel_scorer.cli import main

path = Path(sys.argv[2])
path.with_suffix(".py").write_text("def last(outputs): return outputs[-1]\\n")
sys.argv = ["otel-scorer", "score", str(path), "--scorers", f"{path.with_suffix('.py')}:last", *sys.argv[3:]]
try:
    main()
except SystemExit as end:
    assert not end.code
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (EVALUATED, []),
        (SCORED, ["--format", "jsonl", "--report", "report.html", "report.xml", "report.md", "report.txt"]),
        (SCORED, ["--workers", "1", "--format", "json"]),
    ],
    ids=["evaluate", "score", "score in workers"],
)
def test_a_file_five_times_as_large_takes_no_more_memory(script: str, arguments: list[str], tmp_path: Path) -> None:
    # The smaller one is more than may be in memory already.
    few, many = 1000, 5000
    for number in (few, many):
        subprocess.run([sys.executable, "-c", FILE, str(number), str(tmp_path / f"{number}.jsonl")], check=True)
    places = [str(tmp_path / each) if each.startswith("report.") else each for each in arguments]
    if places:
        places += ["--out", str(tmp_path / "out")]

    small, large = (peak(script, str(number), str(tmp_path / f"{number}.jsonl"), *places) for number in (few, many))

    assert large < small + SLACK


@scorer
def echo(outputs: Any) -> Any:
    return outputs if isinstance(outputs, int | str) else None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.fixed_dictionaries({"inputs": values, "outputs": values}), max_size=150), st.booleans())
def test_rows_come_back_as_they_were_wherever_they_are_kept(rows: list[dict[str, Any]], spilled: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judgements, "Overflow", lambda: Overflow(0 if spilled else 1 << 30))
        result = evaluate(iter(rows), [echo], store=False)

    assert [row.inputs for row in result.results] == [row["inputs"] for row in rows]
    assert [row.outputs for row in result.results] == [row["outputs"] for row in rows]
    said = [row["outputs"] if isinstance(row["outputs"], int | str) else None for row in rows]
    assert [[each.value for each in row.feedbacks] for row in result.results] == [
        [] if each is None else [each] for each in said
    ]


@pytest.fixture
def spilled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgements, "Overflow", lambda: Overflow(0))


@pytest.mark.usefixtures("spilled")
class TestSpilled:
    def test_results_are_a_sequence(self) -> None:
        result = evaluate(({"inputs": {"n": n}, "outputs": n} for n in range(200)), [echo], store=False)
        results = result.results

        assert [row.outputs for row in results] == list(range(200))
        assert results[7].outputs == results[-193].outputs == 7
        assert [row.position for row in results[60:70]] == list(range(60, 70))
        assert [row.position for row in reversed(results)] == list(reversed(range(200)))
        assert results[3] is results[3]
        assert results[3] in results
        assert results == list(results)
        with pytest.raises(IndexError):
            results[200]

    def test_who_gave_a_list_of_traces_gets_the_very_traces(self) -> None:
        traces = load_traces(CAPTURE)

        result = evaluate(traces, [echo], store=False)

        assert [row.trace for row in result.results] == traces

    def test_traces_of_a_stream_are_the_same_to_every_scorer(self) -> None:
        traces = load_traces(CAPTURE)

        result = evaluate(iter(traces), [echo], store=False)

        assert [(row.trace or traces[0]).to_dict() for row in result.results] == [each.to_dict() for each in traces]
        again = evaluate([row.trace for row in result.results], [echo], store=False)
        assert again.metrics == result.metrics

    def test_what_is_no_data_is_the_same_object_afterwards(self) -> None:
        lock = threading.Lock()

        result = evaluate(({"inputs": {"lock": lock}, "outputs": n} for n in range(100)), [echo], store=False)

        assert all(row.inputs["lock"] is lock for row in result.results)

    def test_whoever_changes_what_a_row_returns_changes_nothing_else(self) -> None:
        result = evaluate(iter([{"inputs": {"q": []}, "outputs": 1}]), [echo], store=False)

        result.results[0].inputs["q"].append(1)

        assert result.results[0].inputs == {"q": []}

    @pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))])  # noqa: S301 - our own
    def test_copies_and_pickles_say_the_same(self, make: Any) -> None:
        result = evaluate(({"inputs": {"n": n}, "outputs": n} for n in range(200)), [echo], store=False)

        other = make(result)

        assert [row.outputs for row in other.results] == list(range(200))
        assert other.metrics == result.metrics
        assert other.report.summaries == result.report.summaries

    @pytest.mark.parametrize("data", [lambda: iter(load_traces(CAPTURE)), lambda: CAPTURE], ids=["stream", "file"])
    def test_traces_come_out_of_copies_and_pickles(self, data: Any) -> None:
        result = evaluate(data(), [echo], store=False)

        for other in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):  # noqa: S301 - our own
            traces = [row.trace for row in other.results]
            assert [None if each is None else each.to_dict() for each in traces] == [
                each.to_dict() for each in load_traces(CAPTURE)
            ]

    def test_a_row_that_was_read_again_is_found(self) -> None:
        result = evaluate(({"inputs": {"n": n}, "outputs": n} for n in range(3000)), [echo], store=False)
        first, other = result.results[0], result.results[1]

        rows = list(result.results)

        assert result.results[0] is not first
        assert rows.index(first) == result.results.index(first) == 0
        assert result.results.count(first) == 1
        assert hash(first) == hash(result.results[0])
        assert first != other

    def test_a_forked_process_reads_the_result(self) -> None:
        run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, check=True, text=True)

        assert run.stdout == "0 True\n"

    def test_no_folder_for_temporary_files_loses_nothing(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

        result = evaluate(({"inputs": {"n": n}, "outputs": n} for n in range(200)), [echo], store=False)

        assert [row.outputs for row in result.results] == list(range(200))
        assert "stays in memory" in caplog.text

    def test_a_wrong_row_and_a_failed_call_are_told_as_ever(self) -> None:
        def answer(n: int) -> int:
            if n == 150:
                raise ValueError("no answer")
            return n

        result = evaluate(({"inputs": {"n": n}} for n in range(200)), [echo], answer, store=False)

        assert result.results[150].error == "ValueError: no answer"
        assert not result.passed
        assert result.reason.splitlines()[1] == "  - predict_fn: row 150: ValueError: no answer"
        assert result.reason.splitlines()[-1] == "  - and 180 more"
        assert result.results[150].trace is not None

    def test_iterating_while_iterating_is_fine(self) -> None:
        result = evaluate(({"inputs": {"n": n}, "outputs": n} for n in range(150)), [echo], store=False)

        def pairs() -> Iterator[tuple[int, int]]:
            for one, other in zip(result.results, reversed(result.results), strict=True):
                yield one.outputs, other.outputs

        assert all(sum(pair) == 149 for pair in pairs())
