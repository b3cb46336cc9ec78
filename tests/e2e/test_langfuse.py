"""The preset for Langfuse, against a server that takes what the definition of Langfuse's API says and no more."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.e2e.sidecar import SCORERS, Sidecar, Traces, id_of
from tests.e2e.sink import WAIT
from tests.score_server import Call, Reply, ScoreServer

from otel_scorer.testing import make_request, make_span

TRACES = Traces(82)
KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-secret"}
BASIC = f"Basic {base64.b64encode(b'pk-lf-1:sk-lf-secret').decode()}"
# Of `CreateScoreRequest`; what else it is sent, Langfuse leaves out or refuses.
FIELDS = {"id", "traceId", "sessionId", "observationId", "datasetRunId", "name", "value", "comment", "metadata"}
FIELDS |= {"environment", "queueId", "dataType", "configId", "source"}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}


class Langfuse:
    """
    What it keeps.

    Attributes:
        spans: How often each span came, by its name.
        scores: Scores by their ids.
        taken: How many of them came.
        busy: How many of the next scores are asked to come later.
    """

    def __init__(self, server: ScoreServer) -> None:
        self.spans: Counter[str] = Counter()
        self.scores: dict[str, Any] = {}
        self.taken = 0
        self.busy = 0
        self._changed = threading.Condition()  # guards everything above
        server.answer = self._answer

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT), (self.spans, self.scores)

    def _answer(self, call: Call) -> Reply:
        with self._changed:
            reply = self._answer_to(call)
            self._changed.notify_all()
        return reply

    def _answer_to(self, call: Call) -> Reply:
        if call.headers.get("Authorization") != BASIC:
            return Reply(401, {"message": "Invalid credentials. Confirm that you've configured the correct host."})
        if call.method == "POST" and call.path == "/api/public/otel/v1/traces":
            assert call.headers["x-langfuse-ingestion-version"] == "4"
            assert call.headers["Content-Type"] == "application/x-protobuf"
            for resource in ExportTraceServiceRequest.FromString(call.body).resource_spans:
                self.spans.update(span.name for scope in resource.scope_spans for span in scope.spans)
            return Reply(200, b"", {"Content-Type": "application/x-protobuf"})
        if call.method == "POST" and call.path == "/api/public/scores":
            return self._take(call.body)
        return Reply(404, b"<!doctype html>", {"Content-Type": "text/html"})

    def _take(self, score: Any) -> Reply:
        if self.busy:
            self.busy -= 1
            return Reply(429, {"message": "Rate limit exceeded"}, {"Retry-After": "0"})
        wrong = list(self._wrong(score))
        if wrong:
            return Reply(400, {"message": "Invalid request data", "error": wrong})
        # It makes or changes the one of this id.
        self.scores[score["id"]] = score
        self.taken += 1
        return Reply(200, {"id": score["id"]})

    def _wrong(self, score: Any) -> Iterator[str]:
        yield from set(score) - FIELDS
        texts = [score["id"], score["name"], score["traceId"], score.get("observationId", ""), score.get("comment", "")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(score.get("metadata", {}), dict):
            yield "type"
        value, kind = score["value"], score.get("dataType", "NUMERIC")
        if kind == "BOOLEAN":
            is_fine = value in {0, 1} and not isinstance(value, bool)
        elif kind == "NUMERIC":
            is_fine = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            is_fine = kind == "CATEGORICAL" and isinstance(value, str)
        if not is_fine:
            yield "value"


@pytest.fixture
def server() -> Iterator[ScoreServer]:
    server = ScoreServer()
    yield server
    server.close()


def a_trace(trace: int) -> bytes:
    tool = make_span("search", trace=trace, span=2, parent=1, attributes=TOOL)
    return make_request(tool, make_span("agent", trace=trace, attributes={"output.value": "Take the train"}))


def test_spans_and_scores_are_what_the_api_takes_and_a_second_delivery_changes_nothing(
    server: ScoreServer, start: Callable[..., Sidecar]
) -> None:
    langfuse, trace = Langfuse(server), TRACES.new()
    langfuse.busy = 2

    def deliver() -> None:
        sidecar = start(
            *("--preset", "langfuse", "--export", server.url, "--root-grace", "0.1"),
            *("--scorers", str(SCORERS / "kinds.py")),
            environment=KEYS,
        )
        before = langfuse.taken
        sidecar.send(a_trace(trace))
        # `broken` has no value, and without one there is no score.
        langfuse.wait_for(lambda: langfuse.taken == before + 5 and langfuse.spans["evaluation broken"] > 0)
        assert sidecar.stop() == 0
        assert "Dropped" not in sidecar.log
        assert "sk-lf-secret" not in sidecar.log

    deliver()

    said = {each["name"]: (each["dataType"], each["value"]) for each in langfuse.scores.values()}
    assert said == {
        "fine": ("BOOLEAN", 1),
        "share": ("NUMERIC", 0.5),
        "tone": ("CATEGORICAL", "friendly"),
        "per_tool": ("BOOLEAN", 1),
        "child": ("NUMERIC", 3.0),
    }
    by_name = {each["name"]: each for each in langfuse.scores.values()}
    assert {each["traceId"] for each in by_name.values()} == {id_of(trace).hex()}
    targets = {name: each.get("observationId") for name, each in by_name.items()}
    on_tool = f"{2:016x}"
    assert targets == {"fine": None, "share": None, "tone": None, "per_tool": on_tool, "child": on_tool}
    share = by_name["share"]
    assert (share["comment"], share["metadata"]["of"]) == ("half of it", "two")
    assert share["metadata"]["otel_scorer.label"] == "fail"
    assert {"agent", "search", "evaluation fine", "evaluation tone"} <= set(langfuse.spans)

    first = dict(langfuse.scores)
    deliver()
    assert langfuse.scores == first


def test_without_keys_nothing_is_lost_in_silence(
    server: ScoreServer, start: Callable[..., Sidecar], tmp_path: Any
) -> None:
    langfuse = Langfuse(server)
    spans = tmp_path / "spans.jsonl"
    sidecar = start(
        *("--preset", "langfuse", "--export", server.url, "--export", f"file:{spans}", "--root-grace", "0.1"),
        *("--scorers", "tool_errors"),
        environment=dict.fromkeys(KEYS, ""),
    )
    sidecar.send(a_trace(TRACES.new()))
    sidecar.wait_for_log("Dropped 1 scores for langfuse")
    assert sidecar.stop() == 0

    assert (langfuse.scores, langfuse.spans) == ({}, Counter())
    assert "Invalid credentials" in sidecar.log
    assert '"name":"evaluation tool_errors"' in spans.read_text(encoding="utf-8")
