"""Which open traces go first when others need their room: heavy old ones, which are scored early and never dropped."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from otel_scorer.pipeline.open_trace import OpenTrace

__all__ = ["heaviest_of_the_oldest", "worth_closing"]

# When one trace must go to make room, the heaviest among this many oldest ones goes.
_CANDIDATES: Final = 16
# The oldest traces count so many times their size more than new ones.
_AGE_WEIGHT: Final = 3


def heaviest_of_the_oldest(traces: Collection[OpenTrace]) -> OpenTrace:
    """
    Return the trace that makes room for another one.

    Args:
        traces: At least one, the oldest first.
    """
    return max(islice(traces, _CANDIDATES), key=lambda trace: trace.size)


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
