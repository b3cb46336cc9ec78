"""
Scores in the application: `provider.add_span_processor(ScoringSpanProcessor(OTLPSpanExporter(), scorers=[...]))`.

The application's threads only count: no scorer, no encoder and no exporter runs on them, and nothing that goes wrong
here is seen there.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast
from weakref import WeakSet

from opentelemetry.sdk.trace import SpanProcessor

from otel_scorer.dialects import default_reader
from otel_scorer.encoders.verdict import Explanations
from otel_scorer.pipeline.app_engine import AppEngine
from otel_scorer.pipeline.app_options import QUEUE_SIZE, AppOptions, emit_kinds, forwarding_of
from otel_scorer.pipeline.assembler import AssemblyLimits
from otel_scorer.pipeline.emission import Emission
from otel_scorer.pipeline.engine import Forwarding
from otel_scorer.pipeline.followed import StoreFollower
from otel_scorer.pipeline.selection import Selection, Selector
from otel_scorer.pipeline.suppression import suppressed
from otel_scorer.scorers.base import as_scorers
from otel_scorer.scorers.turn import Turn
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit
from otel_scorer.transport.sdk_exporter import SdkExport, destination_of, exporters_beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Reader

__all__ = ["ScoringSpanProcessor"]

logger = logging.getLogger(__name__)

EmitKind: TypeAlias = Literal["events", "attributes", "evaluation_span"]
ForwardingKind: TypeAlias = Literal["hold_root", "hold_trace", "passthrough"]

# A SpanContext is a tuple, and its properties cost as much as everything else that is done for a span.
_TRACE_FLAGS: Final = 3
_SAMPLED: Final = 1
_LIMITS: Final = AssemblyLimits()
# Of the time for a shutdown, what scorers may use up; the rest is for the export of what they said.
_SCORERS_SHARE: Final = 5 / 6
_FOLLOWER_END: Final = 0.5
# How many spans the SDK's queue must take at once, per span that one trace may release at once.
_ROOM: Final = 2


class ScoringSpanProcessor(SpanProcessor):
    """
    Scores every unit (trace id, local root) when its last open span has ended, and exports spans and verdicts.

    With `export_spans=True` it takes the place of a BatchSpanProcessor: spans that wait for verdicts leave as enriched
    copies. With `export_spans=False` it stands beside one, and only verdicts go to `exporter`, as evaluation spans.

    Args:
        exporter: Any exporter of the SDK's.
        scorers: Scorers, plain callables, or references as in the configuration file (`package.module:attribute`,
            `path/to/file.py`, the name of a built-in).
        store: A store of registered scorers. Those that are started there run here too, after `scorers`; a change is
            followed within a second, on a thread of ours.
        emit: How verdicts are written: `events` and `attributes` on the scored span, `evaluation_span`.
            Default: events and attributes; `evaluation_span` with `export_spans=False`.
        forwarding: `hold_root`: spans leave when they end, the local root with its verdicts. `hold_trace`: all
            spans wait. `passthrough`: none does; every verdict becomes an evaluation span.
        export_spans: Whether spans are exported at all.
        explanations: `full`, `capped` (2,048 characters) or `off`: they may quote user data.
        timeout: Seconds for one scorer on one target, unless the scorer says otherwise; 0: no limit.
        concurrency: Coroutine scorers that run at the same time.
        hold_deadline: Seconds that spans wait for verdicts once their unit is closed.
        root_cap: Seconds that spans which outlive the local root keep its unit open.
        max_age: Seconds after which a unit is closed whatever is still open.
        max_traces: Open units; beyond, heavy old ones are closed early.
        max_spans_per_trace: Closes a unit when reached.
        max_bytes_per_trace: The same by size, which is estimated from the number of attributes.
        max_queue_size: Spans that may wait for export, and closed units that may wait for scorers. Default:
            `OTEL_BSP_MAX_QUEUE_SIZE` or 2048 of each, more where whole traces are held.
        schedule_delay: Seconds after which an incomplete batch is exported. Default: `OTEL_BSP_SCHEDULE_DELAY`, or 5.
        shutdown_timeout: Seconds that `shutdown` may take.
        dialects: What otel_scorer should know about your spans: the section `dialects` of the configuration as a
            mapping, or a configuration file that has one (docs/dialects.md).

    Raises:
        ValueError: Options contradict each other.
        TypeError: `exporter` is none.
        ScorerError: Something in `scorers` is none.
        ConfigError: A reference cannot be loaded, a filter cannot be compiled, or `dialects` or `store` cannot be used.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        scorers: Iterable[object] = (),
        *,
        store: str | Path | None = None,
        emit: Iterable[EmitKind] | None = None,
        forwarding: ForwardingKind = "hold_root",
        export_spans: bool = True,
        explanations: Literal["full", "capped", "off"] = "full",
        timeout: float = 30.0,
        concurrency: int = 64,
        hold_deadline: float = 5.0,
        root_cap: float = _LIMITS.root_cap,
        max_age: float = _LIMITS.max_age,
        max_traces: int = _LIMITS.max_traces,
        max_spans_per_trace: int = _LIMITS.max_spans_per_trace,
        max_bytes_per_trace: int = _LIMITS.max_bytes_per_trace,
        max_queue_size: int | None = None,
        schedule_delay: float | None = None,
        shutdown_timeout: float = 30.0,
        dialects: Mapping[str, Any] | str | Path | None = None,
    ) -> None:
        _check_exporter(exporter)
        _check_positive(
            concurrency=concurrency, max_age=max_age, max_traces=max_traces, max_spans_per_trace=max_spans_per_trace,
            max_bytes_per_trace=max_bytes_per_trace, max_queue_size=1 if max_queue_size is None else max_queue_size,
            schedule_delay=1 if schedule_delay is None else schedule_delay,
        )  # fmt: skip
        _check_positive(or_zero=True, timeout=timeout, hold_deadline=hold_deadline, root_cap=root_cap)
        self._emission = Emission(emit_kinds(emit, export_spans=export_spans), Explanations(explanations))
        queue_size = max_queue_size
        mode = forwarding_of(forwarding)
        if queue_size is None and mode is Forwarding.HOLD_TRACE:
            queue_size = _ROOM * max_spans_per_trace
        self._options = AppOptions(
            limits=AssemblyLimits(
                root_cap=root_cap,
                max_age=max_age,
                max_traces=max_traces,
                max_spans_per_trace=max_spans_per_trace,
                max_bytes_per_trace=max_bytes_per_trace,
            ),
            forwarding=mode,
            emission=self._emission,
            hold_deadline=hold_deadline,
            exports_spans=export_spans,
            queue_size=max_queue_size or QUEUE_SIZE,
            concurrency=concurrency,
            scorers_change=store is not None,
        )
        self._selector = Selector(_scorers_of(scorers), default_timeout=timeout, suppress=suppressed)
        self._given = self._selector.selections
        select = partial(Selection, default_timeout=timeout, suppress=suppressed)
        self._follower = None if store is None else StoreFollower(Path(store), select, self._use)
        if self._follower is not None:
            self._selector = Selector.of([*self._given, *self._follower.load()])
        self._exporter = exporter
        self._export = SdkExport(exporter, queue_size=queue_size, delay=schedule_delay)
        self._reader = default_reader() if dialects is None else _taught(dialects)
        self._engine = self._new_engine()
        self._shutdown_timeout = shutdown_timeout
        self._is_shut = False
        self._has_looked_around = False
        self._log_limit = LogLimit()
        # Spans that a parent process had open when this one was forked: the parent exports them.
        self._inherited: frozenset[int] = frozenset()
        _processors.add(self)

    @property
    def span_exporter(self) -> SpanExporter:
        """The exporter; of the same name as BatchSpanProcessor's."""
        return self._exporter

    @property
    def exports_spans(self) -> bool:
        """Whether spans are exported, and not verdicts only."""
        return self._options.exports_spans

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's interface
        """Count a span in. Called by the SDK."""
        if self._is_shut:
            return
        try:
            context = span.context
            if context is None or not context[_TRACE_FLAGS] & _SAMPLED:
                return
            if not self._has_looked_around:
                self._look_around(span)
            self._engine.started(span, context)
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            self._complain("on_start", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Take an ended span. Called by the SDK, on whatever thread ended it."""
        if self._is_shut:
            return
        try:
            context = span.context
            if context is None or not context[_TRACE_FLAGS] & _SAMPLED:
                return
            if self._inherited and context.span_id in self._inherited:
                count("processor.dropped", reason="inherited")
                return
            self._engine.ended(span, context)
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            self._complain("on_end", error)

    def flush_trace(self, trace_id: str | int) -> bool:
        """
        Close the open units of a trace now and have them scored. What ends later of them is exported as it is.

        Args:
            trace_id: 32 hex digits, or the number.

        Returns:
            Whether there was something to score.
        """
        return not self._is_shut and self._engine.close_trace(_number(trace_id))

    def wait_for_scores(self, trace_id: str | int, timeout: float = 30.0) -> list[Decision]:
        """
        Wait until every unit of a trace is closed and decided; not for a scorer to call.

        Args:
            trace_id: 32 hex digits, or the number.
            timeout: Seconds.

        Returns:
            What became of each scorer, with its feedbacks; nothing for a trace that was not scored here lately.

        Raises:
            TimeoutError: It took longer.
        """
        decisions = self._engine.wait(_number(trace_id), timeout)
        if decisions is None:
            msg = f"Trace {trace_id} was not scored within {timeout:g} s"
            raise TimeoutError(msg)
        return decisions

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """
        Wait for the verdicts on everything that has ended, and for its export.

        Args:
            timeout_millis: Milliseconds to wait; work goes on after that.

        Returns:
            Whether it was done in time.
        """
        if self._is_shut:
            return True
        deadline = time.monotonic() + timeout_millis / 1000
        try:
            is_decided = self._engine.flush(deadline - time.monotonic())
            return self._export.flush(deadline - time.monotonic()) and is_decided
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            self._complain("force_flush", error)
            return False

    def shutdown(self) -> None:
        """Score and export what is there, open units too. Spans that start or end after this are ignored."""
        if self._is_shut:
            return
        self._is_shut = True
        deadline = time.monotonic() + self._shutdown_timeout
        if self._follower is not None:
            self._follower.shutdown(_FOLLOWER_END)
        try:
            if not self._engine.shutdown(self._shutdown_timeout * _SCORERS_SHARE):
                logger.warning("Some verdicts were not in within the time for shutting down; they are lost")
            self._export.shutdown(deadline - time.monotonic())
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            self._complain("shutdown", error)

    def _use(self, registered: Iterable[Selection]) -> None:
        self._selector = Selector.of([*self._given, *registered])
        self._engine.selector = self._selector

    def _new_engine(self) -> AppEngine:
        return AppEngine(self._options, self._selector, self._reader, self._export.send)

    def after_fork(self) -> None:
        """Start afresh in a forked child: empty buffers, new locks, and new threads with the first span."""
        self._inherited |= self._engine.known_spans()
        # A scorer that was running in the parent will never come back here.
        running = [selection.prepared for selection in self._selector.selections]
        turns = {id(prepared.turn): Turn() for prepared in running}
        for prepared in running:
            if prepared.turn is not None:
                prepared.turn = turns[id(prepared.turn)]
        self._log_limit = LogLimit()
        self._export.after_fork()
        self._engine = self._new_engine()
        if self._follower is not None:
            self._follower.after_fork()
            self._has_looked_around = False

    def _look_around(self, span: Span) -> None:
        """At the first span: follow the store; warn if another processor of the provider exports to the same place."""
        self._has_looked_around = True
        if self._follower is not None:
            self._follower.start()
        if not self._options.exports_spans:
            return
        ours = destination_of(self._exporter)
        for exporter in exporters_beside(self, span):
            if exporter is self._exporter or (ours is not None and destination_of(exporter) == ours):
                count("processor.warnings", reason="exported_twice")
                logger.warning(
                    "Spans are exported twice: by ScoringSpanProcessor and by another processor with %s. Remove that "
                    "one, or use ScoringSpanProcessor(..., export_spans=False) beside it.",
                    type(exporter).__name__,
                )
                return

    def _complain(self, where: str, error: Exception) -> None:
        count("processor.errors", where=where)
        if self._log_limit.allows(where, type(error).__name__):
            logger.error("%s of ScoringSpanProcessor failed; the application goes on", where, exc_info=error)


# Processors of this process, so that a forked child can reset its copies; the SDK does the same for its own.
_processors: Final[WeakSet[ScoringSpanProcessor]] = WeakSet()


def _after_fork_in_child() -> None:
    for processor in list(_processors):
        processor.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _taught(dialects: Mapping[str, Any] | str | Path) -> Reader:
    from otel_scorer.config import taught_reader

    return taught_reader(dialects)


def _scorers_of(given: Iterable[object]) -> list[Any]:
    from otel_scorer.scorers.loading import load_scorers

    if isinstance(given, str) or callable(given):
        return as_scorers(cast("Any", given))  # says what is wrong with it
    found: list[Any] = []
    for item in given:
        found += load_scorers([item]) if isinstance(item, str) else [item]
    return as_scorers(found)


def _check_exporter(exporter: object) -> None:
    if isinstance(exporter, SpanProcessor):
        msg = f"{type(exporter).__name__} is a processor: give its exporter, ScoringSpanProcessor batches by itself"
        raise TypeError(msg)
    if not callable(getattr(exporter, "export", None)):
        msg = f"exporter must be a SpanExporter such as OTLPSpanExporter(), got {exporter!r}"
        raise TypeError(msg)


def _check_positive(*, or_zero: bool = False, **values: float) -> None:
    for name, value in values.items():
        if value < 0 or (not value and not or_zero):
            msg = f"{name} must be positive, got {value!r}"
            raise ValueError(msg)


def _number(trace_id: str | int) -> int:
    return int(trace_id, 16) if isinstance(trace_id, str) else trace_id
