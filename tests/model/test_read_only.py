"""What views and rows hand out can be changed by nobody: copies of lists and dicts, and errors for the rest."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_scorer import Expectation, Feedback, Trace, load_traces
from otel_scorer.dialects import default_reader
from otel_scorer.model.read_only import ReadOnly, copied
from otel_scorer.model.sdk_span import spans_from_sdk
from otel_scorer.model.trace_bytes import trace_from_bytes
from otel_scorer.testing import make_request, make_span

CAPTURE = Path(__file__).resolve().parent.parent / "captures" / "openinference_openai.json"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside) | st.tuples(inside, inside),
)


def spoil(value: Any) -> None:
    """Empty every list and dict in a value."""
    items: Any = value.values() if isinstance(value, dict) else value
    for item in list(items) if isinstance(value, dict | list | tuple) else ():
        spoil(item)
    if isinstance(value, dict | list):
        value.clear()


@given(VALUES)
def test_a_copy_is_equal_and_shares_nothing_that_can_be_changed(value: Any) -> None:
    before = repr(value)

    copy = copied(value)
    assert copy == value
    assert type(copy) is type(value)
    spoil(copy)

    assert repr(value) == before


def test_containers_of_other_types_are_copied_and_other_objects_are_not() -> None:
    ordered = collections.OrderedDict(a=[1])
    lock = threading.Lock()
    holder = collections.UserDict({"a": 1})

    given: dict[str, Any] = {"ordered": ordered, "set": {1}, "bytes": bytearray(b"x"), "lock": lock, "holder": holder}

    copy = copied(given)

    copy["ordered"]["a"].append(2)
    copy["set"].add(2)
    copy["bytes"].append(2)
    assert (ordered, type(copy["ordered"])) == ({"a": [1]}, collections.OrderedDict)
    assert copy["lock"] is lock
    assert copy["holder"] is holder


def test_what_cannot_be_copied_is_handed_on() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    locked = collections.OrderedDict(lock=threading.Lock())

    assert copied(deep) is deep
    assert copied(locked) is locked


def test_a_value_that_contains_itself_is_copied_as_such() -> None:
    endless: dict[str, Any] = {"list": [], "number": 1}
    endless["list"].append((endless, endless["list"]))

    copy = copied(endless)
    [(inside, again)] = copy["list"]

    assert inside is copy
    assert again is copy["list"]
    assert copy is not endless
    assert copy["list"] is not endless["list"]


@pytest.mark.parametrize("width", [2, 1000])
@pytest.mark.parametrize("hold", [list, tuple, lambda items: dict(enumerate(items))], ids=["list", "tuple", "dict"])
def test_what_is_in_a_value_several_times_is_copied_once(hold: Callable[[list[Any]], Any], width: int) -> None:
    value: Any = hold([1])
    for _ in range(100):
        value = hold([value] * width)

    copy = copied(value)

    for _ in range(100):
        assert copy is not value or hold is tuple
        assert len(copy) == width
        copy, value = copy[0], value[0]
    assert copy == value


def test_read_only_attributes_behave_like_a_mapping() -> None:
    attributes = ReadOnly({"a": 1, "b": [1, 2]})

    assert attributes == {"a": 1, "b": [1, 2]}
    assert (list(attributes), len(attributes), "a" in attributes, "c" in attributes) == (["a", "b"], 2, True, False)
    assert (attributes.get("c"), attributes.get("c", 3), attributes.get("b")) == (None, 3, [1, 2])
    assert repr(attributes) == "{'a': 1, 'b': [1, 2]}"
    with pytest.raises(KeyError):
        attributes["c"]
    with pytest.raises(TypeError):
        attributes["a"] = 2  # type: ignore[index]  # that is the point


SOURCES: dict[str, Callable[[], Trace]] = {
    "OTLP": lambda: load_traces(CAPTURE)[0],
    "JSON": lambda: Trace.from_json(load_traces(CAPTURE)[0].to_json()),
}
"""What a trace may be made of; for the SDK's spans see below."""

