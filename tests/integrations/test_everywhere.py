"""Files with scorers of other packages run wherever ours do, and say the same everywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.dialects.test_sdk_spans import readable
from tests.e2e.sidecar import Sidecar, id_of
from tests.e2e.sink import WAIT, Sink
from tests.integrations.agent import agent_spans, agent_trace, judge, only

from otel_scorer import ScoringSpanProcessor, evaluate, get_scorer
from otel_scorer.errors import ConfigError
from otel_scorer.scorers import ScorerSpec, load_scorers
from otel_scorer.testing import make_request

pytestmark = pytest.mark.integrations

FOLDER = Path(__file__).parent / "scorers"
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "scorers.md"

# What each file says of the agent: the trace has two calls of tools, one in vain, and a short answer.
FILES = [
    pytest.param(
        "mlflow_file.py",
        {"word_count": 6, "tools": 2, "mentions": True, "in_celsius": "yes"},
        marks=pytest.mark.needs("mlflow"),
    ),
    pytest.param("deepeval_file.py", {"Pattern Match": 1.0, "Short answer": 1.0}, marks=pytest.mark.needs("deepeval")),
    pytest.param("phoenix_file.py", {"celsius": 1.0, "mentions_city": True}, marks=pytest.mark.needs("phoenix.evals")),
    pytest.param(
        "pydantic_file.py",
        {"Contains": True, "few_tools": False, "failed_tools": 1},
        marks=pytest.mark.needs("pydantic_evals"),
    ),
    pytest.param(
        "autoevals_file.py", {"ValidJSON": 0, "Levenshtein": pytest.approx(0.95)}, marks=pytest.mark.needs("autoevals")
    ),
]


def run(*command: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "otel_scorer", *command], capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """A file with the agent's trace."""
    file = tmp_path / "traces.pb"
    file.write_bytes(make_request(*agent_spans()))
    return str(file)


@pytest.mark.parametrize(("file", "said"), FILES)
def test_a_file_is_listed_and_scores_a_recording(file: str, said: dict[str, Any], recording: str) -> None:
    reference = str(FOLDER / file)

    listed = run("scorers", "list", reference)
    rows = [
        json.loads(row) for row in run("score", recording, "--scorers", reference, "--format", "jsonl").splitlines()
    ]

    assert {row["feedback"]["name"]: row["feedback"]["value"] for row in rows} == said
    assert all(row["scorer"] in listed for row in rows)


@pytest.mark.parametrize(("file", "said"), FILES)
def test_the_sidecar_says_the_same_from_its_worker_process(file: str, said: dict[str, Any], sink: Sink) -> None:
    trace = 1000 + [each.values[0] for each in FILES].index(file)
    sidecar = Sidecar("--export", sink.grpc, "--scorers", str(FOLDER / file), "--root-grace", "0.1")
    try:
        sidecar.send(make_request(*agent_spans(trace)))
        scores = sink.wait_for_scores(len(said), id_of(trace))
        assert sidecar.stop() == 0
    finally:
        sidecar.close()

    assert {score.name: score.value for score in scores} == said
    offline = {scorer.name: scorer.scorer_version for scorer in load_scorers([str(FOLDER / file)])}
    assert {score.attributes["otel_scorer.scorer.version"] for score in scores} == set(offline.values())


@pytest.mark.parametrize(("file", "said"), FILES)
def test_the_application_says_the_same(file: str, said: dict[str, Any]) -> None:
    exporter = InMemorySpanExporter()
    processor = ScoringSpanProcessor(exporter, [str(FOLDER / file)], emit=["events"])
    spans: list[ReadableSpan] = [readable(span) for span in agent_trace().spans]
    for span in spans:
        processor.on_start(span)  # type: ignore[arg-type] # it reads no more than a readable span has
    for span in reversed(spans):
        processor.on_end(span)
    processor.shutdown()

    [root] = [span for span in exporter.get_finished_spans() if span.name == "travel"]
    found = [dict(event.attributes or {}) for event in root.events]
    assert {event["gen_ai.evaluation.name"]: event["otel_scorer.value"] for event in found} == said


