"""When traces close and what is in them, case by case (A1 to A31). No test here waits: the time is an argument."""

from __future__ import annotations

import gc
import inspect
import time
import weakref
from collections.abc import Iterable
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import Counted, PlainReader, a_decision
from tests.strategies import batched

from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.encoding import varint_field
from otel_scorer.model.log_records import RawLog
from otel_scorer.model.splicing import join_spans
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import SPAN_OVERHEAD, RawSpan, ScopeRef, read_traces
from otel_scorer.pipeline.assembly.assembler import (
    Added,
    AssemblyLimits,
    ClosedTrace,
    CloseReason,
    TraceAssembler,
    Trigger,
    has_gaps,
)
from otel_scorer.pipeline.sidecar.engine import Engine
from otel_scorer.pipeline.verdicts.emission import Emission, Emitter
from otel_scorer.testing import CollectingSink, make_raw, make_request, make_span

MINUTE = 60.0
SCOPE = ScopeRef.of(b"", b"")


def raw(
    trace: int = 1,
    span: int = 1,
    parent: int | None = None,
    *,
    kind: int = 1,
    data: bytes | None = None,
    remote_parent: bool = False,
) -> RawSpan:
    """A span as the assembler sees it, without the cost of encoding one."""
    parent_id = None if parent is None else parent.to_bytes(8, "big")
    data = 2 * varint_field(6, kind) if data is None else data
    return RawSpan(data, SCOPE, trace.to_bytes(16, "big"), span.to_bytes(8, "big"), parent_id, remote_parent)


def an_assembler(**limits: object) -> TraceAssembler:
    return TraceAssembler(AssemblyLimits(**limits))  # type: ignore[arg-type]  # the fields have several types


def timers(assembler: TraceAssembler) -> int:
    return len(assembler._deadlines)  # noqa: SLF001 - what it costs is not what it does, so nothing public tells


def span_numbers(trace: ClosedTrace[RawSpan]) -> list[int]:
    return [int.from_bytes(span.span_id, "big") for span in trace.spans]


def add_each(assembler: TraceAssembler, spans: Iterable[RawSpan], now: float) -> list[Added]:
    return [assembler.add([span], now) for span in spans]


def scored(trace: ClosedTrace[RawSpan]) -> bytes:
    """All that leaves because of a trace, and all that a scorer can see of it."""
    sink = CollectingSink()
    emitter = Emitter(Emission(), sink.on_scores)
    seen = Trace(spans_from_raw(trace.spans), PlainReader(), close_reason=trace.reason, is_complete=trace.complete)
    emitter.emit(trace, [a_decision(True, seen.to_json(), 3)])
    emitter.flush()
    return b"".join(sink.score_requests)


def test_a1_a_trace_closes_the_grace_after_its_last_span_when_the_root_is_the_last() -> None:
    assembler = an_assembler()
    for second, span in enumerate(
        [raw(span=2, parent=1), raw(span=3, parent=1), raw(span=4, parent=2), raw(span=5, parent=2)]
    ):
        assembler.add([span], float(second))
    assembler.add([raw(span=1)], 10.0)

    assert assembler.next_deadline() == 12.0
    assert assembler.due(11.999) == []
    [trace] = assembler.due(12.0)

    assert (len(trace.spans), trace.reason, trace.complete, trace.revision) == (5, CloseReason.ROOT_QUIET, True, 1)
    assert assembler.due(1e9) == []


def test_a2_children_that_come_after_the_root_extend_the_grace() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=1)], 0.0)
    closed: list[ClosedTrace[RawSpan]] = []
    for step in range(1, 12):
        closed += assembler.due(step * 1.8)
        assembler.add([raw(span=step + 1, parent=1)], step * 1.8)

    assert closed == []
    assert assembler.due(11 * 1.8 + 1.999) == []
    [trace] = assembler.due(11 * 1.8 + 2.0)

    assert (len(trace.spans), trace.reason) == (12, CloseReason.ROOT_QUIET)


def test_a3_children_cannot_extend_the_grace_beyond_the_cap() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=1)], 0.0)
    closed: list[tuple[float, ClosedTrace[RawSpan]]] = []
    late = 0
    for step in range(1, 32):
        now = step * 1.9
        closed += [(now, trace) for trace in assembler.due(now)]
        late += len(assembler.add([raw(span=step + 1, parent=1 if step < 5 else 99)], now).late)

    [(closed_at, trace)] = closed

    assert 30.0 <= closed_at < 32.0
    assert (trace.reason, trace.complete) == (CloseReason.ROOT_QUIET, False)
    assert len(trace.spans) + late == 32


