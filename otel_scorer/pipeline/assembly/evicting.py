"""Which open traces go first when others need their room: heavy old ones, which are scored early and never dropped."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from otel_scorer.pipeline.assembly.open_trace import OpenTrace

__all__ = ["OldestTraces", "worth_closing"]

# When one trace must go to make room, the heaviest among this many oldest ones goes.
_CANDIDATES: Final = 16
# The oldest traces count so many times their size more than new ones.
_AGE_WEIGHT: Final = 3


class OldestTraces:
    """
    Finds the trace that makes room for another one.

    Looking for the first entries of a dictionary that others were taken out of means searching for them. So they are
    written down, all at once and seldom.

    Args:
        traces: All that are open, in the order in which they were opened; the caller's.
    """

    def __init__(self, traces: Mapping[bytes, OpenTrace]) -> None:
        self._traces = traces
        self._keys: deque[bytes] = deque()

    def heaviest(self) -> OpenTrace:
        """Return the heaviest one of the oldest; there must be one. The caller takes it out."""
        candidates = self._next()
        if len(candidates) < _CANDIDATES:
            self._keys = deque(self._traces)
            candidates = self._next()
        heaviest = max(candidates, key=lambda trace: trace.size)
        self._keys.extendleft(trace.key for trace in reversed(candidates) if trace is not heaviest)
        return heaviest

    def _next(self) -> list[OpenTrace]:
        found: list[OpenTrace] = []
        while self._keys and len(found) < _CANDIDATES:
            trace = self._traces.get(self._keys.popleft())
            if trace is not None:
                found.append(trace)
        return found


def worth_closing(
    traces: Collection[OpenTrace], size: int, now: float, *, older_than: float, old: float
) -> Iterator[OpenTrace]:
    """
    Yield the traces to close early, until they are worth enough; the caller may take each of them out.

    The first is the one of most size x age: a trace that has been open for `old` seconds counts four times as much as
    one that has just begun.

    Args:
        traces: All that are open.
        size: How many bytes are to be given up.
        now: Monotonic seconds.
        older_than: Seconds that a trace must have been open to be taken at all.
        old: Seconds after which a trace grows no older.
    """

    def weight(trace: OpenTrace) -> float:
        return trace.size * (1 + _AGE_WEIGHT * min(1.0, (now - trace.first) / max(old, 1.0)))

    for trace in sorted((trace for trace in traces if now - trace.first >= older_than), key=weight, reverse=True):
        if size <= 0:
            return
        size -= trace.size
        yield trace
