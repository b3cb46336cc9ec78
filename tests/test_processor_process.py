"""The processor in programs of their own: real backends, forks, signals and the end of the interpreter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk.trace.export import SpanExporter
from tests.instrumented_app import App, span_count
from tests.otlp_sink import Sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


def keys(span: SpanMessage) -> set[str]:
    return {pair.key for pair in span.attributes}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_real_backend_gets_every_span_once_and_the_verdict_on_the_root(sink: Sink, protocol: str) -> None:
    exporter: SpanExporter = (
        GrpcExporter(sink.grpc_address, insecure=True) if protocol == "grpc" else HttpExporter(sink.http_address)
    )
    app = App(span_count, exporter=exporter)

    trace_ids = [app.trace() for _ in range(20)]
    app.provider.shutdown()

    assert len({span.span_id for span in sink.spans}) == len(sink.spans) == 60
    assert {int.from_bytes(span.trace_id) for span in sink.spans} == set(trace_ids)
    roots = [span for span in sink.spans if span.name == "root"]
    assert all("otel_scorer.span_count.value" in keys(root) for root in roots)
    assert all([event.name for event in root.events] == ["gen_ai.evaluation.result"] for root in roots)


PROGRAM = """
import os, signal, sys, threading
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from otel_scorer.processor import ScoringSpanProcessor

def span_count(trace):
    return len(trace.spans)

async def later(trace):
    return True

provider = TracerProvider()
processor = ScoringSpanProcessor(OTLPSpanExporter(sys.argv[1]), [span_count, later])
provider.add_span_processor(processor)
tracer = provider.get_tracer("app")
"""


def run(program: str, sink: Sink, *, expected: int = 0, complains: bool = False) -> list[SpanMessage]:
    arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM + program, sink.http_address]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=100)

    assert (done.returncode, done.stderr if not complains else "") == (expected, "")
    return sink.spans


def names(spans: Sequence[SpanMessage]) -> Counter[str]:
    return Counter(span.name for span in spans)


def test_the_end_of_the_program_scores_and_exports_the_last_trace(sink: Sink) -> None:
    spans = run(
        """
with tracer.start_as_current_span("root"):
    with tracer.start_as_current_span("child"):
        pass
""",
        sink,
    )

    assert names(spans) == {"root": 1, "child": 1}
    [root] = [span for span in spans if span.name == "root"]
    assert {"otel_scorer.span_count.value", "otel_scorer.later.value"} <= keys(root)


def test_the_end_of_the_program_scores_a_trace_whose_root_never_ended(sink: Sink) -> None:
    spans = run(
        """
root = tracer.start_span("root")
with tracer.start_as_current_span("child", context=trace.set_span_in_context(root)):
    pass
""",
        sink,
    )

    assert names(spans) == {"child": 1, "evaluation span_count": 1, "evaluation later": 1}


def test_a_signal_that_ends_the_program_in_an_orderly_way_flushes(sink: Sink) -> None:
    spans = run(
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with tracer.start_as_current_span("root"):
    pass
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(20)
""",
        sink,
    )

    assert names(spans) == {"root": 1}


def test_a_forked_child_scores_its_own_traces_and_none_of_its_parents(sink: Sink) -> None:
    spans = run(
        """
with tracer.start_as_current_span("warm up"):
    pass
processor.force_flush()
with tracer.start_as_current_span("parent's root") as root:
    with tracer.start_as_current_span("parent's child"):
        pass
    child = os.fork()
    with tracer.start_as_current_span("child's part" if child == 0 else "parent's part"):
        pass
    if child == 0:
        with tracer.start_as_current_span("child's root", context=trace.set_span_in_context(trace.INVALID_SPAN)):
            pass
provider.shutdown()
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
""",
        sink,
    )

    assert names(spans) == {
        "warm up": 1,
        "parent's root": 1,
        "parent's child": 1,
        "parent's part": 1,
        "child's part": 1,
        "child's root": 1,
    }
    scored = {span.name for span in spans if "otel_scorer.later.value" in keys(span)}
    assert scored == {"warm up", "parent's root", "child's part", "child's root"}


@pytest.mark.parametrize("rate", ["0", "1"])
def test_a_span_that_was_open_at_a_fork_is_its_parents_scored_or_not(sink: Sink, rate: str) -> None:
    spans = run(
        f"""
import time
from otel_scorer import scorer
provider = TracerProvider()
provider.add_span_processor(
    ScoringSpanProcessor(OTLPSpanExporter(sys.argv[1]), [scorer(span_count, sample_rate={rate})])
)
tracer = provider.get_tracer("app")
started = time.time_ns()
with tracer.start_as_current_span("parent's root"):
    with tracer.start_as_current_span("parent's child"):
        child = os.fork()
        if child == 0:
            # As if it had begun before: some instrumentations say when.
            tracer.start_span("child's own", context=trace.set_span_in_context(trace.INVALID_SPAN),
                              start_time=started).end()
provider.shutdown()
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
""",
        sink,
    )

    assert names(spans) == {"parent's root": 1, "parent's child": 1, "child's own": 1}


def test_a_fork_in_a_thread_while_others_trace_does_not_hang_the_child(sink: Sink) -> None:
    spans = run(
        """
stop = threading.Event()
def work():
    while not stop.wait(0.001):
        with tracer.start_as_current_span("busy"):
            pass
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
statuses = []
def forks():
    for number in range(5):
        child = os.fork()
        if child == 0:
            with tracer.start_as_current_span(f"forked {number}"):
                pass
            provider.shutdown()
            os._exit(0)
        statuses.append(os.waitpid(child, 0)[1])
forking = threading.Thread(target=forks)
forking.start()
forking.join()
stop.set()
for thread in threads:
    thread.join()
sys.exit(any(statuses))
""",
        sink,
    )

    forked = [span for span in spans if span.name.startswith("forked")]
    assert len(forked) == 5
    assert all("otel_scorer.later.value" in keys(span) for span in forked)


