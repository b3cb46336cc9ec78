"""Scores by the environment alone: the exporter and the hook as auto-instrumentation uses them, in real programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.otlp_sink import Sink

# The exporter alone may see its first spans there.
THREADS_AT_EXIT = not (3, 12) <= sys.version_info < (3, 12, 3)
ends_with_threads = pytest.mark.skipif(not THREADS_AT_EXIT, reason="Python 3.12.0 to 3.12.2 start no threads at exit")

SCORERS = """
from pathlib import Path
from otel_scorer import Trace, scorer

@scorer
def span_count(trace: Trace) -> int:
    Path("scored").touch()
    return len(trace.spans)
"""

PROGRAM = """
import os, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from otel_scorer.zero_code import ScoringSpanExporter, post_instrument

provider = TracerProvider(sampler=SAMPLER)
exporter = ScoringSpanExporter(**arguments)
provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=int(os.environ.get('DELAY', '50'))))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("app")

def work(context=None):
    with tracer.start_as_current_span("root", context=context):
        with tracer.start_as_current_span("child"):
            pass
"""


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "judges.py").write_text(SCORERS)
    (tmp_path / "quick.yaml").write_text("scorers: [judges.py]\nassembly: {root_grace: 100ms, idle_timeout: 1s}\n")
    return tmp_path


class Program:
    """A program that runs to its end: what its backend got, and what it said."""

    def __init__(
        self, code: str, sink: Sink, folder: Path, *, arguments: str = "{}", sampler: str = "None", **env: str
    ) -> None:
        program = f"arguments = {arguments}\n{PROGRAM.replace('SAMPLER', sampler)}{code}"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            check=False,
            capture_output=True,
            text=True,
            timeout=100,
            cwd=folder,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
                "OTEL_EXPORTER_OTLP_ENDPOINT": sink.http_address.removesuffix("/v1/traces"),
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                **env,
            },
        )
        self.errors = done.stderr
        assert done.returncode == 0, done.stderr
        self.spans: Sequence[SpanMessage] = sink.spans

    @property
    def names(self) -> Counter[str]:
        return Counter(span.name for span in self.spans)

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
                for pair in span.attributes
            }
            for span in self.spans
            if span.name == name
        ]


COUNT = "otel_scorer.span_count.value"
REASON = "otel_scorer.close_reason"

SCORED = """
import threading, time
until = time.monotonic() + 20
work()
while not os.path.exists("scored") and time.monotonic() < until:
    threading.Event().wait(0.02)
exporter.force_flush()
"""


def test_an_exporter_alone_scores_a_trace_when_nothing_new_has_come(sink: Sink, folder: Path) -> None:
    done = Program(SCORED, sink, folder, OTEL_SCORER_CONFIG="quick.yaml")

    assert done.errors == ""
    assert done.names == {"root": 1, "child": 1}
    assert done["root"] == [done["root"][0] | {COUNT: 2, REASON: "root_quiet", "otel_scorer.complete": True}]


@ends_with_threads
def test_the_end_of_the_program_scores_what_still_waits(sink: Sink, folder: Path) -> None:
    done = Program("work()", sink, folder, OTEL_SCORER_SCORERS="judges.py")

    assert done.names == {"root": 1, "child": 1}
    assert done["root"] == [done["root"][0] | {COUNT: 2, REASON: "shutdown"}]


def test_where_no_thread_starts_at_the_end_spans_are_exported_as_they_are(sink: Sink, folder: Path) -> None:
    code = """
