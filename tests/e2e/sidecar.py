"""`otel-scorer serve` as a process, and what a test sends to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from tests.e2e.sink import WAIT

from otel_scorer.testing import make_request, make_span

SCORERS = Path(__file__).parent / "scorers"


class Answer(NamedTuple):
    """What the sidecar answered to an HTTP request."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Sidecar:
    """
    A sidecar that listens on free ports. Traces with a root close after `root_grace` seconds.

    Attributes:
        grpc: `host:port` of OTLP/gRPC.
        http: URL of OTLP/HTTP, without path.
        status: URL of the status page, without path; None if there is none.
        log: What it wrote to standard error so far.
    """

    def __init__(
        self,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        command = [*prefix, sys.executable, "-m", "otel_scorer", "serve"]
        if "--grpc" not in flags:
            command += ["--grpc", "127.0.0.1:0"]
        if "--http" not in flags:
            command += ["--http", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._lines: list[str] = []
        self._changed = threading.Condition()  # guards the lines of the log
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        ready = self.process.stdout.readline()
        if not ready.startswith("ready"):
            self._reader.join(WAIT)
            raise RuntimeError(self.log)
        bound = dict(part.split("=", 1) for part in ready.split()[1:])
        self.grpc = bound["grpc"]
        self.http = f"http://{bound.get('http', '')}"
        self.status = f"http://{bound['status']}" if "status" in bound else None

    @property
    def log(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def wait_for_log(self, text: str, timeout: float = WAIT) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in "".join(self._lines), timeout), "".join(self._lines)

    def wait_for_log_times(self, text: str, times: int) -> None:
        with self._changed:
            found = self._changed.wait_for(lambda: "".join(self._lines).count(text) >= times, WAIT)
            assert found, "".join(self._lines)

    def post(
        self,
        body: bytes,
        path: str = "/v1/traces",
        *,
        content_type: str = "application/x-protobuf",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        request = urllib.request.Request(  # noqa: S310 - our own loopback server
            self.http + path, body, {"Content-Type": content_type, **(headers or {})}
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:  # noqa: S310
                return Answer(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), dict(error.headers))

    def ask(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask the sidecar about itself."""
        assert self.status is not None, self.log
        request = urllib.request.Request(self.status + path, headers=dict(headers or {}))  # noqa: S310 - our own loopback server
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:  # noqa: S310
                return Answer(answer.status, answer.read(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read(), dict(error.headers))

    def send(self, data: bytes) -> None:
        answer = self.post(data)
        assert answer.status == 200, answer
        assert answer.body == b"", answer

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = WAIT) -> int:
        return self.process.wait(timeout)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.terminate()
        code = self.wait()
        self._reader.join(WAIT)
        return code

    def close(self) -> None:
        """End it, however it is; for fixtures."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(WAIT)
        self._reader.join(WAIT)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()


def method_of(channel: grpc.Channel) -> Callable[..., bytes]:
    """Return the call that sends an encoded traces request."""
    bare: Any = channel.unary_unary
    method: Callable[..., bytes] = bare("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
    return method


class Gate:
    """
    Where scorers of `scorers/gated.py` wait until the test lets them go on.

    Their environment needs `Gate.environment`.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT)
        self._held: list[socket.socket] = []

    @property
    def environment(self) -> dict[str, str]:
        host, port = self._listener.getsockname()
        return {"GATE": f"{host}:{port}"}

    def wait_for_scorer(self) -> str:
        """Wait until a scorer is at the gate and return its trace id."""
        connection, _ = self._listener.accept()
        connection.settimeout(WAIT)
        self._held.append(connection)
        return connection.recv(32, socket.MSG_WAITALL).decode()

    def open(self) -> None:
        """Let go all that wait."""
        for connection in self._held:
            connection.close()
        self._held.clear()

    def close(self) -> None:
        self.open()
        self._listener.close()


class Traces:
    """Makes traces with ids of their own, so that tests can share a sidecar."""

    def __init__(self, seed: int) -> None:
        self._next = seed << 64

    def new(self) -> int:
        self._next += 1
        return self._next


def id_of(trace: int) -> bytes:
    return trace.to_bytes(16, "big")


def small_trace(trace: int, *, children: int = 2, service: str = "app") -> bytes:
    """Return a request with a whole trace: a root, span 1, and its children, spans 2 and up."""
    return make_request(
        *(make_span("tool", trace=trace, span=number + 2, parent=1, end=0.5) for number in range(children)),
        make_span("agent", trace=trace, span=1),
        service=service,
    )
