"""Scorers that misbehave cost one decision each; all other verdicts arrive, once."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.e2e.sidecar import SCORERS, Gate, Sidecar, Traces, id_of, small_trace
from tests.e2e.sink import WAIT, Score, Sink

from otel_scorer.pipeline.workers.protocol import HEARTBEAT_BYTES, Beat, Heartbeat
from otel_scorer.testing import make_request, make_span

NASTY = str(SCORERS / "nasty.py")
TOOL = {"gen_ai.operation.name": "execute_tool"}
SCORER_NAMES = [
    *("first", "hangs", "exits", "crashes", "raises", "quits", "prints", "surrogates", "huge"),
    *("waits", "blocks", "async_exits", "async_raises", "last", "killed"),
]
# What the root says, the scorer that does it, and the error type of its verdict; None: it is a verdict like any other.
CASES = [
    ("hang", "hangs", "TimeoutError"),
    ("exit", "exits", "WorkerDied"),
    ("crash", "crashes", "WorkerDied"),
    ("raise", "raises", "ValueError"),
    ("quit", "quits", "SystemExit"),
    ("interrupt", "quits", "KeyboardInterrupt"),
    ("print", "prints", None),
    ("huge", "huge", "NOT_FINITE"),
    ("await", "waits", "TimeoutError"),
    ("block", "blocks", "TimeoutError"),
    ("async exit", "async_exits", "WorkerDied"),
    ("async raise", "async_raises", "ValueError"),
    ("async interrupt", "async_raises", "KeyboardInterrupt"),
    ("cancel", "async_raises", "CancelledError"),
    ("kill", "killed", "WorkerDied"),
]


@pytest.fixture(scope="module")
def sidecar(sink: Sink) -> Iterator[Sidecar]:
    sidecar = Sidecar("--export", sink.grpc, "--scorers", NASTY, "--root-grace", "0.1")
    yield sidecar
    sidecar.close()


def told(trace: int, what: str) -> bytes:
    return make_request(make_span("agent", trace=trace, span=1, attributes={"do": what}))


def verdicts(scores: list[Score]) -> Counter[tuple[bytes, str]]:
    return Counter((score.raw.trace_id, score.name) for score in scores)


@pytest.mark.parametrize(("what", "culprit", "error"), CASES, ids=[what for what, _, _ in CASES])
def test_a30_one_decision_is_lost_and_no_other(
    what: str, culprit: str, error: str | None, sidecar: Sidecar, sink: Sink
) -> None:
    traces = Traces(CASES.index((what, culprit, error)) + 1)
    before, bad, after = ([traces.new() for _ in range(number)] for number in (3, 1, 3))
    ids = [id_of(trace) for trace in (*before, *bad, *after)]

    for trace in before:
        sidecar.send(small_trace(trace, children=0))
    sidecar.send(told(bad[0], what))
    for trace in after:
        sidecar.send(small_trace(trace, children=0))

    scores = sink.wait_for_scores(len(ids) * len(SCORER_NAMES), *ids)
    assert verdicts(scores) == Counter((trace, name) for trace in ids for name in SCORER_NAMES)
    odd = {score.name: score.error for score in scores if score.value is not True}
    assert odd == ({} if error is None else {culprit: error})
    assert all(score.raw.trace_id == id_of(bad[0]) for score in scores if score.value is not True)


def test_a30_several_at_once_cost_one_decision_each(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start("--export", own_sink.grpc, "--scorers", NASTY, "--root-grace", "0.3", "--workers", "2")
    bad = {trace: case for trace, case in enumerate(CASES, 1) if case[2] is not None}
    fine = [trace * 100 + number for trace in bad for number in range(3)]

    for trace, (what, _, _) in bad.items():
        sidecar.send(told(trace, what))
        for number in range(3):
            sidecar.send(small_trace(trace * 100 + number, children=0))
    sent = [id_of(trace) for trace in (*bad, *fine)]

    scores = own_sink.wait_for_scores(len(sent) * len(SCORER_NAMES), *sent, timeout=100)
    assert sidecar.stop() == 0
    assert verdicts(own_sink.scores_of(*sent)) == Counter((trace, name) for trace in sent for name in SCORER_NAMES)
    odd = {(score.raw.trace_id, score.name, score.error) for score in scores if score.value is not True}
    assert odd == {(id_of(trace), culprit, error) for trace, (_, culprit, error) in bad.items()}


def test_text_that_utf8_cannot_carry_is_sent_with_question_marks(sidecar: Sidecar, sink: Sink) -> None:
    trace = Traces(50).new()

    sidecar.send(told(trace, "surrogates"))

    scores = sink.wait_for_scores(len(SCORER_NAMES), id_of(trace))
    (odd,) = [score for score in scores if score.value is not True]
    assert (odd.name, odd.value, odd.explanation) == ("odd?", "?", "a lone ?")


def test_a_scorer_of_spans_loses_one_span(sidecar: Sidecar, sink: Sink) -> None:
    trace = Traces(60).new()
    tools = [
        make_span("tool", trace=trace, span=span, parent=1, attributes={**TOOL, "do": "exit" if span in {3, 5} else ""})
        for span in range(2, 7)
    ]

    sidecar.send(make_request(*tools, make_span("agent", trace=trace, span=1)))

    scores = sink.wait_for_scores(len(SCORER_NAMES) + 5, id_of(trace))
    of_tools = {score.span.parent_span_id[-1]: score.error for score in scores if score.name == "per_tool"}
    assert of_tools == {2: None, 3: "WorkerDied", 4: None, 5: "WorkerDied", 6: None}
    assert len(scores) == len(SCORER_NAMES) + 5


def test_verdicts_do_not_wait_for_a_slow_scorer_behind_them(
    own_sink: Sink, start: Callable[..., Sidecar], gate: Gate
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", str(SCORERS / "gated.py"), "--root-grace", "0.1"),
        environment=gate.environment,
    )

    sidecar.send(small_trace(1))
    gate.wait_for_scorer()

    (quick,) = own_sink.wait_for_scores(1, id_of(1))
    assert quick.name == "quick"
    gate.open()
    assert len(own_sink.wait_for_scores(2, id_of(1))) == 2


def children_of(process: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    threads = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text(encoding="ascii").split()]


def working(process: int, number: int) -> list[int]:
    """Return the workers of a sidecar once there are so many that have said that they are ready."""
    until, pause = time.monotonic() + WAIT, threading.Event()
    while True:
        # A worker starts threads when it has said so; until then it is one that cannot be started.
        ready = [child for child in children_of(process) if len(threads_of(child)) > 1]
        if len(ready) == number:
            return ready
        assert time.monotonic() < until, ready
        pause.wait(0.1)


def threads_of(process: int) -> list[Path]:
    with suppress(OSError):
        return list(Path(f"/proc/{process}/task").iterdir())
    return []


def test_killed_workers_cost_nothing(own_sink: Sink, start: Callable[..., Sidecar]) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "tool_errors", "latency", "--root-grace", "0.05", "--workers", "2")
    )
    ids = [id_of(trace) for trace in range(1, 601)]

    for part in range(3):
        for trace in range(part * 200 + 1, part * 200 + 201):
            sidecar.send(small_trace(trace))
        for child in working(sidecar.process.pid, 2):
            os.kill(child, signal.SIGKILL)
        own_sink.wait_for_scores(2 * 200 * (part + 1), *ids)
        sidecar.wait_for_log_times("Replacing scorer worker", 2 * (part + 1))

    assert sidecar.stop() == 0
    assert sidecar.log.count("Replacing scorer worker") == 6
    scores = own_sink.scores_of(*ids)
    assert verdicts(scores) == Counter((trace, name) for trace in ids for name in ("tool_errors", "latency"))
    assert {score.error for score in scores} == {None}
    assert len(own_sink.spans_of(*ids)) == 1800


def test_a_beat_is_never_read_half_written() -> None:
    """Half of one beat and half of the next would be a scorer that has run since the machine was started."""
    heartbeat = Heartbeat(mmap.mmap(-1, HEARTBEAT_BYTES))
    heartbeat.end()
    writer = os.fork()
    if writer == 0:
        for number in range(100_000):
            heartbeat.begin(number, number % 3, number % 2, float(number))
            heartbeat.end()
        os._exit(0)

    seen: list[Beat] = []
    while os.waitpid(writer, os.WNOHANG) == (0, 0):
        if (beat := heartbeat.read()) is not None:
            seen.append(beat)

    assert seen
    assert all((beat.scorer, beat.target, beat.since) == (beat.job % 3, beat.job % 2, beat.job) for beat in seen)


def test_other_scorers_in_a_file_that_was_edited_are_not_taken_for_the_old_ones(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from otel_scorer import scorer\n\n@scorer\ndef one(trace):\n    return True\n", encoding="utf-8")
    sidecar = start("--export", own_sink.grpc, "--scorers", str(file), "--root-grace", "0.05")
    original = file.read_text(encoding="utf-8")
    file.write_text(original.replace("one", "other"), encoding="utf-8")

    for child in children_of(sidecar.process.pid):
        os.kill(child, signal.SIGKILL)
    sidecar.wait_for_log("SIGHUP takes the new ones")
    sidecar.send(small_trace(1))
    file.write_text(original, encoding="utf-8")

    own_sink.wait_for_scores(1, id_of(1))
    assert sidecar.stop() == 0
    assert own_sink.score_names() == ["one"]


def test_other_scorers_in_a_file_are_taken_on_request_and_what_only_the_old_ones_could_judge_is_shed(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from otel_scorer import scorer\n\n@scorer\ndef one(trace):\n    return True\n", encoding="utf-8")
    sidecar = start("--export", own_sink.grpc, "--scorers", str(file), "--root-grace", "0.05")
    file.write_text(file.read_text(encoding="utf-8").replace("one", "other"), encoding="utf-8")
    for child in children_of(sidecar.process.pid):
        os.kill(child, signal.SIGKILL)
    sidecar.wait_for_log("SIGHUP takes the new ones")
    sidecar.send(small_trace(1))
    own_sink.wait_for_spans(3, id_of(1))

    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.wait_for_log("Scorers from now on: other")
    sidecar.send(small_trace(2))

    own_sink.wait_for_scores(1, id_of(2))
    assert sidecar.stop() == 0
    assert own_sink.score_names()[-1] == "other"
    assert "one" not in own_sink.score_names()


ALWAYS_ENDS = """
import os
from pathlib import Path