import atexit, threading
def start(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")
# Runs before the SDK's own, which came first.
atexit.register(setattr, threading.Thread, "start", start)
work()
work()
"""

    done = Program(code, sink, folder, OTEL_SCORER_SCORERS="judges.py")

    assert done.names == {"root": 2, "child": 2}
    assert done.errors.count("scores nothing, spans are exported as they are: can't create new thread") == 1
    assert "Traceback" not in done.errors


@ends_with_threads
def test_each_entry_of_a_remote_trace_is_scored_on_its_own(sink: Sink, folder: Path) -> None:
    done = Program(
        """
for number in range(3):
    caller = SpanContext(7, 100 + number, is_remote=True, trace_flags=TraceFlags(1))
    work(set_span_in_context(NonRecordingSpan(caller)))
""",
        sink,
        folder,
        OTEL_SCORER_SCORERS="judges.py",
    )

    assert done.names == {"root": 3, "child": 3}
    assert [root[COUNT] for root in done["root"]] == [2, 2, 2]


def test_the_hook_has_spans_counted_and_every_span_leaves_once(sink: Sink, folder: Path) -> None:
    done = Program(
        """
tracer.start_span("before").end()
post_instrument()
for _ in range(20):
    work()
""",
        sink,
        folder,
        OTEL_SCORER_SCORERS="judges.py",
        DELAY="5000",
    )

    assert done.errors == ""
    assert done.names == {"before": 1, "root": 20, "child": 20}
    assert {(root[COUNT], root[REASON]) for root in done["root"]} == {(2, "all_closed")}


@ends_with_threads
def test_the_log_says_how_traces_close(sink: Sink, folder: Path) -> None:
    code = "import logging; logging.basicConfig(level=logging.INFO)\n"

    quiet = Program(code + "work()", sink, folder, OTEL_SCORER_CONFIG="quick.yaml")
    counted = Program(code + "post_instrument(); work()", sink, folder, OTEL_SCORER_SCORERS="judges.py, latency")

    assert "Scoring with span_count; a trace closes when nothing new has come for a while (root_quiet" in quiet.errors
    assert (
        "Scoring with span_count, latency; a trace closes when its last span here has ended (all_closed"
        in counted.errors
    )


@ends_with_threads
def test_without_its_variable_the_hook_does_nothing(sink: Sink, folder: Path) -> None:
    done = Program(
        "post_instrument(); work(); print(exporter.exports_spans, file=sys.stderr)",
        sink,
        folder,
        OTEL_SCORER_CONFIG="quick.yaml",
    )

    assert done.errors == "True\n"


def test_beside_the_otlp_exporter_the_hook_sends_verdicts_only(sink: Sink, folder: Path) -> None:
    done = Program(
        """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
trace._TRACER_PROVIDER = provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("app")
post_instrument()
work()
""",
        sink,
        folder,
        OTEL_SCORER_SCORERS="judges.py",
        OTEL_TRACES_EXPORTER="otlp",
    )

    assert done.names == {"root": 1, "child": 1, "evaluation span_count": 1}


def test_the_hook_says_so_if_nothing_will_be_scored(sink: Sink, folder: Path) -> None:
    code = "trace._TRACER_PROVIDER = TracerProvider()\npost_instrument()"

    done = Program(code, sink, folder, OTEL_SCORER_SCORERS="judges.py", OTEL_TRACES_EXPORTER="console")

    assert "Set OTEL_TRACES_EXPORTER=otel_scorer" in done.errors


@ends_with_threads
def test_arguments_of_a_declarative_configuration_win(sink: Sink, folder: Path) -> None:
    arguments = {
        "scorers": ["judges.py"],
        "emit": ["evaluation_span"],
        "endpoint": sink.http_address,
        "protocol": "http/protobuf",
        "headers": [{"name": "x-key", "value": "1"}],
        "timeout": 5000,
    }

    done = Program(
        "work()",
        sink,
        folder,
        arguments=repr(arguments),
        OTEL_SCORER_SCORERS="latency",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )

    assert done.names == {"root": 1, "child": 1, "evaluation span_count": 1}


@ends_with_threads
def test_the_configuration_file_says_where_to_export_to(sink: Sink, folder: Path) -> None:
    (folder / "all.yaml").write_text(
        f"""
scorers: [{{use: judges.py, name: how_many}}]
exporters:
  otlp: {{endpoint: "{sink.http_address.removesuffix("/v1/traces")}", protocol: http/protobuf}}
  file: {{path: spans.jsonl}}
"""
    )

    done = Program(
        "post_instrument(); work()",
        sink,
        folder,
        OTEL_SCORER_CONFIG="all.yaml",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )

    assert done["root"][0]["otel_scorer.how_many.value"] == 2
    assert "otel_scorer.how_many.value" in (folder / "spans.jsonl").read_text()


MISTAKES = {
    "no such scorers": ({"OTEL_SCORER_SCORERS": "nothing_there"}, "'nothing_there'"),
    "scorers that cannot be imported": ({"OTEL_SCORER_SCORERS": "broken.py"}, "broken.py"),
    "no scorers at all": ({}, "no scorers are named: set OTEL_SCORER_SCORERS"),
    "no such way to write verdicts": (
        {"OTEL_SCORER_SCORERS": "judges.py", "OTEL_SCORER_EMIT": "smoke"},
        "emit='smoke'",
    ),
    "no such file": ({"OTEL_SCORER_CONFIG": "none.yaml", "OTEL_SCORER_SCORERS": "judges.py"}, "none.yaml"),
    "a key that is none": ({"OTEL_SCORER_CONFIG": "typo.yaml"}, "did you mean scorers?"),
}


@pytest.mark.parametrize(
    "hook",
    [pytest.param("", id="exporter", marks=ends_with_threads), pytest.param("post_instrument()\n", id="hook")],
)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_once_and_spans_are_exported_as_they_are(
    mistake: str, hook: str, sink: Sink, folder: Path
) -> None:
    (folder / "broken.py").write_text("import nothing_at_all")
    (folder / "typo.yaml").write_text("scorer: [judges.py]")
    env, message = MISTAKES[mistake]

    done = Program(f"{hook}work()\nwork()", sink, folder, **env)

    assert done.names == {"root": 2, "child": 2}
    assert not any(key.startswith("otel_scorer") for root in done["root"] for key in root)
    assert done.errors.count("otel_scorer scores nothing") == 1
    assert message in done.errors
    assert "Traceback (most recent call last)" not in done.errors


def test_a_protocol_that_is_none_is_said_and_the_usual_one_taken(sink: Sink, folder: Path) -> None:
    done = Program(
        "work()",
        sink,
        folder,
        OTEL_SCORER_SCORERS="judges.py",
        OTEL_EXPORTER_OTLP_PROTOCOL="pigeon",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{sink.grpc_address}",
    )

    assert "no exporter for 'pigeon' is installed" in done.errors
    assert done.names == {"root": 1, "child": 1}


def test_a_mistake_is_shown_at_the_console_if_nothing_else_would(sink: Sink, folder: Path) -> None:
    code = "import logging; logging.getLogger().addHandler(logging.NullHandler())\nwork()"

    done = Program(code, sink, folder, OTEL_SCORER_SCORERS="nothing_there")

    assert done.errors.count("otel_scorer scores nothing") == 1


@pytest.mark.parametrize("sampler", ["None", "ALWAYS_ON"])
def test_what_a_scorer_does_is_never_scored(sampler: str, sink: Sink, folder: Path) -> None:
    (folder / "busy.py").write_text(
        """
from pathlib import Path
from opentelemetry import trace
from otel_scorer import scorer

@scorer
def busy(trace):
    return judged()

@scorer
async def busy_too(trace):
    return judged()

def judged():
    Path("scored").touch()
    with trace.get_tracer("judge").start_as_current_span("judge"):
        return True
"""
    )
    (folder / "busy.yaml").write_text("scorers: [busy.py]\nassembly: {root_grace: 50ms, idle_timeout: 50ms}\n")

    done = Program(SCORED + "work()\n", sink, folder, sampler=sampler, OTEL_SCORER_CONFIG="busy.yaml")

    assert done.names["root"] == done.names["child"] == 2
    assert bool(done.names["judge"]) == (sampler == "ALWAYS_ON")
    assert all("otel_scorer.busy.value" in root and "otel_scorer.busy_too.value" in root for root in done["root"])
    assert not any(key.startswith("otel_scorer") for judge in done["judge"] for key in judge)


def test_scorers_are_not_imported_before_there_is_a_span(sink: Sink, folder: Path) -> None:
    code = "post_instrument(); print([name for name in sys.modules if 'judges' in name], file=sys.stderr)"

    done = Program(code, sink, folder, OTEL_SCORER_SCORERS="judges.py")

    assert done.errors == "[]\n"


def test_the_hook_costs_nobody_an_import_who_does_not_use_it() -> None:
    code = """
import sys, otel_scorer.zero_code
otel_scorer.zero_code.post_instrument()
print({"grpc", "pydantic", "yaml", "otel_scorer.processor"} & set(sys.modules))
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)

    assert done.stdout == "set()\n"


@pytest.mark.parametrize("hook", ["", "post_instrument()\n"], ids=["exporter", "hook"])
def test_a_forked_child_scores_its_own_traces(hook: str, sink: Sink, folder: Path) -> None:
    done = Program(
        f"""
{hook}
work()
child = os.fork()
work()
provider.shutdown()
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""",
        sink,
        folder,
        OTEL_SCORER_SCORERS="judges.py",
    )

    assert done.names == {"root": 3, "child": 3}
    assert [root[COUNT] for root in done["root"]] == [2, 2, 2]
