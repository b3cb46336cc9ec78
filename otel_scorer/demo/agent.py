"""
The application that the demo watches: a tool-calling agent, instrumented by hand with the OpenTelemetry SDK.

Spans and attributes follow OpenTelemetry's conventions for generative AI (`invoke_agent`, `chat`, `execute_tool`). It
knows nothing of otel_scorer: the sidecar is its OTLP endpoint, that is all.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Final, cast

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode

from otel_scorer.demo.rules import MODEL, QUESTIONS, TOOLS, ToolRequest, plan_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

__all__ = ["AGENT", "Agent", "AgentThread", "exporter_to", "make_provider"]

AGENT: Final = "travel_assistant"
_PROVIDER: Final = "otel_scorer.demo"
_MODEL_SECONDS: Final = 0.09
# Small batches: the demo is there to be watched.
_EXPORT_EVERY_MS: Final = 200
_EXPORT_SECONDS: Final = 5.0
_QUEUE: Final = 16_384
_WHOLE_RUN_SECONDS: Final = 4.0
_ONE_ANSWER_SECONDS: Final = 0.4

Message = dict[str, Any]


def exporter_to(endpoint: str) -> SpanExporter:
    """Return the SDK's OTLP/gRPC exporter to `host:port` on this machine, whatever proxy the environment names."""
    # gRPC wants a number here, the SDK's annotation asks for text.
    return OTLPSpanExporter(
        endpoint=f"http://{endpoint}",
        insecure=True,
        timeout=_EXPORT_SECONDS,
        channel_options=cast("Any", (("grpc.enable_http_proxy", 0),)),
    )


def make_provider(exporter: SpanExporter) -> TracerProvider:
    """Return a provider of the demo's own: `OTEL_*` variables of the environment change nothing about its spans."""
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource({"service.name": "travel-demo"}),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attributes=128, max_attribute_length=None, max_span_attribute_length=None),
    )
    provider.add_span_processor(
        BatchSpanProcessor(exporter, schedule_delay_millis=_EXPORT_EVERY_MS, max_queue_size=_QUEUE)
    )
    return provider


class Agent:
    """
    Answers questions by rules and tools, and records what it does.

    Args:
        tracer: Records the spans.
        stopping: Ends every wait once it is set.
        pace: What the seconds that model and tools pretend to work are multiplied by.
    """

    def __init__(self, tracer: Tracer, *, stopping: threading.Event | None = None, pace: float = 1.0) -> None:
        self._tracer = tracer
        self._stopping = stopping or threading.Event()
        self._pace = pace

    def ask(self, question: str, number: int = 1) -> str:
        """Answer one question: one trace. `number` goes into the conversation's id."""
        plan = plan_for(question)
        messages: list[Message] = [_message("user", _text(question))]
        with self._tracer.start_as_current_span(
            f"invoke_agent {AGENT}",
            attributes={
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": _PROVIDER,
                "gen_ai.agent.name": AGENT,
                "gen_ai.conversation.id": f"conversation-{number}",
                "gen_ai.input.messages": json.dumps(messages),
            },
        ) as span:
            results: list[str | None] = []
            for index, request in enumerate(plan.requests, start=1):
                call_id = f"call_{number}_{index}"
                messages.append(self._chat(messages, _tool_call(call_id, request), "tool_call"))
                result = self._execute(call_id, request)
                results.append(result)
                messages.append(_message("tool", _tool_response(call_id, result)))
            answer = plan.answer(results)
            final = self._chat(messages, _text(answer), "stop")
            span.set_attribute("gen_ai.output.messages", json.dumps([final]))
        return answer

    def _chat(self, messages: Sequence[Message], part: Message, finish_reason: str) -> Message:
        """Record one call of the "model"; what it says was decided by the rules."""
        said = {**_message("assistant", part), "finish_reason": finish_reason}
        sent, received = json.dumps(list(messages)), json.dumps([said])
        with self._tracer.start_as_current_span(
            f"chat {MODEL}",
            # The conventions allow INTERNAL where the model runs in the same process.
            kind=SpanKind.INTERNAL,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": _PROVIDER,
                "gen_ai.request.model": MODEL,
                "gen_ai.input.messages": sent,
            },
        ) as span:
            self._wait(_MODEL_SECONDS)
            span.set_attributes(
                {
                    "gen_ai.response.model": MODEL,
                    "gen_ai.response.finish_reasons": [finish_reason],
                    "gen_ai.output.messages": received,
                    # The rules count words, as they have no tokens.
                    "gen_ai.usage.input_tokens": len(sent.split()),
                    "gen_ai.usage.output_tokens": len(received.split()),
                }
            )
        return said

    def _execute(self, call_id: str, request: ToolRequest) -> str | None:
        """Run a tool. A failure is recorded and the agent goes on, as agents do."""
        tool = TOOLS[request.name]
        with self._tracer.start_as_current_span(
            f"execute_tool {request.name}",
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": request.name,
                "gen_ai.tool.type": "function",
                "gen_ai.tool.description": tool.description,
                "gen_ai.tool.call.id": call_id,
                "gen_ai.tool.call.arguments": json.dumps(dict(request.arguments)),
            },
        ) as span:
            self._wait(tool.seconds)
            try:
                result = tool.run(**request.arguments)
            except ConnectionError as error:
                span.record_exception(error)
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR, str(error)))
                return None
            span.set_attribute("gen_ai.tool.call.result", json.dumps(result))
            return result

    def _wait(self, seconds: float) -> None:
        self._stopping.wait(seconds * self._pace)


class AgentThread:
    """
    The agent at work: asks itself so many questions and exports its spans to `endpoint`.

    Args:
        endpoint: `host:port` that takes OTLP/gRPC.
        traces: How many questions; many are answered faster than a few.
    """

    def __init__(self, endpoint: str, traces: int) -> None:
        self._traces = traces
        self._stopping = threading.Event()
        self._done = threading.Event()
        self._provider = make_provider(exporter_to(endpoint))
        pace = min(1.0, _WHOLE_RUN_SECONDS / (traces * _ONE_ANSWER_SECONDS))
        self._agent = Agent(self._provider.get_tracer("travel_demo"), stopping=self._stopping, pace=pace)
        self._thread = threading.Thread(target=self._work, name="otel-scorer-demo-agent", daemon=True)

    @property
    def has_finished(self) -> bool:
        """Whether every question was answered and every span handed to the exporter."""
        return self._done.is_set()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def shutdown(self, timeout: float) -> None:
        """Answer nothing more, and wait `timeout` seconds at most for what is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _work(self) -> None:
        try:
            for number in range(self._traces):
                if self._stopping.is_set():
                    break
                self._agent.ask(QUESTIONS[number % len(QUESTIONS)], number + 1)
        finally:
            self._provider.shutdown()
            self._done.set()


def _message(role: str, part: Message) -> Message:
    return {"role": role, "parts": [part]}


def _text(content: str) -> Message:
    return {"type": "text", "content": content}


def _tool_call(call_id: str, request: ToolRequest) -> Message:
    arguments: Mapping[str, Any] = dict(request.arguments)
    return {"type": "tool_call", "id": call_id, "name": request.name, "arguments": arguments}


def _tool_response(call_id: str, result: str | None) -> Message:
    return {"type": "tool_call_response", "id": call_id, "response": result}
