"""
The sidecar: wires receivers, engine, scorer workers and forwarder into one process, and starts and stops them in order.

Start: status server, workers (before gRPC has a thread), forwarder, engine, receivers. Stop: receivers refuse, open
traces are scored, verdicts and held spans are sent, workers end, queues are flushed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from otel_scorer.config import OFF, check_scorers, fixed_changes, shown_settings
from otel_scorer.config.destinations import verdict_sinks
from otel_scorer.errors import (
    AddressInUseError,
    ConfigError,
    OtelScorerError,
    OverloadedError,
    QueueFullError,
    UnsupportedSignalError,
)
from otel_scorer.model.wire import Signal
from otel_scorer.pipeline.sidecar.engine import Engine
from otel_scorer.pipeline.sidecar.reloading import Reloader
from otel_scorer.pipeline.sidecar.running_clock import RunningClock
from otel_scorer.pipeline.sidecar.scorer_pools import ScorerPools
from otel_scorer.service.own_metrics import OwnMetrics
from otel_scorer.service.parts import (
    engine_options,
    make_keeper,
    make_memory_guard,
    make_receivers,
    metrics_push,
    open_store,
    span_destinations,
    span_matcher,
    worker_setup,
)
from otel_scorer.service.status import Phase, Status
from otel_scorer.service.taking import LANES, QUEUE_RETRY, join_logs, pass_on, take_spooled
from otel_scorer.telemetry import count
from otel_scorer.transport.dead_letters import DeadLetterFiles
from otel_scorer.transport.endpoints import Lane
from otel_scorer.transport.exchange import PartialSuccess
from otel_scorer.transport.forwarder import Forwarder
from otel_scorer.transport.status_server import StatusServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.config import Config
    from otel_scorer.config.native_scores import NativeScores
    from otel_scorer.model.decision import Decision
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace
    from otel_scorer.pipeline.sidecar.memory_guard import MemoryGuard
    from otel_scorer.pipeline.sidecar.storing import TraceKeeper
    from otel_scorer.pipeline.spool.spooled_metrics import SpooledMetrics
    from otel_scorer.pipeline.spool.spooling import Spooling
    from otel_scorer.pipeline.verdicts.sinks import VerdictSink
    from otel_scorer.pipeline.workers.jobs import ScorerProfile
    from otel_scorer.service.metrics_push import MetricsPush
    from otel_scorer.stores.database import Database
    from otel_scorer.stores.registrations import Registrations
    from otel_scorer.telemetry import Measured
    from otel_scorer.transport.grpc_receiver import GrpcReceiver
    from otel_scorer.transport.http_receiver import HttpReceiver
    from otel_scorer.transport.native_score import NativeScore

__all__ = ["Service"]

logger = logging.getLogger(__name__)

_MEMORY_RETRY: Final = 1.0


class Service:
    """One sidecar. Two may live in one process, on different ports."""

    def __init__(self, config: Config, reread: Callable[[], Config] | None = None) -> None:
        """
        Nothing runs before `start`.

        Args:
            config: How it works.
            reread: Reads the configuration again, for `request_reload`; by default it stays as it is.
        """
        self._config = config
        self._reread = reread
        # What was read and taken last: registered scorers come and go beside those in it.
        self._latest = config
        self._database: Database | None = None
        self._keeper: TraceKeeper | None = None
        self._reloader: Reloader | None = None
        self._pools = ScorerPools()
        self._letters = DeadLetterFiles()
        self._forwarder: Forwarder | None = None
        self._natives: NativeScores | None = None
        self._spooling: Spooling | None = None
        self._spooled_metrics: SpooledMetrics | None = None
        self._engine: Engine | None = None
        self._guard: MemoryGuard | None = None
        self._receivers: list[GrpcReceiver | HttpReceiver] = []
        self._metrics = OwnMetrics(self._gauges)
        self._status = Status(self._metrics, config.dump(), with_reasons=config.explanations != "off")
        self._push: MetricsPush | None = None
        self._status_server: StatusServer | None = None
        self._warned: set[Signal] = set()

    def start(self) -> dict[str, str]:
        """
        Start everything and return what listens where: `{"grpc": "127.0.0.1:4317", "http": ..., "status": ...}`.

        Raises:
            ConfigError: A scorer cannot be loaded, an address is taken, a setting cannot work. Nothing is left running.
        """
        try:
            return self._start()
        except BaseException:
            self.shutdown(0.0)
            raise

    def request_reload(self) -> None:
        """
        Have the configuration and the modules of its scorers read again, soon and on another thread.

        Traces that close from then on are scored by the new scorers; what cannot be read or loaded changes nothing.
        """
        if self._reloader is not None:
            self._reloader.request()

    def shutdown(self, timeout: float | None = None) -> bool:
        """
        Stop: refuse new requests, score what is open, send everything. Safe to call twice.

        Args:
            timeout: Seconds for the verdicts, and again for sending. Default: `drain_timeout` of the configuration.

        Returns:
            Whether everything was scored and sent in time.
        """
        timeout = self._config.drain_timeout if timeout is None else timeout
        self._status.phase = Phase.DRAINING
        clean = self._score_what_is_open(timeout)
        clean &= self._send_what_waits(timeout)
        if self._push is not None:
            self._push.shutdown(min(timeout, 5.0))
        for receiver in self._receivers:
            receiver.shutdown(0.0)
        if self._status_server is not None:
            self._status_server.shutdown(1.0)
        if self._database is not None:
            self._database.close()
        self._letters.close()
        self._receivers = []
        self._engine = self._forwarder = self._database = self._spooling = None
        self._keeper = self._natives = self._push = self._status_server = None
        return clean

    def _score_what_is_open(self, timeout: float) -> bool:
        """Refuse new requests, then have everything decided; return whether that was possible in time."""
        clean = True
        for receiver in self._receivers:
            clean &= receiver.drain(min(timeout, 5.0))
        if self._spooling is not None:
            self._spooling.drain()
        self._pools.hurry(timeout / 3)
        self._stop_watching(min(timeout, 2.0))
        if self._engine is not None and not self._engine.drain(timeout):
            clean = False
            logger.warning("Not every open trace was scored within %g s", timeout)
            if self._spooling is None:
                self._pools.give_up()
        self._pools.shutdown(min(timeout, 2.0))
        if self._keeper is not None and not self._keeper.shutdown(timeout):
            clean = False
            logger.warning("Not every scored trace was written to the store within %g s", timeout)
        return clean

    def _send_what_waits(self, timeout: float) -> bool:
        """Send everything, and return whether nothing is left."""
        clean = True
        if self._spooling is not None:
            self._spooling.stop()
        if self._forwarder is not None:
            clean &= self._forwarder.shutdown(timeout)
        if self._natives is not None:
            # Last: a score needs its trace, which the forwarder may just have sent.
            clean &= self._natives.shutdown(timeout)
        if self._spooling is not None:
            clean &= _is_empty(self._spooling)
        return clean

    def _stop_watching(self, timeout: float) -> None:
        """Stop what reacts to memory and to files: whatever they would have done, all of it is closed soon."""
        if self._guard is not None:
            self._guard.shutdown(timeout)
        if self._reloader is not None:
            self._reloader.shutdown(timeout)
        self._guard = self._reloader = None

    def _start(self) -> dict[str, str]:
        config = self._config
        # First, so that a sidecar whose scorers take their time to load can be seen to live.
        status_page, hidden = self._open_status()
        registrations, revision = None, None
        if config.store is not None:
            self._database, registrations = open_store(config.store)
            self._keeper = make_keeper(config, self._database)
            # Asked before they are read: what changes meanwhile is seen soon after.
            revision = registrations.revision()
        pool, profiles = self._pools.open(worker_setup(config, registrations), config.scoring.workers)
        self._check_keep(profiles, may_refuse=registrations is None)
        is_spooled = config.spool.directory is not None
        forwarder = self._forwarder = Forwarder(span_destinations(config, self._letters), is_spooled=is_spooled)
        natives = self._open_natives()
        spooling = self._open_spooling(forwarder) if is_spooled else None
        offer = partial(_offer, forwarder) if spooling is None else spooling.put
        clock = RunningClock()
        engine = self._engine = Engine(
            engine_options(config, (*verdict_sinks(config, offer, self._spooled_metrics), *natives)),
            profiles,
            on_spans=clock.translating(partial(offer, Lane.SPANS)),
            on_scores=clock.translating(partial(offer, Lane.SCORES)),
            on_scored=self._on_scored(),
            matches=span_matcher(config),
            spooling=spooling,
            clock=clock,
        )
        self._guard = make_memory_guard(config, engine, self._pools.pids)
        forwarder.start()
        if self._natives is not None:
            self._natives.start()
        if self._keeper is not None:
            self._keeper.start()
        if pool is not None:
            pool.run(engine.deliver)
        engine.start(pool)
        self._reloader = Reloader(
            partial(self._reload, engine, registrations), None if registrations is None else registrations.revision
        )
        self._reloader.start(revision)
        self._guard.start()
        if spooling is not None:
            engine.restore(spooling.spool.closed())
            spooling.start(partial(take_spooled, engine, spooling))
        bound: dict[str, str] = {}
        for name, receiver in make_receivers(config, self._take).items():
            self._receivers.append(receiver)
            bound[name] = receiver.start()
        if status_page is not None:
            bound["status"] = status_page
        self._status.bound = bound
        self._status.phase = Phase.READY
        self._push = metrics_push(config.telemetry.metrics, self._metrics)
        if self._push is not None:
            self._push.start()
        if hidden is not None:
            logger.warning("No status page, health checks or /metrics: %s", hidden)
        return bound

    def _on_scored(self) -> Callable[[ClosedTrace[RawSpan], Sequence[Decision]], None] | None:
        """Return what tells everybody who wants to know of every trace that is decided."""
        keeps: list[Callable[[ClosedTrace[RawSpan], Sequence[Decision]], None]] = []
        if self._keeper is not None:
            keeps.append(self._keeper.keep)
        if self._config.telemetry.status_page != OFF:
            keeps.append(self._status.recent.keep)

        def tell(trace: ClosedTrace[RawSpan], decisions: Sequence[Decision]) -> None:
            for keep in keeps:
                keep(trace, decisions)

        return tell if keeps else None

    def _open_status(self) -> tuple[str | None, AddressInUseError | None]:
        """Let the sidecar be looked at; return where, or who is there already."""
        address = self._config.telemetry.status_page
        if address == OFF:
            return None, None
        server = StatusServer(address, self._status.answer)
        # The default port may belong to another sidecar on this machine: that must not keep this one from working.
        try:
            bound = server.start()
        except AddressInUseError as error:
            return None, error
        self._status_server = server
        return bound, None

    def _gauges(self) -> list[Measured]:
        parts = (self._engine, self._pools, self._forwarder, self._guard, self._spooling)
        return [measured for part in parts if part is not None for measured in part.gauges()]

    def _open_natives(self) -> tuple[VerdictSink, ...]:
        """Return what writes to score APIs; only who has one loads what it takes."""
        if "native" not in self._config.emit:
            return ()
        from otel_scorer.config.native_scores import NativeScores

        is_spooled = self._config.spool.directory is not None
        self._natives = NativeScores(self._config, self._letters, self._put_scores if is_spooled else None)
        return self._natives.sinks

    def _open_spooling(self, forwarder: Forwarder) -> Spooling | None:
        """Open the spool; only who has one loads what it takes."""
        from otel_scorer.service.spooled import open_spooling

        natives = {} if self._natives is None else self._natives.deliveries
        opened = open_spooling(self._config, forwarder, natives, lambda: self._guard)
        if opened is not None:
            self._spooling, self._spooled_metrics = opened
            self._status.spool = opened[0].spool
        return self._spooling

    def _put_scores(self, name: str, scores: Iterable[NativeScore]) -> None:
        from otel_scorer.service.spooled import NATIVE, pack_scores

        found = list(scores)
        if self._spooling is not None:
            self._spooling.put(NATIVE + name, pack_scores(found), len(found))

    def _reload(self, engine: Engine, registrations: Registrations | None, requested: bool) -> None:  # noqa: FBT001 - as called
        """Take other scorers, or say why not and go on with those that are there."""
        config = self._latest
        try:
            if requested and self._reread is not None:
                config = self._reread()
            profiles = self._pools.replace(engine, worker_setup(config, registrations), config.scoring.workers)
        except OverloadedError:
            return
        except OtelScorerError as error:
            count("scoring.reloads", outcome="refused")
            reason = "; ".join(str(error).splitlines())
            logger.error("The scorers stay as they are, since the new ones cannot be used: %s", reason)  # noqa: TRY400
            return
        self._latest = config
        self._status.settings = shown_settings(self._config, config)
        self._check_keep(profiles, may_refuse=False)
        count("scoring.reloads", outcome="taken")
        logger.info("Scorers from now on: %s", ", ".join(f"{each.name} {each.version}" for each in profiles) or "none")
        if fixed := fixed_changes(self._config, config):
            logger.warning("Settings that count only after a restart have changed: %s", ", ".join(fixed))

    def _check_keep(self, profiles: Sequence[ScorerProfile], *, may_refuse: bool) -> None:
        """Look for scorers that the rule for keeping traces names. Registered ones may still come."""
        try:
            check_scorers(self._config.keep, [profile.name for profile in profiles])
        except ConfigError as error:
            if may_refuse:
                raise
            logger.warning("Traces are kept where it matters, until there is one: %s", error)

    def _take(self, signal_: Signal, data: bytes) -> PartialSuccess | None:
        """Admit one request on a receiver's thread."""
        forwarder, engine = self._forwarder, self._engine
        if forwarder is None or engine is None:
            raise OverloadedError("Shutting down")
        if self._guard is not None and self._guard.refuses:
            raise OverloadedError("Memory is over its limit", retry_after=_MEMORY_RETRY)
        if signal_ is not Signal.TRACES and not forwarder.takes(LANES[signal_]):
            self._refuse(engine, signal_, data)
        if self._spooling is not None:
            return self._spooling.take(signal_, data)
        if signal_ is not Signal.TRACES:
            pass_on(forwarder, engine, signal_, data)
            return None
        try:
            forwarder.check_room(Lane.SPANS, len(data))
        except QueueFullError as error:
            raise OverloadedError(str(error), retry_after=QUEUE_RETRY) from error
        rejected, message = engine.ingest(data)
        return PartialSuccess(rejected, message) if rejected else None

    def _refuse(self, engine: Engine, signal_: Signal, data: bytes) -> NoReturn:
        if signal_ is Signal.LOGS:
            join_logs(engine, data)
        if signal_ not in self._warned:
            self._warned.add(signal_)
            logger.warning("OTLP %s are refused: no destination takes them", signal_)
        raise UnsupportedSignalError(f"No destination takes OTLP {signal_}")


def _offer(forwarder: Forwarder, lane: Lane, data: bytes, items: int, since: Sequence[float] = ()) -> None:
    """Send what the engine lets go; it was admitted."""
    forwarder.offer(lane, data, items, admitted=lane is Lane.SPANS, since=since)


def _is_empty(spooling: Spooling) -> bool:
    """Close the spool, say what is left in it, and return whether that is nothing."""
    requests, outgoing = spooling.shutdown()
    if requests or outgoing:
        logger.warning(
            "%d requests that are not done, and %d that are to be sent, stay in the spool for the next start",
            requests,
            outgoing,
        )
    return not requests and not outgoing
