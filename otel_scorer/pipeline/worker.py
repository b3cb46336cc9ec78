"""
A scorer worker: the process that `WorkerPool` starts. It reads jobs from a pipe, runs scorers, and answers with data.

It ends when the pipe does. What scorers print goes to standard error: standard output belongs to the sidecar.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]

from otel_scorer.dialects import READER
from otel_scorer.errors import OtelScorerError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.decode import spans_from_request
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.protocol import HEARTBEAT_BYTES, Heartbeat, pack, pack_decision, unpack
from otel_scorer.pipeline.selection import Selection
from otel_scorer.scorers.loading import ScorerSpec, load_scorers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_scorer.pipeline.runner import Invocation

__all__ = ["main"]

Answer = tuple[int, list[tuple[int, list[list[Any]]]]]
"""A job, and for each scorer that has decided its decisions."""


class Worker:
    """Runs jobs: function scorers one after the other on this thread, coroutine scorers together on a loop."""

    def __init__(self, connection: Connection, heartbeat: Heartbeat, setup: Mapping[str, Any]) -> None:
        self._connection = connection
        self._heartbeat = heartbeat
        self._send_lock = threading.Lock()  # guards the pipe: this thread and the loop both answer
        specs = [ScorerSpec(**{**spec, "span_types": tuple(spec.get("span_types") or ())}) for spec in setup["scorers"]]
        scorers = load_scorers(specs)
        self._selections = [Selection(scorer, default_timeout=setup["timeout"]) for scorer in scorers]
        self._concurrency: int = setup["concurrency"]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots: asyncio.Semaphore | None = None
        if any(selection.prepared.is_async for selection in self._selections):
            self._start_loop()

    def describe(self) -> list[dict[str, Any]]:
        """Return what the sidecar must know of each scorer."""
        return [
            {
                "name": selection.prepared.name,
                "version": selection.prepared.version,
                "sample_rate": selection.prepared.scorer.sample_rate,
                "timeout": selection.prepared.timeout,
                "is_async": selection.prepared.is_async,
            }
            for selection in self._selections
        ]

    def run(self) -> None:
        """Answer jobs until the pipe ends."""
        while True:
            try:
                header, payloads = unpack(self._connection.recv_bytes())
            except (EOFError, OSError):
                return
            answers: list[Answer] = []
            offset = 0
            for job in header:
                end = offset + job["size"]
                answer = self._score(job, payloads[offset:end].tobytes())
                if answer[1]:
                    answers.append(answer)
                offset = end
            self._answer(answers)

    def _score(self, job: Mapping[str, Any], data: bytes) -> Answer:
        """Run a job's function scorers, and put its coroutine scorers on the loop."""
        revision = job["revision"]
        trace = Trace(
            spans_from_request(data),
            READER,
            close_reason=job["close_reason"],
            is_complete=job["complete"],
            revision=revision,
        )
        trace_id = trace.trace_id
        decided: list[tuple[int, list[list[Any]]]] = []
        for index in job["scorers"]:
            selection = self._selections[index]
            try:
                choices = selection.choose(trace, revision=revision, trace_id=trace_id)
            except Exception as error:  # noqa: BLE001 - a trace that cannot be read costs one decision
                reason = f"{type(error).__name__}: {error}"
                choices = [selection.decide(Outcome.UNPROCESSABLE, trace_id, revision, reason=reason)]
            if selection.prepared.is_async and self._loop is not None:
                asyncio.run_coroutine_threadsafe(self._score_async(job["id"], index, choices), self._loop)
                continue
            decisions: list[list[Any]] = []
            for choice in choices:
                if isinstance(choice, Decision):
                    decisions.append(pack_decision(choice))
                    continue
                self._heartbeat.begin(job["id"], index, time.monotonic())
                decision = choice.run()
                self._heartbeat.end()
                decisions.append(pack_decision(decision))
            decided.append((index, decisions))
        return job["id"], decided

    async def _score_async(self, job_id: int, index: int, choices: Sequence[Invocation | Decision]) -> None:
        async def run(choice: Invocation | Decision) -> Decision:
            if isinstance(choice, Decision) or self._slots is None:
                return choice if isinstance(choice, Decision) else await choice.run_async()
            async with self._slots:
                return await choice.run_async()

        decisions = await asyncio.gather(*map(run, choices))
        answer = job_id, [(index, [pack_decision(decision) for decision in decisions])]
        await asyncio.to_thread(self._answer, [answer])

    def _answer(self, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        with self._send_lock:
            try:
                self._connection.send_bytes(pack(answers))
            except OSError:
                # The sidecar is gone, and with it everybody who would want to know.
                os._exit(0)

    def _start_loop(self) -> None:
        loop = self._loop = asyncio.new_event_loop()
        self._slots = asyncio.Semaphore(self._concurrency)

        def run() -> None:
            context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
            asyncio.set_event_loop(loop)
            loop.run_forever()

        threading.Thread(target=run, name="otel-scorer-loop", daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """Serve the pipe and the page whose descriptors are given."""
    # The whole group gets Ctrl-C; the sidecar decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(2, 1)
    connection = Connection(int(arguments[0]))
    heartbeat = Heartbeat(mmap.mmap(int(arguments[1]), HEARTBEAT_BYTES))
    context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
    setup, _ = unpack(connection.recv_bytes())
    # References may name modules beside where the sidecar was started; last, so that they shadow nothing.
    sys.path.append(setup["folder"])
    try:
        worker = Worker(connection, heartbeat, setup)
    except OtelScorerError as error:
        connection.send_bytes(pack({"error": str(error)}))
        return 1
    connection.send_bytes(pack({"scorers": worker.describe()}))
    worker.run()
    return 0

