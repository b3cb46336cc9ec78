"""Spans come from strangers: whatever is in their attributes, reading never raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as TracesRequest
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, TraceFlags
from tests.dialects.made import made, trace_of, view

from otel_scorer.dialects import DIALECTS, READER
from otel_scorer.dialects.table import FIELDS, Dialect
from otel_scorer.dialects.values import json_value
from otel_scorer.model.decode import spans_from_request, spans_from_sdk
from otel_scorer.model.trace import LogRecord, Trace
from otel_scorer.testing import make_span

DERIVED = (
    "tool_calls", "llm_calls", "usage", "documents", "raw_documents", "messages", "inputs", "outputs", "session_id",
    "user_id", "model", "tags", "evaluations", "dialects",
)  # fmt: skip
TYPE_KEYS = sorted({rule.key for dialect in DIALECTS for rule in dialect.span_types})
FLATTENED = ("llm.input_messages", "llm.output_messages", "gen_ai.prompt", "gen_ai.completion")
BRANCHES = ("0", "0.message", "0.message.role", "0.message.tool_calls.0.tool_call", "0.content", "1.tool_calls.0")
CONTENT_KEYS = sorted(
    {source.key.removesuffix(".*") for dialect in DIALECTS for sources in dialect.fields.values() for source in sources}
    | {f"{prefix}.{branch}" for prefix in FLATTENED for branch in BRANCHES}
    | {"retrieval.documents.0.document.content", "evaluations.0.evaluation.name", "evaluations.0.evaluation.score"}
    | {"gen_ai.evaluation.name", "gen_ai.evaluation.score.value", "error.type", "langfuse.observation.level"}
    | {"gen_ai.event.content", "gen_ai.evaluation.passed", "exception.type", "prompt", "content", "message"}
)
TYPES = sorted({value for dialect in DIALECTS for rule in dialect.span_types for value in rule.types})
SCOPES = sorted({scope.replace("*", "x") for dialect in DIALECTS for scope in dialect.scopes})
LARGE = 500_000
EVENTS = (
    "gen_ai.choice", "gen_ai.user.message", "gen_ai.tool.message", "gen_ai.client.inference.operation.details",
    "gen_ai.evaluation.result", "gen_ai.evaluation.results", "exception", "gen_ai.content.prompt", "tool.output",
    "gen_ai.client.operation.exception", "codex.user_prompt",
)  # fmt: skip

# What chats, documents and results look like from afar: the keys that decoders look for, with anything in them.
SHAPES = (
    "role", "content", "parts", "type", "message", "messages", "tool_calls", "function", "arguments", "kwargs", "args",
    "data", "id", "text", "toolUse", "toolResult", "choices", "generations", "output", "outputs", "inputs", "input",
    "documents", "name", "input_str", "gen_ai.evaluations", "event.name", "value", "result", "metadata",
    "toolRequest", "toolResponse", "ref", "usage", "inputTokens", "score", "label", "explanation", "config", "system",
)  # fmt: skip
SHAPED = st.dictionaries(st.sampled_from(SHAPES), st.deferred(lambda: JSON), max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.integers(2**64, 2**90) | st.floats() | st.text(max_size=20)
JSON: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        SCALARS
        | st.sampled_from(["tool_call", "user", "tool", "text", "gen_ai.choice"])
        | st.lists(JSON, max_size=3)
        | SHAPED
    )
)
TEXTS = (
    JSON.map(json.dumps)
    | JSON.map(json.dumps).map(json.dumps)
    | JSON.map(repr)
    | JSON.map(json.dumps).map(lambda text: text[: len(text) // 2])
    | st.text()
)
# Python can hold what UTF-8 cannot.
SURROGATES = st.sampled_from(["\ud800", '"\ud800"', '{"a": "\ud800"}', "['\ud800']", '[{"role": "\udfff"}]'])
VALUES = TEXTS | JSON | st.binary(max_size=20)
SCALARS_OF_OTLP = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.binary(max_size=20)
ATTRIBUTES = st.dictionaries(st.sampled_from(CONTENT_KEYS), VALUES, max_size=8)


def read_everything(trace: Trace) -> None:
    for span in trace.spans:
        assert isinstance(span.span_type, str)
        for field in FIELDS:
            span.read(field)
        READER.explain(span)
    for field in DERIVED:
        READER.derive(trace, field)
    trace.to_json()


@st.composite
def spans(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.dictionaries(st.sampled_from(TYPE_KEYS), st.sampled_from(TYPES) | VALUES, max_size=2))
    events = draw(st.lists(st.tuples(st.sampled_from(EVENTS), ATTRIBUTES), max_size=2))
    return made(
        draw(st.sampled_from(["chat", "execute_tool x", "tools/call y", "running tool", ""])),
        {**draw(ATTRIBUTES), **kind},
        scope=draw(st.sampled_from(SCOPES)),
        events=[{"name": name, "timestamp": 1, "attributes": attributes} for name, attributes in events],
        logs=[
            {
                "event_name": draw(st.sampled_from(EVENTS)),
                "timestamp": 1,
                "body": draw(VALUES),
                "attributes": draw(ATTRIBUTES),
            }
        ],
    )


@given(st.lists(spans(), min_size=1, max_size=4), st.data())
def test_arbitrary_values_of_spans_never_raise_whoever_is_whose_parent(
    made_spans: list[dict[str, Any]], data: st.DataObject
) -> None:
    # Cycles, self-parents and missing parents included.
    parents = st.sampled_from([None, "ffffffffffffffff", *(span["span_id"] for span in made_spans)])
    for span in made_spans:
        span["parent_id"] = data.draw(parents)

    read_everything(trace_of(*made_spans))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@given(data=st.data())
@settings(max_examples=20)
def test_whatever_a_dialect_finds_in_its_attributes_never_raises(dialect: Dialect, data: st.DataObject) -> None:
    keys = {"gen_ai.operation.name", "openinference.span.kind", "input.value", "gen_ai.output.messages"}
    keys |= {source.key.removesuffix(".*") for sources in dialect.fields.values() for source in sources}
    keys |= {*dialect.keys, *dialect.values, *(rule.key for rule in dialect.span_types)}
    types = [value for rule in dialect.span_types for value in rule.types] or ["chat", "execute_tool"]
    values = st.sampled_from(types) | TEXTS | SCALARS_OF_OTLP
    span = make_span(attributes=data.draw(st.dictionaries(st.sampled_from(sorted(keys)), values, max_size=8)))
    scopes = [scope.replace("*", "x") for scope in dialect.scopes] or ["app"]
    request = TracesRequest()
    scoped = request.resource_spans.add().scope_spans.add(spans=[span])
    scoped.scope.name = data.draw(st.sampled_from(scopes))

    read_everything(Trace(spans_from_request(request.SerializeToString()), READER))


SDK_ATTRIBUTES = st.dictionaries(st.sampled_from(CONTENT_KEYS), VALUES | SURROGATES, max_size=8)


@given(SDK_ATTRIBUTES, st.sampled_from(TYPE_KEYS), st.sampled_from(TYPES), st.sampled_from(EVENTS), SDK_ATTRIBUTES)
def test_arbitrary_values_of_sdk_spans_never_raise(
    attributes: dict[str, Any], key: str, kind: str, event: str, event_attributes: dict[str, Any]
) -> None:
    readable = ReadableSpan(
        "execute_tool x",
        context=SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)),
        attributes={**attributes, key: kind},
        events=[Event(event, event_attributes)],
        start_time=1,
        end_time=2,
        instrumentation_scope=InstrumentationScope("app"),
    )
    [span] = spans_from_sdk([readable])
    span.logs = (LogRecord(event, event_attributes, event_attributes),)

    read_everything(Trace([span], READER))


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        "[" * 100_000,
        '{"message":' * 900 + "1" + "}" * 900,
        '{"content":[' * 400 + "1" + "]}" * 400,
        "[" * 90 + "]" * 90,
        "(" * 5_000,
        "{'a': " * 5_000,
        "[" + "-" * 50_000 + "1]",
        "[" + "9" * 50_000 + "]",
        "[1" + "+1" * 20_000 + "]",
        '{"a": "\\ud800"}',
        "['\\ud800']",
        "['\\x']",
        "[b'x', 1j, ...]",
        "{1: {2}, 'x': {}}",
        '"' + "x" * 1_000_000,
        '{"role": "user", "content": "' + "x" * 1_000_000 + '"}',
        "null",
        "NaN",
        "[NaN, Infinity]",
        "\x00",
    ],
    ids=range(21),
)
@pytest.mark.parametrize("kind", ["TOOL", "LLM", "RETRIEVER"])
def test_bombs_do_not_go_off(text: str, kind: str) -> None:
    keys = CONTENT_KEYS if len(text) < LARGE else ("input.value", "output.value", "gen_ai.input.messages")
    attributes = {key: text for key in keys if " " not in key}
    attributes["openinference.span.kind"] = kind
    attributes["input.mime_type"] = attributes["output.mime_type"] = "application/json"

    read_everything(trace_of(made("x", attributes)))


@pytest.mark.parametrize("text", ['"\ud800"', '{"a": "\ud800"}', '"\\ud800"'])
def test_json_with_lone_surrogates_is_read(text: str) -> None:
    assert json_value(text) == json.loads(text)


@pytest.mark.parametrize("text", ["{broken", "{" * 100_000, "['a', ", "not JSON"])
def test_what_cannot_be_decoded_is_returned_as_it_is(text: str) -> None:
    span = view("x", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": text})

    assert span.inputs == text


def test_a_flattened_tree_that_contradicts_itself_or_is_absurd_is_read_as_far_as_it_makes_sense() -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.input_messages.0.message": "a leaf where a branch is",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "hello",
        "llm.input_messages.99999999999999999999.message.content": "far out",
        "llm.input_messages.x.message.content": "no number",
        "llm.input_messages." + "0." * 10_000 + "message": "deep",
    }

    assert [message.content for message in view("x", attributes).read("chat_inputs")] == ["hello", "far out"]
