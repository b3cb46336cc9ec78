"""
Traces and spans in pickles: as the bytes that are stored, never as objects.

Who unpickles them reads them with the dialects that are in use there.
"""

from __future__ import annotations

import copyreg
from typing import TYPE_CHECKING, Any

from otel_scorer.model.otlp_span import OtlpSpan
from otel_scorer.model.reader import registered_maker
from otel_scorer.model.recorded import RecordedSpan
from otel_scorer.model.sdk_span import SdkSpan
from otel_scorer.model.tool_call import ToolCall
from otel_scorer.model.trace import Trace
from otel_scorer.model.trace_bytes import logs_as_bytes, spans_as_bytes, trace_from_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_scorer.model.reader import Reader
    from otel_scorer.model.span import Span

__all__ = ["teach_pickle"]


def _reduced_trace(trace: Trace) -> tuple[Callable[..., Trace], tuple[Any, ...]]:
    """Return what makes the trace again."""
    said = {
        "close_reason": trace.close_reason,
        "is_complete": trace.is_complete,
        "revision": trace.revision,
        "assessments": trace.search_assessments(all=True),
        "tags": trace.info.tags,
    }
    # Whoever loads it need not have imported the dialects: to name what makes their reader does so.
    return _trace, (spans_as_bytes(trace), logs_as_bytes(trace), said, registered_maker())


def _reduced_span(span: Span) -> tuple[Callable[..., Span], tuple[Any, ...]]:
    """Return what finds the span again in its trace; one that belongs to none is made of its plain data."""
    trace = span._home()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # only views need to know it
    return (RecordedSpan, (span.to_dict(),)) if trace is None else (_span, (trace, _facts(span)))


def _reduced_call(call: ToolCall) -> tuple[Callable[..., ToolCall], tuple[Any, ...]]:
    """Return what finds the call again in its trace."""
    _, (trace, *_) = _reduced_span(call.span)
    return _call, (trace, [each.span for each in trace.tool_calls].index(call.span))


def _trace(spans: bytes, logs: bytes, said: dict[str, Any], make: Callable[[], Reader]) -> Trace:
    return trace_from_bytes(spans, logs, make(), **said)


def _facts(span: Span) -> tuple[object, ...]:
    return span.span_id, str(span.kind), span.start_time_ns, span.end_time_ns, span.name


def _span(trace: Trace, facts: tuple[object, ...]) -> Span:
    return next(span for span in trace.arrived if _facts(span) == facts)


def _call(trace: Trace, place: int) -> ToolCall:
    return trace.tool_calls[place]


def teach_pickle() -> None:
    """Have pickle know the views of traces."""
    copyreg.pickle(Trace, _reduced_trace)
    copyreg.pickle(ToolCall, _reduced_call)
    for kind in (OtlpSpan, SdkSpan, RecordedSpan):
        copyreg.pickle(kind, _reduced_span)
