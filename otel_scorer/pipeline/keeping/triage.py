"""
Which traces are sent on and which are not, by what became of scoring them: the fate of each, and of its late spans.

The engine's lock guards a `Triage`; only `look` is called without it, for that may read spans.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.model.decode import attach_logs, logs_from_raw, spans_from_raw
from otel_scorer.model.encoding import key_value
from otel_scorer.model.splicing import enrich_span
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.assembly.closing import CUT_SHORT
from otel_scorer.pipeline.keeping.evidence import Evidence, facts_of, keep_number
from otel_scorer.pipeline.keeping.rules import Kept
from otel_scorer.telemetry import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otel_scorer.model.reader import Reader
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.assembly.assembler import TraceAssembler
    from otel_scorer.pipeline.assembly.closing import Added, AssemblyLimits, ClosedTrace
    from otel_scorer.pipeline.keeping.evidence import Fact
    from otel_scorer.pipeline.keeping.rules import KeepRule
    from otel_scorer.pipeline.workers.jobs import Waiting

__all__ = ["COUNT_ATTRIBUTE", "Fate", "Keep", "Triage"]

logger = logging.getLogger(__name__)

COUNT_ATTRIBUTE: Final = "otel_scorer.adjusted_count"
# As many as the assembler remembers of closed traces.
_REMEMBERED_PER_OPEN_TRACE: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """
    How traces are chosen.

    Attributes:
        rule: Which are kept.
        reader: Tells what attributes mean, to a rule that asks for what is in spans.
        count_attribute: On every span of a kept trace: how many traces it stands for.
    """

    rule: KeepRule
    reader: Reader
    count_attribute: str = COUNT_ATTRIBUTE


@dataclass(frozen=True, slots=True)
class Fate:
    """
    What becomes of a trace.

    Attributes:
        is_kept: Whether it is sent.
        count: How many traces like it there were for each that is sent.
        key: The attribute that says so.
    """

    is_kept: bool
    count: float
    key: str

    def mark(self, data: bytes) -> bytes:
        """
        Return an encoded span that says how many it stands for.

        What a sampler before us has said there counts too. Another otel_scorer goes by the same number of the trace, so
        that who passed the smaller share has passed the other; any other sampler does not.
        """
        counted = self.count
        if self.key.encode() in data:
            before = _count_on(data, self.key)
            counted = max(counted, before) if self.key == COUNT_ATTRIBUTE else counted * before
        return enrich_span(data, {self.key: key_value(self.key, counted)})


class Triage:
    """
    Decides about traces, and remembers what it decided for spans that come late.

    Args:
        keep: How traces are chosen.
        limits: `max_traces` and `max_spans_per_trace` bound what is remembered, and what waits.
        left_of: Returns what is left of the spans of a trace to be sent; nothing if an earlier process has sent them.
    """

    def __init__(
        self,
        keep: Keep,
        limits: AssemblyLimits,
        left_of: Callable[[ClosedTrace[RawSpan], list[RawSpan]], list[RawSpan]],
    ) -> None:
        self._keep = keep
        self._limits = limits
        self._left_of = left_of
        self._fates: OrderedDict[bytes, Fate] = OrderedDict()
        # Traces that are closed and not decided, with what has come of them since.
        self._undecided: dict[bytes, tuple[ClosedTrace[RawSpan], list[RawSpan]]] = {}

    def begin(self, closed: Iterable[ClosedTrace[RawSpan]]) -> None:
        """Note that traces are closed: what comes of them now waits with them."""
        for trace in closed:
            if not self._left_of(trace, trace.spans):
                continue
            fate = self._fates.get(trace.trace_id)
            # What is scored again was sent already, unless it was not kept: then it has another chance.
            if trace.revision == 1 or (fate is not None and not fate.is_kept):
                self._undecided[trace.trace_id] = trace, []

    def arrange(self, added: Added, assembler: TraceAssembler) -> None:
        """Leave of late spans, and of otel_scorer's own, those that are to be sent at once."""
        self.begin(added.closed)
        if added.own:
            closed = {id(span) for trace in added.closed for span in trace.spans if span.scope.is_own}
            # They follow the trace that they are about.
            added.own = [span for span in added.own if id(span) not in closed and not assembler.holds_own(span)]
        added.late, added.own = self._now(added.late), self._now(added.own)

    def spans_of(self, trace: ClosedTrace[RawSpan]) -> list[RawSpan]:
        """Return the spans of a closed trace that wait for its fate."""
        return trace.spans if self._is_undecided(trace) else []

    def fate_of(self, trace: ClosedTrace[RawSpan]) -> Fate | None:
        """Return what became of a trace; None if that is not decided, or not remembered."""
        return self._fates.get(trace.trace_id)

    def look(self, trace: ClosedTrace[RawSpan]) -> Mapping[Fact, object] | None:
        """Return what the rule asks of the spans of a trace; None if they cannot be read."""
        if not self._keep.rule.facts:
            return {}
        try:
            views = spans_from_raw(trace.spans)
            attach_logs(views, logs_from_raw(trace.logs))
            view = Trace(
                views,
                self._keep.reader,
                close_reason=trace.reason.value,
                is_complete=trace.complete,
                revision=trace.revision,
            )
            return facts_of(view, self._keep.rule.facts)
        except Exception:
            # A trace that cannot be read is one to look at.
            logger.exception("Cannot tell what is in a trace, so it is kept")
            return None

    def settle(self, waiting: Waiting, held: list[RawSpan], *, is_decided: bool) -> list[RawSpan]:
        """Decide about a trace that held its spans until now; return them with those that have come since it closed."""
        trace = waiting.trace
        if not self._is_undecided(trace):
            return held
        _, latecomers = self._undecided.pop(trace.trace_id)
        # Of a trace that an earlier process has sent in part not all decisions are here.
        is_whole = len(self._left_of(trace, trace.spans)) == len(trace.spans)
        judgement = self._keep.rule.judge(
            Evidence(
                decisions=[*waiting.refused, *waiting.decisions],
                scorers={scorer.name for scorer in waiting.scorers.profiles},
                facts=waiting.facts,
                is_decided=is_decided and is_whole,
                is_whole=trace.reason not in CUT_SHORT,
                number=keep_number(trace.trace_id),
            )
        )
        is_kept = judgement.outcome is not Kept.NOT_KEPT
        fate = Fate(is_kept, 1 / judgement.share if is_kept else 0.0, self._keep.count_attribute)
        waiting.fate = fate
        before = self._fates.get(trace.trace_id)
        # What is scored again was counted when it was not kept the first time, and its late spans when they came.
        known = 0 if before is None or before.is_kept else len(held)
        if is_kept:
            count("keeping.spans_taken_back", known)
        else:
            count("keeping.spans_dropped", len(held) - known + len(latecomers), reason="not_kept")
        self._fates[trace.trace_id] = fate
        self._fates.move_to_end(trace.trace_id)
        if len(self._fates) > _REMEMBERED_PER_OPEN_TRACE * self._limits.max_traces:
            self._fates.popitem(last=False)
        count("keeping.traces", outcome=judgement.outcome.value)
        return [*held, *latecomers]

    def _is_undecided(self, trace: ClosedTrace[RawSpan]) -> bool:
        return trace.trace_id in self._undecided and self._undecided[trace.trace_id][0] is trace

    def _now(self, spans: Iterable[RawSpan]) -> list[RawSpan]:
        """Return the spans that are to be sent at once: of traces that are kept, or that nobody remembers."""
        sent: list[RawSpan] = []
        dropped = 0
        for span in spans:
            trace_id = span.trace_id
            undecided = self._undecided.get(trace_id)
            if undecided is not None and len(undecided[1]) < self._limits.max_spans_per_trace:
                undecided[1].append(span)
                continue
            fate = None if undecided is not None else self._fates.get(trace_id)
            if fate is None:
                sent.append(span)
                continue
            # Whoever is asked for must not be forgotten first.
            self._fates.move_to_end(trace_id)
            if fate.is_kept:
                sent.append(span._replace(data=fate.mark(span.data)))
            else:
                dropped += 1
        count("keeping.spans_dropped", dropped, reason="not_kept")
        return sent


def _count_on(data: bytes, key: str) -> float:
    for pair in SpanMessage.FromString(data).attributes:
        if pair.key == key:
            value = pair.value.double_value or float(pair.value.int_value)
            return value if value > 0 else 1.0
    return 1.0