def test_a3_the_cap_counts_from_the_root() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=2, parent=1)], 0.0)
    assembler.add([raw(span=1)], 100.0)
    for second in range(101, 130):
        assembler.add([raw(span=second, parent=1)], float(second))
        assert assembler.due(float(second)) == []

    assert assembler.due(129.999) == []
    assert len(assembler.due(130.0)) == 1


A4_SPANS = [
    make_span("root", span=1, start=0, end=9),
    make_span("first", span=2, parent=1, start=1, attributes={"n": 1}),
    make_span("second", span=3, parent=1, start=1, attributes={"n": 2}),
    make_span("below", span=4, parent=3, start=1),
    make_span("tool", span=5, parent=4, start=3, status="ERROR"),
]


def test_a4_every_order_and_every_split_into_batches_gives_the_same_score() -> None:
    spans = make_raw(*A4_SPANS)
    payloads: set[bytes] = set()
    splits = 0

    for order in permutations(spans):
        closed: list[ClosedTrace[RawSpan]] = []
        for cuts in range(2 ** (len(order) - 1)):
            assembler = an_assembler()
            batch: list[RawSpan] = []
            for index, span in enumerate(order):
                batch.append(span)
                if cuts >> index & 1 or index == len(order) - 1:
                    assembler.add(batch, 0.1 * index)
                    batch = []
            assert assembler.next_deadline() is not None
            closed += assembler.due(2.4)
        # However they were split, the same comes out; so the score is looked at once for each order.
        assert all(trace == closed[0] for trace in closed)
        assert (closed[0].spans, closed[0].reason, closed[0].complete) == (list(order), CloseReason.ROOT_QUIET, True)
        splits += len(closed)
        payloads.add(scored(closed[0]))

    assert splits == 120 * 16
    assert len(payloads) == 1


def test_a5_spans_of_many_traces_in_one_request_are_told_apart_and_keep_resource_and_scope() -> None:
    request = ExportTraceServiceRequest()
    for service in ("web", "db"):
        resource_spans = request.resource_spans.add(schema_url=f"https://{service}")
        resource_spans.resource.dropped_attributes_count = 4
        resource_spans.resource.attributes.add(key="service.name").value.string_value = service
        scope_spans = resource_spans.scope_spans.add(schema_url="https://scope")
        scope_spans.scope.name = f"{service}.scope"
        scope_spans.scope.dropped_attributes_count = 5
        for number in range(1, 502):
            span = make_span(trace=number, span=1 if service == "web" else 2, parent=None if service == "web" else 1)
            span.dropped_events_count = 6
            scope_spans.spans.append(span)
    assembler = an_assembler()

    assembler.add(read_traces(request.SerializeToString()).spans, 0.0)
    traces = assembler.due(2.0)

    assert len(traces) == 501
    for trace in traces:
        sent = ExportTraceServiceRequest.FromString(join_spans(trace.spans))
        for resource_spans, service in zip(sent.resource_spans, ("web", "db"), strict=True):
            [scope_spans] = resource_spans.scope_spans
            [span] = scope_spans.spans
            assert resource_spans.resource.attributes[0].value.string_value == service
            assert resource_spans.schema_url == f"https://{service}"
            assert (scope_spans.scope.name, scope_spans.schema_url) == (f"{service}.scope", "https://scope")
            dropped = (resource_spans.resource, scope_spans.scope)
            assert [part.dropped_attributes_count for part in dropped] == [4, 5]
            assert span.dropped_events_count == 6


def test_a6_a_trace_without_a_root_closes_when_it_has_been_idle() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=2, parent=1)], 0.0)
    assembler.add([raw(span=3, parent=1)], 100.0)

    assert assembler.due(279.999) == []
    [trace] = assembler.due(280.0)

    assert (trace.reason, trace.complete) == (CloseReason.IDLE, False)


def test_a7_a_trace_that_never_falls_silent_closes_at_its_maximum_age() -> None:
    assembler = an_assembler()
    closed: list[ClosedTrace[RawSpan]] = []
    late = 0
    for step in range(72):
        closed += assembler.due(step * 100.0)
        late += len(assembler.add([raw(span=step + 2, parent=1)], step * 100.0).late)
        assert (late > 0) == (step * 100.0 >= 3600.0)

    [trace] = closed

    assert (len(trace.spans), trace.reason, trace.complete) == (36, CloseReason.MAX_AGE, False)
    assert late == 36


