"""What a user adds to the vocabularies: keys, rules, and patterns that cannot hold anything up."""

from __future__ import annotations

from typing import Any

import pytest
from tests.dialects.made import made, view

from otel_scorer.config import load_teaching, taught_reader
from otel_scorer.dialects import DIALECTS, READER, Dialect, attributes, make_reader
from otel_scorer.dialects.patterns import LinearPattern
from otel_scorer.dialects.table import FIELDS
from otel_scorer.dialects.teaching import TEACHABLE, SpanTypeRule, Teaching
from otel_scorer.dialects.witness import Origin
from otel_scorer.errors import ConfigError
from otel_scorer.model.trace import Span, Trace


def taught(span: dict[str, Any], **dialects: Any) -> Span:
    reader = taught_reader(dialects)
    [found] = Trace.from_dict({"info": {}, "data": {"spans": [span]}}, reader).spans
    return found


def test_taught_keys_count_before_what_a_vocabulary_says() -> None:
    span = made("x", {"openinference.span.kind": "LLM", "input.value": "theirs", "my.prompt": "mine"})

    found = taught(span, attributes={"inputs": ["my.other", "my.prompt"]})

    assert found.inputs == "mine"
    assert found.span_type == "LLM"
    assert found.read("dialects") == ("configuration", "openinference")
    assert taught(made("x", {"input.value": "theirs"}), attributes={"inputs": ["my.prompt"]}).inputs == "theirs"


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("inputs", '{"a": 1}', {"a": 1}),
        ("inputs", "42", "42"),
        ("outputs", "[1]", [1]),
        ("system_instructions", "be kind", "be kind"),
        ("documents", '{"results": [{"content": "x"}]}', [{"content": "x"}]),
        ("input_tokens", "12", 12),
        ("tags", "a, b", ["a", "b"]),
        ("session_id", 7, "7"),
    ],
)
def test_taught_values_are_decoded_as_what_they_are(field: str, value: Any, meant: object) -> None:
    found = taught(made("x", {"k": value}), attributes={field: ["k"]})

    assert found.read(TEACHABLE[field]) == meant


def test_a_key_that_ends_in_a_star_stands_for_all_below() -> None:
    span = made("x", {"my.messages.0.role": "user", "my.messages.0.content": "hi"})

    found = taught(span, attributes={"inputs": ["my.messages.*"]})

    assert found.inputs == [{"role": "user", "content": "hi"}]
    assert [message.content for message in found.read("chat_inputs")] == ["hi"]


def test_inputs_of_a_tool_span_are_its_arguments_and_outputs_its_result() -> None:
    span = made("x", {"gen_ai.operation.name": "execute_tool", "my.in": '{"a": 1}', "my.out": "done"})

    found = taught(span, attributes={"inputs": ["my.in"], "outputs": ["my.out"]})

    assert (found.read("tool_args"), found.read("tool_result")) == ({"a": 1}, "done")


@pytest.mark.parametrize(
    ("rule", "span", "span_type"),
    [
        ({"name": "^tool_.*", "type": "tool"}, made("tool_x"), "TOOL"),
        ({"name": "^tool_.*", "type": "TOOL"}, made("a_tool_x"), "UNKNOWN"),
        ({"attribute": "k", "type": "AGENT"}, made("x", {"k": 0}), "AGENT"),
        ({"attribute": "k", "equals": "x", "type": "AGENT"}, made("x", {"k": "x"}), "AGENT"),
        ({"attribute": "k", "equals": 1, "type": "AGENT"}, made("x", {"k": 1}), "AGENT"),
        ({"attribute": "k", "equals": True, "type": "AGENT"}, made("x", {"k": True}), "AGENT"),
        ({"attribute": "k", "equals": True, "type": "AGENT"}, made("x", {"k": 1}), "UNKNOWN"),
        ({"attribute": "k", "matches": "^a|b$", "type": "AGENT"}, made("x", {"k": "xb"}), "AGENT"),
        ({"attribute": "k", "matches": "1", "type": "AGENT"}, made("x", {"k": 1}), "UNKNOWN"),
        ({"scope": "my.*", "type": "CHAIN"}, made("x", scope="my.app"), "CHAIN"),
        ({"scope": "my.app", "name": "^y$", "type": "CHAIN"}, made("x", scope="my.app"), "UNKNOWN"),
        ({"name": "x", "type": "TASK"}, made("x", {"openinference.span.kind": "LLM"}), "TASK"),
        ({"name": "x", "type": "UNKNOWN"}, made("x", {"openinference.span.kind": "LLM"}), "UNKNOWN"),
        ({"name": "x", "type": "TASK"}, made("x", {"otel_scorer.span.type": "TOOL"}), "TOOL"),
    ],
)
def test_rules_say_what_spans_are(rule: dict[str, Any], span: dict[str, Any], span_type: str) -> None:
    assert taught(span, span_types=[rule]).span_type == span_type


def test_the_first_rule_that_holds_counts_and_is_named() -> None:
    rules = [{"name": "a", "type": "TOOL"}, {"name": "ab", "type": "AGENT"}, {"attribute": "k", "type": "LLM"}]
    reader = taught_reader({"span_types": rules})
    [span] = Trace.from_dict({"info": {}, "data": {"spans": [made("ab", {"k": 1})]}}, reader).spans

    assert span.span_type == "TOOL"
    assert reader.explain_type(span) == Origin("configuration", "span_types: name matches 'a'")


