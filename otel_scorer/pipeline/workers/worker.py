"""
A scorer worker: the process that `WorkerPool` starts. It reads jobs from a pipe, runs scorers, and answers with data.

It ends when the pipe does. What scorers print goes to standard error: standard output belongs to the sidecar.
"""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import select
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]

from otel_scorer.dialects import make_reader
from otel_scorer.dialects.teaching import Teaching
from otel_scorer.errors import OtelScorerError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.decode import attach_logs, logs_from_request, spans_from_request
from otel_scorer.model.feedback import AssessmentError
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.selection import Selection
from otel_scorer.pipeline.workers.memory_use import keep_freed
from otel_scorer.pipeline.workers.protocol import (
    HEARTBEAT_BYTES,
    Heartbeat,
    failed_decision,
    pack,
    pack_decision,
    unpack,
)
from otel_scorer.pipeline.workers.worker_loop import HIGH_DESCRIPTOR, WorkerLoop
from otel_scorer.scorers.base import as_scorers
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.scorers.loading import ScorerSpec, load_scorers
from otel_scorer.scorers.results import error_feedback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_scorer.pipeline.running.selection import Choice

__all__ = ["main"]

Answer = tuple[int, list[tuple[int, list[list[Any]]]]]
"""A job, and for each scorer that has decided its decisions."""

# Verdicts wait this long for company (seconds); then they leave, even while the next scorer is still at work.
_ANSWER_INTERVAL: Final = 0.05
# Seconds that a scorer gets to finish after the sidecar has gone.
_LAST_WORDS: Final = 5.0
# Bytes that one decision may take on its way to the sidecar, which has to hold it.
_DECISION_BYTES: Final = 32 * 1024 * 1024
# Frames that the worker and well-behaved scorers may count on, whatever another scorer has set.
_FRAMES: Final = sys.getrecursionlimit()


