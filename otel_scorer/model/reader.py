"""The seam to the attribute vocabularies: what tells views the meaning of what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.span import Span
    from otel_scorer.model.trace import Trace

__all__ = ["Reader", "register_reader", "registered_maker", "registered_reader"]


class Reader(Protocol):
    """
    What attribute vocabularies say about spans and traces.

    `read` answers for one span: `inputs`, `outputs`, `tool_name`, `tool_call_id`, `tool_args`, `tool_result`,
    `documents`, `model`, `input_tokens`, `output_tokens`, `session_id`, `user_id`, `tags`, ...; MISSING if it does not
    say. `derive` answers for a trace after its spans were joined: `tool_calls`, `llm_calls`, `usage`, `documents`,
    `messages`, `inputs`, `outputs`, `session_id`, `user_id`, `model`, `tags`, `evaluations`, `dialects`, and
    `placeholders`, the spans that are none.
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


# The dialects are a layer above: they put here what makes their reader when they are imported.
_default_reader: list[Callable[[], Reader]] = []


def register_reader(make: Callable[[], Reader]) -> None:
    """Have `Trace.from_dict` and `Trace.from_json` give the reader that `make` returns to the traces they build."""
    _default_reader[:] = [make]


def registered_maker() -> Callable[[], Reader]:
    """
    Return what `register_reader` was given last.

    Raises:
        RuntimeError: Nobody called it.
    """
    if not _default_reader:
        msg = "Nothing can tell what attributes mean: import otel_scorer.dialects, or pass a reader"
        raise RuntimeError(msg)
    [make] = _default_reader
    return make


def registered_reader() -> Reader:
    """
    Return what the one that `register_reader` was given last makes.

    Raises:
        RuntimeError: Nobody called it.
    """
    return registered_maker()()
