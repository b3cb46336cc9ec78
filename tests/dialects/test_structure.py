"""The rules that hold for a trace as a whole."""

from __future__ import annotations

import gc
import weakref
from itertools import permutations
from typing import Any

import pytest
from tests.dialects.made import made, trace_of

from otel_scorer.dialects import READER
from otel_scorer.dialects.tool_calls import find_tool_calls
from otel_scorer.model.trace import MISSING, Document, LogRecord, Message, Span, Trace, Usage


def llm(tokens: tuple[int, int] | None = None, **facts: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {"openinference.span.kind": "LLM"}
    if tokens is not None:
        attributes |= {"llm.token_count.prompt": tokens[0], "llm.token_count.completion": tokens[1]}
    return made("llm", attributes | facts.pop("attributes", {}), **facts)


def tool(name: str, *, attributes: dict[str, Any] | None = None, **facts: Any) -> dict[str, Any]:
    return made(name, {"openinference.span.kind": "TOOL", "tool.name": name, **(attributes or {})}, **facts)


def asking(*calls: tuple[str | None, str, str]) -> dict[str, Any]:
    """Return the attributes of a model's answer that calls tools: id, name, arguments."""
    prefix = "llm.output_messages.0.message"
    attributes: dict[str, Any] = {f"{prefix}.role": "assistant"}
    for index, (call_id, name, arguments) in enumerate(calls):
        at = f"{prefix}.tool_calls.{index}.tool_call"
        attributes |= {f"{at}.function.name": name, f"{at}.function.arguments": arguments}
        if call_id is not None:
            attributes[f"{at}.id"] = call_id
    return attributes


def kind(name: str, **attributes: Any) -> dict[str, Any]:
    return {"openinference.span.kind": name, **{key.replace("__", "."): value for key, value in attributes.items()}}


def test_of_nested_model_spans_only_the_innermost_is_a_call_and_its_tokens_count_once() -> None:
    outer = llm((100, 20))
    inner = llm((60, 20), parent=outer)

    trace = trace_of(outer, inner)

    assert [call.span.span_id for call in trace.llm_calls] == [inner["span_id"]]
    assert trace.usage == Usage(60, 20, 80)


def test_a_model_span_above_tools_is_a_call() -> None:
    call = llm((100, 20))

    assert len(trace_of(call, tool("get", parent=call)).llm_calls) == 1


def test_a_call_without_tokens_takes_those_of_the_model_span_above() -> None:
    outer = llm((100, 20))
    inner = llm(parent=outer)
    other = llm((1, 2))

    trace = trace_of(outer, inner, other)

    assert len(trace.llm_calls) == 2
    assert trace.usage == Usage(101, 22, 123)


def test_tokens_of_one_model_span_above_two_calls_count_once() -> None:
    outer = llm((100, 20))

    trace = trace_of(outer, llm(parent=outer, status="ERROR"), llm(parent=outer, status="ERROR"))

    assert len(trace.llm_calls) == 2
    assert trace.usage == Usage(100, 20, 120)


def test_messages_are_in_the_order_of_their_numbers() -> None:
    asked = {
        f"llm.input_messages.{index}.message.{key}": value
        for index in range(12)
        for key, value in (("role", "user"), ("content", str(index)))
    }

    trace = trace_of(llm(attributes=asked))

    assert [message.content for message in trace.messages] == [str(index) for index in range(12)]


def test_tokens_of_a_model_span_above_are_not_counted_beside_those_below() -> None:
    outer = llm((100, 20))
    helper = llm(parent=outer)
    real = llm((100, 20), parent=outer)

    trace = trace_of(outer, helper, real)

    assert [call.span.span_id for call in trace.llm_calls] == [real["span_id"]]
    assert trace.usage == Usage(100, 20, 120)


def test_a_failed_call_counts_although_it_reports_no_tokens() -> None:
    trace = trace_of(llm((100, 20)), llm(status="ERROR"))

    assert [call.failed for call in trace.llm_calls] == [False, True]


def test_without_any_tokens_every_call_counts_and_usage_is_unknown() -> None:
    trace = trace_of(llm(), llm())

    assert len(trace.llm_calls) == 2
    assert trace.usage is None


def test_tokens_of_agents_and_embeddings_are_never_added() -> None:
    counts = {"llm__token_count__prompt": 500, "llm__token_count__completion": 50}
    agent = made("agent", kind("AGENT", **counts))

    trace = trace_of(agent, made("embed", kind("EMBEDDING", **counts), parent=agent), llm((100, 20), parent=agent))

    assert trace.usage == Usage(100, 20, 120)


def test_nested_spans_of_one_tool_are_one_call_that_knows_what_any_of_them_knows() -> None:
    client = tool("get_weather", status="ERROR")
    http = made("POST", parent=client)
    server = tool("get_weather", attributes={"input.value": '{"city": "Paris"}', "output.value": "18 C"}, parent=http)

    [call] = trace_of(client, http, server).tool_calls

    assert (call.arguments, call.result, call.failed) == ({"city": "Paris"}, "18 C", True)
    assert call.span.span_id == client["span_id"]


@pytest.mark.parametrize("part", ["TOOL", "LLM", "RETRIEVER"])
def test_a_part_whose_parent_is_missing_is_not_taken_for_the_application(part: str) -> None:
    gone = made("app")
    first = made("first", kind(part, input__value="part in", output__value="part out"), parent=gone)
    asked = {"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "question"}
    said = {"llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "answer"}
    call = llm(attributes=asked | said, parent=gone)
    agent = made("agent", kind("AGENT", input__value="agent in", output__value="agent out"), parent=gone)

    # Where nobody says more, what stands for the root is the root.
    assert (trace_of(first).inputs, trace_of(first).outputs) == ("part in", "part out")
    if part != "LLM":
        assert (trace_of(first, call).inputs, trace_of(first, call).outputs) == ("question", "answer")
    assert (trace_of(first, call, agent).inputs, trace_of(first, call, agent).outputs) == ("agent in", "agent out")


def test_the_first_span_of_a_process_is_the_application_there_whatever_it_is() -> None:
    gone = made("app")
    served = made("serve", kind("TOOL", input__value="in", output__value="out"), parent=gone, is_local_root=True)

    assert (trace_of(served).inputs, trace_of(served).outputs) == ("in", "out")
    assert trace_of(made("root", kind("TOOL", input__value="in"))).inputs == "in"


def test_a_function_whose_parent_is_missing_may_be_the_application() -> None:
    gone = made("app")
    handler = made("handle", {"input.value": "in", "output.value": "out"}, parent=gone)

    assert (trace_of(handler).inputs, trace_of(handler).outputs) == ("in", "out")


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt": 5}, Usage(5, None, 5)),
        ({"completion": 7}, Usage(None, 7, 7)),
        ({"total": 9}, Usage(None, None, 9)),
        ({"prompt": 0, "completion": 0}, Usage(0, 0, 0)),
        ({"prompt": 5, "completion": 7, "total": 20}, Usage(5, 7, 20)),
    ],
)
def test_a_count_that_nobody_reported_is_absent_and_not_0(counts: dict[str, int], usage: Usage) -> None:
    trace = trace_of(llm(attributes={f"llm.token_count.{name}": count for name, count in counts.items()}))

    assert trace.usage == usage
    assert trace.info.token_usage == {
        name: count
        for name, count in (
            ("input_tokens", usage.input_tokens),
            ("output_tokens", usage.output_tokens),
            ("total_tokens", usage.total_tokens),
        )
        if count is not None
    }


def test_of_several_calls_the_counts_that_are_known_are_added() -> None:
    cut = llm(attributes={"llm.token_count.prompt": 5})

    assert trace_of(cut, llm((100, 20))).usage == Usage(105, 20, 125)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_call_failed_if_any_of_its_nested_spans_did(failing: int) -> None:
    """An MCP client's span ends well when the server answers; that the answer is an error, only the server's says."""
    spans: list[dict[str, Any]] = []
    for index in range(3):
        status = "ERROR" if index == failing else "UNSET"
        spans.append(tool("get", parent=spans[-1] if spans else None, status=status))

    [call] = trace_of(*spans).tool_calls

    assert call.failed
    assert [span.span_id for span in call.spans] == [span["span_id"] for span in spans]


def test_a_tool_that_calls_another_tool_makes_two_calls() -> None:
    outer = tool("plan")

    assert [call.name for call in trace_of(outer, tool("search", parent=outer)).tool_calls] == ["plan", "search"]


def test_a_tool_that_an_agent_inside_the_same_tool_calls_is_a_call_of_its_own() -> None:
    outer = tool("delegate")
    agent = made("agent", kind("AGENT"), parent=outer)

    assert len(trace_of(outer, agent, tool("delegate", parent=agent)).tool_calls) == 2


def test_arguments_and_ids_come_from_the_answer_in_the_order_of_the_calls() -> None:
    first = llm(attributes=asking(("a", "get", '{"n": 1}'), ("b", "get", '{"n": 2}')))
    second = llm(attributes=asking((None, "get", '{"n": 3}')))

    calls = trace_of(first, second, tool("get"), tool("get"), tool("get"), tool("get")).tool_calls

    assert [(call.call_id, call.arguments) for call in calls] == [
        ("a", {"n": 1}),
        ("b", {"n": 2}),
        (None, {"n": 3}),
        (None, None),
    ]


def test_an_id_decides_before_the_name_does() -> None:
    answer = llm(attributes=asking(("a", "get", '{"n": 1}'), ("b", "get", '{"n": 2}')))

    calls = trace_of(answer, tool("get"), tool("get", attributes={"tool.id": "a"})).tool_calls

    assert [(call.call_id, call.arguments) for call in calls] == [("b", {"n": 2}), ("a", {"n": 1})]


def test_nested_model_spans_that_tell_the_same_call_tell_it_once() -> None:
    outer = llm(attributes=asking(("a", "get", '{"n": 1}')))
    inner = llm(attributes=asking(("a", "get", '{"n": 1}')), parent=outer)

    calls = trace_of(outer, inner, tool("get"), tool("get")).tool_calls

    assert [call.call_id for call in calls] == ["a", None]


def test_what_the_span_itself_says_is_not_replaced() -> None:
    answer = llm(attributes=asking(("a", "get", '{"n": 1}')))

    [call] = trace_of(answer, tool("get", attributes={"input.value": '{"n": 9}'})).tool_calls

    assert (call.call_id, call.arguments) == ("a", {"n": 9})


def test_an_answer_that_was_not_recorded_is_found_in_what_the_model_was_told_next() -> None:
    at = "llm.input_messages.1.message"
    told = {
        f"{at}.role": "assistant",
        f"{at}.tool_calls.0.tool_call.id": "a",
        f"{at}.tool_calls.0.tool_call.function.name": "get",
        f"{at}.tool_calls.0.tool_call.function.arguments": '{"n": 1}',
    }

    [call] = trace_of(tool("get", attributes={"tool.id": "a"}), llm(attributes=told)).tool_calls

    assert call.arguments == {"n": 1}


class Watched:
    """Reads as all dialects do, and remembers what was read of which span."""

    def __init__(self) -> None:
        self.read_of: list[tuple[str, str]] = []

    def span_type(self, span: Span) -> str:
        return READER.span_type(span)

    def read(self, span: Span, field: str) -> Any:
        self.read_of.append((span.span_type, field))
        return READER.read(span, field)

    def derive(self, trace: Trace, field: str) -> Any:
        return READER.derive(trace, field)

    def answers_read(self) -> int:
        return self.read_of.count(("LLM", "chat_outputs"))


def watched(*spans: dict[str, Any]) -> tuple[Trace, Watched]:
    reader = Watched()
    return Trace.from_dict({"info": {}, "data": {"spans": list(spans)}}, reader), reader


def test_what_a_tool_span_says_itself_is_read_without_a_look_at_the_models() -> None:
    spans = [tool("get", attributes={"input.value": '{"n": 9}', "output.value": "fine"}, status="ERROR"), tool("put")]
    trace, reader = watched(llm(attributes=asking(("a", "get", '{"n": 1}'))), *spans)

    get, put = trace.tool_calls

    assert (get.name, get.failed, get.span.name, get.arguments, get.result) == ("get", True, "get", {"n": 9}, "fine")
    assert (put.name, put.failed, put.result) == ("put", False, None)
    assert {kind for kind, _ in reader.read_of} == {"TOOL"}


@pytest.mark.parametrize("field", ["arguments", "call_id"])
def test_the_models_are_looked_at_once_when_a_call_is_asked_for_what_it_does_not_say(field: str) -> None:
    answer = llm(attributes=asking(("a", "get", '{"n": 1}'), ("b", "get", '{"n": 2}')))
    trace, reader = watched(answer, tool("get"), tool("get"))
    first, second = trace.tool_calls
    assert reader.answers_read() == 0

    getattr(second, field)

    assert reader.answers_read() == 1
    reader.read_of.clear()
    assert [(call.call_id, call.arguments) for call in (first, second)] == [("a", {"n": 1}), ("b", {"n": 2})]
    assert {kind for kind, _ in reader.read_of} <= {"TOOL"}


def test_the_answers_are_joined_once_for_all_calls_of_a_trace() -> None:
    answer = llm(attributes=asking(("a", "get", '{"n": 1}')))
    trace = trace_of(answer, tool("get"), tool("get"), tool("put"))
    asked: list[Trace] = []

    def find_models() -> list[Span]:
        asked.append(trace)
        return trace.search_spans(span_type="LLM")

    calls = find_tool_calls(trace, find_models)

    assert not asked
    assert [(call.call_id, call.arguments) for call in calls] == [("a", {"n": 1}), (None, None), (None, None)]
    assert len(asked) == 1


def test_what_a_call_says_does_not_depend_on_what_is_asked_first() -> None:
    answer = llm(attributes=asking(("a", "get", '{"n": 1}'), ("b", "get", '{"n": 2}'), (None, "get", '{"n": 3}')))
    spans = [answer, tool("get"), tool("get", attributes={"tool.id": "a"}), tool("get"), tool("get")]
    expected = [("b", {"n": 2}), ("a", {"n": 1}), (None, {"n": 3}), (None, None)]

    for order in permutations(range(4)):
        calls = trace_of(*spans).tool_calls
        for index in order:
            assert (calls[index].call_id, calls[index].arguments) == expected[index]


def test_the_calls_of_a_trace_equal_themselves_when_they_are_asked_for_again() -> None:
    trace = trace_of(llm(attributes=asking(("a", "get", '{"n": 1}'))), tool("get"), tool("get"))

    assert trace.tool_calls == trace.tool_calls
    assert trace.tool_calls[0] != trace.tool_calls[1]


def test_inputs_come_from_the_first_and_outputs_from_the_last_of_the_highest_steps() -> None:
    root = made("request")
    planner = made("planner", kind("AGENT", input__value="question", output__value="plan"), parent=root)
    inner = made("inner", kind("CHAIN", input__value="inner in", output__value="inner out"), parent=planner)
    writer = made("writer", kind("AGENT", input__value="plan", output__value="answer"), parent=root)

    trace = trace_of(root, planner, inner, writer)

    assert (trace.inputs, trace.outputs) == ("question", "answer")


def test_without_steps_inputs_and_outputs_are_what_the_user_asked_and_the_model_answered() -> None:
    root = made("request")
    asked = {"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "question"}
    said = {"llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": "answer"}

    trace = trace_of(root, llm(attributes=asked, parent=root), llm(attributes=said, parent=root))

    assert (trace.inputs, trace.outputs) == ("question", "answer")


def test_an_answer_that_calls_a_tool_is_no_answer_yet() -> None:
    root = made("request")

    trace = trace_of(root, llm(attributes=asking(("a", "get", "{}")), parent=root))

    assert trace.outputs is None
    assert trace.read("outputs") is MISSING


def test_a_root_that_returned_none_has_outputs() -> None:
    root = made("root", {"mlflow.spanType": '"AGENT"', "mlflow.spanOutputs": "null"})

    assert trace_of(root).read("outputs") is None


def test_messages_are_those_of_the_last_call_with_its_answer() -> None:
    asked = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": '[{"type": "text", "content": "be brief"}]',
        "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]',
        "gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "hello"}]}]',
    }

    trace = trace_of(made("chat", {"gen_ai.operation.name": "chat"}), made("chat", asked))

    assert trace.messages == [Message("system", "be brief"), Message("user", "hi"), Message("assistant", "hello")]


@pytest.mark.parametrize(
    ("output", "documents"),
    [
        ('["a", "b"]', [Document("a"), Document("b")]),
        ('[{"page_content": "a", "metadata": {"x": 1}, "id": "1"}]', [Document("a", "1", None, {"x": 1})]),
        ('{"documents": [{"content": "a", "score": 0.5}]}', [Document("a", None, 0.5)]),
        ('{"lc": 1, "documents": [{"lc": 1, "kwargs": {"page_content": "a"}}]}', [Document("a")]),
        ('[{"node": {"text": "a", "id_": "n"}, "score": 1}]', [Document("a", "n", 1.0)]),
        ('{"answer": 42}', []),
        ("just text", []),
        ('["{\\"id\\": \\"1\\", \\"content\\": \\"a\\"}"]', [Document("a", "1")]),
    ],
)
def test_documents_of_any_shape_have_one_form(output: str, documents: list[Document]) -> None:
    span = made("retrieve", {"langfuse.observation.type": "retriever", "langfuse.observation.output": output})

    assert trace_of(span).retrieved_documents == documents


def test_of_nested_retrievers_the_outermost_with_documents_counts() -> None:
    outer = made("retrieve", kind("RETRIEVER", output__value='["a"]'))
    inner = made("query", kind("RETRIEVER", output__value='["a", "b"]'), parent=outer)

    assert [document.content for document in trace_of(outer, inner).retrieved_documents] == ["a"]


def test_session_user_and_tags_come_from_the_first_span_that_says_them() -> None:
    root = made("root")
    child = made("child", {"session.id": "s", "user.id": 7, "tags": "a, b"}, parent=root)

    trace = trace_of(root, child)

    assert (trace.session_id, trace.user_id, trace.tags) == ("s", "7", ["a", "b"])


def test_dialects_are_those_of_all_spans() -> None:
    trace = trace_of(llm(), made("x", {"mcp.method.name": "tools/list"}), made("y"))

    assert trace.dialects == ["mcp", "openinference"]


def test_deep_and_cyclic_traces_are_read() -> None:
    spans = [llm((1, 1))]
    for _ in range(3000):
        spans.append(tool("get", parent=spans[-1]))
    spans[0]["parent_id"] = spans[-1]["span_id"]

    trace = trace_of(*spans)

    assert len(trace.tool_calls) == 1
    assert trace.usage == Usage(1, 1, 2)


def test_parallel_calls_are_told_apart_by_their_arguments() -> None:
    answer = llm(
        attributes=asking(
            ("a", "get", '{"city": "Paris"}'),
            ("b", "get", '{"city": "Rome"}'),
            ("c", "get", '{"city": "Oslo", "n": 1}'),
        )
    )
    last, second, first = ('{"n": 1, "city": "Oslo"}', '{"city": "Rome"}', "Paris")

    calls = trace_of(answer, *(tool("get", attributes={"input.value": value}) for value in (last, second, first)))

    assert [call.call_id for call in calls.tool_calls] == ["c", "b", "a"]


def test_a_call_whose_id_no_model_knows_takes_the_arguments_of_the_next_of_its_name() -> None:
    answer = llm(attributes=asking(("a", "get", '{"n": 1}'), ("b", "get", '{"n": 2}')))

    calls = trace_of(answer, tool("get", attributes={"tool.id": "a"}), tool("get", attributes={"tool.id": "own"}))

    assert [(call.call_id, call.arguments) for call in calls.tool_calls] == [("a", {"n": 1}), ("own", {"n": 2})]


def test_what_a_call_does_not_say_the_model_span_around_it_may() -> None:
    said = {
        "llm.model_name": "m",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "question",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "answer",
    }
    root = made("root")
    outer = llm((1, 1), attributes=said, parent=root)
    inner = llm((1, 1), parent=outer)

    trace = trace_of(root, outer, inner)

    assert trace.llm_calls[0].model == "m"
    assert trace.llm_calls[0].outputs == [{"role": "assistant", "content": "answer"}]
    assert [message.content for message in trace.messages] == ["question", "answer"]
    assert (trace.inputs, trace.outputs) == ("question", "answer")


def test_a_root_that_says_nothing_is_asked_last() -> None:
    root = made("root", kind("CHAIN", input__value="", output__value=""))
    agent = made("agent", kind("AGENT", input__value="question"), parent=root)

    trace = trace_of(root, agent)

    assert (trace.inputs, trace.outputs) == ("question", "")


class _Noted(LogRecord):
    """What can be watched, other than a span."""


def _held_by(span: Span) -> weakref.ref[Any]:
    """Return how to watch something that only this span holds."""
    record = _Noted("noted")
    span.logs = (record,)
    return weakref.ref(record)


def test_nothing_that_was_derived_keeps_a_trace_or_its_spans_alive_that_was_let_go() -> None:
    root = made("root", kind("AGENT", input__value="question"))
    trace = trace_of(root, llm((1, 1), attributes=asking(("a", "get", "{}")), parent=root), tool("get", parent=root))
    for field in (
        "tool_calls",
        "llm_calls",
        "usage",
        "retrieved_documents",
        "messages",
        "inputs",
        "evaluations",
        "info",
    ):
        getattr(trace, field)
    assert trace.tool_calls[0].arguments == {}
    watched: list[weakref.ref[Any]] = [weakref.ref(trace), *map(_held_by, trace.spans)]
    trace.let_go()

    gc.disable()
    try:
        del trace
        assert [watch() for watch in watched] == [None] * 4
    finally:
        gc.enable()
