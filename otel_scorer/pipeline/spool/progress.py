"""How far each trace is that is decided in part: what an earlier process has written down, and what this one adds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from otel_scorer.stores.spool_rows import PartlyDecided

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace

__all__ = ["Progress"]


class Progress:
    """
    Knows traces, and units of them, by id. What is scored again is not among them.

    Args:
        known: What is written down.
    """

    def __init__(self, known: dict[bytes, PartlyDecided]) -> None:
        self._known = known

    def of(self, trace: ClosedTrace[RawSpan]) -> PartlyDecided | None:
        """Return how far a trace is; None if nothing about it is decided."""
        return self._known.get(_key(trace)) if self._known and trace.revision == 1 else None

    def left(self, trace: ClosedTrace[RawSpan], spans: list[RawSpan]) -> list[RawSpan]:
        """Return those of the spans of a trace that have not left yet: after a kill more of them may have come."""
        progress = self.of(trace)
        if progress is None or not progress.released:
            return spans
        # A client and a server span may share an id: which of them has left is not known, so both leave again.
        copies = Counter(span.span_id for span in spans)
        return [span for span in spans if span.span_id not in progress.released or copies[span.span_id] > 1]

    def add(
        self, trace: ClosedTrace[RawSpan], decisions: Iterable[Decision], released: Sequence[RawSpan] = ()
    ) -> dict[bytes, PartlyDecided]:
        """Note what is decided, and which spans leave before all is; return what is to be written down."""
        key = _key(trace)
        before = self._known.get(key, PartlyDecided(released=frozenset(), scorers=frozenset()))
        now = PartlyDecided(
            before.released | {span.span_id for span in released},
            before.scorers | {each.scorer for each in decisions},
        )
        self._known[key] = now
        return {} if now == before else {key: now}

    def end(self, trace: ClosedTrace[RawSpan]) -> list[bytes]:
        """Forget a trace that is decided, and return what need not be written down any longer."""
        if not self._known:
            return []
        key = _key(trace)
        return [] if self._known.pop(key, None) is None else [key]


def _key(trace: ClosedTrace[RawSpan]) -> bytes:
    return trace.trace_id + trace.unit