def test_a8_two_roots_are_one_trace_and_one_score() -> None:
    assembler = an_assembler()

    assembler.add(make_raw(make_span("later", span=2, start=5)), 0.0)
    assembler.add(make_raw(make_span("earlier", span=1, start=1)), 1.0)
    [trace] = assembler.due(3.0)

    view = Trace(spans_from_raw(trace.spans), PlainReader())
    assert (view.root_count, trace.complete) == (2, True)
    assert view.root is not None
    assert view.root.name == "earlier"


def test_a9_with_trigger_local_root_a_server_span_is_as_good_as_a_root() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    assembler.add([raw(span=2, parent=1, remote_parent=True), raw(span=3, parent=2)], 0.0)

    assert assembler.due(1.999) == []
    [trace] = assembler.due(2.0)

    assert (trace.reason, trace.complete) == (CloseReason.LOCAL_ROOT_QUIET, True)


def test_a9_a_unit_says_whether_it_was_a_root_or_a_local_root_that_closed_it() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    assembler.add([raw(span=1), raw(span=2, parent=1), local_root(3)], 0.0)

    reasons = {trace.unit[-1]: trace.reason for trace in assembler.due(2.0)}

    assert reasons == {1: CloseReason.ROOT_QUIET, 3: CloseReason.LOCAL_ROOT_QUIET}


def test_a9_by_default_a_local_root_waits_longer_for_a_root_and_is_not_called_complete() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=2, parent=1, remote_parent=True)], 0.0)
    assembler.add([raw(span=3, parent=2)], 5.0)

    assert assembler.due(14.999) == []
    [trace] = assembler.due(15.0)

    assert (trace.reason, trace.complete) == (CloseReason.LOCAL_ROOT_QUIET, False)


def test_a9_a_local_root_whose_parent_is_here_is_none() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=2, parent=1, remote_parent=True)], 0.0)
    assembler.add([raw(span=1, parent=9)], 1.0)

    assert assembler.due(100.0) == []
    [trace] = assembler.due(181.0)

    assert trace.reason is CloseReason.IDLE


def test_a9_a_root_that_comes_after_the_local_root_takes_over() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=2, parent=1, remote_parent=True)], 0.0)
    assembler.add([raw(span=1)], 1.0)

    [trace] = assembler.due(3.0)

    assert (trace.reason, trace.complete) == (CloseReason.ROOT_QUIET, True)


def local_root(span: int, **options: Any) -> RawSpan:
    return raw(span=span, parent=900 + span, remote_parent=True, **options)


def test_a9_a_service_that_is_called_five_times_in_one_trace_has_five_units_closed_one_by_one() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    for call in range(1, 6):
        # Children end first, so they come first.
        assembler.add([raw(span=10 * call + 2, parent=10 * call + 1)], float(call))
        assembler.add([raw(span=10 * call + 1, parent=10 * call), local_root(10 * call)], call + 0.5)

    closed = [(now, trace) for now in range(3, 9) for trace in assembler.due(now + 0.5)]

    assert [(now, trace.unit[-1]) for now, trace in closed] == [(3, 10), (4, 20), (5, 30), (6, 40), (7, 50)]
    for _, trace in closed:
        head = trace.unit[-1]
        assert (sorted(span_numbers(trace)), trace.complete) == ([head, head + 1, head + 2], True)
        assert trace.reason is CloseReason.LOCAL_ROOT_QUIET
    assert (len(assembler), assembler.size, assembler.remembered) == (0, 0, 5)


def test_a9_the_spans_of_a_unit_find_together_in_any_order() -> None:
    spans = [local_root(1), *(raw(span=span, parent=parent) for span, parent in ((2, 1), (3, 2), (4, 3), (5, 3)))]
    other = local_root(6)
    for order in permutations([*spans, other]):
        assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
        add_each(assembler, order, 0.0)

        traces = {trace.unit[-1]: trace for trace in assembler.due(2.0)}

        assert {unit: sorted(span_numbers(trace)) for unit, trace in traces.items()} == {1: [1, 2, 3, 4, 5], 6: [6]}
        assert traces[1].complete


def test_a9_each_unit_is_remembered_on_its_own() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    assembler.add([local_root(1), raw(span=2, parent=1)], 0.0)
    assembler.due(2.0)

    # Below the closed unit, and what waited for a span that turns out to be; a call of its own is none of that.
    assert assembler.add([raw(span=4, parent=3), local_root(7), raw(span=8, parent=7)], 3.0).late == []
    late = assembler.add([raw(span=3, parent=2), raw(span=5, parent=4)], 3.5).late
    [trace] = assembler.due(5.0)

    assert [span.span_id[-1] for span in late] == [3, 4, 5]
    assert sorted(span_numbers(trace)) == [7, 8]
    assert len(assembler) == 0


