"""Rows that the application answers now: what is traced, what runs at the same time, what becomes of exceptions."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import TracerProvider

from otel_scorer import ConfigError, Trace, evaluate, scorer, search_traces
from otel_scorer.evaluation.items import read_data
from otel_scorer.evaluation.prediction import predictions

ROWS = [{"inputs": {"question": f"question {number}"}} for number in range(5)]


@scorer
def shouts(outputs: str) -> bool:
    return outputs.isupper()


@scorer
def tool_calls(trace: Trace) -> int:
    return len(trace.search_spans("TOOL"))


@scorer
def failed(trace: Trace) -> bool:
    return trace.info.state == "ERROR"


def values(result: Any) -> list[list[Any]]:
    return [[feedback.value for feedback in row.feedbacks] for row in result.results]


def test_outputs_and_the_trace_of_each_call_are_scored() -> None:
    def app(question: str) -> str:
        return question.upper()

    result = evaluate(ROWS, [shouts, tool_calls, failed], predict_fn=app, store=False)

    assert values(result) == [[True, 0, False]] * 5
    for row, given in zip(result.results, ROWS, strict=True):
        assert row.trace is not None
        assert row.trace.root is not None
        assert (row.trace.root.name, row.trace.root.parent_id) == ("app", None)
        assert (row.trace.inputs, row.trace.outputs) == (given["inputs"], given["inputs"]["question"].upper())
        assert row.trace.is_complete


def test_spans_of_another_provider_are_children_of_the_call() -> None:
    own = TracerProvider().get_tracer("app")

    def app(question: str) -> str:
        with own.start_as_current_span("tool"):
            return str(api.get_current_span().get_span_context().trace_id)

    result = evaluate(ROWS, [shouts.with_options(pass_if=lambda value: True)], predict_fn=app, store=False)

    assert [int(row.trace_id or "", 16) for row in result.results] == [int(row.outputs) for row in result.results]


def test_spans_of_the_global_provider_are_seen_with_one_set_up_and_without() -> None:
    # In a process of its own: a global provider can be set once.
    code = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.resources import Resource
from otel_scorer import evaluate

exporter = InMemorySpanExporter()
tracer = trace.get_tracer("app")
if sys.argv[1] == "set up":
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

def app(question):
    with tracer.start_as_current_span("tool", attributes={"openinference.span.kind": "TOOL"}):
        with tracer.start_as_current_span("inner"):
            return question

rows = [{"inputs": {"question": str(n)}} for n in range(3)]
for _ in range(2):
    result = evaluate(rows, [lambda trace: len(trace.search_spans("TOOL"))], predict_fn=app, store=False)
    for row in result.results:
        names = {span.span_id: span.name for span in row.trace.spans}
        tree = [(span.name, names.get(span.parent_id)) for span in row.trace.spans]
        print(row.feedbacks[0].value, row.trace.service_name, tree)
with tracer.start_as_current_span("after"):
    pass
print(len(exporter.get_finished_spans()))
"""
    for how, service, exported in (("set up", "shop", 13), ("not set up", "unknown_service:python", 0)):
        done = subprocess.run(
            [sys.executable, "-c", code, how], capture_output=True, text=True, check=False, timeout=50
        )
        lines = done.stdout.splitlines()

        assert done.stderr == ""
        assert lines[:-1] == [f"1 {service} [('app', None), ('tool', 'app'), ('inner', 'tool')]"] * 6
        assert lines[-1] == str(exported)


def test_what_a_call_raises_is_kept_with_its_row() -> None:
    def app(question: str) -> str:
        if question == "question 2":
            raise LookupError("no such thing")
        return question.upper()

    result = evaluate(ROWS, [shouts, failed], predict_fn=app, store=False)

    assert [row.error for row in result.results] == [None, None, "LookupError: no such thing", None, None]
    bad = result.results[2]
    assert [decision.outcome.value for decision in bad.decisions] == ["not_applicable", "scored"]
    assert bad.feedbacks[0].value is True
    assert bad.trace is not None
    assert bad.trace.root is not None
    assert [event.name for event in bad.trace.root.events] == ["exception"]
    assert result.metrics == {"shouts/mean": 1.0, "failed/mean": 0.2}
    assert "row 2" in result.reason
    assert "no such thing" in result.reason


@pytest.mark.parametrize("stored", [True, False])
def test_an_answer_that_a_row_brings_along_is_not_judged_where_the_call_fails(tmp_path: Any, stored: bool) -> None:
    def app(question: str) -> str:
        raise LookupError(question)

    rows = [{"inputs": {"question": "why?"}, "outputs": "AN OLD ANSWER"}]
    result = evaluate(rows, [shouts], predict_fn=app, store=tmp_path / "traces.db" if stored else False)

    [row] = result.results
    assert [decision.outcome.value for decision in row.decisions] == ["not_applicable"]
    assert (row.outputs, row.error) == (None, "LookupError: why?")


