from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console

from otel_scorer.demo import run
from otel_scorer.demo.agent import Agent, AgentThread
from otel_scorer.demo.backend import Backend, ReceivedTraces, Verdict, verdict_of
from otel_scorer.demo.rules import QUESTIONS
from otel_scorer.demo.screen import Screen, shown_value
from otel_scorer.demo.sidecar import Sidecar, SidecarError, settings
from otel_scorer.demo.tally import Tally
from otel_scorer.dialects import READER
from otel_scorer.encoders.evaluation_span import encode_evaluation_span
from otel_scorer.encoders.target import Target
from otel_scorer.encoders.verdict import verdicts_of
from otel_scorer.errors import ConfigError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.decode import spans_from_raw, spans_from_sdk
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import AttributeValue, Trace
from otel_scorer.model.wire import read_traces
from otel_scorer.scorers.loading import load_scorers
from otel_scorer.testing import make_request, make_span

ROOT = Path(__file__).resolve().parent.parent
DEMO = (sys.executable, "-m", "otel_scorer", "demo")

# What each question must be found to have: tool errors, redundant calls, efficient calls, grounded numbers.
EXPECTED = {
    "What is the weather in Paris?": (True, True, True, "yes"),
    "How much are 250 euros in yen?": (False, True, False, "no"),
    "Which trains go from Berlin to Prague?": (True, False, False, "yes"),
    "Who are you?": (True, True, None, "yes"),
    "Which is warmer, Oslo or Lisbon?": (True, True, False, "yes"),
    "Can you plan 3 nights in Kyoto?": (True, True, True, "yes"),
}