def test_a9_a_unit_stays_open_for_spans_that_outlive_its_local_root_up_to_the_cap() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    assembler.add([local_root(1)], 0.0)
    for second in range(1, 30):
        assembler.add([raw(span=second + 1, parent=1)], float(second))
        assert assembler.due(float(second)) == []

    [trace] = assembler.due(30.0)

    assert (len(trace.spans), trace.complete) == (30, True)


def test_a9_what_waits_for_a_parent_that_never_comes_closes_when_it_has_been_idle() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    assembler.add([raw(span=2, parent=9), raw(span=3, parent=9)], 0.0)

    [trace] = assembler.due(180.0)

    assert (sorted(span_numbers(trace)), trace.reason, trace.complete) == ([2, 3], CloseReason.IDLE, False)
    assert trace.unit == (9).to_bytes(8, "big")


def test_a9_a15_two_kinds_that_share_an_id_are_in_one_unit() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    client, server = local_root(1, kind=3), local_root(1, kind=2)

    assembler.add([client, server, raw(span=2, parent=1)], 0.0)
    again = assembler.add([client, server], 0.5)
    [trace] = assembler.due(2.5)

    assert trace.spans[:2] == [client, server]
    assert again.duplicates == [client, server]


@pytest.mark.parametrize("parents", [{1: 2, 2: 1}, {1: 1, 2: 1}], ids=["cycle", "its own parent"])
def test_a12_a13_units_survive_spans_without_a_beginning(parents: dict[int, int]) -> None:
    for order in permutations(parents):
        assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
        add_each(assembler, [raw(span=span, parent=parents[span]) for span in order], 0.0)

        [trace] = assembler.due(180.0)

        assert (sorted(span_numbers(trace)), trace.complete, trace.unit[-1]) == ([1, 2], False, 1)


def test_a9_log_records_are_in_the_unit_of_their_span() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    records = [RawLog(bytes((span,)), (1).to_bytes(16, "big"), span.to_bytes(8, "big")) for span in (1, 2, 3, 9)]

    # It names the model's response instead of a span: whichever unit has that.
    unnamed = RawLog(b"response", (1).to_bytes(16, "big"), b"")

    assembler.add_logs([*records[:2], unnamed], 0.0)
    assembler.add([local_root(1), raw(span=2, parent=3), local_root(7)], 0.5)
    assembler.add([raw(span=3, parent=1)], 1.0)
    assembler.add_logs(records[2:], 1.0)
    traces = {trace.unit[-1]: trace for trace in assembler.due(4.0)}
    counted = Counted()
    assembler.add_logs([records[0]], 4.0)

    assert {unit: set(trace.logs) for unit, trace in traces.items()} == {1: {*records[:3], unnamed}, 7: {unnamed}}
    assert counted("assembler.late_log_records") == 1


def test_a10_with_trigger_root_a_local_root_is_like_any_other_span() -> None:
    assembler = an_assembler(trigger=Trigger.ROOT)
    assembler.add([raw(span=2, parent=1, remote_parent=True)], 0.0)

    assert assembler.due(179.999) == []
    [trace] = assembler.due(180.0)

    assert (trace.reason, trace.complete) == (CloseReason.IDLE, False)


def test_a11_a_trace_whose_parent_never_came_closes_as_usual_and_is_not_complete() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=1), raw(span=2, parent=99)], 0.0)

    [trace] = assembler.due(2.0)

    assert (trace.reason, trace.complete) == (CloseReason.ROOT_QUIET, False)


def test_a12_spans_that_are_each_others_parents_close_like_others() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=1, parent=2), raw(span=2, parent=1)], 0.0)

    [trace] = assembler.due(180.0)

    assert (span_numbers(trace), trace.reason, trace.complete) == ([1, 2], CloseReason.IDLE, False)


def test_a13_a_span_that_is_its_own_parent_is_no_root() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=1, parent=1)], 0.0)

    assert assembler.due(179.0) == []
    [trace] = assembler.due(180.0)

    assert (trace.reason, trace.complete) == (CloseReason.IDLE, False)


def test_a14_spans_of_two_services_become_one_trace() -> None:
    assembler = an_assembler()
    assembler.add(make_raw(make_span("query", span=2, parent=1), service="db"), 0.0)
    assembler.add(make_raw(make_span("request", span=1), service="web"), 1.0)

    [trace] = assembler.due(3.0)

    view = Trace(spans_from_raw(trace.spans), PlainReader())
    assert [(span.name, span.service_name) for span in view.spans] == [("request", "web"), ("query", "db")]


