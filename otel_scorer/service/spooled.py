"""What a sidecar with a spool is put together from: where requests go on, and where what is written down is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_scorer.errors import QueueFullError
from otel_scorer.pipeline.assembly.closing import Trigger
from otel_scorer.pipeline.spool.spooling import Spooling
from otel_scorer.pipeline.spool.taking import WHOLE, Parts
from otel_scorer.service.taking import LANES
from otel_scorer.stores.spool import Spool
from otel_scorer.transport.countdown import call_after
from otel_scorer.transport.endpoints import Lane
from otel_scorer.transport.native_score import NativeScore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otel_scorer.config import Config
    from otel_scorer.pipeline.sidecar.memory_guard import MemoryGuard
    from otel_scorer.pipeline.spool.outgoing import Place
    from otel_scorer.pipeline.spool.spooled_metrics import SpooledMetrics
    from otel_scorer.transport.forwarder import Forwarder
    from otel_scorer.transport.native_delivery import ScoreDelivery

__all__ = ["NATIVE", "open_spooling", "pack_scores"]

NATIVE: Final = "native:"
"""What the kind of outgoing data begins with that is for a score API; its name follows."""


def open_spooling(
    config: Config, forwarder: Forwarder, natives: Mapping[str, ScoreDelivery], guard: Callable[[], MemoryGuard | None]
) -> tuple[Spooling, SpooledMetrics | None] | None:
    """
    Open the spool that the configuration names, if it does; with what counts verdicts, if that is wanted.

    Args:
        config: Which folder, and how much may be in it.
        forwarder: Where requests and verdicts go.
        natives: The score APIs, by name.
        guard: Returns what says whether there is memory to take up more.

    Raises:
        ConfigError: The folder cannot be used, or another process uses it.
    """
    settings = config.spool
    if settings.directory is None:
        return None
    limits = config.assembly.limits
    spool = Spool(
        Path(settings.directory),
        max_size=settings.max_size,
        synchronous=settings.synchronous,
        closed_limit=10 * limits.max_traces,
    )
    spool.adopt(_policy(config))
    entrances = {signal: _Entrance(forwarder, lane, guard) for signal, lane in LANES.items()}
    places: dict[str, Place] = {lane.value: _LanePlace(forwarder, lane) for lane in Lane}
    places |= {NATIVE + name: _ScorePlace(delivery) for name, delivery in natives.items()}

    def put(kind: str, data: bytes, items: int) -> None:
        spooling.put(kind, data, items)

    metrics = _metrics(config, forwarder, places, put)
    spooling = Spooling(
        spool,
        entrances,
        places,
        by_unit=limits.trigger is Trigger.LOCAL_ROOT,
        # What only waits to be sent as it came is written down again only where it may go to one and not to another.
        released=Lane.SPANS.value if forwarder.destinations(Lane.SPANS) > 1 else None,
    )
    return spooling, metrics


def _policy(config: Config) -> str:
    """Return on what it depends which spans of a request are held, and which are sent at once."""
    is_by_unit = config.assembly.limits.trigger is Trigger.LOCAL_ROOT
    return f"{config.forwarding} by unit" if is_by_unit else str(config.forwarding)


def _metrics(
    config: Config, forwarder: Forwarder, places: dict[str, Place], put: Callable[[str, bytes, int], None]
) -> SpooledMetrics | None:
    """Return what counts verdicts, and give it its places; only who wants it loads what it takes."""
    if "metrics" not in config.emit:
        return None
    from otel_scorer.pipeline.spool.spooled_metrics import COUNTS, SpooledMetrics

    settings = config.score_metrics
    metrics = SpooledMetrics(put, Lane.SCORE_METRICS, interval=settings.interval, delta=settings.temporality == "delta")
    places |= {COUNTS: metrics, Lane.SCORE_METRICS.value: _ReportPlace(forwarder, metrics)}
    return metrics


def pack_scores(scores: Iterable[NativeScore]) -> bytes:
    """Return scores as they are written down."""
    return json.dumps([(each.id, each.trace_id, each.span_id, each.body.decode()) for each in scores]).encode()


class _LanePlace:
    """A lane of the forwarder."""

    def __init__(self, forwarder: Forwarder, lane: Lane) -> None:
        self._forwarder = forwarder
        self._lane = lane

    def has_room(self, size: int) -> bool:
        return self._forwarder.has_room(self._lane, size)

    def offer(
        self, data: bytes, items: int, since: Sequence[float], done: Callable[[], None], parts: Parts = WHOLE
    ) -> None:
        self._forwarder.offer(
            self._lane, data, items, admitted=True, since=since, done=done, taken=parts.taken, without=parts.without
        )


class _Entrance(_LanePlace):
    """Where requests of a signal go on; whoever asks for room waits a moment for a backend that keeps taking."""

    def __init__(self, forwarder: Forwarder, lane: Lane, guard: Callable[[], MemoryGuard | None]) -> None:
        super().__init__(forwarder, lane)
        self._guard = guard

    def has_room(self, size: int) -> bool:
        guard = self._guard()
        if guard is not None and guard.is_over:
            return False
        try:
            self._forwarder.check_room(self._lane, size)
        except QueueFullError:
            return False
        return True


class _ReportPlace(_LanePlace):
    """Where reports of metrics go. One that is offered is written down: what is in it need not be any longer."""

    def __init__(self, forwarder: Forwarder, metrics: SpooledMetrics) -> None:
        super().__init__(forwarder, Lane.SCORE_METRICS)
        self._metrics = metrics

    def offer(
        self, data: bytes, items: int, since: Sequence[float], done: Callable[[], None], parts: Parts = WHOLE
    ) -> None:
        self._metrics.reported()
        super().offer(data, items, since, done, parts)


class _ScorePlace:
    """A score API."""

    def __init__(self, delivery: ScoreDelivery) -> None:
        self._delivery = delivery

    def has_room(self, size: int) -> bool:
        return self._delivery.has_room(size)

    def offer(
        self, data: bytes, items: int, since: Sequence[float], done: Callable[[], None], parts: Parts = WHOLE
    ) -> None:
        del since, parts
        settled = call_after(items, done)
        self._delivery.offer(
            NativeScore(number, trace_id, span_id, body.encode(), settled)
            for number, trace_id, span_id, body in json.loads(data)
        )
