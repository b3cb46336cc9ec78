"""What is taught, and what plugins bring, counts the same in files, the sidecar and the application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.dialects.installed import ACME_TRACE, TAUGHT_TRACE, TEACHING, acme_request, install, taught_request
from tests.e2e.sidecar import SCORERS, Sidecar
from tests.e2e.sink import Sink

from otel_scorer import ConfigError, evaluate, load_traces, search_traces
from otel_scorer.config import taught_reader
from otel_scorer.evaluation.stored import opened_store
from otel_scorer.model.decode import spans_from_request
from otel_scorer.model.trace import Trace
from otel_scorer.reporting.inspection import inspect_trace

ROOT = Path(__file__).resolve().parent.parent.parent
UNDERSTANDING = str(SCORERS / "understanding.py")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a plugin, and with one that cannot be imported."""
    code = (ROOT / "examples" / "acme_dialect.py").read_text(encoding="utf-8")
    install(tmp_path, "acme_dialect", code, acme="acme_dialect:DIALECT")
    install(tmp_path, "bad", "raise RuntimeError('boom')", bad="bad:DIALECT")
    (tmp_path / "taught.yaml").write_text(TEACHING + "assembly: {root_grace: 100ms}\n", encoding="utf-8")
    (tmp_path / "traces.binpb").write_bytes(acme_request() + taught_request())
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}


def run(environment: dict[str, str], folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "otel_scorer", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def is_understood(acme: dict[str, Any], taught: dict[str, Any]) -> None:
    assert acme["dialects"] == ["acme"]
    [call] = acme["tool_calls"]
    assert (call["name"], call["arguments"], call["result"]) == ("get_weather", {"city": "Paris"}, "18 C")
    assert (acme["session_id"], acme["model"]) == ("chat-1", "acme-1")
    assert taught["dialects"] == ["configuration"]
    [call] = taught["tool_calls"]
    assert (call["name"], call["arguments"], call["result"]) == ("weather", {"city": "Paris"}, "18 C")
    assert taught["usage"] == {"input_tokens": 5, "output_tokens": 2}
    assert (taught["inputs"], taught["model"], taught["session_id"]) == ("Weather?", "m-1", "s")


def test_files_are_understood(environment: dict[str, str], tmp_path: Path) -> None:
    inspected = run(
        environment, tmp_path, "inspect", "traces.binpb", "--format", "json", "--explain", "-c", "taught.yaml"
    )
    assert inspected.returncode == 0, inspected.stderr
    assert "Dialect plugin 'bad' (bad 1.2) is not used: bad:DIALECT: RuntimeError: boom" in inspected.stderr
    acme, taught = json.loads(inspected.stdout)
    is_understood(acme, taught)
    types = [span["explain"]["span_type"]["dialect"] for span in (*acme["spans"], *taught["spans"])]
    assert types == ["acme"] * 3 + ["configuration"] * 3

    scored = run(
        environment,
        tmp_path,
        *("score", "traces.binpb", "--scorers", UNDERSTANDING, "--format", "jsonl", "-c", "taught.yaml"),
    )
    assert scored.returncode == 0, scored.stderr
    found: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, scored.stdout.splitlines()):
        found.setdefault(line["trace_id"], {})[line["feedback"]["name"]] = json.loads(line["feedback"]["rationale"])
    is_understood(found[ACME_TRACE.hex()], found[TAUGHT_TRACE.hex()])


def test_scorer_processes_of_the_sidecar_understand(
    environment: dict[str, str], tmp_path: Path, sink: Sink, start: Callable[..., Sidecar]
) -> None:
    config = str(tmp_path / "taught.yaml")
    sidecar = start("-c", config, "--export", sink.grpc, "--scorers", UNDERSTANDING, environment=environment)
    fields = len(inspect_trace(Trace([], taught_reader({}))))

    sidecar.send(acme_request())
    sidecar.send(taught_request())
    scores = sink.wait_for_scores(2 * fields, ACME_TRACE, TAUGHT_TRACE)

    found: dict[bytes, dict[str, Any]] = {}
    for score in scores:
        found.setdefault(score.raw.trace_id, {})[score.name] = json.loads(str(score.explanation))
    is_understood(found[ACME_TRACE], found[TAUGHT_TRACE])
    assert "Dialect plugin 'bad'" in sidecar.log
    assert sidecar.stop() == 0


