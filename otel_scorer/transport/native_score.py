"""What the score APIs of backends have in common: one score, ready to be sent, and who sends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SCORE_OVERHEAD", "NativeScore", "ScoreApi"]

SCORE_OVERHEAD: Final = 400
"""Bytes that a waiting score costs beside its body."""


@dataclass(frozen=True, slots=True)
class NativeScore:
    """
    One score for one backend.

    Attributes:
        id: The same for the same verdict: of two that wait the later one counts.
        trace_id: 32 lower-case hex digits.
        span_id: 16 of them, if it is about one span.
        body: What the backend is sent, as JSON.
        done: Called once it was sent, or given up for good, or another one has taken its place.
    """

    id: str
    trace_id: str
    span_id: str | None
    body: bytes
    done: Callable[[], None] | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes of memory that it is worth while it waits."""
        return len(self.body) + SCORE_OVERHEAD


class ScoreApi(Protocol):
    """
    Sends scores to one backend; may be used by several threads at once.

    Attributes:
        batch: How many scores one request can carry.
    """

    @property
    def batch(self) -> int:
        """How many scores one request can carry."""
        ...

    def send(self, scores: Sequence[NativeScore], timeout: float) -> None:
        """
        Send scores in one request; once it returns, each of them is there exactly once, however often it was sent.

        Raises:
            TraceMissingError: The backend does not have a trace or span yet. None of them was taken.
            RetryableError: It may succeed later.
            TooLargeError: Fewer scores may succeed.
            PermanentError: The same request will fail again.
        """
        ...

    def close(self) -> None:
        """Free the connections. Safe to call twice."""
        ...
