"""`check --send`: one span to every destination, an empty request of each other signal, and what came back."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from otel_scorer.config import ConsoleExporter, FileExporter, NativeExporter
from otel_scorer.encoders.evaluation_span import SCOPE_VERSION
from otel_scorer.errors import TransportError
from otel_scorer.model.facts import OWN_SCOPE
from otel_scorer.model.wire import Signal
from otel_scorer.service.parts import destination

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.config import Config, SpanExporter
    from otel_scorer.transport.exchange import Sender

__all__ = ["Attempt", "try_destinations"]

_TIMEOUT: Final = 10.0
_NAME: Final = "otel_scorer.check"
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one request: which destination, what was sent, whether it was taken, and what was said."""

    destination: str
    signal: Signal
    is_taken: bool
    message: str


def try_destinations(config: Config) -> Iterator[Attempt]:
    """
    Send once to each destination, without retries, and yield what came of it.

    Backends get a span that says what it is, with the scope of evaluation spans, and a request without content for each
    other signal that they would be sent.

    Raises:
        ConfigError: A destination cannot be used at all.
    """
    trace_id = secrets.token_bytes(16)
    for name, exporter in config.exporters.items():
        # A score needs a trace that its backend keeps: those APIs are not tried.
        if isinstance(exporter, NativeExporter):
            continue
        yield from _try(name, exporter, trace_id, frozenset(Signal))
    if (metrics := config.telemetry.metrics.exporter) is not None:
        yield from _try("telemetry.metrics", metrics, trace_id, frozenset({Signal.METRICS}))


def _try(name: str, exporter: SpanExporter, trace_id: bytes, signals: frozenset[Signal]) -> Iterator[Attempt]:
    made = destination(name, exporter)
    # What is written to a file or a screen is not asked whether it takes nothing.
    is_local = isinstance(exporter, ConsoleExporter | FileExporter)
    senders = {lane.signal: sender for lane, sender in made.senders.items()}
    try:
        for signal in Signal:
            if signal in signals & senders.keys() and (signal is Signal.TRACES or not is_local):
                is_taken, message = _send(senders[signal], signal, trace_id, made.timeout or _TIMEOUT)
                yield Attempt(name, signal, is_taken, message)
    finally:
        for sender in set(senders.values()):
            sender.close()


def _send(sender: Sender, signal: Signal, trace_id: bytes, timeout: float) -> tuple[bool, str]:
    data = _span(trace_id) if signal is Signal.TRACES else b""
    started = time.monotonic()
    try:
        partial = sender.send(signal, data, timeout)
    except TransportError as error:
        return False, str(error)
    if partial is not None and partial.rejected:
        return False, f"rejected: {partial.message}"
    took = f"in {(time.monotonic() - started) * 1000:.0f} ms"
    said = f", and says: {partial.message}" if partial is not None and partial.message else ""
    what = f"span {_NAME!r} of trace {trace_id.hex()}" if signal is Signal.TRACES else "an empty request"
    return True, f"took {what} {took}{said}"


def _span(trace_id: bytes) -> bytes:
    now = time.time_ns()
    attributes: dict[str, AnyValue] = {
        "gen_ai.evaluation.name": AnyValue(string_value=_NAME),
        "gen_ai.evaluation.score.value": AnyValue(double_value=1.0),
        "gen_ai.evaluation.score.label": AnyValue(string_value="pass"),
        "gen_ai.evaluation.explanation": AnyValue(string_value="A test span, sent by `otel-scorer check --send`"),
        "openinference.span.kind": AnyValue(string_value="EVALUATOR"),
    }
    span = Span(
        trace_id=trace_id,
        span_id=secrets.token_bytes(8),
        name=f"evaluation {_NAME}",
        kind=Span.SPAN_KIND_INTERNAL,
        flags=_SAMPLED,
        start_time_unix_nano=now,
        end_time_unix_nano=now,
        attributes=[KeyValue(key=key, value=value) for key, value in attributes.items()],
    )
    service = KeyValue(key="service.name", value=AnyValue(string_value="otel-scorer"))
    scope = ScopeSpans(scope=InstrumentationScope(name=OWN_SCOPE, version=SCOPE_VERSION), spans=[span])
    return TracesData(
        resource_spans=[ResourceSpans(resource=Resource(attributes=[service]), scope_spans=[scope])]
    ).SerializeToString()
