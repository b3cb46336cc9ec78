"""Spans that have not been forwarded yet, because their verdicts may still ride on them: which, whose, and how long."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

from otel_scorer.pipeline.assembly.closing import Trigger
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.closing import Added, ClosedTrace
    from otel_scorer.pipeline.workers.jobs import Waiting

__all__ = ["Forwarding", "Holding"]


class Forwarding(StrEnum):
    """What may wait for verdicts: nothing, the root, or the whole trace."""

    PASSTHROUGH = "passthrough"
    HOLD_ROOT = "hold_root"
    HOLD_TRACE = "hold_trace"


class Holding:
    """
    Who waits for verdicts with spans of its own. Not thread-safe: the engine's lock guards it.

    Args:
        forwarding: What may wait.
        trigger: With `LOCAL_ROOT` a local root stands for its unit as a root does for its trace.
        deadline: How long, in seconds after closing.

    Attributes:
        root: Whether roots are held.
        trace: Whether whole traces are.
    """

    def __init__(self, forwarding: Forwarding, trigger: Trigger, deadline: float) -> None:
        self.root = forwarding is Forwarding.HOLD_ROOT
        self.trace = forwarding is Forwarding.HOLD_TRACE
        self._local_roots = trigger is Trigger.LOCAL_ROOT
        self._deadline = deadline
        # By trace: a client that sends spans again must not have them twice. A trace may have several units.
        self._waiting: dict[bytes, list[Waiting]] = {}
        # The delay is the same for all, so the order of entry is the order of time.
        self._until: deque[tuple[float, Waiting]] = deque()

    def spans_of(self, trace: ClosedTrace[RawSpan]) -> list[RawSpan]:
        """Return the spans of a closed trace that have not been forwarded."""
        if trace.revision > 1:
            return []
        if self.trace:
            # Our own spans went on at once; they come after the others, and hardly any trace has some.
            has_own = bool(trace.spans) and trace.spans[-1].scope.is_own
            return [span for span in trace.spans if not span.scope.is_own] if has_own else trace.spans
        if self.root:
            return [span for span in trace.spans if self.is_main(span) and not span.scope.is_own]
        return []

    def is_main(self, span: RawSpan) -> bool:
        """Tell whether a span stands for what is scored, so that `hold_root` holds it."""
        return span.parent_id is None or (self._local_roots and span.is_local_root)

    def leaving(self, spans: Sequence[RawSpan], added: Added) -> tuple[list[RawSpan], list[RawSpan]]:
        """
        Return which spans of a request are not held; asked only where something is.

        Returns:
            Those that are never held, and those that are not because of when they came.
        """
        if self.trace:
            return [], [*added.late, *added.own]
        own = {id(span) for span in added.own}
        skipped = {id(span) for span in added.duplicates}
        never = [span for span in spans if (id(span) in own or not self.is_main(span)) and id(span) not in skipped]
        # Late may also be a main span that came before and was held until its unit turned out to be closed.
        return never, [span for span in added.late if self.is_main(span)]

    def begin(self, waiting: Waiting, now: float) -> None:
        """Note that a trace waits, if it holds spans."""
        if waiting.held:
            self._until.append((now + self._deadline, waiting))
            self._waiting.setdefault(waiting.trace.trace_id, []).append(waiting)

    def end(self, waiting: Waiting) -> None:
        """Note that a trace holds nothing any more."""
        trace_id = waiting.trace.trace_id
        others = [each for each in self._waiting.pop(trace_id, ()) if each is not waiting]
        if others:
            self._waiting[trace_id] = others

    def let_go(self, waiting: Waiting) -> tuple[Waiting, list[RawSpan]]:
        """Take what is held: verdicts that come later find nothing to ride on."""
        self.end(waiting)
        held, waiting.held = waiting.held, []
        return waiting, held

    def overdue(self, now: float) -> list[tuple[Waiting, list[RawSpan]]]:
        """Take what was held long enough; its verdicts become evaluation spans when they come."""
        overdue: list[tuple[Waiting, list[RawSpan]]] = []
        while self._until and (self._until[0][0] <= now or self._until[0][1].is_done):
            _, waiting = self._until.popleft()
            if waiting.held and not waiting.is_done:
                overdue.append(self.let_go(waiting))
        return overdue

    def set_repeats_aside(self, added: Added) -> None:
        """Count late spans of which a copy is held as the duplicates that they are."""
        late = added.late
        if not late or not self._waiting:
            return
        repeats = [span for span in late if any(each.holds(span) for each in self._waiting.get(span.trace_id, ()))]
        if repeats:
            here = {id(span) for span in repeats}
            added.late = [span for span in late if id(span) not in here]
            added.duplicates += repeats
            count("assembler.duplicates", len(repeats))
