"""Which traces a backend gets where that depends on their scores: over real load, through real sidecars."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tests.e2e.sidecar import Gate, Sidecar, id_of
from tests.e2e.sink import Sink, plain

from otel_scorer.pipeline.keeping.evidence import NUMBERS, keep_number
from otel_scorer.testing import make_request, make_span

GATED = str(Path(__file__).parent / "scorers" / "gated.py")
TOOL = {"gen_ai.operation.name": "execute_tool"}
TRACES = range(1, 1501)
BAD = {trace for trace in TRACES if trace % 17 == 0}
RATE = 0.05
SAMPLED = {trace for trace in TRACES if keep_number(id_of(trace)) < RATE * NUMBERS}
WAIT = 120.0
COUNT = "otel_scorer.adjusted_count"


def agents(traces: Iterable[int]) -> bytes:
    return make_request(
        *(
            span
            for trace in traces
            for span in (
                make_span(
                    "search",
                    trace=trace,
                    span=2,
                    parent=1,
                    end=0.5,
                    attributes=TOOL,
                    status="ERROR" if trace in BAD else "UNSET",
                ),
                make_span("agent", trace=trace, span=1),
            )
        )
    )


def configured(folder: Path, *lines: str, name: str = "sidecar.yaml") -> str:
    """Return a configuration in which a busy machine has all the time that it needs for verdicts."""
    path = folder / name
    base = ["forwarding: hold_trace", "telemetry: {status_page: 127.0.0.1:0}", "assembly: {root_grace: 300ms}"]
    path.write_text("\n".join([*base, *lines]) + "\n", encoding="utf-8")
    return str(path)


def wait_for_outcomes(sidecar: Sidecar, number: int) -> dict[str, int]:
    """Wait until so many traces are decided, and return what became of them."""
    until, pause = time.monotonic() + WAIT, threading.Event()
    pattern = re.compile(r'^otel_scorer_keeping_traces_total\{outcome="(\w+)"\} (\d+)', re.MULTILINE)
    while True:
        said = {name: int(times) for name, times in pattern.findall(sidecar.ask("/metrics").body.decode())}
        if sum(said.values()) >= number:
            return said
        assert time.monotonic() < until, said
        pause.wait(0.1)


def wait_for_raw(sink: Sink, number: int) -> None:
    """Wait until so many spans and scores are there."""
    sink.wait_for(lambda: len(sink.raw) >= number, WAIT)


def counts_in(sink: Sink) -> dict[int, set[float]]:
    """Return what the spans and scores of each trace say of how many it stands for."""
    found: dict[int, set[float]] = {}
    messages = [*sink.spans_of(*map(id_of, TRACES)), *(score.span for score in sink.scores_of(*map(id_of, TRACES)))]
    for span in messages:
        [count] = [plain(pair.value) for pair in span.attributes if pair.key == COUNT]
        assert isinstance(count, float)
        found.setdefault(int.from_bytes(span.trace_id, "big"), set()).add(count)
    return found


def test_a_backend_gets_every_bad_trace_and_a_sample_of_the_good_ones_whose_counts_add_up(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    rule = f"keep: any_failed or sample({RATE})"
    config = configured(tmp_path, rule, "scorers: [tool_errors, latency]", "hold_deadline: 100s")
    sidecar = start("-c", config, "--export", own_sink.grpc)
    for first in range(TRACES.start, TRACES.stop, 100):
        sidecar.send(agents(range(first, first + 100)))

    outcomes = wait_for_outcomes(sidecar, len(TRACES))
    kept = BAD | SAMPLED
    wait_for_raw(own_sink, 4 * len(kept))
    assert sidecar.stop() == 0

    assert {int.from_bytes(span.trace_id, "big") for span in own_sink.raw} == kept
    assert len(own_sink.raw) == 4 * len(kept)
    assert outcomes == {
        "kept": len(BAD),
        "sampled": len(SAMPLED - BAD),
        "not_kept": len(TRACES) - len(kept),
    }
    counts = counts_in(own_sink)
    assert counts == {trace: {1.0 if trace in BAD else 1 / RATE} for trace in kept}
    # The sample is one of the whole, so what it stands for is about what there was.
    good = len(TRACES) - len(BAD)
    deviation = math.sqrt(good * RATE * (1 - RATE))
    assert abs(len(SAMPLED - BAD) - good * RATE) < 4 * deviation
    estimate = sum(count for each in counts.values() for count in each)
    assert abs(estimate - len(TRACES)) < 4 * deviation / RATE


def test_replicas_keep_the_same_traces(tmp_path: Path, start: Callable[..., Sidecar]) -> None:
    kept: list[set[bytes]] = []
    for name in ("one", "two"):
        sink = Sink()
        try:
            config = configured(tmp_path, "keep: error || sample(0.2)", name=f"{name}.yaml")
            sidecar = start("-c", config, "--export", sink.grpc)
            sidecar.send(agents(range(1, 301)))
            outcomes = wait_for_outcomes(sidecar, 300)
            wait_for_raw(sink, 2 * (300 - outcomes["not_kept"]))
            assert sidecar.stop() == 0
            kept.append({span.trace_id for span in sink.raw})
        finally:
            sink.close()

    expected = {trace for trace in range(1, 301) if trace in BAD or keep_number(id_of(trace)) < 0.2 * NUMBERS}
    assert kept == [{id_of(trace) for trace in expected}] * 2


def test_a_trace_whose_verdict_is_not_there_in_time_is_kept(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar], gate: Gate
) -> None:
    config = configured(tmp_path, "keep: any_failed", f"scorers: [{GATED}]", "hold_deadline: 500ms")
    sidecar = start("-c", config, "--export", own_sink.grpc, environment=gate.environment)

    sidecar.send(agents([1]))
    gate.wait_for_scorer()
    own_sink.wait_for_spans(2, id_of(1))
    gate.open()
    own_sink.wait_for_scores(2, id_of(1))

    assert wait_for_outcomes(sidecar, 1) == {"in_doubt": 1}
    assert sidecar.stop() == 0
    assert counts_in(own_sink) == {1: {1.0}}


@pytest.mark.parametrize("trace", [1, 17], ids=["good", "bad"])
def test_late_spans_share_the_fate_of_their_trace(
    trace: int, tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    config = configured(tmp_path, "keep: any_failed", "scorers: [tool_errors]", "hold_deadline: 100s")
    sidecar = start("-c", config, "--export", own_sink.grpc)
    sidecar.send(agents([trace]))
    wait_for_outcomes(sidecar, 1)

    sidecar.send(make_request(make_span("late", trace=trace, span=3, parent=1)))

    assert sidecar.stop() == 0
    assert [span.name for span in own_sink.spans_of(id_of(trace))] == (
        ["search", "agent", "late"] if trace in BAD else []
    )


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["keep: any_faild"], "keep: there is no `any_faild` (did you mean `any_failed`?)"),
        (["keep: sample(5)"], "keep: `sample(5)` must name a share between 0 and 1"),
        (['keep: failed("tool_error")'], "there is no scorer 'tool_error'; there are tool_errors"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_before_anything_runs(
    lines: list[str], problem: str, tmp_path: Path
) -> None:
    config = configured(tmp_path, *lines, "scorers: [tool_errors]", "exporters: {console: {}}")

    for command in ("check", "serve"):
        ran = subprocess.run(
            [sys.executable, "-m", "otel_scorer", command, "-c", config],
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        assert ran.returncode == 2
        assert problem in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_scorer_that_a_rule_names_may_be_registered_later(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    config = configured(tmp_path, 'keep: failed("to_come")', f"store: {tmp_path / 'traces.db'}")
    sidecar = start("-c", config, "--export", own_sink.grpc)

    sidecar.wait_for_log("there is no scorer 'to_come'")
    sidecar.send(agents([1]))

    own_sink.wait_for_spans(2, id_of(1))
    assert sidecar.stop() == 0


def test_what_is_not_kept_does_not_stay_in_a_spool(
    tmp_path: Path, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    lines = ("keep: any_failed", "scorers: [tool_errors]", "hold_deadline: 100s", f"spool: {{directory: {tmp_path}/s}}")
    config = configured(tmp_path, *lines)
    traces = range(1, 101)
    sidecar = start("-c", config, "--export", own_sink.grpc)
    sidecar.send(agents(traces))
    wait_for_outcomes(sidecar, 100)
    assert sidecar.stop() == 0

    # Whatever is left would be scored again, and sent again.
    again = start("-c", config, "--export", own_sink.grpc)
    again.send(agents([1717]))
    wait_for_outcomes(again, 1)
    assert again.stop() == 0

    assert "are taken up" not in again.log
    assert sorted(int.from_bytes(span.trace_id, "big") for span in own_sink.raw if not span.is_own) == sorted(
        [trace for trace in traces if trace in BAD] * 2
    )