@pytest.mark.parametrize("text", ["a" * 1_000_000 + "b", "\ud800" * 1000, ""])
def test_no_pattern_can_hold_a_process_up(text: str) -> None:
    # With backtracking this takes longer than the universe has existed.
    assert not LinearPattern(r"^(a+)+$").search(text)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", "unclosed group"),
        (r"(a)\1", "backreferences are not supported"),
        ("(?=a)", "look-around"),
        ("(a{1000}){1000}", "exceeds size limit"),
        ("a" * 1001, "longer than 1,000 characters"),
    ],
)
def test_patterns_that_cannot_be_used_are_refused_with_a_reason(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_teaching({"span_types": [{"name": pattern, "type": "TOOL"}]})


@pytest.mark.parametrize(
    ("dialects", "said"),
    [
        ({"atributes": {}}, "unknown key dialects.atributes; did you mean dialects.attributes?"),
        ({"attributes": {"input": ["x"]}}, "unknown key dialects.attributes.input; did you mean .*attributes.inputs?"),
        ({"attributes": {"tool_args": ["x"]}}, "did you mean dialects.attributes.tool_"),
        ({"attributes": {"inputs": [1]}}, "dialects.attributes.inputs.0: must be a valid string, got 1"),
        ({"attributes": {"inputs": [""]}}, "dialects.attributes.inputs.0"),
        ({"span_types": [{"nam": "x", "type": "TOOL"}]}, "unknown key dialects.span_types.0.nam; did you mean .*name?"),
        ({"span_types": [{"name": "x", "type": "TOOLS"}]}, "must be one of AGENT, CHAIN, .*, got 'TOOLS'"),
        ({"span_types": [{"type": "TOOL"}]}, "needs a condition"),
        ({"span_types": [{"equals": 1, "name": "x", "type": "TOOL"}]}, "need an attribute"),
        ({"span_types": [{"name": "x"}]}, "dialects.span_types.0.type: is missing"),
        ([], "dialects: must be a mapping"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_says_where(dialects: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_teaching(dialects)


def test_a_file_is_read_for_its_dialects_only(tmp_path: Any) -> None:
    path = tmp_path / "sidecar.yaml"
    # Nobody may send to itself, and a variable is missing: neither matters to somebody who reads a file of traces.
    path.write_text(
        "receivers: {otlp: {protocols: {http: {endpoint: 127.0.0.1:4318}}}}\n"
        "exporters: {otlp: {endpoint: 'http://127.0.0.1:4318', headers: {key: '${env:MISSING}'}}}\n"
        "dialects:\n  attributes: {inputs: '${env:KEY}'}\n  span_types:\n    - {nam: x, name: x, type: TOOL}\n",
        encoding="utf-8",
    )

    with pytest.raises(ConfigError, match=r"sidecar.yaml, line 6: unknown key dialects.span_types.0.nam"):
        load_teaching(path, environ={"KEY": "my.key"})

    path.write_text("dialects: {attributes: {inputs: '${env:KEY}'}}\n", encoding="utf-8")
    assert load_teaching(path, environ={"KEY": "my.key"}).attributes == {"inputs": ["my.key"]}
    path.write_text("dialect: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="unknown key dialect; did you mean dialects"):
        load_teaching(path, environ={})


def test_a_dialect_can_be_disabled_and_a_wrong_name_is_an_error() -> None:
    span = made("x", {"openinference.span.kind": "TOOL", "input.value": "hi"})

    assert taught(span, disabled=["openinference"]).span_type == "UNKNOWN"
    with pytest.raises(ConfigError, match="there is no dialect 'open_inference'; did you mean openinference"):
        taught(span, disabled=["open_inference"])


def test_teaching_survives_the_way_to_a_worker() -> None:
    teaching = Teaching({"inputs": ["a"]}, (SpanTypeRule("TOOL", name="x", equals="1", attribute="k"),), ("mlflow",))

    assert Teaching.from_dict(teaching.to_dict()).to_dict() == teaching.to_dict()
    assert Teaching.from_dict(teaching.to_dict()).span_types == teaching.span_types


def test_every_field_of_the_table_can_be_taught() -> None:
    everything = {name: ["k"] for name in TEACHABLE}

    assert set(TEACHABLE.values()) == set(FIELDS) - {"chat_inputs", "chat_outputs"}
    assert load_teaching({"attributes": everything}).attributes == everything


def test_who_teaches_nothing_pays_nothing() -> None:
    assert make_reader() is READER
    assert make_reader(Teaching()) is READER


def test_the_table_of_dialects_can_be_disabled_but_for_the_users_own_word() -> None:
    everybody = tuple(dialect.name for dialect in DIALECTS[1:])
    reader = make_reader(Teaching(disabled=everybody))
    assert [dialect.name for dialect in reader.dialects] == ["otel_scorer"]
    assert view("x", {"otel_scorer.span.type": "TOOL"}).span_type == "TOOL"


def test_a_dialect_is_made_of_public_parts() -> None:
    assert Dialect(name="mine", keys=("k",), fields={"inputs": attributes("k")}).speaks("x") is False


def test_what_was_taught_is_not_called_unread() -> None:
    teaching = Teaching(
        {"inputs": ["my.prompt"], "outputs": ["my.said.*"], "session_id": ["my.session"]},
        (SpanTypeRule("AGENT", attribute="my.kind", equals="planner"),),
    )
    reader = make_reader(teaching)
    mine = {"my.prompt": "a", "my.said.0.role": "user", "my.session": "s", "my.kind": "other", "my.count": 1}
    trace = Trace.from_dict({"info": {}, "data": {"spans": [made("x", mine)]}}, reader)

    assert reader.unread(trace.spans[0]) == ["my.count"]
    assert {"my.prompt", "my.said.*", "my.session", "my.kind"} <= reader.vocabulary()
