"""What a trace says does not hang on names, ids, texts, versions, or the order of arrival."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dialects.captured import CAPTURES, Request, build, expectations, requests_of

from otel_scorer.model.trace import Trace

NAMES = sorted(expectations()["captures"].keys() & {path.stem for path in CAPTURES.glob("*.json")})

WORD = st.from_regex(r"[a-z]{4,12}_[a-z]{4,12}", fullmatch=True)
# Begins like no word that means something to somebody, such as a role.
NAME = st.from_regex(r"Q[a-z]{3,8}", fullmatch=True)
# No quotes and backslashes: the texts also stand in JSON in JSON, and in Python reprs.
SENTENCE = st.text("abcdefghijklmnop ÄÖé漢字", min_size=5, max_size=40).filter(lambda text: text.strip() == text)


@st.composite
def renamings(draw: st.DrawFn) -> dict[str, str]:
    tools = draw(st.lists(WORD, min_size=2, max_size=2, unique=True))
    texts = draw(st.lists(SENTENCE, min_size=3, max_size=3, unique=True))
    return {
        "get_weather": tools[0],
        "convert_currency": tools[1],
        "What is the weather in Paris, and how much is 100 EUR in XYZ?": texts[0],
        "It is 18 C in Paris. I could not convert the amount.": texts[1],
        "18 C and sunny in Paris": texts[2],
        "travel_agent": draw(WORD),
        "call_fake_": draw(WORD) + "-",
        "gpt-4o-mini": draw(WORD),
        "Paris": draw(NAME),
        "XYZ": draw(NAME),
        "sess-1": draw(WORD),
        "user-1": draw(WORD),
    }


def renamed(value: Any, names: dict[str, str]) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    for old, new in names.items():
        text = text.replace(old, new)
    return json.loads(text)


def scopes_of(requests: list[Request]) -> list[Any]:
    return [
        scope
        for request in requests
        for resource in request["body"].get("resourceSpans", ())
        for scope in resource["scopeSpans"]
    ]


def reordered(requests: list[Request], draw: st.DataObject) -> list[Request]:
    """Return the same spans and log records in another order, other scope versions and service names."""
    out = copy.deepcopy(requests)
    for scope in scopes_of(out):
        scope["spans"] = draw.draw(st.permutations(scope["spans"]))
        scope.setdefault("scope", {})["version"] = draw.draw(st.sampled_from(["0.0.1", "99.1", ""]))
    for request in out:
        for resource in request["body"].get("resourceSpans", ()):
            resource["resource"] = {
                "attributes": [
                    {**attribute, "value": {"stringValue": "another-service"}}
                    if attribute["key"] == "service.name"
                    else attribute
                    for attribute in resource["resource"].get("attributes", ())
                ]
            }
    return draw.draw(st.permutations(out))


def with_other_ids(requests: list[Request], offset: int) -> list[Request]:
    """Return the same requests with other trace and span ids; ids keep their order, which breaks ties of time."""
    out = copy.deepcopy(requests)
    found = {span["spanId"] for scope in scopes_of(out) for span in scope["spans"]}
    names = {old: f"{offset + index:016x}" for index, old in enumerate(sorted(found))}
    traces = {span["traceId"] for scope in scopes_of(out) for span in scope["spans"]}
    names |= {old: f"{offset + index:032x}" for index, old in enumerate(sorted(traces))}
    return list(renamed(out, names))


def facts(trace: Trace) -> dict[str, Any]:
    usage = trace.usage
    return {
        "spans": [(span.name, span.span_type, span.failed, span.inputs, span.outputs) for span, _ in trace.tree.walk()],
        "tools": [[call.name, call.arguments, call.result, call.failed, call.call_id] for call in trace.tool_calls],
        "calls": [[call.model, call.failed] for call in trace.llm_calls],
        "usage": None if usage is None else [usage.input_tokens, usage.output_tokens, usage.total_tokens],
        "session": trace.session_id,
        "model": trace.model,
        "dialects": trace.dialects,
        "inputs": trace.inputs,
        "outputs": trace.outputs,
        "user": trace.user_id,
        "tags": trace.tags,
        "messages": [
            [message.role, message.content, [dict(call) for call in message.tool_calls], message.tool_call_id]
            for message in trace.messages
        ],
        "documents": [[document.content, document.id, document.score] for document in trace.retrieved_documents],
        "evaluations": [[each.name, each.value, each.label, each.error_type] for each in trace.evaluations],
    }


def all_facts(requests: list[Request]) -> list[Any]:
    plain: list[Any] = json.loads(json.dumps([facts(trace) for trace in build(requests)], ensure_ascii=False))
    return plain


@pytest.mark.parametrize("name", NAMES)
@given(names=renamings(), data=st.data())
@settings(max_examples=5)
def test_renamed_and_reordered_traces_say_the_same_with_other_names(
    name: str, names: dict[str, str], data: st.DataObject
) -> None:
    requests = requests_of(name)

    changed = reordered(with_other_ids(renamed(requests, names), data.draw(st.integers(1, 2**40))), data)

    assert all_facts(changed) == renamed(all_facts(requests), names)
