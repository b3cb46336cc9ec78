"""Stored traces: byte-identical, found again, shared by processes, with what was said of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_scorer.dialects import READER
from otel_scorer.errors import ConfigError, StoreError
from otel_scorer.evaluation import load_traces
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, Expectation, Feedback
from otel_scorer.model.trace import Trace
from otel_scorer.model.trace_bytes import logs_as_bytes, spans_as_bytes, trace_from_bytes
from otel_scorer.stores.database import open_database
from otel_scorer.stores.trace_store import Entry, TraceRecord, TraceStore

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
FILES = sorted(path for path in CAPTURES.glob("*.json") if not path.name.startswith("eval_"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TraceStore]:
    with open_database(tmp_path / "traces.db") as database:
        yield TraceStore(database, READER)


def decision(trace_id: str, *feedbacks: Feedback, revision: int = 1) -> Decision:
    return Decision(
        trace_id, None, "judge", "1", Outcome.SCORED, None, revision, feedbacks, (None,) * len(feedbacks)
    )  # fmt: skip


def entry(trace: Trace, *feedbacks: Feedback, position: int = 0) -> Entry:
    return Entry(TraceRecord.of(trace), [decision(trace.trace_id, *feedbacks)], position)


def found(store: TraceStore, filter_string: str) -> set[str]:
    return {trace.trace_id for trace in store.search(filter_string=filter_string)}


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    return load_traces(CAPTURES / "openinference_openai.json")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_stored_comes_back_byte_for_byte(path: Path, store: TraceStore) -> None:
    stored = load_traces(path)
    store.put(entry(trace) for trace in stored)

    for trace in stored:
        again = store.trace(trace.trace_id)
        assert store.content(trace.trace_id) == (spans_as_bytes(trace), logs_as_bytes(trace))
        assert again is not None
        assert again.to_dict() == trace.to_dict()
        assert spans_as_bytes(again) == spans_as_bytes(trace)
        assert logs_as_bytes(again) == logs_as_bytes(trace)
        assert (again.inputs, again.outputs, again.close_reason) == (trace.inputs, trace.outputs, trace.close_reason)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_trace_that_never_was_otlp_is_stored_with_all_that_it_shows(path: Path) -> None:
    for trace in load_traces(path):
        recorded = Trace.from_json(trace.to_json())

        again = trace_from_bytes(
            spans_as_bytes(recorded),
            logs_as_bytes(recorded),
            READER,
            close_reason=recorded.close_reason,
            is_complete=recorded.is_complete,
        )

        assert again.to_dict() == recorded.to_dict()


def test_a_run_gives_its_traces_in_its_order_and_once_each(store: TraceStore, traces: list[Trace]) -> None:
    run_id = store.start_run("first")
    turned = [*reversed(traces)]
    store.put([entry(trace, position=position) for position, trace in enumerate([*turned, turned[0]])], run_id)
    store.put([entry(traces[0])], store.start_run())

    assert [trace.trace_id for trace in store.search(run_id)] == [trace.trace_id for trace in turned]
    assert [each.position for each in store.entries(run_id)] == list(range(len(traces) + 1))


def test_more_than_a_page_is_found_completely_and_in_order(store: TraceStore) -> None:
    records = [
        TraceRecord(f"{number:032x}", spans_of_one(number), start_ms=number // 3, end_ms=number)
        for number in range(1, 700)
    ]
    run_id = store.start_run()
    store.put((Entry(record, position=number) for number, record in enumerate(records)), run_id)

    everything = [int(trace.trace_id, 16) for trace in store.search()]
    of_the_run = [int(trace.trace_id, 16) for trace in store.search(run_id)]

    assert everything == sorted(range(1, 700), reverse=True)
    assert of_the_run == list(range(1, 700))
    assert len(list(store.entries(run_id))) == 699
    assert [int(trace.trace_id, 16) for trace in store.search(run_id, max_results=250)] == list(range(1, 251))
    assert list(store.search(run_id, max_results=0)) == []


def spans_of_one(number: int) -> bytes:
    from otel_scorer.model.encoding import field

    span = field(1, number.to_bytes(16)) + field(2, number.to_bytes(8)) + field(5, b"work")
    return field(1, field(2, field(2, span)))


def test_what_was_said_comes_back_as_it_was(store: TraceStore, traces: list[Trace]) -> None:
    said = [
        Feedback("a", value=3, rationale="because"),
        Feedback("b", value=True, metadata={"k": 1}),
        Feedback("c", error=AssessmentError("CODE", "message", "stack")),
        Feedback("d", value={"x": [1]}),
    ]
    run_id = store.start_run()
    original = entry(traces[0], *said)
    store.put([original], run_id)

    [stored] = store.entries(run_id)
    again = store.trace(traces[0].trace_id)

    assert list(stored.decisions) == list(original.decisions)
    assert type(stored.decisions[0].feedbacks[0].value) is int
    assert again is not None
    assert again.search_assessments("a", type="feedback") == said[:1]


def test_expectations_are_attached_to_a_stored_trace_and_the_last_word_counts(
    store: TraceStore, traces: list[Trace]
) -> None:
    trace_id = traces[0].trace_id
    store.put([Entry(TraceRecord.of(traces[0]), expectations=[Expectation("answer", "18 C")])])
    store.expect(trace_id, [Expectation("answer", "19 C"), Expectation("facts", ["Paris"])])

    again = store.trace(trace_id)

    assert again is not None
    assert {each.name: each.value for each in again.search_assessments(type="expectation")} == {
        "answer": "19 C",
        "facts": ["Paris"],
    }


def test_nothing_can_be_expected_of_a_trace_that_is_not_there(store: TraceStore) -> None:
    with pytest.raises(StoreError, match="has no trace 00"):
        store.expect("00", [Expectation("answer", 1)])


def test_a_run_that_is_not_there_is_no_empty_run(store: TraceStore) -> None:
    with pytest.raises(StoreError, match="has no run nope"):
        list(store.search("nope"))


def test_a_later_revision_replaces_what_was_said_live_and_leaves_runs_alone(
    store: TraceStore, traces: list[Trace]
) -> None:
    trace = traces[0]
    later = Trace(trace.spans, READER, revision=2)
    run_id = store.start_run()
    store.put([entry(trace, Feedback("early", value=1))])
    store.put([entry(trace, Feedback("in_run", value=1))], run_id)
    store.put([Entry(TraceRecord.of(later), [decision(trace.trace_id, Feedback("late", value=1), revision=2)])])

    again = store.trace(trace.trace_id)

    assert again is not None
    assert again.revision == 2
    assert [each.name for each in again.search_assessments(type="feedback")] == ["in_run", "late"]


def test_searching_understands_what_is_stored(store: TraceStore, traces: list[Trace]) -> None:
    ids = [f"{1:032x}", f"{2:032x}"]
    records = [
        TraceRecord(
            ids[0], spans_of_one(1), name="agent", service_name="shop", session_id="s1", state="OK",
            start_ms=1000, end_ms=1500, tags={"team": "it's", "a.b": "1"},
        ),
        TraceRecord(ids[1], spans_of_one(2), name="Agent", state="ERROR", start_ms=2000, end_ms=2100),
    ]  # fmt: skip
    run_id = store.start_run()
    store.put(
        [Entry(records[0], [decision(ids[0], Feedback("good", value=True), Feedback("length", value=7))])], run_id
    )
    store.put(
        [
            Entry(
                records[1],
                [decision(ids[1], Feedback("good", value=False), Feedback("tone", value="warm"))],
                expectations=[Expectation("answer", "42")],
            )
        ]
    )

    for filter_string, expected in {
        "status = 'OK'": 0,
        "status != 'ok'": 1,
        "trace.status IN ('ERROR')": 1,
        "name = 'agent'": 0,
        "name LIKE 'A%'": 1,
        "name RLIKE '^a.*t$'": 0,
        "name NOT IN ('agent')": 1,
        "tags.team = 'it''s'": 0,
        "tag.`a.b` IS NOT NULL": 0,
        "tags.team IS NULL": 1,
        "timestamp_ms > 1000": 1,
        "execution_time_ms >= 500": 0,
        "end_time_ms <= 1500": 0,
        f"request_id = 'tr-{ids[1]}'": 1,
        f"run_id = '{run_id}'": 0,
        "metadata.`mlflow.trace.session` = 's1'": 0,
        "metadata.`mlflow.trace.session` IS NULL": 1,
        "feedback.good = 'true'": 0,
        "feedback.good = 'false'": 1,
        "feedback.length > 6.5": 0,
        "feedback.length = '7'": 0,
        "feedback.tone = 'warm' AND feedback.good = 'false'": 1,
        "feedback.tone IS NULL": 0,
        "expectation.answer = '42'": 1,
    }.items():
        assert found(store, filter_string) == {ids[expected]}, filter_string
    assert found(store, "name ILIKE 'AGENT'") == set(ids)
    assert found(store, "status = 'OK' AND status = 'ERROR'") == set()


def test_searching_looks_into_spans(store: TraceStore, traces: list[Trace]) -> None:
    store.put(entry(trace) for trace in traces)
    with_tools = {trace.trace_id for trace in traces if trace.search_spans("TOOL")}

    assert with_tools
    assert found(store, "span.type = 'TOOL'") == with_tools
    assert found(store, "span.name LIKE '%weather%' AND span.type = 'TOOL'") <= with_tools
    assert found(store, "span.attributes.tool.name IS NOT NULL") == with_tools
    assert found(store, "span.type = 'TOOL' AND span.attributes.tool.name IS NULL") == set()
    # One span must fulfil all of them.
    assert found(store, "span.type = 'TOOL' AND span.type = 'AGENT'") == set()
    assert found(store, "span.type = 'NOTHING'") == set()
    assert len(list(store.search(filter_string="span.type = 'TOOL'", max_results=1))) == 1


@pytest.mark.parametrize(
    ("filter_string", "message"),
    [
        ("prompt = 'x'", "nothing of that kind is stored"),
        ("span.content LIKE 'x'", "nothing of that kind is stored"),
        ("issue.id = 'x'", "nothing of that kind is stored"),
        ("metadata.other = 'x'", "nothing of that kind is stored"),
        ("timestamp_ms = 'yesterday'", "compared with a number"),
        ("name RLIKE '('", "not a regular expression"),
        ("name LIKE 3", "compared with a quoted text"),
        ("status = 'OK' OR name = 'x'", "there is no OR"),
    ],
)
def test_what_cannot_be_searched_is_said_before_anything_is_read(
    store: TraceStore, filter_string: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        list(store.search(filter_string=filter_string))


def test_processes_write_into_one_store_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "traces.db"
    code = """
