"""The context that scorers run in: no span of the application's above it, and instrumentation switched off."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

# The key is what OpenTelemetry's own exporters use, and what instrumentations look for; it has no public name.
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]
from opentelemetry.context import Context, attach, create_key, detach, get_value
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["below_scorer", "is_suppressed", "is_unrecorded", "suppressed", "unrecorded"]

# Somebody else's suppression says nothing: Logfire calls its processors below its own.
_SCORING: Final = create_key("otel_scorer")
_BELOW_A_SCORER: Final = Context({SUPPRESS: True, _SCORING: True})
_TRACED: Final = Context({_SCORING: True})
_NOT_RECORDED: Final = SpanContext(
    RandomIdGenerator().generate_trace_id(), RandomIdGenerator().generate_span_id(), is_remote=False
)


@contextmanager
def suppressed() -> Generator[None]:
    """Leave the caller's trace, if there is one, and suppress instrumentation until the block ends."""
    token = attach(_BELOW_A_SCORER)
    try:
        yield
    finally:
        detach(token)


@contextmanager
def below_scorer() -> Generator[None]:
    """Leave the caller's trace, and have spans recorded that are never scored, until the block ends."""
    token = attach(_TRACED)
    try:
        yield
    finally:
        detach(token)


def is_suppressed() -> bool:
    """Tell whether this code runs below a scorer, or on another thread of ours."""
    return bool(get_value(_SCORING))


@contextmanager
def unrecorded() -> Generator[None]:
    """
    Suppress instrumentation, and have spans that are started all the same be in a trace that is not recorded.

    For who sees spans only when they have ended, on another thread: nothing else tells that a scorer made them, and
    scoring what scorers do would never end. Samplers that do not ask the parent record them; see `is_unrecorded`.
    """
    token = attach(set_span_in_context(NonRecordingSpan(_NOT_RECORDED), _BELOW_A_SCORER))
    try:
        yield
    finally:
        detach(token)


def is_unrecorded(trace_id: int) -> bool:
    """Tell whether spans of this trace were made by a scorer in `unrecorded`."""
    return trace_id == _NOT_RECORDED.trace_id
