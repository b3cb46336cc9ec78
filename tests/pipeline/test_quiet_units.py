"""Units of which only ended spans are seen: what belongs to which local root, and nothing is lost or said twice."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags

from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, CloseReason
from otel_scorer.pipeline.in_app.quiet_units import QuietUnits
from otel_scorer.pipeline.in_app.units import ClosedUnit, Place

Closed = list[tuple[int | None, set[int], CloseReason, bool]]


def a_span(number: int, parent: int | None = None, *, remote: bool = False, scope: str = "app") -> ReadableSpan:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return ReadableSpan(
        str(number),
        context=SpanContext(1, number, is_remote=False, trace_flags=flags),
        parent=None if parent is None else SpanContext(1, parent, is_remote=remote, trace_flags=flags),
        start_time=number,
        end_time=number,
        instrumentation_scope=InstrumentationScope(scope),
    )


def units(limits: AssemblyLimits | None = None, *, wanted: bool = True) -> QuietUnits:
    return QuietUnits(limits or AssemblyLimits(), lambda _trace, _is_head: wanted, lambda _: 1500)


def end(quiet: QuietUnits, *spans: ReadableSpan, now: float = 0.0) -> list[Place]:
    return [quiet.ended(1, number_of(span), span, now)[0] for span in spans]


def number_of(span: ReadableSpan) -> int:
    return int(span.name)


def told(closed: list[ClosedUnit[ReadableSpan]]) -> Closed:
    return [
        (
            None if unit.root is None else number_of(unit.root),
            set(map(number_of, unit.spans)),
            unit.reason,
            unit.complete,
        )
        for unit in closed
    ]


def test_a_trace_closes_when_nothing_has_come_for_the_grace_after_its_root() -> None:
    quiet = units()

    assert end(quiet, a_span(2, 1), a_span(1)) == [Place.CHILD, Place.ROOT]
    assert quiet.due(1.9) == []
    end(quiet, a_span(3, 1), now=1.9)
    assert quiet.due(2.1) == []

    assert told(quiet.due(3.9)) == [(1, {1, 2, 3}, CloseReason.ROOT_QUIET, True)]
    assert (len(quiet), quiet.next_deadline()) == (0, None)


def test_each_local_root_has_a_unit_of_its_own() -> None:
    quiet = units()

    end(quiet, a_span(11, 10), a_span(10, 99, remote=True), a_span(21, 20), a_span(22, 21), a_span(20, 98, remote=True))

    assert told(quiet.due(2.0)) == [
        (10, {10, 11}, CloseReason.LOCAL_ROOT_QUIET, True),
        (20, {20, 21, 22}, CloseReason.LOCAL_ROOT_QUIET, True),
    ]


def test_a_service_that_calls_itself_has_a_unit_for_each_entry() -> None:
    quiet = units()

    end(quiet, a_span(4, 3), a_span(3, 2, remote=True), a_span(2, 1), a_span(1))

    assert {(root, frozenset(spans)) for root, spans, _, _ in told(quiet.due(2.0))} == {
        (1, frozenset({1, 2})),
        (3, frozenset({3, 4})),
    }


def test_without_any_root_it_closes_when_idle() -> None:
    quiet = units()

    end(quiet, a_span(2, 1))

    assert quiet.due(179.0) == []
    assert told(quiet.due(180.0)) == [(None, {2}, CloseReason.IDLE, False)]


def test_what_nobody_wants_or_comes_late_or_is_our_own_belongs_nowhere() -> None:
    assert end(units(wanted=False), a_span(1)) == [Place.NONE]

    quiet = units()
    end(quiet, a_span(1))
    quiet.due(2.0)

    assert end(quiet, a_span(2, 1), a_span(3, 1, scope="otel_scorer"), now=3.0) == [Place.NONE, Place.NONE]
    assert not quiet.is_open(1)


def test_many_bytes_close_a_trace() -> None:
    quiet = units(AssemblyLimits(max_bytes_per_trace=4000))

    end(quiet, a_span(2, 1))
    _, closed = quiet.ended(1, 3, a_span(3, 1), 0.0)

    assert told(list(closed)) == [(None, {2, 3}, CloseReason.BYTE_LIMIT, False)]


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_every_span_is_in_exactly_one_unit_whoever_its_parent_is(
    parents: list[tuple[int, bool]], random: Random
) -> None:
    quiet = units()
    spans = [a_span(number, parent or None, remote=remote) for number, (parent, remote) in enumerate(parents, start=1)]
    random.shuffle(spans)

    end(quiet, *spans)
    closed = quiet.drain(CloseReason.SHUTDOWN, 1.0)

    assert Counter(number_of(span) for unit in closed for span in unit.spans) == Counter(range(1, len(spans) + 1))
    heads = [unit.root for unit in closed if unit.root is not None]
    assert len(heads) == len([span for span in spans if span.parent is None or span.parent.is_remote])
    assert len(quiet) == 0
