"""From the configuration to what the parts of the sidecar are given."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from otel_scorer.config import OFF, ConsoleExporter, FileExporter, OtlpExporter
from otel_scorer.config.destinations import destination, otlp_destination
from otel_scorer.encoders.on_span import without_verdicts
from otel_scorer.encoders.verdict import Explanations
from otel_scorer.model.decode import spans_from_raw
from otel_scorer.pipeline.sidecar.engine import Engine, EngineOptions, Forwarding
from otel_scorer.pipeline.sidecar.memory_guard import MemoryGuard
from otel_scorer.pipeline.verdicts.emission import Emission, Emit
from otel_scorer.pipeline.workers.memory_use import available_memory, give_back, resident_bytes, reusable_bytes
from otel_scorer.transport.authentication import Authenticator
from otel_scorer.transport.endpoints import Destination, Lane
from otel_scorer.transport.fallback_sender import FallbackSender
from otel_scorer.transport.grpc_receiver import GrpcReceiver
from otel_scorer.transport.http_receiver import HttpReceiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.config import Config, MetricsSettings, ScorerSettings
    from otel_scorer.config.receivers import AuthSettings, ServerTlsSettings
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.keeping.triage import Keep
    from otel_scorer.pipeline.sidecar.storing import TraceKeeper
    from otel_scorer.pipeline.verdicts.sinks import VerdictSink
    from otel_scorer.scorers.loading import ScorerSpec
    from otel_scorer.service.metrics_push import MetricsPush
    from otel_scorer.service.own_metrics import OwnMetrics
    from otel_scorer.stores.database import Database
    from otel_scorer.stores.registrations import Registrations
    from otel_scorer.transport.dead_letters import DeadLetterFiles
    from otel_scorer.transport.exchange import OnRequest

__all__ = [
    "engine_options",
    "make_authenticator",
    "make_keeper",
    "make_memory_guard",
    "make_receivers",
    "metrics_push",
    "open_store",
    "span_destinations",
    "span_matcher",
    "worker_setup",
]


def span_destinations(config: Config, letters: DeadLetterFiles) -> list[Destination]:
    """
    Return everywhere that spans go.

    Args:
        config: Names them.
        letters: Opens the files for what is given up.

    Raises:
        ConfigError: An endpoint or such a file cannot be used.
    """
    is_spooled = config.spool.directory is not None
    made: dict[str, Destination] = {}
    for name, each in config.exporters.items():
        if isinstance(each, OtlpExporter):
            found = destination(name, each, is_spooled=is_spooled)
            given = replace(found, dead_letters=letters.open(each.dead_letters))
            made[name] = _forgiving(given) if {"attributes", "events"} & set(config.emit) else given
        elif isinstance(each, ConsoleExporter | FileExporter):
            made[name] = destination(name, each, is_spooled=is_spooled)
    # Two may be at one address, with other paths or headers: metrics and logs have to tell them apart.
    known_as = Counter(each.name for each in made.values())
    return [
        each if known_as[each.name] == 1 else replace(each, name=f"{each.name} ({name})") for name, each in made.items()
    ]


def _forgiving(made: Destination) -> Destination:
    """Return a destination that gets spans without their verdicts where it refuses them with these."""
    sender = FallbackSender(made.senders[Lane.SPANS], made.name, without_verdicts)
    return replace(made, senders={**made.senders, Lane.SPANS: sender})


def engine_options(config: Config, sinks: tuple[VerdictSink, ...] = ()) -> EngineOptions:
    """Return how traces are treated."""
    emit = frozenset(Emit(kind) for kind in config.emit)
    forwarding = Forwarding(config.forwarding)
    return EngineOptions(
        limits=config.assembly.limits,
        forwarding=forwarding,
        emission=Emission(
            emit, Explanations(config.explanations), sinks, span_lasts_ns=round(config.score_spans.duration * 1e9)
        ),
        hold_deadline=config.hold_deadline,
        keep=_keep(config),
    )


def _keep(config: Config) -> Keep | None:
    """Return how traces are chosen; only who chooses loads what it takes."""
    if config.keep is None:
        return None
    from otel_scorer.dialects import make_reader
    from otel_scorer.pipeline.keeping.rules import KeepRule
    from otel_scorer.pipeline.keeping.triage import Keep

    reader = make_reader(config.dialects.teaching)
    return Keep(rule=KeepRule(config.keep), reader=reader, count_attribute=config.keep_count_attribute)


def worker_setup(config: Config, registrations: Registrations | None) -> dict[str, object]:
    """Return what scorer workers load: the scorers of the configuration, and those that are started in a store."""
    specs = [_spec(scorer) for scorer in config.scorers]
    if registrations is not None:
        from otel_scorer.scorers.registry import live_specs

        # Whoever registers a scorer is not here to be told: one that cannot be loaded keeps nobody else from scoring.
        specs += [_registered(spec) for spec in live_specs(registrations.latest())]
    return {
        "scorers": specs,
        "dialects": config.dialects.teaching.to_dict(),
        "timeout": config.scoring.timeout,
        "concurrency": config.scoring.concurrency,
        "memory_limit": config.memory.worker_limit(available_memory()),
        "folder": str(Path.cwd()),
    }


def _spec(scorer: ScorerSettings) -> dict[str, object]:
    given = scorer.model_dump(mode="python")
    return {key: value for key, value in given.items() if value is not None}


def open_store(path: str) -> tuple[Database, Registrations]:
    """
    Open the store; only who has one loads what it takes.

    Raises:
        ConfigError: It cannot be opened.
    """
    from otel_scorer.stores.database import open_database
    from otel_scorer.stores.registrations import Registrations

    database = open_database(path)
    return database, Registrations(database)


def make_keeper(config: Config, database: Database) -> TraceKeeper:
    """Return what keeps scored traces in the store."""
    from otel_scorer.dialects import make_reader
    from otel_scorer.pipeline.sidecar.storing import TraceKeeper
    from otel_scorer.stores.trace_store import TraceStore

    reader = make_reader(config.dialects.teaching)
    return TraceKeeper(TraceStore(database, reader), reader, max_bytes=config.store_max_size)


def make_memory_guard(config: Config, engine: Engine, workers: Callable[[], list[int]]) -> MemoryGuard:
    """
    Return what keeps the process within its memory.

    Args:
        config: How much it may have.
        engine: What gives up memory.
        workers: Returns the ids of the processes that count, too.

    Raises:
        ConfigError: The limits contradict each other.
    """
    soft, hard = config.memory.limits(available_memory())
    return MemoryGuard(
        soft,
        hard,
        measure=lambda: resident_bytes(workers()),
        reusable=reusable_bytes,
        relieve=engine.relieve,
        give_back=give_back,
        is_spooled=config.spool.directory is not None,
    )


def _registered(spec: ScorerSpec) -> dict[str, object]:
    given: dict[str, object] = {each.name: getattr(spec, each.name) for each in fields(spec)}
    return {"optional": True, **{key: value for key, value in given.items() if value is not None}}


def make_receivers(config: Config, on_request: OnRequest) -> dict[str, GrpcReceiver | HttpReceiver]:
    """
    Return the receivers that are not switched off, by protocol; none of them listens yet.

    Raises:
        ConfigError: A certificate or a file with credentials cannot be used.
    """
    protocols = config.receivers.otlp.protocols
    made: dict[str, GrpcReceiver | HttpReceiver] = {}
    if (grpc := protocols.grpc).endpoint != OFF:
        made["grpc"] = GrpcReceiver(
            grpc.endpoint,
            on_request,
            max_request_size=grpc.max_request_size,
            tls=grpc.tls.files,
            authenticator=make_authenticator("grpc", grpc.auth, grpc.tls),
        )
    if (http := protocols.http).endpoint != OFF:
        made["http"] = HttpReceiver(
            http.endpoint,
            on_request,
            max_request_size=http.max_request_size,
            tls=http.tls.files,
            authenticator=make_authenticator("http", http.auth, http.tls),
            cors=http.cors.answers,
        )
    return made


def make_authenticator(name: str, auth: AuthSettings, tls: ServerTlsSettings) -> Authenticator | None:
    """
    Return who may send to a receiver; None: everybody.

    Raises:
        ConfigError: A file with credentials cannot be used.
    """
    credentials = auth.credentials
    return None if credentials is None else Authenticator(credentials, name, interval=tls.reload_interval)


def metrics_push(settings: MetricsSettings, metrics: OwnMetrics) -> MetricsPush | None:
    """
    Return what sends the sidecar's own metrics; None if nobody wants them.

    Raises:
        ConfigError: Their endpoint cannot be used.
    """
    if (exporter := settings.exporter) is None:
        return None
    from otel_scorer.service.metrics_push import MetricsPush

    sender = otlp_destination(exporter).senders[Lane.METRICS]
    return MetricsPush(metrics, sender, interval=settings.interval, timeout=settings.timeout)


def span_matcher(config: Config) -> Callable[[RawSpan], bool] | None:
    """Return what recognises the span that closes a trace, if the trigger is an attribute."""
    match = config.assembly.match
    if match is None:
        return None
    key, value = match
    encoded = key.encode()

    def matches(span: RawSpan) -> bool:
        # Most spans do not have the key at all: that is seen without decoding them.
        return encoded in span.data and str(spans_from_raw([span])[0].get_attribute(key)) == value

    return matches
