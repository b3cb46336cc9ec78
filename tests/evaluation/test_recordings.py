"""Recorded traces: put together across requests and files, scored by the same scorers in the same order."""

from __future__ import annotations

import json
import logging
import random
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_scorer.evaluation import (
    Recording,
    ScoredTrace,
    collecting,
    load_traces,
    read_recording,
    recordings,
    score_traces,
)
from otel_scorer.evaluation.collecting import TraceCollector
from otel_scorer.evaluation.recorded_scoring import judge_recording
from otel_scorer.model.decision import Outcome
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import Span, Trace
from otel_scorer.scorers import load_scorers, scorer
from otel_scorer.stores import sorted_runs
from otel_scorer.stores.overflow import Overflow

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
WITH_TRACES = sorted(path for path in CAPTURES.glob("*.json") if not path.name.startswith("eval_"))


def requests_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["requests"]
    return [request for request in found if "body" in request]


def one_span_each(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the same spans, log records included, each in a request of its own."""
    out: list[dict[str, Any]] = []
    for request in requests:
        for resources, scopes, items in (
            ("resourceSpans", "scopeSpans", "spans"),
            ("resourceLogs", "scopeLogs", "logRecords"),
        ):
            out += [
                {resources: [{**resource, scopes: [{**scope, items: [item]}]}]}
                for resource in request["body"].get(resources, [])
                for scope in resource[scopes]
                for item in scope[items]
            ]
    return out


def verdicts(scored: list[ScoredTrace]) -> list[Any]:
    return [
        (each.trace.trace_id, decision.scorer, decision.outcome, decision.span_id, decision.feedbacks)
        for each in scored
        for decision in each.decisions
    ]


@pytest.mark.parametrize("path", WITH_TRACES, ids=lambda path: path.stem)
def test_how_spans_are_spread_over_requests_and_files_makes_no_difference(path: Path, tmp_path: Path) -> None:
    whole = load_traces(path)
    pieces = one_span_each(requests_of(path))
    random.Random(7).shuffle(pieces)
    for number in range(2):
        lines = "".join(json.dumps(piece) + "\n" for piece in pieces[number::2])
        (tmp_path / f"{number}.jsonl").write_text(lines, encoding="utf-8")
    scorers = load_scorers(["tool_errors", "redundant_tool_calls", "latency"])

    spread = load_traces(tmp_path / "0.jsonl", tmp_path / "1.jsonl", tmp_path / "0.jsonl")

    assert [trace.trace_id for trace in spread] == [trace.trace_id for trace in whole]
    assert [[span.span_id for span in trace.spans] for trace in spread] == [
        [span.span_id for span in trace.spans] for trace in whole
    ]
    assert verdicts(score_traces(spread, scorers)) == verdicts(score_traces(whole, scorers))


def test_traces_come_by_first_start_and_say_why_they_were_closed() -> None:
    traces = load_traces(*WITH_TRACES)

    starts = [min(span.start_time_ns for span in trace.spans) for trace in traces]
    assert starts == sorted(starts)
    assert {trace.close_reason for trace in traces} == {"end_of_file"}


def test_log_records_are_joined_even_if_they_come_from_another_file(tmp_path: Path) -> None:
    requests = requests_of(CAPTURES / "official_openai_v2_legacy.json")
    for number, request in enumerate(requests):
        (tmp_path / f"{number}.json").write_text(json.dumps(request["body"]), encoding="utf-8")
    files = sorted(tmp_path.iterdir(), reverse=True)

    traces = load_traces(*files)

    records = [record for trace in traces for span in trace.spans for record in span.logs]
    assert records
    assert len(records) == len(
        [
            record
            for trace in load_traces(*files, *files)
            for span in trace.spans
            for record in span.logs
        ]
    )  # fmt: skip


def test_a_trace_without_its_root_is_there_and_not_complete(tmp_path: Path) -> None:
    pieces = [
        piece
        for piece in one_span_each(requests_of(CAPTURES / "openinference_openai.json"))
        if piece["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] != "travel_agent"
    ]
    path = tmp_path / "rootless.jsonl"
    path.write_text("".join(json.dumps(piece) + "\n" for piece in pieces), encoding="utf-8")

    first, *_ = load_traces(path)

    assert not first.is_complete
    assert first.root is not None
    assert first.root.parent_id is not None


def test_evaluation_spans_are_no_part_of_the_scored_trace_wherever_they_come(tmp_path: Path) -> None:
    pieces = one_span_each(requests_of(CAPTURES / "openinference_openai.json"))
    root = next(
        span
        for piece in pieces
        for span in piece["resourceSpans"][0]["scopeSpans"][0]["spans"]
        if span["name"] == "travel_agent"
    )
    own = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "scope": {"name": "otel_scorer"},
                        "spans": [
                            {
                                "traceId": root["traceId"],
                                "spanId": "00000000000000aa",
                                "parentSpanId": root["spanId"],
                                "name": "evaluation politeness",
                                "startTimeUnixNano": "1",
                                "endTimeUnixNano": "1",
                                "attributes": [
                                    {"key": "gen_ai.evaluation.name", "value": {"stringValue": "politeness"}},
                                    {"key": "gen_ai.evaluation.score.value", "value": {"doubleValue": 1.0}},
                                ],
                            }
                        ],
                    }
                ]
            }
        ]
    }
    path = tmp_path / "own_first.jsonl"
    path.write_text("".join(json.dumps(piece) + "\n" for piece in [own, *pieces, own]), encoding="utf-8")

    trace = next(trace for trace in load_traces(path) if trace.trace_id == root["traceId"])

    assert "evaluation politeness" not in [span.name for span in trace.spans]
    assert [span.name for span in trace.own_spans] == ["evaluation politeness"]


def test_loading_warns_of_what_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"resourceSpans": []}\noops\n', encoding="utf-8")

    with caplog.at_level(logging.WARNING):
        traces = load_traces(path)

    assert traces == []
    assert "line 2" in caplog.text


def test_reading_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []

    read_recording(
        [CAPTURES / "strands.json", CAPTURES / "fastmcp.json"], lambda done, total: told.append((done, total))
    )

    assert told == sorted(told)
    assert told[-1][0] <= told[-1][1]


def test_decisions_keep_the_order_of_traces_scorers_and_targets() -> None:
    @scorer(span_types=["TOOL"])
    def each_tool(span: Span) -> str:
        return span.name

    @scorer
    async def later(trace: Trace) -> int:
        return len(trace.spans)

    @scorer
    def both() -> list[Feedback]:
        return [Feedback(name="b", value=1), Feedback(name="a", value=2)]

    traces = load_traces(CAPTURES / "openinference_openai.json")
    told: list[tuple[int, int]] = []
    lock = threading.Lock()

    def on_progress(done: int, total: int) -> None:
        with lock:
            told.append((done, total))

    first, *_ = score_traces(traces, [later, each_tool, both], on_progress=on_progress)

    assert [(decision.scorer, decision.feedbacks[0].value) for decision in first.decisions] == [
        ("later", 7),
        ("each_tool", "get_weather"),
        ("each_tool", "convert_currency"),
        ("both", 1),
    ]
    assert [feedback.name for feedback in first.decisions[-1].feedbacks] == ["b", "a"]
    assert sorted(told) == [(1, 3), (2, 3), (3, 3)]


def test_one_scorer_that_hangs_costs_its_own_decisions_only() -> None:
    release = threading.Event()

    @scorer(timeout=0.2)
    def hangs(trace: Trace) -> bool:
        return release.wait(30)

    @scorer
    def works(trace: Trace) -> bool:
        return True

    try:
        scored = score_traces(load_traces(CAPTURES / "openinference_openai.json"), [hangs, works])
    finally:
        release.set()

    outcomes = [[decision.outcome for decision in each.decisions] for each in scored]
    assert outcomes == [[Outcome.TIMED_OUT, Outcome.SCORED]] * 3


def test_nothing_to_score_is_fine() -> None:
    traces = load_traces(CAPTURES / "strands.json")

    assert score_traces([], load_scorers(["latency"])) == []
    assert [each.decisions for each in score_traces(traces, [])] == [()]


def spilled(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """Have spans and log records go to a file as soon as they are worth so many bytes."""
    monkeypatch.setattr(recordings, "TraceCollector", partial(TraceCollector, memory=memory))
    monkeypatch.setattr(collecting, "Overflow", lambda: Overflow(0))
    monkeypatch.setattr(sorted_runs, "Overflow", lambda: Overflow(0))


def all_of(recording: Recording) -> list[Any]:
    """Return everything that a recording tells."""
    return [
        (
            one.closed.trace_id,
            [(span.data, span.scope.resource, span.scope.scope, span.parent_id) for span in one.closed.spans],
            one.closed.logs,
            (one.closed.reason, one.closed.complete, one.closed.size, one.closed.revision),
            one.logs,
            one.load().to_dict(),
        )
        for one in recording.recorded
    ] + [recording.duplicates, recording.problems]


def pieces_of_all() -> list[dict[str, Any]]:
    """Return the spans and log records of several captures, and an evaluation span, each in a request of its own."""
    names = ("openinference_openai", "official_openai_v2_legacy")
    pieces = [piece for name in names for piece in one_span_each(requests_of(CAPTURES / f"{name}.json"))]
    span = next(piece for piece in pieces if "resourceSpans" in piece)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    own = {**span, "spanId": "00000000000000aa", "parentSpanId": span["spanId"], "name": "evaluation x"}
    return [*pieces, {"resourceSpans": [{"scopeSpans": [{"scope": {"name": "otel_scorer"}, "spans": [own]}]}]}]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_went_to_a_file_is_the_same_as_what_stayed_in_memory(data: st.DataObject) -> None:
    pieces = pieces_of_all()
    order = data.draw(st.lists(st.integers(0, len(pieces) - 1), min_size=1, max_size=2 * len(pieces)))
    memory = data.draw(st.sampled_from([0, 2000, 20_000]))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "traces.jsonl")
        path.write_text("".join(json.dumps(pieces[number]) + "\n" for number in order), encoding="utf-8")
        expected = all_of(read_recording([path]))
        spilled(patch, memory)

        assert all_of(read_recording([path])) == expected


def test_a_damaged_file_that_went_to_a_file_is_reported_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps(piece) for piece in pieces_of_all()]
    lines[3:3] = ["{", "[]", '{"other": 1}']
    path = tmp_path / "damaged.jsonl"
    path.write_text("\n".join([*lines, lines[0][:-20]]), encoding="utf-8")
    expected = all_of(read_recording([path]))
    spilled(monkeypatch, 2000)

    found = read_recording([path])

    assert all_of(found) == expected
    assert found.problem_count == 3
    assert [problem.line for problem in found.problems] == [4, 6, len(lines) + 1]


def test_no_folder_for_temporary_files_loses_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(piece) + "\n" for piece in pieces_of_all()), encoding="utf-8")
    expected = all_of(read_recording([path]))
    spilled(monkeypatch, 2000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    assert all_of(read_recording([path])) == expected
    assert "stays in memory" in caplog.text


@pytest.mark.parametrize("memory", [0, 2000])
def test_traces_that_went_to_a_file_are_scored_in_order(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(piece) + "\n" for piece in pieces_of_all()), encoding="utf-8")
    whole = load_traces(path)
    scorers = load_scorers(["tool_errors", "redundant_tool_calls", "latency"])
    expected = verdicts(score_traces(whole, scorers))
    spilled(monkeypatch, memory)

    judged = judge_recording(read_recording([path]), scorers)

    assert [subject.trace_id for subject, _ in judged] == [trace.trace_id for trace in whole]
    assert [
        (subject.trace_id, one.scorer, one.outcome, one.span_id, one.feedbacks)
        for subject, decisions in judged
        for one in decisions
    ] == expected
    found = [subject.load().trace for subject, _ in judged]
    assert [trace.to_dict() for trace in found if trace] == [trace.to_dict() for trace in whole]
