"""
What scores inside an application, whoever hands it the spans: engine, scorers and export, and how they end together.

The processor counts spans; the exporter that needs no code only sees them when they have ended.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakSet, ref

from otel_scorer.pipeline.in_app.engine import AppEngine
from otel_scorer.pipeline.in_app.intake import MAX_PENDING
from otel_scorer.pipeline.in_app.late_outlets import LateOutlets
from otel_scorer.pipeline.running.followed import StoreFollower
from otel_scorer.pipeline.running.inheritance import inherit_context
from otel_scorer.pipeline.running.lazy_selection import LazySelector
from otel_scorer.pipeline.running.reentrancy import elsewhere
from otel_scorer.pipeline.running.selection import Selection, Selector
from otel_scorer.pipeline.running.suppression import suppressed
from otel_scorer.scorers.base import as_scorers
from otel_scorer.scorers.loading import ScorerSpec, load_scorers
from otel_scorer.scorers.turn import Turn
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit
from otel_scorer.transport.sdk_exporter import SdkExport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Reader
    from otel_scorer.pipeline.in_app.intake import Item
    from otel_scorer.pipeline.in_app.options import AppOptions
    from otel_scorer.pipeline.running.runner import Suppression
    from otel_scorer.pipeline.verdicts.sinks import VerdictOutlets
    from otel_scorer.scorers.base import Scorer

__all__ = ["AppPipeline", "report_mistake"]

logger = logging.getLogger(__name__)

# Of the time for a shutdown, what scorers may use up; the rest is for the export of what they said.
_SCORERS_SHARE: Final = 5 / 6
_FOLLOWER_END: Final = 0.5
# Where nobody listens, OTLP exporters give up within 10 s; so does what goes beside spans, the export included. It has
# some seconds in any case.
_OUTLETS_END: Final = 10.0
_OUTLETS_LEAST: Final = 2.0
# Seconds to wait for another thread that sees the first spans too.
_LONGEST_BEGIN: Final = 10.0
# Seconds that the end of a child process may wait.
_CHILD_END: Final = 30.0
_COUNTED: Final = "when its last span here has ended (all_closed: spans are counted)"
_QUIET: Final = "when nothing new has come for a while (root_quiet: starts of spans are not seen)"


class AppPipeline:
    """
    Scores units and exports what comes out. Threads start with the first span.

    Args:
        exporter: Any exporter of the SDK's.
        scorers: Scorers, plain callables, references.
        options: How units are treated.
        reader: What tells the meaning of attributes.
        store: A store of registered scorers to follow.
        timeout: Seconds for one scorer on one target, unless the scorer says otherwise.
        is_lazy: Load scorers with the first span, on a thread of ours. What cannot be loaded is then logged, and
            everything is exported without scores.
        suppress: What scorers run in.
        outlets: Makes what sends verdicts beside spans, in each process of its own.

    Raises:
        ScorerError: Something in `scorers` is none; unless `is_lazy`.
        ConfigError: A reference or a store cannot be used; unless `is_lazy`.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        scorers: Iterable[object],
        options: AppOptions,
        reader: Reader,
        *,
        store: str | Path | None = None,
        timeout: float,
        is_lazy: bool = False,
        suppress: Suppression = suppressed,
        outlets: Callable[[], VerdictOutlets] | None = None,
    ) -> None:
        self._options = options
        self._make_outlets = outlets
        self._outlets: LateOutlets | None = None
        self._reader = reader
        self._scorers = scorers
        self._select = partial(Selection, default_timeout=timeout, suppress=suppress)
        self._given: list[Selection] = []
        self._follower = None if store is None else StoreFollower(Path(store), self._select, self._use)
        self._selector: Selector = LazySelector(self._load_or_complain) if is_lazy else Selector.of(self._load())
        self._export = SdkExport(exporter, queue_size=options.export_queue_size, delay=options.schedule_delay)
        # What comes while `begin` is at work.
        self._pending: deque[Item] = deque()
        self.engine = self._new_engine()
        """Takes the spans. Another one once `begin` was called, and after a fork."""
        self.is_begun = False
        """Whether `begin` was called in this process."""
        self.is_shut = False
        """Whether everything that still comes is to be ignored."""
        # Held while `begin` is at work; reentrant, for a signal handler that comes in between.
        self._beginning = threading.RLock()
        self._is_beginning = False
        self._endings = itertools.count()
        self._ending_thread: int | None = None
        self._has_ended = threading.Event()
        self._log_limit = LogLimit()
        self.forked_at: int | None = None
        """When this process was forked off (ns since the epoch). Spans from before are exported by its parent."""
        _pipelines.add(self)

    def begin(self, patience: float = 0.0) -> bool:
        """
        Do what is to be done once in each process; to be called with the first span.

        Locks and threads are made together, here: under gevent some are patched and some are not, if it patches
        between the import of an application (gunicorn's `--preload`) and its first request, and a greenlet that waits
        for a lock of the other kind stops all the others.

        Args:
            patience: Seconds to wait for another thread that is at it.

        Returns:
            Whether it is done. If not, another thread is at it, or this one was interrupted in the middle: `note`.
        """
        if self.is_begun:
            return True
        is_ours = self._beginning.acquire(blocking=False)
        if not is_ours and not (patience > 0 and self._beginning.acquire(timeout=patience)):
            return False
        try:
            if self._is_beginning or self.is_begun:
                return self.is_begun
            self._is_beginning = True
            try:
                self._begin()
            finally:
                self._is_beginning = False
        finally:
            self._beginning.release()
        return True

    def note(self, item: Item) -> None:
        """Keep what comes while `begin` is at work: it is looked at after that."""
        if len(self._pending) < MAX_PENDING:
            self._pending.append(item)

    def _is_idle(self) -> bool:
        """Whether no span has come in this process."""
        return not (self.is_begun or self._is_beginning or self._pending)

    def _begin(self) -> None:
        self._export.renew()
        if self._make_outlets is not None:
            self._outlets = LateOutlets(self._make_outlets, partial(self.complain, "emit"))
            self._outlets.start()
        self.engine = self._new_engine()
        self.engine.start()
        if isinstance(self._selector, LazySelector):
            self._selector.renew()
        _finish_with_child_process(self)
        if not self.engine.is_off:
            inherit_context()
        if self._follower is not None:
            self._follower.renew()
            if getattr(self._selector, "is_loaded", True):
                self._follower.start()
        self.is_begun = True

    def take(self, spans: Sequence[ReadableSpan]) -> None:
        """Take spans that ended some time ago, where nobody counts; what need not wait for verdicts is exported."""
        if not self.begin(_LONGEST_BEGIN):
            for span in spans:
                self.note(span)
            return
        free: Sequence[ReadableSpan] = spans
        try:
            free = self.engine.arrived(spans)
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            self.complain("export", error)
        for span in free:
            self._export.send(span)

    def flush(self, timeout: float) -> bool:
        """Wait for the verdicts on everything that has ended, and for its export; False if it took too long."""
        if self.is_shut:
            return True
        deadline = time.monotonic() + timeout
        if self._is_idle():
            return True
        if not self.begin(timeout):
            return False
        try:
            # Scores come last: where they go, their traces must be known.
            is_done = self.engine.flush(deadline - time.monotonic())
            is_done &= self._export.flush(deadline - time.monotonic())
            if self._outlets is not None:
                left = deadline - time.monotonic()
                is_done &= bool(elsewhere(partial(self._outlets.flush, left), left, "otel-scorer-flush-outlets"))
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            self.complain("force_flush", error)
            return False
        else:
            return is_done

    def close_trace(self, trace_id: int) -> bool:
        """Close the open units of a trace now; return whether there was one with an ended span."""
        if self.is_shut or self._is_idle() or not self.begin(_LONGEST_BEGIN):
            return False
        return self.engine.close_trace(trace_id)

    def wait(self, trace_id: int, timeout: float) -> list[Decision] | None:
        """Wait until every unit of a trace is closed and decided; return its decisions, None if it took too long."""
        if self._is_idle():
            return []
        return self.engine.wait(trace_id, timeout) if self.begin(timeout) else None

    def shutdown(self, timeout: float) -> None:
        """Score and export what is there, open units too, within the time. Whoever comes second waits for the first."""
        self.is_shut = True
        if next(self._endings):
            # Unless it is the first, interrupted by a signal handler.
            if self._ending_thread != threading.get_ident():
                self._has_ended.wait(timeout)
            return
        self._ending_thread = threading.get_ident()
        deadline = time.monotonic() + timeout
        if self._follower is not None:
            self._follower.shutdown(_FOLLOWER_END)
        try:
            if not self.engine.shutdown(timeout * _SCORERS_SHARE):
                logger.warning("Some verdicts were not in within the time for shutting down; they are lost")
            begin = time.monotonic()
            self._export.shutdown(deadline - begin)
            now = time.monotonic()
            left = min(deadline - now, max(_OUTLETS_LEAST, begin + _OUTLETS_END - now))
            if self._outlets is not None and not self._outlets.shutdown(left):
                logger.warning("Some verdicts could not be sent within the time for shutting down; they are lost")
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            self.complain("shutdown", error)
        self._has_ended.set()

    def complain(self, where: str, error: Exception) -> None:
        """Log a failure of ours that the application was spared, now and then, and count it."""
        count("processor.errors", where=where)
        if self._log_limit.allows(where, type(error).__name__):
            logger.error("%s of otel_scorer failed; the application goes on", where, exc_info=error)

    def after_fork(self) -> None:
        """Start afresh in a forked child: empty buffers, new locks, and new threads with the first span."""
        self.forked_at = time.time_ns()
        # A scorer that was running in the parent will never come back here.
        running = [selection.prepared for selection in self._selector.selections]
        turns = {id(prepared.turn): Turn() for prepared in running}
        for prepared in running:
            if prepared.turn is not None:
                prepared.turn = turns[id(prepared.turn)]
        self._log_limit = LogLimit()
        self._beginning = threading.RLock()
        self._is_beginning = False
        self._has_ended = threading.Event()
        self._export.forget()
        self._outlets = None
        self._pending = deque()
        self.engine = self._new_engine()
        self.is_begun = False

    def _new_engine(self) -> AppEngine:
        options = self._options
        if self._outlets is not None:
            options = replace(options, emission=replace(options.emission, sinks=self._outlets.sinks))
        return AppEngine(options, self._selector, self._reader, self._export.send, pending=self._pending)

    def _load(self) -> list[Selection]:
        self._given = [self._select(scorer) for scorer in _scorers_of(self._scorers)]
        return [*self._given, *([] if self._follower is None else self._follower.load())]

    def _load_or_complain(self) -> list[Selection]:
        try:
            loaded = self._load()
        except Exception as error:  # noqa: BLE001 - importing scorers runs code of the user's
            report_mistake(error)
            return []
        if self._follower is not None:
            self._follower.start()
        names = ", ".join(dict.fromkeys(selection.prepared.name for selection in loaded)) or "no scorers"
        logger.info("Scoring with %s; a trace closes %s", names, _COUNTED if self._options.counts else _QUIET)
        return loaded

    def _use(self, registered: Iterable[Selection]) -> None:
        self._selector = Selector.of([*self._given, *registered])
        self.engine.selector = self._selector


