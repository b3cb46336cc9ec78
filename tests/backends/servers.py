"""Servers of other makers as processes, with what they keep in a folder, and how they are asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

# The first start of a server makes its database, on a machine that may have other things to do.
START = 180.0
STOP = 20.0
WAIT = 120.0


def installed(name: str) -> str:
    """Return where a server is; a test that needs one that is not installed is skipped."""
    if name in {"jaeger", "tempo"}:
        variable = f"OTEL_SCORER_{name.upper()}"
        program = os.environ.get(variable) or shutil.which(name)
        hint = f"{variable}: the program `{name}`, version 2"
    else:
        folder = os.environ.get("OTEL_SCORER_SERVERS")
        program = None if folder is None else shutil.which(name, path=str(Path(folder) / name / "bin"))
        hint = f"OTEL_SCORER_SERVERS: a folder with an environment {name}, requirements/server-{name}.txt in it"
    if program is None:
        pytest.skip(f"{name} is not installed; needs {hint}")
    return program


def wait_until(ask: Callable[[], T], enough: Callable[[T], bool]) -> T:
    """Ask a backend until it says what is wanted: it has no way to tell us. Return what it said."""
    deadline, pause = time.monotonic() + WAIT, threading.Event()
    while not enough(found := ask()):
        assert time.monotonic() < deadline, found
        pause.wait(0.3)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ask(url: str, body: object = None) -> Any:
    """Return the JSON that is there, or the answer to some."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - a loopback server
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], folder: Path, health: str) -> Iterator[None]:
    """
    Run a server while the block does.

    Args:
        command: The program and its arguments.
        environment: Variables beside those that are there; ours and Python's are not handed on.
        folder: Where it runs and keeps its files.
        health: An address that answers once the server is ready.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OTEL_"))}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(process, health, log)
            yield
        finally:
            _stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a loopback server
                return
        except OSError:
            said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """
    End the server and the workers that it started, which are a group of their own.

    Nothing that it keeps is needed any more, and some take long to say goodbye to clients that are there no more.
    """
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP)