PLACES: dict[str, Callable[[Trace], Any]] = {
    "inputs": lambda trace: trace.inputs,
    "outputs": lambda trace: trace.outputs,
    "tool arguments": lambda trace: [call.arguments for call in trace.tool_calls],
    "tool calls": lambda trace: trace.tool_calls,
    "inputs of models": lambda trace: [call.inputs for call in trace.llm_calls],
    "outputs of models": lambda trace: [call.outputs for call in trace.llm_calls],
    "messages": lambda trace: trace.messages,
    "tool calls of messages": lambda trace: [message.tool_calls for message in trace.messages],
    "inputs of spans": lambda trace: [span.inputs for span in trace.spans],
    "outputs of spans": lambda trace: [span.outputs for span in trace.spans],
    "spans": lambda trace: trace.spans,
    "found spans": lambda trace: trace.search_spans(),
    "spans of the data": lambda trace: trace.data.spans,
    "tags": lambda trace: trace.info.tags,
    "metadata": lambda trace: trace.info.trace_metadata,
    "values of attributes": lambda trace: [list(span.attributes.values()) for span in trace.spans],
    "events": lambda trace: [span.events for span in trace.spans],
    "links": lambda trace: [span.links for span in trace.spans],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("source", SOURCES)
def test_what_a_scorer_does_to_what_it_reads_is_seen_by_nobody_else(source: str, place: str) -> None:
    trace, read = SOURCES[source](), PLACES[place]
    before, all_before = repr(read(trace)), trace.to_json()

    spoil(read(trace))

    assert repr(read(trace)) == before
    assert trace.to_json() == all_before


@pytest.mark.parametrize("source", SOURCES)
def test_attributes_cannot_be_changed(source: str) -> None:
    span = SOURCES[source]().spans[0]

    for attributes in (span.attributes, span.resource, span.scope.attributes):
        with pytest.raises(TypeError):
            attributes["x"] = 1  # type: ignore[index]  # that is the point


def test_documents_and_assessments_are_copies() -> None:
    found = '[{"page_content": "a", "metadata": {"pages": [1]}}]'
    span = make_span("search", attributes={"openinference.span.kind": "RETRIEVER", "output.value": found})
    trace = trace_from_bytes(
        make_request(span),
        b"",
        default_reader(),
        assessments=[Expectation("answer", {"city": ["Paris"]}), Feedback("good", [1], metadata={"by": "me"})],
    )

    for document in trace.retrieved_documents:
        spoil(document.metadata)
    for assessment in (*trace.search_assessments(), *trace.info.assessments):
        spoil(assessment.value)
        spoil(assessment.metadata)
        assessment.name = "another"

    assert [document.metadata for document in trace.retrieved_documents] == [{"pages": [1]}]
    expectation, feedback = trace.search_assessments()
    assert (expectation.name, expectation.value) == ("answer", {"city": ["Paris"]})
    assert (feedback.name, feedback.value, feedback.metadata) == ("good", [1], {"by": "me"})


def test_spans_of_the_sdk_cannot_be_changed_either() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("app").start_as_current_span("root", attributes={"words": ["a", "b"]}) as span:
        span.add_event("said", {"words": ["c"]})
    [view] = Trace(spans_from_sdk(exporter.get_finished_spans()), default_reader()).spans

    spoil(view.attributes["words"])
    spoil(view.get_attribute("words"))
    spoil(view.events)
    spoil(view.events[0].attributes["words"])

    assert view.attributes == {"words": ["a", "b"]}
    assert [event.attributes for event in view.events] == [{"words": ["c"]}]
    for attributes in (view.attributes, view.resource, view.scope.attributes):
        with pytest.raises(TypeError):
            attributes["x"] = 1  # type: ignore[index]  # that is the point
