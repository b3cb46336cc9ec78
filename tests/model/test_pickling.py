"""Copies and pickles of traces, spans, and what is read from them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_scorer import Expectation, Feedback, Trace, load_traces
from otel_scorer.dialects import default_reader
from otel_scorer.model.decode import spans_from_request
from otel_scorer.model.sdk_span import spans_from_sdk
from otel_scorer.model.trace_bytes import spans_as_bytes, trace_from_bytes
from otel_scorer.testing import make_request, make_span

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
CAPTURE = CAPTURES / "openinference_openai.json"


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - of our own making


@pytest.fixture
def trace() -> Trace:
    return load_traces(CAPTURE)[0]


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.json")), ids=lambda path: path.stem)
def test_a_pickle_has_everything_a_trace_has(path: Path) -> None:
    for trace in load_traces(path):
        again = pickled(trace)

        assert again.to_dict() == trace.to_dict()
        assert spans_as_bytes(again) == spans_as_bytes(trace)
        assert [call.arguments for call in again.tool_calls] == [call.arguments for call in trace.tool_calls]


def test_what_is_known_beside_the_spans_is_in_the_pickle() -> None:
    trace = trace_from_bytes(
        make_request(make_span("root")),
        b"",
        default_reader(),
        close_reason="idle",
        is_complete=False,
        revision=3,
        assessments=[Expectation("answer", ["Paris"]), Feedback("good", True, valid=False)],
        tags={"env": "test"},
    )

    again = pickled(trace)

    assert (again.close_reason, again.is_complete, again.revision) == ("idle", False, 3)
    assert again.info.tags == {"env": "test"}
    assert again.search_assessments(all=True) == trace.search_assessments(all=True)


def test_traces_of_the_sdk_and_of_plain_data_can_be_pickled(trace: Trace) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("app").start_as_current_span("root", attributes={"words": ["a", "b"]}):
        pass
    of_sdk = Trace(spans_from_sdk(exporter.get_finished_spans()), default_reader())
    of_json = Trace.from_json(trace.to_json())

    assert pickled(of_sdk).to_dict() == of_sdk.to_dict()
    assert pickled(of_json).to_dict() == of_json.to_dict()


def test_a_pickle_can_be_read_by_who_has_imported_nothing(trace: Trace, tmp_path: Path) -> None:
    file = tmp_path / "trace.pickle"
    file.write_bytes(pickle.dumps(trace))
    code = "import pickle, sys; print([call.name for call in pickle.load(open(sys.argv[1], 'rb')).tool_calls])"

    found = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)

    assert found.stdout == "['get_weather', 'convert_currency']\n"


READ: dict[str, Callable[[Trace], Any]] = {
    "span": lambda trace: trace.spans[2],
    "tool call": lambda trace: trace.tool_calls[1],
    "model call": lambda trace: trace.llm_calls[0],
    "messages": lambda trace: trace.messages,
    "info": lambda trace: trace.info,
    "data": lambda trace: trace.data,
    "events": lambda trace: [span.events for span in trace.spans],
    "scope": lambda trace: trace.spans[0].scope,
}


@pytest.mark.parametrize("part", READ)
def test_parts_of_a_trace_can_be_copied_and_pickled(trace: Trace, part: str) -> None:
    found = READ[part](trace)

    assert repr(pickled(found)) == repr(found)
    assert repr(copy.deepcopy(found)) == repr(found)
    assert repr(copy.copy(found)) == repr(found)


def test_a_span_of_a_pickle_has_its_relatives(trace: Trace) -> None:
    span = trace.tool_calls[0].span

    again = pickled(span)

    assert again.parent is not None
    assert span.parent is not None
    assert again.parent.span_id == span.parent.span_id
    assert again.inputs == span.inputs


def test_spans_of_one_trace_have_one_trace_in_a_pickle(trace: Trace) -> None:
    first, second = pickled(trace.spans[:2])

    assert second.parent is first


def test_a_span_without_a_trace_can_be_pickled() -> None:
    [span] = spans_from_request(make_request(make_span("alone", attributes={"a": [1]})))

    assert pickled(span).to_dict() == span.to_dict()


def test_a_copy_of_a_view_is_the_view(trace: Trace) -> None:
    for view in (trace, trace.spans[0], trace.tool_calls[0]):
        assert copy.copy(view) is view
        assert copy.deepcopy(view) is view
    assert copy.deepcopy({"kept": [trace]})["kept"][0] is trace


def test_a_copy_of_attributes_is_a_dict_that_can_be_changed(trace: Trace) -> None:
    for span in (trace.spans[0], Trace.from_json(trace.to_json()).spans[0]):
        for attributes in (copy.copy(span.attributes), copy.deepcopy(span.attributes), pickled(span.attributes)):
            assert type(attributes) is dict
            assert attributes == span.attributes
