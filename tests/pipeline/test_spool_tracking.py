"""A spooled request is deleted when all of it is forwarded and decided, in whatever order, and not before."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_scorer.model.log_records import RawLog
from otel_scorer.model.wire import RawSpan, read_traces
from otel_scorer.pipeline.assembly.closing import ClosedTrace, CloseReason
from otel_scorer.pipeline.spool.backlog import Backlog
from otel_scorer.pipeline.spool.taking import PartlyTaken, RequestsTaken
from otel_scorer.pipeline.spool.tracking import RequestTracker
from otel_scorer.stores.spool_rows import Changes, Taken
from otel_scorer.testing import ManualClock, make_request, make_span


def spans_of(*traces: int) -> list[RawSpan]:
    return read_traces(make_request(*(make_span("s", trace=trace, span=trace) for trace in traces))).spans


def closed(*traces: int) -> list[ClosedTrace[RawSpan]]:
    return [
        ClosedTrace(span.trace_id, [span], CloseReason.ROOT_QUIET, complete=True) for span in spans_of(*traces)
    ]  # fmt: skip


def a_tracker(*, by_unit: bool = False) -> RequestTracker:
    return RequestTracker(Changes(), by_unit=by_unit)


def decide(tracker: RequestTracker, trace: ClosedTrace[RawSpan]) -> Changes:
    """Decide about a trace and have that written."""
    changes = Changes()
    tracker.close(trace)
    pinned = tracker.decide(tracker.take(trace), changes)
    tracker.finish(pinned, changes)
    tracker.forget(changes.finished)
    tracker.unpin(pinned)
    return changes


def test_a_request_that_only_passes_through_goes_when_it_is_forwarded() -> None:
    tracker = a_tracker()
    tracker.begin(1)
    tracker.forward(1)
    tracker.forward(1)
    tracker.unpin([1])
    assert not tracker.changes

    tracker.forwarded(1)
    assert not tracker.changes
    tracker.forwarded(1)
    assert tracker.changes == Changes(finished=[1])


def test_a_trace_is_not_noted_as_decided_in_a_request_that_forwards_more_of_its_spans() -> None:
    """Its limit was reached in the middle: whoever takes up the request must not leave out those behind it."""
    tracker = a_tracker()
    [trace, other] = closed(1, 2)
    tracker.begin(7)
    tracker.buffer(7, spans_of(1, 2), spans_of(1))
    tracker.forward(7)
    tracker.unpin([7])

    assert decide(tracker, trace) == Changes()
    assert decide(tracker, other) == Changes(decided={7: [other.trace_id]})
    tracker.forwarded(7)
    assert tracker.changes == Changes(finished=[7])


def test_it_is_noted_what_of_a_request_is_done_while_the_rest_is_not() -> None:
    tracker = a_tracker()
    first, second = closed(1, 2)
    tracker.begin(7)
    tracker.buffer(7, spans_of(1, 2))
    tracker.forward(7)
    tracker.unpin([7])
    tracker.forwarded(7)
    assert tracker.changes == Changes(forwarded=[7])

    assert decide(tracker, first) == Changes(decided={7: [first.trace_id]})
    assert decide(tracker, second) == Changes(finished=[7])
    assert 7 not in tracker


def test_what_comes_after_a_trace_was_closed_does_not_wait_for_it() -> None:
    tracker = a_tracker()
    [trace] = closed(1)
    for number in (1, 2):
        tracker.begin(number)
        tracker.buffer(number, spans_of(1))
        tracker.unpin([number])
        if number == 1:
            tracker.close(trace)

    changes = Changes()
    tracker.finish(tracker.decide(tracker.take(trace), changes), changes)

    assert changes.finished == [1]


def test_late_spans_that_wait_with_their_trace_keep_their_request() -> None:
    tracker = a_tracker()
    [trace] = closed(1)
    tracker.begin(1)
    tracker.buffer(1, spans_of(1))
    tracker.unpin([1])
    tracker.close(trace)
    tracker.begin(2)
    tracker.attach(2, spans_of(1))
    tracker.unpin([2])
    assert not tracker.changes

    changes = Changes()
    tracker.finish(tracker.decide(tracker.take(trace), changes), changes)

    assert sorted(changes.finished) == [1, 2]


def test_log_records_wait_for_their_trace_or_until_it_is_too_late() -> None:
    tracker = a_tracker()
    [known, _] = closed(1, 2)
    for number, trace in ((1, known.trace_id), (2, spans_of(2)[0].trace_id)):
        tracker.begin(number)
        tracker.buffer_early(number, [RawLog(b"", trace, b"\0" * 8)], 10.0)
        tracker.unpin([number])
    tracker.begin(3)
    tracker.buffer(3, spans_of(1))
    tracker.unpin([3])

    tracker.expire(9.0)
    assert not tracker.changes
    tracker.expire(10.0)
    assert tracker.changes == Changes(finished=[2])
    assert sorted(decide(tracker, known).finished) == [1, 3]


def test_spans_of_a_fragment_stay_until_they_are_forwarded_with_those_that_brought_them_home() -> None:
    tracker = a_tracker(by_unit=True)
    tracker.begin(1)
    tracker.buffer(1, spans_of(1))
    tracker.unpin([1])
    tracker.begin(2)
    tracker.give_up(2, spans_of(1))
    tracker.forward(2)
    tracker.unpin([2])
    assert not tracker.changes

    tracker.forwarded(2)
    assert sorted(tracker.changes.finished) == [1, 2]


def test_a_request_that_is_dropped_is_not_missed() -> None:
    tracker = a_tracker()
    [trace] = closed(1)
    tracker.begin(1)
    tracker.buffer(1, spans_of(1))
    tracker.forward(1)
    tracker.drop(1)
    tracker.unpin([1])
    tracker.forget([1])

    tracker.forwarded(1)
    assert decide(tracker, trace) == Changes()
    assert tracker.changes == Changes(finished=[1])


@settings(deadline=None)
@given(st.data())
def test_in_any_order_each_request_goes_once_and_last_of_all_that_needs_it(data: st.DataObject) -> None:
    requests = data.draw(
        st.lists(st.tuples(st.sets(st.integers(1, 5)), st.booleans()), min_size=1, max_size=6), label="requests"
    )
    tracker = a_tracker()
    for number, (traces, is_forwarded) in enumerate(requests):
        tracker.begin(number)
        tracker.buffer(number, spans_of(*sorted(traces)) if traces else [])
        if is_forwarded:
            tracker.forward(number)
        tracker.unpin([number])
    steps = [("decide", trace) for trace in range(1, 6)]
    steps += [("forwarded", number) for number, (_, is_forwarded) in enumerate(requests) if is_forwarded]
    decided: set[int] = set()
    forwarded: set[int] = set()
    gone: list[int] = []

    for step, number in data.draw(st.permutations(steps), label="steps"):
        if step == "decide":
            decided.add(number)
            gone += decide(tracker, closed(number)[0]).finished
        else:
            forwarded.add(number)
            tracker.forwarded(number)
        gone += tracker.changes.finished
        tracker.forget(tracker.changes.finished)
        tracker.changes = Changes()
        done = {
            number
            for number, (traces, is_forwarded) in enumerate(requests)
            if traces <= decided and (not is_forwarded or number in forwarded)
        }
        assert set(gone) | {n for n, (traces, way) in enumerate(requests) if not traces and not way} == done

    assert len(gone) == len(set(gone))


def test_a_backlog_forgets_nothing_that_was_added_while_it_was_looked_at() -> None:
    backlog = Backlog()
    backlog.add(8)
    before = backlog.state
    backlog.add(9)
    backlog.advance(before, 7, is_empty=True)
    assert backlog
    assert backlog.state.last == 9

    before = backlog.state
    backlog.add(6)
    backlog.advance(before, 9, is_empty=False)
    assert (backlog.state.next, backlog.state.last) == (6, 9)

    before = backlog.state
    backlog.advance(before, 9, is_empty=False)
    assert not backlog


def test_a_backlog_of_an_earlier_process_begins_with_the_first_row() -> None:
    assert len(Backlog(5)) == 5
    assert Backlog(5).state.next == 1
    assert not Backlog(0)


def test_a_destination_has_a_request_when_it_has_all_its_parts_and_no_more_can_come() -> None:
    tracker = a_tracker()
    taken = RequestsTaken(tracker, threading.Lock())
    tracker.begin(1)
    tracker.forward(1)
    tracker.forward(1)
    tracker.take_part(1, "a")
    tracker.take_part(1, "a")
    tracker.take_part(1, "b")
    assert tracker.has_all(1, "a") is None

    tracker.unpin([1])
    assert tracker.has_all(1, "a")
    assert not tracker.has_all(1, "b")
    assert not tracker.forwarded(1)
    tracker.take_part(1, "b")
    assert tracker.forwarded(1)
    assert not tracker.has_all(1, "a")
    assert taken.due() == []


def test_what_one_destination_has_is_written_down_once_and_only_if_that_lasts() -> None:
    clock = ManualClock()
    taken = PartlyTaken("outgoing", clock)
    taken.add(1, "a")
    taken.add(2, "a")
    taken.add(2, "b")
    assert taken.due() == []
    taken.forget(1)

    assert taken.due() == []
    clock.advance(1.0)
    assert taken.due() == [Taken("outgoing", 2, "a"), Taken("outgoing", 2, "b")]
    clock.advance(1.0)
    assert taken.due() == []
