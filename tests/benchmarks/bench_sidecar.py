"""
The sidecar between a real client and a real backend, beside a bare relay and a Collector, in turns in one run.

CPU is that of all processes of a server, workers included, from the first request until its backend has every span and
every verdict; that each came exactly once is checked. Delay is from the answer to the request with a trace's last span
until its last verdict (without scorers: its last span) is at the backend, less the second that everybody waits.

Run it as a program for more rounds, more traces or a steady rate. `OTEL_SCORER_OTELCOL` is a Collector; one that was
built with `groupbytrace` and `tail_sampling` takes part.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.benchmarks.agent_traces import SPANS_PER_TRACE, Batch, make_batches
from tests.benchmarks.bare_relay import EXPORT, UNLIMITED
from tests.e2e.collector import free_address
from tests.e2e.sink import WAIT, Sink
from tests.e2e.sink_process import FRAME

from otel_scorer.model.wire import RawSpan, read_traces

HOLD = 1.0
"""Seconds that everybody waits for the rest of a trace."""

IN_FLIGHT = 4
WARM_UP = 512  # traces
SCORERS = ("tool_errors", "redundant_tool_calls", "latency")
HERE = Path(__file__).parent
SERVE = [sys.executable, "-m", "otel_scorer", "serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]
HELD = ["--forwarding", "hold_trace", "--root-grace", str(HOLD)]


@dataclass(frozen=True, slots=True)
class Server:
    """
    Something that stands between client and backend.

    Attributes:
        start: Starts it, given the backend's `host:port`; returns the process and where it listens.
        verdicts: How many it adds to each trace.
        holds: Whether it forwards nothing before `HOLD` is over.
    """

    start: Callable[[str], tuple[subprocess.Popen[str], str]]
    verdicts: int = 0
    holds: bool = True


@dataclass(slots=True)
class Measured:
    """Figures of one server, one of each round."""

    spans_per_cpu_second: list[float] = field(default_factory=list[float])
    megabytes: list[float] = field(default_factory=list[float])
    delays: list[float] = field(default_factory=list[float])


def announced(*command: str) -> Callable[[str], tuple[subprocess.Popen[str], str]]:
    """Start a program that prints `ready grpc=ADDRESS`; `{sink}` in its arguments is the backend."""

    def start(sink: str) -> tuple[subprocess.Popen[str], str]:
        arguments = [argument.replace("{sink}", sink) for argument in command]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        bound = dict(part.split("=", 1) for part in process.stdout.readline().split()[1:])
        return process, bound["grpc"]

    return start


def collector(program: str, processor: str, settings: str) -> Callable[[str], tuple[subprocess.Popen[str], str]]:
    """Start a Collector with one processor."""

    def start(sink: str) -> tuple[subprocess.Popen[str], str]:
        address = free_address()
        text = (HERE / "collector.yaml").read_text(encoding="utf-8")
        for place, value in {"PROCESSOR": processor, "SETTINGS": settings, "BACKEND": sink, "ADDRESS": address}.items():
            text = text.replace(place, value)
        process = subprocess.Popen([program, "--config", f"yaml:{text}"], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if "Everything is ready" in line:
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        return process, address

    return start


def spooled(folder: Path, *command: str) -> Callable[[str], tuple[subprocess.Popen[str], str]]:
    """Start a sidecar with a new spool in a folder."""

    def start(sink: str) -> tuple[subprocess.Popen[str], str]:
        spool = tempfile.mkdtemp(dir=folder)
        return announced(*command, "--spool", spool)(sink)

    return start


def servers(spools: Path | None = None) -> dict[str, Server]:
    """Return what is compared, as far as it is installed; sidecars with a spool too, if there is a folder for it."""
    relay = announced(sys.executable, str(HERE / "bare_relay.py"), "{sink}")
    to_sink = ["--export", "http://{sink}"]
    found = {
        "bare relay": Server(relay, holds=False),
        "passthrough": Server(announced(*SERVE, *to_sink), holds=False),
        "hold_trace": Server(announced(*SERVE, *to_sink, *HELD)),
        "hold_trace, 3 scorers": Server(announced(*SERVE, *to_sink, *HELD, "--scorers", *SCORERS), len(SCORERS)),
    }
    if spools is not None:
        for name, flags in (("passthrough", ()), ("hold_trace", HELD), ("3 scorers", (*HELD, "--scorers", *SCORERS))):
            like = found["hold_trace, 3 scorers" if name == "3 scorers" else name]
            start = spooled(spools, *SERVE, *to_sink, *flags)
            found[f"{name}, spool"] = Server(start, like.verdicts, holds=like.holds)
    program = os.environ.get("OTEL_SCORER_OTELCOL", "")
    if program:
        parts = subprocess.run([program, "components"], capture_output=True, text=True, check=True).stdout
        if "groupbytrace" in parts:
            settings = f"wait_duration: {HOLD}s, num_traces: 1000000"
            found["Collector groupbytrace"] = Server(collector(program, "groupbytrace", settings))
        if "tail_sampling" in parts:
            settings = f"decision_wait: {HOLD}s, num_traces: 1000000, policies: [{{name: all, type: always_sample}}]"
            found["Collector tail_sampling"] = Server(collector(program, "tail_sampling", settings))
    return found


def processes(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="ascii").split():
            found += processes(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    ticks = 0
    for each in processes(pid):
        parts = Path(f"/proc/{each}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(parts[11]) + int(parts[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_megabytes(pid: int) -> float:
    sizes = [Path(f"/proc/{each}/status").read_text(encoding="ascii") for each in processes(pid)]
    return sum(int(size.partition("VmHWM:")[2].split()[0]) for size in sizes) / 1024


class Backend(Sink):
    """A sink that notes which spans came, how often and when."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, list[RawSpan]]] = []
        self._count = 0
        super().__init__()

    def wait_for_spans_in_all(self, number: int) -> None:
        """Wait until so many have come since the last call."""
        self.wait_for(lambda: self._count >= number)
        self._count = 0

    def _read(self) -> None:
        while header := self._output.read(FRAME.size):
            data = self._output.read(FRAME.unpack(header)[1])
            now, spans = time.monotonic(), read_traces(data).spans
            with self._changed:
                self.arrivals.append((now, spans))
                self._count += len(spans)
                self._changed.notify_all()


