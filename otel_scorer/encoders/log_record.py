"""
A verdict as a log record: event name `gen_ai.evaluation.result`, the ids of its target, and a body for people to read.

Nothing in its bytes depends on when it was made, as with evaluation spans: stores that know identical records keep one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_scorer.encoders.on_span import EVENT_NAME, event_attributes
from otel_scorer.encoders.verdict import value_text
from otel_scorer.model.encoding import field, fixed32_field, fixed64_field, key_value, varint_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_scorer.encoders.target import Target
    from otel_scorer.encoders.verdict import AttributeScalar, Verdict

__all__ = ["encode_log_record", "log_attributes", "log_body"]

# SeverityNumber and the text that goes with it; a failing score is no failure of anything.
_INFO: Final = (9, "INFO")
_WARN: Final = (13, "WARN")
_BODY_TEXT: Final = 256


def log_attributes(
    verdict: Verdict, target: Target, *, close_reason: str | None, complete: bool | None
) -> dict[str, AttributeScalar]:
    """
    Return the attributes of a verdict's log record: those of its span event, and what else a store can be asked for.

    The event name is there once more, as `event.name`: stores that are older than the field drop that.
    """
    attributes = event_attributes(verdict)
    attributes["event.name"] = EVENT_NAME
    attributes["otel_scorer.evaluation_id"] = verdict.evaluation_id(target.trace_id, target.span_id).hex()
    attributes["otel_scorer.revision"] = verdict.revision
    if close_reason is not None:
        attributes["otel_scorer.close_reason"] = close_reason
    if complete is not None:
        attributes["otel_scorer.complete"] = complete
    return attributes


def log_body(verdict: Verdict) -> str:
    """Return a line such as `no_error=false fail: 1 of 3 tool calls failed`."""
    if verdict.error_type is not None:
        said = f"{verdict.name} error {verdict.error_type}"
    elif verdict.value is None:
        said = f"{verdict.name} no value"
    else:
        text = value_text(verdict.value)
        said = f"{verdict.name}={_line(text)}"
        if verdict.label is not None and verdict.label != text:
            said += f" {_line(verdict.label)}"
    return said if verdict.explanation is None else f"{said}: {_line(verdict.explanation)}"


def encode_log_record(
    verdict: Verdict,
    target: Target,
    *,
    close_reason: str | None,
    complete: bool | None,
    more: Mapping[str, str] | None = None,
) -> bytes:
    """
    Return the encoded `logs.v1.LogRecord`, at the time its target ended.

    Args:
        verdict: What to say.
        target: The span that it is about, or that stands for the trace.
        close_reason: Why the trace was closed.
        complete: Whether it looked complete.
        more: Further attributes that a backend asks for; they win.
    """
    attributes = log_attributes(verdict, target, close_reason=close_reason, complete=complete) | dict(more or {})
    number, text = _INFO if verdict.error_type is None else _WARN
    return b"".join([
        fixed64_field(1, target.end_time_ns),
        varint_field(2, number),
        field(3, text.encode()),
        field(5, field(1, log_body(verdict).encode("utf-8", "replace"))),
        *(field(6, key_value(key, value)) for key, value in attributes.items()),
        fixed32_field(8, target.flags),
        field(9, target.trace_id),
        field(10, target.span_id),
        # Sinks that only know this time would file the record under 1970.
        fixed64_field(11, target.end_time_ns),
        field(12, EVENT_NAME.encode()),
    ])  # fmt: skip


def _line(text: str) -> str:
    """Return the beginning of a text, on one line."""
    line = " ".join(text[: _BODY_TEXT * 2].split())
    return line if len(line) <= _BODY_TEXT else line[: _BODY_TEXT - 3] + "..."
