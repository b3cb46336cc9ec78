"""What a sidecar writes to standard error: structured if asked for, and never what is in a span."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from tests.e2e.sidecar import Sidecar, id_of, small_trace
from tests.e2e.sink import WAIT, Sink

from otel_scorer.cli.logs import start_logging
from otel_scorer.errors import StoreError
from otel_scorer.testing import make_request, make_span

SECRET = "Pa$$w0rd-of-the-user"
SCORERS = """
from otel_scorer import Feedback, scorer

@scorer
def raises(trace):
    raise ValueError(trace.root.attributes["prompt"])

@scorer
def lost(trace):
    return Feedback(value=True, rationale=trace.root.attributes["prompt"], span_id="ffffffffffffffff")

@scorer
def odd(trace):
    return object()
"""


def lines_of(sidecar: Sidecar) -> list[dict[str, object]]:
    return [json.loads(line) for line in sidecar.log.splitlines()]


def test_every_line_is_an_object_with_an_event(start: Callable[..., Sidecar], own_sink: Sink) -> None:
    sidecar = start("--export", own_sink.grpc, "--log-format", "json", "--log-level", "debug")
    assert sidecar.post(b"nonsense").status == 400
    assert sidecar.stop() == 0

    lines = lines_of(sidecar)

    assert all({"time", "level", "logger", "event", "message", "thread"} <= line.keys() for line in lines)
    assert {"event": "Stopped after %.1f s%s", "level": "info"}.items() <= lines[-1].items()
    assert str(lines[-1]["message"]).startswith("Stopped after 0.")
    assert str(lines[-1]["time"]).endswith("Z")


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_of_a_span_and_no_secret_is_logged(
    start: Callable[..., Sidecar], own_sink: Sink, tmp_path: Path, form: str
) -> None:
    (tmp_path / "scorers.py").write_text(SCORERS, encoding="utf-8")
    (tmp_path / "key").write_text(SECRET, encoding="utf-8")
    (tmp_path / "sidecar.yaml").write_text(
        f"exporters: {{otlp: {{endpoint: '{own_sink.grpc}', headers: {{authorization: '${{file:key}}'}}}}}}\n"
        "assembly: {root_grace: 0.2s}\nscorers: [scorers.py]\nstore: traces.db\n",
        encoding="utf-8",
    )
    settings = ("-c", "sidecar.yaml", "--log-format", form, "--log-level", "debug")
    sidecar = start(*settings, folder=tmp_path)
    span = make_span(SECRET, trace=1, span=1, attributes={"prompt": SECRET, "gen_ai.input.messages": f"[{SECRET}"})
    span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=SECRET))
    span.trace_state = SECRET
    sidecar.send(make_request(span, service=SECRET))
    own_sink.wait_for_scores(3, id_of(1))
    # Content where it does not belong: broken JSON, broken protobuf, wrong types, a span without usable ids.
    for body in (f'{{"resourceSpans": [{{"{SECRET}": ', f'{{"resourceSpans": "{SECRET}"}}', f'{{"{SECRET}": 1}}'):
        sidecar.post(body.encode(), content_type="application/json")
    bad = make_span(SECRET, span=2)
    bad.trace_id = SECRET.encode()
    sidecar.post(make_request(bad))
    sidecar.post(SECRET.encode())
    sidecar.post(b"", path=f"/{SECRET}")
    own_sink.tell("refuse")
    sidecar.send(small_trace(2))
    sidecar.wait_for_log("again")
    own_sink.tell("take")

    assert sidecar.stop() == 0
    assert SECRET not in sidecar.log
    assert "authorization" in sidecar.log


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize("form", ["text", "json"])
def test_exceptions_are_logged_without_what_strangers_made_them_say(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    root_logger.handlers.clear()  # pytest has one for each phase of a test, and logging is set up once
    start_logging("info", form)

    try:
        try:
            int(SECRET)
        except ValueError as error:
            raise StoreError("The file is damaged") from error
    except StoreError:
        root_logger.exception("Cannot %s it", "keep")

    written = capsys.readouterr().err
    assert SECRET not in written
    assert "ValueError" in written
    assert "StoreError: The file is damaged" in written
    assert "test_logs.py" in written
    if form == "json":
        said = json.loads(written)
        assert (said["event"], said["message"], said["error"]) == ("Cannot %s it", "Cannot keep it", "StoreError")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_port_in_use_is_one_message_and_nothing_else(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "http" if protocol == "grpc" else "grpc"
        command = [sys.executable, "-m", "otel_scorer", "serve", "--export", "console", "--log-level", "error"]
        done = subprocess.run(
            [*command, f"--{protocol}", address, f"--{other}", "127.0.0.1:0"],
            capture_output=True, text=True, check=False, timeout=WAIT,
        )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr == f"Error: Cannot listen on {address}: the port is in use by another program\n"


def test_what_is_meant_for_this_machine_goes_past_a_proxy(start: Callable[..., Sidecar], own_sink: Sink) -> None:
    proxy = {"http_proxy": "http://127.0.0.1:9", "grpc_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    sidecar = start("--export", own_sink.grpc, environment=proxy)

    sidecar.send(small_trace(1))

    own_sink.wait_for_spans(3, id_of(1))
