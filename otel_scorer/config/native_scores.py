"""The score APIs of a configuration: their writers, started and stopped together."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from otel_scorer.config.native import LangfuseExporter, MlflowExporter, NativeExporter, PhoenixExporter
from otel_scorer.encoders.native import langfuse_score, mlflow_assessment, phoenix_annotation
from otel_scorer.pipeline.verdicts.native_sink import NativeSink
from otel_scorer.transport.native_apis import LangfuseApi, MlflowApi, PhoenixApi
from otel_scorer.transport.native_client import JsonClient
from otel_scorer.transport.native_delivery import ScoreDelivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_scorer.config.model import Config
    from otel_scorer.encoders.verdict import Verdict
    from otel_scorer.transport.dead_letters import DeadLetterFiles
    from otel_scorer.transport.native_score import NativeScore, ScoreApi

__all__ = ["NativeScores", "encoder_of", "open_api"]

_Encode: TypeAlias = "Callable[[Verdict, str, str | None], bytes | None]"
_KINDS: Final[dict[type[NativeExporter], tuple[Callable[[JsonClient], ScoreApi], _Encode]]] = {
    PhoenixExporter: (PhoenixApi, phoenix_annotation),
    MlflowExporter: (MlflowApi, mlflow_assessment),
    LangfuseExporter: (LangfuseApi, langfuse_score),
}


def open_api(exporter: NativeExporter) -> ScoreApi:
    """
    Return what sends scores to a backend; connections are opened when something is sent.

    Raises:
        ConfigError: A certificate cannot be used.
    """
    make_api, _ = _KINDS[type(exporter)]
    client = JsonClient(
        exporter.endpoint,
        headers=exporter.all_headers(),
        connections=exporter.connections,
        tls=exporter.tls.files,
    )
    return make_api(client)


def encoder_of(exporter: NativeExporter) -> _Encode:
    """Return what makes the body for a verdict, the id of its trace and of its span; None: there is no place for it."""
    _, encode = _KINDS[type(exporter)]
    return encode


class NativeScores:
    """
    Everything between verdicts and score APIs.

    Args:
        config: Names the APIs.
        letters: Where scores go that are given up; stays open.
        put: Writes down scores for the API of a name before they are offered to it; None: they are offered at once.

    Attributes:
        sinks: What takes verdicts, one for each API.
        deliveries: What sends scores, by name.

    Raises:
        ConfigError: A certificate or a file for dead letters cannot be used.
    """

    def __init__(
        self,
        config: Config,
        letters: DeadLetterFiles,
        put: Callable[[str, Iterable[NativeScore]], None] | None = None,
    ) -> None:
        self._letters = letters
        self._is_spooled = put is not None
        self.deliveries: dict[str, ScoreDelivery] = {}
        sinks: list[NativeSink] = []
        for name, exporter in config.exporters.items():
            if isinstance(exporter, NativeExporter):
                delivery = self._delivery(name, exporter)
                self.deliveries[name] = delivery
                offer = delivery.offer if put is None else partial(put, name)
                sinks.append(NativeSink(name, encoder_of(exporter), offer))
        self.sinks = tuple(sinks)

    def start(self) -> None:
        """Begin to send."""
        for delivery in self.deliveries.values():
            delivery.start()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits, for so many seconds at most, and return whether that is so."""
        deadline = time.monotonic() + timeout
        return all(delivery.flush(deadline - time.monotonic()) for delivery in self.deliveries.values())

    def shutdown(self, timeout: float) -> bool:
        """Send what waits, for so many seconds at most, and return whether all of it was sent."""
        deadline = time.monotonic() + timeout
        clean = True
        for delivery in self.deliveries.values():
            clean &= delivery.shutdown(max(0.0, deadline - time.monotonic()))
        return clean

    def _delivery(self, name: str, exporter: NativeExporter) -> ScoreDelivery:
        return ScoreDelivery(
            open_api(exporter),
            name,
            retry=exporter.retry_on_failure.policy(is_spooled=self._is_spooled),
            trace_timeout=exporter.trace_timeout,
            queue_size=exporter.sending_queue.queue_size,
            timeout=exporter.timeout,
            threads=exporter.connections,
            dead_letters=self._letters.open(exporter.dead_letters),
        )
