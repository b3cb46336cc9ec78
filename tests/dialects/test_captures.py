"""Every capture says what `expected.yaml` says, in every field."""

from __future__ import annotations

from typing import Any

import pytest
from tests.dialects.captured import CAPTURES, agrees, expectations, traces_of

from otel_scorer.model.trace import MISSING, Span, Trace

NAMES = sorted(expectations()["captures"].keys() & {path.stem for path in CAPTURES.glob("*.json")})
LLM = {"LLM", "CHAT_MODEL"}


def cases() -> list[Any]:
    return [
        pytest.param((name, index), id=f"{name}-{index}")
        for name in NAMES
        for index in range(len(expectations()["captures"][name]["traces"]))
    ]


@pytest.fixture(params=cases())
def case(request: pytest.FixtureRequest) -> tuple[Trace, dict[str, Any]]:
    name, index = request.param
    found = traces_of(name)
    wanted = expectations()["captures"][name]["traces"]
    assert len(found) == len(wanted)
    return found[index], wanted[index]


def in_order(trace: Trace) -> list[Span]:
    return [span for span, _ in trace.tree.walk()]


def test_names_and_types_of_all_spans(case: tuple[Trace, dict[str, Any]]) -> None:
    trace, wanted = case

    assert trace.root is not None
    assert trace.root.name == wanted["root"]
    for span, (name, kind) in zip(in_order(trace), wanted["spans"], strict=True):
        assert span.name == name
        assert span.span_type == kind or {span.span_type, kind} == LLM


@pytest.mark.parametrize("field", ["root_inputs", "root_outputs", "derived_inputs", "derived_outputs"])
def test_inputs_and_outputs(case: tuple[Trace, dict[str, Any]], field: str) -> None:
    trace, wanted = case
    origin, side = field.split("_")
    assert trace.root is not None

    value = getattr(trace.root if origin == "root" else trace, side)

    if field in wanted:
        assert agrees(value, wanted[field]), value


def test_tool_calls(case: tuple[Trace, dict[str, Any]]) -> None:
    trace, wanted = case

    calls = trace.tool_calls

    for call, tool in zip(calls, wanted["tools"], strict=True):
        assert call.name == tool["name"]
        assert call.failed == tool["failed"]
        for key, value in (("args", call.arguments), ("result", call.result), ("call_id", call.call_id)):
            if key in tool:
                assert agrees(value, tool[key]), (key, value)
        if "args_from" in tool:
            own = call.span.read("tool_args")
            assert (own is not MISSING) == (tool["args_from"] == "span")
    assert sum(call.failed for call in calls) == wanted["failed_tools"]


def test_model_calls_and_usage(case: tuple[Trace, dict[str, Any]]) -> None:
    trace, wanted = case

    usage = trace.usage

    assert len(trace.llm_calls) == wanted["llm_calls"]
    assert (None if usage is None else [usage.input_tokens, usage.output_tokens]) == wanted["tokens"]
    if "model" in wanted:
        assert trace.model == wanted["model"]


def test_failures(case: tuple[Trace, dict[str, Any]]) -> None:
    trace, wanted = case

    assert sum(span.failed for span in trace.spans) == wanted["failed_spans"]
    assert trace.root is not None
    assert trace.root.failed == wanted["root_failed"]


def test_session_user_tags_and_documents(case: tuple[Trace, dict[str, Any]]) -> None:
    trace, wanted = case
    seen = {
        "session": trace.session_id,
        "user": trace.user_id,
        "tags": trace.tags,
        "documents": trace.reader.derive(trace, "raw_documents"),
    }

    for key, value in seen.items():
        if key in wanted:
            assert agrees(value, wanted[key]), (key, value)


@pytest.mark.parametrize(
    "name", sorted(expectations()["evaluations"].keys() & {path.stem for path in CAPTURES.glob("*.json")})
)
def test_evaluations(name: str) -> None:
    wanted = expectations()["evaluations"][name]["results"]

    found = [result for trace in traces_of(name) for result in trace.evaluations]

    for result, expected in zip(found, wanted, strict=True):
        assert result.name == expected["name"]
        assert result.value == expected.get("score")
        assert result.label == expected.get("label")
        assert result.explanation == expected.get("explanation")
        assert result.error_type == expected.get("error_type")
