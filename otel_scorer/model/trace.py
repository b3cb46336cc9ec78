"""
Read-only views of a trace: what a scorer sees, whoever sent the spans.

Views are lazy: nothing of a span is decoded before somebody looks at it. What a span means (its type, inputs, outputs,
tool calls) is asked of a `Reader`, which knows the attribute vocabularies; this module knows none of them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, cast, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_scorer.model.feedback import Expectation, Feedback

__all__ = [
    "MISSING",
    "OWN_SCOPE",
    "AttributeValue",
    "Document",
    "EvaluationResult",
    "LlmCall",
    "LogRecord",
    "Message",
    "Missing",
    "Reader",
    "Scope",
    "Span",
    "SpanEvent",
    "SpanKind",
    "SpanLink",
    "SpanStatus",
    "SpanStatusCode",
    "SpanType",
    "ToolCall",
    "Trace",
    "TraceData",
    "TraceInfo",
    "Usage",
    "register_reader",
]

AttributeValue: TypeAlias = "str | bool | int | float | bytes | list[AttributeValue] | dict[str, AttributeValue] | None"

OWN_SCOPE: Final = "otel_scorer"
"""Instrumentation scope of the spans that otel_scorer itself emits: forwarded, never scored."""


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
class ToolCall:
    """
    One call of a tool, as the application made it.

    Attributes:
        name: Name of the tool.
        arguments: Decoded arguments; None if nobody recorded them.
        result: Decoded result; None if there is none.
        failed: The span's status is ERROR, or it carries `error.type` and its status is not OK.
        call_id: The model's id of the call, if known.
        span: The TOOL span.
    """

    name: str
    arguments: Any
    result: Any
    failed: bool
    call_id: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the model reported."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class LlmCall:
    """One logical call of a model: an LLM span without another one below it."""

    model: str | None
    inputs: Any
    outputs: Any
    usage: Usage | None
    failed: bool
    span: Span


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
    """A verdict that somebody (an instrumentation, another evaluator, an earlier run of ours) left in the trace."""

    name: str
    value: float | str | bool | None
    label: str | None
    explanation: str | None
    error_type: str | None
    span_id: str | None


class Reader(Protocol):
    """
    What attribute vocabularies say about spans and traces.

    `read` answers for one span: `inputs`, `outputs`, `tool_name`, `tool_call_id`, `tool_args`, `tool_result`,
    `documents`, `model`, `input_tokens`, `output_tokens`, `session_id`, `user_id`, `tags`, ...; MISSING if it does not
    say. `derive` answers for a trace after its spans were joined: `tool_calls`, `llm_calls`, `usage`, `documents`,
    `messages`, `inputs`, `outputs`, `session_id`, `user_id`, `model`, `tags`, `evaluations`, `dialects`.
    """

    def span_type(self, span: Span) -> str:
        """Return one of the `SpanType` values, `UNKNOWN` if nothing says."""
        ...

    def read(self, span: Span, field: str) -> Any:
        """Return what the span itself says about `field`, decoded, or MISSING."""
        ...

    def derive(self, trace: Trace, field: str) -> Any:
        """Return what the trace as a whole says about `field`."""
        ...


# The dialects are a layer above: they put their reader here when they are imported.
_default_reader: list[Reader] = []


def register_reader(reader: Reader) -> None:
    """Make `reader` the one that `Trace.from_dict` and `Trace.from_json` give to the traces they build."""
    _default_reader[:] = [reader]


class Span(ABC):
    """
    One span. Subclasses read the raw facts from OTLP bytes or an SDK span; what they mean is the same for both.

    Names are those of `mlflow.entities.Span` where it has them.
    """

    __slots__ = ("_cache", "_trace", "logs")

    def __init__(self) -> None:
        self._trace: Trace | None = None
        self._cache: dict[str, Any] = {}
        self.logs: tuple[LogRecord, ...] = ()
        """Log records that were sent about this span; whoever joins logs puts them here before anybody reads the span."""

    @property
    @abstractmethod
    def trace_id(self) -> str:
        """32 lower-case hex digits."""

    @property
    @abstractmethod
    def span_id(self) -> str:
        """16 lower-case hex digits."""

    @property
    @abstractmethod
    def parent_id(self) -> str | None:
        """16 lower-case hex digits, or None for a root."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The span's name."""

    @property
    @abstractmethod
    def kind(self) -> SpanKind:
        """OpenTelemetry's span kind. See `span_type` for what the span does."""

    @property
    @abstractmethod
    def start_time_ns(self) -> int:
        """Nanoseconds since the epoch."""

    @property
    @abstractmethod
    def end_time_ns(self) -> int:
        """Nanoseconds since the epoch."""

    @property
    @abstractmethod
    def is_local_root(self) -> bool:
        """Whether the parent is known to live in another process (OTLP span flags)."""

    @property
    @abstractmethod
    def attributes(self) -> Mapping[str, AttributeValue]:
        """The attributes; a value is converted when it is read."""

    @property
    @abstractmethod
    def events(self) -> Sequence[SpanEvent]:
        """The span events, in order."""

    @property
    @abstractmethod
    def links(self) -> Sequence[SpanLink]:
        """The links, in order."""

    @property
    @abstractmethod
    def resource(self) -> Mapping[str, AttributeValue]:
        """Attributes of the resource that produced the span, such as `service.name`."""

    @property
    @abstractmethod
    def scope(self) -> Scope:
        """The instrumentation scope."""

    @abstractmethod
    def _raw_status(self) -> tuple[SpanStatusCode, str]:
        """Return the status as it was sent: code and message."""

    @property
    def has_events(self) -> bool:
        """Whether there are span events; cheaper than reading them."""
        return bool(self.events)

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from start to end; never negative, whatever the clocks said."""
        return max(0, self.end_time_ns - self.start_time_ns)

    @property
    def status(self) -> SpanStatus:
        """How the span ended; see `SpanStatus` for the rule on unset codes."""
        code, description = self._raw_status()
        read = code
        if code is SpanStatusCode.UNSET:
            read = SpanStatusCode.ERROR if "error.type" in self.attributes else SpanStatusCode.OK
        return SpanStatus(read, code, description)

    @property
    def failed(self) -> bool:
        """Whether the status reads ERROR."""
        return self.status.status_code is SpanStatusCode.ERROR

    def first_of(self, keys: Iterable[str]) -> tuple[str, AttributeValue] | None:
        """Return the first of `keys` that the span has as an attribute, and its value; None if it has none of them."""
        attributes = self.attributes
        for key in keys:
            if key in attributes:
                return key, attributes[key]
        return None

    def get_attribute(self, key: str) -> AttributeValue:
        """Return the attribute, or None if the span does not have it."""
        return self.attributes.get(key)

    @property
    def span_type(self) -> str:
        """What the span does: one of the `SpanType` values, `UNKNOWN` if nothing says."""
        value = self._cache.get("span_type")
        if value is None:
            value = self._cache["span_type"] = self._reader().span_type(self)
        return cast("str", value)

    @property
    def inputs(self) -> Any:
        """What the span says it was given, decoded; None if it does not say."""
        value = self.read("inputs")
        return None if value is MISSING else value

    @property
    def outputs(self) -> Any:
        """What the span says it returned, decoded; None if it does not say."""
        value = self.read("outputs")
        return None if value is MISSING else value

    def read(self, field: str) -> Any:
        """Return what the span itself says about a field (see `Reader`), or MISSING."""
        try:
            return self._cache[field]
        except KeyError:
            value = self._cache[field] = self._reader().read(self, field)
            return value

    @property
    def parent(self) -> Span | None:
        """The parent, if it is in this trace."""
        return None if self._trace is None else self._trace.tree.parent_of(self)

    @property
    def children(self) -> tuple[Span, ...]:
        """The spans directly below, by start time."""
        return () if self._trace is None else self._trace.tree.children_of(self)

    @property
    def service_name(self) -> str | None:
        """The resource's `service.name`."""
        value = self.resource.get("service.name")
        return value if isinstance(value, str) else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was recorded as plain JSON data (bytes as `{"base64": ...}`)."""
        code, description = self._raw_status()
        return {
            "trace_id": self.trace_id,
            "span_id": self.span_id,
            "parent_id": self.parent_id,
            "name": self.name,
            "kind": str(self.kind),
            "start_time_ns": self.start_time_ns,
            "end_time_ns": self.end_time_ns,
            "status": {"code": str(code), "message": description},
            "is_local_root": self.is_local_root,
            "attributes": _plain(dict(self.attributes)),
            "events": [
                {"name": event.name, "timestamp": event.timestamp, "attributes": _plain(dict(event.attributes))}
                for event in self.events
            ],
            "links": [
                {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": _plain(dict(link.attributes))}
                for link in self.links
            ],
            "resource": _plain(dict(self.resource)),
            "scope": {
                "name": self.scope.name,
                "version": self.scope.version,
                "attributes": _plain(dict(self.scope.attributes)),
            },
            **({"logs": [_plain_log(record) for record in self.logs]} if self.logs else {}),
        }

    def _reader(self) -> Reader:
        if self._trace is None:
            msg = f"Span {self.span_id} belongs to no trace, so nothing can tell what its attributes mean"
            raise RuntimeError(msg)
        return self._trace.reader

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.span_id}>"


@final
class Tree:
    """
    Parents and children of a trace's spans.

    Survives what arrives in practice: cycles, self-parents, missing parents, several roots, and a client and a server
    span that share an id (then the server is the client's child, and the spans below hang on the server).
    """

    __slots__ = ("_children", "_parents", "heads")

    def __init__(self, spans: Sequence[Span]) -> None:
        by_id: dict[str, list[Span]] = {}
        for span in spans:
            by_id.setdefault(span.span_id, []).append(span)
        for twins in by_id.values():
            if len(twins) > 1:
                twins.sort(key=lambda span: (span.kind is SpanKind.SERVER, *_by_start(span)))
        self._parents: dict[int, Span] = {}
        for span in spans:
            parent = _find_parent(span, by_id)
            if parent is not None:
                self._parents[id(span)] = parent
        self._cut_cycles(spans)
        self._children: dict[int, list[Span]] = {}
        heads: list[Span] = []
        for span in spans:
            parent = self._parents.get(id(span))
            (heads if parent is None else self._children.setdefault(id(parent), [])).append(span)
        for siblings in self._children.values():
            siblings.sort(key=_by_start)
        heads.sort(key=lambda span: (span.parent_id is not None, not span.is_local_root, *_by_start(span)))
        self.heads: tuple[Span, ...] = tuple(heads)
        """Spans without a parent here, the trace's root first: real roots, then local roots, then orphans."""

    def parent_of(self, span: Span) -> Span | None:
        """Return the parent, if it is in the trace."""
        return self._parents.get(id(span))

    def children_of(self, span: Span) -> tuple[Span, ...]:
        """Return the spans directly below, by start time."""
        return tuple(self._children.get(id(span), ()))

    def walk(self) -> list[tuple[Span, int]]:
        """Return every span with its depth, in pre-order, without recursion: traces can be deep."""
        out: list[tuple[Span, int]] = []
        todo = [(head, 0) for head in reversed(self.heads)]
        while todo:
            span, depth = todo.pop()
            out.append((span, depth))
            todo += [(child, depth + 1) for child in reversed(self._children.get(id(span), ()))]
        return out

    def _cut_cycles(self, spans: Sequence[Span]) -> None:
        """Make the earliest span of each parent cycle a head, so that everything can be reached."""
        safe: set[int] = set()
        for start in spans:
            path: list[Span] = []
            on_path: set[int] = set()
            span: Span | None = start
            while span is not None and id(span) not in safe and id(span) not in on_path:
                path.append(span)
                on_path.add(id(span))
                span = self._parents.get(id(span))
            if span is not None and id(span) in on_path:
                cycle = path[path.index(span) :]
                del self._parents[id(min(cycle, key=_by_start))]
            safe |= on_path


def _find_parent(span: Span, by_id: Mapping[str, list[Span]]) -> Span | None:
    twins = by_id[span.span_id]
    if len(twins) > 1 and twins[0] is not span:
        return twins[0]
    if span.parent_id is None or span.parent_id == span.span_id:
        return None
    parents = by_id.get(span.parent_id)
    return parents[-1] if parents else None


def _by_start(span: Span) -> tuple[int, str, str]:
    return (span.start_time_ns, span.span_id, span.kind)


@dataclass(frozen=True, slots=True)
class TraceInfo:
    """
    Facts about a trace as a whole; names as in `mlflow.entities.TraceInfo`.

    Attributes:
        trace_id: 32 lower-case hex digits.
        request_time: Start of the root, milliseconds since the epoch.
        execution_duration: Duration of the root in milliseconds.
        state: `OK` or `ERROR`, from the root by the rule of `SpanStatus`; `IN_PROGRESS` while no root is there.
        tags: `mlflow.traceTag.*` of the root, and whatever the instrumentation calls tags (with value "true").
        assessments: Feedback and expectations that came with the trace.
    """

    trace_id: str
    request_time: int
    execution_duration: int
    state: str
    tags: Mapping[str, str]
    assessments: tuple[Feedback | Expectation, ...] = ()

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


class Trace:
    """
    A trace as complete as it will get, read-only.

    Attributes:
        close_reason: Why no more spans were waited for, such as `root_quiet` (None: not said).
        is_complete: Whether a root is there and no parent is missing.
        revision: 1, or higher when late spans led to scoring again.
        reader: What tells the meaning of attributes.
    """

    def __init__(  # noqa: PLR0913 - facts about the trace, all optional, all by name
        self,
        spans: Iterable[Span],
        reader: Reader,
        *,
        close_reason: str | None = None,
        is_complete: bool | None = None,
        revision: int = 1,
        assessments: Iterable[Feedback | Expectation] = (),
    ) -> None:
        self.reader = reader
        self.close_reason = close_reason
        self.revision = revision
        self._assessments = tuple(assessments)
        self._is_complete = is_complete
        self._cache: dict[str, Any] = {}
        self._unordered: list[Span] = []
        self.own_spans: list[Span] = []
        """Evaluation spans of otel_scorer that are part of the trace; not in `spans`."""
        for span in spans:
            span._trace = self  # noqa: SLF001 - a span belongs to the trace that is built from it
            (self.own_spans if span.scope.name == OWN_SCOPE else self._unordered).append(span)

    @property
    def tree(self) -> Tree:
        """Parents and children."""
        tree = self._cache.get("tree")
        if tree is None:
            tree = self._cache["tree"] = Tree(self._unordered)
        return cast("Tree", tree)

    @property
    def spans(self) -> list[Span]:
        """All spans, the root first, then by start time; a parent comes before a child that started with it."""
        spans = self._cache.get("spans")
        if spans is None:
            ranked = [(span.start_time_ns, depth, span.span_id, span) for span, depth in self.tree.walk()]
            first = ranked[:1]
            spans = [entry[3] for entry in first + sorted(ranked[1:], key=lambda entry: entry[:3])]
            self._cache["spans"] = spans
        return list(spans)

    @property
    def root(self) -> Span | None:
        """The root, else the local root, else the earliest span whose parent is not here; None if there is no span."""
        heads = self.tree.heads
        return heads[0] if heads else None

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        for span in self._unordered or self.own_spans:
            return span.trace_id
        return ""

    @property
    def info(self) -> TraceInfo:
        """Facts about the trace as a whole."""
        info = self._cache.get("info")
        if info is None:
            info = self._cache["info"] = self._info()
        return cast("TraceInfo", info)

    @property
    def data(self) -> TraceData:
        """The spans, and what the root says it was given and returned."""
        root = self.root
        request, response = (MISSING, MISSING) if root is None else (root.read("inputs"), root.read("outputs"))
        return TraceData(self.spans, _json_text(request), _json_text(response))

    def search_spans(
        self,
        span_type: str | None = None,
        name: str | re.Pattern[str] | None = None,
        span_id: str | None = None,
    ) -> list[Span]:
        """
        Return the spans that match everything given, the root first, then by start time.

        Args:
            span_type: One of the `SpanType` values, compared exactly.
            name: Exact name, or a compiled pattern to search for.
            span_id: 16 hex digits.

        Raises:
            TypeError: An argument has another type.
        """
        if span_type is not None and not isinstance(span_type, str):
            msg = f"Invalid type for 'span_type': expected str, got {type(span_type).__name__}"
            raise TypeError(msg)
        if name is not None and not isinstance(name, str | re.Pattern):
            msg = f"Invalid type for 'name': expected str or re.Pattern, got {type(name).__name__}"
            raise TypeError(msg)
        if span_id is not None and not isinstance(span_id, str):
            msg = f"Invalid type for 'span_id': expected str, got {type(span_id).__name__}"
            raise TypeError(msg)
        found = self.spans
        if span_id is not None:
            found = [span for span in found if span.span_id == span_id]
        if span_type is not None:
            found = [span for span in found if span.span_type == span_type]
        if isinstance(name, str):
            found = [span for span in found if span.name == name]
        elif name is not None:
            found = [span for span in found if name.search(span.name)]
        return found

    def search_assessments(
        self,
        name: str | None = None,
        *,
        span_id: str | None = None,
        all: bool = False,  # noqa: A002 - MLflow's name
        type: Literal["expectation", "feedback"] | None = None,  # noqa: A002 - MLflow's name
    ) -> list[Feedback | Expectation]:
        """
        Return the assessments that came with the trace and match everything given.

        Args:
            name: Name of the assessment.
            span_id: The span it is about.
            all: Also those that were overridden (`valid=False`).
            type: Only feedback, or only expectations.
        """
        return [
            assessment
            for assessment in self._assessments
            if (name is None or assessment.name == name)
            and (span_id is None or assessment.span_id == span_id)
            and (all or getattr(assessment, "valid", None) is not False)
            and (type is None or assessment.assessment_type == type)
        ]

    @property
    def is_complete(self) -> bool:
        """Whether a root is there and no parent is missing, as far as anybody can know."""
        if self._is_complete is None:
            return self.root_count > 0 and self.missing_parent_count == 0
        return self._is_complete

    @property
    def root_count(self) -> int:
        """Number of spans without a parent id."""
        return sum(span.parent_id is None for span in self._unordered)

    @property
    def missing_parent_count(self) -> int:
        """Number of different parent ids that are named but not here."""
        here = {span.span_id for span in self._unordered}
        return len({span.parent_id for span in self._unordered if span.parent_id is not None} - here)

    @property
    def span_types(self) -> frozenset[str]:
        """The types of all spans."""
        return frozenset(span.span_type for span in self._unordered)

    @property
    def service_name(self) -> str | None:
        """`service.name` of the root's resource."""
        return None if self.root is None else self.root.service_name

    @property
    def tool_calls(self) -> list[ToolCall]:
        """
        Calls of tools, by start time.

        Nested TOOL spans of one tool (an MCP client, SDK and server) are one call; arguments and call id that the span
        does not carry are taken from the model's output.
        """
        return list(self._derive("tool_calls"))

    @property
    def llm_calls(self) -> list[LlmCall]:
        """Logical calls of a model, by start time: LLM spans without another one below them."""
        return list(self._derive("llm_calls"))

    @property
    def usage(self) -> Usage | None:
        """Tokens over all logical model calls, each counted once; None where nothing was reported."""
        return cast("Usage | None", self._derive("usage"))

    @property
    def retrieved_documents(self) -> list[Document]:
        """Documents that retrievers returned, in order."""
        return list(self._derive("documents"))

    @property
    def messages(self) -> list[Message]:
        """The conversation as the last model call saw and answered it."""
        return list(self._derive("messages"))

    @property
    def inputs(self) -> Any:
        """What the application was asked: the root's inputs, else derived from its descendants; None if nobody says."""
        value = self.read("inputs")
        return None if value is MISSING else value

    @property
    def outputs(self) -> Any:
        """What the application answered: the root's outputs, else derived from its descendants; None if nobody says."""
        value = self.read("outputs")
        return None if value is MISSING else value

    def read(self, field: Literal["inputs", "outputs"]) -> Any:
        """Return the trace's inputs or outputs, or MISSING: unlike the properties it tells None from nothing."""
        return self._derive(field)

    @property
    def session_id(self) -> str | None:
        """Conversation or session that the trace belongs to."""
        return cast("str | None", self._derive("session_id"))

    @property
    def user_id(self) -> str | None:
        """User whom the trace was made for."""
        return cast("str | None", self._derive("user_id"))

    @property
    def model(self) -> str | None:
        """Model of the first model call."""
        return cast("str | None", self._derive("model"))

    @property
    def tags(self) -> list[str]:
        """Tags that the instrumentation recorded."""
        return list(self._derive("tags"))

    @property
    def evaluations(self) -> list[EvaluationResult]:
        """Verdicts found in the trace itself, whoever wrote them."""
        return list(self._derive("evaluations"))

    @property
    def dialects(self) -> list[str]:
        """Attribute vocabularies that the spans use, sorted."""
        return list(self._derive("dialects"))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON data; `from_dict` reads it back."""
        info = self.info
        return {
            "info": {
                "trace_id": info.trace_id,
                "request_time": info.request_time,
                "execution_duration": info.execution_duration,
                "state": info.state,
                "tags": dict(info.tags),
                "assessments": [assessment.to_dictionary() for assessment in info.assessments],
                "close_reason": self.close_reason,
                "is_complete": self.is_complete,
                "revision": self.revision,
            },
            "data": {"spans": [span.to_dict() for span in [*self.spans, *self.own_spans]]},
        }

    def to_json(self, *, pretty: bool = False) -> str:
        """Return `to_dict` as JSON text."""
        import json  # noqa: PLC0415 - only who writes JSON pays for it

        return json.dumps(self.to_dict(), indent=2 if pretty else None, ensure_ascii=False)

    @staticmethod
    def from_dict(data: Mapping[str, Any], reader: Reader | None = None) -> Trace:
        """
        Build a trace from what `to_dict` returned.

        Args:
            data: The plain data.
            reader: Tells what attributes mean; by default the one that knows all dialects.

        Raises:
            ValueError: It is something else.
        """
        from otel_scorer.model.decode import trace_from_dict  # noqa: PLC0415 - decode builds on this module

        if reader is None:
            if not _default_reader:
                msg = "Nothing can tell what attributes mean: import otel_scorer.dialects, or pass a reader"
                raise RuntimeError(msg)
            [reader] = _default_reader
        return trace_from_dict(data, reader)

    @staticmethod
    def from_json(text: str) -> Trace:
        """
        Build a trace from what `to_json` returned; see `from_dict`.

        Raises:
            ValueError: It is no JSON, or something else.
        """
        import json  # noqa: PLC0415 - only who reads JSON pays for it

        return Trace.from_dict(json.loads(text))

    def _derive(self, field: str) -> Any:
        try:
            return self._cache[field]
        except KeyError:
            value = self._cache[field] = self.reader.derive(self, field)
            return value

    def _info(self) -> TraceInfo:
        root = self.root
        tags = dict.fromkeys(self.tags, "true")
        if root is None:
            return TraceInfo(self.trace_id, 0, 0, "IN_PROGRESS", tags, self._assessments)
        for key in root.attributes:
            if key.startswith("mlflow.traceTag."):
                tags[key.removeprefix("mlflow.traceTag.")] = str(root.attributes[key])
        known = root.parent_id is None or root.is_local_root
        return TraceInfo(
            trace_id=root.trace_id,
            request_time=root.start_time_ns // 1_000_000,
            execution_duration=root.duration_ns // 1_000_000,
            state=str(root.status.status_code) if known else "IN_PROGRESS",
            tags=tags,
            assessments=self._assessments,
        )

    def __repr__(self) -> str:
        return f"<Trace {self.trace_id} with {len(self._unordered)} spans>"


def _json_text(value: object) -> str | None:
    if value is MISSING:
        return None
    import json  # noqa: PLC0415 - only who writes JSON pays for it

    return json.dumps(value, ensure_ascii=False, default=str)


def _plain_log(record: LogRecord) -> dict[str, Any]:
    return {
        "event_name": record.event_name,
        "timestamp": record.timestamp,
        "body": _plain(record.body),
        "attributes": _plain(dict(record.attributes)),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        import base64  # noqa: PLC0415 - bytes attributes are rare

        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value