def send(address: str, batches: Sequence[Batch], rate: float) -> dict[bytes, float]:
    """Send requests, some at the same time; return when the last span of each trace was taken."""
    ended: dict[bytes, float] = {}
    channel: Any = grpc.insecure_channel(address, options=UNLIMITED)
    export = channel.unary_unary(EXPORT)
    begun, pause = time.monotonic(), threading.Event()
    due = 0.0
    turns: list[tuple[Batch, float]] = []
    for batch in batches:
        turns.append((batch, begun + due))
        due += batch.spans / rate if rate else 0.0

    def deliver(turn: tuple[Batch, float]) -> None:
        batch, at = turn
        if (early := at - time.monotonic()) > 0:
            pause.wait(early)
        export(batch.data, timeout=WAIT)
        ended.update(dict.fromkeys(batch.ended, time.monotonic()))

    with channel, ThreadPoolExecutor(IN_FLIGHT) as senders:
        list(senders.map(deliver, turns))
    return ended


def measure(server: Server, traces: int, rate: float) -> tuple[float, float, float]:
    """Return spans per CPU second, the peak of megabytes, and the 99th percentile of delays in seconds."""
    warm_up, batches = make_batches(WARM_UP, seed=1), make_batches(traces, seed=2)
    sent = sum(batch.spans for batch in batches)
    each = SPANS_PER_TRACE + server.verdicts
    backend = Backend()
    process, address = server.start(backend.grpc.removeprefix("http://"))
    with process:
        try:
            send(address, warm_up, 0)
            backend.wait_for_spans_in_all(WARM_UP * each)
            before = cpu_seconds(process.pid)
            ended = send(address, batches, rate)
            backend.wait_for_spans_in_all(sent // SPANS_PER_TRACE * each)
            seconds = cpu_seconds(process.pid) - before
            megabytes = peak_megabytes(process.pid)
        finally:
            process.terminate()
            process.wait(WAIT)
            backend.close()
    delays = check(backend, ended, server)
    return sent / seconds, megabytes, statistics.quantiles(delays, n=100)[98]


def check(backend: Backend, ended: Mapping[bytes, float], server: Server) -> list[float]:
    """Return how long each trace took after its last span, having made sure that all of it came exactly once."""
    complete: dict[bytes, float] = {}
    spans: Counter[tuple[bytes, bytes]] = Counter()
    verdicts: Counter[bytes] = Counter()
    for at, arrived in backend.arrivals:
        for span in arrived:
            if span.trace_id not in ended:
                continue
            spans[span.trace_id, span.span_id] += 1
            verdicts[span.trace_id] += span.is_own
            if span.is_own or not server.verdicts:
                complete[span.trace_id] = at
    assert len(spans) == spans.total() == len(ended) * (SPANS_PER_TRACE + server.verdicts), "not each exactly once"
    assert all(verdicts[trace_id] == server.verdicts for trace_id in ended), "verdicts are missing"
    waited = HOLD if server.holds else 0.0
    return [complete[trace_id] - at - waited for trace_id, at in ended.items()]


def compare(rounds: int, traces: int, rate: float, spools: Path | None = None) -> dict[str, Measured]:
    """Measure all in turns, so that what else the machine does meets each of them."""
    found = {name: Measured() for name in servers(spools)}
    for _ in range(rounds):
        for name, server in servers(spools).items():
            speed, megabytes, delay = measure(server, traces, rate)
            found[name].spans_per_cpu_second.append(speed)
            found[name].megabytes.append(megabytes)
            found[name].delays.append(delay)
    return found


def table(found: Mapping[str, Measured]) -> str:
    """Return medians, and ratios to the bare relay."""
    bare = statistics.median(found["bare relay"].spans_per_cpu_second)
    lines = [f"{'':26}{'spans/CPU s':>12}{'ratio':>7}{'us/span':>9}{'peak MB':>9}{'delay p99, ms':>15}"]
    for name, measured in found.items():
        speed = statistics.median(measured.spans_per_cpu_second)
        delay = statistics.median(measured.delays) * 1000
        peak = max(measured.megabytes)
        lines.append(f"{name:26}{speed:>12,.0f}{speed / bare:>7.2f}{1e6 / speed:>9.2f}{peak:>9.0f}{delay:>15.0f}")
    return "\n".join(lines)


def bench_the_sidecar_beside_others(capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(rounds=1, traces=5_000, rate=0)

    with capsys.disabled():
        print("\n" + table(found))


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--traces", type=int, default=20_000, help="of 8 spans each")
    arguments.add_argument("--rate", type=float, default=0, help="spans a second; 0: as fast as answers come")
    arguments.add_argument("--spool", type=Path, metavar="DIR", help="measure sidecars with a spool in there, too")
    chosen = arguments.parse_args()
    with nullcontext() if chosen.spool is None else tempfile.TemporaryDirectory(dir=chosen.spool) as folder:
        print(table(compare(chosen.rounds, chosen.traces, chosen.rate, None if folder is None else Path(folder))))


if __name__ == "__main__":
    main()