from otel_scorer import scorer


@scorer
def ends(trace):
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(trace.trace_id + "\\n")
    os._exit(3)


@scorer
def stays(trace):
    return True
"""


def test_a_scorer_that_always_ends_its_worker_is_called_twice_until_that_is_known(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    (tmp_path / "ends.py").write_text(ALWAYS_ENDS)
    config = tmp_path / "sidecar.yaml"
    config.write_text("telemetry: {status_page: '127.0.0.1:0'}")
    calls = tmp_path / "calls"
    sidecar = start(
        *("-c", str(config), "--export", own_sink.grpc, "--root-grace", "0.1"),
        *("--scorers", str(tmp_path / "ends.py")),
        environment={"CALLS": str(calls)},
    )

    for trace in range(1, 9):
        sidecar.send(small_trace(trace, children=0))
        own_sink.wait_for_scores(2, id_of(trace))

    scores = own_sink.scores_of(*map(id_of, range(1, 9)))
    assert Counter((score.name, score.error) for score in scores) == {("ends", "WorkerDied"): 8, ("stays", None): 8}
    called = Counter(calls.read_text().split())
    assert [called[id_of(trace).hex()] for trace in range(1, 9)] == [2, 2, 2, 1, 1, 1, 1, 1]
    assert 'worker_restarts_total{reason="failed"} 11.0' in sidecar.ask("/metrics").body.decode()


COUNTS_ITS_CALLS = """
import os
from pathlib import Path