STAYS = """
import json, sys, threading
print("starting")
print("ready grpc=127.0.0.1:4711", flush=True)
threading.Event().wait(60)
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + STAYS
COMPLAINS = "import sys; print('Error: no such scorer', file=sys.stderr); sys.exit(2)"
SILENT = "import threading; threading.Event().wait(60)"
TALKS = "import threading\nwhile True: print('not yet', flush=True); threading.Event().wait(0.01)"


def answer(question: str) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    Agent(provider.get_tracer("test"), pace=0.0).ask(question)
    return list(exporter.get_finished_spans())


def answered(question: str) -> Trace:
    return Trace(spans_from_sdk(answer(question)), READER)


def evaluation(feedback: Feedback, *, of: SpanMessage, scorer: str = "checker") -> SpanMessage:
    """Return the span that the sidecar sends for a feedback."""
    [verdict] = verdicts_of(
        Decision(of.trace_id.hex(), None, scorer, "1", Outcome.SCORED, None, 1, (feedback,), (None,))
    )
    target = Target(of.trace_id, of.span_id, of.end_time_unix_nano)
    return SpanMessage.FromString(encode_evaluation_span(verdict, target, close_reason="root_quiet", complete=True))


def scores(*spans: SpanMessage) -> bytes:
    return make_request(*spans, scope="otel_scorer")


def a_trace(*spans: SpanMessage, verdicts: Sequence[SpanMessage] = ()) -> Trace:
    raw = read_traces(make_request(*spans) + scores(*verdicts)).spans
    return Trace(spans_from_raw(raw), READER, close_reason="root_quiet")


def printed(trace: Trace, width: int = 100, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace", write_through=True)
    Screen(Console(file=file, width=width, highlight=False)).print_trace(trace)
    file.seek(0)
    return file.read()


def a_verdict(value: AttributeValue, label: str | None = None, error_type: str | None = None) -> Verdict:
    score = float(value) if isinstance(value, bool | int | float) else None
    return Verdict("0" * 16, None, "checker", "checker", value, score, label, "because", error_type)


def test_the_agent_records_what_the_conventions_ask_for() -> None:
    trace = answered("What is the weather in Paris?")

    assert [span.name for span in trace.spans] == [
        "invoke_agent travel_assistant",
        "chat travel-rules-1",
        "execute_tool get_weather",
        "chat travel-rules-1",
    ]
    assert [span.span_type for span in trace.spans] == ["AGENT", "CHAT_MODEL", "TOOL", "CHAT_MODEL"]
    [call] = trace.tool_calls
    assert (call.name, call.arguments, call.call_id, call.failed) == (
        "get_weather",
        {"city": "Paris"},
        "call_1_1",
        False,
    )
    assert call.result == "Paris: 18 °C, sunny"
    assert trace.usage is not None
    assert trace.usage.output_tokens
    assert trace.session_id == "conversation-1"
    assert trace.model == "travel-rules-1"


def test_a_failing_tool_leaves_an_error_on_its_span_and_none_on_the_agent() -> None:
    trace = answered("How much are 250 euros in yen?")

    [tool] = trace.search_spans(span_type="TOOL")
    assert tool.status.otel_status_code == "ERROR"
    assert "no answer from the rate service" in tool.status.description
    assert tool.get_attribute("error.type") == "ConnectionError"
    assert trace.info.state == "OK"


def test_a_question_that_no_rule_knows_is_answered_without_a_tool() -> None:
    trace = answered("What is love?")

    assert trace.tool_calls == []
    assert trace.outputs is not None


@pytest.mark.parametrize("question", QUESTIONS)
def test_scorers_find_in_every_answer_what_was_put_there(question: str) -> None:
    trace = answered(question)
    scorers = {
        made.name: made for made in load_scorers(["tool_errors", "redundant_tool_calls", "otel_scorer.demo.scorers"])
    }

    found = {name: made.run(trace=trace) for name, made in scorers.items()}

    names = ("tool_errors", "redundant_tool_calls", "tool_call_efficiency", "grounded_numbers")
    assert tuple(found[name].value for name in names) == EXPECTED[question]
    assert all(feedback.rationale for feedback in found.values())


def test_the_agent_stops_when_it_is_told_to() -> None:
    backend = Backend()
    agent = AgentThread(backend.start(), traces=10_000)
    agent.start()

    agent.shutdown(timeout=20.0)

    assert agent.has_finished
    backend.shutdown()


def test_what_the_agent_exports_arrives_at_the_backend() -> None:
    backend = Backend()
    received = ReceivedTraces(verdicts=0)
    agent = AgentThread(backend.start(), traces=1)
    agent.start()

    whole = [
        trace for _ in range(100) if not received.whole for data in backend.take(0.2) for trace in received.add(data)
    ]

    assert [len(trace.spans) for trace in whole] == [4]
    agent.shutdown(timeout=20.0)
    backend.shutdown()


def test_a_trace_is_whole_when_its_root_and_all_its_verdicts_are_there() -> None:
    root, child = make_span("agent", span=1), make_span("tool", span=2, parent=1)
    first, second = (evaluation(Feedback(name=name, value=True), of=root) for name in ("a", "b"))
    received = ReceivedTraces(verdicts=2)

    assert received.add(make_request(child)) == []
    assert received.add(scores(first)) == []
    assert received.add(make_request(root)) == []
    [trace] = received.add(scores(second))

    assert [span.name for span in trace.spans] == ["agent", "tool"]
    assert [verdict_of(span).name for span in trace.own_spans] == ["a", "b"]
    assert (received.whole, len(received), received.span_count) == (1, 0, 4)


def test_what_arrives_late_does_not_begin_a_trace_anew() -> None:
    received = ReceivedTraces(verdicts=0)
    received.add(make_request(make_span("agent", span=1)))

    assert received.add(make_request(make_span("straggler", span=2, parent=1))) == []

    assert received.rest() == []


def test_traces_that_never_became_whole_are_not_lost() -> None:
    received = ReceivedTraces(verdicts=1)
    received.add(make_request(make_span("agent", span=1)))

    [trace] = received.rest()

    assert trace.spans[0].name == "agent"
    assert received.whole == 0


def test_an_evaluation_span_is_read_back_as_the_feedback_that_it_was_made_of() -> None:
    root = make_span("agent", span=1)
    span = evaluation(Feedback(name="tone", value=0.25, rationale="rude"), of=root, scorer="manners")

    verdict = verdict_of(a_trace(root, verdicts=[span]).own_spans[0])

    assert (verdict.scorer, verdict.name, verdict.value, verdict.score) == ("manners", "tone", 0.25, 0.25)
    assert (verdict.rationale, verdict.label, verdict.error_type) == ("rude", None, None)
    assert verdict.target_id == root.span_id.hex()


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (a_verdict(True, "pass"), "True"),
        (a_verdict(False, "fail"), "False"),
        (a_verdict("yes", "pass"), "Pass"),
        (a_verdict("No", "fail"), "Fail"),
        (a_verdict(0.123456), "0.123"),
        (a_verdict(7), "7"),
        (a_verdict("friendly", "friendly"), "friendly"),
        (a_verdict(None), "no value"),
        (a_verdict(None, error_type="ValueError"), "Error"),
    ],
)
def test_a_value_is_shown_as_mlflow_shows_it(verdict: Verdict, text: str) -> None:
    assert shown_value(verdict)[0] == text


def test_a_trace_is_printed_as_a_tree_with_its_verdicts_below() -> None:
    root = make_span("invoke_agent", span=1, attributes={"gen_ai.operation.name": "invoke_agent"})
    child = make_span("chat", span=2, parent=1, attributes={"gen_ai.operation.name": "chat"})
    grandchild = make_span("retry", span=3, parent=2, status="ERROR")
    tool = make_span("search", span=4, parent=1, start=5, attributes={"gen_ai.operation.name": "execute_tool"})
    verdict = evaluation(Feedback(name="polite", value=False, rationale="It was not"), of=root)

    lines = printed(a_trace(root, child, grandchild, tool, verdicts=[verdict])).splitlines()

    assert lines[1].startswith(f"trace {root.trace_id.hex()}")
    tree = [line.split()[0:3] for line in lines[2:6]]
    assert [part[:2] for part in tree[1:]] == [["├─", "chat"], ["│", "└─"], ["└─", "search"]]
    assert re.fullmatch(r"invoke_agent +AGENT +1 s +OK +0{15}1 *", lines[2])
    assert "ERROR" in lines[4]
    assert re.fullmatch(rf"False +polite +It was not +{verdict.span_id.hex()} *", lines[6])


def test_a_verdict_on_another_span_than_the_root_says_which_one() -> None:
    root, child = make_span("agent", span=1), make_span("search", span=2, parent=1)
    verdict = evaluation(Feedback(name="quick", value=True, rationale="1 s"), of=child)

    assert "on search: 1 s" in printed(a_trace(root, child, verdicts=[verdict]))


def test_an_error_is_printed_with_its_kind_and_message() -> None:
    root = make_span("agent", span=1)
    verdict = evaluation(Feedback(name="broken", error=KeyError("answer")), of=root)

    assert re.search(r"Error +broken +KeyError: 'answer'", printed(a_trace(root, verdicts=[verdict])))


@pytest.mark.parametrize("width", [30, 44, 60, 80, 100, 200])
def test_lines_fit_the_terminal_and_carry_no_control_characters(width: int) -> None:
    root = make_span("agent \x1b[2J\x07" + "x" * 300, span=1)
    child = make_span("tool\r\n" + "y" * 300, span=2, parent=1)
    verdict = evaluation(Feedback(name="n\x1b[31m" * 9, value="\x08" * 99, rationale="why\x00 " * 50), of=root)

    text = printed(a_trace(root, child, verdicts=[verdict]), width)

    assert all(character.isprintable() for character in text.replace("\n", ""))
    # Ids are never broken: the line that names the trace may be longer.
    assert all(len(line) <= width for line in text.splitlines()[2:])


def test_a_terminal_without_unicode_gets_lines_that_it_can_show() -> None:
    text = printed(a_trace(make_span("agent", span=1), make_span("tool", span=2, parent=1)), encoding="ascii")

    assert "`- tool" in text
    assert "?" not in text


def test_sums_count_errors_and_missing_values_apart_from_the_mean() -> None:
    tally = Tally()

    for verdict in (
        a_verdict(True, "pass"),
        a_verdict(False, "fail"),
        a_verdict(None),
        a_verdict(None, error_type="ValueError"),
    ):
        tally.add(verdict)

    totals = tally.by_name["checker"]
    assert (totals.scored, totals.passed, totals.failed, totals.no_value, totals.errors, totals.mean) == (
        3,
        1,
        1,
        1,
        1,
        0.5,
    )


def test_the_sidecar_is_stopped_when_it_is_not_needed_any_more() -> None:
    configuration = settings("127.0.0.1:1", ["tool_errors"], 0.1)

    with Sidecar(configuration, command=(sys.executable, "-c", STAYS)) as sidecar:
        assert sidecar.address == "127.0.0.1:4711"
        assert sidecar.is_running

    assert not sidecar.is_running


def test_a_sidecar_that_does_not_listen_to_sigterm_is_killed() -> None:
    started = time.monotonic()

    with Sidecar({}, command=(sys.executable, "-c", DEAF), stop_timeout=0.2) as sidecar:
        pass

    assert not sidecar.is_running
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (COMPLAINS, "ended before it was ready. It said:\nError: no such scorer"),
        (SILENT, "was not ready after 0.5 s and said nothing"),
        (TALKS, "was not ready after 0.5 s"),
    ],
)
def test_a_sidecar_that_does_not_start_is_reported_with_what_it_said(program: str, message: str) -> None:
    sidecar = Sidecar({}, command=(sys.executable, "-c", program), start_timeout=0.5 if program != COMPLAINS else 30.0)

    with pytest.raises(SidecarError, match=re.escape(message)), sidecar:
        pass

    assert not sidecar.is_running


def test_a_program_that_is_not_there_is_reported() -> None:
    with pytest.raises(SidecarError, match="cannot be started"), Sidecar({}, command=("/nowhere/otel-scorer",)):
        pass


def test_the_demo_ends_with_1_and_a_message_if_there_is_no_sidecar(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(1, None, command=(sys.executable, "-c", COMPLAINS)) == 1

    assert "Error: no such scorer" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_reported_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot write"):
        run(1, tmp_path / "missing" / "out.jsonl", command=("/nowhere/otel-scorer",))


@pytest.mark.server
def test_everything_on_the_screen_was_received_by_the_backend(tmp_path: Path) -> None:
    out = tmp_path / "received.jsonl"
    # Settings that would lead an application's exporter elsewhere.
    environment = {
        **os.environ,
        "COLUMNS": "140",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_TRACES_SAMPLER": "always_off",
        "http_proxy": "http://127.0.0.1:1",
    }
    started = time.monotonic()

    done = subprocess.run(
        [*DEMO, "--out", str(out)], capture_output=True, text=True, check=False, env=environment, timeout=50
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 30
    assert done.stderr == ""
    assert all(character.isprintable() for character in done.stdout.replace("\n", ""))
    requests = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    spans = [
        (scope["scope"]["name"], span)
        for request in requests
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    ids = [span["spanId"] for _, span in spans]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"\b[0-9a-f]{16}\b", done.stdout)) == set(ids)
    assert set(re.findall(r"\b[0-9a-f]{32}\b", done.stdout)) == {span["traceId"] for _, span in spans}
    assert sum(name == "otel_scorer" for name, _ in spans) == 5 * len(QUESTIONS)
    assert {"True", "False", "no"} <= set(re.findall(r"^(\w+) ", done.stdout, re.MULTILINE))


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals) -> None:
    demo = subprocess.Popen([*DEMO, "--traces", "500"], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    port = ""
    with demo.stdout:
        for line in demo.stdout:
            if line.startswith("  sidecar"):
                port = line.rpartition(":")[2].strip()
            if line.startswith("trace "):
                break
        demo.send_signal(number)
        rest = demo.stdout.read()

    assert demo.wait(60) == 130
    assert "Interrupted" in rest
    listening = subprocess.run(
        [sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"],
        capture_output=True,
        check=False,
    )
    assert listening.returncode != 0
