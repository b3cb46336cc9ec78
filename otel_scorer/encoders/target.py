"""The span that a verdict rides on, or points to: what an encoder needs to know of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_scorer.model.wire import read_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_scorer.model.wire import RawSpan

__all__ = ["Target", "target_of"]

# Every field has a fixed size, so one call packs them all: tag and length, then the value, in order.
# trace_id = 1, parent_span_id = 4, start_time_unix_nano = 7, end_time_unix_nano = 8, links = 13 with trace_id = 1,
# span_id = 2 and flags = 6 of `trace.v1.Span.Link`.
_FIELDS: Final = struct.Struct("<2s16s2s8scQcQ2s2s16s2s8scI")
_TRACE_ID: Final = b"\x0a\x10"
_PARENT_ID: Final = b"\x22\x08"
_START: Final = b"\x39"
_END: Final = b"\x41"
_LINK: Final = b"\x6a\x21"
_LINK_SPAN_ID: Final = b"\x12\x08"
_LINK_FLAGS: Final = b"\x35"


@dataclass(slots=True)  # not frozen: that would double the time it takes to make one
class Target:
    """
    A span, as far as a verdict on it is concerned. Nobody changes one.

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
        trace_id, span_id = self.trace_id, self.span_id
        start = max(0, self.end_time_ns - self.lasts_ns)
        self.encoded = _FIELDS.pack(
            _TRACE_ID, trace_id, _PARENT_ID, span_id, _START, start, _END, self.end_time_ns,
            _LINK, _TRACE_ID, trace_id, _LINK_SPAN_ID, span_id, _LINK_FLAGS, self.flags,
        )  # fmt: skip

    @classmethod
    def of(cls, span: RawSpan, lasts_ns: int = 0) -> Target:
        """Read what is needed from a received span."""
        read = read_span(span.data)
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
    read = read_span(span.data)
    return (read.start_time_unix_nano, span.span_id, read.kind)
