"""Plain values that views of spans and traces are made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.model.feedback import Expectation, Feedback
    from otel_scorer.model.span import Span
    from otel_scorer.model.trace import Trace

__all__ = [
    "MISSING",
    "OWN_SCOPE",
    "AttributeValue",
    "Document",
    "EvaluationResult",
    "LogRecord",
    "Message",
    "Missing",
    "Scope",
    "SpanEvent",
    "SpanKind",
    "SpanLink",
    "SpanStatus",
    "SpanStatusCode",
    "SpanType",
    "TraceData",
    "TraceInfo",
    "Usage",
]

AttributeValue: TypeAlias = "str | bool | int | float | bytes | list[AttributeValue] | dict[str, AttributeValue] | None"

OWN_SCOPE: Final = "otel_scorer"
"""Instrumentation scope of the spans that otel_scorer itself emits: forwarded, never scored."""


_PREVIEW_CHARACTERS: Final = 1000


class Missing(Enum):
    """The type of `MISSING`: nobody said. Not the same as None, which an application may well have returned."""

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING


class SpanType:
    """What a span does, in MLflow's words (`mlflow.entities.SpanType`). Any other string is allowed too."""

    LLM: Final = "LLM"
    CHAIN: Final = "CHAIN"
    AGENT: Final = "AGENT"
    TOOL: Final = "TOOL"
    CHAT_MODEL: Final = "CHAT_MODEL"
    RETRIEVER: Final = "RETRIEVER"
    PARSER: Final = "PARSER"
    EMBEDDING: Final = "EMBEDDING"
    RERANKER: Final = "RERANKER"
    MEMORY: Final = "MEMORY"
    UNKNOWN: Final = "UNKNOWN"
    WORKFLOW: Final = "WORKFLOW"
    TASK: Final = "TASK"
    GUARDRAIL: Final = "GUARDRAIL"
    EVALUATOR: Final = "EVALUATOR"


class SpanStatusCode(StrEnum):
    """OpenTelemetry's status codes. Members equal their names: `SpanStatusCode.OK == "OK"`."""

    UNSET = "UNSET"
    OK = "OK"
    ERROR = "ERROR"


class SpanKind(StrEnum):
    """OpenTelemetry's span kinds. Not to be mixed up with the span type."""

    UNSPECIFIED = "UNSPECIFIED"
    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


