"""
What sidecar and scorer workers say to each other over a pipe: framed JSON headers and span bytes, never pickles.

    sidecar -> worker   SETUP    {"scorers": [...], "concurrency": n, ...}
    worker  -> sidecar  READY    {"scorers": [{"name": ..., ...}], "left_out": [why, ...]}   or {"error": "..."}
    sidecar -> worker   JOBS     [{"id": n, "scorers": [i, ...], "size": bytes, "logs": bytes, ...}]
                                 + for each job its trace and the log records about it, as OTLP requests
    worker  -> sidecar  RESULTS  [[job id, [[scorer, [decision, ...]], ...]], ...]     see `pack_decision`

A page of memory shared by both says which scorer is running since when, on the worker's main thread (slot 0) and on
its event loop (slot 1), so that the sidecar can tell a hung scorer from a long queue and a crash's culprit from a
bystander.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import pydantic_core

from otel_scorer.model.assessment import CODE_SOURCE
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence

__all__ = [
    "HEARTBEAT_BYTES",
    "Beat",
    "Heartbeat",
    "failed_decision",
    "pack",
    "pack_decision",
    "unpack",
    "unpack_decision",
]

_HEADER: Final = struct.Struct("<I")
_SEQUENCE: Final = struct.Struct("=q")
_BEAT: Final = struct.Struct("=qqqd")
_SLOT_BYTES: Final = 64
HEARTBEAT_BYTES: Final = 4096
_MICROSECONDS: Final = 1_000_000  # in a second
_USUAL: Final = 4  # what every packed feedback has
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}  # thrice as fast as asking the class
_NOBODY: Final = _BEAT.pack(-1, -1, -1, 0.0)
# Characters of one text that a worker hands over, beyond what any encoding sends: the sidecar must not have to hold a
# gigabyte because a scorer made one.
_TEXT_CHARACTERS: Final = 1 << 20


def pack(header: Any, *payloads: bytes) -> bytes:
    """Frame a header (plain JSON data) and payloads."""
    try:
        encoded = pydantic_core.to_json(header, inf_nan_mode="constants")
    except ValueError:
        # Lone surrogates, which no UTF-8 text can carry, and whatever else a scorer may have smuggled in.
        encoded = pydantic_core.to_json(_sendable(header), inf_nan_mode="constants")
    return b"".join((_HEADER.pack(len(encoded)), encoded, *payloads))


def unpack(message: bytes) -> tuple[Any, memoryview]:
    """Return the header and what follows it."""
    (size,) = _HEADER.unpack_from(message)
    end = _HEADER.size + size
    return pydantic_core.from_json(message[_HEADER.size : end]), memoryview(message)[end:]


def pack_decision(decision: Decision) -> list[Any]:
    """Return what of a decision its reader does not know yet, as plain JSON data; `unpack_decision` reads it back."""
    seconds, scorer = decision.seconds, decision.scorer
    return [
        decision.span_id,
        decision.outcome._value_,
        decision.reason,
        None if seconds is None else int(seconds * _MICROSECONDS),
        decision.passed,
        [_pack_feedback(feedback, scorer) for feedback in decision.feedbacks],
    ]


def failed_decision(span_id: str | None, scorer: str, code: str, cause: str) -> list[Any]:
    """Return what `pack_decision` would have returned had the scorer failed for a cause."""
    error = Feedback(scorer, None, AssessmentError(code, cause), _source("CODE", scorer))
    return [span_id, Outcome.FAILED.value, cause, None, [None], [_pack_feedback(error, scorer)]]


def unpack_decision(packed: Sequence[Any], trace_id: str, scorer: str, version: str, revision: int) -> Decision:
    """Return a decision from what `pack_decision` returned and what belongs to the job and the scorer."""
    span_id, outcome, reason, microseconds, passed, feedbacks = packed
    return Decision(
        trace_id,
        span_id,
        scorer,
        version,
        _OUTCOMES[outcome],
        reason,
        revision,
        tuple([_unpack_feedback(feedback, scorer) for feedback in feedbacks]),
        tuple(passed),
        None if microseconds is None else microseconds / _MICROSECONDS,
    )


def _pack_feedback(feedback: Feedback, scorer: str) -> list[Any]:
    """Return what every feedback has, and then the rest if there is anything in it that is not usual."""
    value, rationale, source = feedback.value, feedback.rationale, feedback.source
    packed = [
        value[:_TEXT_CHARACTERS] if type(value) is str else value,
        None if rationale is None else rationale[:_TEXT_CHARACTERS],
        feedback.create_time_ms,
        None if source is None or source is CODE_SOURCE else (str(source.source_type), source.source_id),
    ]
    error, metadata = feedback.error, feedback.metadata
    if feedback.name != scorer or error is not None or metadata or feedback.span_id is not None:
        packed += (
            feedback.name,
            None if error is None else (error.error_code, _short(error.error_message), error.stack_trace),
            {key: _short(item) for key, item in metadata.items()} if metadata else None,
            feedback.span_id,
        )
    return packed


def _short(value: object) -> object:
    return value[:_TEXT_CHARACTERS] if isinstance(value, str) else value


def _unpack_feedback(packed: Sequence[Any], scorer: str) -> Feedback:
    name, error, metadata, span_id = scorer, None, None, None
    if len(packed) == _USUAL:
        value, rationale, created, source = packed
    else:
        value, rationale, created, source, name, error, metadata, span_id = packed
    return Feedback(
        name,
        value,
        None if error is None else AssessmentError(*error),
        CODE_SOURCE if source is None else _source(*source),
        None,
        metadata,
        span_id,
        created,
        created,
        rationale,
    )


@lru_cache(maxsize=256)
def _source(source_type: str, source_id: str) -> AssessmentSource:
    return AssessmentSource(source_type, source_id)


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_sendable(str(key)): _sendable(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [_sendable(item) for item in cast("Sequence[Any]", value)]
    if value is None or isinstance(value, bool | int | float):
        return value
    # Not its text: nobody watches the time here.
    return type(cast("object", value)).__name__


class Beat(NamedTuple):
    """What runs in a worker: the job, the scorer and which of its targets, by number, and since when."""

    job: int
    scorer: int
    target: int
    since: float


class Heartbeat:
    """
    What one thread of a worker runs, written there and read by the sidecar (monotonic seconds are comparable).

    A sequence number, odd while something is being written, keeps the reader from taking half of one beat and half of
    the next for a scorer that has run for ever.
    """

    def __init__(self, page: mmap.mmap, slot: int = 0) -> None:
        self._page = page
        start = slot * _SLOT_BYTES
        self._sequence = slice(start, start + _SEQUENCE.size)
        self._beat = slice(self._sequence.stop, self._sequence.stop + _BEAT.size)
        # The same bytes to write to, number by number: that takes half as long as slices do.
        self._numbers = memoryview(page)[start : self._beat.stop].cast("q")
        self._since = memoryview(page)[self._beat.stop - 8 : self._beat.stop].cast("d")
        self._number = 0
        self._is_copy = False

    def begin(self, job: int, scorer: int, target: int, now: float) -> None:
        """Note that a scorer starts."""
        if self._is_copy:
            os._exit(0)
        self._number = number = self._number + 2
        page = self._numbers
        page[0] = number - 1
        page[1], page[2], page[3], self._since[0] = job, scorer, target, now
        page[0] = number

    def end(self) -> None:
        """Note that no scorer runs."""
        self.begin(-1, -1, -1, 0.0)

    def read(self) -> Beat | None:
        """Return what runs; None if nothing does, or if it changes just now."""
        before = self._page[self._sequence]
        beat = self._page[self._beat]
        if beat == _NOBODY or before[0] & 1 or self._page[self._sequence] != before:
            return None
        return Beat._make(_BEAT.unpack(beat))

    def leave_to_parent(self) -> None:
        """
        End this process when it would write next: it is a copy of the worker, made by a scorer that has forked.

        What a copy does is the scorer's business until the scorer returns in it; then there would be two workers.
        """
        self._is_copy = True
