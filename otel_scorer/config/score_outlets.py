"""
Verdicts beside spans, from an application: as log records, as metrics, over score APIs, as the sidecar sends them.

The places are the exporters of the configuration file; where it names none, what `OTEL_EXPORTER_OTLP_*` says.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from otel_scorer.config.destinations import destination, verdict_sinks
from otel_scorer.config.exporters import ConsoleExporter, FileExporter, OtlpExporter
from otel_scorer.config.native_scores import NativeScores
from otel_scorer.config.reading import load_config
from otel_scorer.errors import ConfigError
from otel_scorer.pipeline.verdicts.emission import Emit
from otel_scorer.transport.dead_letters import DeadLetterFiles
from otel_scorer.transport.endpoints import Lane
from otel_scorer.transport.forwarder import Forwarder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from otel_scorer.config.model import Config
    from otel_scorer.pipeline.verdicts.sinks import VerdictSink
    from otel_scorer.transport.endpoints import Destination

__all__ = ["ScoreOutlets", "exporters_of_environment"]

_LANES: Final = {Emit.LOGS: Lane.SCORE_LOGS, Emit.METRICS: Lane.SCORE_METRICS}
_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class ScoreOutlets:
    """
    What takes verdicts and sends them, in one process. Nothing is sent before `start`.

    Args:
        config: The configuration file, with exporters that count.
        emit: Of the ways to write verdicts, those that count here.

    Attributes:
        sinks: What takes verdicts.

    Raises:
        ConfigError: A place cannot be used, or there is none for a way to write verdicts.
    """

    def __init__(self, config: Config, emit: Collection[str]) -> None:
        self._letters = DeadLetterFiles()
        lanes = [lane for kind, lane in _LANES.items() if kind in emit]
        self._forwarder = Forwarder(list(self._destinations(config, lanes)))
        for kind, lane in _LANES.items():
            if kind in emit and not self._forwarder.takes(lane):
                msg = f"emit: no exporter takes {kind}: set {kind}_endpoint of one of them, or leave {kind} out"
                raise ConfigError(msg)
        sinks = verdict_sinks(config.model_copy(update={"emit": [*emit]}), self._forwarder.offer)
        self._natives = NativeScores(config, self._letters) if Emit.NATIVE in emit else None
        if self._natives is not None and not self._natives.sinks:
            raise ConfigError("emit: native needs a score API among the exporters of a configuration file")
        self.sinks: tuple[VerdictSink, ...] = (*sinks, *(() if self._natives is None else self._natives.sinks))

    def start(self) -> None:
        """Begin to send."""
        self._forwarder.start()
        if self._natives is not None:
            self._natives.start()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is sent, for so many seconds at most, and return whether it is."""
        deadline = time.monotonic() + timeout
        is_sent = self._forwarder.flush(timeout)
        if self._natives is not None:
            is_sent &= self._natives.flush(deadline - time.monotonic())
        return is_sent

    def shutdown(self, timeout: float) -> bool:
        """Send what waits, for so many seconds at most, and return whether all of it was sent."""
        deadline = time.monotonic() + timeout
        is_sent = self._forwarder.shutdown(max(0.0, timeout))
        if self._natives is not None:
            is_sent &= self._natives.shutdown(max(0.0, deadline - time.monotonic()))
        self._letters.close()
        return is_sent

    def _destinations(self, config: Config, lanes: Collection[Lane]) -> Iterator[Destination]:
        for name, exporter in config.exporters.items():
            if isinstance(exporter, OtlpExporter | ConsoleExporter | FileExporter):
                made = destination(name, exporter)
                letters = self._letters.open(exporter.dead_letters) if isinstance(exporter, OtlpExporter) else None
                senders = {lane: sender for lane, sender in made.senders.items() if lane in lanes}
                yield replace(made, senders=senders, dead_letters=letters)


def exporters_of_environment(environ: Mapping[str, str] | None = None) -> Config:
    """
    Return a configuration that has the exporter of `OTEL_EXPORTER_OTLP_*`, as the SDK would make it.

    Raises:
        ConfigError: A variable holds something that cannot be meant.
    """
    environ = os.environ if environ is None else environ
    is_http = any(environ.get(name, "").strip().startswith("http") for name in _PROTOCOLS)
    default = "http://localhost:4318" if is_http else "http://localhost:4317"
    given = {name: value for name, value in environ.items() if value.strip()}
    # Nothing listens in an application.
    nowhere = {f"receivers.otlp.protocols.{name}.endpoint": "127.0.0.1:0" for name in ("grpc", "http")}
    return load_config(overrides=nowhere, environ={_ENDPOINT: default, **given})
