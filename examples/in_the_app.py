"""
Scores in the application: one processor, no server. Run it: `python examples/in_the_app.py`.

It prints every span as it would leave for a backend; the verdicts are on the root. To send them somewhere, replace the
exporter by `OTLPSpanExporter()` of `opentelemetry.exporter.otlp.proto.http.trace_exporter`.
"""

import json

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from otel_scorer import Feedback, ScoringSpanProcessor, Trace, scorer


@scorer
def answered_from_tools(trace: Trace) -> Feedback:
    calls = trace.tool_calls
    if not calls:
        return Feedback(value=None, rationale="No tool was called")
    failed = [call.name for call in calls if call.failed]
    return Feedback(value=not failed, rationale=f"failed: {', '.join(failed)}" if failed else "all tools answered")


@scorer
async def short_enough(outputs: str) -> bool:
    return len(outputs) < 200


def show(span: ReadableSpan) -> str:
    events = {event.name: dict(event.attributes or {}) for event in span.events}
    return f"{span.name}\n  attributes {json.dumps(dict(span.attributes or {}))}\n  events {json.dumps(events)}\n"


def main() -> None:
    processor = ScoringSpanProcessor(
        ConsoleSpanExporter(formatter=show), scorers=[answered_from_tools, short_enough, "latency"]
    )
    provider = TracerProvider()
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("travel")

    with tracer.start_as_current_span("invoke_agent travel") as agent:
        agent.set_attribute("gen_ai.operation.name", "invoke_agent")
        with tracer.start_as_current_span("execute_tool get_weather") as tool:
            tool.set_attribute("gen_ai.operation.name", "execute_tool")
            tool.set_attribute("gen_ai.tool.name", "get_weather")
            tool.set_attribute("gen_ai.tool.call.arguments", '{"city": "Paris"}')
            tool.set_attribute("gen_ai.tool.call.result", "18 C")
        agent.set_attribute(
            "gen_ai.output.messages",
            '[{"role": "assistant", "parts": [{"type": "text", "content": "Bring a light jacket."}]}]',
        )

    # For guardrails and tests; the application itself never waits.
    for decision in processor.wait_for_scores(agent.get_span_context().trace_id, timeout=5):
        print(decision.scorer, decision.outcome, *[feedback.value for feedback in decision.feedbacks])


if __name__ == "__main__":
    main()
