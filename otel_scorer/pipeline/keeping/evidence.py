"""
What is known of a trace when it is to be kept or not, and the questions that rules ask of it.

Three answers are possible: None is for what depends on a scorer that gave no verdict where it should have, or on spans
that are not there.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.running.filters import SPAN_FIELDS, TRACE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import Trace

__all__ = [
    "NUMBERS",
    "Evidence",
    "Fact",
    "Found",
    "Operand",
    "Test",
    "all_of",
    "any_of",
    "as_operand",
    "comparison",
    "constant",
    "fact_of",
    "facts_of",
    "has_error",
    "has_failed",
    "is_true",
    "keep_number",
    "negation",
    "values_of",
]

NUMBERS: Final = 1 << 64
"""How many numbers `keep_number` may return."""

# Not the salt of the scorers' samples: who is in one must not be more likely to be in the other, or the traces that no
# scorer has seen would be missing among those that stand for them.
_SALT: Final = b"otel_scorer.keep"
_UNDECIDED: Final = frozenset({
    Outcome.FILTER_ERROR,
    Outcome.TIMED_OUT,
    Outcome.FAILED,
    Outcome.SHED,
    Outcome.UNPROCESSABLE,
})  # fmt: skip


def keep_number(trace_id: bytes) -> int:
    """Return the 64-bit number that stands for a trace in `sample(...)`: the same in every process."""
    return int.from_bytes(blake2b(trace_id, digest_size=8, salt=_SALT).digest())


class Fact(NamedTuple):
    """A field of a trace or its root, or one key of a map."""

    subject: str
    name: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What is known of a trace.

    Attributes:
        decisions: What scorers decided.
        scorers: The names of those that had a say.
        facts: What its spans say, see `facts_of`; None: they cannot be read.
        is_decided: Whether no more decisions will come.
        is_whole: Whether nobody cut the waiting for spans short.
        number: See `keep_number`.
    """

    decisions: Sequence[Decision] = ()
    scorers: Collection[str] = ()
    facts: Mapping[Fact, object] | None = None
    is_decided: bool = True
    is_whole: bool = True
    number: int = 0


class Found(NamedTuple):
    """Values of an operand, and whether there may be others that nobody knows."""

    values: tuple[Any, ...]
    is_open: bool = False


Test: TypeAlias = "Callable[[Evidence], bool | None]"
"""Tells whether something holds; None: nobody knows."""

Operand: TypeAlias = "Callable[[Evidence], Found]"
"""One side of a comparison."""


def facts_of(trace: Trace, wanted: Collection[Fact]) -> dict[Fact, object]:
    """Return what a trace says of these fields; what it does not have is left out."""
    found: dict[Fact, object] = {}
    for fact in wanted:
        value: Any = None
        if fact.subject == "trace":
            value = TRACE_FIELDS[fact.name](trace)
        elif trace.root is not None:
            value = SPAN_FIELDS[fact.name](trace.root)
        if fact.key is not None and value is not None:
            value = value.get(fact.key)
        if value is not None:
            found[fact] = value
    return found


def fact_of(fact: Fact) -> Operand:
    """Return what looks a field up."""

    def look(evidence: Evidence) -> Found:
        if evidence.facts is None:
            return Found((), is_open=True)
        values = (evidence.facts[fact],) if fact in evidence.facts else ()
        return Found(values, is_open=not evidence.is_whole)

    return look


def any_of(parts: Sequence[Test]) -> Test:
    """Return what holds if one part does."""

    def test(evidence: Evidence) -> bool | None:
        answers = [part(evidence) for part in parts]
        return True if True in answers else None if None in answers else False

    return test


def all_of(parts: Sequence[Test]) -> Test:
    """Return what holds if all parts do."""

    def test(evidence: Evidence) -> bool | None:
        answers = [part(evidence) for part in parts]
        return False if False in answers else None if None in answers else True

    return test


def negation(part: Test) -> Test:
    """Return what holds if a test does not."""

    def test(evidence: Evidence) -> bool | None:
        answer = part(evidence)
        return None if answer is None else not answer

    return test


def constant(value: object) -> Operand:
    """Return an operand that is always the same."""
    found = Found((value,))
    return lambda _: found


def as_operand(test: Test) -> Operand:
    """Return the answer of a test as something to be compared."""

    def look(evidence: Evidence) -> Found:
        answer = test(evidence)
        return Found((), is_open=True) if answer is None else Found((answer,))

    return look


def is_true(operand: Operand) -> Test:
    """Return what holds if a value is True."""
    return comparison(operand, operator.is_, constant(value=True))


def comparison(left: Operand, compares: Callable[[Any, Any], Any], right: Operand) -> Test:
    """Return what holds if one value on the left compares so with one on the right."""

    def test(evidence: Evidence) -> bool | None:
        first, second = left(evidence), right(evidence)
        is_open = first.is_open or second.is_open
        for pair in product(first.values, second.values):
            try:
                if compares(*pair):
                    return True
            except TypeError:  # text and a number, for example: nobody can say which is more
                is_open = True
        return None if is_open else False

    return test


def _is_unknown(evidence: Evidence, scorer: str | None) -> bool:
    """Whether a scorer, or any, may have more to say than it did."""
    if not (evidence.is_decided and evidence.is_whole) or (scorer is not None and scorer not in evidence.scorers):
        return True
    return any(_is_error(each) for each in evidence.decisions if scorer is None or each.scorer == scorer)


def _is_error(decision: Decision) -> bool:
    return decision.outcome in _UNDECIDED or any(feedback.error is not None for feedback in decision.feedbacks)


def has_error(evidence: Evidence) -> bool | None:
    """Tell whether a scorer gave an error instead of a verdict."""
    if any(_is_error(each) for each in evidence.decisions):
        return True
    return False if evidence.is_decided else None


def has_failed(scorer: str | None, name: str | None) -> Test:
    """Return whether a verdict did not pass: of any scorer, of this one, or this feedback of it."""

    def test(evidence: Evidence) -> bool | None:
        for decision in evidence.decisions:
            if scorer is None or decision.scorer == scorer:
                pairs = zip(decision.feedbacks, decision.passed, strict=False)
                if any(passed is False for feedback, passed in pairs if name is None or feedback.name == name):
                    return True
        return None if _is_unknown(evidence, scorer) else False

    return test


def values_of(scorer: str, name: str | None) -> Operand:
    """Return what a scorer said, or one feedback of it."""

    def look(evidence: Evidence) -> Found:
        values = tuple(
            feedback.value
            for decision in evidence.decisions
            if decision.scorer == scorer
            for feedback in decision.feedbacks
            if feedback.value is not None and (name is None or feedback.name == name)
        )
        return Found(values, is_open=_is_unknown(evidence, scorer))

    return look
