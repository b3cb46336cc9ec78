"""Phoenix and MLflow as their makers ship them, on loopback, with a database of their own in a folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

FOLDER = os.environ.get("OTEL_SCORER_SERVERS")
# The first start of a server makes its database, on a machine that may have other things to do.
START = 120.0


def installed(program: str) -> str | None:
    """Return where a server is, if it is installed: each in an environment of its own, called like it."""
    return None if FOLDER is None else shutil.which(program, path=str(Path(FOLDER) / program / "bin"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ask(url: str, body: object = None) -> Any:
    """Return the JSON that is there, or the answer to some."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - a loopback server
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return json.load(answer)


class Backend:
    """
    A server that runs.

    Attributes:
        name: Also the name of the preset.
        url: Where it is.
        shown: What the screen says of a trace with a failed tool, as a regular expression.
    """

    name = ""
    shown = ""

    def __init__(self, url: str) -> None:
        self.url = url

    def scores(self, trace: str) -> list[tuple[str, object]]:
        """Return names and values of the scores of a trace; of a trace that is not there, none."""
        raise NotImplementedError

    def failing(self) -> set[str]:
        """Return the traces that the documented filter finds."""
        raise NotImplementedError

    def page(self, trace: str) -> str:
        """Return where people look."""
        raise NotImplementedError


class Phoenix(Backend):
    name = "phoenix"
    shown = r"tool_errors[^A-Za-z]*0\.00"

    def scores(self, trace: str) -> list[tuple[str, object]]:
        try:
            found = ask(f"{self.url}/v1/projects/default/trace_annotations?trace_ids={trace}&limit=1000")["data"]
        except urllib.error.HTTPError as error:
            assert error.code == 404, error.read()  # noqa: PT017 - not what is tested
            return []
        return sorted((each["name"], each["result"]["score"]) for each in found)

    def failing(self) -> set[str]:
        condition = quote("trace_annotations['tool_errors'].score < 0.5")
        found = ask(f"{self.url}/v1/projects/default/traces?filter={condition}&limit=1000")["data"]
        return {each["trace_id"] for each in found}

    def page(self, trace: str) -> str:
        [project] = [each["id"] for each in ask(f"{self.url}/v1/projects")["data"] if each["name"] == "default"]
        return f"{self.url}/projects/{project}/traces/{trace}"


class Mlflow(Backend):
    name = "mlflow"
    shown = r"tool_errors[\s\S]*(False|Fail)"

    def scores(self, trace: str) -> list[tuple[str, object]]:
        try:
            info = ask(f"{self.url}/api/3.0/mlflow/traces/tr-{trace}")["trace"]["trace_info"]
        except urllib.error.HTTPError as error:
            assert error.code == 404, error.read()  # noqa: PT017 - not what is tested
            return []
        return sorted((each["assessment_name"], each["feedback"]["value"]) for each in info.get("assessments", []))

    def failing(self) -> set[str]:
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}
        found = ask(
            f"{self.url}/api/3.0/mlflow/traces/search",
            {"locations": [place], "filter": "feedback.tool_errors = 'false'", "max_results": 500},
        )
        return {each["trace_id"].removeprefix("tr-") for each in found.get("traces", [])}

    def page(self, trace: str) -> str:
        del trace  # its score is a cell in the table of all traces
        return f"{self.url}/#/experiments/0/traces"


@contextmanager
def phoenix(folder: Path) -> Iterator[Phoenix]:
    port = free_port()
    environment = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    with _running(["phoenix", "serve"], environment, folder, f"http://127.0.0.1:{port}/healthz"):
        yield Phoenix(f"http://127.0.0.1:{port}")


@contextmanager
def mlflow(folder: Path) -> Iterator[Mlflow]:
    port = free_port()
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        "mlflow",
        "server",
        "--backend-store-uri",
        "sqlite:///mlflow.db",
        "--default-artifact-root",
        "./artifacts",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with _running(command, environment, folder, f"http://127.0.0.1:{port}/health"):
        yield Mlflow(f"http://127.0.0.1:{port}")


@contextmanager
def _running(command: list[str], environment: Mapping[str, str], folder: Path, health: str) -> Iterator[None]:
    program = installed(command[0])
    assert program is not None
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "OTEL_"))}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            cwd=folder,
            env={**inherited, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(process, health, log)
            yield
        finally:
            # The server and the workers that it started, which are a group of their own.
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(20)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a loopback server
                return
        except OSError:
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-3000:]
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8", errors="replace")[-3000:]
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
