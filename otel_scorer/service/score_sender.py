"""`score --send`: what scorers say of recorded traces, as evaluation spans for a backend that has these traces."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from otel_scorer.config import FileExporter, OtlpExporter, exporters_from_urls, load_config
from otel_scorer.config.destinations import destination
from otel_scorer.encoders.verdict import Explanations
from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.verdicts.emission import Emission, Emitter
from otel_scorer.telemetry import counters
from otel_scorer.transport.delivery import Delivery, Stopping
from otel_scorer.transport.endpoints import Lane
from otel_scorer.transport.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.assembler import ClosedTrace
    from otel_scorer.transport.endpoints import Destination

__all__ = ["ScoreSender", "Sent"]

# Traces whose verdicts share a request. Scoring waits while it is sent.
_TRACES: Final = 100
_REQUEST_SIZE: Final = 4 << 20
_TIMEOUT: Final = 10.0
# Somebody waits for the command: a backend that is away for longer than this, in seconds, is not waited for.
_PATIENCE: Final = 30.0
# Recorded traces come from files, so any address may be sent to.
_NOWHERE: Final = {f"receivers.otlp.protocols.{name}.endpoint": "127.0.0.1:0" for name in ("grpc", "http")}


class Sent(NamedTuple):
    """What became of verdicts: how many the backend took, of how many."""

    taken: int
    total: int


class ScoreSender:
    """
    Sends verdicts as evaluation spans, with the ids that the sidecar gives them, on the caller's thread.

    Args:
        to: The backend.
        emission: How verdicts are written.
        retry: What to do about failures that may pass.
    """

    def __init__(self, to: Destination, emission: Emission, *, retry: RetryPolicy | None = None) -> None:
        self.name = to.name
        self._senders = set(to.senders.values())
        self._emitter = Emitter(emission, self._deliver)
        self._delivery = Delivery(
            to.senders[Lane.SCORES],
            Lane.SCORES,
            to.name,
            retry=retry or replace(to.retry or RetryPolicy(), max_elapsed=_PATIENCE),
            timeout=to.timeout or _TIMEOUT,
            request_size=to.request_size or _REQUEST_SIZE,
            stopping=Stopping(time.monotonic),
            clock=time.monotonic,
        )
        self._taken_before = self._count_taken()
        self._waiting = 0
        self._total = 0
        self._gave_up = False

    @classmethod
    def to(cls, url: str, config_file: str | Path | None = None) -> Self:
        """
        Return what sends to a URL; `OTEL_EXPORTER_OTLP_HEADERS` and so on count.

        Args:
            url: As for `serve --export`; a `file:PATH` too.
            config_file: Says how much of an explanation is sent, and how long evaluation spans last.

        Raises:
            ConfigError: The URL or the configuration cannot be used.
        """
        given = exporters_from_urls([url])
        [(name, settings)] = load_config(overrides={**_NOWHERE, "exporters": given}).exporters.items()
        if not isinstance(settings, OtlpExporter | FileExporter):
            raise ConfigError("--send: name a URL, or file:PATH; the console has the report")
        config = load_config(config_file, overrides=_NOWHERE)
        return cls(
            destination(name, settings),
            Emission(
                explanations=Explanations(config.explanations),
                span_lasts_ns=round(config.score_spans.duration * 1e9),
            ),
        )

    def add(self, trace: ClosedTrace[RawSpan], decisions: Sequence[Decision]) -> None:
        """Send the verdicts among decisions on a trace, now or with those of the next ones. Never raises."""
        self._emitter.emit(trace, decisions)
        self._waiting += 1
        if self._waiting >= _TRACES:
            self._waiting = 0
            self._emitter.flush()

    def finish(self) -> Sent:
        """Send the rest, close the connection, and return what became of everything."""
        self._emitter.finish()
        for sender in self._senders:
            sender.close()
        return Sent(self._count_taken() - self._taken_before, self._total)

    def _deliver(self, data: bytes, items: int, _since: Sequence[float]) -> None:
        self._total += items
        # A backend that took nothing is not asked again for each hundred traces.
        self._gave_up = self._gave_up or not self._delivery.deliver(data, items)

    def _count_taken(self) -> int:
        asked = {("lane", Lane.SCORES.value), ("destination", self.name)}
        return sum(
            amount for name, attributes, amount in counters() if name == "forwarder.sent" and asked <= set(attributes)
        )
