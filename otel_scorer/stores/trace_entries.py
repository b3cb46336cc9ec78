"""What is stored of a trace and of one judgement of it, as rows of the tables and back."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import pydantic_core

from otel_scorer.errors import StoreError
from otel_scorer.model.assessment import as_text
from otel_scorer.model.decision import Decision
from otel_scorer.model.encoding import nearest_double
from otel_scorer.model.otlp_attributes import utf8_text
from otel_scorer.model.plain import plain
from otel_scorer.model.trace_bytes import logs_as_bytes, spans_as_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from otel_scorer.model.feedback import Expectation
    from otel_scorer.model.trace import Trace

__all__ = ["Entry", "StoredEntry", "TraceRecord", "as_json", "decisions_of", "expectation_row", "unpacked"]

# Below this nothing is gained; at level 1 packing costs a third of what writing the bytes does that it saves.
_PACKED_FROM: Final = 1024
_LEVEL: Final = 1
_encode: Final = json.JSONEncoder(ensure_ascii=False, default=plain).encode
_escape: Final = json.JSONEncoder(default=plain).encode


class _Packer(threading.local):
    """Packs; one for each thread, since making one costs more than packing a trace."""

    def __init__(self) -> None:
        self.compressor = zstd.ZstdCompressor(_LEVEL)


_packer: Final = _Packer()


def _packed(data: bytes) -> bytes:
    compressor = _packer.compressor
    return compressor.compress(data, compressor.FLUSH_FRAME)


def _decisions_json(decisions: list[dict[str, Any]]) -> str:
    try:
        # Twice as fast, and these are plain data already.
        return pydantic_core.to_json(decisions, inf_nan_mode="constants").decode()
    except ValueError:
        return as_json(decisions)


def as_json(value: object) -> str:
    """Return a value as JSON text that UTF-8 can carry; what JSON cannot hold as `plain` says, else as its `str`."""
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError):  # keys that are no strings, circles
        value = as_text(value)
        text = _encode(value)
    # Escaped, a lone surrogate comes back as it was.
    return text if text.isascii() or utf8_text(text) == text else _escape(value)


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """
    A trace as it is stored: its bytes, and what searches ask for.

    Attributes:
        trace_id: 32 lower-case hex digits.
        spans: Encoded ExportTraceServiceRequest.
        logs: Encoded ExportLogsServiceRequest, or nothing.
        name: Of the root.
        root_id: Its span id, 16 hex digits.
        service_name: Of the root's resource.
        session_id: Conversation that it belongs to.
        user_id: User whom it was made for.
        state: `OK`, `ERROR` or `IN_PROGRESS`.
        start_ms: Start of the root, milliseconds since the epoch.
        end_ms: Its end.
        tags: What searches find as `tags.<key>`.
        close_reason: Why no more spans were waited for.
        complete: Whether a root is there and no parent is missing.
        revision: 1, or higher when late spans led to scoring again.
        unit: Which part of the trace it is, where each service's part is a unit of its own: the id of the span that it
            begins with, 16 hex digits.
    """

    trace_id: str
    spans: bytes
    logs: bytes = b""
    name: str | None = None
    root_id: str | None = None
    service_name: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    state: str = "OK"
    start_ms: int = 0
    end_ms: int = 0
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    close_reason: str | None = None
    complete: bool = True
    revision: int = 1
    unit: str = ""

    @classmethod
    def of(
        cls,
        trace: Trace,
        *,
        spans: bytes | None = None,
        logs: bytes | None = None,
        tags: Mapping[str, object] | None = None,
        unit: str = "",
    ) -> Self:
        """
        Return the record of a trace.

        Args:
            trace: The trace.
            spans: Its spans as bytes, if they are at hand.
            logs: Its log records, likewise.
            tags: What it is tagged with beside its own tags.
            unit: Which part of the trace it is.
        """
        info, root = trace.info, trace.root
        return cls(
            trace.trace_id,
            spans_as_bytes(trace) if spans is None else spans,
            logs_as_bytes(trace) if logs is None else logs,
            None if root is None else root.name,
            None if root is None else root.span_id,
            None if root is None else root.service_name,
            trace.session_id,
            trace.user_id,
            info.state,
            info.request_time,
            info.request_time + info.execution_duration,
            {**info.tags, **{str(key): str(value) for key, value in (tags or {}).items()}},
            trace.close_reason,
            trace.is_complete,
            trace.revision,
            unit,
        )

    def row(self, now_ms: int) -> tuple[object, ...]:
        """Return the columns of the table `traces`, without its number."""
        packed = len(self.spans) + len(self.logs) >= _PACKED_FROM
        return (
            self.trace_id,
            _packed(self.spans) if packed else self.spans,
            _packed(self.logs) if packed and self.logs else self.logs,
            packed,
            _text(self.name),
            self.root_id,
            _text(self.service_name),
            _text(self.session_id),
            _text(self.user_id),
            self.state,
            self.start_ms,
            self.end_ms,
            _tags(self.tags) if self.tags else "{}",
            self.close_reason,
            self.complete,
            self.revision,
            now_ms,
            self.unit,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One judgement of one trace, to be stored.

    Attributes:
        record: The trace.
        decisions: What became of the scorers.
        position: Which row of the run it is, from 0.
        given: What a row of a data set said beside its trace: any of `inputs`, `outputs` and `tags`.
        error: Why there are no outputs, where making them failed.
        expectations: What the right answer is; replaces what was expected before.
        attached: What came with the trace as the right answer; counts where the store knows none of that name.
    """

    record: TraceRecord
    decisions: Sequence[Decision] = ()
    position: int = 0
    given: Mapping[str, Any] | None = None
    error: str | None = None
    expectations: Sequence[Expectation] = ()
    attached: Sequence[Expectation] = ()

    def row(self, run_id: str | None, now_ms: int) -> tuple[object, ...]:
        """Return the columns of the table `entries`, without its number."""
        decisions = _decisions_json([decision.to_dict() for decision in self.decisions])
        given = None
        if self.given is not None:
            # One by one: what JSON cannot hold of one becomes text, and the others stay as they are.
            given = f"{{{', '.join(f'{as_json(key)}: {as_json(value)}' for key, value in self.given.items())}}}"
        return (
            run_id,
            self.record.trace_id,
            self.position,
            given,
            _text(self.error),
            decisions,
            now_ms,
            self.record.unit,
        )

    def feedback_rows(self, run_id: str | None) -> Iterator[tuple[object, ...]]:
        """Yield the columns of the table `feedback`, without its number."""
        for decision in self.decisions:
            for feedback in decision.feedbacks:
                yield (
                    self.record.trace_id,
                    run_id,
                    _text(feedback.name),
                    *_comparable(feedback.value),
                    self.record.unit,
                )


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One judgement of one trace, as it was stored; see `Entry` and `TraceRecord`."""

    trace_id: str
    name: str | None
    root_id: str | None
    close_reason: str | None
    complete: bool
    position: int
    given: Mapping[str, Any] | None
    error: str | None
    decisions: tuple[Decision, ...]


def unpacked(spans: bytes, logs: bytes, packed: int) -> tuple[bytes, bytes]:
    """Return spans and logs as they were before they were packed."""
    if not packed:
        return spans, logs
    try:
        return zstd.decompress(spans), zstd.decompress(logs) if logs else b""
    except zstd.ZstdError as error:
        raise StoreError(f"A stored trace is damaged: {error}") from error


def expectation_row(trace_id: str, expectation: Expectation) -> tuple[object, ...]:
    """Return the columns of the table `expectations`."""
    document = as_json(expectation.to_dictionary() | {"trace_id": trace_id})
    return trace_id, _text(expectation.name), *_comparable(expectation.value), document


def _comparable(value: Any) -> tuple[float | None, str | None]:
    """Return a value as searches compare it: with numbers, and with texts."""
    if isinstance(value, bool):
        return float(value), "true" if value else "false"
    if isinstance(value, int | float):
        return nearest_double(value), str(value)
    if value is None or isinstance(value, str):
        return None, _text(value)
    return None, as_json(value)


def _tags(tags: Mapping[str, str]) -> str:
    """Return tags as SQLite's own JSON functions write them: then it sees whether they changed."""
    plain = {utf8_text(key): utf8_text(value) for key, value in tags.items()}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _text(text: str | None) -> str | None:
    return None if text is None else utf8_text(text)


def decisions_of(text: str) -> tuple[Decision, ...]:
    """Read the column `entries.decisions`."""
    return tuple(Decision.from_dict(each) for each in json.loads(text))
