"""Says when a worker of gunicorn is up: one that is still starting does not notice SIGTERM, whatever it serves."""

from typing import Any


def post_worker_init(worker: Any) -> None:
    worker.log.info("Worker %s is ready", worker.pid)
