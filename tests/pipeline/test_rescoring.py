"""Late spans that have their trace scored again: when, with what, how often, and in how much memory."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes import Counted, a_decision
from tests.pipeline.test_assembler import local_root, raw, span_numbers
from tests.pipeline.test_engine import AGENT, ON_SPAN, names, running

from otel_scorer.model.log_records import RawLog
from otel_scorer.model.wire import SPAN_OVERHEAD
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, CloseReason, LatePolicy, TraceAssembler, Trigger
from otel_scorer.pipeline.sidecar.engine import Forwarding
from otel_scorer.testing import make_span


def an_assembler(**limits: Any) -> TraceAssembler:
    return TraceAssembler(AssemblyLimits(late_spans=LatePolicy.RESCORE, **limits))


def closed_once(**limits: Any) -> TraceAssembler:
    """An assembler that has closed a trace of a root and a child, with another child's parent missing."""
    assembler = an_assembler(**limits)
    assembler.add([raw(span=1), raw(span=2, parent=1), raw(span=4, parent=3)], 0.0)
    [trace] = assembler.due(2.0)
    assert (trace.revision, trace.complete) == (1, False)
    return assembler


def test_a21_a_late_span_leads_to_a_second_revision_of_the_whole_trace_after_a_quiet_time() -> None:
    counted = Counted()
    assembler = closed_once()
    late = raw(span=3, parent=1)

    added = assembler.add([late], 10.0)

    assert added.late == [late]
    assert (len(assembler), assembler.size, assembler.next_deadline()) == (0, 0, 12.0)
    assert assembler.due(11.999) == []
    [trace] = assembler.due(12.0)
    assert (span_numbers(trace), trace.reason, trace.revision) == ([1, 2, 4, 3], CloseReason.ROOT_QUIET, 2)
    assert (trace.complete, trace.size) == (True, 4 * (SPAN_OVERHEAD + 4))
    assert assembler.due(1e9) == []
    assert counted("assembler.late_spans{policy=rescore}") == 1
    assert counted("assembler.late_span_age{under=10s}") == 1


def test_a21_late_spans_extend_the_quiet_time_up_to_the_cap_and_each_wave_is_one_revision() -> None:
    assembler = closed_once()
    revisions: list[tuple[float, int, int]] = []
    for step in range(40):
        now = 10.0 + step * 1.9
        revisions += [(now, trace.revision, len(trace.spans)) for trace in assembler.due(now)]
        assembler.add([raw(span=10 + step, parent=1)], now)
    revisions += [(1000.0, trace.revision, len(trace.spans)) for trace in assembler.due(1000.0)]

    assert [revision for _, revision, _ in revisions] == [2, 3, 4]
    assert 40.0 <= revisions[0][0] < 42.0
    assert revisions[-1][2] == 3 + 40


def test_a21_a_copy_of_a_span_that_was_scored_changes_nothing_and_is_not_forwarded_again() -> None:
    counted = Counted()
    assembler = closed_once()

    added = assembler.add([raw(span=1), raw(span=2, parent=1, data=b"\x30\x01\x2a\x01x")], 10.0)

    assert (len(added.late), len(added.duplicates)) == (0, 2)
    assert assembler.next_deadline() is None
    assert (counted("assembler.duplicates"), counted("assembler.conflicts")) == (1, 1)


def test_a21_a_root_that_comes_late_ends_the_waiting_as_always() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=2, parent=1)], 0.0)
    [first] = assembler.due(180.0)

    assembler.add([raw(span=1)], 200.0)
    [second] = assembler.due(202.0)

    assert (first.reason, first.complete) == (CloseReason.IDLE, False)
    assert (second.reason, second.complete, second.revision) == (CloseReason.ROOT_QUIET, True, 2)


