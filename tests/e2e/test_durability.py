"""
Full and read-only disks, restarts behind a client, the first process of a container, and a canary: nothing is lost.

`OTEL_SCORER_CANARY` says for how many seconds each canary sings (5 by default); `-s` shows what it wrote. Some sidecars
are killed meanwhile, once a minute.
"""

from __future__ import annotations

import inspect
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from tests.e2e.sidecar import SCORERS, Gate, Sidecar, id_of, small_trace
from tests.e2e.sink import WAIT, Score, Sink

from otel_scorer.model.wire import RawSpan, read_traces
from otel_scorer.pipeline.sidecar.engine import Engine
from otel_scorer.testing import make_request, make_span

UNCERTAIN = str(SCORERS / "uncertain.py")
GATED = str(SCORERS / "gated.py")
CANARY = float(os.environ.get("OTEL_SCORER_CANARY", "5"))
SPANS = 3  # of a small trace
# Seconds between the end of a sidecar and the start of the next one.
GAP = 5.0

Start = Callable[..., Sidecar]


def _mounted(folder: Path, *options: str) -> bool:
    mount = shutil.which("mount")
    return (
        mount is not None
        and subprocess.run([mount, *options, str(folder)], check=False, capture_output=True).returncode == 0
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 10 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mounted(folder, "-t", "tmpfs", "-o", "size=10m", "none"):
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run([shutil.which("umount") or "", "--lazy", str(folder)], check=True)


def large(trace: int) -> bytes:
    return make_request(make_span("large", trace=trace, span=1, attributes={"padding": "x" * 200_000}))


def test_g5_a_disk_that_is_full_refuses_until_what_is_done_has_made_room(
    own_sink: Sink, start: Start, small_disk: Path
) -> None:
    own_sink.tell("refuse")
    configuration = small_disk.with_name("sidecar.yaml")
    configuration.write_text(
        f"exporters: {{otlp: {{endpoint: '{own_sink.grpc}',"
        " retry_on_failure: {initial_interval: 50ms, max_interval: 100ms}}}\n"
    )
    sidecar = start("-c", str(configuration), "--spool", str(small_disk / "spool"))
    taken: list[int] = []
    refused: list[int] = []
    for trace in range(1, 100):
        answer = sidecar.post(large(trace))
        if answer.status == 200:
            taken.append(trace)
            continue
        refused.append(trace)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        if len(refused) == 3:
            break
    assert len(refused) == 3
    assert len(taken) >= 10

    own_sink.tell("take")
    own_sink.wait_for(lambda: {span.trace_id for span in own_sink.raw} == set(map(id_of, taken)))
    send_until_taken(sidecar, large(1000))
    own_sink.wait_for_spans(1, id_of(1000))
    assert sidecar.stop() == 0, sidecar.log
    assert not own_sink.raw_of(*map(id_of, refused))


def send_until_taken(sidecar: Sidecar, data: bytes) -> None:
    """As a client does that is told to come again."""
    over = threading.Event()
    timer = threading.Timer(WAIT, over.set)
    timer.start()
    try:
        while (answer := sidecar.post(data)).status != 200:
            assert answer.status == 503
            assert not over.wait(0.2)
    finally:
        timer.cancel()


def test_g9_a_disk_that_can_only_be_read_is_told_of_at_the_start(small_disk: Path) -> None:
    assert _mounted(small_disk, "-o", "remount,ro")

    ended = subprocess.run(
        [sys.executable, "-m", "otel_scorer", "serve", "--http", "127.0.0.1:0", "--spool", str(small_disk / "spool")],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )

    assert ended.returncode == 2
    assert "Read-only file system" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_g9_a_disk_that_takes_nothing_for_a_while_has_requests_refused_for_so_long(
    own_sink: Sink, start: Start, tmp_path: Path
) -> None:
    # A file system with files that are open for writing cannot become read-only: they may not grow instead.
    sidecar = start("--export", own_sink.grpc, "--scorers", UNCERTAIN, "--spool", str(tmp_path / "spool"))
    sidecar.send(small_trace(1))
    _, hard = resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE, (0, hard))

    answer = sidecar.post(large(2))

    assert answer.status == 503
    assert "retry-after" in answer.headers
    resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    send_until_taken(sidecar, large(2))
    own_sink.wait_for_spans(SPANS + 1, id_of(1), id_of(2))
    own_sink.wait_for_scores(2, id_of(1), id_of(2))
    assert sidecar.stop() == 0


