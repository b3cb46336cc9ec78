"""A trace as an agent sends it, and how a scorer of another package judges it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.model.decision import Decision
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import MISSING, Trace
from otel_scorer.pipeline.running.runner import Invocation, PreparedScorer
from otel_scorer.scorers.base import as_scorer
from otel_scorer.scorers.evidence import Evidence
from otel_scorer.testing import make_span, make_trace

QUESTION = "What is the weather in Paris?"
ANSWER = "It is 18 C in Paris."


def said(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def agent_spans(trace: int = 1, answer: str = ANSWER) -> list[SpanMessage]:
    """Return an agent that retrieves, asks a model, calls two tools, one in vain, and answers with a message list."""
    asked = {"gen_ai.input.messages": said("user", QUESTION)}
    answered = {"gen_ai.output.messages": said("assistant", answer)}
    return [
        make_span(
            "travel",
            trace=trace,
            span=1,
            end=4.0,
            attributes={"gen_ai.operation.name": "invoke_agent", **asked, **answered},
        ),
        make_span(
            "search",
            trace=trace,
            span=2,
            parent=1,
            start=0.5,
            attributes={
                "openinference.span.kind": "RETRIEVER",
                "retrieval.documents.0.document.content": "Paris is mild in spring.",
                "retrieval.documents.1.document.content": "Paris has 2 million people.",
            },
        ),
        make_span(
            "chat",
            trace=trace,
            span=3,
            parent=1,
            start=1.0,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "small",
                "gen_ai.usage.input_tokens": 20,
                "gen_ai.usage.output_tokens": 5,
                **asked,
                **answered,
            },
        ),
        make_span(
            "execute_tool get_weather",
            trace=trace,
            span=4,
            parent=1,
            start=2.0,
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "get_weather",
                "gen_ai.tool.call.arguments": '{"city": "Paris"}',
                "gen_ai.tool.call.result": "18 C",
            },
        ),
        make_span(
            "execute_tool convert",
            trace=trace,
            span=5,
            parent=1,
            start=3.0,
            status="ERROR",
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "convert",
                "error.type": "Timeout",
            },
        ),
    ]


def agent_trace(trace: int = 1, answer: str = ANSWER) -> Trace:
    return make_trace(*agent_spans(trace, answer))


def judge(scorer: object, trace: Trace | None = None, expectations: Any = MISSING, **given: Any) -> Decision:
    """Return what becomes of a scorer on a trace, as everywhere else."""
    prepared = PreparedScorer(as_scorer(scorer))
    return Invocation(prepared, Evidence(trace, expectations=expectations, **given)).run()


def only(decision: Decision) -> Feedback:
    assert decision.outcome == "scored", decision
    [feedback] = decision.feedbacks
    return feedback


def source_of(feedback: Feedback) -> tuple[str, str]:
    assert feedback.source is not None
    return str(feedback.source.source_type), feedback.source.source_id


def values(decision: Decision) -> Mapping[str, Any]:
    return {feedback.name: feedback.value for feedback in decision.feedbacks}
