"""Scorers with an LLM client of their own run everywhere, and their key stays where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.sidecar import SCORERS, Sidecar, id_of
from tests.e2e.sink import Score, Sink
from tests.fake_openai import FakeOpenAI
from tests.instrumented_app import WAIT, App

from otel_scorer.scorers.loading import load_scorers
from otel_scorer.testing import make_request, make_span

pytest.importorskip("openai", reason="the client of the examples is not installed: pip install openai")

ROOT = Path(__file__).resolve().parents[2]
JUDGES = str(SCORERS / "judges.py")
KEY = "sk-a-key-that-nobody-may-see"

# The tool call that failed.
FAILED = 3

# What is asked, and the error that the verdict of `answers_the_question` must be; None: it is a verdict.
QUESTIONS = {
    "Is it warm in Paris?": None,
    "Please be busy": "RateLimitError",
    "Please be slow": "APITimeoutError",
    "Please talk nonsense": "ValidationError",
    "Please refuse my key": "AuthenticationError",
}


def reply(asked: str) -> str | int | None:
    if "busy" in asked:
        return 429
    if "refuse" in asked:
        return 401
    if "slow" in asked:
        return None
    if "nonsense" in asked:
        return "Yes, I would think so."
    if asked.startswith("{"):
        calls = json.loads(asked)["calls"]
        return json.dumps(
            {
                "calls": [
                    {"id": call["id"], "helps": not call["failed"], "reason": str(call["result"])} for call in calls
                ]
            }
        )
    return json.dumps({"addresses": True, "reason": "It says how warm it is."})


@pytest.fixture
def model() -> Iterator[FakeOpenAI]:
    server = FakeOpenAI(reply)
    yield server
    server.close()


@pytest.fixture
def environment(model: FakeOpenAI, tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "key"
    key.write_text(KEY + "\n", encoding="utf-8")
    # The file wins; a key in the environment is what many machines have anyway.
    return {"OPENAI_API_KEY_FILE": str(key), "OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "sk-another"}


def messages(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def trace(number: int, question: str) -> bytes:
    return make_request(
        *(
            make_span(
                "get_weather",
                trace=number,
                span=span,
                parent=1,
                status="ERROR" if span == FAILED else "UNSET",
                end=0.5,
                attributes={
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": "get_weather",
                    "gen_ai.tool.call.arguments": '{"city": "Paris"}',
                    "gen_ai.tool.call.result": "18 C",
                },
            )
            for span in (2, FAILED)
        ),
        make_span(
            "invoke_agent",
            trace=number,
            span=1,
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.input.messages": messages("user", question),
                "gen_ai.output.messages": messages("assistant", "18 degrees"),
            },
        ),
    )


def was_traced(model: FakeOpenAI) -> bool:
    return any("x-traced" in headers or "traceparent" in headers for headers, _ in model.requests)


def test_a32_judges_run_in_the_sidecar(
    own_sink: Sink, start: Callable[..., Sidecar], model: FakeOpenAI, environment: dict[str, str]
) -> None:
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", JUDGES, "--root-grace", "0.1", "--log-level", "debug"),
        environment=environment,
    )
    ids = [id_of(number) for number in range(1, len(QUESTIONS) + 1)]

    for number, question in enumerate(QUESTIONS, start=1):
        sidecar.send(trace(number, question))
    # Where the model judges, each of the two tool calls has a verdict of its own.
    scores = own_sink.wait_for_scores(2 * len(QUESTIONS) + 1, *ids)

    assert errors_of(scores, "answers_the_question", ids) == list(QUESTIONS.values())
    assert errors_of(scores, "tool_call_helps", ids[1:]) == list(QUESTIONS.values())[1:]
    helps = {score.span.parent_span_id[-1]: score.value for score in scores_of(scores, "tool_call_helps", ids[0])}
    assert helps == {2: True, 3: False}
    assert sidecar.stop() == 0
    assert not was_traced(model)
    assert model.keys == {KEY}
    assert KEY not in sidecar.log
    assert all(KEY.encode() not in data for data in own_sink.requests())


def scores_of(scores: list[Score], name: str, trace_id: bytes) -> list[Score]:
    return [score for score in scores if score.name == name and score.raw.trace_id == trace_id]


def errors_of(scores: list[Score], name: str, ids: list[bytes]) -> list[object]:
    return [score.error for trace_id in ids for score in scores_of(scores, name, trace_id)]


def test_judges_run_over_files(model: FakeOpenAI, environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "traces.binpb"
    file.write_bytes(b"".join(trace(number, question) for number, question in enumerate(QUESTIONS, start=1)))

    done = subprocess.run(
        [sys.executable, "-m", "otel_scorer", "score", str(file), "--scorers", JUDGES, "--format", "jsonl"],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    judged = {row["trace_id"]: row["feedback"] for row in rows if row["scorer"] == "answers_the_question"}
    codes = [None if judged[key]["error"] is None else judged[key]["error"]["error_code"] for key in sorted(judged)]
    assert codes == list(QUESTIONS.values())
    first = judged[id_of(1).hex()]
    assert (first["value"], first["rationale"]) == (True, "It says how warm it is.")
    assert first["source"] == {"source_type": "LLM_JUDGE", "source_id": "gpt-5-mini"}
    helps = {
        row["span_id"]: row["feedback"]["value"]
        for row in rows
        if row["scorer"] == "tool_call_helps" and row["trace_id"] == id_of(1).hex()
    }
    assert helps == {f"{2:016x}": True, f"{3:016x}": False}
    assert not was_traced(model)
    assert model.keys == {KEY}
    assert KEY not in done.stdout + done.stderr


def test_a32_judges_run_in_the_application(
    model: FakeOpenAI, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app = App(*load_scorers([JUDGES]))
    errors: list[object] = []
    for question in QUESTIONS:
        with app.tracer.start_as_current_span("invoke_agent") as root:
            root.set_attribute("gen_ai.operation.name", "invoke_agent")
            root.set_attribute("gen_ai.input.messages", messages("user", question))
            root.set_attribute("gen_ai.output.messages", messages("assistant", "18 degrees"))
        decisions = app.processor.wait_for_scores(root.get_span_context().trace_id, WAIT)
        errors += [each.feedbacks[0].error_code for each in decisions if each.scorer == "answers_the_question"]

    spans = app.exported
    app.provider.shutdown()
    assert errors == list(QUESTIONS.values())
    assert {span.name for span in spans} == {"invoke_agent"}
    assert not was_traced(model)
    assert model.keys == {KEY}
    assert KEY not in caplog.text + "".join(span.to_json() for span in spans)


@pytest.mark.parametrize("example", ["llm_judge.py", "tool_judge.py"])
def test_the_examples_can_be_named_as_they_say(
    example: str, model: FakeOpenAI, environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "traces.binpb"
    file.write_bytes(trace(1, "Is it warm in Paris?"))
    settings = tmp_path / "sidecar.yaml"
    settings.write_text(f"scorers: [{ROOT / 'examples' / example}]\n", encoding="utf-8")

    def run(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "otel_scorer", *arguments],
            env={**os.environ, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )

    scored = run("score", str(file), "--scorers", f"examples/{example}", "--format", "jsonl")
    checked = run("check", "-c", str(settings))

    assert {json.loads(line)["decision"] for line in scored.stdout.splitlines()} == {"scored"}
    assert checked.stdout.endswith("ok\n")
    assert KEY not in scored.stdout + scored.stderr + checked.stdout + checked.stderr