def test_a15_spans_of_two_kinds_may_share_an_id_and_each_is_known_when_it_comes_again() -> None:
    client, server = raw(span=1, kind=3), raw(span=1, kind=2)
    for first, second in ((client, server), (server, client)):
        assembler = an_assembler()
        assert assembler.add([first, second], 0.0).duplicates == []

        again = assembler.add([raw(span=1, kind=2), raw(span=1, kind=3)], 0.5)
        [trace] = assembler.due(2.5)

        assert len(again.duplicates) == 2
        assert trace.spans == [first, second]


def test_a16_a_request_that_is_sent_again_changes_nothing() -> None:
    assembler = an_assembler()
    counted = Counted()
    request = make_request(*A4_SPANS)

    assembler.add(read_traces(request).spans, 0.0)
    again = assembler.add(read_traces(request).spans, 1.0)
    [trace] = assembler.due(2.0)

    assert len(again.duplicates) == len(A4_SPANS)
    assert len(trace.spans) == len(A4_SPANS)
    assert counted("assembler.duplicates") == len(A4_SPANS)
    assert counted("assembler.conflicts") == 0


def test_a17_of_two_spans_with_one_id_and_kind_the_first_counts() -> None:
    assembler = an_assembler()
    counted = Counted()
    first, second = raw(data=b"\x2a\x05first"), raw(data=b"\x2a\x06second")

    assembler.add([first], 0.0)
    added = assembler.add([second], 0.0)
    [trace] = assembler.due(2.0)

    assert added.duplicates == [second]
    assert trace.spans == [first]
    assert counted("assembler.conflicts") == 1
    assert counted("assembler.duplicates") == 0


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 0), (2**64 - 1, 2**64 - 1), (5_000, 3_000), (0, 2**64 - 1)],
    ids=["1970", "2554", "ends before it starts", "as long as can be"],
)
def test_a18_a19_times_in_spans_never_move_a_timer(start: int, end: int) -> None:
    assembler = an_assembler()
    message = make_span()
    message.start_time_unix_nano, message.end_time_unix_nano = start, end

    assembler.add(make_raw(message), 50.0)

    assert assembler.next_deadline() == 52.0
    [trace] = assembler.due(52.0)
    assert scored(trace)


def test_a20_a_late_span_is_handed_back_counted_and_opens_nothing() -> None:
    assembler = an_assembler()
    counted = Counted()
    assembler.add([raw(span=1)], 0.0)
    assembler.due(2.0)

    late = raw(span=2, parent=1)
    added = assembler.add([late, raw(trace=2)], 12.0)

    assert added.late == [late]
    assert len(assembler) == 1
    assert counted("assembler.late_spans{policy=ignore}") == 1
    assert counted("assembler.late_span_age{under=1m}") == 1


def test_a22_a_late_span_of_a_trace_that_was_forgotten_opens_a_new_partial_one() -> None:
    assembler = an_assembler(max_traces=1)
    assembler.add([raw(trace=1)], 0.0)
    for number in range(2, 14):
        assembler.add([raw(trace=number)], 0.0)

    assert assembler.add([raw(trace=1, span=2, parent=1)], 10.0).late == []
    [trace] = [trace for trace in assembler.due(190.0) if trace.trace_id[-1] == 1]

    assert (span_numbers(trace), trace.reason, trace.complete) == ([2], CloseReason.IDLE, False)


def test_a24_a_trace_of_a_hundred_thousand_spans_closes_at_the_limit_and_disturbs_nobody() -> None:
    assembler = an_assembler()
    assembler.add([raw(trace=2)], 0.0)
    closed: list[ClosedTrace[RawSpan]] = []
    late = 0
    most = 0
    for batch in range(100):
        now = batch * 0.01
        added = assembler.add([raw(span=batch * 1000 + index + 2, parent=1) for index in range(1000)], now)
        closed += added.closed
        late += len(added.late)
        most = max(most, assembler.size)

    [trace] = closed

    assert (len(trace.spans), trace.reason, trace.complete) == (10_000, CloseReason.SPAN_LIMIT, False)
    assert late == 90_000
    assert most <= 10_001 * (SPAN_OVERHEAD + 4)
    [other] = assembler.due(2.0)
    assert other.trace_id[-1] == 2


def test_a24_the_spans_of_a_batch_after_the_limit_are_late() -> None:
    assembler = an_assembler(max_spans_per_trace=3)
    spans = [raw(span=number + 1) for number in range(5)]

    added = assembler.add(spans, 0.0)

    assert [trace.spans for trace in added.closed] == [spans[:3]]
    assert added.late == spans[3:]
    assert assembler.next_deadline() is None


