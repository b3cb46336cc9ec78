"""Scored traces end up in the store, whole; what cannot be kept is counted, and nobody waits for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes import Counted, a_decision, a_log, logs_request

from otel_scorer.dialects import READER
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.log_records import RawLog, read_logs
from otel_scorer.model.splicing import join_spans
from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.assembly.closing import ClosedTrace, CloseReason
from otel_scorer.pipeline.sidecar.storing import TraceKeeper
from otel_scorer.stores.database import Database, open_database
from otel_scorer.stores.trace_store import TraceStore
from otel_scorer.testing import make_raw, make_span

WAIT = 20.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(tmp_path / "traces.db") as database:
        yield database


def closed(trace: int = 1, *logs: RawLog, size: int = 1000) -> ClosedTrace[RawSpan]:
    spans = make_raw(
        make_span("agent", trace=trace, span=1, attributes={"session.id": f"s{trace}"}),
        make_span("tool", trace=trace, span=2, parent=1),
    )
    return ClosedTrace(spans[0].trace_id, spans, CloseReason.ROOT_QUIET, complete=True, size=size, logs=logs)


def a_keeper(database: Database, *, max_bytes: int = 1 << 30, queue_bytes: int = 1 << 20) -> TraceKeeper:
    return TraceKeeper(TraceStore(database, READER), READER, max_bytes=max_bytes, queue_bytes=queue_bytes)


def test_a_scored_trace_is_found_with_its_spans_its_logs_and_all_decisions(database: Database) -> None:
    counted = Counted()
    [record] = read_logs(logs_request(a_log("hello", name="some.event")))
    trace = closed(1, record)
    refused = Decision(f"{1:032x}", None, "rare", "1", Outcome.NOT_SAMPLED, None, 1)
    keeper = a_keeper(database)
    keeper.start()

    keeper.keep(trace, [a_decision(True), refused])
    assert keeper.shutdown(WAIT)

    [found] = TraceStore(database, READER).search()
    assert (found.trace_id, found.close_reason, found.is_complete) == (f"{1:032x}", "root_quiet", True)
    assert [assessment.name for assessment in found.info.assessments] == ["check"]
    assert [record.body for span in found.spans for record in span.logs] == ["hello"]
    content = TraceStore(database).content(found.trace_id)
    assert content is not None
    assert content[0] == join_spans(trace.spans)
    [row] = database.query("SELECT session_id FROM traces")
    assert row == ("s1",)
    assert counted("store.traces") == 1


def test_what_comes_while_too_much_waits_is_dropped_and_counted(database: Database) -> None:
    counted = Counted()
    keeper = a_keeper(database, queue_bytes=2500)
    for number in range(1, 6):
        keeper.keep(closed(number), [a_decision(True, trace=number)])

    keeper.start()
    assert keeper.shutdown(WAIT)
    keeper.keep(closed(9), [])

    assert len(list(TraceStore(database, READER).search())) == 2
    assert counted("store.traces_dropped{reason=queue_full}") == 4


def test_one_trace_larger_than_the_queue_is_kept_all_the_same(database: Database) -> None:
    keeper = a_keeper(database, queue_bytes=10)
    keeper.keep(closed(1), [a_decision(True)])
    keeper.start()

    assert keeper.shutdown(WAIT)
    assert len(list(TraceStore(database, READER).search())) == 1


def test_a_store_that_fails_is_said_once_and_costs_the_traces_of_that_time(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted()
    keeper = a_keeper(database)
    for number in range(1, 251):
        keeper.keep(closed(number), [a_decision(True, trace=number)])
    database.close()

    with caplog.at_level(logging.ERROR):
        keeper.start()
        assert keeper.shutdown(WAIT)

    assert counted("store.traces_dropped{reason=failed}") == 250
    [message] = caplog.messages
    assert message.startswith("Scored traces are not kept: The store ")


def test_a_trace_that_cannot_be_read_does_not_take_others_with_it(database: Database) -> None:
    counted = Counted()
    keeper = a_keeper(database)
    broken = closed(2)
    broken.spans[:] = [span._replace(data=b"\xff") for span in broken.spans]
    for trace in (closed(1), broken, closed(3)):
        keeper.keep(trace, [])

    keeper.start()
    assert keeper.shutdown(WAIT)

    assert {trace.trace_id[-1] for trace in TraceStore(database, READER).search()} == {"1", "3"}
    assert counted("store.traces_dropped{reason=unreadable}") == 1


def test_the_oldest_go_when_the_store_takes_more_than_it_may(database: Database) -> None:
    counted = Counted()
    keeper = a_keeper(database, max_bytes=300_000, queue_bytes=1 << 24)
    for number in range(1, 2001):
        keeper.keep(closed(number), [a_decision(True, trace=number)])

    keeper.start()
    assert keeper.shutdown(WAIT)

    left = [int(trace.trace_id, 16) for trace in TraceStore(database, READER).search()]
    assert counted("store.traces_pruned") == 2000 - len(left) > 0
    assert sorted(left) == list(range(2001 - len(left), 2001))
    assert database.used_bytes() <= 300_000


def test_units_of_one_trace_are_kept_side_by_side(database: Database) -> None:
    keeper = a_keeper(database)
    keeper.start()
    for number, value in ((1, True), (2, False)):
        spans = make_raw(make_span("call", span=number, parent=9, remote_parent=True))
        trace = ClosedTrace(spans[0].trace_id, spans, CloseReason.ROOT_QUIET, complete=True, unit=spans[0].span_id)
        keeper.keep(trace, [a_decision(value)])
    assert keeper.shutdown(WAIT)

    store = TraceStore(database, READER)
    said = {trace.spans[0].span_id[-1]: [each.value for each in trace.info.assessments] for trace in store.search()}
    assert said == {"1": [True], "2": [False]}
    [failed] = store.search(filter_string="feedback.check = 'false'")
    assert failed.spans[0].span_id[-1] == "2"
    assert store.prune_live(1) == 2


def test_an_earlier_revision_that_is_decided_later_does_not_replace_a_later_one(database: Database) -> None:
    keeper = a_keeper(database)
    keeper.start()
    first = closed(1)
    keeper.keep(replace(first, revision=2), [a_decision(False, revision=2)])
    keeper.keep(first, [a_decision(True)])
    keeper.keep(closed(2), [a_decision(True, trace=2)])
    assert keeper.shutdown(WAIT)

    found = {trace.trace_id[-1]: trace for trace in TraceStore(database, READER).search()}
    assert {number: trace.revision for number, trace in found.items()} == {"1": 2, "2": 1}
    assert [assessment.value for assessment in found["1"].info.assessments] == [False]