@dataclass(frozen=True, slots=True)
class SpanStatus:
    """
    How a span ended.

    Attributes:
        status_code: OK or ERROR. A span that ended UNSET reads ERROR if it carries `error.type`, else OK: OpenTelemetry
            leaves a successful span unset, MLflow sets OK, and a scorer that tests `!= "OK"` must be right on both.
        otel_status_code: The code as it was sent.
        description: The status message.
    """

    status_code: SpanStatusCode
    otel_status_code: SpanStatusCode
    description: str = ""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """A span event. `timestamp` is in nanoseconds since the epoch."""

    name: str
    timestamp: int
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, slots=True)
class SpanLink:
    """A link to another span. Ids are lower-case hex."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, slots=True)
class LogRecord:
    """
    An event that was sent as an OTLP log record about a span: message content and evaluation results come that way too.

    Attributes:
        event_name: `LogRecord.event_name`, or the attribute `event.name` that older senders use.
        body: The decoded body; None if there is none.
        attributes: The attributes.
        timestamp: Nanoseconds since the epoch; when it was observed, if nobody said when it happened.
    """

    event_name: str
    body: AttributeValue = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """The instrumentation scope that recorded a span."""

    name: str = ""
    version: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens that the model reported.

    Attributes:
        input_tokens: Tokens that went in, those from a cache included; None if nobody reported them.
        output_tokens: Tokens that came out; None if nobody reported them.
        total_tokens: What was reported as the total, else the sum of what was reported.
    """

    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Document:
    """One retrieved document. What the retriever did not record is None."""

    content: str | None = None
    id: str | None = None
    score: float | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message in plain form."""

    role: str
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """
    A verdict that somebody (an instrumentation, another evaluator, an earlier run of ours) left in the trace.

    Attributes:
        name: Name of what was judged.
        value: The score; None if there is none.
        label: The verdict in words; None if there is none.
        explanation: Why.
        error_type: What went wrong, if there is no verdict.
        span_id: The span that it is about.
        trace_id: The trace that it is about, if that is another one than the one in which it lies.
    """

    name: str
    value: float | str | bool | None
    label: str | None
    explanation: str | None
    error_type: str | None
    span_id: str | None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """
    Facts about a trace as a whole; names as in `mlflow.entities.TraceInfo`.

    Attributes:
        trace_id: 32 lower-case hex digits.
        request_time: Start of the root, milliseconds since the epoch.
        execution_duration: Duration of the root in milliseconds.
        state: `OK` or `ERROR`, from the root by the rule of `SpanStatus`; `IN_PROGRESS` while no root is there.
        tagged: See `tags`.
        trace: The trace, for what is looked up only when it is asked for.
    """

    trace_id: str
    request_time: int
    execution_duration: int
    state: str
    tagged: Mapping[str, str]
    trace: Trace | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, trace: Trace, tagged: Mapping[str, str]) -> TraceInfo:
        """
        Gather the facts about a trace.

        Args:
            trace: The trace.
            tagged: What it was tagged with where it was stored.
        """
        root = trace.root
        tags = dict.fromkeys(trace.tags, "true")
        if root is not None:
            keys = [key for key in root.attribute_keys if key.startswith("mlflow.traceTag.")]
            tags |= {key.removeprefix("mlflow.traceTag."): str(root.attributes[key]) for key in sorted(keys)}
        tags |= tagged
        if root is None:
            return cls(trace.trace_id, 0, 0, "IN_PROGRESS", tags, trace)
        return cls(
            trace_id=root.trace_id,
            request_time=root.start_time_ns // 1_000_000,
            execution_duration=root.duration_ns // 1_000_000,
            state=str(root.status.status_code) if root.parent_id is None or root.is_local_root else "IN_PROGRESS",
            tagged=tags,
            trace=trace,
        )

    @property
    def tags(self) -> dict[str, str]:
        """
        What the trace is tagged with.

        `mlflow.traceTag.*` of the root, whatever the instrumentation calls tags (with value "true"), and what was
        tagged where the trace was stored.
        """
        return dict(self.tagged)

    @property
    def assessments(self) -> tuple[Feedback | Expectation, ...]:
        """Feedback and expectations that came with the trace, overridden ones too."""
        return () if self.trace is None else tuple(self.trace.search_assessments(all=True))

    @property
    def request_id(self) -> str:
        """Another name of `trace_id`."""
        return self.trace_id

    @property
    def client_request_id(self) -> None:
        """Nothing: only MLflow's own clients set it."""
        return

    @property
    def request_preview(self) -> str | None:
        """The first 1,000 characters of what the root says it was given, as JSON text."""
        return _preview(None if self.trace is None else self.trace.data.request)

    @property
    def response_preview(self) -> str | None:
        """The first 1,000 characters of what the root says it returned, as JSON text."""
        return _preview(None if self.trace is None else self.trace.data.response)

    @property
    def trace_metadata(self) -> dict[str, str]:
        """Session and user, where known, under MLflow's keys `mlflow.trace.session` and `mlflow.trace.user`."""
        if self.trace is None:
            return {}
        known = {"mlflow.trace.session": self.trace.session_id, "mlflow.trace.user": self.trace.user_id}
        return {key: value for key, value in known.items() if value is not None}

    @property
    def request_metadata(self) -> dict[str, str]:
        """Another name of `trace_metadata`."""
        return self.trace_metadata

    @property
    def token_usage(self) -> dict[str, int] | None:
        """Known tokens over all logical model calls: `input_tokens`, `output_tokens`, `total_tokens`."""
        usage = None if self.trace is None else self.trace.usage
        return None if usage is None else {key: count for key, count in asdict(usage).items() if count is not None}

    @property
    def status(self) -> str:
        """Another name of `state`."""
        return self.state

    @property
    def timestamp_ms(self) -> int:
        """Another name of `request_time`."""
        return self.request_time

    @property
    def execution_time_ms(self) -> int:
        """Another name of `execution_duration`."""
        return self.execution_duration


def _preview(text: str | None) -> str | None:
    return None if text is None else text[:_PREVIEW_CHARACTERS]


@dataclass(frozen=True, slots=True)
class TraceData:
    """
    The spans of a trace.

    Attributes:
        spans: All of them, the root first, then by start time.
        request: What the root says it was given, as JSON text; None if it does not say.
        response: What the root says it returned, as JSON text; None if it does not say.
    """

    spans: list[Span]
    request: str | None
    response: str | None

    @classmethod
    def of(cls, spans: list[Span], request: object, response: object) -> TraceData:
        """Write what the root was given and returned as JSON; MISSING: it does not say."""
        return cls(spans, _json_text(request), _json_text(response))


def _json_text(value: object) -> str | None:
    if value is MISSING:
        return None
    import json

    return json.dumps(value, ensure_ascii=False, default=str)
