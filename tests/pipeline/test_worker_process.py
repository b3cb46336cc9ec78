"""A scorer worker's process, as the sidecar holds it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from otel_scorer.pipeline.workers.worker_process import WorkerProcess


def open_files() -> set[str]:
    found: set[str] = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(each.readlink()))
        except FileNotFoundError:
            continue
    return found


def test_nothing_stays_open_of_a_worker_that_was_replaced_and_nobody_is_warned() -> None:
    worker = WorkerProcess({"scorers": []})
    pipe = f"socket:[{os.fstat(worker.connection.fileno()).st_ino}]"
    assert pipe in open_files()
    worker.hang_up()
    worker.kill()

    with warnings.catch_warnings(record=True, action="always") as warned:
        del worker

    assert pipe not in open_files()
    assert not [str(each.message) for each in warned if "socket" in str(each.message)]
