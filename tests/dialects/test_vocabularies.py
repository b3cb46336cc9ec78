"""Dialects of which there is no capture, and generations of a dialect that the captures do not show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.dialects.made import event, log, made, trace_of, view

from otel_scorer.dialects import DIALECTS, READER
from otel_scorer.dialects.table import FIELDS, SPAN_TYPES
from otel_scorer.dialects.witness import Origin
from otel_scorer.model.trace import MISSING, Usage

QUESTION = "What is the weather in Paris?"


@pytest.mark.parametrize(
    ("dialect", "kind", "name", "scope", "attributes"),
    [
        ("vercel_ai", "AGENT", "ai.generateText", "ai", {"ai.operationId": "ai.generateText"}),
        ("vercel_ai", "CHAT_MODEL", "ai.streamText.doStream", "ai", {"ai.operationId": "ai.streamText.doStream"}),
        ("vercel_ai", "EMBEDDING", "ai.embed.doEmbed", "ai", {"ai.operationId": "ai.embed.doEmbed"}),
        ("laminar", "LLM", "x", "lmnr", {"lmnr.span.type": "LLM"}),
        ("laminar", "CHAIN", "x", "lmnr", {"lmnr.span.type": "DEFAULT"}),
        ("genkit", "TOOL", "x", "genkit-tracer", {"genkit:metadata:subtype": "tool.v2"}),
        ("claude_code", "LLM", "claude_code.llm_request", "claude", {"span.type": "llm_request"}),
        ("claude_code", "TASK", "x", "claude", {"span.type": "claude_code.tool.blocked_on_user"}),
        ("claude_code", "TOOL", "claude_code.tool", "com.anthropic.claude_code.tracing", {"tool_name": "Bash"}),
        ("livekit", "UNKNOWN", "tts_node", "agents", {"lk.input_text": "hi"}),
        ("livekit", "UNKNOWN", "x", "agents", {"lk.function_tool.output": "18 C"}),
        ("spring_ai", "TOOL", "x", "spring", {"spring.ai.kind": "tool_call", "gen_ai.operation.name": "framework"}),
        ("spring_ai", "CHAIN", "x", "spring", {"spring.ai.kind": "chat_client", "gen_ai.operation.name": "framework"}),
        ("voltagent", "MEMORY", "x", "volt", {"span.type": "memory", "voltagent.operation_id": "1"}),
        ("voltagent", "TOOL", "x", "volt", {"entity.type": "tool", "voltagent.conversation_id": "1"}),
        ("livekit", "TOOL", "function_tool", "livekit-agents", {}),
        ("livekit", "AGENT", "agent_turn", "livekit-agents", {}),
        ("flue", "TOOL", "x", "@flue/opentelemetry", {"flue.tool.name": "get"}),
        ("flue", "AGENT", "x", "@flue/opentelemetry", {"flue.task.id": "1"}),
        ("gemini_cli", "LLM", "x", "gemini", {"gen_ai.agent.name": "gemini-cli", "gen_ai.operation.name": "llm_call"}),
        ("autogen", "AGENT", "invoke_agent a", "autogen-core", {"gen_ai.operation.name": "invoke_agent"}),
        ("openlit", "UNKNOWN", "my_function", "openlit.otel.tracing", {"function.args": "('x',)"}),
        ("logfire", "CHAT_MODEL", "x", "logfire.openai", {"logfire.span_type": "log", "gen_ai.operation.name": "chat"}),
        ("pydantic_ai", "AGENT", "agent run", "pydantic-ai", {}),
        ("pydantic_ai", "CHAIN", "running tools", "pydantic-ai", {}),
        ("pydantic_ai", "TOOL", "running tool", "pydantic-ai", {"gen_ai.tool.name": "get"}),
        ("google_adk", "CHAIN", "invocation", "gcp.vertex.agent", {}),
        ("google_adk", "AGENT", "agent_run [travel_agent]", "gcp.vertex.agent", {}),
        ("google_adk", "LLM", "call_llm", "gcp.vertex.agent", {}),
        ("mcp", "PARSER", "prompts/get", "mcp", {"mcp.method.name": "prompts/get"}),
        ("traceloop_legacy", "RERANKER", "cohere.rerank", "cohere", {"llm.request.type": "rerank"}),
        (
            "crewai_openinference",
            "CHAIN",
            "Crew.kickoff",
            "openinference.instrumentation.crewai",
            {"openinference.span.kind": "CHAIN"},
        ),
        (
            "haystack_openinference",
            "CHAIN",
            "Agent.run",
            "openinference.instrumentation.haystack",
            {"openinference.span.kind": "CHAIN"},
        ),
    ],
)
def test_spans_are_recognised_and_typed(
    dialect: str, kind: str, name: str, scope: str, attributes: dict[str, Any]
) -> None:
    span = view(name, attributes, scope=scope)

    assert span.span_type == kind
    assert dialect in span.read("dialects")


def test_a_dialect_is_also_known_by_its_resource_or_its_events() -> None:
    assert "openlit" in view(resource={"telemetry.sdk.name": "openlit"}).read("dialects")
    assert "codex_cli" in view(resource={"service.name": "codex_exec"}).read("dialects")
    assert "spring_ai" in view(events=[event("gen_ai.content.prompt")]).read("dialects")
    assert view().read("dialects") == ()


def test_vercel_5_and_6() -> None:
    root = made(
        "ai.generateText",
        {
            "ai.operationId": "ai.generateText",
            "ai.prompt": json.dumps({"prompt": QUESTION}),
            "ai.response.text": "18 C",
            "ai.usage.inputTokens": 210,
            "ai.usage.outputTokens": 41,
        },
        scope="ai",
    )
    calls = json.dumps(
        [{"toolCallType": "function", "toolCallId": "c1", "toolName": "get_weather", "input": '{"city":"Paris"}'}]
    )
    asked = made(
        "ai.generateText.doGenerate",
        {
            "ai.operationId": "ai.generateText.doGenerate",
            "ai.prompt.messages": json.dumps([{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]),
            "ai.response.text": "",
            "ai.response.toolCalls": calls,
            "ai.usage.inputTokens": 100,
            "ai.usage.outputTokens": 20,
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "ai.telemetry.metadata.sessionId": "s1",
        },
        scope="ai",
        parent=root,
    )
    tool = made(
        "ai.toolCall",
        {
            "ai.operationId": "ai.toolCall",
            "ai.toolCall.name": "get_weather",
            "ai.toolCall.id": "c1",
            "ai.toolCall.args": '{"city":"Paris"}',
            "ai.toolCall.result": '"\\"18 C and sunny\\""',
        },
        scope="ai",
        parent=root,
    )

    trace = trace_of(root, asked, tool)

    assert trace.usage == Usage(100, 20, 120)
    assert trace.session_id == "s1"
    assert trace.outputs == "18 C"
    [call] = trace.tool_calls
    assert (call.name, call.call_id, call.arguments) == ("get_weather", "c1", {"city": "Paris"})
    assert call.result == '"18 C and sunny"'
    answer = trace.llm_calls[0].span.read("chat_outputs")[0]
    assert answer.tool_calls == ({"id": "c1", "name": "get_weather", "arguments": {"city": "Paris"}},)


def test_pydantic_ai_1() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    events = [
        {"event.name": "gen_ai.system.message", "role": "system", "content": "Help."},
        {"event.name": "gen_ai.user.message", "role": "user", "content": QUESTION},
        {"event.name": "gen_ai.choice", "index": 0, "message": {"role": "assistant", "tool_calls": [call]}},
    ]
    root = made(
        "agent run",
        {"all_messages_events": json.dumps(events), "final_result": "18 C", "gen_ai.usage.input_tokens": 330},
        scope="pydantic-ai",
    )
    chat = made(
        "chat gpt",
        {
            "gen_ai.operation.name": "chat",
            "events": json.dumps(events),
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
        },
        scope="pydantic-ai",
        parent=root,
    )
    tools = made("running tools", scope="pydantic-ai", parent=root)
    tool = made(
        "running tool",
        {
            "gen_ai.tool.name": "get_weather",
            "gen_ai.tool.call.id": "c1",
            "tool_arguments": '{"city":"Paris"}',
            "tool_response": "18 C and sunny",
        },
        scope="pydantic-ai",
        parent=tools,
    )

    trace = trace_of(root, chat, tools, tool)

    assert (trace.inputs, trace.outputs) == (QUESTION, "18 C")
    assert trace.usage == Usage(100, 20, 120)
    assert [message.role for message in trace.messages] == ["system", "user", "assistant"]
    [made_call] = trace.tool_calls
    assert (made_call.name, made_call.arguments, made_call.result, made_call.call_id) == (
        "get_weather",
        {"city": "Paris"},
        "18 C and sunny",
        "c1",
    )


def test_google_adk_1() -> None:
    request = {
        "model": "gemini",
        "config": {"system_instruction": "Help."},
        "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
    }
    response = {
        "content": {
            "role": "model",
            "parts": [{"function_call": {"id": "c1", "args": {"city": "Paris"}, "name": "get_weather"}}],
        }
    }
    root = made("invocation", scope="gcp.vertex.agent")
    agent = made("agent_run [travel_agent]", scope="gcp.vertex.agent", parent=root)
    model = made(
        "call_llm",
        {
            "gen_ai.system": "gcp.vertex.agent",
            "gcp.vertex.agent.llm_request": json.dumps(request),
            "gcp.vertex.agent.llm_response": json.dumps(response),
            "gcp.vertex.agent.session_id": "s1",
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
        },
        scope="gcp.vertex.agent",
        parent=agent,
    )
    tool = made(
        "execute_tool get_weather",
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "get_weather",
            "gcp.vertex.agent.llm_request": "{}",
            "gcp.vertex.agent.llm_response": "{}",
            "gcp.vertex.agent.tool_call_args": '{"city": "Paris"}',
            "gcp.vertex.agent.tool_response": '{"result": "18 C and sunny"}',
        },
        scope="gcp.vertex.agent",
        parent=agent,
    )

    trace = trace_of(root, agent, model, tool)

    assert trace.inputs == QUESTION
    assert trace.session_id == "s1"
    assert [message.role for message in trace.messages] == ["system", "user", "assistant"]
    [call] = trace.tool_calls
    assert (call.arguments, call.result, call.call_id) == ({"city": "Paris"}, {"result": "18 C and sunny"}, "c1")


def test_strands_with_one_event_per_side() -> None:
    details = "gen_ai.client.inference.operation.details"
    asked = [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "get", "arguments": {"city": "Paris"}}],
        }
    ]
    told = [{"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": [{"text": "18 C"}]}]}]
    tool = made(
        "execute_tool get",
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get", "gen_ai.provider.name": "strands-agents"},
        scope="strands.telemetry.tracer",
        events=[
            event(details, gen_ai__input__messages=json.dumps(asked)),
            event(details, gen_ai__output__messages=json.dumps(told)),
        ],
    )

    [call] = trace_of(tool).tool_calls

    assert (call.arguments, call.result) == ({"city": "Paris"}, "18 C")


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("reasoning_tokens", "reasoning_tokens"),
        ("thoughts_tokens", "reasoning_tokens"),
        ("cached_tokens", "cache_read_tokens"),
        ("cache_read_input_tokens", "cache_read_tokens"),
        ("cache_creation_input_tokens", "cache_write_tokens"),
    ],
)
def test_pydantic_ai_passes_on_what_a_provider_calls_its_tokens_and_they_are_not_added(said: str, field: str) -> None:
    used = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 7, f"gen_ai.usage.details.{said}": 3}
    trace = trace_of(made("chat m", {"gen_ai.operation.name": "chat", **used}, scope="pydantic-ai"))

    [span] = trace.spans
    assert span.read(field) == 3
    assert READER.unread(span) == []
    assert trace.usage == Usage(10, 7, 17)


def test_claude_code_counts_cached_tokens_as_input() -> None:
    request = made(
        "claude_code.llm_request",
        {
            "span.type": "llm_request",
            "model": "claude",
            "input_tokens": 10,
            "cache_read_tokens": 80,
            "cache_creation_tokens": 5,
            "output_tokens": 7,
        },
    )
    tool = made(
        "claude_code.tool",
        {"span.type": "tool", "tool_name": "Bash", "tool_input": '{"command": "ls"}'},
        events=[event("tool.output", output="a.txt")],
    )
    prompt = made(
        "claude_code.interaction", {"span.type": "interaction", "user_prompt": "<REDACTED>", "new_context": "hi"}
    )

    trace = trace_of(prompt, request, tool)

    assert trace.usage == Usage(95, 7, 102)
    assert trace.inputs == "hi"
    [call] = trace.tool_calls
    assert (call.name, call.arguments, call.result) == ("Bash", {"command": "ls"}, "a.txt")


def test_langfuse_buckets_of_tokens_are_added_but_for_audio() -> None:
    details = {"input": 60, "input_cache_read": 40, "input_audio": 9, "output": 20, "total": 120}
    span = view(
        "x", {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": json.dumps(details)}
    )

    assert (span.read("input_tokens"), span.read("output_tokens"), span.read("total_tokens")) == (100, 20, 120)


def test_openlit_functions_show_what_they_were_called_with() -> None:
    span = view(
        "f",
        {"function.args": "('Paris',)", "function.kwargs": "{'days': 2}", "gen_ai.output.messages": "18 C"},
        scope="openlit.otel.tracing",
    )

    assert span.inputs == {"args": ["Paris"], "kwargs": {"days": 2}}
    assert span.outputs == "18 C"


def test_logfire_requests_and_streamed_answers() -> None:
    request = {"messages": [{"role": "user", "content": QUESTION}], "model": "gpt"}
    span = view(
        "Chat",
        {
            "gen_ai.operation.name": "chat",
            "request_data": json.dumps(request),
            "response_data": '{"combined_chunk_content": "18 C", "chunk_count": 3}',
        },
        scope="logfire.openai",
    )

    assert [message.content for message in span.read("chat_inputs")] == [QUESTION]
    assert [message.content for message in span.read("chat_outputs")] == ["18 C"]


def test_spring_ai_content_is_in_events() -> None:
    span = view(
        "chat",
        {"gen_ai.operation.name": "chat"},
        events=[
            event("gen_ai.content.prompt", gen_ai__prompt="hi"),
            event("gen_ai.content.completion", gen_ai__completion="hello"),
        ],
    )

    assert (span.inputs, span.outputs) == ("hi", "hello")


def test_gemini_contents_are_messages() -> None:
    contents = [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": [{"text": "hello"}]}]
    span = view(
        "x",
        {
            "gen_ai.agent.name": "gemini-cli",
            "gen_ai.operation.name": "llm_call",
            "gen_ai.input.messages": json.dumps(contents),
        },
    )

    assert span.inputs == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ('{"kwargs": {"city": "Paris"}}', {"city": "Paris"}),
        ('{"args": ["Paris"], "kwargs": {}}', "Paris"),
        ('{"args": ["Paris", 2], "kwargs": {"c": 3}}', {"args": ["Paris", 2], "kwargs": {"c": 3}}),
        ('{"args": ["Paris"], "city": "Paris"}', {"args": ["Paris"], "city": "Paris"}),
        ('{"args": "all", "kwargs": {}}', {"args": "all", "kwargs": {}}),
        ("{}", {}),
        ("Paris", "Paris"),
        ("42", "42"),
    ],
)
def test_openinference_tools_record_their_arguments_in_several_ways(given: str, arguments: object) -> None:
    assert view("x", {"openinference.span.kind": "TOOL", "input.value": given}).inputs == arguments


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ('{"inputs": {"a": 1}, "tags": [], "metadata": {}, "kwargs": {}}', {"a": 1}),
        ('{"input_str": "{\'a\': 1}", "tags": []}', {"a": 1}),
        ('{"query": "where?", "metadata": {}}', "where?"),
        ('{"query": "where?", "limit": 3}', {"query": "where?", "limit": 3}),
        ('{"args": [], "kwargs": {"a": 1}}', {"a": 1}),
        ('"text"', "text"),
        ("20", 20),
    ],
)
def test_traceloop_entities_are_unwrapped(given: str, meant: object) -> None:
    assert view("x", {"traceloop.span.kind": "task", "traceloop.entity.input": given}).inputs == meant


def test_a_langsmith_tool_may_be_called_input() -> None:
    attributes = {"langsmith.span.kind": "tool", "gen_ai.prompt": "{\"input\": \"{'city': 'Paris'}\"}"}

    assert view("x", attributes).inputs == {"city": "Paris"}
    assert view("x", {**attributes, "gen_ai.prompt": '{"input": "Paris"}'}).inputs == {"input": "Paris"}


def test_where_a_value_came_from_can_be_explained() -> None:
    span = view(
        "x", {"openinference.span.kind": "LLM", "input.value": "hi", "llm.token_count.prompt": 3, "session.id": "s"}
    )

    assert READER.explain(span) == {
        "span_type": Origin("openinference", "openinference.span.kind"),
        "inputs": Origin("openinference", "input.value"),
        "input_tokens": Origin("openinference", "llm.token_count.prompt"),
        "session_id": Origin("openinference", "session.id"),
    }


def test_tables_are_well_formed() -> None:
    names = [dialect.name for dialect in DIALECTS]

    assert len(set(names)) == len(names)
    for dialect in DIALECTS:
        assert set(dialect.fields) <= set(FIELDS)
        assert dialect.base is None or dialect.base in names
        assert any((dialect.scopes, dialect.keys, dialect.values, dialect.resource, dialect.events, dialect.names))
        for rule in dialect.span_types:
            assert set(rule.types.values()) <= SPAN_TYPES
            assert rule.generic <= set(rule.types)


def test_what_is_not_said_is_missing_and_not_none() -> None:
    assert view().read("inputs") is MISSING
    assert view().inputs is None


@pytest.mark.parametrize("start", ["lk.", "lk.pii."])
def test_livekit_tools_and_what_may_be_personal(start: str) -> None:
    call = {"lk.function_tool.name": "get", "lk.function_tool.id": "call_1"}
    said = {f"{start}function_tool.arguments": '{"a": 1}', f"{start}function_tool.output": "18 C"}

    trace = trace_of(
        made("agent_turn", {f"{start}user_input": "hi", f"{start}response.text": "hello"}, scope="livekit-agents"),
        made("function_tool", {**call, **said}, scope="livekit-agents"),
    )

    assert (trace.inputs, trace.outputs) == ("hi", "hello")
    [tool] = trace.tool_calls
    assert (tool.name, tool.arguments, tool.result, tool.call_id) == ("get", {"a": 1}, "18 C", "call_1")


def test_spring_ai_tools() -> None:
    tool = made(
        "tool_call get_weather",
        {
            "spring.ai.kind": "tool_call",
            "spring.ai.tool.definition.name": "get_weather",
            "spring.ai.tool.call.arguments": '{"city": "Paris"}',
            "spring.ai.tool.call.result": '"18 C"',
        },
    )

    [call] = trace_of(tool).tool_calls

    assert (call.name, call.arguments, call.result) == ("get_weather", {"city": "Paris"}, "18 C")


def test_genkit_models() -> None:
    request = {"toolRequest": {"name": "get", "ref": "c1", "input": {"city": "Paris"}}}
    model = made(
        "gemini",
        {
            "genkit:metadata:subtype": "model",
            "genkit:input": json.dumps({"messages": [{"role": "user", "content": [{"text": QUESTION}]}]}),
            "genkit:output": json.dumps(
                {
                    "message": {"role": "model", "content": [request]},
                    "usage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120},
                }
            ),
        },
        scope="genkit-tracer",
    )
    tool = made("get", {"genkit:metadata:subtype": "tool", "genkit:name": "get"}, scope="genkit-tracer")

    trace = trace_of(model, tool)

    assert trace.usage == Usage(100, 20, 120)
    assert [message.content for message in trace.messages] == [QUESTION, ""]
    assert [(call.call_id, call.arguments) for call in trace.tool_calls] == [("c1", {"city": "Paris"})]


def test_laminar_associations() -> None:
    span = view(
        "x",
        {
            "lmnr.span.type": "LLM",
            "lmnr.association.properties.session_id": "s",
            "lmnr.association.properties.user_id": "u",
            "lmnr.association.properties.tags": ["a"],
        },
    )

    assert (span.read("session_id"), span.read("user_id"), span.read("tags")) == ("s", "u", ["a"])


def test_messages_in_the_one_attribute_of_azures_events() -> None:
    span = view(
        "chat",
        {"gen_ai.operation.name": "chat"},
        events=[
            event("gen_ai.user.message", gen_ai__event__content='{"role": "user", "content": "hi"}'),
            event("gen_ai.choice", gen_ai__event__content='{"message": {"content": "hello"}, "index": 0}'),
        ],
    )

    assert span.inputs == [{"role": "user", "content": "hi"}]
    assert span.outputs == [{"role": "assistant", "content": "hello"}]


def test_event_records_may_have_their_content_in_body_or_attributes() -> None:
    details = "gen_ai.client.inference.operation.details"
    spoken = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    in_body = view("chat", {"gen_ai.operation.name": "chat"})
    in_body.logs = (log(details, {"gen_ai.input.messages": spoken}),)
    in_attributes = view("chat", {"gen_ai.operation.name": "chat"})
    in_attributes.logs = (log("gen_ai.user.message", None, content="hi"),)

    assert in_body.inputs == in_attributes.inputs == [{"role": "user", "content": "hi"}]


def test_a_message_needs_no_role_if_it_has_parts() -> None:
    said = json.dumps([{"parts": [{"type": "text", "content": "hello"}], "finish_reason": "stop"}])

    span = view("chat", {"gen_ai.operation.name": "chat", "gen_ai.output.messages": said})

    assert span.outputs == [{"role": "assistant", "content": "hello"}]


def test_codex_prompts_come_as_log_records_too() -> None:
    span = view("run_turn", resource={"service.name": "codex_cli_rs"})
    span.logs = (log("codex.user_prompt", None, prompt="fix it"),)

    assert span.inputs == "fix it"


def test_vercel_embeddings_are_decoded_one_by_one() -> None:
    span = view("ai.embed.doEmbed", {"ai.operationId": "ai.embed.doEmbed", "ai.embeddings": ["[0.1,0.2]", "[0.3]"]})

    assert span.outputs == [[0.1, 0.2], [0.3]]


def test_why_a_span_failed() -> None:
    raised = view(status="ERROR", events=[event("exception", exception__type="ValueError", exception__message="no")])
    logged = view(status="ERROR")
    logged.logs = (log("gen_ai.client.operation.exception", None, exception__type="Timeout"),)
    redacted = view(status={"code": "ERROR", "message": "redacted"})

    assert (raised.read("error_type"), raised.read("error_message")) == ("ValueError", "no")
    assert logged.read("error_type") == "Timeout"
    assert redacted.read("error_message") == "redacted"
