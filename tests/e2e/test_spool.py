"""
What a sidecar with a spool has acknowledged comes through: when it is killed, when the backend or the disk is away.

`OTEL_SCORER_KILLS` says how often the one under load is killed (6 by default).
"""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.e2e.sidecar import SCORERS, Gate, Sidecar, id_of, method_of, small_trace
from tests.e2e.sink import WAIT, Sink
from tests.score_server import Reply, ScoreServer

from otel_scorer.testing import make_request, make_span

UNCERTAIN = str(SCORERS / "uncertain.py")
GATED = str(SCORERS / "gated.py")
KILLS = int(os.environ.get("OTEL_SCORER_KILLS", "6"))
SPANS = 3  # of a small trace

Start = Callable[..., Sidecar]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def settings(folder: Path, text: str) -> str:
    """Write a configuration next to a spool and return its path."""
    path = folder.with_name("sidecar.yaml")
    path.write_text(f"telemetry: {{status_page: '127.0.0.1:0'}}\n{text}", encoding="utf-8")
    return str(path)


def kill(sidecar: Sidecar) -> None:
    sidecar.process.send_signal(signal.SIGKILL)
    sidecar.process.wait(WAIT)


def rows_in(spool: Path) -> int:
    """Return how many requests, and requests to be sent, are left by a sidecar that has ended."""
    with closing(sqlite3.connect(spool / "spool.db")) as connection:
        [(requests,)] = connection.execute("SELECT count(*) FROM requests")
        [(outgoing,)] = connection.execute("SELECT count(*) FROM outgoing")
    return int(requests) + int(outgoing)


def taken_in(spool: Path) -> int:
    """Return how many rows are marked as taken by one of several backends."""
    with closing(sqlite3.connect(spool / "spool.db")) as connection:
        [(taken,)] = connection.execute("SELECT count(*) FROM taken")
    return int(taken)


def is_all_taken(spool: Path, copy: Path) -> bool:
    """Look at a copy of what a running sidecar has open: whether one of two backends has all there is."""
    shutil.copytree(spool, copy)
    try:
        return taken_in(copy) >= rows_in(copy) > 0
    except sqlite3.Error:  # it was written to meanwhile
        return False
    finally:
        shutil.rmtree(copy)


def wait_until(condition: Callable[[], bool]) -> None:
    over = threading.Event()
    timer = threading.Timer(WAIT, over.set)
    timer.start()
    try:
        while not condition():
            assert not over.wait(0.1)
    finally:
        timer.cancel()


