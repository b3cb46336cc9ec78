"""Real traces, replayed in the application: the processor gives the feedback that the same scorers give elsewhere."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span
from tests.dialects.captured import traces_of
from tests.dialects.test_mutations import facts
from tests.dialects.test_sdk_spans import NAMES, readable
from tests.instrumented_app import WAIT, App

from otel_scorer.model.decision import Decision
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.selection import Selector
from otel_scorer.scorers.base import as_scorers, scorer
from otel_scorer.scorers.loading import load_scorers


@scorer
def answer(outputs: str) -> str:
    return outputs


@scorer(span_types=["TOOL", "LLM", "CHAT_MODEL"])
def described(span: Any) -> Feedback:
    return Feedback(value=f"{span.name} {span.span_type} {span.status.status_code}", rationale=repr(span.inputs))


@scorer
def everything(trace: Trace) -> str:
    return json.dumps(facts(trace), ensure_ascii=False)


SCORERS = [*load_scorers(["tool_errors", "redundant_tool_calls", "latency"]), answer, described, everything]


def replay(app: App, spans: list[ReadableSpan]) -> None:
    """Start and end spans as their application did: parents start before their children and end after them."""
    for span in spans:
        app.processor.on_start(cast("Span", span))
    for span in reversed(spans):
        app.processor.on_end(span)


def told(decision: Decision) -> tuple[Any, ...]:
    feedbacks = [
        (made.name, made.value, made.rationale, made.error and made.error.error_code) for made in decision.feedbacks
    ]
    return (decision.scorer, decision.scorer_version, decision.span_id, decision.outcome, decision.reason, feedbacks)


def decided_directly(trace: Trace) -> list[Decision]:
    choices = Selector(as_scorers(SCORERS)).choose(trace)
    return [choice if isinstance(choice, Decision) else choice.run() for choice in choices]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_scorers_give_the_same_feedback_in_the_application(name: str) -> None:
    app = App(*SCORERS)

    for trace in traces_of(name):
        for span in trace.spans:
            span.logs = ()
        fresh = Trace(trace.spans, trace.reader)
        replay(app, [readable(span) for span in trace.spans])

        decisions = app.processor.wait_for_scores(trace.trace_id, WAIT)

        assert [told(decision) for decision in decisions] == [told(decision) for decision in decided_directly(fresh)]
    app.provider.shutdown()
