"""Servers and applications that tests start, and what their backend got."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.otlp_sink import Sink

WAIT = 30.0
_STEP = 0.05


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool]) -> bool:
    """Look again and again until something holds, or the time is up."""
    deadline = time.monotonic() + WAIT
    while not (found := holds()) and time.monotonic() < deadline:
        threading.Event().wait(_STEP)
    return found


def bin_of(program: str) -> str:
    return str(Path(sys.executable).parent / program)


class Server:
    """A server in processes of its own, which answers on a port of loopback."""

    def __init__(self, command: Sequence[str], folder: Path, port: int | None = None, **env: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        self._log = folder / "server.log"
        self._port = port
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env={**kept, **env}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str = "/") -> str:
        """Ask until it answers; it may be starting."""
        answers: list[str] = []

        def asked() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=WAIT) as answer:
                    answers.append(answer.read().decode())
            except OSError:
                assert self._process.poll() is None, self.log
                return False
            return True

        assert until(asked), self.log
        return answers[0]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(WAIT)

    def close(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(WAIT)


def attributes_of(sink: Sink, name: str) -> list[dict[str, Any]]:
    """Return the attributes of the spans of a name."""
    return [
        {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in span.attributes}
        for span in sink.spans
        if span.name == name
    ]
