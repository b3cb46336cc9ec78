"""What a scorer does to its process, and leaves behind there, costs the scorer one decision and nobody else any."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.sidecar import SCORERS, Sidecar, Traces, id_of, small_trace
from tests.e2e.sink import Sink

from otel_scorer.testing import make_request, make_span

NAMES = ["first", "hostile", "between", "hostile_coroutine", "coroutine", "last"]
# What the root says, who does it, and the error type of its verdict; None: it gets its verdict like any other.
CASES = [
    ("fork", "hostile", None),
    ("leave a child", "hostile", None),
    ("leave a child and exit", "hostile", "WorkerDied"),
    ("leave a program and exit", "hostile", "WorkerDied"),
    ("leave a thread that exits", "hostile", None),
    ("leave a thread that crashes", "hostile", None),
    ("close descriptors", "hostile", None),
    ("leave few frames", "hostile", None),
    ("recurse", "hostile", "RecursionError"),
    ("change everything", "hostile", None),
    ("return what cannot be shown", "hostile", "InvalidResultError"),
    ("smuggle", "hostile", None),
    ("return a generator", "hostile", "InvalidResultError"),
    ("return a lot", "hostile", "ResultTooLarge"),
    ("ignore cancellation", "hostile_coroutine", "TimeoutError"),
    ("cancel all", "hostile_coroutine", None),
    ("leave a thread that exits, as a coroutine", "hostile_coroutine", None),
    ("end the loop", "hostile_coroutine", None),
    ("exit in a task", "hostile_coroutine", None),
]


@pytest.fixture(scope="module")
def sidecar(sink: Sink) -> Iterator[Sidecar]:
    sidecar = Sidecar("--export", sink.grpc, "--scorers", str(SCORERS / "hostile.py"), "--root-grace", "0.1")
    yield sidecar
    sidecar.close()


def told(trace: int, what: str) -> bytes:
    return make_request(make_span("agent", trace=trace, span=1, attributes={"do": what}))


@pytest.mark.parametrize(("what", "culprit", "error"), CASES, ids=[what for what, _, _ in CASES])
def test_one_decision_is_lost_at_most(what: str, culprit: str, error: str | None, sidecar: Sidecar, sink: Sink) -> None:
    traces = Traces(7000 + CASES.index((what, culprit, error)))
    bad, *fine = [traces.new() for _ in range(4)]

    sidecar.send(told(bad, what))
    sink.wait_for_scores(len(NAMES), id_of(bad))
    for trace in fine:
        sidecar.send(small_trace(trace, children=0))

    ids = [id_of(trace) for trace in (bad, *fine)]
    scores = sink.wait_for_scores(len(ids) * len(NAMES), *ids)
    assert Counter((score.raw.trace_id, score.name) for score in scores) == Counter(
        (trace, name) for trace in ids for name in NAMES
    )
    odd = {(score.raw.trace_id, score.name): score.error for score in scores if score.value is not True}
    assert odd == ({} if error is None else {(id_of(bad), culprit): error})


def decisions(sidecar: Sidecar) -> Counter[str]:
    """Return how many decisions each scorer has, whatever they are."""
    lines = sidecar.ask("/metrics").body.decode().splitlines()
    counted = [line for line in lines if line.startswith("otel_scorer_scoring_decisions_total{")]
    found: Counter[str] = Counter()
    for line in counted:
        [scorer] = re.findall(r'scorer="(\w+)"', line)
        found[scorer] += int(float(line.rsplit(" ", 1)[1]))
    return found


def test_the_ledger_adds_up_whatever_they_do_at_once_and_none_of_them_is_left_behind(
    sink: Sink, tmp_path: Path
) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text("telemetry: {status_page: '127.0.0.1:0'}")
    sidecar = Sidecar(
        *("-c", str(config), "--export", sink.grpc, "--scorers", str(SCORERS / "hostile.py")),
        *("--root-grace", "0.1", "--workers", "2"),
    )
    traces = Traces(7100)
    sent = [(traces.new(), what) for what, _, _ in CASES]
    try:
        for number, (trace, what) in enumerate(sent):
            if number % 7 == 6:  # others take over while some of them are at it
                sidecar.process.send_signal(signal.SIGHUP)
            sidecar.send(told(trace, what))
            sidecar.send(small_trace(traces.new(), children=0))
        sink.wait_for(lambda: sum(decisions(sidecar).values()) >= 2 * len(sent) * len(NAMES), 120)

        found = decisions(sidecar)
        assert sidecar.stop() == 0  # its standard error has ended: no process of a scorer's has it open
    finally:
        sidecar.close()
    assert found == dict.fromkeys(NAMES, 2 * len(sent))
