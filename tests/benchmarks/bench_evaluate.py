"""
How many rows and traces `evaluate` scores in a second, side by side with `mlflow.genai.evaluate` in one run.

The same rows, traces and scorers for both; MLflow without its rate limits, and with fewer rows, since it is slow. Ours
is measured with a store (what MLflow always does) and without. Where MLflow is not installed only ours is measured. Run
it as a program to see a table with the ratios: of CPU time, since what else a machine does would be measured otherwise.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_scorer.dialects import default_reader
from otel_scorer.evaluation.evaluating import evaluate
from otel_scorer.model.trace_bytes import trace_from_bytes
from otel_scorer.scorers.base import scorer

ITEMS = 10_000
ITEMS_OF_MLFLOW = 200
ROUNDS = 3
SPANS_PER_TRACE = 8
KINDS = ("rows", "traces")
WAYS = ("stored", "not stored")


def is_long_enough(outputs: Any) -> bool:
    return len(str(outputs)) > 3


def length(inputs: Any, outputs: Any) -> int:
    return len(str(inputs)) + len(str(outputs))


def is_polite(outputs: Any) -> str:
    return "yes" if "please" in str(outputs) else "no"


def uses_tools(trace: Any) -> int:
    return len(trace.search_spans(span_type="TOOL"))


SCORERS: dict[str, tuple[Callable[..., Any], ...]] = {
    "rows": (is_long_enough, length, is_polite),
    "traces": (is_long_enough, is_polite, uses_tools),
}


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"inputs": {"question": f"What is {number}?"}, "outputs": f"It is {number}, please."} for number in range(count)
    ]


def sdk_traces(count: int) -> list[list[ReadableSpan]]:
    """Traces of an agent that calls tools and a model, as OpenInference's instrumentations record them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("agent")
    traces: list[list[ReadableSpan]] = []
    for number in range(count):
        said = {"input.value": f"What is {number}?", "output.value": f"It is {number}, please."}
        with tracer.start_as_current_span("agent", attributes={"openinference.span.kind": "AGENT", **said}):
            for child in range(SPANS_PER_TRACE - 1):
                kind = "TOOL" if child % 2 else "LLM"
                with tracer.start_as_current_span(
                    f"step {child}", attributes={"openinference.span.kind": kind, "llm.model_name": "m", **said}
                ):
                    pass
        traces.append(list(exporter.get_finished_spans()))
        exporter.clear()
    return traces


@functools.cache
def encoded(count: int) -> list[bytes]:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return [encode_spans(spans).SerializeToString() for spans in sdk_traces(count)]


def ours(kind: str, way: str, count: int) -> Callable[[], object]:
    """Return one evaluation, with everything made that is not to be measured: traces come without a decoded view."""
    data: list[Any] = (
        rows(count) if kind == "rows" else [trace_from_bytes(one, b"", default_reader()) for one in encoded(count)]
    )
    scorers = [scorer(function) for function in SCORERS[kind]]
    path = Path(tempfile.mkdtemp()) / "traces.db"

    def run() -> object:
        return evaluate(data, scorers, store=False if way == "not stored" else path)

    return run


def mlflows(kind: str, count: int) -> Callable[[], object]:
    """Return the same evaluation with MLflow, with the settings that make it fastest."""
    os.environ |= {
        "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",
        "MLFLOW_GENAI_EVAL_SCORER_RATE_LIMIT": "0",
        "MLFLOW_GENAI_EVAL_MAX_WORKERS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TQDM_DISABLE": "1",
    }
    mlflow = importlib.import_module("mlflow")
    folder = Path(tempfile.mkdtemp())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    # Elsewhere than in the working folder, where it would leave a file for every trace.
    experiment = mlflow.create_experiment("bench", artifact_location=folder.joinpath("artifacts").as_uri())
    mlflow.set_experiment(experiment_id=experiment)
    scorers = [mlflow.genai.scorer(function) for function in SCORERS[kind]]
    data: Any = rows(count)
    if kind == "traces":
        for number in range(count):
            said = {"input": f"What is {number}?"}, f"It is {number}, please."
            with mlflow.start_span("agent", span_type="AGENT") as root:
                root.set_inputs(said[0])
                root.set_outputs(said[1])
                for child in range(SPANS_PER_TRACE - 1):
                    with mlflow.start_span(f"step {child}", span_type="TOOL" if child % 2 else "LLM") as span:
                        span.set_inputs(said[0])
                        span.set_outputs(said[1])
        mlflow.flush_trace_async_logging()
        data = mlflow.search_traces(locations=[experiment], max_results=count, return_type="list")
    return lambda: mlflow.genai.evaluate(data=data, scorers=scorers)


def per_second(run: Callable[[], object], count: int) -> float:
    gc.collect()
    # The garbage of one is not to be looked for in all that the other has imported.
    gc.freeze()
    start = time.process_time()
    run()
    found = count / (time.process_time() - start)
    gc.unfreeze()
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def bench_evaluate(benchmark: Any, kind: str, way: str) -> None:
    benchmark.extra_info["items"] = 1000

    benchmark.pedantic(lambda run: run(), setup=lambda: ((ours(kind, way, 1000),), {}), rounds=3)


def main() -> None:
    has_mlflow = importlib.util.find_spec("mlflow") is not None
    print(f"{'':8}{'otel_scorer, stored':>22}{'not stored':>14}{'MLflow':>10}{'ratios':>18}   items per CPU-second")
    for kind in KINDS:
        found: dict[str, list[float]] = {"stored": [], "not stored": [], "mlflow": []}
        for _ in range(ROUNDS):
            # In turns: a busy machine is unfair to all of them alike.
            for way in WAYS:
                found[way].append(per_second(ours(kind, way, ITEMS), ITEMS))
            if has_mlflow:
                found["mlflow"].append(per_second(mlflows(kind, ITEMS_OF_MLFLOW), ITEMS_OF_MLFLOW))
        stored, not_stored, theirs = (statistics.median(each or [0.0]) for each in found.values())
        ratios = f"{stored / theirs:.0f}x, {not_stored / theirs:.0f}x" if theirs else "-"
        print(f"{kind:8}{stored:22,.0f}{not_stored:14,.0f}{theirs:10,.1f}{ratios:>18}")


if __name__ == "__main__":
    main()
