"""Traces that leave together: several in a request, and none in two but very large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_scorer.model.wire import RawSpan

__all__ = ["in_requests"]

# Releases are handed on in requests of about this size: small enough to interleave, large enough to be cheap.
_RELEASE_BYTES: Final = 2 * 1024 * 1024
# Of this size a trace would have to be cut before it is sent, which costs as much again as all of its way up to there.
_CUT_BYTES: Final = 2 * _RELEASE_BYTES


def in_requests(
    traces: Iterable[tuple[list[RawSpan], int, float | None]],
) -> Iterator[tuple[list[RawSpan], list[float]]]:
    """
    Yield the spans of one request after the other, with the ends of those traces that have one.

    Args:
        traces: Spans, how many bytes they are worth, and when the trace ended if there are verdicts about it.
    """
    batch: list[RawSpan] = []
    since: list[float] = []
    size = 0
    for spans, weight, last in traces:
        if batch and size + weight > _RELEASE_BYTES:
            yield batch, since
            batch, since, size = [], [], 0
        *pieces, rest = _cut(spans, weight) if weight > _CUT_BYTES else (spans,)
        for piece in pieces:
            yield piece, []
        batch += rest
        size += weight
        if last is not None:
            since.append(last)
    if batch:
        yield batch, since


def _cut(spans: list[RawSpan], weight: int) -> list[list[RawSpan]]:
    """Cut a trace into runs of as many spans as are worth a request on average; there is one at least."""
    run = max(1, len(spans) * _RELEASE_BYTES // weight)
    return [spans[at : at + run] for at in range(0, len(spans), run)] or [spans]