def test_check_says_what_is_understood(environment: dict[str, str], tmp_path: Path) -> None:
    checked = run(environment, tmp_path, "check", "-c", "taught.yaml")

    assert checked.returncode == 0, checked.stderr
    assert "reads       inputs from my.prompt\n" in checked.stdout
    assert "types       TOOL if name matches '^tool_.*'\n" in checked.stdout
    assert "speaks      acme (plugin acme of acme_dialect 1.2)\n" in checked.stdout
    assert "note        plugin bad of bad 1.2 is not used: bad:DIALECT: RuntimeError: boom\n" in checked.stdout

    (tmp_path / "wrong.yaml").write_text("dialects: {disabled: [acne]}\n", encoding="utf-8")
    wrong = run(environment, tmp_path, "check", "-c", "wrong.yaml")
    assert (wrong.returncode, wrong.stderr.splitlines()[-1]) == (
        2,
        "Error: dialects.disabled: there is no dialect 'acne'; did you mean acme?",
    )


def test_traces_loaded_in_python_are_understood(tmp_path: Path) -> None:
    (tmp_path / "taught.yaml").write_text(TEACHING, encoding="utf-8")
    (tmp_path / "traces.binpb").write_bytes(taught_request())

    by_file, by_mapping = (
        load_traces(tmp_path / "traces.binpb", dialects=dialects)
        for dialects in (tmp_path / "taught.yaml", {"attributes": {"tool_name": "my.tool"}})
    )

    assert [call.name for call in by_file[0].tool_calls] == ["weather"]
    assert by_mapping[0].dialects == ["configuration"]


def test_evaluate_understands_files_and_what_predict_fn_does(tmp_path: Path) -> None:
    from opentelemetry import trace as api

    (tmp_path / "traces.binpb").write_bytes(taught_request())
    taught = {
        "attributes": {"tool_name": "my.tool", "inputs": "my.prompt"},
        "span_types": [{"name": "^tool_", "type": "TOOL"}],
    }

    def tool_names(trace: Trace) -> str:
        return ",".join(call.name for call in trace.tool_calls)

    def predict(question: str) -> str:
        with api.get_tracer("my.app").start_as_current_span("tool_1", attributes={"my.tool": "search"}):
            return question

    of_files = evaluate([str(tmp_path / "traces.binpb")], [tool_names], store=False, dialects=taught)
    of_calls = evaluate([{"inputs": {"question": "x"}}], [tool_names], predict, tmp_path / "store.db", dialects=taught)

    for result, name in ((of_files, "weather"), (of_calls, "search")):
        [row] = result.results
        [decision] = row.decisions
        assert decision.feedbacks[0].value == name
    assert load_traces(tmp_path / "traces.binpb")[0].tool_calls == []


def test_stored_traces_are_understood(tmp_path: Path) -> None:
    (tmp_path / "traces.binpb").write_bytes(taught_request())
    (tmp_path / "taught.yaml").write_text(TEACHING, encoding="utf-8")
    store = tmp_path / "store.db"
    evaluate([str(tmp_path / "traces.binpb")], ["latency"], store=store)

    [untaught] = search_traces(store=store)
    [taught] = search_traces(store=store, dialects=tmp_path / "taught.yaml")

    assert untaught.tool_calls == []
    assert [call.name for call in taught.tool_calls] == ["weather"]
    assert search_traces(filter_string="span.type = 'TOOL'", store=store) == []
    assert search_traces(filter_string="span.type = 'TOOL'", store=store, dialects=tmp_path / "taught.yaml")
    with opened_store(store) as opened, pytest.raises(ConfigError, match="An open store knows the dialects"):
        search_traces(store=opened, dialects={})


IN_THE_APP = """
import json, sys
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otel_scorer import ScoringSpanProcessor

seen = []

def look(trace):
    seen.append([trace.dialects, [(call.name, call.arguments) for call in trace.tool_calls]])

processor = ScoringSpanProcessor(InMemorySpanExporter(), [look], dialects=sys.argv[1])
provider = TracerProvider()
provider.add_span_processor(processor)
with provider.get_tracer("acme.tracing").start_as_current_span("root", attributes={"acme.kind": "step"}):
    attributes = {"my.tool": "weather", "my.prompt": "Paris"}
    with provider.get_tracer("my.app").start_as_current_span("tool_1", attributes=attributes):
        pass
provider.shutdown()
print(json.dumps(seen))
"""


def test_the_processor_understands(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_THE_APP, "taught.yaml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert json.loads(done.stdout) == [[["acme", "configuration"], [["weather", "Paris"]]]], done.stderr


def test_the_processor_says_what_is_wrong_with_what_it_is_taught() -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from otel_scorer import ScoringSpanProcessor

    with pytest.raises(ConfigError, match=r"unknown key dialects\.attributes\.input; did you mean"):
        ScoringSpanProcessor(InMemorySpanExporter(), [len], dialects={"attributes": {"input": ["x"]}})


def test_a_trace_of_the_taught_reader_is_the_same_as_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "taught.yaml").write_text(TEACHING, encoding="utf-8")

    trace = Trace(spans_from_request(taught_request()), taught_reader(tmp_path / "taught.yaml"))

    assert [span.span_type for span in trace.spans] == ["AGENT", "CHAT_MODEL", "TOOL"]
