"""`inspect --explain`: what somebody needs who wonders why a scorer sees nothing."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.dialects.captured import CAPTURES, agrees, expectations, traces_of
from tests.dialects.made import event, log, made, trace_of

from otel_scorer.cli import cli
from otel_scorer.dialects import READER
from otel_scorer.model.trace import MISSING, Trace
from otel_scorer.reporting.content_marks import cut_values, is_redacted, length_limit
from otel_scorer.reporting.explanation import as_json, as_text
from otel_scorer.reporting.findings import Finding, find_problems
from otel_scorer.reporting.inspection import inspect_trace
from otel_scorer.testing import make_request, make_span

NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
IO = {"gen_ai.input.messages": "[]", "gen_ai.output.messages": "[]"}
TOKENS = {"gen_ai.usage.input_tokens": 1}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
OFFICIAL = "opentelemetry.instrumentation.genai.openai"


def findings(*spans: dict[str, Any], duplicates: int = 0) -> dict[str, Finding]:
    """Return what is said, by kind and first words."""
    found = find_problems(trace_of(*spans), READER, duplicates=duplicates)
    return {f"{finding.kind}: {finding.text}": finding for finding in found}


def finding(kind: str, *spans: dict[str, Any], duplicates: int = 0) -> Finding:
    [found] = [each for each in findings(*spans, duplicates=duplicates).values() if each.kind == kind]
    return found


def text(trace: Trace, width: int = 100) -> list[str]:
    return [line.rstrip("\n") for line in as_text([trace], READER, {}, width=width)]


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_every_capture_is_explained(name: str) -> None:
    for trace in traces_of(name):
        found = inspect_trace(trace, READER)
        values = found["explain"]["values"]

        assert (values["inputs"] is None) == (trace.read("inputs") is MISSING)
        assert (values["outputs"] is None) == (trace.read("outputs") is MISSING)
        for field in ("model", "session_id", "user_id"):
            assert (values[field] is None) == (found[field] is None)
        for number, call in enumerate(found["tool_calls"]):
            for detail in ("name", "arguments", "result", "call_id"):
                if call[detail] is not None:
                    assert values[f"tool_calls.{number}.{detail}"]["key"]
        for span in found["spans"]:
            assert ("span_type" in span["explain"]) == (span["span_type"] != "UNKNOWN")
            assert span["status"] != "ERROR" or span["explain"]["status"]["key"]
        assert sum(each["spans"] for each in found["explain"]["instrumentations"]) == len(found["spans"])


@pytest.mark.parametrize("name", NAMES)
def test_without_explain_the_json_is_that_of_the_interface(name: str) -> None:
    found = [inspect_trace(trace) for trace in traces_of(name)]

    assert json.loads("".join(as_json(traces_of(name), None, {}))) == json.loads(json.dumps(found, default=str))
    assert "".join(as_json(traces_of(name), None, {})) == json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    for trace in found:
        assert "explain" not in trace
        assert not any("explain" in span for span in trace["spans"])


@pytest.mark.parametrize("name", sorted(expectations()["captures"].keys() & set(NAMES)))
def test_what_is_written_of_every_capture_is_what_is_expected_of_it(name: str) -> None:
    for trace, wanted in zip(traces_of(name), expectations()["captures"][name]["traces"], strict=True):
        found = inspect_trace(trace)
        usage = found["usage"]
        found |= {"derived_inputs": found["inputs"], "derived_outputs": found["outputs"]}
        found |= {"session": found["session_id"], "user": found["user_id"]}
        found |= {"tokens": usage and [usage["input_tokens"], usage["output_tokens"]]}
        found |= {"failed_tools": sum(call["failed"] for call in found["tool_calls"])}

        for field in wanted.keys() - {"spans", "tools", "note"}:
            assert agrees(found[field], wanted[field]), field
        assert [span["name"] for span in found["spans"]] == [name for name, _ in wanted["spans"]]
        for call, tool in zip(found["tool_calls"], wanted["tools"], strict=True):
            call["args"] = call["arguments"]
            for field in tool.keys() - {"args_from"}:
                assert agrees(call[field], tool[field]), field


def test_no_traces_are_an_empty_list() -> None:
    assert "".join(as_json([], READER, {})) == "[]\n"


@pytest.mark.parametrize(
    ("scope", "attributes", "setting"),
    [
        (OFFICIAL, CHAT, "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only"),
        ("opentelemetry.instrumentation.openai_v2", CHAT, "CAPTURE_MESSAGE_CONTENT=true and send logs here too"),
        ("opentelemetry.instrumentation.anthropic", CHAT, "TRACELOOP_TRACE_CONTENT=true if it is OpenLLMetry's"),
        ("opentelemetry.instrumentation.langchain", CHAT, "TRACELOOP_TRACE_CONTENT=true"),
        ("gen_ai", CHAT, "recordInputs and recordOutputs"),
        ("ai", {"ai.operationId": "ai.generateText.doGenerate"}, "experimental_telemetry"),
        ("openinference.instrumentation.openai", {"openinference.span.kind": "LLM"}, "OPENINFERENCE_HIDE_INPUTS"),
        ("langfuse-sdk", {"langfuse.observation.type": "generation"}, "capture_input=False"),
        ("langsmith", {"langsmith.span.kind": "llm"}, "LANGSMITH_HIDE_INPUTS"),
        ("pydantic-ai", CHAT, "include_content of InstrumentationSettings"),
        ("agent_framework", CHAT, "ENABLE_SENSITIVE_DATA=true"),
        ("semantic_kernel.x", CHAT, "SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS_SENSITIVE"),
        ("gcp.vertex.agent", CHAT, "ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS=true"),
        ("my.app", CHAT, "set the attribute gen_ai.input.messages"),
    ],
)
def test_missing_content_names_the_setting_that_records_it(scope: str, attributes: Any, setting: str) -> None:
    found = findings(made("call", attributes, scope=scope))

    assert setting in found["missing: the span 'call' records no input"].hint


def test_no_setting_of_content_is_named_for_a_model_without_a_name() -> None:
    found = findings(made("call", {"llm.request.type": "chat"}, scope="opentelemetry.instrumentation.openai.v1"))

    assert found["missing: the span 'call' records no output"].hint == "set TRACELOOP_TRACE_CONTENT=true"
    assert found["missing: the span 'call' records no model"].hint == "set the attribute gen_ai.response.model"


def test_what_tools_and_retrievers_do_not_say_is_named_once_for_all() -> None:
    root = made("agent", {"openinference.span.kind": "AGENT", "input.value": "x", "output.value": "y"})
    calls = [made(f"search {number}", TOOL, parent=root) for number in range(6)]
    failed = made("broken", TOOL, parent=root, status="ERROR")
    retriever = made("find", {"gen_ai.operation.name": "retrieval"}, parent=root)

    found = findings(root, *calls, failed, retriever)

    text = "6 spans ('search 0', 'search 1', 'search 2', 'search 3' and 2 more) record no result"
    assert found[f"missing: {text}"].hint == "set the attribute gen_ai.tool.call.result"
    assert len(found[f"missing: {text}"].span_ids) == 6
    assert any("no arguments, and no model's answer has them" in key for key in found)
    assert "missing: the span 'find' records no documents" in found
    assert not any("application" in key for key in found)


def test_a_failed_call_need_not_say_what_it_returned() -> None:
    found = findings(made("call", {**CHAT, "gen_ai.input.messages": "[]"}, status="ERROR"))

    assert not any(key.startswith("missing") and "output" in key for key in found)
    assert not any("answered" in key or "tokens" in key for key in found)


def test_missing_tokens_of_openai_name_the_option_for_streams() -> None:
    found = findings(made("call", {**CHAT, **IO, "gen_ai.request.model": "gpt-4o"}))

    assert "stream_options" in found["missing: the span 'call' reports no tokens"].hint


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("gen_ai.input.message", "gen_ai.input.messages"),
        ("gen_ai.inputMessages", "gen_ai.input.messages"),
        ("gen_ai.tool.call.arguements", "gen_ai.tool.call.arguments"),
        ("gen_ai.usage.input_token", "gen_ai.usage.input_tokens"),
        ("sessionId", "session.id"),
        ("openinference.span.kinds", "openinference.span.kind"),
        ("gen_ai.request.max_tokens", None),
        ("http.request.method", None),
        ("gen_ai.agent.id", None),
        ("llm.input_messages.0.message.content", None),
    ],
)
def test_a_key_that_is_nearly_right_is_pointed_out(key: str, meant: str | None) -> None:
    found = [each for each in findings(made("call", {**CHAT, key: "hello"})).values() if each.kind == "near_miss"]

    assert [each.text for each in found] == (
        [f"nothing reads {key} on the span 'call'; did you mean {meant}?"] if meant else []
    )


def test_content_under_a_key_of_ones_own_comes_with_the_lines_that_teach_it() -> None:
    span = made("call", {**CHAT, "my.prompt": "What is the weather in Paris?", "my.app.version": "1.2.3"})

    taught = [each for each in findings(span).values() if each.kind == "unread"]

    assert "which lacks inputs" in taught[0].text
    assert taught[0].hint == "teach it: dialects: {attributes: {inputs: [my.prompt]}}"
    assert (taught[1].text, taught[1].is_problem) == ("not read: my.app.version", False)


def test_spans_of_unknown_type_come_with_the_reason() -> None:
    odd = made("odd", {"gen_ai.operation.name": "frobnicate", "my.data": 1})
    plain = made("plain", scope="my.scope")
    request = made("GET /", {"http.request.method": "GET"})
    # Only says which spans stand for another one, and never what they do.
    mark = made("mark", {"logfire.span_type": "span"}, scope="logfire")
    spans = {"odd": odd, "plain": plain, "request": request, "mark": mark}

    by_name = {name: finding("unknown_type", span) for name, span in spans.items()}

    assert "gen_ai.operation.name is 'frobnicate', which is no type" in by_name["odd"].text
    assert 'teach it: dialects: {span_types: [{scope: "my.app", name:' in by_name["odd"].hint
    assert "no attribute, name or scope 'my.scope' that says what it does" in by_name["plain"].text
    assert (by_name["plain"].is_problem, by_name["request"].is_problem) == (False, False)
    assert "server or database" in by_name["request"].text
    assert "no attribute, name or scope 'logfire' that says what it does" in by_name["mark"].text
    assert not by_name["mark"].is_problem


def test_a_verdict_that_is_an_error_is_shown_as_one() -> None:
    [trace, *_] = traces_of("eval_pydantic_evals_online")

    assert any("evaluation Broken  RuntimeError" in line for line in text(trace, width=200))


def test_tags_of_mlflow_are_read() -> None:
    span = made("agent", {"mlflow.spanType": '"AGENT"', "mlflow.traceTag.team": "red"})

    assert trace_of(span).tags == ["team"]
    assert not any("traceTag" in said for said in findings(span))


def test_a_trace_that_says_nothing_as_a_whole_has_no_heading_for_it() -> None:
    assert "The trace as a whole" not in text(trace_of(made("plain")))
    assert "The trace as a whole" in text(trace_of(made("call", {**CHAT, "session.id": "s"})))


def test_missing_parents_and_several_roots_are_said() -> None:
    root, other = made("a"), made("b")
    orphan = made("c", parent={"span_id": "00000000000000ff"})
    remote = made("d", parent={"span_id": "00000000000000fe"}, is_local_root=True)

    found = findings(root, other, orphan, remote)

    assert found["orphan: the span 'c' names a parent that is not in the input"].is_problem
    assert not found[
        "orphan: the parent of the span 'd' is in another process, whose spans are not in the input"
    ].is_problem
    assert "roots: there are 2 roots; 'a', which starts first, counts as the root" in found


def test_what_is_no_span_of_the_trace_is_said_and_a_problem_where_nothing_else_came() -> None:
    line = made("hello", {"logfire.span_type": "log"})
    start = made("agent", {"logfire.span_type": "pending_span"})

    beside = finding("no_span", line, made("agent", {"logfire.span_type": "span"}), start)
    alone = finding("no_span", line)

    assert beside.text.startswith("'hello', 'agent' are no spans of the trace")
    assert not beside.is_problem
    assert alone.is_problem
    assert alone.span_ids == (line["span_id"],)
    assert "Spans from" not in "\n".join(text(trace_of(line)))


def test_duplicates_and_calls_that_were_recorded_twice_are_said() -> None:
    outer = made("outer", {**CHAT, **IO, **TOKENS}, scope="one")
    inner = made("inner", {**CHAT, **IO, **TOKENS, "gen_ai.response.id": "r"}, scope="two", parent=outer)
    beside = made("beside", {**CHAT, **IO, **TOKENS, "gen_ai.response.id": "r"}, scope="three", parent=None)

    found = findings(outer, inner, beside, duplicates=3)

    assert "duplicate: 3 spans came more than once; the first copy counts" in found
    assert "counted_once: the span 'outer' holds another model span by one, three, two: each call counts once" in found
    twice = finding("counted_twice", outer, inner, beside)
    assert "tell of one answer (r), side by side: it counts 2 times" in twice.text


@pytest.mark.parametrize(
    "value",
    [
        "<REDACTED>",
        "[REDACTED]",
        "__REDACTED__",
        "***",
        "[Filtered]",
        "[Scrubbed due to 'password']",
        '{"a": "<REDACTED>"}',
    ],
)
def test_content_that_was_blanked_out_is_seen(value: str) -> None:
    assert is_redacted(value)
    assert (
        "input.value on the span 'call' is blanked out"
        in finding("redacted", made("call", {"input.value": value})).text
    )


@pytest.mark.parametrize("value", ["redacted texts", "", 3, None, "* * *", "I like **bold** text", "a***b"])
def test_content_that_is_there_is_not_called_blanked_out(value: object) -> None:
    assert not is_redacted(value)


def spans_with(*values: str) -> list[Any]:
    return list(trace_of(*(made("x", {"k": value}) for value in values)).spans)


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        (['{"messages": ["' + "a" * 200], [["k"]]),
        (['{"messages": ' + json.dumps("a" * 200)], [["k"]]),
        (["b" * 300 + "..."], [["k"]]),
        (["c" * 100 + " ...[truncated]"], [["k"]]),
        (["d" * 128, "e" * 128], [["k"], ["k"]]),
        (["d" * 128, "f" * 20], [[], []]),
        (["d" * 127, "e" * 127], [[], []]),
        ([json.dumps({"a": "b" * 300})], [[]]),
        (["[INFO] this is a line of text, not an array, however it begins, and it is complete"], [[]]),
        (["short ..."], [[]]),
    ],
)
def test_values_that_were_cut_are_seen(values: list[str], cut: list[list[str]]) -> None:
    spans = spans_with(*values)
    limit = length_limit(spans)

    assert [cut_values(span, limit) for span in spans] == cut


def test_a_length_limit_is_named_with_the_variables_that_raise_it() -> None:
    found = finding("cut", made("a", {"input.value": "x" * 1024}), made("b", {"input.value": "y" * 1024}))

    assert "input.value is missing on 2 spans ('a', 'b'): cut after 1024 characters" in found.text
    assert "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" in found.hint


def test_attributes_that_the_sdk_dropped_are_counted() -> None:
    span = make_span("busy")
    span.dropped_attributes_count = 7
    from otel_scorer.model.decode import spans_from_request

    trace = Trace(spans_from_request(make_request(span)), READER)

    [found] = [each for each in find_problems(trace, READER) if each.kind == "dropped"]
    assert "dropped 7 attributes" in found.text
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in found.hint


def test_a_healthy_trace_has_no_problem() -> None:
    root = made(
        "agent",
        {
            "openinference.span.kind": "AGENT",
            "input.value": "x",
            "output.value": "y",
            "session.id": "s",
            "user.id": "u",
        },
    )
    chat = made("chat", {**CHAT, **IO, **TOKENS}, parent=root)

    assert findings(root, chat) == {}


def test_joins_are_explained_with_the_span_that_tells() -> None:
    [trace, *_] = traces_of("official_openai_v2_legacy")
    lines = text(trace, 200)

    assert any(
        line.strip().startswith('tool call get_weather, arguments  {"city": "Paris"}  < joined from the model')
        and "log records gen_ai.choice" in line
        for line in lines
    )
    assert "  ! the span 'execute_tool get_weather' records no result" in lines


@pytest.mark.parametrize("width", [40, 64, 100])
@pytest.mark.parametrize("name", ["google_adk", "langfuse", "fastmcp"])
def test_nothing_is_wider_than_the_terminal(name: str, width: int) -> None:
    for trace in traces_of(name):
        assert max(map(len, text(trace, width))) <= width


def test_hostile_text_cannot_move_the_cursor() -> None:
    span = made("x\x1b[2J", {"my.\x1b[31mprompt": "\x1b]0;title\x07 and some more text", "input.value": "\x1b[2J"})
    span["logs"] = []

    trace = trace_of(span)

    assert "\x1b" not in "\n".join(text(trace))
    assert "\x07" not in "\n".join(text(trace))


def test_events_and_log_records_are_named() -> None:
    name = "gen_ai.client.inference.operation.details"
    messages = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
    trace = trace_of(made("x", CHAT, events=[event(name, gen_ai__input__messages=messages)]))
    other = trace_of(made("x", CHAT))
    other.spans[0].logs = (log(name, gen_ai__input__messages=messages),)

    assert any(f"event {name}, gen_ai.input.messages" in line for line in text(trace))
    assert any(f"log record {name}, gen_ai.input.messages" in line for line in text(other, 200))


@pytest.mark.parametrize("attributes", [{}, {"gen_ai.operation.name": "retrieval"}, {"my.prompt": "x" * 1000}])
def test_deep_and_large_traces_are_explained(attributes: dict[str, Any]) -> None:
    spans = [made("top", attributes)]
    for _ in range(1_500):
        spans.append(made("down", attributes, parent=spans[-1]))

    trace = trace_of(*spans, *(made("beside", attributes, parent=spans[0]) for _ in range(1_500)))

    assert len(text(trace, 80)) > 3_000


@pytest.mark.parametrize(
    "value", [None, b"\xff", [], [1, "a"], {"a": {"b": []}}, float("nan"), "\ud800", "{" * 5_000, True]
)
def test_values_of_any_kind_are_explained(value: Any) -> None:
    keys = ["my.prompt", "gen_ai.input.messages", "gen_ai.tool.name", "openinference.span.kind", "session.id"]
    trace = trace_of(made("x", dict.fromkeys(keys, value)))

    assert text(trace)
    assert "".join(as_json([trace], READER, {})).startswith("[")


def test_evaluations_are_explained() -> None:
    [trace, *_] = traces_of("eval_openlit_score")

    values = inspect_trace(trace, READER)["explain"]["values"]

    assert values["evaluations.0"]["key"] in {"log record gen_ai.evaluation.result", "event gen_ai.evaluation.result"}


def test_spans_that_came_twice_are_counted(tmp_path: Path) -> None:
    request = make_request(make_span("once"), make_span("again", span=2, parent=1))
    (tmp_path / "a.binpb").write_bytes(request)
    (tmp_path / "b.binpb").write_bytes(request)

    result = CliRunner().invoke(cli, ["inspect", str(tmp_path / "a.binpb"), str(tmp_path / "b.binpb"), "--explain"])

    assert "  ! 2 spans came more than once; the first copy counts" in result.stdout.splitlines()


def test_a_pipe_gets_no_colour_and_a_terminal_does() -> None:
    command = [sys.executable, "-m", "otel_scorer", "inspect", str(CAPTURES / "strands.json"), "--explain"]
    piped = subprocess.run(command, capture_output=True, check=True)
    assert b"\x1b[" not in piped.stdout

    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
        except OSError:  # how Linux says that nobody writes to a terminal any more
            pass
        os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[" in shown
