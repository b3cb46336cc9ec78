"""The pytest plugin as its users have it: in a pytest of its own, found as an entry point where it is installed."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from otel_scorer.stores.database import open_database
from otel_scorer.stores.trace_store import Entry, TraceRecord, TraceStore
from otel_scorer.testing import make_request, make_span, make_trace

pytest_plugins = ["pytester"]

CAPTURES = Path(__file__).resolve().parents[1] / "captures"
CAPTURE = CAPTURES / "openinference_openai.json"
IS_INSTALLED = any(each.value == "otel_scorer.pytest_plugin" for each in entry_points(group="pytest11"))
PLUGIN = () if IS_INSTALLED else ("-p", "otel_scorer.pytest_plugin")

AN_AGENT = """
    import asyncio
    import threading

    import pytest
    from opentelemetry import trace

    tracer = trace.get_tracer("app")

    def call_tool(name, fails=False):
        with tracer.start_as_current_span(f"execute_tool {name}") as span:
            span.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name})
            if fails:
                span.set_status(trace.StatusCode.ERROR, "no answer")

    def agent(*tools, fails=False):
        with tracer.start_as_current_span("agent") as span:
            span.set_attribute("gen_ai.operation.name", "invoke_agent")
            for tool in tools:
                call_tool(tool, fails)
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(*PLUGIN, "-p", "no:cacheprovider", *args)


def agent_tests(pytester: pytest.Pytester, text: str) -> None:
    pytester.makepyfile(AN_AGENT + text)


def test_a_test_run_that_does_not_use_it_pays_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            heavy = {"opentelemetry", "grpc", "google.protobuf", "pydantic", "rich", "sqlite3", "otel_scorer.model"}
            assert not heavy & set(sys.modules)
            assert "otel_scorer.pytest_plugin" in sys.modules
        """
    )

    run(pytester, "-W", "error", "--strict-config", "--strict-markers").assert_outcomes(passed=1)


def test_it_may_be_imported_before_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    arguments = [*PLUGIN, "-q", "-W", "error", "-p", "no:cacheprovider"]

    done = pytester.run(
        sys.executable,
        "-c",
        f"import otel_scorer.pytest_plugin, pytest; raise SystemExit(pytest.main({arguments!r}))",
    )

    assert done.ret == 0


def test_the_spans_of_a_test_are_its_traces(pytester: pytest.Pytester) -> None:
    agent_tests(
        pytester,
        """
    def test_one(otel_scorer_traces):
        agent("search", "search")
        trace_ = otel_scorer_traces.trace
        assert [span.name for span in trace_.spans] == ["agent", "execute_tool search", "execute_tool search"]
        assert (trace_.close_reason, trace_.is_complete) == ("all_closed", True)
        otel_scorer_traces.assert_scores("tool_errors", "latency", pass_if={"latency": "< 10"})
        with pytest.raises(AssertionError, match="lambda: False on agent"):
            otel_scorer_traces.assert_scores(lambda trace: False)

    def test_another_sees_only_its_own(otel_scorer_traces):
        agent("search")
        assert len(otel_scorer_traces.trace.spans) == 2

    def test_threads_and_tasks(otel_scorer_traces):
        async def work():
            await asyncio.gather(*(asyncio.to_thread(agent, "a") for _ in range(3)))
        asyncio.run(work())
        thread = threading.Thread(target=agent, args=("b",))
        thread.start()
        thread.join()
        assert len(otel_scorer_traces.traces) == 4

    def test_the_provider_is_gone_afterwards():
        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        agent("search")

    def test_what_goes_on_in_the_background_can_be_waited_for(otel_scorer_traces):
        begun, go_on = threading.Event(), threading.Event()

        def work():
            with tracer.start_as_current_span("late"):
                begun.set()
                go_on.wait(30)

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait(30)
        with pytest.raises(AssertionError, match="1 spans were started, none has ended"):
            otel_scorer_traces.assert_scores("tool_errors")
        with pytest.raises(TimeoutError):
            otel_scorer_traces.wait(timeout=0.01)
        go_on.set()
        otel_scorer_traces.wait()
        assert otel_scorer_traces.trace.root.name == "late"

    def test_spans_of_scorers_are_not_captured(otel_scorer_traces):
        agent("search")
        def scores(trace):
            call_tool("of the scorer")
            return True
        otel_scorer_traces.assert_scores(scores)
        assert len(otel_scorer_traces.traces) == 1

    def test_expectations_can_be_said(otel_scorer_traces):
        agent("search")
        otel_scorer_traces.expect(expected_tools=["search"])
        otel_scorer_traces.assert_scores(
            lambda trace, expectations: [c.name for c in trace.tool_calls] == expectations["expected_tools"]
        )
        otel_scorer_traces.clear()
        assert otel_scorer_traces.traces == []
        with pytest.raises(AssertionError, match="No span was captured"):
            otel_scorer_traces.trace
    """,
    )

    run(pytester, "-W", "error").assert_outcomes(passed=7)


def test_an_application_that_has_set_a_provider_keeps_it_and_its_exporters(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        """
    )
    agent_tests(
        pytester,
        """
    import conftest

    kept = []

    @pytest.mark.parametrize("time", [1, 2])
    def test_captured(otel_scorer_traces, time):
        agent("search")
        assert trace.get_tracer_provider() is conftest.provider
        assert len(otel_scorer_traces.trace.spans) == 2
        assert len(conftest.exporter.get_finished_spans()) == 2 * time
        kept.append(otel_scorer_traces)

    def test_one_processor_of_ours_for_all_tests_that_is_idle_between_them():
        agent("search")
        assert len(conftest.provider._active_span_processor._span_processors) == 2
        assert [len(each.traces) for each in kept] == [1, 1]
    """,
    )

    run(pytester, "-W", "error").assert_outcomes(passed=3)


