"""A real OpenTelemetry Collector as a process, with one of the configurations of `config/`."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.sink import WAIT

CONFIG = Path(__file__).resolve().parents[2] / "config"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


class Collector:
    """
    A Collector that runs a configuration as it is, but for the addresses.

    Args:
        program: The Collector.
        config: Name of a file in `config/`.
        folder: Where the changed copy goes.
        addresses: What to use in the place of addresses that the configuration names.
        backend: URL of what takes its exports.
    """

    def __init__(self, program: Path, config: str, folder: Path, addresses: Mapping[str, str], backend: str) -> None:
        text = (CONFIG / config).read_text(encoding="utf-8")
        for address, replacement in addresses.items():
            assert address in text, f"{config} does not name {address}"
            text = text.replace(address, replacement)
        copy = folder / config
        copy.write_text(text, encoding="utf-8")
        # Its own metrics have one fixed port, which another Collector on this machine may have.
        quiet = folder / "quiet.yaml"
        quiet.write_text("service: {telemetry: {metrics: {level: none}}}\n", encoding="utf-8")
        self._process = subprocess.Popen(
            [program, "--config", copy, "--config", quiet],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "BACKEND_ENDPOINT": backend, "BACKEND_INSECURE": "true"},
            text=True,
        )
        self._lines: list[str] = []
        self._is_ready = False
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self._ready.wait(WAIT), "the Collector does not start"
        assert self._is_ready, "".join(self._lines)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(WAIT)
        self._reader.join(WAIT)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            if "Everything is ready" in line:
                self._is_ready = True
                self._ready.set()
        # It has ended.
        self._ready.set()