def test_a21_without_a_root_it_waits_as_long_as_such_a_trace_does() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=2, parent=1)], 0.0)
    assembler.due(180.0)

    assembler.add([raw(span=3, parent=1)], 200.0)

    assert assembler.due(379.0) == []
    assert [trace.reason for trace in assembler.due(380.0)] == [CloseReason.IDLE]


def test_a21_the_age_of_a_trace_that_is_opened_again_counts_from_there() -> None:
    assembler = an_assembler(idle_timeout=6.0, max_age=7.0)
    assembler.add([raw(span=2, parent=1)], 0.0)
    assembler.due(12.0)

    assembler.add([raw(span=3, parent=1)], 12.0)

    assert assembler.due(17.9) == []
    assert [trace.reason for trace in assembler.due(18.0)] == [CloseReason.IDLE]


def test_after_the_window_a_late_span_is_only_forwarded() -> None:
    counted = Counted()
    assembler = closed_once(rescore_window=60.0)

    assembler.add([raw(span=3, parent=1)], 62.0)

    assert assembler.next_deadline() is None
    assert assembler.kept_size == 0
    assert counted("assembler.late_spans{policy=ignore}") == 1


def test_a_trace_that_goes_on_for_ever_is_not_scored_for_ever() -> None:
    assembler = an_assembler()
    assembler.add([raw(span=1)], 0.0)
    revisions = [trace.revision for trace in assembler.due(2.0)]
    for second in range(3, 3000):
        assembler.add([raw(span=second, parent=1)], float(second))
        revisions += [trace.revision for trace in assembler.due(float(second))]

    assert revisions[-1] == len(revisions) <= 1 + 600 / 30 + 1


def test_a_revision_has_no_more_than_a_trace_may_have() -> None:
    assembler = closed_once(max_spans_per_trace=5)

    added = assembler.add([raw(span=span, parent=1) for span in range(10, 20)], 3.0)
    [trace] = assembler.due(5.0)

    assert len(added.late) == 10
    assert len(trace.spans) == 5


@pytest.mark.parametrize("limit", [{"max_spans_per_trace": 3}, {"max_bytes_per_trace": 1000}])
def test_what_closed_because_it_was_too_much_is_not_kept(limit: dict[str, int]) -> None:
    assembler = an_assembler(**limit)

    assembler.add([raw(span=1), raw(span=2, parent=1), raw(span=3, parent=1)], 0.0)

    assert assembler.kept_size == 0


def test_a_trace_that_was_evicted_gets_another_chance() -> None:
    assembler = an_assembler(max_traces=1)
    assembler.add([raw(trace=1, span=2, parent=1)], 0.0)
    assembler.add([raw(trace=2)], 0.1)

    assembler.add([raw(trace=1)], 0.2)
    traces = assembler.due(3.0)

    assert {(trace.trace_id[-1], trace.revision, trace.complete) for trace in traces} == {(2, 1, True), (1, 2, True)}


def test_what_is_kept_is_bounded_in_bytes_and_the_oldest_goes_first() -> None:
    counted = Counted()
    size = SPAN_OVERHEAD + 4
    assembler = an_assembler(rescore_memory=10 * size)
    for number in range(1, 21):
        assembler.add([raw(trace=number)], float(number))
    assembler.due(100.0)

    assert assembler.kept_size == 10 * size
    assert counted("assembler.rescoring_given_up") == 10
    assembler.add([raw(trace=5, span=2, parent=1), raw(trace=15, span=2, parent=1)], 101.0)
    assert assembler.kept_size <= 10 * size
    assert [(trace.trace_id[-1], trace.revision) for trace in assembler.due(103.0)] == [(15, 2)]


def test_a_trace_larger_than_all_memory_is_not_kept_and_pushes_nothing_out() -> None:
    assembler = an_assembler(rescore_memory=1000)
    assembler.add([raw(trace=1)], 0.0)
    assembler.due(2.0)
    assembler.add([raw(trace=2, data=bytes(1000))], 3.0)
    assembler.due(5.0)

    assert assembler.kept_size == SPAN_OVERHEAD + 4