def assert_sound(spool: Path, copy: Path) -> None:
    """Look through a copy of what a killed sidecar has left, which leaves the rest to the next one."""
    shutil.copytree(spool, copy)
    with closing(sqlite3.connect(copy / "spool.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    shutil.rmtree(copy)


def assert_judged_once(sink: Sink, traces: list[bytes]) -> None:
    """Each trace has one verdict, however often it came, and always in the same bytes."""
    verdicts: dict[bytes, set[bytes]] = {}
    for score in sink.scores_of(*traces):
        verdicts.setdefault(score.raw.trace_id, set()).add(score.raw.data)
    assert {trace: len(found) for trace, found in verdicts.items()} == dict.fromkeys(traces, 1)


@pytest.mark.parametrize("forwarding", ["passthrough", "hold_root", "hold_trace"])
def test_a_killed_sidecar_goes_on_where_it_was(forwarding: str, own_sink: Sink, start: Start, spool: Path) -> None:
    flags = ("--export", own_sink.grpc, "--scorers", UNCERTAIN, "--forwarding", forwarding, "--spool", str(spool))
    ids = [id_of(trace) for trace in range(1, 31)]
    first = start(*flags, "--root-grace", "3600")
    for trace in range(1, 31):
        first.send(small_trace(trace))
    kill(first)

    second = start(*flags, "--root-grace", "0.5")

    second.wait_for_log("The spool has 30 requests")
    own_sink.wait_for_scores(30, *ids)
    own_sink.wait_for(lambda: len({(span.trace_id, span.span_id) for span in own_sink.raw_of(*ids)}) == 30 * SPANS)
    assert second.stop() == 0
    assert_judged_once(own_sink, ids)
    assert {score.attributes["otel_scorer.complete"] for score in own_sink.scores_of(*ids)} == {True}
    assert rows_in(spool) == 0


def test_verdicts_on_spans_survive_a_kill_with_the_spans(own_sink: Sink, start: Start, spool: Path) -> None:
    hold = ("--forwarding", "hold_trace", "--emit", "attributes", "--root-grace", "0.2")
    flags = ("--scorers", UNCERTAIN, "--export", own_sink.grpc, "--spool", str(spool), *hold)
    ids = [id_of(trace) for trace in range(1, 11)]
    own_sink.tell("hold")
    first = start("-c", settings(spool, ""), *flags)
    for trace in range(1, 11):
        first.send(small_trace(trace))
    wait_for_metric(first, 'otel_scorer_scoring_decisions_total{outcome="scored",scorer="uncertain"}', 10)
    wait_for_metric(first, "otel_scorer_spool_requests", 0)
    kill(first)

    own_sink.tell("take")
    second = start("-c", settings(spool, ""), *flags)

    own_sink.wait_for_spans(10 * SPANS, *ids)
    assert second.stop() == 0
    said = {
        (span.trace_id, pair.value.string_value)
        for span in own_sink.spans_of(*ids)
        for pair in span.attributes
        if pair.key == "otel_scorer.uncertain.explanation"
    }
    assert sorted(trace for trace, _ in said) == ids
    # Nobody was asked again: what came is what the first process had written down.
    assert not own_sink.scores_of(*ids)


def wait_for_metric(sidecar: Sidecar, name: str, value: float) -> None:
    """Ask for the metrics of a sidecar until one has a value; the first of these answers is nearly always right."""
    wait_until(lambda: f"{name} {value:.1f}" in sidecar.ask("/metrics").body.decode())


class Load:
    """
    Sends traces in two requests each, again and again until they are acknowledged, to whatever sidecar there is.

    The last traces are sent to their end.

    Attributes:
        acknowledged: Trace and span id of what was.
    """

    def __init__(self) -> None:
        self.acknowledged: set[tuple[bytes, bytes]] = set()
        self._sidecar: Sidecar | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(2)]
        for thread in self._threads:
            thread.start()

    def aim(self, sidecar: Sidecar | None) -> None:
        with self._changed:
            self._sidecar = sidecar
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(WAIT)
            assert not thread.is_alive()

    def _run(self, number: int) -> None:
        for serial in range(1_000_000):
            if self._stopping:
                return
            trace = (number + 1) << 64 | (serial + 1)
            requests = (
                (make_request(make_span("tool", trace=trace, span=2, parent=1, end=0.5)), 2),
                (make_request(make_span("agent", trace=trace, span=1)), 1),
            )
            for data, span in requests:
                self._send(data)
                self.acknowledged.add((id_of(trace), span.to_bytes(8, "big")))

    def _send(self, data: bytes) -> None:
        while True:
            with self._changed:
                assert self._changed.wait_for(lambda: self._sidecar is not None, WAIT)
                sidecar = self._sidecar
            # A client that gets no answer sends again.
            with suppress(URLError, OSError):
                if sidecar is not None and sidecar.post(data).status == 200:
                    return


@pytest.mark.timeout(600 + 20 * KILLS)
@pytest.mark.parametrize("trigger", ["auto", "local_root"])
@pytest.mark.parametrize("forwarding", ["passthrough", "hold_root", "hold_trace"])
def test_nothing_acknowledged_is_lost_however_often_a_sidecar_is_killed_under_load(
    forwarding: str, trigger: str, *, own_sink: Sink, start: Start, spool: Path, tmp_path: Path
) -> None:
    assembly = settings(spool, f"assembly: {{trigger: {trigger}, root_grace: 0.3s}}")
    hold = ("--forwarding", forwarding, "-c", assembly)
    flags = ("--export", own_sink.grpc, "--scorers", UNCERTAIN, "--spool", str(spool), *hold)
    chance = random.Random()
    moment = threading.Event()
    load = Load()
    for _ in range(max(1, KILLS // 2)):
        sidecar = start(*flags)
        load.aim(sidecar)
        moment.wait(chance.uniform(0.05, 1.5))
        kill(sidecar)
        load.aim(None)
        assert_sound(spool, tmp_path / "copy")
    last = start(*flags)
    load.aim(last)
    moment.wait(0.2)
    load.stop()

    acknowledged = load.acknowledged
    traces = sorted({trace for trace, _ in acknowledged})
    patience = WAIT + 5 * KILLS
    own_sink.wait_for(
        lambda: acknowledged <= {(span.trace_id, span.span_id) for span in own_sink.raw_of(*traces)}, patience
    )
    own_sink.wait_for(lambda: set(traces) <= {score.raw.trace_id for score in own_sink.scores_of(*traces)}, patience)
    assert last.stop() == 0
    assert_judged_once(own_sink, traces)
    assert rows_in(spool) == 0


def test_while_the_spool_cannot_be_used_it_is_not_ready_and_refuses_and_goes_on_when_it_can(
    own_sink: Sink, start: Start, spool: Path
) -> None:
    own_sink.tell("refuse")
    flags = ("-c", settings(spool, ""), "--export", own_sink.grpc, "--scorers", UNCERTAIN)
    sidecar = start(*flags, "--spool", str(spool))
    sidecar.send(small_trace(1))
    # Somebody moves the folder, and something else is in its place.
    spool.rename(spool.with_name("moved"))
    spool.write_text("")

    wait_until(lambda: sidecar.ask("/readyz").status == 503)

    assert "the spool cannot be used" in sidecar.ask("/readyz").body.decode()
    assert sidecar.ask("/healthz").status == 200
    wait_for_metric(sidecar, "otel_scorer_spool_open", 0)
    refused = sidecar.post(small_trace(2))
    assert refused.status == 503
    assert "retry-after" in refused.headers
    spool.unlink()
    spool.with_name("moved").rename(spool)
    wait_until(lambda: sidecar.ask("/readyz").status == 200)
    sidecar.send(small_trace(2))
    own_sink.tell("take")
    own_sink.wait_for_spans(SPANS + 1, id_of(1), id_of(2))
    assert sidecar.stop() == 0
    assert rows_in(spool) == 0


def test_a_backend_that_is_away_fills_the_disk_and_not_memory(own_sink: Sink, start: Start, spool: Path) -> None:
    configuration = f"""
exporters: {{otlp: {{endpoint: "{own_sink.grpc}", sending_queue: {{queue_size: 2KiB}},
                    retry_on_failure: {{initial_interval: 50ms, max_interval: 100ms}}}}}}
drain_timeout: 1s
"""
    own_sink.tell("refuse")
    flags = ("-c", settings(spool, configuration), "--scorers", UNCERTAIN, "--root-grace", "0.2", "--spool", str(spool))
    first = start(*flags)
    ids = [id_of(trace) for trace in range(1, 51)]
    for trace in range(1, 51):
        first.send(small_trace(trace))
    code = first.stop()

    assert code == 1
    assert "stay in the spool for the next start" in first.log
    assert rows_in(spool) > 0
    assert own_sink.raw == []

    own_sink.tell("take")
    second = start(*flags)
    own_sink.wait_for_spans(50 * SPANS, *ids)
    own_sink.wait_for_scores(50, *ids)
    assert second.stop() == 0
    assert_judged_once(own_sink, ids)


def test_a_full_spool_refuses_with_a_hint_until_there_is_room(own_sink: Sink, start: Start, spool: Path) -> None:
    configuration = f"""
exporters: {{otlp: {{endpoint: "{own_sink.grpc}",
                    retry_on_failure: {{initial_interval: 50ms, max_interval: 100ms}}}}}}
spool: {{directory: "{spool}", max_size: 1MiB}}
"""
    own_sink.tell("refuse")
    sidecar = start("-c", settings(spool, configuration))
    padding = "x" * 100_000
    sent = 0
    while (answer := sidecar.post(_large(sent + 1, padding))).status == 200:
        sent += 1
        assert sent < 20
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert sent == 10

    own_sink.tell("take")
    own_sink.wait_for_spans(sent, *map(id_of, range(1, sent + 1)))
    wait_for_metric(sidecar, "otel_scorer_spool_requests", 0)
    sidecar.send(_large(100, padding))
    own_sink.wait_for_spans(1, id_of(100))
    assert sidecar.stop() == 0


def test_a_request_that_is_larger_than_the_spool_is_refused_for_good(own_sink: Sink, start: Start, spool: Path) -> None:
    configuration = f"spool: {{directory: '{spool}', max_size: 1MiB}}"
    sidecar = start("-c", settings(spool, configuration), "--export", own_sink.grpc)
    large = _large(1, "x" * (1 << 20))

    answer = sidecar.post(large)
    with grpc.insecure_channel(sidecar.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
        method_of(channel)(large, timeout=WAIT)

    assert answer.status == 413
    assert "retry-after" not in answer.headers
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = {str(item[0]) for item in cast("Any", refused.value).trailing_metadata()}
    assert "google.rpc.retryinfo-bin" not in trailers
    sidecar.send(_large(2, "x" * 1000))
    own_sink.wait_for_spans(1, id_of(2))
    assert sidecar.stop() == 0


def test_what_there_is_no_memory_for_waits_on_disk(own_sink: Sink, start: Start, spool: Path) -> None:
    flags = ("--export", own_sink.grpc, "--scorers", UNCERTAIN, "--root-grace", "0.2", "--spool", str(spool))
    first = start("-c", settings(spool, "memory: {soft: 1MiB, hard: 'off'}"), *flags)
    first.send(small_trace(1))
    first.wait_for_log("requests wait on disk")
    assert first.stop() == 1
    assert own_sink.raw == []
    assert rows_in(spool) == 1

    second = start(*flags)
    own_sink.wait_for_spans(SPANS, id_of(1))
    own_sink.wait_for_scores(1, id_of(1))
    assert second.stop() == 0


def _large(trace: int, padding: str) -> bytes:
    return make_request(make_span("large", trace=trace, span=1, attributes={"padding": padding}))


def test_a_full_disk_refuses_requests_and_lets_go_what_is_done_until_there_is_space(
    own_sink: Sink, start: Start, spool: Path
) -> None:
    sidecar = start("-c", settings(spool, ""), "--export", own_sink.grpc, "--spool", str(spool))
    padding = "x" * 100_000
    for trace in range(1, 4):
        sidecar.send(_large(trace, padding))
    own_sink.wait_for_spans(3, *map(id_of, range(1, 4)))
    wait_for_metric(sidecar, "otel_scorer_spool_requests", 0)
    size = max(each.stat().st_size for each in spool.iterdir() if each.name != "reserve")
    own_sink.tell("refuse")
    waiting = 10
    sidecar.send(_large(waiting, padding))

    _, hard = resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE, (size + 200_000, hard))
    answers = [sidecar.post(_large(trace, padding)) for trace in range(20, 40)]
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.status for answer in refused} == {503}
    assert all("retry-after" in answer.headers for answer in refused)
    own_sink.tell("take")
    own_sink.wait_for_spans(1, id_of(waiting))

    resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    sidecar.send(_large(50, padding))
    own_sink.wait_for_spans(1, id_of(50))
    taken = [id_of(trace) for trace, answer in zip(range(20, 40), answers, strict=True) if answer.status == 200]
    own_sink.wait_for(lambda: {span.trace_id for span in own_sink.raw_of(*taken)} == set(taken))
    wait_for_metric(sidecar, "otel_scorer_spool_requests", 0)
    assert sidecar.stop() == 0


def test_logs_and_metrics_are_written_down_too(own_sink: Sink, start: Start, spool: Path) -> None:
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "hello"
    metrics = ExportMetricsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add().as_int = 1
    own_sink.tell("refuse")
    flags = ("--export", own_sink.grpc, "--spool", str(spool))
    first = start(*flags)
    assert first.post(logs.SerializeToString(), "/v1/logs").status == 200
    assert first.post(metrics.SerializeToString(), "/v1/metrics").status == 200
    kill(first)

    own_sink.tell("take")
    second = start(*flags)

    own_sink.wait_for(lambda: own_sink.requests("logs") == [logs.SerializeToString()])
    own_sink.wait_for(lambda: own_sink.requests("metrics") == [metrics.SerializeToString()])
    assert second.stop() == 0


def test_a_scorer_that_has_answered_is_not_asked_again(own_sink: Sink, start: Start, spool: Path, gate: Gate) -> None:
    flags = ("--export", own_sink.grpc, "--scorers", UNCERTAIN, GATED, "--root-grace", "0.2", "--spool", str(spool))
    first = start(*flags, environment=gate.environment)
    first.send(small_trace(1))
    gate.wait_for_scorer()
    before = {score.name: score.explanation for score in own_sink.wait_for_scores(2, id_of(1))}
    assert before.keys() == {"uncertain", "quick"}
    kill(first)
    gate.open()

    second = start(*flags, environment=gate.environment)
    gate.wait_for_scorer()
    gate.open()
    own_sink.wait_for(lambda: "gated" in own_sink.score_names())
    assert second.stop() == 0
    said = {(score.name, score.explanation) for score in own_sink.scores_of(id_of(1))}
    assert sorted(name for name, _ in said) == ["gated", "quick", "uncertain"]


def test_a_trace_that_two_processes_have_closed_is_in_the_sample_of_a_scorer_or_not_once(
    own_sink: Sink, start: Start, spool: Path, gate: Gate
) -> None:
    scorers = f"scorers: ['{GATED}:gated', {{use: latency, sample_rate: 0}}]\ndrain_timeout: 1s\n"
    flags = ("-c", settings(spool, scorers), "--export", own_sink.grpc, "--spool", str(spool), "--root-grace", "0.2")
    first = start(*flags, environment=gate.environment)
    first.send(small_trace(1))
    assert gate.wait_for_scorer() == id_of(1).hex()
    before = first.ask("/metrics").body.decode()
    kill(first)

    second = start(*flags, environment=gate.environment)
    assert gate.wait_for_scorer() == id_of(1).hex()
    gate.open()

    own_sink.wait_for_scores(1, id_of(1))
    assert "scoring_decisions_total{" not in before
    for outcome, scorer in (("scored", "gated"), ("not_sampled", "latency")):
        wait_for_metric(second, f'otel_scorer_scoring_decisions_total{{outcome="{outcome}",scorer="{scorer}"}}', 1)
    assert second.stop() == 0


@pytest.mark.parametrize("forwarding", ["hold_root", "hold_trace"])
def test_what_comes_for_a_trace_that_has_left_without_its_verdicts_is_sent_after_a_kill(
    forwarding: str, own_sink: Sink, start: Start, spool: Path, gate: Gate
) -> None:
    config = settings(spool, "drain_timeout: 100s\nscoring: {timeout: 100s}\n")
    hold = ("--forwarding", forwarding, "--hold-deadline", "0.2")
    flags = ("-c", config, "--export", own_sink.grpc, "--scorers", GATED, "--spool", str(spool), *hold)
    first = start(*flags, "--root-grace", "0.2", environment=gate.environment)
    first.send(small_trace(1))
    gate.wait_for_scorer()
    own_sink.wait_for(lambda: len({span.span_id for span in own_sink.raw_of(id_of(1))}) == SPANS)
    kill(first)
    gate.open()

    # It is open again when the span comes, and closed at the end only.
    second = start(*flags, "--root-grace", "3600", environment=gate.environment)
    second.wait_for_log("The spool has 1 requests")
    second.send(make_request(make_span("late", trace=1, span=9)))
    second.terminate()
    gate.wait_for_scorer()
    gate.open()

    assert second.wait() == 0
    assert "late" in {span.name for span in own_sink.spans_of(id_of(1))}
    assert "gated" in own_sink.score_names()
    assert rows_in(spool) == 0


def test_late_spans_are_late_after_a_restart_too(own_sink: Sink, start: Start, spool: Path) -> None:
    flags = ("--export", own_sink.grpc, "--scorers", UNCERTAIN, "--root-grace", "0.2", "--spool", str(spool))
    first = start(*flags)
    first.send(small_trace(1))
    own_sink.wait_for_scores(1, id_of(1))
    kill(first)

    second = start(*flags)
    second.send(make_request(make_span("late", trace=1, span=9, parent=1)))
    own_sink.wait_for(lambda: any(span.name == "late" for span in own_sink.spans_of(id_of(1))))
    assert second.stop() == 0
    assert_judged_once(own_sink, [id_of(1)])


def test_a_second_sidecar_on_the_same_folder_does_not_start(own_sink: Sink, start: Start, spool: Path) -> None:
    first = start("--export", own_sink.grpc, "--spool", str(spool))

    second = subprocess.run(
        [sys.executable, "-m", "otel_scorer", "serve", "--grpc", "off", "--http", "127.0.0.1:0", "--spool", str(spool)],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert second.returncode == 2
    assert f"is used by another process ({first.process.pid})" in second.stderr
    first.send(small_trace(1))
    own_sink.wait_for_spans(SPANS, id_of(1))
    assert first.stop() == 0


def _damages() -> Iterator[tuple[str, Callable[[Path], None]]]:
    def truncate(path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)

    def overwrite(path: Path) -> None:
        path.write_bytes(b"this is no database" * 1000)

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)

    yield "cut short", truncate
    yield "something else", overwrite
    yield "one byte flipped", flip


@pytest.mark.parametrize("name", ["spool.db", "spool.db-wal"])
@pytest.mark.parametrize("damage", [damage for _, damage in _damages()], ids=[name for name, _ in _damages()])
def test_g6_a_damaged_file_keeps_nobody_from_starting_and_what_it_costs_is_counted(
    name: str, damage: Callable[[Path], None], own_sink: Sink, start: Start, spool: Path
) -> None:
    own_sink.tell("refuse")
    flags = ("-c", settings(spool, ""), "--export", own_sink.grpc, "--spool", str(spool))
    first = start(*flags)
    for trace in range(1, 101):
        first.send(small_trace(trace, children=20))
    kill(first)
    damage(spool / name)

    own_sink.tell("take")
    second = start(*flags)

    second.send(small_trace(1000))
    own_sink.wait_for_spans(SPANS, id_of(1000))
    counted = re.search(
        r'^otel_scorer_spool_damaged_total\{what="request"\} ([\d.]+)$',
        second.ask("/metrics").body.decode(),
        re.MULTILINE,
    )
    lost = 0 if counted is None else int(float(counted[1]))
    ids = [id_of(trace) for trace in range(1, 101)]
    own_sink.wait_for(lambda: len({span.trace_id for span in own_sink.raw_of(*ids)}) == 100 - lost)
    assert second.stop() == 0


def test_held_traces_that_nobody_scores_survive_a_kill(own_sink: Sink, start: Start, spool: Path) -> None:
    flags = ("--export", own_sink.grpc, "--forwarding", "hold_trace", "--spool", str(spool))
    ids = [id_of(trace) for trace in range(1, 21)]
    first = start(*flags, "--root-grace", "3600")
    for trace in range(1, 21):
        first.send(small_trace(trace))
    kill(first)

    second = start(*flags, "--root-grace", "0.2")

    own_sink.wait_for_spans(20 * SPANS, *ids)
    assert second.stop() == 0
    assert len(own_sink.raw_of(*ids)) == 20 * SPANS
    assert rows_in(spool) == 0


@pytest.mark.parametrize(
    ("forwarding", "scored"),
    [("passthrough", True), ("hold_trace", True), ("hold_trace", False)],
    ids=["passed on", "held and scored", "held"],
)
def test_who_has_taken_something_is_not_sent_it_again_because_another_has_not(
    forwarding: str, *, scored: bool, own_sink: Sink, start: Start, spool: Path, tmp_path: Path
) -> None:
    with closing(Sink()) as other:
        flags = ("--export", own_sink.grpc, "--export", other.grpc, "--spool", str(spool), "--forwarding", forwarding)
        flags += ("--root-grace", "0.2", *(("--scorers", UNCERTAIN) if scored else ()))
        ids = [id_of(trace) for trace in range(1, 11)]
        other.tell("refuse")
        first = start("-c", settings(spool, ""), *flags)
        for trace in range(1, 11):
            first.send(small_trace(trace))
        own_sink.wait_for_spans(10 * SPANS, *ids)
        if scored:
            own_sink.wait_for_scores(10, *ids)
        wait_until(lambda: is_all_taken(spool, tmp_path / "copy"))
        kill(first)

        other.tell("take")
        second = start("-c", settings(spool, ""), *flags)

        other.wait_for_spans(10 * SPANS, *ids)
        if scored:
            other.wait_for_scores(10, *ids)
        assert second.stop() == 0
        assert len(own_sink.raw_of(*ids)) == 10 * SPANS
        assert len(own_sink.scores_of(*ids)) == (10 if scored else 0)
        assert rows_in(spool) == taken_in(spool) == 0


def test_units_of_a_trace_are_taken_up_one_by_one(own_sink: Sink, start: Start, spool: Path) -> None:
    configuration = settings(spool, "assembly: {trigger: local_root, root_grace: 300ms}")
    flags = ("-c", configuration, "--export", own_sink.grpc, "--scorers", UNCERTAIN, "--spool", str(spool))
    calls = [make_span("call", trace=1, span=10 * n, parent=10 * n + 9, remote_parent=True) for n in range(1, 6)]
    inside = [make_span("inside", trace=1, span=10 * n + 1, parent=10 * n) for n in range(1, 6)]
    first = start(*flags)
    first.send(make_request(calls[0], inside[0], *inside[1:]))
    own_sink.wait_for_scores(1, id_of(1))
    kill(first)

    second = start(*flags)
    second.send(make_request(*calls[1:]))

    own_sink.wait_for(lambda: len({score.raw.span_id for score in own_sink.scores_of(id_of(1))}) == 5)
    assert second.stop() == 0
    said = {(score.raw.span_id, score.explanation, score.value) for score in own_sink.scores_of(id_of(1))}
    assert len(said) == 5
    assert {spans for _, _, spans in said} == {2}
    assert rows_in(spool) == 0


def test_scores_for_an_api_are_sent_again_as_they_were(own_sink: Sink, start: Start, spool: Path) -> None:
    with closing(ScoreServer()) as api:
        configuration = f"""
scorers: [{UNCERTAIN}]
emit: [native, logs]
assembly: {{root_grace: 200ms}}
exporters:
  otlp: {{endpoint: "{own_sink.grpc}"}}
  phoenix: {{endpoint: "{api.url}", retry_on_failure: {{initial_interval: 10ms, max_interval: 50ms}}}}
spool: {{directory: "{spool}"}}
"""
        api.answer = lambda call: Reply(503, {"detail": "away"})
        first = start("-c", settings(spool, configuration))
        first.send(small_trace(1))
        api.wait_for(lambda: bool(api.calls))
        kill(first)
        refused = len(api.calls)

        api.answer = lambda call: Reply(200, {"data": [{"id": "1"}]})
        second = start("-c", settings(spool, configuration))
        api.wait_for(lambda: len(api.calls) > refused)
        assert second.stop() == 0

        said = {score["result"]["explanation"] for call in api.calls for score in call.body["data"]}
        assert len(said) == 1
        own_sink.wait_for(lambda: bool(own_sink.requests("logs")))
        assert len(set(own_sink.requests("logs"))) == 1
        assert said.pop().encode() in own_sink.requests("logs")[0]
        assert rows_in(spool) == 0


def test_log_records_are_there_for_a_trace_that_is_scored_after_a_kill(
    own_sink: Sink, start: Start, spool: Path, tmp_path: Path
) -> None:
    scorer = tmp_path / "reads_logs.py"
    scorer.write_text(READS_LOGS, encoding="utf-8")
    flags = ("--export", own_sink.grpc, "--scorers", str(scorer), "--spool", str(spool))
    logs = ExportLogsServiceRequest()
    record = logs.resource_logs.add().scope_logs.add().log_records.add()
    record.trace_id, record.span_id = id_of(1), (1).to_bytes(8, "big")
    record.event_name = "gen_ai.client.inference.operation.details"
    said = '[{"role": "user", "parts": [{"type": "text", "content": "What is the weather?"}]}]'
    record.attributes.add(key="gen_ai.input.messages").value.string_value = said
    chat = make_span("chat", trace=1, span=1, attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"})
    first = start(*flags, "--root-grace", "3600")
    assert first.post(logs.SerializeToString(), "/v1/logs").status == 200
    first.send(make_request(chat))
    own_sink.wait_for(lambda: len(own_sink.requests("logs")) == 1)
    own_sink.wait_for_spans(1, id_of(1))
    kill(first)

    second = start(*flags, "--root-grace", "0.2")

    [score] = own_sink.wait_for_scores(1, id_of(1))
    assert second.stop() == 0
    assert "What is the weather?" in str(score.explanation)
    assert rows_in(spool) == 0


READS_LOGS = """
from otel_scorer import Feedback, scorer

@scorer
def reads_logs(trace):
    return Feedback(value=True, rationale=str(trace.root.inputs))
"""


def test_verdicts_that_were_counted_and_not_reported_are_counted_by_the_next_process(
    own_sink: Sink, start: Start, spool: Path
) -> None:
    configuration = "emit: [metrics]\nassembly: {root_grace: 200ms}\nscore_metrics: {interval: 1h}"
    flags = ("-c", settings(spool, configuration), "--export", own_sink.grpc, "--spool", str(spool))
    first = start(*flags, "--scorers", UNCERTAIN)
    for trace in range(1, 11):
        first.send(small_trace(trace))
    wait_for_metric(first, 'otel_scorer_scoring_decisions_total{outcome="scored",scorer="uncertain"}', 10)
    wait_for_metric(first, "otel_scorer_spool_requests", 0)
    kill(first)
    assert not own_sink.requests("metrics")

    second = start(*flags, "--scorers", UNCERTAIN)
    wait_for_metric(second, "otel_scorer_spool_backlog", 0)
    assert second.stop() == 0

    own_sink.wait_for(lambda: bool(own_sink.requests("metrics")))
    counted = [
        point.as_int
        for data in own_sink.requests("metrics")
        for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "otel_scorer.verdicts"
        for point in metric.sum.data_points
    ]
    assert counted == [10]
    assert rows_in(spool) == 0