class Worker:
    """Runs jobs: function scorers one after the other on this thread, coroutine scorers together on a loop."""

    def __init__(self, connection: Connection, page: mmap.mmap, setup: Mapping[str, Any]) -> None:
        self._connection = connection
        self._heartbeat = Heartbeat(page, 0)
        self._send_lock = threading.Lock()  # guards the pipe: three threads answer
        self._reader = make_reader(Teaching.from_dict(setup["dialects"]) if "dialects" in setup else None)
        self._selections, self.left_out = _load(setup["scorers"], setup["timeout"])
        self._loop: WorkerLoop | None = None
        if any(selection.prepared.is_async for selection in self._selections):
            self._loop = WorkerLoop(Heartbeat(page, 1), self._answer_one, setup["concurrency"])
        # Guards what is decided and not answered yet: whole jobs, and what there is of the current one.
        self._lock = threading.Lock()
        self._decided: list[Answer] = []
        self._current: Answer | None = None
        self._is_busy = threading.Event()
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def describe(self) -> list[dict[str, Any]]:
        """Return what the sidecar must know of each scorer."""
        return [
            {
                "name": selection.prepared.name,
                "version": selection.prepared.version,
                "sample_rate": selection.prepared.scorer.sample_rate,
                "timeout": selection.prepared.timeout,
                "is_async": selection.prepared.is_async,
                "is_per_span": bool(selection.prepared.scorer.span_types),
            }
            for selection in self._selections
        ]

    def run(self) -> None:
        """Answer jobs until the pipe ends."""
        if self._loop is not None:
            self._loop.start()
        for role in (self._hurry, self._watch_pipe):
            threading.Thread(target=role, name=f"otel-scorer{role.__name__}", daemon=True).start()
        while True:
            try:
                header, payloads = unpack(self._connection.recv_bytes())
            except (EOFError, OSError):
                return
            self._is_busy.set()
            offset = 0
            for job in header:
                logs = offset + job["size"]
                end = logs + job["logs"]
                self._score(job, payloads[offset:logs].tobytes(), payloads[logs:end].tobytes())
                offset = end
            self._is_busy.clear()
            self._answer_decided()

    def _score(self, job: Mapping[str, Any], data: bytes, logs: bytes) -> None:
        """Run a job's function scorers, and put its coroutine scorers on the loop."""
        job_id, revision = job["id"], job["revision"]
        spans = spans_from_request(data)
        if logs:
            attach_logs(spans, logs_from_request(logs))
        trace = Trace(
            spans,
            self._reader,
            close_reason=job["close_reason"],
            is_complete=job["complete"],
            revision=revision,
        )
        evidence = Evidence(trace)
        trace_id = trace.trace_id
        decided: list[tuple[int, list[list[Any]]]] = []
        with self._lock:
            self._current = job_id, decided
        scorers: list[int] = job["scorers"]
        faulty: Mapping[str, Mapping[str, Sequence[str]]] = job["faults"]
        for index in scorers:
            selection = self._selections[index]
            # Choosing reads spans and runs filters: that may hang as well. The first target's time begins with it.
            self._heartbeat.begin(job_id, index, 0, time.monotonic())
            choices: Sequence[Choice]
            try:
                choices = selection.choose(trace, evidence, revision=revision, trace_id=trace_id)
            except Exception as error:  # noqa: BLE001 - a trace that cannot be read costs one decision
                reason = f"{type(error).__name__}: {error}"
                choices = [selection.decide(Outcome.UNPROCESSABLE, trace_id, revision, reason=reason)]
            if faulty and (faults := faulty.get(str(index))):
                choices = _without_faulty(choices, faults)
            if selection.prepared.is_async and self._loop is not None:
                self._heartbeat.end()
                self._loop.submit(job_id, index, choices)
            else:
                decided.append((index, self._decide(job_id, index, choices)))
        self._heartbeat.end()
        # Coroutines may still hold the trace; without them it is freed now, and the next one finds the memory warm.
        trace.let_go()
        with self._lock:
            self._current = None
            if decided:
                self._decided.append((job_id, decided))

    def _decide(self, job_id: int, index: int, choices: Sequence[Choice]) -> list[list[Any]]:
        decisions: list[list[Any]] = []
        for target, choice in enumerate(choices):
            if isinstance(choice, Decision):
                decisions.append(_as_data(choice))
                continue
            if target:
                self._heartbeat.begin(job_id, index, target, time.monotonic())
            try:
                decision = choice.run()
            except BaseException as error:  # noqa: BLE001 - Ctrl-C is ignored here: a KeyboardInterrupt is the scorer's
                feedback = error_feedback(choice.prepared.name, error)
                decision = choice.decide(Outcome.FAILED, type(error).__name__, feedback)
            decisions.append(_as_data(decision))
            if sys.getrecursionlimit() < _FRAMES:
                sys.setrecursionlimit(_FRAMES)
        return decisions

    def _hurry(self) -> None:
        """Answer what is decided while a slow scorer keeps the main thread; the body of a thread."""
        pause = threading.Event()
        while self._is_busy.wait():
            pause.wait(_ANSWER_INTERVAL)
            self._answer_decided()

    def _answer_decided(self) -> None:
        with self._lock:
            answers, self._decided = self._decided, []
            if self._current is not None:
                job_id, decided = self._current
                # The main thread may append meanwhile: only what was copied is taken away.
                taken = decided[:]
                del decided[: len(taken)]
                if taken:
                    answers.append((job_id, taken))
        self._answer(answers)

    def _answer_one(self, job_id: int, index: int, decisions: Sequence[Decision]) -> None:
        self._answer([(job_id, [(index, list(map(_as_data, decisions)))])])

    def _answer(self, answers: Sequence[Answer]) -> None:
        if not answers:
            return
        message = self._packed(answers)
        with self._send_lock:
            try:
                self._connection.send_bytes(message)
            except OSError:
                # The sidecar is gone, or a scorer has closed the pipe; what runs just now need not be the one.
                self._heartbeat.end()
                os._exit(0)

    def _packed(self, answers: Sequence[Answer]) -> bytes:
        """Return answers as a message; decisions that nobody can send or hold become failures that say so."""
        try:
            message = pack(answers)
        except Exception:  # noqa: BLE001 - parts of a decision are a scorer's objects
            message = b""
        if message and len(message) <= _DECISION_BYTES:
            return message
        return pack([(job_id, list(map(self._made_sendable, decided))) for job_id, decided in answers])

    def _made_sendable(self, decided: tuple[int, list[list[Any]]]) -> tuple[int, list[list[Any]]]:
        scorer, decisions = decided
        name = self._selections[scorer].prepared.name
        return scorer, [_sendable(decision, name) for decision in decisions]

    def _watch_pipe(self) -> None:
        """End the process soon after the sidecar's end of the pipe is gone, whatever scorers do; a thread's body."""
        poller = select.poll()
        poller.register(self._connection.fileno(), 0)
        poller.poll()
        threading.Event().wait(_LAST_WORDS)
        if os.getpgrp() == os.getpid():
            # With the processes that scorers have started and left.
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def _leave_to_parent(self) -> None:
        """In a process that a scorer has forked: leave everything that the worker shares with the sidecar alone."""
        self._connection.close()
        self._heartbeat.leave_to_parent()
        if self._loop is not None:
            self._loop.leave_to_parent()


