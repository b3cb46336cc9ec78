"""One call of a tool: what is told about it, found when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, final

if TYPE_CHECKING:
    from otel_scorer.model.span import Span

__all__ = ["CallSource", "ToolCall"]


class CallSource(Protocol):
    """What knows the details of one call. Asked for nothing that nobody reads: the answer may be far away."""

    def find_arguments(self) -> Any:
        """Return the decoded arguments; None if nobody recorded them."""
        ...

    def find_result(self) -> Any:
        """Return the decoded result; None if there is none."""
        ...

    def find_call_id(self) -> str | None:
        """Return the model's id of the call, if known."""
        ...


@final
class ToolCall:
    """
    One call of a tool, as the application made it. Read-only, compared by value.

    Args:
        name: Name of the tool.
        span: The TOOL span.
        source: Tells the rest when it is read.
    """

    __slots__ = ("_name", "_source", "_span")

    _SHOWN: Final = ("name", "arguments", "result", "failed", "call_id", "span")

    def __init__(self, name: str, span: Span, source: CallSource) -> None:
        self._name = name
        self._span = span
        self._source = source

    @property
    def name(self) -> str:
        """Name of the tool."""
        return self._name

    @property
    def arguments(self) -> Any:
        """Decoded arguments, from the model's output if the span has none; None if nobody recorded them."""
        return self._source.find_arguments()

    @property
    def result(self) -> Any:
        """Decoded result; None if there is none."""
        return self._source.find_result()

    @property
    def failed(self) -> bool:
        """The span's status is ERROR, or it carries `error.type` and its status is not OK."""
        return self._span.failed

    @property
    def call_id(self) -> str | None:
        """The model's id of the call, from the model's output if the span has none; None if it is not known."""
        return self._source.find_call_id()

    @property
    def span(self) -> Span:
        """The TOOL span."""
        return self._span

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
        return hash((self._name, self._span))

    def __repr__(self) -> str:
        facts = zip(self._SHOWN, self._values(), strict=True)
        return f"ToolCall({', '.join(f'{name}={value!r}' for name, value in facts)})"

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self._SHOWN)