def test_a25_a_trace_closes_when_it_weighs_too_much() -> None:
    assembler = an_assembler()
    megabyte = bytes(1024 * 1024)
    closed: list[ClosedTrace[RawSpan]] = []
    late = 0
    for number in range(64):
        added = assembler.add([raw(span=number + 2, parent=1, data=megabyte)], number * 0.1)
        closed += added.closed
        late += len(added.late)

    [trace] = closed

    assert (trace.reason, trace.complete) == (CloseReason.BYTE_LIMIT, False)
    assert len(trace.spans) == 32
    assert late == 32
    assert assembler.size == 0


def test_a26_one_trace_too_many_closes_the_heaviest_of_the_oldest_ones() -> None:
    assembler = an_assembler(max_traces=100)
    for number in range(1, 101):
        assembler.add([raw(trace=number, data=b"x" * (500 if number in {3, 90} else 5))], 0.0)

    added = assembler.add([raw(trace=101)], 0.1)

    [trace] = added.closed
    assert (trace.trace_id[-1], trace.reason, trace.complete) == (3, CloseReason.EVICTED, False)
    assert len(assembler) == 100


@given(
    st.lists(st.tuples(st.sampled_from([5, 5, 50, 500, 5000]), st.booleans()), min_size=60, max_size=200),
    st.sampled_from([1, 15, 16, 17, 40]),
)
def test_a26_it_is_the_heaviest_of_the_sixteen_oldest_whatever_else_closed_meanwhile(
    traces: list[tuple[int, bool]], most: int
) -> None:
    assembler = an_assembler(max_traces=most, root_grace=1.0)
    still_open: dict[bytes, int] = {}
    for number, (size, is_root) in enumerate(traces, start=1):
        now = number * 0.1
        for trace in assembler.due(now):
            del still_open[trace.trace_id]
        heaviest = max(list(still_open)[:16], key=still_open.__getitem__) if len(still_open) == most else None

        added = assembler.add([raw(trace=number, parent=None if is_root else 9, data=bytes(size))], now)

        assert [trace.trace_id for trace in added.closed] == ([] if heaviest is None else [heaviest])
        if heaviest is not None:
            del still_open[heaviest]
        still_open[number.to_bytes(16, "big")] = size


def test_a26_with_room_for_one_trace_the_newer_one_stays() -> None:
    assembler = an_assembler(max_traces=1)

    added = assembler.add([raw(trace=1), raw(trace=2), raw(trace=1, span=2)], 0.0)

    assert [trace.trace_id[-1] for trace in added.closed] == [1]
    assert len(added.late) == 1
    assert assembler.next_deadline() == 2.0


def test_a27_a_single_root_is_a_trace() -> None:
    assembler = an_assembler()
    assembler.add([raw()], 7.0)

    [trace] = assembler.due(9.0)

    assert (len(trace.spans), trace.reason, trace.complete) == (1, CloseReason.ROOT_QUIET, True)


def test_a28_a_span_that_is_not_sampled_is_like_any_other() -> None:
    message = make_span()
    message.flags = 0
    assembler = an_assembler()
    assembler.add(make_raw(message), 0.0)

    [trace] = assembler.due(2.0)

    assert (trace.spans[0].is_local_root, trace.reason, trace.complete) == (False, CloseReason.ROOT_QUIET, True)


def test_a29_the_clock_that_counts_is_one_that_nobody_sets() -> None:
    assert inspect.signature(Engine).parameters["clock"].default is time.monotonic


def test_a31_when_all_traces_are_closed_nothing_is_left_of_them() -> None:
    assembler = an_assembler()
    scopes: list[weakref.ref[ScopeRef]] = []
    for number in range(1, 1001):
        spans = make_raw(make_span(trace=number), make_span(trace=number, span=2, parent=1), service=f"app {number}")
        scopes.append(weakref.ref(spans[0].scope))
        assembler.add(spans, 0.0)
        del spans

    closed = assembler.due(2.0)
    assert len(closed) == 1000
    assert all(scope() is not None for scope in scopes)
    del closed
    gc.collect()

    assert (len(assembler), assembler.size, assembler.next_deadline(), timers(assembler)) == (0, 0, None, 0)
    assert all(scope() is None for scope in scopes)
    assert assembler.remembered == 1000


@pytest.mark.parametrize("way", ["limit", "drain"])
def test_a31_traces_that_close_before_their_time_leave_no_timer(way: str) -> None:
    assembler = an_assembler(max_spans_per_trace=2)
    for number in range(1, 21):
        assembler.add([raw(trace=number)], 0.0)
    if way == "limit":
        for number in range(1, 21):
            assembler.add([raw(trace=number, span=2, parent=1)], 0.1)
    else:
        assembler.drain(CloseReason.SHUTDOWN, 0.1)

    assert (len(assembler), assembler.size, timers(assembler)) == (0, 0, 0)


