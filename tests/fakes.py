"""What several tests make up: a reader that reads two attributes, decisions, and what the counters counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as LogRecordMessage

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.otlp_attributes import encode_attributes
from otel_scorer.model.trace import MISSING, SpanType
from otel_scorer.telemetry import snapshot

if TYPE_CHECKING:
    from otel_scorer.model.trace import Span, Trace

LISTS = {"tool_calls", "llm_calls", "documents", "messages", "tags", "evaluations", "dialects"}


class PlainReader:
    """A vocabulary of three attributes: `type`, `inputs` and `outputs`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def span_type(self, span: Span) -> str:
        self.asked.append((span.name, "span_type"))
        return str(span.attributes.get("type", SpanType.UNKNOWN))

    def read(self, span: Span, field: str) -> Any:
        self.asked.append((span.name, field))
        return span.attributes.get(field, MISSING)

    def derive(self, trace: Trace, field: str) -> Any:
        if field in LISTS:
            return []
        if field in {"inputs", "outputs"}:
            return MISSING if trace.root is None else trace.root.read(field)
        return None


def a_decision(
    *feedbacks: Feedback | float | str | bool,
    trace: int = 1,
    scorer: str = "check",
    version: str = "1",
    outcome: Outcome = Outcome.SCORED,
    span_id: str | None = None,
    revision: int = 1,
    passed: tuple[bool | None, ...] = (),
) -> Decision:
    made = tuple(given if isinstance(given, Feedback) else Feedback(scorer, given) for given in feedbacks)
    return Decision(f"{trace:032x}", span_id, scorer, version, outcome, None, revision, made, passed)


def a_log(
    body: str = "hello",
    *,
    trace: int = 1,
    span: int = 1,
    name: str = "gen_ai.choice",
    old: bool = False,
    at: int = 7,
) -> LogRecordMessage:
    """Return a log record about a span; `old`: with its event name in an attribute, where it used to be."""
    record = LogRecordMessage(
        trace_id=trace.to_bytes(16, "big"),
        span_id=span.to_bytes(8, "big"),
        time_unix_nano=at,
        observed_time_unix_nano=9,
    )
    record.body.string_value = body
    if old:
        encode_attributes(record.attributes, {"event.name": name})
    else:
        record.event_name = name
    return record


def logs_request(*records: LogRecordMessage) -> bytes:
    """Return an encoded ExportLogsServiceRequest."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.extend(records)
    return request.SerializeToString()


class Counted:
    """What was counted since this was made."""

    def __init__(self) -> None:
        self._before = snapshot()

    def __call__(self, counter: str) -> int:
        return snapshot().get(counter, 0) - self._before.get(counter, 0)