def test_g2_what_cannot_be_scored_in_time_stays_and_is_counted(
    own_sink: Sink, start: Start, gate: Gate, tmp_path: Path
) -> None:
    configuration = tmp_path / "sidecar.yaml"
    configuration.write_text("drain_timeout: 2s\n")
    flags = ("--export", own_sink.grpc, "--scorers", GATED, "--root-grace", "0.1", "--spool", str(tmp_path / "spool"))
    first = start("-c", str(configuration), *flags, environment=gate.environment)
    for trace in range(1, 6):
        first.send(small_trace(trace))
    gate.wait_for_scorer()

    assert first.stop() == 1
    found = re.search(r"(\d+) requests that are not done, and 0 that are to be sent, stay", first.log)
    assert found is not None, first.log
    left = requests_in(tmp_path / "spool")
    assert int(found[1]) == left > 0
    gate.open()

    second = start(*flags, environment=gate.environment)
    for _ in range(left):
        gate.wait_for_scorer()
        gate.open()
    ids = [id_of(trace) for trace in range(1, 6)]
    own_sink.wait_for(lambda: {score.raw.trace_id for score in own_sink.scores_of(*ids)} == set(ids))
    assert second.stop() == 0
    assert requests_in(tmp_path / "spool") == 0


def requests_in(spool: Path) -> int:
    with closing(sqlite3.connect(spool / "spool.db")) as connection:
        [(requests,)] = connection.execute("SELECT count(*) FROM requests")
    return int(requests)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(("protocol", "is_killed"), [("grpc", False), ("http", True)], ids=["stopped", "killed"])
def test_g10_a_restart_behind_a_python_sdk_loses_nothing(
    protocol: str, *, is_killed: bool, own_sink: Sink, start: Start, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    flags = (f"--{protocol}", address, "--export", own_sink.grpc, "--scorers", UNCERTAIN, "--root-grace", "0.3")
    exporter: SpanExporter = (
        GrpcExporter(endpoint=f"http://{address}", insecure=True, timeout=WAIT)
        if protocol == "grpc"
        else HttpExporter(endpoint=f"http://{address}/v1/traces", timeout=WAIT)
    )
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=100, max_queue_size=100_000))
    tracer = provider.get_tracer("app")
    traces: set[bytes] = set()
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.02):
            with tracer.start_as_current_span("agent") as root:
                with tracer.start_as_current_span("tool"):
                    pass
                traces.add(root.get_span_context().trace_id.to_bytes(16, "big"))

    spool = ("--spool", str(tmp_path / "spool"))
    first = start(*flags, *spool)
    app = threading.Thread(target=work, daemon=True)
    app.start()
    own_sink.wait_for(lambda: len(own_sink.raw) > 10)
    if is_killed:
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(WAIT)
    else:
        assert first.stop() == 0
    threading.Event().wait(GAP)
    second = start(*flags, *spool)
    seen = len(own_sink.raw)
    own_sink.wait_for(lambda: len(own_sink.raw) > seen + 10)
    stopping.set()
    app.join(WAIT)
    provider.shutdown()

    own_sink.wait_for(
        lambda: len({(span.trace_id, span.span_id) for span in own_sink.raw_of(*traces)}) == 2 * len(traces)
    )
    assert second.stop() == 0
    scored = {score.raw.trace_id for score in own_sink.scores_of(*traces)}
    assert scored == traces


def test_g13_as_the_first_process_of_a_container_it_ends_on_sigterm(
    own_sink: Sink, start: Start, tmp_path: Path
) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("no processes of their own can be had here")
    sidecar = start(
        "--export", own_sink.grpc, "--scorers", UNCERTAIN, "--spool", str(tmp_path / "spool"), prefix=unshare
    )
    for trace in range(1, 6):
        sidecar.send(small_trace(trace))
    parent = sidecar.process.pid
    [first] = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
    status = Path(f"/proc/{first}/status").read_text(encoding="ascii")
    assert next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1] == "1"

    os.kill(int(first), signal.SIGTERM)

    assert sidecar.wait() == 0
    ids = [id_of(trace) for trace in range(1, 6)]
    own_sink.wait_for_spans(5 * SPANS, *ids)
    assert len(own_sink.wait_for_scores(5, *ids)) == 5


def test_g14_no_time_passes_for_open_traces_while_the_machine_sleeps() -> None:
    clock = inspect.signature(Engine).parameters["clock"].default

    assert clock is time.monotonic
    # Unlike CLOCK_BOOTTIME this one does not count what a machine sleeps.
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"


