"""Servers that fork, spawn, switch greenlets and end by signals: every span leaves once, traces with their scores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integrations.in_app.backends import Server, attributes_of, bin_of, free_port, until
from tests.otlp_sink import Sink

pytestmark = pytest.mark.integrations

WSGI = "tests.integrations.in_app.shop:wsgi"
ASGI = "tests.integrations.in_app.shop:asgi"
REQUESTS = 20
NEVER = "60"

GUNICORN = ["gunicorn", "-c", "python:tests.integrations.in_app.gunicorn_conf"]
SERVERS = {
    "gunicorn": [*GUNICORN, "-w", "2", "-b", "127.0.0.1:PORT", WSGI],
    "gunicorn --preload": [*GUNICORN, "--preload", "-w", "2", "-b", "127.0.0.1:PORT", WSGI],
    "gunicorn, threads": [*GUNICORN, "-w", "2", "--threads", "4", "-b", "127.0.0.1:PORT", WSGI],
    "gunicorn, gevent": [*GUNICORN, "-w", "2", "-k", "gevent", "-b", "127.0.0.1:PORT", WSGI],
    "gunicorn --preload, gevent": [*GUNICORN, "--preload", "-w", "2", "-k", "gevent", "-b", "127.0.0.1:PORT", WSGI],
    "gunicorn, uvicorn's workers": [
        *GUNICORN, "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:PORT", ASGI,
    ],
    "uvicorn": ["uvicorn", "--port", "PORT", ASGI],
    "uvicorn --workers": ["uvicorn", "--workers", "2", "--port", "PORT", ASGI],
}  # fmt: skip


def check(sink: Sink, sold: int) -> None:
    ids = [span.span_id for span in sink.spans]
    assert len(ids) == len(set(ids))
    assert len(attributes_of(sink, "pack")) == sold
    assert [sale.get("otel_scorer.span_count.value") for sale in attributes_of(sink, "sell")] == [2] * sold
    assert all(sale.get("otel_scorer.later.value") is True for sale in attributes_of(sink, "sell"))


@pytest.mark.needs("gunicorn", "gevent", "uvicorn_worker")
@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_scores_every_request_and_what_is_left_when_it_ends(
    kind: str, sink: Sink, serve: Callable[..., Server], tmp_path: Path
) -> None:
    port = free_port()
    program, *arguments = [word.replace("PORT", str(port)) for word in SERVERS[kind]]
    # Nothing is exported before the end, unless the end does it.
    env = {"BACKEND": sink.http_address, "DELAY": NEVER}
    if "uvicorn" in kind:
        env["FINISH_ON_SIGTERM"] = "true"
    server = serve([bin_of(program), *arguments], tmp_path, port, **env)
    server.get()

    with ThreadPoolExecutor(4) as threads:
        workers = set(threads.map(lambda _: server.get(), range(REQUESTS - 1)))
    if program == "gunicorn":
        assert until(lambda: server.log.count("is ready") == 2), server.log
    server.end()

    assert workers
    assert until(lambda: len(attributes_of(sink, "sell")) == REQUESTS), server.log
    check(sink, REQUESTS)
    assert "Traceback" not in server.log


@pytest.mark.needs("celery")
def test_celery_prefork_scores_every_task_and_what_is_left_when_a_process_of_it_ends(
    sink: Sink, serve: Callable[..., Server], tmp_path: Path
) -> None:
    env = {"BACKEND": sink.http_address, "BROKER": str(tmp_path), "DELAY": NEVER}
    tasks = "tests.integrations.in_app.tasks"
    worker = [sys.executable, "-m", "celery", "-A", tasks, "worker", "-P", "prefork", "-c", "2", "-l", "INFO"]
    server = serve(worker, tmp_path, **env)

    send = f"from {tasks} import sell_later\nfor _ in range({REQUESTS}): sell_later.delay()"
    subprocess.run([sys.executable, "-c", send], check=True, timeout=100, env={**os.environ, **env})

    assert until(lambda: server.log.count("succeeded in") == REQUESTS), server.log
    assert server.end() == 0
    assert until(lambda: len(attributes_of(sink, "sell")) == REQUESTS), server.log
    check(sink, REQUESTS)
