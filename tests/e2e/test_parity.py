"""
For the same trace, the same scorers say the same: in files, through the sidecar, and in the application.

Content that some instrumentations send as log records is joined in files and in the sidecar. The application has no
logs: there the processor is compared with the file without them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from tests.dialects.captured import CAPTURES, requests_of, traces_of
from tests.dialects.test_sdk_spans import readable
from tests.e2e.sidecar import SCORERS, Sidecar
from tests.e2e.sink import WAIT, Score, Sink

from otel_scorer import ScoringSpanProcessor

NAMES = sorted(path.stem for path in CAPTURES.glob("*.json"))
REFERENCES = ["tool_errors", "redundant_tool_calls", "latency", str(SCORERS / "parity.py")]
ALWAYS = {"tool_errors", "redundant_tool_calls", "latency", "overview", "failing", "unsure"}


class Said(NamedTuple):
    """One feedback, as far as every way tells it. `span`: the target; for a trace the span that stands for it."""

    trace: str
    scorer: str
    span: str
    name: str
    value: str
    rationale: str | None
    error: str | None


Verdicts = Counter[Said]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captures without their logs."""
    folder = tmp_path_factory.mktemp("captures")
    for name in NAMES:
        traces = [request for request in requests_of(name) if request["signal"] == "traces"]
        (folder / f"{name}.json").write_text(json.dumps({"requests": traces}), encoding="utf-8")
    return folder


def score_files(files: Sequence[Path]) -> Verdicts:
    """Return what `otel-scorer score` says."""
    command = [sys.executable, "-m", "otel_scorer", "score", *map(str, files), "--format", "jsonl"]
    ended = subprocess.run(
        [*command, "--scorers", *REFERENCES], capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return Verdicts(said for line in ended.stdout.splitlines() if (said := from_row(json.loads(line))) is not None)


def from_row(row: dict[str, Any]) -> Said | None:
    feedback = row["feedback"]
    if feedback is None:
        return None
    error = feedback["error"]
    value = feedback["value"]
    return Said(
        row["trace_id"],
        row["scorer"],
        row["span_id"],
        feedback["name"],
        text_of(value),
        (feedback["rationale"] if error is None else error["error_message"]) or None,
        None if error is None else error["error_code"],
    )


def text_of(value: object) -> str:
    """Return a value with its type; lists and dicts as the JSON text that an attribute holds."""
    return repr(json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value)


def from_attributes(trace: str, parent: str, attributes: dict[str, Any]) -> Said:
    return Said(
        trace,
        attributes["otel_scorer.scorer.name"],
        parent,
        attributes["gen_ai.evaluation.name"],
        repr(attributes.get("otel_scorer.value")),
        attributes.get("gen_ai.evaluation.explanation"),
        attributes.get("error.type"),
    )


@pytest.fixture(scope="module")
def with_logs() -> Verdicts:
    return score_files([CAPTURES / f"{name}.json" for name in NAMES])


@pytest.fixture(scope="module")
def without_logs(folder: Path) -> Verdicts:
    return score_files([folder / f"{name}.json" for name in NAMES])


@pytest.fixture(scope="module")
def through_sidecar(sink: Sink, folder: Path, with_logs: Verdicts) -> Verdicts:
    """What the sidecar's evaluation spans say, when every capture was sent to it as OTLP/JSON, logs too."""
    config = folder / "sidecar.yaml"
    config.write_text("assembly: {root_grace: 5s, local_root_grace: 5s, idle_timeout: 5s}\n", encoding="utf-8")
    sidecar = Sidecar("-c", str(config), "--export", sink.grpc, "--scorers", *REFERENCES)
    try:
        for name in NAMES:
            for request in requests_of(name):
                body = json.dumps(request["body"]).encode()
                answer = sidecar.post(body, f"/v1/{request['signal']}", content_type="application/json")
                assert (answer.status, answer.body) == (200, b"{}"), (name, answer)
        traces = [bytes.fromhex(trace) for trace in {said.trace for said in with_logs}]
        sink.wait_for_scores(with_logs.total(), *traces)
        assert sidecar.stop() == 0
    finally:
        sidecar.close()
    return Verdicts(from_score(score) for score in sink.scores_of(*traces))


def from_score(score: Score) -> Said:
    return from_attributes(score.raw.trace_id.hex(), score.span.parent_span_id.hex(), score.attributes)


class Kept(SpanExporter):
    """An exporter that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def through_processor(name: str) -> Verdicts:
    """Return what the processor's evaluation spans say, when the capture's spans start and end in this process."""
    exporter = Kept()
    processor = ScoringSpanProcessor(exporter, REFERENCES, emit=("evaluation_span",), export_spans=False)
    for trace in traces_of(name):
        spans = [readable(span) for span in trace.spans]
        for span in spans:
            processor.on_start(cast("Span", span))
        for span in reversed(spans):
            processor.on_end(span)
    assert processor.force_flush()
    processor.shutdown()
    found = Verdicts()
    for span in exporter.spans:
        assert span.context is not None
        assert span.parent is not None
        attributes = dict(span.attributes or {})
        found[from_attributes(f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}", attributes)] += 1
    return found


def of(name: str, verdicts: Verdicts) -> Verdicts:
    traces = {trace.trace_id for trace in traces_of(name)}
    return Verdicts({said: number for said, number in verdicts.items() if said.trace in traces})


def difference(one: Verdicts, other: Verdicts) -> tuple[list[Said], list[Said]]:
    return sorted((one - other).elements(), key=repr), sorted((other - one).elements(), key=repr)


@pytest.mark.parametrize("name", NAMES)
def test_the_sidecar_says_what_the_file_says(name: str, through_sidecar: Verdicts, with_logs: Verdicts) -> None:
    assert difference(of(name, through_sidecar), of(name, with_logs)) == ([], [])
    assert {said.scorer for said in of(name, through_sidecar)} >= ALWAYS


@pytest.mark.parametrize("name", NAMES)
def test_the_processor_says_what_the_file_says(name: str, without_logs: Verdicts) -> None:
    assert difference(through_processor(name), of(name, without_logs)) == ([], [])
