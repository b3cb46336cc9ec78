"""Of a trace that is decided in part it is known which spans have left: no other is left behind after a restart."""

from __future__ import annotations

from otel_scorer.model.wire import RawSpan, read_traces
from otel_scorer.pipeline.assembly.closing import ClosedTrace, CloseReason
from otel_scorer.pipeline.spool.progress import Progress
from otel_scorer.testing import make_request, make_span


def a_trace(*spans: int, revision: int = 1) -> ClosedTrace[RawSpan]:
    found = read_traces(make_request(*(make_span("s", trace=1, span=span) for span in spans))).spans
    return ClosedTrace(found[0].trace_id, found, CloseReason.IDLE, complete=True, revision=revision)


def ids(spans: list[RawSpan]) -> list[int]:
    return [int.from_bytes(span.span_id, "big") for span in spans]


def after_a_restart(progress: Progress, trace: ClosedTrace[RawSpan], released: list[RawSpan]) -> Progress:
    """Note what leaves of a trace, and return what the next process knows."""
    return Progress(progress.add(trace, (), released))


def test_of_a_trace_that_nothing_is_known_of_all_spans_are_left() -> None:
    trace = a_trace(1, 2)

    assert Progress({}).left(trace, trace.spans) == trace.spans


def test_where_only_verdicts_were_written_down_all_spans_are_left() -> None:
    trace = a_trace(1, 2)

    assert after_a_restart(Progress({}), trace, []).left(trace, trace.spans) == trace.spans


def test_what_has_left_leaves_once_and_what_has_come_since_is_left() -> None:
    before = a_trace(1, 2)
    progress = after_a_restart(Progress({}), before, before.spans)
    now = a_trace(1, 2, 3)
    assert progress.left(before, before.spans) == []
    assert ids(progress.left(now, now.spans)) == [3]

    progress = after_a_restart(progress, now, now.spans[2:])

    again = a_trace(4, 3, 2, 1)
    assert ids(progress.left(again, again.spans)) == [4]


def test_of_two_spans_with_one_id_both_are_left() -> None:
    before = a_trace(1, 2)
    progress = after_a_restart(Progress({}), before, before.spans)
    now = a_trace(1, 2, 2)

    assert ids(progress.left(now, now.spans)) == [2, 2]


def test_what_is_scored_again_is_none_of_it() -> None:
    before = a_trace(1)
    progress = after_a_restart(Progress({}), before, before.spans)
    again = a_trace(1, revision=2)

    assert progress.left(again, again.spans) == again.spans
