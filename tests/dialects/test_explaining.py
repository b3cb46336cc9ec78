"""What is said of where a value was found: by the code that reads it, so it is right wherever reading is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.dialects.captured import CAPTURES, traces_of
from tests.dialects.made import event, log, made, trace_of, view

from otel_scorer.dialects import DIALECTS, READER
from otel_scorer.dialects.witness import Origin
from otel_scorer.model.trace import MISSING, SpanType

if TYPE_CHECKING:
    from otel_scorer.dialects.structure import Derivation
    from otel_scorer.model.trace import Trace

NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
CHAT = {"gen_ai.operation.name": "chat"}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}


def answer(call_id: str = "c1") -> str:
    call = {"type": "tool_call", "id": call_id, "name": "search", "arguments": {"q": "x"}}
    return json.dumps([{"role": "assistant", "parts": [call]}])


def said(trace: Trace) -> dict[str, Derivation]:
    return {each.field: each for each in READER.explain_trace(trace)}


@pytest.mark.parametrize("name", NAMES)
def test_every_type_and_value_of_the_captures_has_an_origin(name: str) -> None:
    known = {dialect.name for dialect in DIALECTS} | {"common"}
    for trace in traces_of(name):
        for span in trace.spans:
            found = READER.explain(span)
            assert ("span_type" in found) == (span.span_type != SpanType.UNKNOWN)
            for field in ("inputs", "outputs", "model", "input_tokens", "session_id"):
                assert (field in found) == (span.read(field) is not MISSING)
            for origin in found.values():
                assert origin.dialect in known
                assert set(origin.attributes) <= set(span.attributes)
                assert origin.attributes or origin.key in span.attributes or " " in origin.key or "*" in origin.key


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_a_trace_is_what_the_trace_says(name: str) -> None:
    for trace in traces_of(name):
        found = said(trace)
        assert found["inputs"].value == trace.read("inputs")
        assert found["outputs"].value == trace.read("outputs")
        for number, call in enumerate(trace.tool_calls):
            for detail in ("name", "arguments", "result", "call_id"):
                value = found[f"tool_calls.{number}.{detail}"].value
                assert (None if value is MISSING else value) == getattr(call, detail)
        tokens = [
            found[f"llm_calls.{number}.input_tokens"].value
            for number, call in enumerate(trace.llm_calls)
            if call.usage is not None
        ]
        counted = sum(count for count in tokens if isinstance(count, int))
        assert counted == (trace.usage.input_tokens if trace.usage else 0)
        assert sum(field.startswith("evaluations.") for field in found) == len(trace.evaluations)


@pytest.mark.parametrize(
    ("span", "origin"),
    [
        (view("x", CHAT), Origin("otel_genai", "gen_ai.operation.name")),
        (view("agent run", scope="pydantic-ai"), Origin("pydantic_ai", "span name")),
        (view("execute_tool search"), Origin("common", "span name")),
        (view("x", {"gen_ai.tool.name": "search"}), Origin("common", "gen_ai.tool.name")),
        (view("x", {"traceloop.span.kind": "task"}), Origin("traceloop", "traceloop.span.kind")),
        (view("x", {"otel_scorer.span.type": "TOOL", **CHAT}), Origin("otel_scorer", "otel_scorer.span.type")),
        (view("x", {"a": 1}), None),
    ],
)
def test_what_says_the_type_of_a_span_is_named(span: Any, origin: Origin | None) -> None:
    assert READER.explain_type(span) == origin


def test_a_value_that_is_made_of_many_attributes_names_them() -> None:
    span = view(
        "x",
        {
            "openinference.span.kind": "LLM",
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.content": "hi",
        },
    )

    assert READER.explain(span)["inputs"] == Origin(
        "openinference",
        "llm.input_messages.*",
        ("llm.input_messages.0.message.content", "llm.input_messages.0.message.role"),
    )


def test_a_span_event_and_a_log_record_are_told_apart() -> None:
    name = "gen_ai.client.inference.operation.details"
    messages = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
    by_event = view("x", CHAT, events=[event(name, gen_ai__input__messages=messages)])
    by_log = view("x", CHAT)
    by_log.logs = (log(name, gen_ai__input__messages=messages),)

    assert READER.explain(by_event)["inputs"].key == f"event {name}, gen_ai.input.messages"
    assert READER.explain(by_log)["inputs"].key == f"log record {name}, gen_ai.input.messages"


def test_arguments_that_were_joined_name_the_model_call() -> None:
    root = made("agent", {"gen_ai.operation.name": "invoke_agent"})
    chat = made("chat", {**CHAT, "gen_ai.output.messages": answer()}, parent=root)
    tool = made("search", {**TOOL, "gen_ai.tool.call.id": "c1"}, parent=root)
    found = said(trace_of(root, chat, tool))

    arguments, call_id = found["tool_calls.0.arguments"], found["tool_calls.0.call_id"]
    assert arguments.value == {"q": "x"}
    assert arguments.span is not None
    assert (arguments.span.name, arguments.said_in) == ("chat", "chat_outputs")
    assert "joined" in arguments.rule
    assert call_id.span is not None
    assert (call_id.span.name, call_id.said_in) == ("search", "tool_call_id")


def test_inputs_that_the_root_does_not_say_name_the_span_that_does() -> None:
    root = made("app")
    agent = made("agent", {"openinference.span.kind": "AGENT", "input.value": "hi"}, parent=root)
    found = said(trace_of(root, agent))

    assert found["inputs"].span is not None
    assert found["inputs"].span.name == "agent"
    assert "below the root" in found["inputs"].rule
    assert found["outputs"].value is MISSING
    assert found["outputs"].span is None


def test_tokens_that_an_outer_model_span_reports_name_it() -> None:
    outer = made("generation", {**CHAT, "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2})
    inner = made("chat", CHAT, parent=outer)
    found = said(trace_of(outer, inner))["llm_calls.0.input_tokens"]

    assert found.value == 5
    assert found.span is not None
    assert found.span.name == "generation"
    assert "around" in found.rule
