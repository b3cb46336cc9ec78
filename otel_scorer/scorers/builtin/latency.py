"""How long the application took to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_scorer.model.feedback import Feedback
from otel_scorer.scorers.base import scorer

if TYPE_CHECKING:
    from otel_scorer.model.trace import Trace

__all__ = ["latency"]

_NANOSECONDS = 1_000_000_000


@scorer(
    description="Seconds from start to end of the root span (of the local root where the root is elsewhere).",
    version="1",
    concurrent=True,
)
def latency(trace: Trace) -> Feedback:
    """Return the seconds of the root; no verdict where no span is a root."""
    root = trace.root
    if root is None or not (root.parent_id is None or root.is_local_root):
        return Feedback(rationale="The trace has no root span, so nobody knows how long it took")
    seconds = root.duration_ns / _NANOSECONDS
    return Feedback(value=seconds, rationale=f"{root.name} took {_readable(seconds)}")


def _readable(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