def test_a_busy_trace_costs_no_timer_for_each_span() -> None:
    assembler = an_assembler()
    for number in range(5000):
        assembler.add([raw(span=number + 1, parent=number or None)], 0.001 * number)

    assert timers(assembler) < 5


def test_timers_of_traces_that_are_gone_do_not_pile_up() -> None:
    assembler = an_assembler(max_traces=10)
    for number in range(1, 5000):
        assembler.add([raw(trace=number, span=2, parent=1), raw(trace=number)], 0.0)

    assert len(assembler) == 10
    assert timers(assembler) <= 2 * 10 + 64
    assert len(assembler.due(2.0)) == 10


def test_closed_traces_are_remembered_in_a_bounded_memory_and_those_that_are_asked_for_the_longest() -> None:
    assembler = an_assembler(max_traces=10)
    for number in range(1, 101):
        assembler.add([raw(trace=number)], 0.0)
        assembler.due(2.0)
    assembler.add([raw(trace=1, span=2, parent=1)], 3.0)
    for number in range(101, 110):
        assembler.add([raw(trace=number)], 3.0)
    assembler.due(5.0)

    assert assembler.remembered == 100
    assert len(assembler.add([raw(trace=1, span=3, parent=1)], 6.0).late) == 1
    assert assembler.add([raw(trace=2, span=3, parent=1)], 6.0).late == []


def test_late_spans_and_duplicates_wake_nothing_and_extend_nothing() -> None:
    assembler = an_assembler()
    assembler.add([raw(trace=1)], 0.0)

    assembler.add([raw(trace=1)], 1.5)

    assert len(assembler.due(2.0)) == 1
    assembler.add([raw(trace=1, span=2, parent=1)], 3.0)
    assert assembler.next_deadline() is None


def own(span: int, trace: int = 1, data: str = "evaluation x") -> RawSpan:
    [made] = make_raw(make_span(data, trace=trace, span=span, parent=1), scope="otel_scorer")
    return made


def test_our_own_spans_never_open_extend_or_reopen_a_trace() -> None:
    assembler = an_assembler()

    assert len(assembler.add([own(7)], 0.0).own) == 1
    assert assembler.next_deadline() is None
    assembler.add([raw()], 1.0)
    assert len(assembler.add([own(8)], 2.9).own) == 1
    [trace] = assembler.due(3.0)
    assert len(assembler.add([own(9)], 4.0).own) == 1

    assert span_numbers(trace) == [1, 8]
    assert trace.complete
    assert len(assembler) == 0


def test_our_own_span_that_comes_again_is_a_duplicate() -> None:
    assembler = an_assembler()
    assembler.add([raw(), own(7)], 0.0)

    added = assembler.add([own(7)], 1.0)
    [trace] = assembler.due(2.0)

    assert (len(added.own), len(added.duplicates)) == (0, 1)
    assert span_numbers(trace) == [1, 7]


def test_our_own_spans_take_no_more_memory_than_a_trace_may_have_and_close_nothing() -> None:
    assembler = an_assembler(max_spans_per_trace=5, max_bytes_per_trace=4096)
    assembler.add([raw()], 0.0)

    added = assembler.add([own(number) for number in range(2, 50)], 0.0)

    assert (len(added.own), added.closed) == (48, [])
    assert assembler.size < 4096
    [trace] = assembler.due(2.0)
    assert len(trace.spans) <= 6
    assert assembler.size == 0


def test_our_own_spans_are_no_parents_that_would_be_missed_and_make_nothing_complete() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=1), raw(span=2, parent=7), own(7)], 0.0)

    [trace] = assembler.due(2.0)

    assert not trace.complete


def test_a_trace_with_trigger_match_closes_after_the_spans_that_match() -> None:
    assembler = TraceAssembler(AssemblyLimits(trigger=Trigger.MATCH), lambda span: b"agent" in span.data)
    assembler.add([raw(span=1), raw(span=2, parent=1)], 0.0)
    assert assembler.due(100.0) == []

    assembler.add([raw(span=3, parent=2, data=b"agent")], 100.0)
    [trace] = assembler.due(102.0)

    assert (len(trace.spans), trace.reason) == (3, CloseReason.ROOT_QUIET)


