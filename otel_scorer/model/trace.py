"""
Read-only views of a trace: what a scorer sees, whoever sent the spans.

Views are lazy: nothing of a span is decoded before somebody looks at it. What a span means (its type, inputs, outputs,
tool calls) is asked of a `Reader`, which knows the attribute vocabularies. All of it can be imported from here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from weakref import ref

from otel_scorer.model.facts import (
    MISSING,
    OWN_SCOPE,
    AttributeValue,
    Document,
    EvaluationResult,
    LogRecord,
    Message,
    Missing,
    Scope,
    SpanEvent,
    SpanKind,
    SpanLink,
    SpanStatus,
    SpanStatusCode,
    SpanType,
    TraceData,
    TraceInfo,
    Usage,
)
from otel_scorer.model.feedback import own_copy
from otel_scorer.model.llm_call import LlmCall
from otel_scorer.model.read_only import Immutable, copied
from otel_scorer.model.reader import Reader, register_reader, registered_reader
from otel_scorer.model.searching import matching_assessments, matching_spans
from otel_scorer.model.span import Span
from otel_scorer.model.tool_call import ToolCall
from otel_scorer.model.tree import Tree

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping

    from otel_scorer.model.feedback import Expectation, Feedback

__all__ = [
    "MISSING", "OWN_SCOPE", "AttributeValue", "Document", "EvaluationResult", "LlmCall", "LogRecord", "Message",
    "Missing", "Reader", "Scope", "Span", "SpanEvent", "SpanKind", "SpanLink", "SpanStatus", "SpanStatusCode",
    "SpanType", "ToolCall", "Trace", "TraceData", "TraceInfo", "Usage", "register_reader",
]  # fmt: skip

_UNREAD: Final = object()


class Trace(Immutable):
    """
    A trace as complete as it will get, read-only: lists and dicts that it returns are copies.

    A copy is the trace itself. A pickle holds the bytes of its spans, read again with the dialects in use where it is
    loaded.

    Attributes:
        close_reason: Why no more spans were waited for, such as `root_quiet` (None: not said).
        is_complete: Whether a root is there and no parent is missing.
        revision: 1, or higher when late spans led to scoring again.
        reader: What tells the meaning of attributes.
    """

    def __init__(
        self,
        spans: Iterable[Span],
        reader: Reader,
        *,
        close_reason: str | None = None,
        is_complete: bool | None = None,
        revision: int = 1,
        assessments: Iterable[Feedback | Expectation] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.reader = reader
        self._tags = tags or {}
        self.close_reason = close_reason
        self.revision = revision
        self._assessments = tuple(assessments)
        self._is_complete = is_complete
        self._cache: dict[str, Any] = {}
        self._unordered: list[Span] = []
        self.own_spans: list[Span] = []
        """Evaluation spans of otel_scorer that are part of the trace; not in `spans`."""
        for span in spans:
            # A span belongs to the trace that is built from it.
            span._trace = self  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            (self.own_spans if span.scope.name == OWN_SCOPE else self._unordered).append(span)

    @property
    def given_tags(self) -> Mapping[str, str]:
        """What it is tagged with beside what its spans say."""
        return self._tags

    @property
    def arrived(self) -> list[Span]:
        """All spans in the order in which they came, evaluation spans of otel_scorer last."""
        return [*self._unordered, *self.own_spans]

    @property
    def placeholders(self) -> list[Span]:
        """Records that are no spans, as Logfire sends them for unfinished ones and for its log; not in `spans`."""
        return cast("list[Span] | None", self._derive("placeholders")) or []

    @property
    def is_pending(self) -> bool:
        """Whether nothing but placeholders has come, and no span that has ended."""
        return not self._members and bool(self.placeholders)

    @property
    def _members(self) -> list[Span]:
        members: list[Span] | None = self._cache.get("members")
        if members is None:
            left_out = {id(span) for span in self.placeholders}
            members = [span for span in self._unordered if id(span) not in left_out] if left_out else self._unordered
            self._cache["members"] = members
        return members

    def forget(self) -> None:
        """Drop what was decoded, to be as small as before; it is decoded again for whoever is looking, or will."""
        self._cache = {}
        for span in (*self._unordered, *self.own_spans):
            span.forget()

    def let_go(self) -> None:
        """
        Have all that the trace holds freed with it, at once, not by the garbage collector.

        From now on a span reaches its relatives only as long as somebody holds the trace.
        """
        self._cache.pop("info", None)
        left = cast("ref[Trace]", ref(self)), self.reader
        for span in (*self._unordered, *self.own_spans):
            span._trace, span._left = None, left  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    @property
    def tree(self) -> Tree:
        """Parents and children."""
        tree: Tree | None = self._cache.get("tree")
        if tree is None:
            tree = self._cache["tree"] = Tree(self._members)
        return tree

    @property
    def spans(self) -> list[Span]:
        """All spans, the root first, then by start time; a parent comes before a child that started with it."""
        spans: list[Span] | None = self._cache.get("spans")
        if spans is None:
            spans = self._cache["spans"] = self.tree.by_start()
        return list(spans)

    @property
    def root(self) -> Span | None:
        """The root, else the local root, else the earliest span whose parent is not here; None if there is no span."""
        heads = self.tree.heads
        return heads[0] if heads else None

    @property
    def trace_id(self) -> str:
        """32 lower-case hex digits."""
        spans = self._unordered or self.own_spans
        return spans[0].trace_id if spans else ""

    @property
    def info(self) -> TraceInfo:
        """Facts about the trace as a whole."""
        info: TraceInfo | None = self._cache.get("info")
        if info is None:
            info = self._cache["info"] = TraceInfo.of(self, self._tags)
        return info

    @property
    def data(self) -> TraceData:
        """The spans, and what the root says it was given and returned."""
        root = self.root
        sides = (MISSING, MISSING) if root is None else (root.read("inputs"), root.read("outputs"))
        return TraceData.of(self.spans, *sides)

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
        return matching_spans(self.spans, span_type, name, span_id)

    def search_assessments(
        self,
        name: str | None = None,
        *,
        span_id: str | None = None,
        all: bool = False,
        type: Literal["expectation", "feedback"] | None = None,
    ) -> list[Feedback | Expectation]:
        """
        Return the assessments that came with the trace and match everything given.

        Args:
            name: Name of the assessment.
            span_id: The span it is about.
            all: Also those that were overridden (`valid=False`).
            type: Only feedback, or only expectations.
        """
        return [own_copy(each) for each in matching_assessments(self._assessments, name, span_id, type, all=all)]

    @property
    def is_complete(self) -> bool:
        """Whether a root is there and no parent is missing, as far as anybody can know."""
        if self._is_complete is None:
            return self.root_count > 0 and self.missing_parent_count == 0
        return self._is_complete

    @property
    def root_count(self) -> int:
        """Number of spans without a parent id."""
        return self.tree.root_count

    @property
    def missing_parent_count(self) -> int:
        """Number of different parent ids that are named but not here."""
        return self.tree.missing_parent_count

    @property
    def attribute_keys(self) -> frozenset[str]:
        """The keys of all attributes of all spans."""
        keys: frozenset[str] | None = self._cache.get("attribute_keys")
        if keys is None:
            keys = frozenset[str]().union(*[span.attribute_keys for span in self._members])
            self._cache["attribute_keys"] = keys
        return keys

    @property
    def span_types(self) -> frozenset[str]:
        """The types of all spans."""
        return frozenset(span.span_type for span in self._members)

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
        found: list[Document] = self._derive("documents")
        return [replace(one, metadata=copied(one.metadata)) if one.metadata else one for one in found]

    @property
    def messages(self) -> list[Message]:
        """The conversation as the last model call saw and answered it."""
        found: list[Message] = self._derive("messages")
        return [replace(one, tool_calls=copied(one.tool_calls)) if one.tool_calls else one for one in found]

    @property
    def inputs(self) -> Any:
        """What the application was asked: the root's inputs, else derived from its descendants; None if nobody says."""
        value = self.read("inputs")
        return None if value is MISSING else copied(value)

    @property
    def outputs(self) -> Any:
        """What the application answered: the root's outputs, else derived from its descendants; None if nobody says."""
        value = self.read("outputs")
        return None if value is MISSING else copied(value)

    def read(self, field: Literal["inputs", "outputs"]) -> Any:
        """
        Return the trace's inputs or outputs, or MISSING: unlike the properties it tells None from nothing.

        What it returns is shared, and must not be changed.
        """
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
        from otel_scorer.model.plain_trace import plain_trace

        return plain_trace(self)

    def to_json(self, *, pretty: bool = False) -> str:
        """Return `to_dict` as JSON text."""
        import json

        return json.dumps(self.to_dict(), indent=2 if pretty else None, ensure_ascii=False)

    @staticmethod
    def from_dict(data: Mapping[str, Any], reader: Reader | None = None) -> Trace:
        """
        Build a trace from what `to_dict` returned, here or of MLflow's `Trace`.

        Args:
            data: The plain data.
            reader: Tells what attributes mean; by default the one that knows all dialects.

        Raises:
            ValueError: It is something else.
        """
        from otel_scorer.model.plain_trace import read_plain

        spans, rest = read_plain(data)
        return Trace(spans, reader or registered_reader(), **rest)

    @staticmethod
    def from_json(text: str) -> Trace:
        """
        Build a trace from what `to_json` returned, here or of MLflow's `Trace`; see `from_dict`.

        Raises:
            ValueError: It is no JSON, or something else.
        """
        import json

        return Trace.from_dict(json.loads(text))

    def _derive(self, field: str) -> Any:
        value = self._cache.get(field, _UNREAD)
        if value is _UNREAD:
            value = self._cache[field] = self.reader.derive(self, field)
        return value

    def __repr__(self) -> str:
        return f"<Trace {self.trace_id} with {len(self._unordered)} spans>"
