"""Recorded traces: put together across requests and files, scored by the same scorers in the same order."""

from __future__ import annotations

import json
import logging
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from otel_scorer.evaluation import ScoredTrace, load_traces, read_recording, score_traces
from otel_scorer.model.decision import Outcome
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import Span, Trace
from otel_scorer.scorers import load_scorers, scorer

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