def test_a_provider_can_be_given_or_made_by_the_test(pytester: pytest.Pytester) -> None:
    agent_tests(
        pytester,
        """
    from opentelemetry.sdk.trace import TracerProvider

    class TestGiven:
        @pytest.fixture
        def otel_scorer_tracer_provider(self):
            return TracerProvider()

        def test_its_spans_count_and_no_others(self, otel_scorer_traces, otel_scorer_tracer_provider):
            agent("search")
            with otel_scorer_tracer_provider.get_tracer("x").start_as_current_span("mine"):
                pass
            assert [each.root.name for each in otel_scorer_traces.traces] == ["mine"]

    def test_no_provider_at_all(otel_scorer_traces):
        with pytest.raises(TypeError, match="str is no TracerProvider"):
            otel_scorer_traces.watch("x")

    def test_made_by_the_test(otel_scorer_traces):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
        otel_scorer_traces.watch(provider)
        with trace.get_tracer("y").start_as_current_span("made"):
            pass
        assert otel_scorer_traces.trace.root.name == "made"

    def test_which_stays():
        assert isinstance(trace.get_tracer_provider(), TracerProvider)
    """,
    )

    run(pytester, "-W", "error").assert_outcomes(passed=4)


def test_a_failure_shows_the_reason_and_the_tree_and_nothing_of_ours(pytester: pytest.Pytester) -> None:
    agent_tests(
        pytester,
        """
    def test_it(otel_scorer_traces):
        agent("search", fails=True)
        otel_scorer_traces.assert_scores("tool_errors")
    """,
    )

    result = run(pytester)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        ">*otel_scorer_traces.assert_scores(*tool_errors*)",
        "E * AssertionError: tool_errors: False on agent",
        "E * 1 of 1 tool call failed: search (no answer)",
        "E *└── agent  AGENT *",
        "E *    └── execute_tool search  TOOL * ERROR no answer",
        "FAILED *test_it*",
    ])  # fmt: skip
    result.stdout.no_fnmatch_line("*def assert_scores*")


STORED = """
    import pytest
    from otel_scorer.pytest_plugin import assert_scores

    {marker}
    def test_stored(otel_scorer_trace):
        assert_scores(otel_scorer_trace, "tool_errors")
"""


