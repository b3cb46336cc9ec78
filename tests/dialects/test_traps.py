"""What real traffic does that looks harmless: each of these misled some reader of traces."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests.dialects.captured import build, requests_of
from tests.dialects.made import event, log, made, trace_of, view

from otel_scorer.dialects import READER
from otel_scorer.dialects.values import arguments, json_twice, json_value, number, string_list
from otel_scorer.model.trace import MISSING, Trace
from otel_scorer.model.trace_bytes import spans_as_bytes, trace_from_bytes


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("18 C and sunny in Paris", "18 C and sunny in Paris"),
        ('"18 C and sunny in Paris"', "18 C and sunny in Paris"),
        ('{"celsius": 18}', {"celsius": 18}),
        ('"{\\"celsius\\": 18}"', {"celsius": 18}),
        ("20", "20"),
        ('"20"', "20"),
        ("{broken", "{broken"),
        ("", ""),
    ],
)
def test_a_tool_result_is_decoded_once_twice_or_not_at_all(sent: str, meant: object) -> None:
    span = view("execute_tool x", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result": sent})

    assert span.read("tool_result") == meant


def test_a_number_in_a_field_of_numbers_may_be_text_even_in_quotes() -> None:
    assert number("20") == 20
    assert number('"20"') == 20
    assert number(20.0) == 20
    assert number("twenty") is MISSING
    assert number(True) is MISSING
    assert number("9" * 5000) is MISSING


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (
            "{'city': 'Paris', 'days': (1, 2), 'metric': True, 'unit': None}",
            {"city": "Paris", "days": [1, 2], "metric": True, "unit": None},
        ),
        ('{"city": "Paris"}', {"city": "Paris"}),
        ("Paris", "Paris"),
        ("{'city': open('x')}", "{'city': open('x')}"),
        ("__import__('os').system('true')", "__import__('os').system('true')"),
    ],
)
def test_python_reprs_are_read_but_never_evaluated(sent: str, meant: object) -> None:
    assert arguments(sent) == meant


def test_a_repr_too_long_to_parse_stays_text() -> None:
    text = "{'a': '" + "x" * 100_000 + "'}"

    assert arguments(text) == text


@pytest.mark.parametrize("sent", [["stop", "length"], '["stop", "length"]', "stop, length"])
def test_a_list_comes_as_an_array_as_json_or_comma_separated(sent: object) -> None:
    assert string_list(sent) == ["stop", "length"]
    assert view(attributes={"gen_ai.response.finish_reasons": sent}).read("finish_reasons") == ["stop", "length"]


def test_a_tool_without_attributes_is_known_by_its_name_and_joined_with_what_the_model_asked() -> None:
    answer = {
        "content": {
            "role": "model",
            "parts": [{"function_call": {"id": "c1", "name": "convert", "args": {"to": "XYZ"}}}],
        }
    }
    root = made("invocation", scope="gcp.vertex.agent")
    model = made(
        "call_llm", {"gcp.vertex.agent.llm_response": json.dumps(answer)}, scope="gcp.vertex.agent", parent=root
    )
    tool = made("execute_tool convert", scope="gcp.vertex.agent", parent=root, status="ERROR")

    trace = trace_of(root, model, tool)

    [call] = trace.tool_calls
    assert (call.name, call.arguments, call.call_id, call.failed) == ("convert", {"to": "XYZ"}, "c1", True)


def test_a_handled_exception_is_no_failure_and_a_failure_needs_no_exception() -> None:
    handled = made("a", {"openinference.span.kind": "TOOL"}, events=[event("exception", exception__type="ValueError")])
    redacted = made("b", {"openinference.span.kind": "TOOL"}, status="ERROR")
    typed = made("c", {"openinference.span.kind": "TOOL", "error.type": "tool_error"})
    fine = made("d", {"openinference.span.kind": "TOOL", "error.type": "ignored"}, status="OK")

    calls = trace_of(handled, redacted, typed, fine).tool_calls

    assert [call.failed for call in calls] == [False, True, True, False]


def test_a_tool_that_returns_an_error_has_not_failed() -> None:
    span = made(
        "execute_tool x", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result": '{"error": "no"}'}
    )

    [call] = trace_of(span).tool_calls

    assert call.failed is False
    assert call.result == {"error": "no"}


def test_a_span_name_is_no_tool_name_where_an_attribute_tells() -> None:
    span = view("SimpleTool", {"openinference.span.kind": "TOOL", "tool.name": "get_weather"})

    assert span.read("tool_name") == "get_weather"


def test_tool_parameters_are_a_schema_and_no_arguments() -> None:
    span = view("x", {"openinference.span.kind": "TOOL", "tool.name": "x", "tool.parameters": '{"type": "object"}'})

    assert span.read("tool_args") is MISSING


@pytest.mark.parametrize("name", ["semantic_kernel", "official_openai_v2_legacy", "google_adk"])
@pytest.mark.parametrize("order", ["before", "after", "between"])
def test_content_in_logs_is_the_same_whenever_it_arrives(name: str, order: str) -> None:
    requests = requests_of(name)
    logs = [request for request in requests if request["signal"] == "logs"]
    spans = [request for request in requests if request["signal"] == "traces"]
    arranged = {"before": logs + spans, "after": spans + logs, "between": logs[:1] + spans + logs[1:]}[order]

    assert [facts(trace) for trace in build(arranged)] == [facts(trace) for trace in build(requests)]


def test_log_records_without_a_time_or_a_name_do_no_harm() -> None:
    [trace] = build(requests_of("google_adk"))
    span = next(span for span in trace.spans if span.logs)

    assert all(record.timestamp > 0 for record in span.logs)

    span = view("chat", {"gen_ai.operation.name": "chat"})
    span.logs = (log("gen_ai.choice", None), log("gen_ai.user.message", "not JSON"), log("something.else", {"a": 1}))

    assert span.inputs == [{"role": "user", "content": "not JSON"}]


def test_message_lists_are_taken_whole_from_one_source() -> None:
    span = view(
        "chat",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "attribute"}]}]',
        },
    )
    span.logs = (log("gen_ai.system.message", {"content": "log"}), log("gen_ai.user.message", {"content": "log"}))

    assert span.inputs == [{"role": "user", "content": "attribute"}]


def test_an_orphaned_trace_still_has_a_root() -> None:
    gone = made("travel_agent", {"mlflow.spanType": '"AGENT"'})
    tool = made("get_weather", {"mlflow.spanType": '"TOOL"', "mlflow.spanInputs": '{"city": "Paris"}'}, parent=gone)

    trace = trace_of(tool)

    assert trace.root is not None
    assert trace.root.name == "get_weather"
    assert [call.arguments for call in trace.tool_calls] == [{"city": "Paris"}]
    assert not trace.is_complete


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"traceloop.span.kind": "workflow", "gen_ai.operation.name": "invoke_agent"}, "AGENT"),
        ({"traceloop.span.kind": "task", "gen_ai.operation.name": "vector_db_retrieve"}, "RETRIEVER"),
        ({"traceloop.span.kind": "task"}, "TASK"),
        ({"traceloop.span.kind": "unknown"}, "UNKNOWN"),
        ({"langsmith.span.kind": "retriever", "gen_ai.operation.name": "embeddings"}, "RETRIEVER"),
        ({"openinference.span.kind": "CHAIN", "gen_ai.operation.name": "invoke_agent"}, "CHAIN"),
        ({"openinference.span.kind": "UNKNOWN", "gen_ai.operation.name": "chat"}, "CHAT_MODEL"),
        ({"gen_ai.operation.name": "chat", "gen_ai.tool.name": "get_weather"}, "CHAT_MODEL"),
        ({"gen_ai.operation.name": "something_new", "gen_ai.tool.name": "get_weather"}, "UNKNOWN"),
        ({"gen_ai.operation.name": "RETRIEVER"}, "RETRIEVER"),
        ({"gen_ai.operation.name": "chain"}, "CHAIN"),
        ({"mlflow.spanType": '"TOOL"', "openinference.span.kind": "LLM"}, "TOOL"),
        ({"mlflow.spanType": '"UNKNOWN"', "openinference.span.kind": "LLM"}, "LLM"),
        ({"mlflow.spanType": '"ROUTER"'}, "ROUTER"),
        ({"otel_scorer.span.type": "TOOL", "mlflow.spanType": '"LLM"'}, "TOOL"),
        ({"langfuse.observation.type": "span", "gen_ai.operation.name": "chat"}, "CHAT_MODEL"),
        ({"gen_ai.tool.name": "get_weather"}, "TOOL"),
        ({"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3}, "LLM"),
        ({"gen_ai.request.model": "m"}, "UNKNOWN"),
        ({"retrieval.documents.3.document.metadata": "{}"}, "RETRIEVER"),
        ({"embedding.embeddings.0.embedding.text": "hi"}, "EMBEDDING"),
        ({"gen_ai.evaluation.name": "tone"}, "EVALUATOR"),
        ({"gen_ai.operation.name": 7}, "UNKNOWN"),
        ({"http.request.method": "GET"}, "UNKNOWN"),
    ],
)
def test_where_two_dialects_disagree_the_one_that_knows_better_wins(attributes: dict[str, object], kind: str) -> None:
    assert view(attributes=attributes).span_type == kind


def facts(trace: Trace) -> object:
    usage = trace.usage
    return (
        [(span.name, span.span_type) for span in trace.spans],
        [(call.name, call.arguments, call.result, call.failed, call.call_id) for call in trace.tool_calls],
        [(call.model, call.inputs, call.outputs) for call in trace.llm_calls],
        None if usage is None else (usage.input_tokens, usage.output_tokens, usage.total_tokens),
        trace.inputs,
        trace.outputs,
        trace.messages,
    )


def test_spans_arrive_in_any_order_and_in_any_number_of_requests() -> None:
    requests = requests_of("openinference_langchain")
    pieces = [
        {
            "signal": request["signal"],
            "body": {"resourceSpans": [{**resource, "scopeSpans": [{**scope, "spans": [span]}]}]},
        }
        for request in requests
        for resource in request["body"]["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    random.Random(1).shuffle(pieces)

    assert [facts(trace) for trace in build(pieces)] == [facts(trace) for trace in build(requests)]


def test_values_that_are_decoded_already_are_left_alone() -> None:
    assert json_value({"a": 1}) == {"a": 1}
    assert json_twice(["a"]) == ["a"]


def test_notes_of_google_adk_that_content_was_left_out_are_no_content() -> None:
    answer = {"content": {"role": "model", "parts": [{"function_call": {"id": "c1", "name": "get", "args": {"n": 1}}}]}}
    request = {"contents": [{"role": "user", "parts": [{"text": "question"}]}]}
    scope = "gcp.vertex.agent"
    outer = made(
        "call_llm",
        {
            "gcp.vertex.agent.llm_request": json.dumps(request),
            "gcp.vertex.agent.llm_response": json.dumps(answer),
            "gen_ai.request.model": "gemini",
        },
        scope=scope,
    )
    elided = {"event_name": "gen_ai.user.message", "timestamp": 1, "body": {"content": "<elided>"}, "attributes": {}}
    inner = made(
        "generate_content", {"gen_ai.operation.name": "generate_content"}, scope=scope, parent=outer, logs=[elided]
    )
    tool = made(
        "execute_tool get",
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "get",
            "gen_ai.tool.call.id": "<not specified>",
            "gcp.vertex.agent.tool_response": '{"result": "<not specified>"}',
        },
        scope=scope,
        parent=inner,
        status="ERROR",
    )
    merged = made(
        "execute_tool (merged tools)",
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "(merged tools)"},
        scope=scope,
        parent=inner,
    )

    trace = trace_of(outer, inner, tool, merged)

    assert [message.content for message in trace.messages] == ["question", ""]
    [llm_call] = trace.llm_calls
    assert (llm_call.span.name, llm_call.model, llm_call.inputs) == ("generate_content", "gemini", request)
    assert [span.name for span in trace.search_spans("TOOL")] == ["execute_tool get", "execute_tool (merged tools)"]
    [call] = trace.tool_calls
    assert (call.call_id, call.arguments, call.result) == ("c1", {"n": 1}, None)


def test_a_crew_that_was_given_nothing_has_no_inputs_of_its_own() -> None:
    crew = made(
        "Crew.kickoff",
        {"openinference.span.kind": "CHAIN", "crew_inputs": ""},
        scope="openinference.instrumentation.crewai",
    )
    agent = made("agent", {"openinference.span.kind": "AGENT", "input.value": "question"}, parent=crew)

    trace = trace_of(crew, agent)

    assert trace.root is not None
    assert trace.root.inputs is None
    assert trace.inputs == "question"


def test_a_server_address_that_is_a_url_and_names_with_templates_do_no_harm() -> None:
    span = view(
        "Chat Completion with {request_data[model]!r}",
        {"gen_ai.operation.name": "chat", "server.address": "https://api.openai.com/v1"},
        scope="logfire.openai",
    )

    assert (span.span_type, span.inputs) == ("CHAT_MODEL", None)


def test_a_flattened_list_suggests_a_type_by_its_first_key_and_not_by_what_only_looks_like_it() -> None:
    assert view("x", {"a": 1, "retrieval.documents.7.document.id": "d"}).span_type == "RETRIEVER"
    assert view("x", {"z": 1, "embedding.embeddings.0.embedding.text": "t"}).span_type == "EMBEDDING"
    assert view("x", {"my.retrieval.documents.0.document.id": "d"}).span_type == "UNKNOWN"
    assert view("x", {"my\nretrieval.documents.0.document.id": "d"}).span_type == "UNKNOWN"


@pytest.mark.parametrize("name", ["logfire", "pydantic_ai"])
def test_records_that_stand_for_a_span_until_it_ends_are_no_part_of_the_tree(name: str) -> None:
    """Logfire sends one when a span starts: a child of it, with another id and all that was known by then."""
    requests = requests_of(name)
    before = build(requests)
    expected = facts_of(before)
    for request in requests:
        for resource_spans in request["body"].get("resourceSpans", []):
            for scope_spans in resource_spans["scopeSpans"]:
                scope_spans["spans"] += [pending(span) for span in scope_spans["spans"]]

    traces = build(requests)

    assert facts_of(traces) == expected
    for trace, was in zip(traces, before, strict=True):
        assert len(trace.placeholders) - len(was.placeholders) == len(was.arrived)
        # They are stored and sent on with the others, and not seen after that either.
        again = trace_from_bytes(spans_as_bytes(trace), b"", READER)
        assert (len(again.arrived), len(again.spans)) == (len(trace.arrived), len(trace.spans))
        assert len(Trace.from_dict(trace.to_dict()).spans) == len(trace.spans)


def pending(span: dict[str, Any]) -> dict[str, Any]:
    marks = [
        {"key": "logfire.span_type", "value": {"stringValue": "pending_span"}},
        {"key": "logfire.pending_parent_id", "value": {"stringValue": span.get("parentSpanId") or "0" * 16}},
    ]
    kept = [pair for pair in span["attributes"] if pair["key"] != "logfire.span_type"]
    start = span["startTimeUnixNano"]
    identity = {"spanId": span["spanId"][::-1], "parentSpanId": span["spanId"], "endTimeUnixNano": start}
    return {**span, **identity, "attributes": [*kept, *marks]}


def facts_of(traces: list[Trace]) -> list[object]:
    return [(facts(trace), trace.attribute_keys, trace.span_types, trace.is_complete, trace.model) for trace in traces]


def test_a_trace_of_which_only_such_a_record_came_has_no_spans() -> None:
    trace = trace_of(made("chat", {"logfire.span_type": "pending_span", "gen_ai.operation.name": "chat"}))

    assert (trace.spans, trace.root, trace.llm_calls, trace.usage) == ([], None, [], None)
    assert len(trace.trace_id) == 32


def test_a_line_of_logfires_log_is_no_span_unless_it_says_what_it_does() -> None:
    root = made("handle")
    line = made("hello", {"logfire.span_type": "log", "logfire.msg": "hello"}, parent=root)
    streamed = made("streamed", {"logfire.span_type": "log", "gen_ai.operation.name": "chat"}, parent=root)
    verdict = made("verdict", {"logfire.span_type": "log", "gen_ai.evaluation.name": "tone"}, parent=root)
    pending = made("x", {"logfire.span_type": "pending_span", "gen_ai.operation.name": "chat"}, parent=root)

    trace = trace_of(root, line, streamed, verdict, pending)

    assert [span.name for span in trace.spans] == ["handle", "streamed", "verdict"]
    assert [span.name for span in trace.placeholders] == ["hello", "x"]
    assert trace_of(line).is_pending


def test_an_attribute_that_only_looks_like_the_mark_of_such_a_record_does_no_harm() -> None:
    trace = trace_of(made("x", {"logfire.span_type": ["pending_span"]}), made("y", {"logfire.span_type": "pending"}))

    assert len(trace.spans) == 2