from otel_scorer import scorer

before = 0


@scorer
def ends_if_told(trace):
    global before
    told = trace.root.get_attribute("do") == "end"
    with Path(os.environ["CALLS"]).open("a") as calls:
        calls.write(f"{os.getpid()} {before} {told}\\n")
    before += 1
    if told:
        os._exit(3)
    return True
"""


def test_a_call_is_tried_in_a_worker_that_has_run_nothing_though_another_is_idle(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    (tmp_path / "ends.py").write_text(COUNTS_ITS_CALLS)
    log = tmp_path / "calls"
    sidecar = start(
        *("--export", own_sink.grpc, "--root-grace", "0.1", "--workers", "2"),
        *("--scorers", str(tmp_path / "ends.py")),
        environment={"CALLS": str(log)},
    )
    used: set[str] = set()
    trace = 0
    while len(used) < 2:
        trace += 1
        sidecar.send(small_trace(trace, children=0))
        own_sink.wait_for_scores(1, id_of(trace))
        used = {line.split()[0] for line in log.read_text().splitlines()}

    sidecar.send(told(trace + 1, "end"))
    [score] = own_sink.wait_for_scores(1, id_of(trace + 1))

    assert score.error == "WorkerDied"
    first, second = [line.split()[:2] for line in log.read_text().splitlines() if line.endswith("True")]
    assert first[0] in used
    assert second[0] not in used
    assert second[1] == "0"


HUNGRY = """
import threading

