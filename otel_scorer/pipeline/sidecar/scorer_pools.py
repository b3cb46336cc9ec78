"""
The scorers of a running sidecar: one pool of workers that takes jobs, and those before it that finish theirs.

Replacing a set loses nothing: a trace goes to the set that is in place when it closes, and no other decides it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from otel_scorer.errors import OverloadedError
from otel_scorer.pipeline.workers.pool import WorkerPool
from otel_scorer.telemetry import Measured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.pipeline.sidecar.engine import Engine
    from otel_scorer.pipeline.workers.jobs import ScorerProfile, ScorerSet

__all__ = ["ScorerPools"]

# Seconds that any call of a scorer that was replaced may still take, even one without a timeout.
_LAST_CALL: Final = 600.0
_SHUTDOWN: Final = 2.0


class ScorerPools:
    """Starts, replaces and ends scorers. One thread replaces at a time; `shutdown` may come from another."""

    def __init__(self) -> None:
        self._changed = threading.Lock()  # guards which pools there are, and whether there may be more
        self._pools: list[WorkerPool] = []
        self._stopping = False

    def open(self, setup: Mapping[str, Any], workers: int) -> tuple[WorkerPool | None, list[ScorerProfile]]:
        """
        Start the workers of a set and return them with what they run; None if the set is empty.

        Raises:
            ConfigError: A scorer cannot be loaded; the message says why.
            OverloadedError: `shutdown` was called meanwhile.
        """
        if not setup["scorers"]:
            return None, []
        pool = WorkerPool(setup, workers=workers)
        profiles = [scorer.profile for scorer in pool.start()]
        with self._changed:
            if not self._stopping:
                self._pools.append(pool)
                return pool, profiles
        pool.shutdown(0.0)
        raise OverloadedError("Shutting down")

    def replace(self, engine: Engine, setup: Mapping[str, Any], workers: int) -> list[ScorerProfile]:
        """
        Have traces that close from now on scored by another set and return what it runs.

        The old set stays in place until the new one is ready, and for good if it never is. It finishes what it has.

        Raises:
            ConfigError: A scorer cannot be loaded; the message says why.
            OverloadedError: `shutdown` was called meanwhile.
        """
        pool, profiles = self.open(setup, workers)
        if pool is not None:
            pool.run(engine.deliver)
        replaced = engine.replace_scorers(profiles, pool)
        if isinstance(replaced.backend, WorkerPool):
            replaced.backend.retire(_LAST_CALL)
            retirement = threading.Thread(
                target=self._end, args=(engine, replaced, replaced.backend), name="otel-scorer-retirement", daemon=True
            )
            retirement.start()
        return profiles

    def _end(self, engine: Engine, replaced: ScorerSet, pool: WorkerPool) -> None:
        """End a pool when it has decided what it was given; the body of a thread."""
        engine.wait_until_decided(replaced)
        pool.shutdown(_SHUTDOWN)
        with self._changed:
            if pool in self._pools:
                self._pools.remove(pool)

    def gauges(self) -> list[Measured]:
        """Return what waits for scorers, those that were replaced included."""
        with self._changed:
            pools = list(self._pools)
        depths = [pool.depth() for pool in pools]
        return [
            Measured("scoring.queue_traces", sum(traces for traces, _ in depths)),
            Measured("scoring.queue_size", sum(size for _, size in depths)),
        ]

    def pids(self) -> list[int]:
        """Return the process ids of all workers."""
        with self._changed:
            pools = list(self._pools)
        return [pid for pool in pools for pid in pool.pids()]

    def hurry(self, timeout: float) -> None:
        """Give every call of a scorer at most so many seconds from now on."""
        with self._changed:
            self._stopping = True
            pools = list(self._pools)
        for pool in pools:
            pool.hurry(timeout)

    def give_up(self) -> None:
        """Decide that nothing more will be scored: what is open is shed, and counted as such."""
        with self._changed:
            pools = list(self._pools)
        for pool in pools:
            pool.give_up()

    def shutdown(self, timeout: float) -> None:
        """
        End all workers.

        Args:
            timeout: Seconds that a worker has to finish what runs before it is killed.
        """
        with self._changed:
            self._stopping = True
            pools, self._pools = self._pools, []
        for pool in pools:
            pool.shutdown(timeout)
