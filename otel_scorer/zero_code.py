"""
Scores without a line of code: what OpenTelemetry's auto-instrumentation finds by entry point, set by the environment.

`OTEL_TRACES_EXPORTER=otel_scorer` exports as `otlp` would, with scores. An exporter sees spans when they have ended, so
it has to wait until nothing more comes; the hook that runs after the instrumentations puts a processor in its place,
which counts. Nothing here may break the application: a mistake is logged once, and spans are exported without scores.

The hook is loaded by everybody who has otel_scorer installed, so what is heavy is imported where it is used.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_scorer.config import AppSettings
    from otel_scorer.pipeline.in_app.options import AppOptions, GivenOptions
    from otel_scorer.pipeline.in_app.pipeline import AppPipeline
    from otel_scorer.processor import ScoringSpanProcessor

__all__ = ["ScoringSpanExporter", "post_instrument"]

logger = logging.getLogger(__name__)

_SCORERS: Final = "OTEL_SCORER_SCORERS"
_EMIT: Final = "OTEL_SCORER_EMIT"
_CONFIG: Final = "OTEL_SCORER_CONFIG"
_FLUSH_ON_SIGTERM: Final = "OTEL_SCORER_FLUSH_ON_SIGTERM"
_EXPORTERS: Final = "OTEL_TRACES_EXPORTER"
_CONFIG_FILE: Final = "OTEL_CONFIG_FILE"
_OTLP_KEYS: Final = frozenset({"endpoint", "protocol", "headers", "timeout"})
# The SDK's processor has waited for a batch already.
_DELAY: Final = 0.5
_MILLISECONDS: Final = 1000


class ScoringSpanExporter(SpanExporter):
    """
    Exports as the OTLP exporter would, and scores. Made by the SDK for `OTEL_TRACES_EXPORTER=otel_scorer`.

    Args:
        scorers: References; a list, or one text with commas between them. Default: `OTEL_SCORER_SCORERS`, else those of
            the configuration file.
        emit: How verdicts are written, likewise. Default: `OTEL_SCORER_EMIT`, else what the file says, else events and
            attributes.
        config: The configuration file. Default: `OTEL_SCORER_CONFIG`, else none.
        otlp: In a file that `OTEL_CONFIG_FILE` names: `endpoint`, `protocol`, `headers` and `timeout` (milliseconds) of
            the OTLP exporter. Default: the `exporters` of the configuration file, else `OTEL_EXPORTER_OTLP_*`.
    """

    def __init__(
        self,
        scorers: Sequence[str] | str | None = None,
        emit: Sequence[str] | str | None = None,
        config: str | None = None,
        **otlp: Any,
    ) -> None:
        self._pipeline: AppPipeline | None = None
        self._processor: ScoringSpanProcessor | None = None
        self._taken_over_at = 0
        self._is_shut = False
        self._deciding = threading.Lock()  # guards who gets the spans: the pipeline or the processor
        _exporters.add(self)
        settings = problem = None
        try:
            settings = _settings(_list(scorers), _list(emit), config)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the application goes on
            problem = error
        try:
            self._exporter = _exporter(otlp, settings)
        except Exception as error:  # noqa: BLE001 - as above
            problem = error
            self._exporter = _otlp_exporter({})
        self._settings = settings if problem is None else None
        if problem is not None:
            _give_up(problem)

    @property
    def exports_spans(self) -> bool:
        """Whether spans leave through here, and not through the processor that took over."""
        return self._processor is None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans, or take them into scoring. Called by the SDK, on its own thread."""
        with self._deciding:
            if self._processor is None and self._pipeline is None and self._settings is not None:
                self._pipeline = self._new_pipeline(self._settings)
        if self._processor is not None:
            # What ended before the processor was there is all that it has not got.
            for span in spans:
                if (span.end_time or 0) < self._taken_over_at:
                    self._processor.on_end(span)
            return SpanExportResult.SUCCESS
        if self._pipeline is None or not self._has_begun(self._pipeline):
            return self._exporter.export(spans)
        self._pipeline.take(spans)
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait for verdicts on closed traces, and for the export of everything that need not wait for others."""
        if self._processor is not None:
            return True
        if self._pipeline is not None:
            return self._pipeline.flush(timeout_millis / _MILLISECONDS)
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Score and export what is there."""
        if self._is_shut or self._processor is not None:
            return
        self._is_shut = True
        if self._pipeline is not None:
            self._pipeline.shutdown(timeout_millis / _MILLISECONDS)
        else:
            self._exporter.shutdown()

    def take_over(self, provider: TracerProvider) -> bool:
        """
        Let a processor of the provider do the work, which sees spans start and so need not wait.

        Returns:
            Whether it does; not if there is nothing to score with, or spans are being scored already.
        """
        from otel_scorer.processor import ScoringSpanProcessor

        with self._deciding:
            if self._settings is None or self._pipeline is not None or self._processor is not None or self._is_shut:
                return False
            processor = ScoringSpanProcessor(
                self._exporter, self._settings.scorers, lazy=True, **self._settings.options
            )
            self._taken_over_at = time.time_ns()
            self._processor = processor
        provider.add_span_processor(processor)
        _finish_on_sigterm(processor)
        return True

    def after_fork(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._deciding = threading.Lock()

    def _has_begun(self, pipeline: AppPipeline) -> bool:
        if not pipeline.is_begun:
            try:
                pipeline.begin()
            except RuntimeError as error:  # Python 3.12.0 to 3.12.2 start no threads once the interpreter exits
                self._settings = self._pipeline = None
                _give_up(error)
                return False
        return True

    def _new_pipeline(self, settings: AppSettings) -> AppPipeline | None:
        from otel_scorer.config import environment_outlets, taught_reader
        from otel_scorer.dialects import default_reader
        from otel_scorer.pipeline.in_app.options import outlets_of
        from otel_scorer.pipeline.in_app.pipeline import AppPipeline
        from otel_scorer.pipeline.running.runner import DEFAULT_TIMEOUT
        from otel_scorer.pipeline.running.suppression import unrecorded

        try:
            dialects, store = settings.options.get("dialects"), settings.options.get("store")
            options = _quiet_options(settings)
            if settings.options.get("trace_scorers"):
                logger.warning("scoring.trace_scorers has no effect where spans are not counted: set %s", _SCORERS)
            return AppPipeline(
                self._exporter,
                settings.scorers,
                options,
                default_reader() if dialects is None else taught_reader(dialects),
                store=store,
                timeout=settings.options.get("timeout", DEFAULT_TIMEOUT),
                is_lazy=True,
                suppress=unrecorded,
                outlets=outlets_of(options, settings.options.get("outlets", environment_outlets)),
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong, the application goes on
            self._settings = None
            _give_up(error)
            return None


_exporters: Final[WeakSet[ScoringSpanExporter]] = WeakSet()


def _after_fork_in_child() -> None:
    for exporter in list(_exporters):
        exporter.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def post_instrument() -> None:
    """
    Have spans counted, so that a trace is scored when its last span has ended. Called by the auto-instrumentation.

    It does so for everybody who has otel_scorer installed, hence only if `OTEL_SCORER_SCORERS` is set.
    """
    if not os.environ.get(_SCORERS, "").strip():
        return
    try:
        _count_spans()
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the application
        _give_up(error)


def _count_spans() -> None:
    from otel_scorer.processor import ScoringSpanProcessor
    from otel_scorer.transport.sdk_exporter import exporters_of

    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        logger.warning("%s is set, and tracing is not: nothing is scored", _SCORERS)
        return
    ours = [exporter for exporter in exporters_of(provider) if isinstance(exporter, ScoringSpanExporter)]
    for exporter in ours:
        exporter.take_over(provider)
    if ours:
        return
    names = {name.strip() for name in os.environ.get(_EXPORTERS, "").split(",")}
    if os.environ.get(_CONFIG_FILE) or not any(name.startswith("otlp") for name in names):
        logger.warning(
            "%s is set, and spans do not leave through otel_scorer: nothing is scored. Set %s=otel_scorer, or name the "
            "exporter otel_scorer in the file of %s",
            _SCORERS, _EXPORTERS, _CONFIG_FILE,
        )  # fmt: skip
        return
    settings = _settings(None, None, None)
    options = _but(settings.options, "forwarding")
    processor = ScoringSpanProcessor(settings.exporter(), settings.scorers, export_spans=False, lazy=True, **options)
    provider.add_span_processor(processor)
    _finish_on_sigterm(processor)


def _finish_on_sigterm(processor: ScoringSpanProcessor) -> None:
    if os.environ.get(_FLUSH_ON_SIGTERM, "").strip().lower() not in {"true", "1", "yes"}:
        return
    try:
        processor.finish_on_sigterm()
    except ValueError:
        logger.warning("%s has no effect: this is not the main thread", _FLUSH_ON_SIGTERM)


def _settings(scorers: list[str] | None, emit: list[str] | None, config: str | None) -> AppSettings:
    """
    Put together what the arguments, the environment and the file say, in this order.

    Raises:
        ConfigError: Nothing says what to score with, or something in the file cannot be used.
        ValueError: There is no such way to write verdicts.
    """
    from otel_scorer.config import AppSettings, app_settings, otlp_exporter
    from otel_scorer.scorers.loading import ScorerSpec

    path = config or os.environ.get(_CONFIG, "").strip()
    settings = app_settings(path) if path else AppSettings([], {}, {}, lambda: otlp_exporter(os.environ))
    references = scorers or _list(os.environ.get(_SCORERS)) or []
    emit = emit or _list(os.environ.get(_EMIT))
    found = replace(
        settings,
        scorers=[ScorerSpec(reference) for reference in references] or settings.scorers,
        options={**settings.options, **({"emit": tuple(emit)} if emit else {})},
    )
    _quiet_options(found)  # says what is wrong with them
    if not found.scorers and found.options.get("store") is None:
        msg = f"no scorers are named: set {_SCORERS}, or {_CONFIG} to a file that names some"
        raise ConfigError(msg)
    return found


def _quiet_options(settings: AppSettings) -> AppOptions:
    from otel_scorer.pipeline.in_app.options import app_options

    given = {
        **_but(settings.options, "dialects", "outlets", "store", "timeout", "trace_scorers"),
        **settings.graces,
        "schedule_delay": _DELAY,
    }
    return app_options(cast("GivenOptions", given), counts=False, scorers_change=True)


def _exporter(otlp: dict[str, Any], settings: AppSettings | None) -> SpanExporter:
    unknown = sorted(otlp.keys() - _OTLP_KEYS)
    if unknown:
        msg = f"unknown key {unknown[0]}; known are scorers, emit, config, {', '.join(sorted(_OTLP_KEYS))}"
        raise ConfigError(msg)
    given = {key: value for key, value in otlp.items() if value is not None}
    if settings is not None and not given:
        return settings.exporter()
    if "timeout" in given:
        given["timeout"] = float(given["timeout"]) / _MILLISECONDS
    if isinstance(given.get("headers"), list):  # as the other exporters of such a file have them
        given["headers"] = {str(pair["name"]): str(pair["value"]) for pair in given["headers"]}
    return _otlp_exporter(os.environ, **given)


def _otlp_exporter(environ: Mapping[str, str], **given: Any) -> SpanExporter:
    from otel_scorer.config import otlp_exporter

    return otlp_exporter(environ, **given)


def _list(given: Sequence[str] | str | None) -> list[str] | None:
    if given is None:
        return None
    items = given.split(",") if isinstance(given, str) else given
    return [item.strip() for item in items if item.strip()]


def _but(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def _give_up(error: Exception) -> None:
    from otel_scorer.pipeline.in_app.pipeline import report_mistake

    report_mistake(error)
