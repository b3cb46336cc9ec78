"""MLflow's search grammar selects the same live traces, or says why it cannot."""

from __future__ import annotations

import re

import pytest

from otel_scorer.errors import ConfigError
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.filters import Answer, compile_filter
from otel_scorer.scorers.filter_strings import cel_filter
from otel_scorer.testing import make_span, make_trace

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def trace() -> Trace:
    return make_trace(
        make_span(
            "invoke_agent travel",
            span=1,
            end=2.0,
            attributes={
                "openinference.span.kind": "AGENT",
                "session.id": "s1",
                "mlflow.traceTag.team": "search",
                "http.route": "/chat",
                "n": 3,
            },
        ),
        make_span(
            "get_weather",
            span=2,
            parent=1,
            status="ERROR",
            attributes={"openinference.span.kind": "TOOL", "tool.name": "get_weather", "city": 'São "P"'},
        ),
        make_span("lookup", span=3, parent=1, attributes={"openinference.span.kind": "TOOL"}),
        service="shop",
    )


def answer(filter_string: str, trace: Trace) -> Answer:
    return compile_filter(cel_filter(filter_string), owner="check", has_span=False).ask(trace)[0]


@pytest.mark.parametrize(
    "filter_string",
    [
        "status = 'OK'",
        "trace.status != 'ERROR'",
        "status IN ('OK', 'IN_PROGRESS')",
        "status NOT IN ('ERROR')",
        "name LIKE 'invoke_agent %'",
        "name ILIKE 'INVOKE_AGENT%'",
        "name RLIKE 'travel$'",
        "execution_time_ms = 2000",
        "execution_time > 1999.5",
        "execution_time_ms <= 2000 AND timestamp_ms > 0 AND end_time > 0",
        "tag.team = 'search'",
        "tag.`service.name` = 'shop'",
        "tag.team IS NOT NULL AND tag.nothing IS NULL",
        "metadata.`mlflow.trace.session` = 's1'",
        "request_metadata.`mlflow.trace.user` IS NULL",
        "span.type = 'TOOL'",
        "span.type != 'TOOL'",
        "span.name IN ('lookup', 'other')",
        "span.name = 'get_weather' AND span.status = 'ERROR'",
        "span.attributes.city = 'São \"P\"'",
        "span.attributes.n = '3'",
        "span.attributes.city IS NOT NULL AND span.attributes.n IS NULL",
        "span.attributes.http.route LIKE '/c%' AND span.type = 'AGENT'",
        "span.type = 'TOOL' AND status = 'OK' AND span.status = 'OK'",
    ],
)
def test_a_filter_string_lets_its_traces_through(trace: Trace, filter_string: str) -> None:
    assert answer(filter_string, trace) is Answer.YES


@pytest.mark.parametrize(
    "filter_string",
    [
        "status = 'ERROR'",
        "name LIKE 'invoke_agent'",
        "execution_time_ms > 2000",
        "tag.team != 'search'",
        "tag.nothing != 'x'",
        "tag.nothing = 'x'",
        "metadata.`mlflow.trace.user` != 'u'",
        "span.type = 'RETRIEVER'",
        "span.type NOT IN ('TOOL', 'AGENT')",
        "span.attributes.nothing != 'x'",
        "span.attributes.nothing IS NOT NULL",
        # One span must fulfil all clauses about spans.
        "span.name = 'lookup' AND span.status = 'ERROR'",
        "span.attributes.http.route = '/chat' AND span.type = 'TOOL'",
        "status = 'OK' AND name = 'other'",
    ],
)
def test_a_filter_string_keeps_other_traces_out(trace: Trace, filter_string: str) -> None:
    assert answer(filter_string, trace) is Answer.NO


def test_a_trace_id_may_be_written_as_mlflow_does(trace: Trace) -> None:
    assert answer(f"request_id = 'tr-{trace.trace_id.upper()}'", trace) is Answer.YES
    assert answer(f"trace_id IN ('tr-{TRACE_ID}', '{trace.trace_id}')", trace) is Answer.YES


@pytest.mark.parametrize(
    ("filter_string", "why"),
    [
        ("feedback.quality > 0.5", "after a live trace was chosen"),
        ("expectation.answer = 'x'", "after a live trace was chosen"),
        ("issue.id = 'x'", "after a live trace was chosen"),
        ("run_id = 'x'", "belongs to no run"),
        ("prompt = 'a/1'", "no record of prompts"),
        ("client_request_id = 'x'", "no such id"),
        ("text LIKE '%x%'", "full text"),
        ("span.content LIKE '%x%'", "full text"),
        ("metadata.`mlflow.source` = 'x'", "mlflow.trace.session and mlflow.trace.user"),
        ("status = 'OK' OR status = 'ERROR'", "no OR"),
        ("name RLIKE '(?=x)'", "look-ahead"),
        (" ", "leave it out"),
    ],
)
def test_what_cannot_be_asked_of_a_live_trace_is_refused_with_the_reason(filter_string: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        cel_filter(filter_string)