def _as_data(decision: Decision) -> list[Any]:
    try:
        return pack_decision(decision)
    except Exception as error:  # noqa: BLE001 - see `_packed`
        return _unsendable(decision.span_id, decision.scorer, error)


def _unsendable(span_id: str | None, scorer: str, error: Exception) -> list[Any]:
    return failed_decision(span_id, scorer, "InvalidResult", f"the result cannot be sent: {type(error).__name__}")


def _sendable(decision: list[Any], scorer: str) -> list[Any]:
    try:
        size = len(pack(decision))
    except Exception as error:  # noqa: BLE001 - see `_packed`
        return _unsendable(decision[0], scorer, error)
    if size <= _DECISION_BYTES:
        return decision
    cause = f"the result takes {size >> 20} MiB, and {_DECISION_BYTES >> 20} MiB are the limit"
    return failed_decision(decision[0], scorer, "ResultTooLarge", cause)


def _load(given: Sequence[Mapping[str, Any]], timeout: float) -> tuple[list[Selection], list[str]]:
    """
    Return the scorers, and why optional ones are left out.

    Raises:
        ConfigError: One that is not optional cannot be loaded, or its filter cannot be used.
    """
    scorers = load_scorers([_spec(spec) for spec in given if not spec.get("optional")])
    left_out: list[str] = []
    for spec in given:
        if spec.get("optional"):
            try:
                found = load_scorers([_spec(spec)])
                for scorer in found:
                    Selection(scorer)  # its filter may be one that cannot be used here
                scorers += found
            except OtelScorerError as error:
                left_out.append(str(error))
    return [Selection(scorer, default_timeout=timeout) for scorer in as_scorers(scorers)], left_out


def _spec(given: Mapping[str, Any]) -> ScorerSpec:
    settings: dict[str, Any] = {**given, "span_types": tuple(given.get("span_types") or ())}
    settings.pop("optional", None)
    return ScorerSpec(**settings)


def _without_faulty(choices: Sequence[Choice], faults: Mapping[str, Sequence[str]]) -> list[Choice]:
    """Return the choices, with a decision for each target that an earlier worker ended or hung at."""
    found: list[Choice] = []
    for target, choice in enumerate(choices):
        fault = faults.get(str(target))
        if fault is None or isinstance(choice, Decision):
            found.append(choice)
        else:
            outcome, code, cause = fault
            feedback = error_feedback(choice.prepared.name, AssessmentError(code, cause))
            found.append(choice.decide(Outcome(outcome), cause, feedback))
    return found


def _moved(descriptor: int) -> int:
    """Return the pipe where scorers and their child processes do not stumble over it."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH_DESCRIPTOR)
    os.close(descriptor)
    return moved


def main(arguments: Sequence[str]) -> int:
    """Serve the pipe and the page whose descriptors are given."""
    # The whole group gets Ctrl-C; the sidecar decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(2, 1)
    # What a scorer prints is of use when it prints it, and would be lost with a worker that is killed.
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
    connection = Connection(_moved(int(arguments[0])))
    page = mmap.mmap(int(arguments[1]), HEARTBEAT_BYTES)
    os.close(int(arguments[1]))
    context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
    setup, _ = unpack(connection.recv_bytes())
    # References may name modules beside where the sidecar was started; last, so that they shadow nothing.
    sys.path.append(setup["folder"])
    try:
        worker = Worker(connection, page, setup)
    except OtelScorerError as error:
        connection.send_bytes(pack({"error": str(error)}))
        return 1
    connection.send_bytes(pack({"scorers": worker.describe(), "left_out": worker.left_out}))
    # A trace and its spans point at each other, so the collector has to find them; it need not go through all the
    # modules each time, nor come by every 700 objects.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    # What messages and the traces in them take stays at hand for the next ones, within reason: it counts as memory that
    # scorers have.
    keep_freed(8 << 20, apart=4 << 20, step=1 << 20)
    worker.run()
    return 0
