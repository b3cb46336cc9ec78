"""`otel-scorer score --send`: verdicts on recorded traces, for a backend that has the traces already."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.dialects.captured import CAPTURES, requests_of, traces_of
from tests.e2e.sidecar import Sidecar
from tests.e2e.sink import WAIT, Score, Sink

from otel_scorer import evaluate, load_traces
from otel_scorer.encoders.verdict import Explanations
from otel_scorer.evaluation import read_recording
from otel_scorer.evaluation.recorded_scoring import score_recording
from otel_scorer.pipeline.verdicts.emission import Emission
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.service.score_sender import ScoreSender, Sent
from otel_scorer.transport.endpoints import connect
from otel_scorer.transport.retry import RetryPolicy

CAPTURE = "openinference_openai"
SCORERS = ["tool_errors", "redundant_tool_calls", "latency"]
TRACES = [bytes.fromhex(trace.trace_id) for trace in traces_of(CAPTURE)]


def score(to: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "otel_scorer", "score", str(CAPTURES / f"{CAPTURE}.json"), "--format", "jsonl"]
    return subprocess.run(
        [*command, "--scorers", *SCORERS, "--send", to, *flags],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )


def content(score: Score) -> tuple[object, ...]:
    """Return all that an evaluation span says, less how its trace came to an end."""
    how = {"otel_scorer.close_reason", "otel_scorer.complete"}
    said = sorted((key, repr(value)) for key, value in score.attributes.items() if key not in how)
    span = score.span
    return (
        *(span.trace_id, span.span_id, span.parent_span_id, span.name, span.kind, span.flags),
        *(span.start_time_unix_nano, span.end_time_unix_nano, span.links[0].span_id, span.status.code),
        *(score.raw.scope.resource, score.raw.scope.scope, said),
    )


@pytest.mark.parametrize(("protocol", "flags"), [("grpc", []), ("http", ["--workers", "1"])])
def test_the_backend_gets_the_evaluation_spans_of_the_sidecar(
    own_sink: Sink, start: Callable[..., Sidecar], tmp_path: Path, protocol: str, flags: list[str]
) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text("assembly: {root_grace: 5s, local_root_grace: 5s, idle_timeout: 5s}\n", encoding="utf-8")
    sidecar = start("-c", str(config), "--export", own_sink.grpc, "--scorers", *SCORERS)
    for request in requests_of(CAPTURE):
        body = json.dumps(request["body"]).encode()
        assert sidecar.post(body, f"/v1/{request['signal']}", content_type="application/json").status == 200
    live = own_sink.wait_for_scores(len(SCORERS) * len(TRACES), *TRACES)
    assert sidecar.stop() == 0
    spans = len(own_sink.raw_of(*TRACES))

    ended = score(own_sink.grpc if protocol == "grpc" else f"{own_sink.http}/v1/traces", *flags)

    assert (ended.returncode, ended.stderr.count("\n")) == (0, 1), ended.stderr
    assert ended.stderr.startswith(f"Sent {len(live)} verdicts to 127.0.0.1:")
    sent = own_sink.wait_for_scores(2 * len(live), *TRACES)[len(live) :]
    assert sorted(map(content, sent)) == sorted(map(content, live))
    assert {score.attributes["otel_scorer.close_reason"] for score in sent} == {"end_of_file"}
    assert len(own_sink.raw_of(*TRACES)) == spans
    assert len(ended.stdout.splitlines()) == len(live)


def test_what_the_backend_does_not_take_is_said_and_the_report_is_there(own_sink: Sink) -> None:
    own_sink.tell("plain")

    ended = score(own_sink.grpc)

    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith(f" took 0 of {len(SCORERS) * len(TRACES)} verdicts")
    assert "INVALID_ARGUMENT" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stdout.splitlines()) == len(SCORERS) * len(TRACES)


def test_a_missed_bound_is_told_from_verdicts_that_arrived(own_sink: Sink) -> None:
    ended = score(own_sink.grpc, "--fail-under", "tool_errors=1")

    assert ended.returncode == 1
    assert ended.stderr.startswith("Sent ")


def test_the_configuration_says_how_much_of_an_explanation_is_sent(own_sink: Sink, tmp_path: Path) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text("explanations: 'off'\nscore_spans: {duration: 1ms}\n", encoding="utf-8")

    assert score(own_sink.grpc, "-c", str(config)).returncode == 0

    sent = own_sink.wait_for_scores(len(SCORERS) * len(TRACES), *TRACES)
    assert {score.explanation for score in sent} == {None}
    assert {score.span.end_time_unix_nano - score.span.start_time_unix_nano for score in sent} == {1_000_000}


def test_verdicts_can_go_to_a_file(tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"

    assert score(f"file:{out}").returncode == 0

    joined = load_traces(CAPTURES / f"{CAPTURE}.json", out)
    assert [sorted(each.name for each in trace.evaluations) for trace in joined] == [sorted(SCORERS)] * len(TRACES)
    assert evaluate(joined, ["tool_errors"]).metrics["tool_errors/mean"] < 1


def test_a_backend_that_is_away_is_not_asked_for_each_hundred_traces(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    many = tmp_path / "many.jsonl"
    span = {"name": "chat", "spanId": "01" * 8, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    requests = [
        {"resourceSpans": [{"scopeSpans": [{"spans": [{**span, "traceId": f"{number:032x}"}]}]}]}
        for number in range(1, 351)
    ]
    many.write_text("\n".join(json.dumps(request) for request in requests), encoding="utf-8")
    sender = ScoreSender(
        connect("http://127.0.0.1:1/v1/traces"),
        Emission(explanations=Explanations.FULL),
        retry=RetryPolicy(enabled=False),
    )

    found = score_recording(
        read_recording([many]),
        load_scorers(["latency"]),
        on_scored=lambda one, decisions: sender.add(one.closed, decisions),
    )

    assert len(list(found)) == 350
    assert sender.finish() == Sent(taken=0, total=350)
    assert [record.getMessage()[:19] for record in caplog.records if record.levelname == "WARNING"] == [
        "Dropped 100 scores "
    ]