def stored_test(pytester: pytest.Pytester, marker: str = "") -> None:
    pytester.makepyfile(STORED.format(marker=marker))


@pytest.mark.parametrize("way", ["marker", "option", "ini", "the root of the tests"])
def test_a_test_runs_once_per_stored_trace(pytester: pytest.Pytester, way: str) -> None:
    (pytester.path / "traces.json").write_bytes(CAPTURE.read_bytes())
    if way == "ini":
        pytester.makeini("[pytest]\notel_scorer_traces = traces.json\n")
    stored_test(pytester, {"marker": '@pytest.mark.traces("traces.json")'}.get(way, ""))
    options: list[str] = ["--otel-scorer-traces", "traces.json"] if way == "option" else []
    if way == "the root of the tests":
        pytester.mkdir("tests").joinpath("test_deep.py").write_text(
            (pytester.path / "test_a_test_runs_once_per_stored_trace.py")
            .read_text(encoding="utf-8")
            .replace("def test_stored", '@pytest.mark.traces("traces.json")\ndef test_stored'),
            encoding="utf-8",
        )
        options = ["tests"]

    result = run(pytester, "-v", "-W", "error", "--strict-markers", *options)

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*test_stored?travel_agent-503399e1? FAILED*"])


def test_stored_traces_are_the_same_for_all_workers(pytester: pytest.Pytester) -> None:
    stored_test(pytester, f"@pytest.mark.traces({str(CAPTURE)!r}, {str(CAPTURES / 'strands.json')!r})")

    result = run(pytester, "-n", "2")

    result.assert_outcomes(passed=2, failed=2)


def test_stored_traces_come_from_a_store_too(pytester: pytest.Pytester) -> None:
    with open_database(pytester.path / "traces.db") as database:
        store = TraceStore(database)
        run_id = store.start_run()
        for number in (1, 2):
            span = make_span(f"agent {number}", trace=number, start=number)
            record = TraceRecord.of(make_trace(span), spans=make_request(span))
            store.put([Entry(record)], run_id if number == 1 else None)
    stored_test(pytester, f'@pytest.mark.traces(store="traces.db", run_id="{run_id}")')

    marked = run(pytester, "-v")
    stored_test(pytester)
    named = run(pytester, "-v", "--otel-scorer-traces", "traces.db")

    assert len([line for line in marked.stdout.lines if "agent_1-" in line and "::" in line]) >= 1
    assert not [line for line in marked.stdout.lines if "agent_2-" in line]
    assert [line for line in named.stdout.lines if "agent_2-" in line]


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('@pytest.mark.traces("missing.json")', "*missing.json: No such file or directory*"),
        ('@pytest.mark.traces("damaged.json")', "*damaged.json*line*"),
        ('@pytest.mark.traces("empty.json")', "*there is no trace in what otel_scorer_trace is read from*"),
        ('@pytest.mark.traces(store="missing.db")', "*there is no store *missing.db*"),
        ("@pytest.mark.traces()", "*the marker traces needs a file or store=*"),
    ],
)
def test_traces_that_cannot_be_read_are_one_clear_error(pytester: pytest.Pytester, marker: str, message: str) -> None:
    (pytester.path / "damaged.json").write_bytes(b'{"resourceSpans": [}\n')
    (pytester.path / "empty.json").write_bytes(b'{"resourceSpans": []}\n')
    stored_test(pytester, marker)

    result = run(pytester)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_without_any_stored_trace_a_test_says_how_to_name_them(pytester: pytest.Pytester) -> None:
    stored_test(pytester)

    result = run(pytester)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*there are no stored traces. Name files by @pytest.mark.traces*"])


def test_a_parameter_of_the_same_name_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("otel_scorer_trace", [1, 2])
        def test_it(otel_scorer_trace):
            assert otel_scorer_trace in (1, 2)
        """
    )

    run(pytester, "--otel-scorer-traces", str(CAPTURE)).assert_outcomes(passed=2)
