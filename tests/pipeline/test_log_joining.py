"""Log records join the trace that they are about, whenever they come, and take a bounded amount of memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import Counted

from otel_scorer.model.log_records import RECORD_OVERHEAD, RawLog
from otel_scorer.model.wire import SPAN_OVERHEAD, RawSpan, ScopeRef
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, ClosedTrace, CloseReason, TraceAssembler

SCOPE = ScopeRef.of(b"", b"")
DROPPED = "assembler.log_records_dropped"


def raw(trace: int = 1, span: int = 1, parent: int | None = None, data: bytes = b"\x30\x01\x30\x01") -> RawSpan:
    parent_id = None if parent is None else parent.to_bytes(8, "big")
    return RawSpan(data, SCOPE, trace.to_bytes(16, "big"), span.to_bytes(8, "big"), parent_id, False)


def log(text: bytes = b"record", *, trace: int = 1, span: int = 1) -> RawLog:
    return RawLog(text, trace.to_bytes(16, "big"), span.to_bytes(8, "big"))


def an_assembler(**limits: Any) -> TraceAssembler:
    return TraceAssembler(AssemblyLimits(**limits))


def texts(trace: ClosedTrace[RawSpan]) -> list[bytes]:
    return [record.data for record in trace.logs]


def test_records_join_their_trace_before_between_and_after_its_spans() -> None:
    assembler, counted = an_assembler(), Counted()
    assembler.add_logs([log(b"before"), log(b"other", trace=2)], 0.0)
    assembler.add([raw(span=2, parent=1), raw(trace=2)], 1.0)
    assembler.add_logs([log(b"between", span=2)], 1.5)
    assembler.add([raw(span=1)], 2.0)
    assembler.add_logs([log(b"after")], 3.0)

    [other] = assembler.due(3.0)
    [trace] = assembler.due(5.0)

    assert texts(trace) == [b"before", b"between", b"after"]
    assert texts(other) == [b"other"]
    assert (trace.reason, trace.complete) == (CloseReason.ROOT_QUIET, True)
    assert counted("assembler.log_records") == 4
    assert assembler.size == 0


def test_records_never_open_a_trace_nor_start_its_countdown() -> None:
    assembler = an_assembler()
    assembler.add_logs([log()], 0.0)
    assert len(assembler) == 0
    assembler.add([raw(span=2, parent=1)], 1.0)
    assembler.add_logs([log(b"more")], 2.0)

    assert assembler.due(100.0) == []
    [trace] = assembler.due(182.0)

    assert (trace.reason, trace.complete) == (CloseReason.IDLE, False)


def test_a_record_of_an_open_trace_extends_the_grace_up_to_the_cap() -> None:
    assembler = an_assembler()
    assembler.add([raw()], 0.0)
    for step in range(1, 16):
        assembler.add_logs([log(b"%d" % step)], step * 1.9)
        assert assembler.due(step * 1.9) == []

    assert assembler.due(29.99) == []
    [trace] = assembler.due(30.0)

    assert trace.reason is CloseReason.ROOT_QUIET
    assert len(trace.logs) == 15


def test_a_record_that_comes_again_counts_once_and_extends_nothing() -> None:
    assembler, counted = an_assembler(), Counted()
    assembler.add_logs([log(), log()], 0.0)
    assembler.add([raw()], 0.0)
    assembler.add_logs([log()], 1.0)

    [trace] = assembler.due(2.0)

    assert texts(trace) == [b"record"]
    assert counted("assembler.duplicate_log_records") == 2


def test_records_of_a_closed_trace_are_late() -> None:
    assembler, counted = an_assembler(), Counted()
    assembler.add([raw()], 0.0)
    assembler.due(2.0)

    assembler.add_logs([log(), log(b"more")], 3.0)

    assert counted("assembler.late_log_records") == 2
    assert (assembler.next_deadline(), assembler.due(1e6)) == (None, [])


def test_records_without_a_trace_wait_as_long_as_a_trace_without_a_root() -> None:
    assembler, counted = an_assembler(), Counted()
    assembler.add_logs([log(b"one"), log(trace=2)], 0.0)
    assembler.add_logs([log(b"two")], 100.0)

    assert assembler.next_deadline() == 180.0
    assembler.due(180.0)
    assert counted(f"{DROPPED}{{reason=no_trace}}") == 1
    assert assembler.next_deadline() == 280.0
    assembler.due(280.0)

    assert counted(f"{DROPPED}{{reason=no_trace}}") == 3
    assembler.add([raw()], 281.0)
    assert texts(assembler.drain(CloseReason.END_OF_FILE, 281.0)[0]) == []


def test_a_trickle_of_records_without_a_trace_does_not_wait_for_ever() -> None:
    assembler, counted = an_assembler(max_age=1000.0), Counted()
    for step in range(12):
        assembler.due(step * 100.0)
        assembler.add_logs([log(b"%d" % step)], step * 100.0)

    assert counted(f"{DROPPED}{{reason=evicted}}") == 10


def test_a_trace_keeps_so_many_records_and_no_more() -> None:
    assembler, counted = an_assembler(max_spans_per_trace=3), Counted()
    assembler.add_logs([log(b"%d" % number) for number in range(5)], 0.0)
    assembler.add([raw()], 0.0)
    assembler.add_logs([log(b"late")], 0.0)

    [trace] = assembler.due(2.0)

    assert texts(trace) == [b"0", b"1", b"2"]
    assert counted(f"{DROPPED}{{reason=record_limit}}") == 3


def test_records_take_half_of_the_bytes_of_a_trace_and_close_nothing() -> None:
    record = log(b"x" * (1000 - RECORD_OVERHEAD))
    assembler, counted = an_assembler(max_bytes_per_trace=4000), Counted()
    assembler.add_logs([record._replace(data=bytes((number,)) * 700) for number in range(3)], 0.0)
    assert counted(f"{DROPPED}{{reason=byte_limit}}") == 1
    assembler.add([raw(data=bytes(1000 - SPAN_OVERHEAD))], 0.0)
    assert (len(assembler), assembler.size) == (1, 3000)
    assembler.add_logs([record], 0.0)
    assert counted(f"{DROPPED}{{reason=byte_limit}}") == 2

    [trace] = assembler.add([raw(span=2, parent=1, data=bytes(1000 - SPAN_OVERHEAD))], 0.0).closed

    assert (trace.reason, trace.size, len(trace.logs)) == (CloseReason.BYTE_LIMIT, 4000, 2)


def test_the_oldest_of_what_waits_makes_room() -> None:
    assembler, counted = an_assembler(max_traces=2), Counted()
    for trace in (1, 2, 1, 3):
        assembler.add_logs([log(b"%d" % trace, trace=trace)], 0.0)

    assembler.add([raw(trace=1), raw(trace=2), raw(trace=3)], 0.0)

    assert counted(f"{DROPPED}{{reason=evicted}}") == 1
    assembler = an_assembler(max_bytes_per_trace=2000)
    assembler.add_logs([log(bytes(700), trace=number) for number in range(1, 7)], 0.0)
    assert counted(f"{DROPPED}{{reason=evicted}}") == 3


def test_what_still_waits_at_the_end_is_counted() -> None:
    assembler, counted = an_assembler(), Counted()
    assembler.add_logs([log(), log(b"more"), log(trace=2)], 0.0)

    assert assembler.drain(CloseReason.SHUTDOWN, 1.0) == []

    assert counted(f"{DROPPED}{{reason=no_trace}}") == 3


def test_nothing_is_left_of_records_that_have_gone() -> None:
    scope = ScopeRef(b"", b"")
    gone = weakref.ref(scope)
    assembler = an_assembler()
    assembler.add([raw()._replace(scope=scope)], 0.0)
    assembler.add_logs([log(b"%d" % number, trace=number) for number in range(1, 50)], 0.0)
    del scope

    assembler.due(1e6)
    gc.collect()

    assert (gone(), assembler.size, assembler.next_deadline()) == (None, 0, None)


@given(
    st.permutations([raw(span=1), raw(span=2, parent=1), log(b"a"), log(b"b", span=2), log(b"c"), raw(trace=2)]),
    st.integers(0, 6),
)
def test_any_order_gives_the_same_spans_and_records(arrivals: list[RawSpan | RawLog], until: int) -> None:
    assembler = an_assembler()
    for arrival in [*arrivals, *arrivals[:until]]:
        if isinstance(arrival, RawSpan):
            assembler.add([arrival], 0.0)
        else:
            assembler.add_logs([arrival], 0.0)

    closed = {trace.trace_id[-1]: trace for trace in assembler.due(2.0)}

    assert {record.data for record in closed[1].logs} == {b"a", b"b", b"c"}
    assert len(closed[1].logs) == 3
    assert (len(closed[1].spans), closed[2].logs, assembler.size) == (2, (), 0)