def test_importing_the_processor_loads_no_server() -> None:
    code = "import sys, json, otel_scorer.processor; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert {"grpc", "uvicorn", "yaml", "sqlite3", "click", "rich"}.isdisjoint(json.loads(done.stdout))


def test_sigterm_is_left_to_the_application() -> None:
    before = signal.getsignal(signal.SIGTERM)

    App(span_count).provider.shutdown()

    assert signal.getsignal(signal.SIGTERM) is before


OPEN_ROOT = """
root = tracer.start_span("root")
with tracer.start_as_current_span("child", context=trace.set_span_in_context(root)):
    pass
"""


def test_sigterm_waits_for_scores_and_export_when_asked_to(sink: Sink) -> None:
    spans = run(
        f"""
processor.finish_on_sigterm()
with tracer.start_as_current_span("before"):
    pass
{OPEN_ROOT}
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(40)
""",
        sink,
        expected=-signal.SIGTERM,
    )

    assert names(spans) == {"before": 1, "child": 1, "evaluation span_count": 1, "evaluation later": 1}


def test_sigterm_leads_on_to_the_handler_of_the_application(sink: Sink) -> None:
    spans = run(
        f"""
signal.signal(signal.SIGTERM, lambda *_: (root.end(), sys.exit(3)))
processor.finish_on_sigterm()
{OPEN_ROOT}
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(40)
""",
        sink,
        expected=3,
    )

    assert names(spans) == {"root": 1, "child": 1}


def test_a_second_sigterm_does_not_wait(sink: Sink) -> None:
    spans = run(
        """
busy = threading.Event()
def hang(trace):
    busy.set()
    threading.Event().wait(60)
hanging = ScoringSpanProcessor(OTLPSpanExporter(sys.argv[1]), [hang], forwarding="passthrough")
provider.add_span_processor(hanging)
hanging.finish_on_sigterm()
with tracer.start_as_current_span("root"):
    pass
busy.wait(20)
os.kill(os.getpid(), signal.SIGTERM)
while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
    pass
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait(60)
""",
        sink,
        expected=-signal.SIGTERM,
        complains=True,
    )

    assert "evaluation hang" not in names(spans)


def test_a_forked_child_of_multiprocessing_scores_before_it_ends(sink: Sink) -> None:
    spans = run(
        """
import multiprocessing
def work(number):
    with tracer.start_as_current_span(f"job {number}"):
        pass
with tracer.start_as_current_span("parent"):
    pass
context = multiprocessing.get_context("fork")
children = [context.Process(target=work, args=(number,)) for number in range(3)]
for child in children:
    child.start()
for child in children:
    child.join(20)
""",
        sink,
    )

    assert names(spans) == {"parent": 1, "job 0": 1, "job 1": 1, "job 2": 1}
    assert all("otel_scorer.later.value" in keys(span) for span in spans)


def test_a_spawned_child_of_multiprocessing_has_a_processor_of_its_own(sink: Sink, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM
        + """
def work(number):
    with tracer.start_as_current_span(f"job {number}"):
        pass

if __name__ == "__main__":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(work, range(3)))
"""
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, sink.http_address],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert names(sink.spans) == {"job 0": 1, "job 1": 1, "job 2": 1}
    assert all("otel_scorer.later.value" in keys(span) for span in sink.spans)


# Each line that comes in is an invocation; the answer says whether everything was out when it ended.
INVOCATIONS = """
import itertools
second = threading.Event()
def slow(trace):
    return second.wait(40)
if len(sys.argv) > 2:
    provider = TracerProvider()
    processor = ScoringSpanProcessor(OTLPSpanExporter(sys.argv[1]), [slow], hold_deadline=60)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("app")
for number in itertools.count():
    if not sys.stdin.readline():
        break
    if number:
        second.set()
    with tracer.start_as_current_span(f"invocation {number}"):
        pass
    print(provider.force_flush(300 if not number and len(sys.argv) > 2 else 30_000), flush=True)
"""


def invoke_and_freeze(sink: Sink, *arguments: str, times: int) -> Iterator[str]:
    """Yield the answer to each invocation, while the process is frozen."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM + INVOCATIONS, sink.http_address, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(times):
            process.stdin.write("go\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
            process.send_signal(signal.SIGSTOP)
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield answer
            process.send_signal(signal.SIGCONT)
        process.stdin.close()
        assert process.wait(50) == 0


def test_a_process_that_is_frozen_after_each_invocation_has_sent_everything_before(sink: Sink) -> None:
    for number, answer in enumerate(invoke_and_freeze(sink, times=3)):
        assert answer == "True"
        assert names(sink.spans) == {f"invocation {each}": 1 for each in range(number + 1)}
        assert all("otel_scorer.later.value" in keys(span) for span in sink.spans)


def test_an_invocation_does_not_wait_longer_than_its_flush_and_what_is_left_goes_with_the_next_one(sink: Sink) -> None:
    answers = list(invoke_and_freeze(sink, "slow", times=2))

    assert answers == ["False", "True"]
    assert names(sink.spans) == {"invocation 0": 1, "invocation 1": 1}
    assert all("otel_scorer.slow.value" in keys(span) for span in sink.spans)
