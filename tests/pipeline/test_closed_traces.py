"""What is remembered of closed traces and units, and what is forgotten for it."""

from __future__ import annotations

from otel_scorer.pipeline.assembly.closed_traces import ClosedTraces
from otel_scorer.pipeline.assembly.closing import AssemblyLimits

TRACE = b"t" * 16


def ids(*numbers: int) -> list[bytes]:
    return [number.to_bytes(8, "big") for number in numbers]


def test_what_is_learned_of_a_unit_makes_others_be_forgotten_and_not_itself() -> None:
    closed = ClosedTraces(AssemblyLimits(max_traces=1))  # remembers ten spans of units
    closed.remember_spans(TRACE, b"old", ids(1, 2, 3, 4), 1.0)
    closed.remember_spans(TRACE, b"new", ids(5, 6, 7, 8), 2.0)

    closed.learn(b"old", ids(9, 10, 11))

    assert closed.recall(b"old") == 1.0
    assert closed.unit_of(TRACE, *ids(9)) == b"old"
    assert b"new" not in closed.keys


def test_spans_of_a_unit_that_share_an_id_are_forgotten_as_one() -> None:
    closed = ClosedTraces(AssemblyLimits(max_traces=1))  # remembers ten spans of units
    closed.remember_spans(TRACE, b"old", ids(1, 2, 2), 1.0)
    closed.learn(b"old", ids(3, 3))

    closed.remember_spans(TRACE, b"new", ids(4, 5, 6, 7, 8, 9, 10, 11), 2.0)

    assert set(closed.keys) == {b"new"}
    assert closed.unit_of(TRACE, *ids(2)) is None
    assert closed.unit_of(TRACE, *ids(4)) == b"new"


def test_a_unit_of_more_spans_than_are_remembered_is_remembered_alone() -> None:
    closed = ClosedTraces(AssemblyLimits(max_traces=1))  # remembers ten spans of units
    closed.remember_spans(TRACE, b"old", ids(1, 2), 1.0)

    closed.remember_spans(TRACE, b"new", ids(*range(3, 15)), 2.0)

    assert set(closed.keys) == {b"new"}
    assert closed.unit_of(TRACE, *ids(14)) == b"new"
