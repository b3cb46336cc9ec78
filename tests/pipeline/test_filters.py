from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.fakes import PlainReader

from otel_scorer.errors import ConfigError
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.filters import SPAN_FIELDS, TRACE_FIELDS, Answer, Filter, compile_filter
from otel_scorer.testing import make_span, make_trace


def a_filter(expression: str, *, has_span: bool = False) -> Filter:
    return compile_filter(expression, owner="check", has_span=has_span)


@pytest.fixture
def trace() -> Trace:
    return make_trace(
        make_span(
            "travel_agent",
            span=1,
            end=4.0,
            attributes={
                "openinference.span.kind": "AGENT",
                "session.id": "s1",
                "http.route": "/chat",
                "n": 3,
                "ratio": 0.5,
                "trace": "verbose",
                "list": ["a", "b"],
                "it's": "quoted",
            },
        ),
        make_span(
            "search",
            span=2,
            parent=1,
            start=1.0,
            status="ERROR",
            message="no seats",
            attributes={"openinference.span.kind": "TOOL", "tool.name": "search"},
        ),
        service="travel-agent",
        close_reason="root_quiet",
    )


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ('root.service_name == "travel-agent" && "TOOL" in trace.span_types', Answer.YES),
        ('root.service_name == "other"', Answer.NO),
        ('root.attributes["http.route"] == "/chat"', Answer.YES),
        ("root.attributes['http.route'].startsWith('/ch')", Answer.YES),
        ("root.attributes.n > 2 && root.attributes.ratio < 1.0", Answer.YES),
        ('"b" in root.attributes["list"]', Answer.YES),
        ('root.attributes.trace == "verbose"', Answer.YES),
        ('"n" in root.attributes && !("m" in root.attributes)', Answer.YES),
        (r'root.attributes["it\'s"] == "quoted"', Answer.YES),
        ('root.resource["service.name"].matches("^travel")', Answer.YES),
        ("trace.duration >= 4.0 && trace.duration < 5", Answer.YES),
        ("trace.span_count == 2 && trace.failed_span_count == 1", Answer.YES),
        ('trace.session_id == "s1"', Answer.YES),
        ('trace.close_reason == "root_quiet" && trace.is_complete', Answer.YES),
        ('trace["span_names"].exists(name, name == "search")', Answer.YES),
        ('root.is_root && root.kind == "INTERNAL" && root.scope == "app"', Answer.YES),
        ('root.name == "trace.nothing"', Answer.NO),
        # What is absent makes it false, whichever way it is asked for, unless it does not matter.
        ('trace.user_id == "u"', Answer.NO),
        ('trace.user_id != "u"', Answer.NO),
        ('root.attributes["nothing"] == 1', Answer.NO),
        ('!(root.attributes["nothing"] == 1)', Answer.NO),
        ("has(trace.user_id)", Answer.NO),
        ('trace.span_count == 2 || trace.user_id == "u"', Answer.YES),
        # What makes no sense is an error and not a No.
        ("trace.span_count", Answer.ERROR),
        ('trace.duration > "long"', Answer.ERROR),
        ("trace.span_count / 0 == 1", Answer.ERROR),
    ],
)
def test_what_a_filter_says(trace: Trace, expression: str, answer: Answer) -> None:
    found, reason = a_filter(expression).ask(trace)

    assert found is answer, reason
    assert (reason is None) or answer is not Answer.YES


def test_a_filter_can_ask_about_the_target(trace: Trace) -> None:
    asked = a_filter('span.failed && span.status_message == "no seats"', has_span=True)

    assert [asked.ask(trace, span)[0] for span in trace.spans] == [Answer.NO, Answer.YES]
    assert asked.is_about_spans
    assert not a_filter("root.failed").is_about_spans


def test_a_trace_without_spans_has_no_root() -> None:
    assert a_filter("root.failed").ask(make_trace()) == (Answer.NO, "absent: 'failed'")
    assert a_filter("trace.duration > 1.0").ask(make_trace())[0] is Answer.NO


def test_every_documented_field_can_be_asked_for(trace: Trace) -> None:
    for name in TRACE_FIELDS:
        assert a_filter(f"has(trace.{name}) || true").ask(trace) == (Answer.YES, None)
    for name in SPAN_FIELDS:
        assert a_filter(f"has(root.{name}) || true").ask(trace) == (Answer.YES, None)


def test_only_what_is_named_is_looked_at() -> None:
    reader = PlainReader()
    trace = make_trace(make_span("work"), reader=reader)
    reader.asked.clear()

    assert a_filter('root.name == "work" && root.attributes["x"] != 1').fields == {
        "root": {"name": None, "attributes": frozenset({"x"})}
    }
    assert a_filter('root.name == "work"').ask(trace) == (Answer.YES, None)
    assert reader.asked == []


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("root.name ==", "cannot read the filter 'root.name =='"),
        ("", "cannot read the filter"),
        ("trace.spantypes == 1", "names `trace.spantypes`; did you mean `trace.span_types`?"),
        ("root.qqqqq == 1", "names `root.qqqqq`; there are name, span_id"),
        ("trace == 1", "which field of `trace`"),
        ('span.name == "x"', "asks about `span`, which needs `span_types`"),
        ("service.name == 'x'", "nothing else is known"),
        ("spans(1)", "nothing else is known"),
    ],
)
def test_what_is_no_filter_is_refused(expression: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        a_filter(expression)

    assert message in str(caught.value)
    assert "'check'" in str(caught.value)


def test_one_filter_serves_many_threads(trace: Trace) -> None:
    asked = a_filter('root.service_name == "travel-agent" && "TOOL" in trace.span_types')
    together = threading.Barrier(4)

    def many() -> set[Answer]:
        together.wait(20)
        return {asked.ask(trace)[0] for _ in range(500)}

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(many) for _ in range(4)]

    assert [job.result() for job in jobs] == [{Answer.YES}] * 4


def test_without_the_extra_a_filter_says_what_to_install() -> None:
    program = """
import sys
sys.modules["cel"] = None
from otel_scorer.pipeline.running.filters import compile_filter
try:
    compile_filter("true", owner="check", has_span=False)
except Exception as error:
    print(type(error).__name__, error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == (
        "ConfigError Scorer 'check' has a filter, which needs the extra: pip install 'otel-scorer[filters]'"
    )


def test_a_pattern_takes_time_that_is_linear_in_the_text() -> None:
    """An engine that tries out ways to match would take longer than the universe has been there."""
    trace = make_trace(make_span("agent", span=1, attributes={"text": "a" * 5_000 + "b"}))

    assert a_filter('root.attributes.text.matches("^(a+)+$")').ask(trace) == (Answer.NO, None)
