"""
Which scorers look at a trace, and at what of it: sampling, filter, targets.

Sampling asks only the trace id, so it comes first and costs no look into a span. Whoever is not selected gets the
decision that says so.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.pipeline.running.filters import Answer, compile_filter
from otel_scorer.pipeline.running.runner import DEFAULT_TIMEOUT, Invocation, PreparedScorer
from otel_scorer.scorers.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_scorer.model.trace import Span, Trace
    from otel_scorer.pipeline.running.runner import Suppression
    from otel_scorer.scorers.base import Scorer

__all__ = ["Choice", "Selection", "Selector", "is_sampled", "sampling_number"]

Choice: TypeAlias = Invocation | Decision
"""A call that is to be made, or the decision that there is none."""

# Without a salt of our own, the choice would be correlated with that of any other sampler that hashes trace ids.
_SALT: Final = b"otel_scorer"
_RANGE: Final = 1 << 64


def sampling_number(trace_id: bytes) -> int:
    """Return the 64-bit number that stands for a trace: the same in every process, for every scorer."""
    return int.from_bytes(blake2b(trace_id, digest_size=8, salt=_SALT).digest())


def is_sampled(trace_id: bytes, rate: float) -> bool:
    """
    Return whether a trace is in the sample. What is in the sample of one rate is in that of every higher one.

    Args:
        trace_id: 16 bytes.
        rate: 0 to 1.
    """
    return rate >= 1.0 or sampling_number(trace_id) < int(rate * _RANGE)


class Selection:
    """
    What one scorer wants to see of a trace that is in its sample.

    Args:
        scorer: The scorer.
        default_timeout: Seconds for a scorer that does not say; 0: no limit.
        suppress: See `Suppression`.

    Raises:
        ConfigError: Its filter cannot be compiled.

    Attributes:
        prepared: The scorer as it is called.
        threshold: Traces whose `sampling_number` is below are in the sample.
        is_plain: Whether it asks nothing of a trace before it is called, and judges the trace as a whole.
    """

    __slots__ = ("_filter", "_span_types", "is_plain", "prepared", "threshold")

    def __init__(
        self, scorer: Scorer, *, default_timeout: float = DEFAULT_TIMEOUT, suppress: Suppression | None = None
    ) -> None:
        self.prepared = PreparedScorer(scorer, default_timeout=default_timeout, suppress=suppress)
        self.threshold = _RANGE if scorer.sample_rate >= 1.0 else int(scorer.sample_rate * _RANGE)
        self._span_types = frozenset(scorer.span_types)
        self._filter = None
        if scorer.filter is not None:
            self._filter = compile_filter(scorer.filter, owner=scorer.name, has_span=bool(self._span_types))
        self.is_plain = self._filter is None and not self._span_types

    def choose(
        self,
        trace: Trace,
        evidence: Evidence | None = None,
        *,
        revision: int | None = None,
        trace_id: str | None = None,
    ) -> list[Choice]:
        """
        Return the calls to make on a trace, and a decision for each that is not made. Sampling is not looked at.

        A scorer with `span_types` has one target per span of these types. Where it gets no target at all (filtered by
        the trace, no such span) there is one decision, without a span.

        Args:
            trace: The trace.
            evidence: What there is to judge of it as a whole, if somebody has that already.
            revision: For the decisions. Default: the trace's.
            trace_id: 32 hex digits, if already known.
        """
        trace_id = trace.trace_id if trace_id is None else trace_id
        revision = trace.revision if revision is None else revision
        if trace.is_pending:
            # Whatever a scorer said of it, it would say of an empty trace.
            reason = "no span of it that has ended has come"
            return [self.decide(Outcome.UNPROCESSABLE, trace_id, revision, reason=reason)]
        if self.is_plain:
            return [Invocation(self.prepared, evidence or Evidence(trace), revision, trace_id)]
        if self._filter is not None and not self._filter.is_about_spans:
            refused = self._asked(trace, None, trace_id, revision)
            if refused is not None:
                return [refused]
        if not self._span_types:
            return [Invocation(self.prepared, evidence or Evidence(trace), revision, trace_id)]
        targets = [span for span in trace.spans if span.span_type in self._span_types]
        if not targets:
            reason = f"no {' or '.join(sorted(self._span_types))} span in the trace"
            return [self.decide(Outcome.NOT_APPLICABLE, trace_id, revision, reason=reason)]
        return [self._on(span, trace, trace_id, revision) for span in targets]

    def decide(
        self, outcome: Outcome, trace_id: str, revision: int, *, span: Span | None = None, reason: str | None = None
    ) -> Decision:
        """Return a decision about a call that is not made."""
        return self.prepared.decide(
            outcome,
            trace_id=trace_id,
            span_id=None if span is None else span.span_id,
            reason=reason,
            revision=revision,
        )

    def _on(self, span: Span, trace: Trace, trace_id: str, revision: int) -> Choice:
        if self._filter is not None and self._filter.is_about_spans:
            refused = self._asked(trace, span, trace_id, revision)
            if refused is not None:
                return refused
        return Invocation(self.prepared, Evidence(trace, span), revision, trace_id)

    def _asked(self, trace: Trace, span: Span | None, trace_id: str, revision: int) -> Decision | None:
        """Ask the filter; return the decision that it leads to, if it does not let the target through."""
        if self._filter is None:
            return None
        answer, reason = self._filter.ask(trace, span)
        if answer is Answer.YES:
            return None
        outcome = Outcome.FILTERED if answer is Answer.NO else Outcome.FILTER_ERROR
        return self.decide(outcome, trace_id, revision, span=span, reason=reason)


class Selector:
    """
    Chooses for each trace which scorers are called on what.

    Args:
        scorers: The scorers, in the order in which they are called.
        default_timeout: Seconds for a scorer that does not say; 0: no limit.
        suppress: See `Suppression`.

    Raises:
        ConfigError: A filter cannot be compiled.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer],
        *,
        default_timeout: float = DEFAULT_TIMEOUT,
        suppress: Suppression | None = None,
    ) -> None:
        self.selections = [Selection(scorer, default_timeout=default_timeout, suppress=suppress) for scorer in scorers]
        self._samples = any(selection.threshold < _RANGE for selection in self.selections)

    @classmethod
    def of(cls, selections: Iterable[Selection]) -> Self:
        """Return a selector over selections that were made before."""
        selector = cls(())
        selector.replace(selections)
        return selector

    def replace(self, selections: Iterable[Selection]) -> None:
        """Choose among these from now on."""
        made = list(selections)
        self._samples = any(selection.threshold < _RANGE for selection in made)
        self.selections = made

    def wants(self, trace_id: bytes) -> bool:
        """Whether any scorer has this trace in its sample; if none has, nobody needs to look into its spans."""
        if not self._samples:
            return bool(self.selections)
        number = sampling_number(trace_id)
        return any(number < selection.threshold for selection in self.selections)

    def choose(self, trace: Trace, *, revision: int | None = None) -> list[Choice]:
        """
        Return the calls to make on a trace, and a decision for each that is not made, in the order of the scorers.

        Args:
            trace: The trace.
            revision: For the decisions. Default: the trace's.
        """
        trace_id = trace.trace_id
        revision = trace.revision if revision is None else revision
        number = self._number(bytes.fromhex(trace_id))
        evidence = Evidence(trace)
        choices: list[Choice] = []
        for selection in self.selections:
            if number >= selection.threshold:
                choices.append(selection.decide(Outcome.NOT_SAMPLED, trace_id, revision))
            else:
                choices += selection.choose(trace, evidence, revision=revision, trace_id=trace_id)
        return choices

    def refuse(
        self, trace_id: bytes, outcome: Outcome, reason: str | None = None, *, revision: int = 1
    ) -> list[Decision]:
        """
        Return one decision per scorer about a trace that nobody will look at, such as one that was shed.

        A scorer that does not have it in its sample says so, as it would have anyway.
        """
        number = self._number(trace_id)
        text = trace_id.hex()
        return [
            selection.decide(Outcome.NOT_SAMPLED, text, revision)
            if number >= selection.threshold
            else selection.decide(outcome, text, revision, reason=reason)
            for selection in self.selections
        ]

    def _number(self, trace_id: bytes) -> int:
        return sampling_number(trace_id) if self._samples else 0
