"""pandas in and out: cells that hold nothing, MLflow's columns, and a message where pandas is not installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_scorer import ConfigError, Feedback, evaluate, load_traces, scorer, search_traces

CAPTURE = Path(__file__).resolve().parent.parent / "captures" / "openinference_openai.json"
needs_pandas = pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")


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


def frame(rows: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(rows)


@needs_pandas
def test_cells_that_hold_nothing_are_missing() -> None:
    pandas = pytest.importorskip("pandas")
    data = frame(
        {
            "inputs": [{"q": 1}, {"q": 2}, None, {"q": 4}],
            "outputs": ["a", float("nan"), "c", pandas.NA],
            "expectations": [{"answer": "a"}, {"answer": "b"}, float("nan"), pandas.NaT],
            "something else": [1, 2, 3, 4],
        }
    )

    result = evaluate(data, [exact, length])

    assert [[decision.outcome.value for decision in row.decisions] for row in result.results] == [
        ["scored", "scored"],
        ["not_applicable", "not_applicable"],
        ["not_applicable", "scored"],
        ["not_applicable", "not_applicable"],
    ]
    assert [row.inputs for row in result.results] == [{"q": 1}, {"q": 2}, None, {"q": 4}]


@needs_pandas
def test_a_column_of_nothing_is_a_column_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="Scorer 'exact' needs 'expectations'"):
        evaluate(frame({"outputs": ["a"], "expectations": [float("nan")]}), [exact])


@needs_pandas
def test_a_frame_of_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"none of the columns .* but \['question'\]"):
        evaluate(frame({"question": ["a"]}), [length])


@needs_pandas
def test_found_traces_are_a_frame_that_can_be_evaluated() -> None:
    first = evaluate([CAPTURE], [length])

    found = search_traces(run_id=first.run_id, return_type="pandas")
    again = evaluate(found, [length])

    assert list(found.columns[:4]) == ["trace_id", "trace", "client_request_id", "state"]
    assert again.metrics == first.metrics
    assert [row.trace_id for row in again.results] == list(found["trace_id"])
    assert list(found["response"]) == [trace.outputs for trace in load_traces(CAPTURE)]


@needs_pandas
@pytest.mark.parametrize("store", [None, False])
def test_a_result_is_a_frame_with_mlflows_columns(store: Any) -> None:
    @scorer
    def judge(outputs: Any) -> Any:
        from otel_scorer import Feedback

        if outputs == "bad":
            raise ValueError(outputs)
        return Feedback(value="yes", rationale="because")

    rows = [
        {"inputs": {"q": 1}, "outputs": "a", "expectations": {"answer": "a"}},
        {"inputs": {"q": 2}, "outputs": "bad", "expectations": {"answer": "b"}},
    ]
    result = evaluate(rows, [judge, exact], store=store)

    table = result.to_pandas()

    assert list(table.columns[:2]) == ["trace_id", "judge/value"]
    assert list(table["exact/value"]) == [True, False]
    assert table["judge/value"][0] == "yes"
    assert table["judge/rationale"][0] == "because"
    assert table["judge/error_message"][1] == "bad"
    assert list(table["answer/value"]) == ["a", "b"]
    assert list(table["request"]) == [{"q": 1}, {"q": 2}]
    assert list(table["response"]) == ["a", "bad"]
    assert result.tables["eval_results"].shape == table.shape


@needs_pandas
def test_what_predict_fn_raised_is_a_column() -> None:
    table = evaluate([{"inputs": {}}], [lambda trace: True], predict_fn=lambda: 1 / 0, store=False).result_df

    assert list(table["error"]) == ["ZeroDivisionError: division by zero"]
    assert list(table["state"]) == ["ERROR"]


@needs_pandas
def test_frames_hold_text_that_pandas_takes_with_every_kind_of_column() -> None:
    @scorer
    def torn(outputs: str) -> Feedback:
        return Feedback(name="torn \ud83d", value=outputs, rationale=outputs)

    result = evaluate([{"inputs": {"q": "a"}, "outputs": "half an emoji: \ud83d"}], [torn])

    tables = [result.to_pandas(), search_traces(run_id=result.run_id, return_type="pandas")]
    texts = [text for table in tables for text in (*table.columns, *table.iloc[0]) if isinstance(text, str)]
    assert "half an emoji: ?" in texts
    assert "".join(texts).encode()


def test_without_pandas_everything_else_works_and_frames_say_what_to_install() -> None:
    code = """
import sys
sys.modules["pandas"] = None
from otel_scorer import OtelScorerError, evaluate
result = evaluate([{"outputs": "x"}], [lambda outputs: True], store=False)
assert result.passed
try:
    result.result_df
except OtelScorerError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)

    assert done.stderr == ""
    assert done.stdout.strip() == "DataFrames need pandas: pip install pandas"


def test_evaluating_loads_neither_pandas_nor_the_store_unasked() -> None:
    code = """
import sys
from otel_scorer import evaluate
evaluate([{"outputs": "x"}], [lambda outputs: True], store=False).passed
print(*sorted({"pandas", "numpy", "sqlite3", "grpc", "yaml", "rich", "click"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)

    assert (done.stderr, done.stdout.strip()) == ("", "")


@needs_pandas
def test_columns_of_traces_are_those_of_mlflow() -> None:
    pandas = pytest.importorskip("pandas")
    run = evaluate([{"inputs": {"q": 1}, "outputs": "a", "tags": {"env": "test"}}], [length])

    found = search_traces(run_id=run.run_id, return_type="pandas")

    of_mlflow = [
        "trace_id", "trace", "client_request_id", "state", "request_time", "execution_duration", "request", "response",
        "trace_metadata", "tags", "spans", "assessments",
    ]  # fmt: skip
    assert list(found.columns) == of_mlflow
    assert list(run.result_df.columns) == ["trace_id", "length/value", *of_mlflow[1:]]
    for row in (found.iloc[0], run.result_df.iloc[0]):
        assert (row["request"], row["response"], row["tags"]) == ({"q": 1}, "a", {"env": "test"})
        assert row["trace_metadata"] == {}
        assert pandas.isna(row["client_request_id"])