import sys
from otel_scorer.evaluation import load_traces
from otel_scorer.stores.database import open_database
from otel_scorer.stores.trace_store import Entry, TraceRecord, TraceStore
traces = load_traces(sys.argv[2])
with open_database(sys.argv[1]) as database:
    store = TraceStore(database)
    run_id = store.start_run()
    for position in range(20):
        store.put([Entry(TraceRecord.of(trace), position=position) for trace in traces], run_id)
    print(run_id)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, path, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for file in FILES[:3]
    ]
    ends = [process.communicate(timeout=100) for process in processes]

    assert [error for _, error in ends] == ["", "", ""]
    with open_database(path) as database:
        store = TraceStore(database, READER)
        for (printed, _), file in zip(ends, FILES, strict=False):
            ids = {trace.trace_id for trace in load_traces(file)}
            assert {trace.trace_id for trace in store.search(printed.strip())} == ids
            assert len(list(store.entries(printed.strip()))) == 20 * len(ids)


def test_making_room_spares_runs_and_what_somebody_attached_an_expectation_to(
    store: TraceStore, traces: list[Trace]
) -> None:
    live, expected, run = traces[:3]
    store.put([entry(live), entry(expected), entry(run)])
    store.put([entry(run)], store.start_run())
    store.expect(expected.trace_id, [Expectation(name="answer", value="Paris")])

    assert store.prune_live(1 << 30) == 0
    assert store.prune_live(0) == 1

    assert {trace.trace_id for trace in store.search()} == {expected.trace_id, run.trace_id}