def test_traces_that_wait_for_another_score_are_scored_when_the_process_ends() -> None:
    assembler = closed_once()
    assembler.add([raw(span=3, parent=1), raw(trace=2)], 10.0)

    traces = assembler.drain(CloseReason.SHUTDOWN, 11.0)

    assert [(trace.trace_id[-1], trace.revision, trace.complete) for trace in traces] == [(2, 1, False), (1, 2, False)]
    assert (assembler.kept_size, assembler.next_deadline()) == (0, None)


def test_a_late_log_record_is_seen_by_the_next_revision_and_leads_to_none() -> None:
    assembler = closed_once()
    record = RawLog(b"answer", (1).to_bytes(16, "big"), (2).to_bytes(8, "big"))

    assembler.add_logs([record], 9.0)
    assert assembler.next_deadline() is None
    assembler.add([raw(span=3, parent=1)], 10.0)
    [trace] = assembler.due(12.0)

    assert trace.logs == (record,)


def test_units_are_scored_again_on_their_own() -> None:
    assembler = an_assembler(trigger=Trigger.LOCAL_ROOT)
    assembler.add([local_root(1), local_root(7)], 0.0)
    assert [trace.unit[-1] for trace in assembler.due(2.0)] == [1, 7]

    late = assembler.add([raw(span=9, parent=8), raw(span=8, parent=7)], 10.0).late
    [trace] = assembler.due(12.0)

    assert [span.span_id[-1] for span in late] == [8, 9]
    assert (trace.unit[-1], sorted(span_numbers(trace)), trace.revision, trace.complete) == (7, [7, 8, 9], 2, True)


def test_nothing_is_kept_unless_somebody_scores_or_asks_for_it() -> None:
    quiet = TraceAssembler(AssemblyLimits(late_spans=LatePolicy.RESCORE), judges=False)
    ignoring = TraceAssembler(AssemblyLimits())
    for assembler in (quiet, ignoring):
        assembler.add([raw()], 0.0)
        assembler.due(2.0)
        assert assembler.kept_size == 0


@pytest.mark.parametrize("forwarding", list(Forwarding))
def test_a21_verdicts_of_a_second_revision_are_evaluation_spans_with_ids_of_their_own(forwarding: Forwarding) -> None:
    emit = {} if forwarding is Forwarding.PASSTHROUGH else {"emit": ON_SPAN}
    with running(forwarding, late_spans=LatePolicy.RESCORE, **emit) as run:
        run.ingest(*AGENT)
        [first] = run.close_traces()
        run.backend.decide(first, a_decision(True))
        run.engine.tick()
        before = len(run.sink.scores)
        run.ingest(make_span("late", span=9, parent=1))
        # Whatever is held, a late span is not.
        assert names(run.sink.spans).count("late") == 1

        again = run.close_traces(2)[1]
        run.backend.decide(again, a_decision(False, revision=2))
        run.engine.tick()

        assert (again.trace.revision, len(again.trace.spans)) == (2, 4)
        [score] = run.sink.scores[before:]
        assert score.span_id not in {span.span_id for span in run.sink.scores[:before]}
        revision = {pair.key: pair.value.int_value for pair in score.attributes}["otel_scorer.revision"]
        assert (revision, score.parent_span_id) == (2, (1).to_bytes(8, "big"))
        assert sorted(names(run.sink.spans)) == ["late", "llm", "root", "tool"]


def test_a21_a_span_that_comes_again_after_its_trace_was_scored_leaves_once() -> None:
    with running(late_spans=LatePolicy.RESCORE) as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()
        run.backend.decide(job, a_decision(True))

        run.ingest(*AGENT)
        run.clock.advance(60.0)
        run.engine.tick()

        assert names(run.sink.spans) == ["root", "llm", "tool"]
        assert len(run.backend.jobs) == 1
