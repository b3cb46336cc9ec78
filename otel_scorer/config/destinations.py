"""From the exporters of a configuration to what sends spans and verdicts, in the sidecar and in an application."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from otel_scorer.config.exporters import ConsoleExporter, FileExporter, OtlpExporter
from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.verdicts.sinks import LogSink
from otel_scorer.transport.endpoints import Compression, Destination, Lane, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.config.exporters import SpanExporter
    from otel_scorer.config.model import Config
    from otel_scorer.pipeline.verdicts.sinks import VerdictSink

__all__ = ["destination", "otlp_destination", "verdict_sinks"]


def destination(name: str, exporter: SpanExporter, *, is_spooled: bool = False) -> Destination:
    """
    Return where an exporter sends to.

    Args:
        name: Its key.
        exporter: Its settings.
        is_spooled: Whether what waits for it is on disk.

    Raises:
        ConfigError: Its endpoint cannot be used.
    """
    match exporter:
        case ConsoleExporter():
            return connect("console")
        case FileExporter():
            return connect(f"file:{exporter.path}")
        case OtlpExporter():
            return otlp_destination(exporter, is_spooled=is_spooled)
    msg = f"exporters.{name}: unknown kind of destination"
    raise ConfigError(msg)


def otlp_destination(exporter: OtlpExporter, *, is_spooled: bool = False) -> Destination:
    """
    Return where an OTLP exporter sends to.

    Raises:
        ConfigError: Its endpoint cannot be used.
    """
    made = connect(
        exporter.url_of(exporter.endpoint),
        protocol=exporter.protocol,
        headers={key: value.get_secret_value() for key, value in exporter.headers.items()},
        compression=Compression(exporter.compression),
        tls=exporter.tls.files,
        logs_endpoint=exporter.url_of(exporter.logs_endpoint),
        metrics_endpoint=exporter.url_of(exporter.metrics_endpoint),
    )
    return replace(
        made,
        timeout=exporter.timeout,
        queue_size=exporter.sending_queue.queue_size,
        request_size=exporter.max_send_size,
        retry=exporter.retry_on_failure.policy(is_spooled=is_spooled),
    )


def verdict_sinks(
    config: Config, offer: Callable[[Lane, bytes, int], None], metrics: VerdictSink | None = None
) -> tuple[VerdictSink, ...]:
    """
    Return what takes verdicts beside spans and offers them; only who wants metrics loads what they take.

    Args:
        config: Which there are.
        offer: Takes requests.
        metrics: What counts verdicts, if that is here already.
    """
    sinks: list[VerdictSink] = []
    if "logs" in config.emit:
        sinks.append(LogSink(partial(offer, Lane.SCORE_LOGS), config.score_logs.attributes))
    if metrics is not None:
        sinks.append(metrics)
    elif "metrics" in config.emit:
        from otel_scorer.pipeline.verdicts.metrics import VerdictMetrics

        settings = config.score_metrics
        on_metrics = partial(offer, Lane.SCORE_METRICS)
        sinks.append(VerdictMetrics(on_metrics, interval=settings.interval, delta=settings.temporality == "delta"))
    return tuple(sinks)