def test_errors_of_calls_are_stored_with_their_rows(tmp_path: Any) -> None:
    def app(question: str) -> str:
        raise SystemExit(question)

    result = evaluate(ROWS[:1], [failed], predict_fn=app, store=tmp_path / "traces.db")

    assert [row.error for row in result.results] == ["SystemExit: question 0"]
    assert [trace.info.state for trace in search_traces(result.run_id, store=tmp_path / "traces.db")] == ["ERROR"]


def test_coroutine_functions_run_at_the_same_time_and_rows_keep_their_order() -> None:
    running = 0
    most = 0

    async def app(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01 if number % 2 else 0.0)
        running -= 1
        return number

    rows = [{"inputs": {"number": number}} for number in range(30)]
    result = evaluate(rows, [lambda outputs: outputs], predict_fn=app, concurrency=4, store=False)

    assert most == 4
    assert values(result) == [[number] for number in range(30)]


def test_functions_run_at_the_same_time_up_to_the_limit() -> None:
    meeting = threading.Barrier(3, timeout=30)

    def app(number: int) -> int:
        meeting.wait()
        return number

    rows = [{"inputs": {"number": number}} for number in range(9)]
    result = evaluate(rows, [lambda outputs: outputs], predict_fn=app, concurrency=3, store=False)

    assert values(result) == [[number] for number in range(9)]


def test_a_function_that_returns_a_coroutine_is_awaited() -> None:
    async def later(question: str) -> str:
        return question.upper()

    result = evaluate(ROWS, [shouts], predict_fn=lambda question: later(question), store=False)  # noqa: PLW0108 - no coroutine function

    assert values(result) == [[True]] * 5


def test_context_variables_of_the_caller_are_there() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("me")

    result = evaluate(ROWS, [lambda outputs: outputs], predict_fn=lambda question: who.get(), store=False)

    assert values(result) == [["me"]] * 5


def test_a_call_is_a_trace_of_its_own_whatever_span_is_current() -> None:
    tracer = TracerProvider().get_tracer("caller")

    with tracer.start_as_current_span("caller") as caller:
        result = evaluate(ROWS[:1], [failed], predict_fn=lambda question: question, store=False)
        assert api.get_current_span() is caller

    assert result.results[0].trace_id != format(caller.get_span_context().trace_id, "032x")


def test_tags_of_a_row_are_tags_of_its_trace() -> None:
    result = evaluate([{"inputs": {}, "tags": {"team": "a"}}], [failed], predict_fn=lambda: None, store=False)

    [row] = result.results
    assert row.trace is not None
    assert row.trace.info.tags["team"] == "a"


@pytest.mark.parametrize("rows", [[{"inputs": "text"}], [{"outputs": "x"}]])
def test_inputs_that_cannot_be_arguments_are_refused_before_anything_runs(rows: list[Any]) -> None:
    called: list[Any] = []

    with pytest.raises(ConfigError, match="`inputs` must be a dict"):
        evaluate(rows, [shouts], predict_fn=called.append, store=False)

    assert called == []


def test_a_wrong_row_far_into_a_stream_is_not_called_with() -> None:
    rows = ({"inputs": {"n": 1}} if number != 150 else {"inputs": "x"} for number in range(200))

    result = evaluate(rows, [lambda outputs: outputs], predict_fn=lambda n: n, store=False)

    assert [row.position for row in result.results if row.decisions[0].outcome != "scored"] == [150]


def test_the_stream_is_not_read_far_ahead() -> None:
    read = 0
    done = 0
    lead = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read, lead
        for number in range(300):
            read += 1
            lead = max(lead, read - done)
            yield {"inputs": {"n": number}}

    def app(n: int) -> int:
        nonlocal done
        done += 1
        return n

    for _ in predictions(read_data(rows()).items, app, concurrency=4):
        pass

    # What is looked at before anything runs, and two calls per slot.
    assert lead <= 101 + 8


def test_whoever_stops_early_waits_for_nothing_but_what_runs() -> None:
    called: list[int] = []
    rows = [{"inputs": {"n": number}} for number in range(1000)]

    stream = predictions(read_data(rows).items, lambda n: called.append(n), concurrency=2)  # noqa: PLW0108 - takes `n`
    next(stream)
    stream.close()

    assert len(called) < 10


def test_ctrl_c_ends_the_calls_and_keeps_what_was_scored(tmp_path: Any) -> None:
    called: list[int] = []

    def app(n: int) -> int:
        called.append(n)
        return n

    def told(done: int, total: int) -> None:
        if done == 200:
            raise KeyboardInterrupt

    rows = [{"inputs": {"n": number}} for number in range(5000)]
    with pytest.raises(KeyboardInterrupt):
        evaluate(rows, [failed], predict_fn=app, store=tmp_path / "traces.db", on_progress=told)

    ended = len(called)
    assert ended < 1000
    assert [thread.name for thread in threading.enumerate() if "otel-scorer-predict" in thread.name] == []
    assert len(search_traces(store=tmp_path / "traces.db")) > 0
