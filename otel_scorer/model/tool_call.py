"""One call of a tool: what is told about it, found when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, final

from otel_scorer.model.read_only import Immutable, copied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.span import Span

__all__ = ["CallDetail", "CallSource", "ToolCall"]

CallDetail: TypeAlias = Literal["arguments", "result", "call_id"]
"""What a call does not know itself."""


class CallSource(Protocol):
    """What knows the details of calls. Asked for nothing that nobody reads: the answer may be far away."""

    def find(self, spans: Sequence[Span], detail: CallDetail) -> Any:
        """Return what is known of the call with these spans, decoded; None if nobody says."""
        ...


@final
class ToolCall(Immutable):
    """
    One call of a tool, as the application made it. Read-only, compared by value.

    Args:
        name: Name of the tool.
        spans: The TOOL spans of the call, the outermost first; at least one.
        source: Tells the rest when it is read.
    """

    __slots__ = ("_name", "_source", "_spans")

    _SHOWN: Final = ("name", "arguments", "result", "failed", "call_id", "span")

    def __init__(self, name: str, spans: Sequence[Span], source: CallSource) -> None:
        self._name = name
        self._spans = spans
        self._source = source

    @property
    def name(self) -> str:
        """Name of the tool."""
        return self._name

    @property
    def arguments(self) -> Any:
        """Decoded arguments, from the model's output if the span has none; None if nobody recorded them."""
        return copied(self._source.find(self._spans, "arguments"))

    @property
    def result(self) -> Any:
        """Decoded result; None if there is none."""
        return copied(self._source.find(self._spans, "result"))

    @property
    def failed(self) -> bool:
        """
        Whether one of its spans failed: its status is ERROR, or it carries `error.type` and its status is not OK.

        The inner spans count as well: an MCP server's span fails where the client's, which got an answer, does not.
        """
        spans = self._spans
        return spans[0].failed or (len(spans) > 1 and any(span.failed for span in spans))

    @property
    def call_id(self) -> str | None:
        """The model's id of the call, from the model's output if the span has none; None if it is not known."""
        call_id: str | None = self._source.find(self._spans, "call_id")
        return call_id

    @property
    def span(self) -> Span:
        """The TOOL span; of several nested ones the outermost."""
        return self._spans[0]

    @property
    def spans(self) -> tuple[Span, ...]:
        """The TOOL spans of the call, the outermost first: more than one where, say, client and server have theirs."""
        return tuple(self._spans)

    @property
    def source(self) -> CallSource:
        """What tells the details."""
        return self._source

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ToolCall):
            return NotImplemented
        return self is other or self._values() == other._values()

    def __hash__(self) -> int:
        # Arguments and results are seldom hashable; equal calls have equal names and spans.
        return hash((self._name, self.span))

    def __repr__(self) -> str:
        facts = zip(self._SHOWN, self._values(), strict=True)
        return f"ToolCall({', '.join(f'{name}={value!r}' for name, value in facts)})"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._SHOWN)