def test_a_predicate_counts_only_with_trigger_match() -> None:
    assembler = TraceAssembler(AssemblyLimits(), lambda span: False)
    assembler.add([raw()], 0.0)

    assert len(assembler.due(2.0)) == 1
    with pytest.raises(ValueError, match="needs a predicate"):
        TraceAssembler(AssemblyLimits(trigger=Trigger.MATCH))


def test_draining_closes_everything_oldest_first_and_calls_nothing_complete_that_was_cut_short() -> None:
    assembler = an_assembler()
    assembler.add([raw(trace=2), raw(trace=1)], 0.0)

    traces = assembler.drain(CloseReason.SHUTDOWN, 0.5)

    assert [(trace.trace_id[-1], trace.reason, trace.complete) for trace in traces] == [
        (2, CloseReason.SHUTDOWN, False),
        (1, CloseReason.SHUTDOWN, False),
    ]
    assert (len(assembler), assembler.size, assembler.next_deadline()) == (0, 0, None)


def test_the_end_of_a_file_cuts_nothing_short() -> None:
    assembler = an_assembler()
    assembler.add([raw(trace=1), raw(trace=2, span=2, parent=1)], 0.0)

    traces = assembler.drain(CloseReason.END_OF_FILE, 0.0)

    assert [trace.complete for trace in traces] == [True, False]


def test_traces_close_in_the_order_in_which_they_were_due() -> None:
    assembler = an_assembler()
    for number, now in ((1, 3.0), (2, 1.0), (3, 2.0)):
        assembler.add([raw(trace=number)], now)

    assert [trace.trace_id[-1] for trace in assembler.due(100.0)] == [2, 3, 1]


def test_an_old_trace_closes_at_its_maximum_age_even_with_a_root() -> None:
    assembler = an_assembler(max_age=10.0)
    assembler.add([raw(span=2, parent=1)], 0.0)
    assembler.add([raw(span=1)], 9.0)

    [trace] = assembler.due(10.0)

    assert (trace.reason, trace.complete) == (CloseReason.MAX_AGE, False)


def test_what_happened_is_counted() -> None:
    counted = Counted()
    assembler = an_assembler()

    assembler.add([raw(), raw(span=2, parent=1), own(3)], 0.0)
    assembler.due(2.0)

    assert counted("assembler.spans") == 2
    assert counted("assembler.own_spans") == 1
    assert counted("assembler.closed{reason=root_quiet}") == 1


@pytest.mark.parametrize(
    ("spans", "local", "gaps"),
    [
        ([raw(span=1), raw(span=2, parent=1)], False, False),
        ([raw(span=2, parent=1)], False, True),
        ([raw(span=1), raw(span=2, parent=9)], False, True),
        ([raw(span=1), raw(span=2, parent=2)], False, True),
        ([raw(span=1), raw(span=2, parent=2)], True, True),
        ([raw(span=2, parent=1, remote_parent=True)], False, True),
        ([raw(span=2, parent=1, remote_parent=True)], True, False),
        ([raw(span=2, parent=1, remote_parent=True), raw(span=3, parent=9)], True, True),
        ([], False, True),
    ],
)
def test_a_gap_is_a_missing_root_or_a_missing_parent(spans: list[RawSpan], local: bool, gaps: bool) -> None:
    assert has_gaps(spans, [span.span_id for span in spans], local=local) is gaps


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[SpanMessage], list[list[SpanMessage]]]:
    """A trace of any shape with one root, and an order and batches in which its spans come, some of them twice."""
    number = draw(st.integers(1, 8))
    parents = [None, *(draw(st.integers(1, index)) for index in range(1, number))]
    starts = draw(st.lists(st.integers(0, 3), min_size=number, max_size=number))
    spans = [
        make_span(f"span {index}", span=index + 1, parent=parent, start=start)
        for index, (parent, start) in enumerate(zip(parents, starts, strict=True))
    ]
    repeated = draw(st.lists(st.sampled_from(spans), max_size=3))
    return spans, draw(batched(draw(st.permutations([*spans, *repeated]))))


@given(deliveries())
@settings(max_examples=60)
def test_any_order_any_batches_and_any_repeats_give_the_same_verdict(
    delivery: tuple[list[SpanMessage], list[list[SpanMessage]]],
) -> None:
    spans, batches = delivery
    once, again = an_assembler(), an_assembler()

    once.add(make_raw(*spans), 0.0)
    for index, batch in enumerate(batches):
        again.add(make_raw(*batch), index * 0.01)
    [expected], [trace] = once.due(MINUTE), again.due(MINUTE)

    assert (trace.reason, trace.complete) == (expected.reason, expected.complete)
    assert scored(trace) == scored(expected)
