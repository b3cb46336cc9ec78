from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.scorers.text import text_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)

ANSWERS = [
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "later"}],
    [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
    {"role": "assistant", "content": "a"},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    {"messages": [{"type": "human", "content": "q"}, {"type": "ai", "content": "a"}]},
    {"messages": [{"type": "ai", "data": {"content": "a", "type": "ai"}}]},
    {"messages": [{"lc": 1, "type": "constructor", "kwargs": {"type": "ai", "content": "a"}}]},
    {"messages": [[{"id": ["langchain", "AIMessage"], "kwargs": {"type": "ai", "content": "a"}}]]},
    {"generations": [[{"text": "a", "message": {"kwargs": {"type": "ai", "content": "a"}}}]]},
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}]},
    {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]},
    {"candidates": [{"content": {"role": "model", "parts": [{"text": "a"}]}}]},
    [{"role": "assistant", "parts": [{"type": "text", "content": "a"}], "finish_reason": "stop"}],
    [{"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "a"}]}],
    [{"role": "assistant", "content": [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "a"}]}],
    [{"role": "assistant", "content": [{"text": "a"}, {"toolUse": {"name": "t"}}]}],
    [{"message": {"role": "assistant", "content": "a"}}],
    [{"message.role": "assistant", "message.content": "a"}],
    [
        {
            "message": {
                "role": "assistant",
                "contents": [{"message_content": {"type": "text", "text": "a"}}],
            }
        }
    ],
    [{"role": "assistant", "content": [{"type": "refusal", "refusal": "a"}]}],
    [{"role": "ASSISTANT", "content": "a"}],
]


@pytest.mark.parametrize("outputs", ANSWERS, ids=lambda outputs: json.dumps(outputs)[:60])
def test_the_answer_is_found_whichever_client_wrote_it_down(outputs: object) -> None:
    assert text_of(outputs, "outputs") == "a"


def test_several_parts_are_lines() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}

    assert text_of(message, "inputs") == "one\ntwo"


@pytest.mark.parametrize(
    "value",
    [
        {"output": "Paris"},
        {"role": "admin", "name": "Ann"},
        [{"role": "user", "content": "q"}],
        [{"role": "assistant", "content": None}],
        {"messages": []},
        [],
        7,
        None,
    ],
)
def test_anything_else_is_compact_json(value: object) -> None:
    assert text_of(value, "outputs") == json.dumps(value, separators=(",", ":"))


def test_objects_that_json_does_not_know_are_written_as_text() -> None:
    assert text_of({"a": 1 + 2j}, "outputs") == '{"a":"(1+2j)"}'


def test_a_structure_that_contains_itself_is_survived() -> None:
    endless: list[object] = []
    endless.append(endless)

    assert text_of(endless, "outputs") == "[[...]]"


@given(JSON)
def test_every_value_has_a_text(value: object) -> None:
    for side in ("inputs", "outputs", "expectations"):
        text = text_of(value, side)

        assert isinstance(text, str)
        if isinstance(value, str):
            assert text == value
