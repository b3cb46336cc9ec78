"""What is above each span of a trace, found in one walk from the root down, however deep the trace is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_scorer.model.trace import Span, Trace

__all__ = ["nearest_above"]


def nearest_above(
    trace: Trace, wanted: Callable[[Span], bool], barrier: Callable[[Span], bool] | None = None
) -> Mapping[int, Span]:
    """
    Return, by `id` of the span, the nearest span above it that is wanted.

    Args:
        trace: The trace.
        wanted: Which spans to look for.
        barrier: Which spans nobody looks past.
    """
    found: dict[int, Span] = {}
    for span, _ in trace.tree.walk():
        parent = span.parent
        if parent is None:
            continue
        if wanted(parent):
            found[id(span)] = parent
        elif id(parent) in found and not (barrier is not None and barrier(parent)):
            found[id(span)] = found[id(parent)]
    return found
