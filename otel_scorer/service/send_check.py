"""`check --send`: a span to every destination, a score about it to every score API, and what came back."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import tenacity
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from otel_scorer.config import ConsoleExporter, FileExporter, NativeExporter
from otel_scorer.config.destinations import destination
from otel_scorer.encoders.evaluation_span import SCOPE_VERSION
from otel_scorer.encoders.native import native_id
from otel_scorer.encoders.verdict import verdicts_of
from otel_scorer.errors import TraceMissingError, TransportError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.facts import OWN_SCOPE
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.wire import Signal
from otel_scorer.transport.native_score import NativeScore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_scorer.config import Config, SpanExporter
    from otel_scorer.transport.exchange import Sender

__all__ = ["Attempt", "try_destinations"]

_TIMEOUT: Final = 10.0
_PATIENCE: Final = 20.0
_INTERVAL: Final = 0.5
_NAME: Final = "otel_scorer.check"
_SAMPLED: Final = 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one request: which destination, what was sent, whether it was taken, and what was said."""

    destination: str
    what: str
    is_taken: bool
    message: str


def try_destinations(config: Config, *, patience: float = _PATIENCE) -> Iterator[Attempt]:
    """
    Send once to each destination, without retries, and yield what came of it.

    Backends get a span that says what it is, with the scope of evaluation spans, and a request without content for each
    other signal that they would be sent. Their score APIs get a score about the trace of that span.

    Args:
        config: Names the destinations.
        patience: Seconds for a trace that was taken to be found by a score API: backends write it down in their time.

    Raises:
        ConfigError: A destination cannot be used at all.
    """
    trace_id = secrets.token_bytes(16)
    is_there = False
    for name, exporter in config.exporters.items():
        if isinstance(exporter, NativeExporter):
            continue
        for attempt in _try(name, exporter, trace_id, frozenset(Signal)):
            is_there |= attempt.is_taken and attempt.what == Signal.TRACES
            yield attempt
    for name, exporter in config.exporters.items():
        if isinstance(exporter, NativeExporter):
            is_taken, message = _send_score(exporter, trace_id.hex(), patience if is_there else 0.0)
            yield Attempt(name, "scores", is_taken, message)
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


def _send_score(exporter: NativeExporter, trace_id: str, patience: float) -> tuple[bool, str]:
    # Only who has a score API loads what it takes.
    from otel_scorer.config.native_scores import encoder_of, open_api

    feedback = Feedback(name=_NAME, value=True, rationale="A test score, sent by `otel-scorer check --send`")
    decision = Decision(trace_id, None, _NAME, SCOPE_VERSION, Outcome.SCORED, feedbacks=(feedback,), passed=(True,))
    [verdict] = verdicts_of(decision)
    body = encoder_of(exporter)(verdict, trace_id, None) or b""
    score = NativeScore(native_id(verdict, trace_id, None), trace_id, None, body)
    until_it_is_there = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TraceMissingError),
        stop=tenacity.stop_after_delay(patience),
        wait=tenacity.wait_fixed(_INTERVAL),
        reraise=True,
    )
    api = open_api(exporter)
    started = time.monotonic()
    try:
        until_it_is_there(api.send, [score], exporter.timeout)
    except TraceMissingError as error:
        return False, f"{error}; do its spans reach this backend?"
    except TransportError as error:
        return False, str(error)
    finally:
        api.close()
    return True, f"took score {_NAME!r} of trace {trace_id} in {(time.monotonic() - started) * 1000:.0f} ms"


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