def test_g14_a_process_that_was_stopped_waits_for_what_was_sent_meanwhile(own_sink: Sink, start: Start) -> None:
    quiet = 20.0
    sidecar = start("--export", own_sink.grpc, "--scorers", UNCERTAIN, "--idle-timeout", str(quiet))
    traces = range(1, 301)
    ids = [id_of(trace) for trace in traces]
    rest = make_request(*(make_span("tool", trace=trace, span=3, parent=1) for trace in traces))
    sidecar.send(make_request(*(make_span("tool", trace=trace, span=2, parent=1) for trace in traces)))

    sidecar.process.send_signal(signal.SIGSTOP)
    sender = threading.Thread(target=sidecar.send, args=(rest,))
    sender.start()
    threading.Event().wait(quiet + 2)
    sidecar.process.send_signal(signal.SIGCONT)
    sender.join(WAIT)

    scores = own_sink.wait_for_scores(len(ids), *ids)
    assert sidecar.stop() == 0
    # Each trace was closed once, with what was sent while it was open and nobody read it.
    assert Counter(score.raw.trace_id for score in scores) == Counter(ids)
    assert {score.value for score in scores} == {2}
    assert {score.attributes["otel_scorer.close_reason"] for score in scores} == {"idle"}


class Canary:
    """
    Writes traces, each in two requests, and reads back what a backend has of them.

    Attributes:
        written: How many spans each trace has.
        spans: How often the backend was given each of them, by trace and span id.
        scores: All that was said about each trace, as it came.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._chance = random.Random(15)
        self._read = 0
        self.written: dict[bytes, int] = {}
        self.spans: Counter[tuple[bytes, bytes]] = Counter()
        self.scores: dict[bytes, list[RawSpan]] = {}

    def sing(self, sidecar: Sidecar, seconds: float) -> None:
        """Write for so long. The last trace is complete only when it goes on."""
        over = threading.Event()
        timer = threading.Timer(seconds, over.set)
        timer.start()
        while not over.wait(self._chance.uniform(0.0, 0.2)):
            for part in self._trace():
                sidecar.send(part)
        timer.cancel()

    def sing_until_killed(self, sidecar: Sidecar, seconds: float, revive: Callable[[], Sidecar]) -> Sidecar:
        """Write for so long; then the sidecar is killed in the middle of a trace, and the next one gets its rest."""
        self.sing(sidecar, seconds)
        *first, last = self._trace()
        for part in first:
            sidecar.send(part)
        sidecar.process.kill()
        sidecar.wait()
        revived = revive()
        revived.send(last)
        return revived

    def _trace(self) -> Iterator[bytes]:
        trace = len(self.written) + 1
        children = self._chance.randrange(6)
        spans = [make_span("tool", trace=trace, span=number + 2, parent=1, end=0.5) for number in range(children)]
        spans.append(make_span("agent", trace=trace, span=1))
        self._chance.shuffle(spans)
        self.written[id_of(trace)] = len(spans)
        cut = self._chance.randrange(len(spans))
        return (make_request(*part) for part in (spans[:cut], spans[cut:]) if part)

    def has_all(self) -> bool:
        """Tell whether each trace is there with a score; what was read once is not read again."""
        requests = self._sink.requests()
        for data in requests[self._read :]:
            for span in read_traces(data).spans:
                if span.scope.is_own:
                    self.scores.setdefault(span.trace_id, []).append(span)
                else:
                    self.spans[span.trace_id, span.span_id] += 1
        self._read = len(requests)
        return len(self.spans) >= sum(self.written.values()) and len(self.scores) >= len(self.written)


@pytest.mark.timeout(300 + 3 * CANARY)
@pytest.mark.parametrize("kills", [0, max(1, round(CANARY / 60))], ids=["unharmed", "killed"])
@pytest.mark.parametrize("forwarding", ["passthrough", "hold_trace"])
def test_g15_every_trace_of_a_canary_is_there_with_exactly_one_score(
    forwarding: str, kills: int, own_sink: Sink, start: Start, tmp_path: Path
) -> None:
    flags = ("--export", own_sink.grpc, "--scorers", UNCERTAIN, "--root-grace", "3", "--forwarding", forwarding)

    def revive() -> Sidecar:
        return start(*flags, "--spool", str(tmp_path / "spool"))

    canary = Canary(own_sink)
    sidecar = revive()
    for _ in range(kills):
        sidecar = canary.sing_until_killed(sidecar, CANARY / (kills + 1), revive)
    canary.sing(sidecar, CANARY / (kills + 1))

    own_sink.wait_for(canary.has_all)
    assert sidecar.stop() == 0
    assert canary.has_all()
    assert Counter(trace for trace, _ in canary.spans) == canary.written
    if not kills:
        assert set(canary.spans.values()) == {1}
        assert {len(scores) for scores in canary.scores.values()} == {1}
    # What was on its way at a kill comes once more, in the same bytes.
    assert {trace: len({score.data for score in scores}) for trace, scores in canary.scores.items()} == dict.fromkeys(
        canary.written, 1
    )
    assert {trace: Score(scores[0]).value for trace, scores in canary.scores.items()} == canary.written
    twice = sum(canary.spans.values()) - len(canary.spans)
    print(f"{len(canary.written)} traces, {len(canary.spans)} spans, {twice} of them twice, {kills} kills")  # noqa: T201
