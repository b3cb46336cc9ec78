"""
Scores in the application: `provider.add_span_processor(ScoringSpanProcessor(OTLPSpanExporter(), scorers=[...]))`.

The application's threads only count: no scorer, no encoder and no exporter runs on them, and nothing that goes wrong
here is seen there.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import INVALID_TRACE_ID

from otel_scorer.dialects import default_reader
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits
from otel_scorer.pipeline.in_app.intake import MANY_PENDING, MAX_PENDING
from otel_scorer.pipeline.in_app.options import app_options, outlets_of
from otel_scorer.pipeline.in_app.pipeline import AppPipeline
from otel_scorer.pipeline.in_app.signals import finish_on_sigterm
from otel_scorer.pipeline.running.suppression import below_scorer, suppressed
from otel_scorer.telemetry import count
from otel_scorer.transport.sdk_exporter import destination_of, exporters_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span
    from opentelemetry.sdk.trace.export import SpanExporter

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Reader
    from otel_scorer.pipeline.verdicts.sinks import VerdictOutlets

__all__ = ["ScoringSpanProcessor"]

logger = logging.getLogger(__name__)

EmitKind: TypeAlias = Literal["events", "attributes", "evaluation_span", "logs", "metrics", "native"]
ForwardingKind: TypeAlias = Literal["hold_root", "hold_trace", "passthrough"]

# A SpanContext is a tuple, and its properties cost as much as everything else that is done for a span.
_IS_REMOTE: Final = 2
_TRACE_FLAGS: Final = 3
_SAMPLED: Final = 1
_LIMITS: Final = AssemblyLimits()
_TRACE_ID_TEXT: Final = re.compile("[0-9a-fA-F]{32}")
_LARGEST_TRACE_ID: Final = (1 << 128) - 1


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
        emit: How verdicts are written, together: `events` and `attributes` on the scored span, `evaluation_span`;
            beside spans `logs` and `metrics`, to where `OTEL_EXPORTER_OTLP_*` says, and `native`, over the score APIs
            that a configuration file names: see `from_config`. Default: events and attributes; `evaluation_span` with
            `export_spans=False`.
        forwarding: `hold_root`: spans leave when they end, the local root with its verdicts. `hold_trace`: all
            spans wait. `passthrough`: none does; every verdict becomes an evaluation span.
        export_spans: Whether spans are exported at all.
        explanations: `full`, `capped` (2,048 characters) or `off`: they may quote user data. `stack_traces`: full, and
            errors with their stack trace.
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
        trace_scorers: Whether spans of what scorers do (model calls, HTTP requests) are recorded, as traces of their
            own, and exported. They are never scored.
        shutdown_timeout: Seconds that `shutdown` may take.
        lazy: Load what `scorers` and `store` refer to with the first span, on a thread of ours, not now. What cannot be
            loaded is then logged once, and spans are exported without scores.
        dialects: What otel_scorer should know about your spans: the section `dialects` of the configuration as a
            mapping, or a configuration file that has one (docs/dialects.md).
        outlets: Makes what sends verdicts beside spans, from the kinds in `emit` that are. `from_config` sees to that.

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
        explanations: Literal["stack_traces", "full", "capped", "off"] = "full",
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
        trace_scorers: bool = False,
        shutdown_timeout: float = 30.0,
        lazy: bool = False,
        dialects: Mapping[str, Any] | str | Path | None = None,
        outlets: Callable[[Collection[str]], VerdictOutlets] | None = None,
    ) -> None:
        _check_exporter(exporter)
        if timeout < 0:
            msg = f"timeout must be positive, got {timeout!r}"
            raise ValueError(msg)
        options = app_options(
            {
                "emit": emit,
                "forwarding": forwarding,
                "export_spans": export_spans,
                "explanations": explanations,
                "concurrency": concurrency,
                "hold_deadline": hold_deadline,
                "root_cap": root_cap,
                "max_age": max_age,
                "max_traces": max_traces,
                "max_spans_per_trace": max_spans_per_trace,
                "max_bytes_per_trace": max_bytes_per_trace,
                "max_queue_size": max_queue_size,
                "schedule_delay": schedule_delay,
            },
            scorers_change=store is not None or lazy,
        )
        self._exporter = exporter
        self._exports_spans = export_spans
        self._shutdown_timeout = shutdown_timeout
        self._pipeline = AppPipeline(
            exporter,
            scorers,
            options,
            default_reader() if dialects is None else _taught(dialects),
            store=store,
            timeout=timeout,
            is_lazy=lazy,
            suppress=below_scorer if trace_scorers else suppressed,
            outlets=outlets_of(options, outlets or _environment_outlets),
        )
        self._has_looked_around = False
        # In a forked process: spans that were started here, with a time from before.
        self._backdated: set[int] = set()

    @classmethod
    def from_config(cls, path: str | Path, exporter: SpanExporter | None = None, **options: Any) -> Self:
        """
        Return a processor that does what a configuration file of the sidecar says.

        What has no meaning inside an application (receivers, workers, spool, status page) does not count. What the file
        does not say is as in the application: `emit` is events and attributes, and the root waits for its verdicts.

        Args:
            path: The YAML file.
            exporter: Where everything goes. Default: the `exporters` of the file, else as `OTEL_EXPORTER_OTLP_*` says.
            options: Win over the file; as for the constructor.

        Raises:
            ConfigError: Something in it cannot be used; the message names the setting and its line.
        """
        from otel_scorer.config import app_settings

        settings = app_settings(path)
        given: dict[str, Any] = {"scorers": settings.scorers, **settings.options, **options}
        return cls(settings.exporter() if exporter is None else exporter, **given)

    @property
    def span_exporter(self) -> SpanExporter:
        """The exporter; of the same name as BatchSpanProcessor's."""
        return self._exporter

    @property
    def exports_spans(self) -> bool:
        """Whether spans are exported, and not verdicts only."""
        return self._exports_spans

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's interface
        """Count a span in. Called by the SDK."""
        pipeline = self._pipeline
        if pipeline.is_shut:
            return
        try:
            context = span.context
            if context is None or not context[_TRACE_FLAGS] & _SAMPLED:
                return
            if pipeline.forked_at is not None and (span.start_time or 0) < pipeline.forked_at:
                self._backdated.add(context.span_id)
            if not pipeline.is_begun:
                self._look_around(span)
            engine, parent = pipeline.engine, span.parent
            if parent is None or parent[_IS_REMOTE]:
                engine.begun(span, context)
            elif not engine.is_off and len(engine.intake.pending) < MAX_PENDING:
                engine.intake.pending.append((span,))
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            pipeline.complain("on_start", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Take an ended span. Called by the SDK, on whatever thread ended it."""
        pipeline = self._pipeline
        if pipeline.is_shut:
            return
        try:
            context = span.context
            if context is None or not context[_TRACE_FLAGS] & _SAMPLED:
                return
            if pipeline.forked_at is not None and self._is_inherited(span, pipeline.forked_at):
                count("processor.dropped", reason="inherited")
                return
            if not pipeline.is_begun and not pipeline.begin():
                pipeline.note(span)
                return
            intake = pipeline.engine.intake
            if len(intake.pending) < MAX_PENDING:
                intake.pending.append(span)
            else:
                count("processor.dropped", reason="intake_full")
            if intake.is_asleep or len(intake.pending) >= MANY_PENDING:
                intake.attend()
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
            pipeline.complain("on_end", error)

    def flush_trace(self, trace_id: str | int) -> bool:
        """
        Close the open units of a trace now and have them scored. What ends later of them is exported as it is.

        Args:
            trace_id: 32 hex digits, or the number.

        Returns:
            Whether there was something to score.

        Raises:
            ValueError: This is no trace id.
            TypeError: Likewise.
        """
        return self._pipeline.close_trace(_number(trace_id))

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
            ValueError: This is no trace id, or no time.
            TypeError: Likewise.
        """
        if not timeout >= 0:
            msg = f"timeout must be a number of seconds, got {timeout!r}"
            raise ValueError(msg)
        decisions = self._pipeline.wait(_number(trace_id), timeout)
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
        return self._pipeline.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Score and export what is there, open units too. Spans that start or end after this are ignored."""
        self._pipeline.shutdown(self._shutdown_timeout)

    def finish_on_sigterm(self) -> None:
        """
        Have SIGTERM wait until what is there is scored and exported, `shutdown_timeout` at most.

        By default it ends a Python program at once, with all spans that wait for export. Where the application handles
        the signal, its handler comes next. To be called on the main thread.

        Raises:
            ValueError: This is not the main thread.
        """
        finish_on_sigterm(self._finish)

    def _finish(self, is_the_end: bool) -> None:  # noqa: FBT001 - see finish_on_sigterm
        if is_the_end:
            self.shutdown()
        else:
            self._pipeline.flush(self._shutdown_timeout)

    def _is_inherited(self, span: ReadableSpan, forked_at: int) -> bool:
        """Whether a span was started in the process that this one was forked off from, which exports it."""
        if span.context is None or (span.start_time or 0) >= forked_at:
            return False
        if span.context.span_id in self._backdated:
            self._backdated.discard(span.context.span_id)
            return False
        return True

    def _look_around(self, span: Span) -> None:
        """At the first span: follow the store; warn if another processor of the provider exports to the same place."""
        self._pipeline.begin()
        if self._has_looked_around or not self._exports_spans:
            return
        self._has_looked_around = True
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


def _environment_outlets(emit: Collection[str]) -> VerdictOutlets:
    from otel_scorer.config import environment_outlets

    return environment_outlets(emit)


def _taught(dialects: Mapping[str, Any] | str | Path) -> Reader:
    from otel_scorer.config import taught_reader

    return taught_reader(dialects)


def _check_exporter(exporter: object) -> None:
    if isinstance(exporter, SpanProcessor):
        msg = f"{type(exporter).__name__} is a processor: give its exporter, ScoringSpanProcessor batches by itself"
        raise TypeError(msg)
    if not callable(getattr(exporter, "export", None)):
        msg = f"exporter must be a SpanExporter such as OTLPSpanExporter(), got {exporter!r}"
        raise TypeError(msg)


def _number(trace_id: object) -> int:
    """
    Return a trace id as a number.

    Raises:
        ValueError: It is none.
        TypeError: It is neither text nor a number.
    """
    msg = f"trace_id must be 32 hex digits or the number of a trace, got {trace_id!r}"
    if isinstance(trace_id, str):
        if not _TRACE_ID_TEXT.fullmatch(trace_id):
            raise ValueError(msg)
        number = int(trace_id, 16)
    elif isinstance(trace_id, int) and not isinstance(trace_id, bool):
        number = trace_id
    else:
        raise TypeError(msg)
    if not INVALID_TRACE_ID < number <= _LARGEST_TRACE_ID:
        raise ValueError(msg)
    return number
