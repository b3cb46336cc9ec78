"""The demo's sidecar: `otel-scorer serve` as a process of its own, as anybody would run it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from otel_scorer.errors import OtelScorerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["SERVE", "Sidecar", "SidecarError", "settings"]

SERVE: Final = (sys.executable, "-P", "-m", "otel_scorer", "serve")
"""The command; `-c FILE` is added. The current folder stays off its path: it is the otel_scorer that runs here."""

_READY: Final = re.compile(r"^ready\b.*?(127\.0\.0\.1:\d+)")
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_SHOWN_LINES: Final = 8
_KEPT_LINES: Final = 1000


class SidecarError(OtelScorerError):
    """The sidecar does not run."""


def settings(backend: str, scorers: Sequence[str], root_grace: float) -> dict[str, Any]:
    """
    Return the sidecar's configuration.

    Args:
        backend: `host:port` that gets spans and verdicts over OTLP/gRPC.
        scorers: References.
        root_grace: Seconds of quiet after which a trace with a root is scored.
    """
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "127.0.0.1:0"}, "http": {"endpoint": "off"}}}},
        "assembly": {"root_grace": root_grace},
        "scorers": list(scorers),
        "exporters": {"otlp": {"endpoint": f"http://{backend}", "protocol": "grpc"}},
        "telemetry": {"status_page": "off", "log_level": "warning"},
    }


class Sidecar:
    """
    A running sidecar, as a context manager: leaving it stops the process.

    Args:
        configuration: What `settings` returned.
        command: Instead of `SERVE`.
        start_timeout: Seconds to wait until it accepts.
        stop_timeout: Seconds to let it drain before it is killed.
    """

    def __init__(
        self,
        configuration: dict[str, Any],
        *,
        command: Sequence[str] = SERVE,
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self._configuration = configuration
        self._command = command
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._folder = tempfile.TemporaryDirectory(prefix="otel-scorer-demo-")
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        """`host:port` that takes OTLP/gRPC, once it runs."""

    def __enter__(self) -> Self:
        """
        Start the process and wait until it accepts.

        Raises:
            SidecarError: It ended or said nothing in time; the message holds what it wrote.
        """
        try:
            self.address = self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the process."""
        self._stop()

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def complaint(self) -> str:
        """Return the last lines of what it wrote to standard error."""
        try:
            written = self._errors.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join([line for line in written.splitlines() if line.strip()][-_SHOWN_LINES:])

    @property
    def _errors(self) -> Path:
        return Path(self._folder.name) / "stderr.txt"

    def _start(self) -> str:
        # JSON is YAML.
        file = Path(self._folder.name) / "sidecar.yaml"
        file.write_text(json.dumps(self._configuration), encoding="utf-8")
        lines: queue.Queue[str | None] = queue.Queue(_KEPT_LINES)
        with self._errors.open("wb") as errors:
            try:
                # A session of its own: Ctrl-C reaches the demo alone, which then stops it in order.
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    [*self._command, "-c", str(file)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    encoding="utf-8",
                    errors="replace",
                    env=_environment(),
                    start_new_session=True,
                )
            except OSError as error:
                raise SidecarError(f"The sidecar cannot be started: {error}") from error
        threading.Thread(target=_pump, args=(self._process, lines), name="otel-scorer-demo-stdout", daemon=True).start()
        return self._wait_until_ready(lines)

    def _wait_until_ready(self, lines: queue.Queue[str | None]) -> str:
        deadline = time.monotonic() + self._start_timeout
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise SidecarError(self._failure(f"was not ready after {self._start_timeout:g} s")) from None
            if line is None:
                raise SidecarError(self._failure("ended before it was ready"))
            found = _READY.match(line)
            if found:
                return found[1]

    def _failure(self, what: str) -> str:
        said = self.complaint()
        return f"The sidecar {what}" + (f". It said:\n{said}" if said else " and said nothing")

    def _stop(self) -> None:
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(self._stop_timeout)
            except subprocess.TimeoutExpired:
                # It leads a process group: its workers go with it.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._folder.cleanup()


def _environment() -> dict[str, str]:
    """Return the environment of this process, with what the sidecar needs."""
    environment = {**os.environ}  # noqa: TID251 - handed on, and read for nothing else
    # gRPC sends even loopback traffic through a proxy that the environment names.
    environment["no_grpc_proxy"] = "127.0.0.1"
    home = Path(__file__).parents[2]
    if home.name not in _INSTALLED:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(home), environment.get("PYTHONPATH")]))
    return environment


def _pump(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Hand on what the process prints, so that it never waits for a full pipe; None at the end."""
    if process.stdout is not None:
        with process.stdout:
            for line in process.stdout:
                _offer(lines, line)
    _offer(lines, None)


def _offer(lines: queue.Queue[str | None], line: str | None) -> None:
    # Only the first lines are read.
    with contextlib.suppress(queue.Full):
        lines.put_nowait(line)