@pytest.mark.parametrize(
    ("file", "name"),
    [
        pytest.param("mlflow_file.py", "tools", marks=pytest.mark.needs("mlflow")),
        pytest.param("deepeval_file.py", "Pattern Match", marks=pytest.mark.needs("deepeval")),
        pytest.param("phoenix_file.py", "mentions_city", marks=pytest.mark.needs("phoenix.evals")),
        pytest.param("pydantic_file.py", "Contains", marks=pytest.mark.needs("pydantic_evals")),
        pytest.param("autoevals_file.py", "Levenshtein", marks=pytest.mark.needs("autoevals")),
    ],
)
def test_one_that_stands_in_a_module_can_be_registered(file: str, name: str, tmp_path: Path) -> None:
    store = tmp_path / "traces.db"
    [made] = [scorer for scorer in load_scorers([str(FOLDER / file)]) if scorer.name == name]

    made.with_options(sample_rate=0.5).register(store=store)

    again = get_scorer(name=name, store=store)
    assert (again.scorer_version, again.aggregations) == (made.scorer_version, made.aggregations)
    assert only(judge(again, agent_trace())).value == only(judge(made, agent_trace())).value


@pytest.mark.parametrize(
    ("use", "parameters", "value"),
    [
        pytest.param(
            str(FOLDER / "deepeval_file.py:ShortAnswer"), {"longest": 3}, 0.0, marks=pytest.mark.needs("deepeval")
        ),
        pytest.param(
            "pydantic_evals.evaluators:Contains", {"value": "Rome"}, False, marks=pytest.mark.needs("pydantic_evals")
        ),
        pytest.param(
            "phoenix.evals.metrics:MatchesRegex", {"pattern": "Rome"}, 0.0, marks=pytest.mark.needs("phoenix.evals")
        ),
        pytest.param("autoevals:ValidJSON", {}, 0, marks=pytest.mark.needs("autoevals")),
        pytest.param("mlflow.genai.scorers:RegexMatch", {"pattern": "Rome"}, "no", marks=pytest.mark.needs("mlflow")),
    ],
)
def test_a_class_is_made_with_parameters(use: str, parameters: dict[str, Any], value: object) -> None:
    [made] = load_scorers([ScorerSpec(use, name="mine", parameters=parameters)])

    assert only(judge(made, agent_trace())).value == value
    assert only(judge(made, agent_trace())).name in {"mine", "regex_match"}


@pytest.mark.needs("deepeval")
def test_a_class_that_cannot_be_made_says_why() -> None:
    with pytest.raises(ConfigError, match=r"cannot be made: TypeError: .*'pattern'"):
        load_scorers(["deepeval.metrics:PatternMatchMetric"])


@pytest.mark.needs("mlflow")
@pytest.mark.needs("deepeval")
@pytest.mark.needs("phoenix.evals")
@pytest.mark.needs("pydantic_evals")
@pytest.mark.needs("autoevals")
def test_the_example_in_the_documentation_does_what_it_says(tmp_path: Path, recording: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    [(name, code)] = re.findall(r"^```python\n# (foreign\w*\.py)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / name).write_text(code, encoding="utf-8")

    rows = [
        json.loads(row)
        for row in run("score", recording, "--scorers", str(tmp_path / name), "--format", "jsonl").splitlines()
    ]

    assert {row["decision"] for row in rows} <= {"scored", "not_applicable"}
    assert len(rows) >= 5


@pytest.mark.parametrize(("file", "said"), FILES)
def test_evaluate_takes_them_with_rows_and_with_traces(file: str, said: dict[str, Any], recording: str) -> None:
    scorers = load_scorers([str(FOLDER / file)])

    by_trace = evaluate([recording], scorers, store=False)
    rows = [{"inputs": {"question": "Weather?"}, "outputs": "It is 18 C in Paris."}]
    by_row = evaluate(rows, [made for made in scorers if made.name != "tools"], store=False)

    [judged] = by_trace.results
    assert {feedback.name: feedback.value for each in judged.decisions for feedback in each.feedbacks} == said
    [row] = by_row.results
    assert {str(each.outcome) for each in row.decisions} <= {"scored", "not_applicable"}
