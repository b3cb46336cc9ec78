"""The span that a verdict rides on, or points to: what an encoder needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.model import encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.wire import RawSpan

__all__ = ["Target", "target_of"]


@dataclass(frozen=True, slots=True)
class Target:
    """
    A span, as far as a verdict on it is concerned.

    Attributes:
        trace_id: 16 bytes.
        span_id: 8 bytes.
        end_time_ns: When it ended, nanoseconds since the epoch.
        flags: Its W3C trace flags.
        lasts_ns: How long an evaluation span on it lasts, nanoseconds.
        encoded: The fields of an evaluation span that follow from its target: trace id, parent, start and end, and the
            only link. It ends when the target did, so that no trace gets longer by being scored.
    """

    trace_id: bytes
    span_id: bytes
    end_time_ns: int
    flags: int = 1
    lasts_ns: int = 0
    encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        trace_id = encoding.field(1, self.trace_id)
        link = trace_id + encoding.field(2, self.span_id) + encoding.fixed32_field(6, self.flags)
        start = encoding.fixed64_field(7, max(0, self.end_time_ns - self.lasts_ns))
        times = start + encoding.fixed64_field(8, self.end_time_ns)
        object.__setattr__(
            self, "encoded", trace_id + encoding.field(4, self.span_id) + times + encoding.field(13, link)
        )

    @classmethod
    def of(cls, span: RawSpan, lasts_ns: int = 0) -> Target:
        """Read what is needed from a received span."""
        read = SpanMessage.FromString(span.data)
        return cls(span.trace_id, span.span_id, read.end_time_unix_nano, read.flags & 0xFF, lasts_ns)


def target_of(spans: Sequence[RawSpan]) -> RawSpan | None:
    """
    Return the span that stands for its trace: the root, else the local root, else the earliest without a known parent.

    Of several the one that started first. otel_scorer's own spans are never targets.
    """
    candidates = [span for span in spans if span.parent_id is None and not span.scope.is_own]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        scored = [span for span in spans if not span.scope.is_own]
        ids = {span.span_id for span in scored}
        heads = [span for span in scored if span.parent_id not in ids or span.parent_id == span.span_id]
        candidates = [span for span in heads if span.is_local_root] or heads or scored
    return min(candidates, key=_by_start, default=None)


def _by_start(span: RawSpan) -> tuple[int, bytes, int]:
    read = SpanMessage.FromString(span.data)
    return (read.start_time_unix_nano, span.span_id, read.kind)
