"""When traces close, why they did, and what came of it: the values that the assembler takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from otel_scorer.model.wire import RawSpan

if TYPE_CHECKING:
    from otel_scorer.model.log_records import RawLog

__all__ = ["CUT_SHORT", "Added", "AssemblyLimits", "CloseReason", "ClosedTrace", "LatePolicy", "Trigger"]

S = TypeVar("S")


class CloseReason(StrEnum):
    """Why no more spans of a trace were waited for. Also the value of the attribute `otel_scorer.close_reason`."""

    ALL_CLOSED = "all_closed"
    ROOT_QUIET = "root_quiet"
    LOCAL_ROOT_QUIET = "local_root_quiet"
    IDLE = "idle"
    MAX_AGE = "max_age"
    SPAN_LIMIT = "span_limit"
    BYTE_LIMIT = "byte_limit"
    EVICTED = "evicted"
    MEMORY_PRESSURE = "memory_pressure"
    SHUTDOWN = "shutdown"
    END_OF_FILE = "end_of_file"


# These say that somebody stopped waiting, so even a trace without gaps cannot be called complete.
CUT_SHORT: Final = frozenset({
    CloseReason.MAX_AGE,
    CloseReason.SPAN_LIMIT,
    CloseReason.BYTE_LIMIT,
    CloseReason.EVICTED,
    CloseReason.MEMORY_PRESSURE,
    CloseReason.SHUTDOWN,
})  # fmt: skip


class Trigger(StrEnum):
    """
    Which span starts the countdown to closing.

    `AUTO`: a root, else a local root (with a longer grace). `ROOT`: a root only. `LOCAL_ROOT`: every root and every
    local root begins a unit of its own, which scores each service's part of a trace, and each call of it, on its own.
    `MATCH`: only spans that the predicate accepts.
    """

    AUTO = "auto"
    ROOT = "root"
    LOCAL_ROOT = "local_root"
    MATCH = "match"


class LatePolicy(StrEnum):
    """What a span leads to that comes after its trace was closed: nothing but being forwarded, or another score."""

    IGNORE = "ignore"
    RESCORE = "rescore"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyLimits:
    """
    When traces close. Times in seconds, sizes in bytes.

    Attributes:
        trigger: Which span starts the countdown.
        root_grace: Quiet time after a root; arrivals extend it.
        root_cap: The longest that arrivals can extend it, counted from the root.
        local_root_grace: Quiet time after a local root, when no root is there.
        idle_timeout: Quiet time when neither is there.
        max_age: The longest a trace stays open, from its first span.
        max_traces: Open traces; one more closes an old one early.
        max_spans_per_trace: Closes the trace when reached.
        max_bytes_per_trace: Closes the trace when reached.
        late_spans: What happens to spans of a closed trace.
        rescore_window: How long after its first score a trace can be scored again.
        rescore_memory: What the traces that can be may take.
    """

    trigger: Trigger = Trigger.AUTO
    root_grace: float = 2.0
    root_cap: float = 30.0
    local_root_grace: float = 10.0
    idle_timeout: float = 180.0
    max_age: float = 3600.0
    max_traces: int = 50_000
    max_spans_per_trace: int = 10_000
    max_bytes_per_trace: int = 32 * 1024 * 1024
    late_spans: LatePolicy = LatePolicy.IGNORE
    rescore_window: float = 600.0
    rescore_memory: int = 256 * 1024 * 1024


@dataclass(slots=True)
class ClosedTrace(Generic[S]):
    """
    A trace that is as complete as it will get. Nobody changes one: that it is not frozen saves two microseconds each.

    Attributes:
        trace_id: 16 bytes.
        spans: Every span once, in order of arrival, otel_scorer's own evaluation spans after the others.
        reason: Why it was closed.
        complete: A root is there, no parent is missing, and nobody cut the waiting short.
        revision: 1; scoring again after late spans counts up.
        size: Bytes that its spans and log records are worth in memory.
        logs: Log records about its spans, each once, in order of arrival.
        last: When the last span or log record came, in monotonic seconds.
        unit: Which part of the trace it is: the id of the span that it begins with, or, if that never came, of the one
            that is missing. Empty where traces are not cut into units.
    """

    trace_id: bytes
    spans: list[S]
    reason: CloseReason
    complete: bool
    revision: int = 1
    size: int = 0
    logs: tuple[RawLog, ...] = ()
    last: float = 0.0
    unit: bytes = b""


@dataclass(slots=True)
class Added:
    """
    What became of a batch of spans; the spans that are in no list were buffered.

    Attributes:
        closed: Traces that had to close because of the batch.
        late: Spans of traces that were closed before; with units, also some that came before and were buffered until it
            turned out that their unit is closed.
        duplicates: Spans that the open trace has already; the first copy counts.
        own: Evaluation spans of otel_scorer.
    """

    closed: list[ClosedTrace[RawSpan]] = field(default_factory=list["ClosedTrace[RawSpan]"])
    late: list[RawSpan] = field(default_factory=list[RawSpan])
    duplicates: list[RawSpan] = field(default_factory=list[RawSpan])
    own: list[RawSpan] = field(default_factory=list[RawSpan])
