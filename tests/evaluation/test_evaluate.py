"""`evaluate`: what scorers are given from rows and traces, what comes out, and what is refused before anything runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from opentelemetry import trace as trace_api
from pydantic import BaseModel

from otel_scorer import (
    AssessmentError,
    ConfigError,
    EvaluationResult,
    Feedback,
    Scorer,
    ScorerError,
    Trace,
    evaluate,
    load_traces,
    log_expectation,
    scorer,
    search_traces,
)
from otel_scorer.model.decision import Outcome
from otel_scorer.model.otlp_span import OtlpSpan

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
CAPTURE = CAPTURES / "openinference_openai.json"
STORES = [None, False]

ROWS: list[dict[str, Any]] = [
    {"inputs": {"question": "a"}, "outputs": "Paris", "expectations": {"answer": "Paris"}},
    {"inputs": {"question": "b"}, "outputs": "Rome", "expectations": {"answer": "Oslo"}},
    {"inputs": {"question": "c"}, "outputs": None, "expectations": {"answer": "Lima"}},
]


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTEL_SCORER_STORE", raising=False)


@scorer
def exact(outputs: Any, expectations: dict[str, Any]) -> bool:
    return bool(outputs == expectations["answer"])


@scorer
def length(outputs: str) -> int:
    return len(outputs)


@scorer
def has_tools(trace: Trace) -> bool:
    return bool(trace.search_spans("TOOL"))


def outcomes(result: EvaluationResult) -> list[list[str]]:
    return [[decision.outcome.value for decision in row.decisions] for row in result.results]


def values(result: EvaluationResult) -> list[list[Any]]:
    return [[feedback.value for feedback in row.feedbacks] for row in result.results]


@pytest.mark.parametrize("store", STORES)
def test_rows_are_scored_in_their_order(store: Any) -> None:
    result = evaluate(ROWS, [exact, length], store=store)

    assert values(result) == [[True, 5], [False, 4], [False, 4]]
    assert result.metrics == {"exact/mean": 1 / 3, "length/mean": 13 / 3}
    assert [row.position for row in result.results] == [0, 1, 2]
    assert [(row.inputs, row.outputs) for row in result.results] == [(r["inputs"], r["outputs"]) for r in ROWS]
    assert [row.evidence().expectations for row in result.results] == [r["expectations"] for r in ROWS]


@pytest.mark.parametrize("store", STORES)
def test_the_same_is_found_with_a_store_and_without(store: Any) -> None:
    @scorer
    def everything(outputs: Any) -> Any:
        if outputs is None:
            return [Feedback("one", value=1.5, rationale="why", metadata={"k": "v"}), Feedback("two", value=[1, "a"])]
        if outputs == "Rome":
            raise KeyError(outputs)
        return Feedback(error=AssessmentError("CODE", "message"))

    result = evaluate(ROWS, [everything], store=store)

    first, second, third = result.results
    assert [first.feedbacks[0].error_code, first.decisions[0].outcome] == ["CODE", Outcome.SCORED]
    assert [second.feedbacks[0].error_code, second.decisions[0].outcome] == ["KeyError", Outcome.FAILED]
    assert second.feedbacks[0].error is not None
    assert "Traceback" in str(second.feedbacks[0].error.stack_trace)
    assert third.feedbacks == [
        Feedback("one", value=1.5, rationale="why", metadata={"k": "v"}),
        Feedback("two", value=[1, "a"]),
    ]
    assert result.metrics == {"one/mean": 1.5}


def test_the_three_steps_of_the_documentation_page() -> None:
    # Only the imports differ from the page of MLflow's documentation.
    def sample_app(question: str) -> str:
        return f"The answer to {question!r} is 42."

    eval_dataset = [
        {"inputs": {"question": "How much does a microwave cost?"}},
        {"inputs": {"question": "Can I return the headphones I bought 8 months ago?"}},
        {"inputs": {"question": "What is your address?"}},
    ]

    # 1: make traces with a scorer that only holds the place.
    eval_results = evaluate(data=eval_dataset, predict_fn=sample_app, scorers=[lambda **kwargs: 1])

    # 2: find them.
    generated_traces = search_traces(run_id=eval_results.run_id)

    # 3: work on a scorer without calling the application again.
    @scorer
    def response_length(outputs: str) -> int:
        return len(outputs)

    @scorer
    def asks(inputs: dict[str, Any]) -> str:
        return "yes" if inputs["question"].endswith("?") else "no"

    again = evaluate(data=generated_traces, scorers=[response_length, asks])

    assert eval_results.metrics == {"lambda/mean": 1.0}
    assert [trace.inputs for trace in generated_traces] == [row["inputs"] for row in eval_dataset]
    assert values(again) == [[len(sample_app(row["inputs"]["question"])), "yes"] for row in eval_dataset]
    assert again.metrics["asks/mean"] == 1.0
    assert [row.trace_id for row in again.results] == [trace.trace_id for trace in generated_traces]
    # What was said then is part of the trace now.
    latest = search_traces(run_id=again.run_id)
    assert [[each.name for each in trace.search_assessments(type="feedback")] for trace in latest] == [
        ["lambda", "response_length", "asks"]
    ] * 3


def test_expectations_attached_to_a_stored_trace_reach_scorers_and_searches() -> None:
    first = evaluate([{"inputs": {}, "outputs": "Paris"}], [length])
    [trace] = search_traces(first.run_id)
    log_expectation(f"tr-{trace.trace_id}", "answer", "Paris", metadata={"by": "me"})

    [trace] = search_traces(first.run_id)
    result = evaluate([trace], [exact])

    assert [each.value for each in trace.search_assessments("answer", type="expectation")] == ["Paris"]
    assert values(result) == [[True]]
    assert search_traces(filter_string="expectation.answer = 'Paris'")[0].trace_id == trace.trace_id


def test_expectations_of_rows_are_stored_with_their_traces() -> None:
    result = evaluate(ROWS, [length])

    again = evaluate(search_traces(result.run_id), [exact])

    assert values(again) == [[True], [False], [False]]


def test_what_a_row_says_wins_over_what_its_trace_says() -> None:
    [trace, *_] = load_traces(CAPTURE)

    result = evaluate([{"trace": trace, "outputs": "other", "expectations": {"answer": "other"}}], [exact, has_tools])

    assert values(result) == [[True, True]]
    [row] = result.results
    assert row.outputs == "other"
    assert row.inputs == trace.inputs


@pytest.mark.parametrize("as_what", ["trace", "json", "dict", "row", "row of json"])
def test_traces_come_in_any_form(as_what: str) -> None:
    traces = load_traces(CAPTURE)
    forms: dict[str, Any] = {
        "trace": traces,
        "json": [{"trace": trace.to_json()} for trace in traces],
        "dict": [{"trace": trace.to_dict()} for trace in traces],
        "row": [{"trace": trace} for trace in traces],
        "row of json": [{"trace": trace.to_json(), "outputs": math.nan} for trace in traces],
    }

    result = evaluate(forms[as_what], [has_tools, length])

    assert values(result) == values(evaluate(traces, [has_tools, length], store=False))
    assert [row.trace_id for row in result.results] == [trace.trace_id for trace in traces]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("many", [False, True])
def test_files_are_data(store: Any, many: bool) -> None:
    data: Any = [str(CAPTURE), CAPTURES / "langfuse.json"] if many else str(CAPTURE)

    result = evaluate(data, [has_tools], store=store)

    traces = load_traces(*data) if many else load_traces(data)
    assert values(result) == [[bool(trace.search_spans("TOOL"))] for trace in traces]
    assert [(row.trace or traces[0]).to_dict()["data"] for row in result.results] == [
        t.to_dict()["data"] for t in traces
    ]


def test_what_of_a_file_cannot_be_read_is_said_and_the_rest_is_scored(tmp_path: Path) -> None:
    text = CAPTURE.read_text(encoding="utf-8")
    path = tmp_path / "cut.json"
    path.write_text(text[: len(text) // 2], encoding="utf-8")

    result = evaluate(path, [has_tools])

    assert len(result.results) > 0
    [problem] = result.problems
    assert "cut.json (line" in problem


def test_a_stream_is_scored_as_it_comes() -> None:
    seen: list[int] = []
    lead: list[int] = []

    @scorer
    def watch(inputs: dict[str, int]) -> bool:
        seen.append(inputs["n"])
        return True

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(2000):
            lead.append(number - len(seen))
            yield {"inputs": {"n": number}}

    result = evaluate(rows(), [watch])

    assert seen == list(range(2000))
    assert max(lead) < 600
    assert result.metrics == {"watch/mean": 1.0}
    assert len(result.results) == 2000


def test_async_scorers_scorers_of_spans_and_filters_work_on_rows_and_traces() -> None:
    @scorer
    async def waits(outputs: Any) -> bool:
        return True

    @scorer(span_types=["TOOL"])
    def per_tool(span: Any) -> bool:
        return bool(span.span_type == "TOOL")

    [trace, *_] = load_traces(CAPTURE)

    result = evaluate([{"outputs": "x"}, trace], [waits, per_tool], store=False)

    assert outcomes(result)[0] == ["scored", "not_applicable"]
    tools = trace.search_spans("TOOL")
    assert outcomes(result)[1] == ["scored"] + ["scored"] * len(tools)
    assert {decision.span_id for decision in result.results[1].decisions[1:]} == {span.span_id for span in tools}


def test_every_row_is_judged_whatever_the_rate_of_live_sampling_is() -> None:
    result = evaluate(ROWS, [length.with_options(sample_rate=0.0)])

    assert outcomes(result) == [["scored"]] * 3


def test_a_value_that_some_rows_lack_makes_a_scorer_not_applicable_there() -> None:
    result = evaluate([{"outputs": "x", "expectations": {"answer": "x"}}, {"outputs": "y"}], [exact, length])

    assert outcomes(result) == [["scored", "scored"], ["not_applicable", "scored"]]
    assert "'expectations'" in str(result.results[1].decisions[0].reason)
    assert result.metrics == {"exact/mean": 1.0, "length/mean": 1.0}


@pytest.mark.parametrize("as_stream", [False, True])
def test_a_value_that_all_rows_lack_is_an_error_before_anything_runs(as_stream: bool) -> None:
    ran: list[Any] = []
    rows = [{"outputs": "x"}, {"outputs": "y", "expectations": math.nan}]

    with pytest.raises(ConfigError, match=r"Scorer 'exact' needs 'expectations', and not one of 2 rows has it"):
        evaluate(iter(rows) if as_stream else rows, [lambda outputs: ran.append(outputs), exact])  # noqa: PLW0108 - takes `outputs`

    assert ran == []
    assert not Path(".otel_scorer").exists()


def test_a_trace_is_a_value_that_rows_can_lack() -> None:
    with pytest.raises(ConfigError, match="needs 'trace'"):
        evaluate(ROWS, [has_tools])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"outputs": 1}, 7], "1 of 2 rows cannot be used: row 1: a row must be a dict or a Trace, got int"),
        ([{"inputs": {}, "expectations": "x"}], "row 0: `expectations` must be a dict, got str"),
        ([{"inputs": {}, "tags": "x"}], "row 0: `tags` must be a dict, got str"),
        ([{"question": "x"}] * 5, "row 2: it has none of .* \\(and 2 more\\)"),
        ([{"trace": 3}], "row 0: `trace` must be a Trace"),
        ([{"trace": "{}"}], "row 0: Not a trace"),
        ([{"trace": "no json"}], "row 0: "),
    ],
)
def test_rows_of_the_wrong_shape_are_refused_before_anything_runs(rows: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(rows, [lambda: True])


def test_a_wrong_row_far_into_a_stream_loses_nothing_else() -> None:
    rows = (({"outputs": "x"} if number != 150 else "wrong") for number in range(200))

    result = evaluate(rows, [length])

    assert [row.position for row in result.results if row.decisions[0].outcome != "scored"] == [150]
    assert result.results[150].decisions[0].outcome == "unprocessable"
    assert "a row must be a dict" in str(result.results[150].decisions[0].reason)


@pytest.mark.parametrize("data", [7, {"inputs": [1]}, b"x", None])
def test_what_is_no_data_is_refused(data: Any) -> None:
    with pytest.raises(ConfigError, match="needs a list of dicts"):
        evaluate(data, [length])


@pytest.mark.parametrize("data", [[], iter(())])
def test_no_rows_are_no_error(data: Any) -> None:
    result = evaluate(data, [length])

    assert (result.results, result.metrics, result.passed, result.reason) == ([], {}, True, "")


def test_no_scorers_store_the_data() -> None:
    result = evaluate(ROWS, [])

    assert [trace.outputs for trace in search_traces(result.run_id)] == ["Paris", "Rome", None]


def test_a_problem_of_the_stream_itself_is_raised_and_what_came_before_is_stored() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ({"inputs": {}, "outputs": "x"} for _ in range(1000))
        raise LookupError("the source is gone")

    with pytest.raises(LookupError, match="the source is gone"):
        evaluate(rows(), [length])

    assert len(search_traces()) == 1000


class Stop(BaseModel):
    city: str
    on: date


@dataclass
class Plan:
    stops: list[Stop]


class NoTruth:
    """Compares as arrays and frames do: with something that is neither true nor false."""

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array is ambiguous")

    def __str__(self) -> str:
        return "[0 1 2]"

    __hash__ = None  # type: ignore[assignment]  # as theirs


@pytest.mark.parametrize("is_called", [True, False], ids=["returned by predict_fn", "in the row"])
@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        pytest.param(Stop(city="Rome", on=date(2026, 5, 1)), {"city": "Rome", "on": "2026-05-01"}, id="pydantic model"),
        pytest.param(
            {"plan": Plan([Stop(city="Rome", on=date(2026, 5, 1))])},
            {"plan": {"stops": [{"city": "Rome", "on": "2026-05-01"}]}},
            id="dataclass in a dict",
        ),
        pytest.param(NoTruth(), "[0 1 2]", id="array"),
    ],
)
def test_structured_answers_are_data_for_scorers_of_stored_traces(answer: Any, kept: Any, is_called: bool) -> None:
    row: dict[str, Any] = {"inputs": {"question": "a"}} | ({} if is_called else {"outputs": answer})

    run = evaluate([row], [lambda **kwargs: 1], predict_fn=(lambda question: answer) if is_called else None)

    [trace] = search_traces(run_id=run.run_id)
    assert trace.outputs == kept


@pytest.mark.parametrize("key", ["inputs", "outputs", "expectations"])
def test_a_row_that_is_nested_too_deeply_to_be_stored_costs_no_other_row(key: str) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    run = evaluate(
        [{"inputs": {"question": 1}, key: {"deep": deep}}, {"inputs": {"question": 2}}], [lambda **kwargs: 1]
    )

    assert run.metrics == {"lambda/mean": 1.0}
    assert len(search_traces(run_id=run.run_id)) == 2


def test_values_that_json_cannot_hold_are_stored_as_text() -> None:
    class Thing:
        def __str__(self) -> str:
            return "a thing"

    circle: dict[Any, Any] = {}
    circle["self"] = circle
    rows = [
        {"inputs": {"x": Thing()}, "outputs": {(1, 2): 3}, "expectations": {"answer": {1, 2}}},
        {"inputs": circle, "outputs": Thing(), "expectations": {"answer": math.inf}},
    ]

    result = evaluate(rows, [exact])

    assert outcomes(result) == [["scored"]] * 2
    first, second = search_traces(result.run_id)
    assert first.inputs == {"x": "a thing"}
    assert second.outputs == "a thing"
    assert second.search_assessments("answer")[0].value == "inf"


@pytest.mark.parametrize("store", STORES)
def test_text_that_utf8_cannot_carry_costs_nothing(store: Any) -> None:
    """A lone surrogate is a legal character of a Python string, and JSON can write it."""
    rows = [
        {
            "inputs": {"q": "\ud800"},
            "outputs": "o\ud800",
            "expectations": {"answer": "o\ud800"},
            "tags": {"\ud800": "\udfff"},
        }
        for _ in range(2)
    ]

    def remark(outputs: str) -> list[Feedback]:
        return [
            Feedback("n\ud800", "\ud800", rationale="\x00\ud83d", metadata={"\ud800": "\ud800"}),
            Feedback("broken", error="\ud800"),
        ]

    result = evaluate(rows, [exact, remark, length], store=store)

    assert outcomes(result) == [["scored"] * 3] * 2
    first = result.results[0]
    assert (first.inputs, first.outputs) == ({"q": "\ud800"}, "o\ud800")
    assert [feedback.value for feedback in first.feedbacks] == [True, "\ud800", None, 2]
    result.to_html("report.html")
    assert "\ufffd" in result.reason
    result.reason.encode()
    if store is None:
        [again, _] = search_traces(result.run_id, filter_string="name != '\ud800'")
        assert again.outputs == "o\ud800"
        assert evaluate([again], [exact]).metrics == {"exact/mean": 1.0}
        assert evaluate([Trace.from_json(again.to_json())], [length]).metrics == {"length/mean": 2.0}


def test_what_predict_fn_says_and_records_may_be_text_that_utf8_cannot_carry(caplog: pytest.LogCaptureFixture) -> None:
    # The SDK logs the text, and pytest-xdist cannot carry it from its worker either.
    caplog.set_level("CRITICAL", "opentelemetry.exporter.otlp.proto.common")

    def answer(q: str) -> str:
        with trace_api.get_tracer("app").start_as_current_span("step \ud800", attributes={"a": "\ud800"}):
            if q == "b":
                raise ValueError("\ud800")
        return "\ud800"

    result = evaluate([{"inputs": {"q": "a"}}, {"inputs": {"q": "b"}}], [length], answer)

    assert result.metrics == {"length/mean": 1.0}
    assert result.results[1].error == "ValueError: ?"
    [trace, _] = search_traces(result.run_id)
    assert (trace.outputs, [span.name for span in trace.spans]) == ("\ud800", ["answer", "step ?"])


def test_of_what_a_row_says_only_that_becomes_text_which_json_cannot_hold() -> None:
    [stored] = search_traces(evaluate([{"inputs": {"q": 1}, "outputs": "x"}], []).run_id)

    [row] = evaluate([{"trace": stored, "inputs": {(1, 2): 3}, "outputs": ["y"]}], []).results

    assert (row.inputs, row.outputs) == ("{(1, 2): 3}", ["y"])


def test_tags_that_a_row_adds_to_a_stored_trace_stay_with_it() -> None:
    [trace] = search_traces(evaluate([{"inputs": {}, "outputs": "x", "tags": {"team": "a"}}], []).run_id)

    result = evaluate([{"trace": trace, "tags": {"reviewed": "é"}}], [length])

    [found] = search_traces(filter_string="tags.reviewed = 'é' AND tags.team = 'a'")
    row = result.results[0].trace
    assert row is not None
    for again in (found, row, Trace.from_json(found.to_json())):
        assert again.info.tags == {"team": "a", "reviewed": "é"}
    # Judged once more as it was at first, it does not lose what was added.
    evaluate([trace], [length])
    assert search_traces()[0].info.tags == {"team": "a", "reviewed": "é"}


def test_expectations_that_come_with_a_trace_are_stored_with_it_and_change_nothing_that_is_there() -> None:
    [trace] = search_traces(
        evaluate([{"inputs": {}, "outputs": "Paris", "expectations": {"answer": "Rome"}}], []).run_id
    )
    carried = Trace.from_json(trace.to_json())

    evaluate([carried], [exact], store="other.db")
    [elsewhere] = search_traces(store="other.db")
    assert evaluate([elsewhere], [exact]).metrics == {"exact/mean": 0.0}

    log_expectation(trace.trace_id, "answer", "Paris")
    evaluate([carried], [exact])
    [corrected] = search_traces()
    assert evaluate([corrected], [exact]).metrics == {"exact/mean": 1.0}


@pytest.mark.parametrize("store", STORES)
def test_traces_that_were_evaluated_are_as_small_as_before(store: Any) -> None:
    traces = load_traces(CAPTURE)
    before = [span.to_dict() for trace in load_traces(CAPTURE) for span in trace.spans]
    kept: list[Trace] = []

    def keeping(trace: Trace) -> bool:
        kept.append(trace)
        return bool(trace.tool_calls or trace.inputs)

    result = evaluate(traces, [keeping], store=store)

    decoded = [getattr(span, "_fields") for trace in traces for span in trace.arrived if isinstance(span, OtlpSpan)]  # noqa: B009
    assert decoded == [None] * len(before)
    # Whoever held on to what a scorer saw still has all of it.
    assert [span.to_dict() for trace in kept for span in trace.spans] == before
    assert all(span.parent in trace.spans for trace in kept for span in trace.spans if span is not trace.root)
    assert [row.trace_id for row in result.results] == [trace.trace_id for trace in traces]


def test_one_trace_in_many_rows_is_forgotten_by_one_while_others_look_at_it() -> None:
    [trace, *_] = load_traces(CAPTURE)
    expected = [(span.name, span.span_type, span.inputs) for span in trace.spans]

    def unharmed(trace: Trace) -> bool:
        return [(span.name, span.span_type, span.inputs) for span in trace.spans] == expected

    result = evaluate([{"trace": trace}] * 500, [unharmed], store=False)

    assert result.metrics == {"unharmed/mean": 1.0}


def test_tags_of_rows_are_searched() -> None:
    evaluate([{"inputs": {}, "tags": {"team": "a"}}, {"inputs": {}, "tags": {"team": 2}}], [])

    assert [trace.info.tags["team"] for trace in search_traces(filter_string="tags.team = 'a'")] == ["a"]
    assert len(search_traces(filter_string="tags.team = '2'")) == 1


def test_aggregations_have_mlflows_names_and_values() -> None:
    def span(numbers: Any) -> float:
        return float(max(numbers) - min(numbers))

    @scorer(aggregations=["min", "max", "mean", "median", "variance", "p90", span])
    def number(outputs: int) -> int:
        return outputs

    @scorer(aggregations=[])
    def nothing(outputs: int) -> int:
        return outputs

    result = evaluate([{"outputs": value} for value in (1, 2, 3, 4, 10)], [number, nothing])

    # numpy's min, max, mean, median, var and percentile(90).
    assert result.metrics == {
        "number/min": 1.0,
        "number/max": 10.0,
        "number/mean": 4.0,
        "number/median": 3.0,
        "number/variance": 10.0,
        "number/p90": pytest.approx(7.6),
        "number/span": 9.0,
    }


def test_feedback_of_another_name_has_its_mean_beside_what_its_scorer_asks_for() -> None:
    @scorer(aggregations=["max"])
    def several(outputs: int) -> list[Feedback]:
        return [Feedback("part", outputs), Feedback("group/several", outputs), Feedback(value=outputs)]

    @scorer(aggregations=[])
    def silent(outputs: int) -> list[Feedback]:
        return [Feedback("other", outputs), Feedback(value=outputs)]

    result = evaluate([{"outputs": 1}, {"outputs": 4}], [several, silent])

    assert result.metrics == {
        "part/mean": 2.5, "part/max": 4.0, "group/several/max": 4.0, "several/max": 4.0, "other/mean": 2.5,
    }  # fmt: skip


def test_an_aggregation_that_fails_costs_nothing_else() -> None:
    def breaks(numbers: Any) -> float:
        raise LookupError("no")

    with pytest.warns(UserWarning, match="No length/breaks: LookupError: no"):
        result = evaluate(ROWS, [length.with_options(aggregations=[breaks, "max"])])

    assert result.metrics == {"length/max": 5.0}


def test_errors_missing_values_and_not_applicable_enter_no_mean_and_are_counted_apart() -> None:
    @scorer
    def judge(outputs: Any, expectations: dict[str, Any]) -> Any:
        if outputs == "bad":
            raise ValueError(outputs)
        return {
            "none": Feedback(value=None, rationale="nothing to say"),
            "nothing": None,
            "yes": "Yes",
            "no": "no",
        }.get(outputs, outputs)

    rows: list[dict[str, Any]] = [
        {"outputs": outputs, "expectations": {}}
        for outputs in ("yes", "no", "bad", "none", "nothing", "other", math.inf, 1)
    ]

    result = evaluate([*rows, {"outputs": "x"}], [judge])

    [summary] = result.report.summaries
    assert result.metrics == {"judge/mean": pytest.approx(2 / 3)}
    assert (summary.errors, summary.no_value, summary.passed, summary.failed) == (2, 1, 1, 1)
    assert summary.pass_rate == 0.5
    assert dict(summary.outcomes) == {"no feedback": 1, "not_applicable": 1}


class TestPassing:
    def test_every_verdict_must_pass(self) -> None:
        assert evaluate(ROWS[:1], [exact]).passed
        failed = evaluate(ROWS, [exact])
        assert not failed.passed
        assert failed.reason == "2 assertions failed:\n  - exact: value=False\n  - exact: value=False"

    def test_pass_if_says_what_counts(self) -> None:
        assert evaluate(ROWS, [length.with_options(pass_if=">= 4")]).passed
        result = evaluate(ROWS, [length.with_options(pass_if=">= 5")])
        assert result.reason.count("length: value=4") == 2

    def test_a_number_that_nobody_can_tell_good_from_bad_does_not_pass(self) -> None:
        result = evaluate(ROWS[:1], [length])

        assert not result.passed
        assert result.reason.startswith("length: returned 5; assertions need a yes/no rating")

    def test_a_bound_on_the_mean_takes_the_place_of_the_single_values(self) -> None:
        assert evaluate(ROWS, [exact, length], fail_under={"exact": 0.3, "length": 4}).passed
        result = evaluate(ROWS, [exact], fail_under={"exact": 0.5, "other": 1.0})
        assert "exact: 0.333333 (at least 0.5)" in result.reason
        assert "other: no scored value" in result.reason

    def test_errors_are_forgiven_up_to_a_number(self) -> None:
        @scorer
        def picky(outputs: Any) -> bool:
            if outputs != "Paris":
                raise ValueError(outputs)
            return True

        assert "picky: ValueError: Rome" in evaluate(ROWS, [picky]).reason
        assert evaluate(ROWS, [picky], max_errors=2).passed

    def test_pass_if_that_raises_does_not_pass(self) -> None:
        result = evaluate(ROWS[:1], [length.with_options(pass_if=lambda value: bool(1 / 0))])

        assert not result.passed
        assert "pass_if: division by zero" in result.reason

    def test_what_says_neither_does_not_fail(self) -> None:
        @scorer
        def silent(outputs: Any) -> Any:
            return Feedback(value=None, rationale="nothing to evaluate")

        assert evaluate([*ROWS, {"outputs": "x"}], [silent, exact.with_options(pass_if="in [True, False]")]).passed


class TestStoring:
    def test_nothing_is_stored_where_nothing_is_wanted(self) -> None:
        result = evaluate(ROWS, [exact], store=False)

        assert len(result.results) == 3
        assert os.listdir() == []  # noqa: PTH208 - the names are enough

    def test_the_default_store_is_nothing_to_commit(self) -> None:
        evaluate(ROWS, [exact])

        assert Path(".otel_scorer/.gitignore").read_text(encoding="utf-8") == "*\n"
        assert Path(".otel_scorer/traces.db").exists()

    def test_the_environment_names_another_store(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("OTEL_SCORER_STORE", str(tmp_path / "there.db"))

        result = evaluate(ROWS, [exact])

        assert len(search_traces(result.run_id)) == 3
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".db"] == ["there.db"]

    def test_a_result_is_read_from_its_store_wherever_the_program_has_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = evaluate(ROWS, [exact])
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")

        assert values(result) == [[True], [False], [False]]
        assert result.results[0].outputs == "Paris"

    def test_there_is_nothing_to_find_without_a_store(self) -> None:
        with pytest.raises(ConfigError, match="There is no store"):
            search_traces()
        assert not Path(".otel_scorer").exists()

    def test_the_kind_of_result_must_be_known(self) -> None:
        with pytest.raises(ConfigError, match="`return_type`"):
            search_traces(return_type="spark")  # type: ignore[arg-type]

    def test_the_latest_traces_come_first_without_a_run(self) -> None:
        first, second = evaluate(ROWS, [exact]), evaluate(ROWS[:1], [exact])

        [latest] = search_traces(max_results=1)

        assert latest.trace_id == second.results[0].trace_id
        assert len(search_traces()) == 4
        assert len(search_traces(first.run_id, max_results=2)) == 2


class TestShowing:
    def test_a_result_shows_its_sums(self) -> None:
        result = evaluate(ROWS, [exact])

        assert result.run_id in repr(result)
        assert "exact/mean: 0.333333" in repr(result)

    def test_a_notebook_shows_a_table(self) -> None:
        assert "exact" in evaluate(ROWS, [exact])._repr_html_()

    def test_a_page_is_written(self, tmp_path: Path) -> None:
        evaluate(ROWS, [exact]).to_html(tmp_path / "report.html")

        assert "exact" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_class_scorers_keep_their_state_over_the_rows() -> None:
    class Counts(Scorer):
        name: str = "counts"

        def __init__(self, **data: Any) -> None:
            super().__init__(**data)
            self.seen = 0

        def __call__(self, outputs: Any) -> int:
            self.seen += 1
            return self.seen

    assert values(evaluate(ROWS, [Counts()])) == [[1], [2], [3]]


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []

    evaluate(ROWS, [exact], on_progress=lambda done, total: told.append((done, total)))

    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("predict_fn", ["answer", 5])
def test_what_is_called_must_be_a_function(predict_fn: Any) -> None:
    with pytest.raises(ConfigError, match="`predict_fn` must be a function, got"):
        evaluate(ROWS, [exact], predict_fn)


@pytest.mark.parametrize("limit", [-1, "3", True, 1.5])
def test_a_number_of_results_must_be_possible(limit: Any) -> None:
    evaluate(ROWS, [])

    with pytest.raises(ConfigError, match="`max_results` must be a whole number"):
        search_traces(max_results=limit)


@pytest.mark.parametrize("calls", [0, True, 2.5, "3"])
def test_a_number_of_calls_must_be_possible(calls: Any) -> None:
    with pytest.raises(ConfigError, match="`concurrency` must be at least 1, and a whole number"):
        evaluate(ROWS, [exact], concurrency=calls)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, True, "3", None])
def test_a_timeout_must_be_possible(seconds: Any) -> None:
    with pytest.raises(ConfigError, match="`timeout` must be a number of seconds"):
        evaluate(ROWS, [exact], timeout=seconds)


@pytest.mark.parametrize(
    ("fail_under", "message"),
    [
        ({"exact": math.nan}, "`fail_under` of 'exact' must be a finite number such as 0.9, got nan"),
        ({"exact": math.inf}, "finite number"),
        ({"exact": True}, "finite number such as 0.9, got True"),
        ({"exact": "0.9"}, "finite number such as 0.9, got '0.9'"),
        ({"exact": None}, "finite number"),
        ({3: 0.9}, "needs the names of feedback, got 3"),
        ({"": 0.9}, "needs the names of feedback"),
        (0.9, "must be a dict such as"),
        ("exact=0.9", "must be a dict such as"),
    ],
)
def test_a_bound_that_cannot_be_meant_is_an_error_before_anything_runs(fail_under: Any, message: str) -> None:
    ran: list[Any] = []

    with pytest.raises(ConfigError, match=message):
        evaluate(ROWS, [lambda outputs: ran.append(outputs)], fail_under=fail_under)  # noqa: PLW0108 - takes `outputs`

    assert ran == []
    assert not Path(".otel_scorer").exists()


@pytest.mark.parametrize("number", [-1, True, 1.5, "3", None])
def test_a_number_of_errors_must_be_possible(number: Any) -> None:
    with pytest.raises(ConfigError, match="`max_errors` must be a whole number, 0 or more"):
        evaluate(ROWS, [exact], max_errors=number)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (lambda outputs, reference: outputs == reference, "'lambda' needs 'reference', which nobody can give it"),
        (lambda session: session == [], "needs 'session', .* only single traces are scored, never sessions"),
    ],
)
def test_what_nobody_can_give_a_scorer_is_an_error_before_anything_runs(judge: Any, message: str) -> None:
    ran: list[Any] = []

    with pytest.raises(ScorerError, match=message):
        evaluate([{"inputs": {"n": 1}}], [judge], predict_fn=ran.append)

    assert ran == []
    assert not Path(".otel_scorer").exists()


def spoiling(name: str) -> Scorer:
    """A scorer that notes what it is given, and then empties it."""

    def spoil(
        inputs: dict[str, Any], outputs: Any, expectations: dict[str, Any], trace: Trace | None = None, **kwargs: Any
    ) -> Feedback:
        said = repr((inputs, outputs, expectations, kwargs))
        inputs["question"]["words"].clear()
        inputs.clear()
        outputs.append("spoiled")
        expectations["answer"].clear()
        if trace is not None:
            for value in (trace.inputs, trace.outputs):
                value.clear()
        return Feedback(value=said)

    return scorer(spoil, name=name)


def spoiled_row() -> dict[str, Any]:
    return {
        "inputs": {"question": {"words": ["where", "are", "you"]}},
        "outputs": ["here"],
        "expectations": {"answer": ["here"]},
    }


@pytest.mark.parametrize("predicts", [False, True])
@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize("store", STORES)
def test_what_a_scorer_does_to_its_values_touches_nobody_else(
    store: Literal[False] | None, as_stream: bool, predicts: bool
) -> None:
    given: list[dict[str, Any]] = [spoiled_row()]

    def predict(question: Any) -> list[str]:
        question.clear()
        return ["here"]

    result = evaluate(
        iter(given) if as_stream else given,
        [spoiling("first"), spoiling("second")],
        predict if predicts else None,
        store=store,
    )

    [row] = result.results
    first, second = [feedback.value for feedback in row.feedbacks]
    assert first == second
    assert "where" in first
    assert "spoiled" not in first
    assert (row.inputs, row.outputs) == (spoiled_row()["inputs"], ["here"])
    assert row.evidence().expectations == {"answer": ["here"]}
    assert given == [spoiled_row()]


@pytest.mark.parametrize("store", STORES)
def test_a_result_shows_what_was_judged_whatever_becomes_of_the_data(store: Literal[False] | None) -> None:
    given = [spoiled_row()]
    result = evaluate(given, [lambda outputs: len(outputs)], store=store)  # noqa: PLW0108 - takes `outputs`

    given[0]["inputs"]["question"]["words"].clear()
    given[0]["outputs"].clear()
    given[0]["expectations"].clear()

    [row] = result.results
    row.inputs.clear()
    assert (row.inputs, row.outputs) == (spoiled_row()["inputs"], ["here"])
    assert row.evidence().expectations == {"answer": ["here"]}


def test_a_generator_may_use_one_row_again_and_again() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"inputs": {"n": [0]}, "outputs": ""}
        for number in range(40):
            row["inputs"]["n"][0] = number
            yield row

    result = evaluate(rows(), [lambda inputs: inputs["n"][0]], store=False)

    assert [row.feedbacks[0].value for row in result.results] == list(range(40))
    assert [row.inputs["n"][0] for row in result.results] == list(range(40))


def test_a_scorer_may_use_one_dict_of_metadata_again_and_again() -> None:
    class Counting(Scorer):
        def __init__(self) -> None:
            super().__init__(name="counting")
            self.said: dict[str, str] = {}

        def __call__(self, outputs: Any) -> Feedback:
            self.said["n"] = str(outputs)
            return Feedback(value=True, metadata=self.said)

    result = evaluate([{"outputs": n} for n in range(3)], [Counting()], store=False)

    assert [row.feedbacks[0].metadata for row in result.results] == [{"n": "0"}, {"n": "1"}, {"n": "2"}]
