"""
`otel-scorer demo`: an agent, the sidecar and a backend on loopback; verdicts appear as the backend receives them.

The sidecar is `otel-scorer serve` in a process of its own, the agent's spans travel over real OTLP, and everything on
the screen is read from what arrived.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from rich.console import Console

from otel_scorer.demo.agent import AgentThread
from otel_scorer.demo.backend import Backend, ReceivedTraces, verdict_of
from otel_scorer.demo.screen import Screen
from otel_scorer.demo.sidecar import SERVE, Sidecar, SidecarError, settings
from otel_scorer.demo.tally import Tally
from otel_scorer.errors import ConfigError, OtelScorerError
from otel_scorer.model.otlp_json import encode_request
from otel_scorer.model.wire import Signal

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from otel_scorer.model.trace import Trace

__all__ = ["run"]

SCORERS: Final = ("tool_errors", "redundant_tool_calls", "latency", "otel_scorer.demo.scorers")
"""What the sidecar is given: three built-ins by name, and the module with the demo's two."""
_VERDICTS: Final = 5
_ROOT_GRACE: Final = 0.4
_POLL: Final = 0.1
# After the agent's last span: the grace, and a busy machine.
_PATIENCE: Final = 15.0
_SHUTDOWN: Final = 3.0
_INTERRUPTED: Final = 130


def run(traces: int, out: Path | None, *, command: Sequence[str] = SERVE) -> int:
    """
    Run the demo to its end.

    Args:
        traces: How many questions the agent answers.
        out: File that gets everything the backend received, one OTLP/JSON request a line.
        command: How the sidecar is started.

    Returns:
        Exit code: 0; 1 if the sidecar did not run or verdicts are missing; 130 after Ctrl-C.

    Raises:
        ConfigError: `out` cannot be written.
    """
    if callable(reconfigure := getattr(sys.stdout, "reconfigure", None)):
        # A terminal that cannot show a character gets another one, not a traceback.
        reconfigure(errors="replace")
    console = Console(highlight=False)
    screen = Screen(console)
    with _opened(out) as file, _terminating():
        try:
            missing = _Demo(console, screen, file).run(traces, command)
        except OtelScorerError as error:
            screen.print_problem(str(error))
            return 1
        except KeyboardInterrupt:
            screen.print_problem("Interrupted; everything that the demo started has been stopped")
            return _INTERRUPTED
    if missing:
        return 1
    screen.print_next(_next_steps(out))
    return 0


class _Demo:
    """One run."""

    def __init__(self, console: Console, screen: Screen, file: TextIO | None) -> None:
        self._console = console
        self._screen = screen
        self._file = file
        self._backend = Backend()
        self._received = ReceivedTraces(_VERDICTS)
        self._tally = Tally()
        self._scored = 0

    def run(self, traces: int, command: Sequence[str]) -> int:
        """Run until every trace was shown, and return how many are not whole."""
        backend = self._backend.start()
        complaint = ""
        try:
            with Sidecar(settings(backend, SCORERS, _ROOT_GRACE), command=command) as sidecar:
                self._screen.print_introduction(sidecar.address, backend)
                agent = AgentThread(sidecar.address, traces)
                agent.start()
                try:
                    self._watch(agent, sidecar, traces)
                finally:
                    agent.shutdown(_SHUTDOWN)
                complaint = sidecar.complaint()
        finally:
            self._backend.shutdown()
            self._receive(0.0)
        for trace in self._received.rest():
            self._show(trace)
        missing = traces - self._received.whole
        if missing:
            said = f" The sidecar said:\n{complaint}" if complaint else ""
            self._screen.print_problem(
                f"{missing} of {traces} traces did not get all {_VERDICTS} verdicts within {_PATIENCE:g} s.{said}"
            )
        if self._scored:
            self._screen.print_totals(self._tally, self._scored)
        return missing

    def _watch(self, agent: AgentThread, sidecar: Sidecar, traces: int) -> None:
        """Show what arrives until all is there, or nothing more can be expected."""
        deadline = math.inf
        # The moving line is for people; rich leaves it out where nobody looks.
        with self._console.status("") as status:
            while self._received.whole < traces and time.monotonic() < deadline:
                self._receive(_POLL)
                status.update(f"[dim]{self._received.span_count} spans received, traces open: {len(self._received)}[/]")
                if not sidecar.is_running:
                    raise SidecarError(f"The sidecar ended while it was needed. It said:\n{sidecar.complaint()}")
                if agent.has_finished and deadline == math.inf:
                    deadline = time.monotonic() + _PATIENCE

    def _receive(self, timeout: float) -> None:
        for data in self._backend.take(timeout):
            self._write(data)
            for trace in self._received.add(data):
                self._show(trace)

    def _write(self, data: bytes) -> None:
        """Write a request down at once, so that the file holds what came in even if the demo is interrupted."""
        if self._file is None:
            return
        try:
            self._file.write(encode_request(Signal.TRACES, data) + "\n")
            self._file.flush()
        except OSError as error:
            raise OtelScorerError(f"Cannot write {self._file.name}: {error.strerror}") from error

    def _show(self, trace: Trace) -> None:
        self._screen.print_trace(trace)
        self._scored += bool(trace.own_spans)
        for span in trace.own_spans:
            self._tally.add(verdict_of(span))


@contextlib.contextmanager
def _opened(out: Path | None) -> Generator[TextIO | None]:
    if out is None:
        yield None
        return
    try:
        file = out.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise ConfigError(f"Cannot write {out}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def _terminating() -> Generator[None]:
    """Let SIGTERM and a closed terminal end the demo as Ctrl-C does: what it started must not outlive it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _next_steps(out: Path | None) -> list[tuple[str, str]]:
    program = _program()
    file = shlex.quote(str(out or "demo.jsonl"))
    keep = [] if out else [(f"{program} demo --out {file}", "Keep everything that the backend receives:")]
    return [
        *keep,
        (f"{program} inspect {file}", "See what otel_scorer understands of these traces:"),
        (f"{program} score {file} --scorers otel_scorer.demo.scorers tool_errors", "Score them again, from the file:"),
        (
            f"{program} serve --scorers tool_errors latency --export console",
            "Score your own app: run this, and point its OTEL_EXPORTER_OTLP_ENDPOINT at http://127.0.0.1:4317",
        ),
    ]


def _program() -> str:
    """Return how this otel-scorer is called from here."""
    script = Path(sys.executable).with_name("otel-scorer")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m otel_scorer"
    found = shutil.which("otel-scorer")
    if found is not None and Path(found).resolve() == script.resolve():
        return "otel-scorer"
    with contextlib.suppress(ValueError):
        script = script.relative_to(Path.cwd())
    return shlex.quote(str(script))