from otel_scorer import scorer


@scorer
def eats(trace):
    if trace.root.get_attribute("do") != "eat":
        return True
    held = [bytearray(b"x" * (16 << 20)) for _ in range(48)]
    threading.Event().wait()
    return len(held)


@scorer
def tastes(trace):
    if eating.is_set():
        tasted.set()
        threading.Event().wait()
    return True


eating, tasted, held = threading.Event(), threading.Event(), []


def eat_while_others_run():
    tasted.wait()
    held.extend(bytearray(b"x" * (16 << 20)) for _ in range(48))


@scorer
def leaves_a_thread_that_eats(trace):
    if trace.root.get_attribute("do") == "eat later":
        threading.Thread(target=eat_while_others_run, daemon=True).start()
        eating.set()
    return True
"""
HUNGRY_NAMES = ("eats", "tastes", "leaves_a_thread_that_eats")


@pytest.mark.parametrize(("what", "failed"), [("eat", [("eats", "MemoryError")]), ("eat later", [])])
def test_a30_a_scorer_that_eats_memory_costs_one_decision_at_most(
    what: str, failed: list[tuple[str, str]], tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    (tmp_path / "hungry.py").write_text(HUNGRY)
    config = tmp_path / "sidecar.yaml"
    config.write_text("memory: {worker: 500MiB}\nscoring: {timeout: 5m}\n")
    sidecar = start(
        *("-c", str(config), "--export", own_sink.grpc, "--root-grace", "0.1"),
        *("--scorers", str(tmp_path / "hungry.py")),
    )
    sent = [id_of(trace) for trace in range(1, 6)]

    for trace in (1, 2):
        sidecar.send(small_trace(trace, children=0))
    sidecar.send(told(3, what))
    for trace in (4, 5):
        sidecar.send(small_trace(trace, children=0))

    scores = own_sink.wait_for_scores(15, *sent, timeout=120)
    assert verdicts(scores) == Counter((trace, name) for trace in sent for name in HUNGRY_NAMES)
    odd = [score for score in scores if score.value is not True]
    assert [(score.name, score.error) for score in odd] == failed
    assert {score.raw.trace_id for score in odd} <= {id_of(3)}
    assert "had more than 500 MiB of memory" in sidecar.log