def report_mistake(error: Exception) -> None:
    """
    Log why nothing is scored.

    Auto-instrumentation gives the root logger a handler that sends records to a backend, if there is one for logs: then
    nobody at the console would ever learn of it. So this is shown there if nothing else shows it.
    """
    count("processor.errors", where="setup")
    text = f"otel_scorer scores nothing, spans are exported as they are: {error}"
    logger.error("%s", text)
    handlers = logging.getLogger().handlers
    is_shown = not handlers or any(isinstance(handler, logging.StreamHandler) for handler in handlers)
    if not is_shown and logging.lastResort is not None:
        logging.lastResort.handle(logging.makeLogRecord({"msg": text, "levelno": logging.ERROR, "name": __name__}))


# Those of this process, so that a forked child can reset its copies; the SDK does the same for its own.
_pipelines: Final[WeakSet[AppPipeline]] = WeakSet()


def _after_fork_in_child() -> None:
    for pipeline in list(_pipelines):
        pipeline.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _finish_with_child_process(pipeline: AppPipeline) -> None:
    """Have a child of multiprocessing or Celery score and export what it did: it ends without what runs at exit."""
    found = ref(pipeline)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(pipeline, _flush, args=(found,), exitpriority=0)
    celery = sys.modules.get("celery.signals")
    if celery is not None:
        # A process of its prefork pool; where there is none nobody sends this.
        celery.worker_process_shutdown.connect(partial(_flush, found), weak=False, dispatch_uid=id(pipeline))


def _flush(pipeline: ref[AppPipeline], **_said: object) -> None:
    if (found := pipeline()) is not None:
        found.flush(_CHILD_END)


def _scorers_of(given: Iterable[object]) -> list[Scorer]:
    if isinstance(given, str) or callable(given):
        return as_scorers(given)  # says what is wrong with it
    found: list[object] = []
    for item in given:
        found += load_scorers([item]) if isinstance(item, str | ScorerSpec) else [item]
    return as_scorers(found)
