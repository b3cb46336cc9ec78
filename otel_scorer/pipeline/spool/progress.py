"""How far each trace is that is decided in part: what an earlier process has written down, and what this one adds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_scorer.stores.spool_rows import PartlyDecided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import ClosedTrace
    from otel_scorer.stores.spool_rows import SpooledRequest

__all__ = ["Progress"]


class Progress:
    """
    Knows traces, and units of them, by id. Of what is scored again it knows only how often that was.

    Args:
        known: What is written down.
        last_request: The id of the last request of an earlier process.
    """

    def __init__(self, known: dict[bytes, PartlyDecided], last_request: int = 0) -> None:
        self._known = known
        self._last_request = last_request
        # Of these the earlier process knew, and nothing has been heard of them.
        self._unheard = set(known)
        # Numbers of revisions that it has given, and this one must not give again.
        self._given = {key: each.revision - 1 for key, each in known.items() if each.revision > 1}
        self._undecided: set[bytes] = set()

    def begin(self, trace: ClosedTrace[RawSpan]) -> None:
        """Note that a trace is closed, before anything is decided about it; one that is scored again is renumbered."""
        if trace.revision == 1:
            self._undecided.add(_key(trace))
        elif self._given:
            trace.revision += self._given.get(_key(trace), 0)

    def is_earlier(self, request: SpooledRequest) -> bool:
        """Tell whether an earlier process has taken a request."""
        return request.id <= self._last_request

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
        if trace.revision > 1 and key not in self._undecided:
            # It is not scored from the beginning again, so no number of a revision is given twice.
            return {}
        before = self._known.get(key, PartlyDecided())
        if trace.revision > 1:
            now = replace(before, revision=max(before.revision, trace.revision))
        else:
            now = replace(
                before,
                released=before.released | {span.span_id for span in released},
                scorers=before.scorers | {each.scorer for each in decisions},
            )
        self._known[key] = now
        self._unheard.discard(key)
        return {} if now == before else {key: now}

    def end(self, trace: ClosedTrace[RawSpan]) -> list[bytes]:
        """Forget a trace that is decided, and return what need not be written down any longer."""
        key = _key(trace)
        self._undecided.discard(key)
        if not self._known:
            return []
        self._unheard.discard(key)
        return [] if self._known.pop(key, None) is None else [key]

    def outdated(self, first_request: Callable[[], int]) -> list[bytes]:
        """
        Forget what nothing can come of any more, and return what need not be written down any longer.

        That is so when everything that an earlier process had taken is done: a trace of it may have become part of
        another one, or have been lost to damage.

        Args:
            first_request: Returns the id of the first request that is not done; asked only if there is something.
        """
        if not self._unheard or first_request() <= self._last_request:
            return []
        outdated, self._unheard = list(self._unheard), set[bytes]()
        for key in outdated:
            self._known.pop(key, None)
        return outdated


def _key(trace: ClosedTrace[RawSpan]) -> bytes:
    return trace.trace_id + trace.unit
