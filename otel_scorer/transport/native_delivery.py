"""
Gets scores to one backend over its own API: a bounded queue, threads that send, and patience.

A trace that the backend does not have yet is asked for again and again, while others go on. A backend that is away, or
asks to wait, is left alone by all threads, for longer each time until it answers anything else. What is given up is
counted with its reason, and kept as a dead letter.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY as SUPPRESS  # pyright: ignore[reportPrivateUsage]

from otel_scorer.errors import PermanentError, RetryableError, TooLargeError, TraceMissingError
from otel_scorer.telemetry import count
from otel_scorer.transport.log_limit import LogLimit
from otel_scorer.transport.native_queue import ScoreQueue
from otel_scorer.transport.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_scorer.transport.dead_letters import DeadLetters
    from otel_scorer.transport.native_queue import Entry
    from otel_scorer.transport.native_score import NativeScore, ScoreApi

__all__ = ["ScoreDelivery"]

_logger = logging.getLogger(__name__)

_QUEUE_SIZE: Final = 64 << 20
_TRACE_TIMEOUT: Final = 600.0
_TIMEOUT: Final = 10.0
# The longest wait between two tries while stopping (seconds), whatever the back-off or the backend says.
_HURRY: Final = 1.0
# For requests that are on the way when the time is up.
_LAST_WORDS: Final = 0.5
# One score among others makes a backend refuse them all with these.
_ONE_OF_MANY: Final = frozenset({"HTTP 400", "HTTP 422"})


class ScoreDelivery:
    """
    The way to one backend. `start` before the first score; `shutdown` sends what waits.

    Args:
        api: Talks to the backend.
        name: The backend, for log lines and self-metrics.
        retry: What to do while it is away.
        trace_timeout: Seconds after which a trace that it does not have will not come any more.
        queue_size: Bytes that may wait.
        timeout: Seconds for one request.
        threads: Requests at a time.
        dead_letters: Where scores go that are given up.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        api: ScoreApi,
        name: str,
        *,
        retry: RetryPolicy | None = None,
        trace_timeout: float = _TRACE_TIMEOUT,
        queue_size: int = _QUEUE_SIZE,
        timeout: float = _TIMEOUT,
        threads: int = 1,
        dead_letters: DeadLetters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._name = name
        self._retry = retry or RetryPolicy()
        self._trace_timeout = trace_timeout
        self._timeout = timeout
        self._dead_letters = dead_letters
        self._clock = clock
        self._log_limit = LogLimit()
        self._changed = threading.Condition()  # guards everything below; notified when there may be something to do
        self._queue = ScoreQueue(queue_size)
        self._failures = 0
        self._pauses = 0
        self._paused_until = 0.0
        self._closing = False
        self._deadline = 0.0
        self._expired = False
        self._gave_up = False
        self._threads = [
            threading.Thread(target=self._run, name=f"otel-scorer-{name}-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def offer(self, scores: Iterable[NativeScore]) -> None:
        """Take scores; never waits. Those that there is no room for are dropped."""
        with self._changed:
            now = self._clock()
            refused = [score for score in scores if self._expired or not self._queue.put(score, now)]
            self._changed.notify_all()
        self._drop(refused, "shutdown" if self._expired else "queue_full", "no room to wait for the backend")

    def has_room(self, size: int) -> bool:
        """Tell whether scores of this size can wait."""
        with self._changed:
            return self._queue.has_room(size)

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits or is on its way, for `timeout` seconds at most, and return whether that is so."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._queue.next_due() is None and not self._queue.is_sending, max(0.0, timeout)
            )

    def shutdown(self, timeout: float) -> bool:
        """
        Send what waits, for `timeout` seconds at most. Safe to call twice.

        Returns:
            Whether nothing had to be given up for want of time.
        """
        with self._changed:
            self._closing = True
            self._deadline = self._clock() + timeout
            self._paused_until = 0.0
            self._queue.hurry(self._clock())
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        self._join(deadline)
        with self._changed:
            self._expired = True
            self._changed.notify_all()
        self._api.close()
        self._join(max(deadline, time.monotonic() + _LAST_WORDS))
        with self._changed:
            left = self._queue.clear()
            self._gave_up |= bool(left)
        self._drop(left, "shutdown", "the sidecar was stopped")
        return not self._gave_up

    def _join(self, deadline: float) -> None:
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        # A process that traces its own HTTP calls must not trace those that carry scores.
        context.attach(context.set_value(SUPPRESS, True))  # noqa: FBT003 - the value instrumentations look for
        while entries := self._take():
            self._deliver(entries)

    def _take(self) -> list[Entry]:
        """Wait for scores that are due and return some of them; nothing at the end."""
        with self._changed:
            while not self._expired:
                now = self._clock()
                due = self._queue.next_due()
                at = None if due is None else max(due, self._paused_until)
                if at is not None and at <= now:
                    return self._queue.take(now, self._api.batch)
                if self._closing and at is None and not self._queue.is_sending:
                    self._changed.notify_all()
                    break
                self._changed.wait(None if at is None else at - now)
        return []

    def _deliver(self, entries: Sequence[Entry]) -> None:
        """Send scores in as many requests as it takes; each of them is sent, put back or dropped in the end."""
        pending = [entries]
        while pending:
            part = pending.pop()
            pauses = self._pauses
            try:
                self._api.send([entry.score for entry in part], self._time_left())
            except TraceMissingError as error:
                self._answered()
                pending += self._miss(part, error)
            except RetryableError as error:
                self._try_later([entry for rest in (part, *reversed(pending)) for entry in rest], error, pauses)
                return
            except PermanentError as error:
                self._answered()
                is_splittable = isinstance(error, TooLargeError) or error.code in _ONE_OF_MANY
                if is_splittable and len(part) > 1:
                    pending += [part[len(part) // 2 :], part[: len(part) // 2]]
                else:
                    self._give_up(part, "too_large" if isinstance(error, TooLargeError) else error.code, error)
            except Exception as error:
                _logger.exception("Cannot send scores to %s", self._name)
                self._give_up(part, "internal", error)
            else:
                self._answered()
                with self._changed:
                    settled = self._queue.settle(part)
                    self._changed.notify_all()
                count("native.sent", len(settled), destination=self._name)
                _finish(settled)

    def _answered(self) -> None:
        """Note that the backend is there, whatever it says: when it fails next, that is a new failure."""
        with self._changed:
            self._failures = 0

    def _miss(self, part: Sequence[Entry], error: TraceMissingError) -> list[Sequence[Entry]]:
        """Have scores wait for their traces, and return those that can be sent now, as they were in the way of none."""
        missing, others = _part(part, lambda entry: (entry.score.span_id or entry.score.trace_id) in error.traces)
        if not missing and len(part) > 1:
            return [part[len(part) // 2 :], part[: len(part) // 2]]
        if not missing:
            missing, others = others, []
        now = self._clock()
        late, waiting = _part(missing, lambda entry: now - entry.since >= self._trace_timeout)
        self._note_retry(error, len(waiting))
        with self._changed:
            for entry in waiting:
                entry.misses += 1
                entry.failing_since = None
                self._queue.put_back([entry], now + self._patience(self._retry.delay(entry.misses)))
            self._changed.notify_all()
        self._give_up(late, "no_trace", error)
        return [others] if others else []

    def _try_later(self, part: Sequence[Entry], error: RetryableError, pauses: int) -> None:
        """Leave the backend alone for a while. What was sent when there had been so many pauses came to this."""
        now = self._clock()
        limit = self._retry.max_elapsed
        for entry in part:
            # Not since it came: it may have waited long for its trace, or behind others.
            entry.failing_since = now if entry.failing_since is None else entry.failing_since
        late, waiting = _part(
            part, lambda entry: not self._retry.enabled or 0 < limit <= now - (entry.failing_since or now)
        )
        self._note_retry(error, 1)
        with self._changed:
            # Requests that were on their way together tell of one failure, not of one each.
            if pauses == self._pauses:
                self._pauses += 1
                self._failures += 1
            delay = self._retry.delay(max(1, self._failures), error.retry_after)
            self._paused_until = max(self._paused_until, now + self._patience(delay))
            self._queue.put_back(waiting, self._paused_until)
            self._changed.notify_all()
        self._give_up(late, "retry_expired", error)

    def _time_left(self) -> float:
        if not self._closing:
            return self._timeout
        return min(self._timeout, max(0.1, self._deadline - self._clock()))

    def _patience(self, seconds: float) -> float:
        return min(seconds, _HURRY) if self._closing else seconds

    def _note_retry(self, error: TraceMissingError | RetryableError, times: int) -> None:
        count("native.retries", times, destination=self._name, code=error.code)
        if times and self._log_limit.allows("retry", error.code):
            _logger.warning("Will send scores to %s again: %s", self._name, error)

    def _give_up(self, part: Sequence[Entry], reason: str, error: Exception) -> None:
        if not part:
            return
        with self._changed:
            settled = self._queue.settle(part)
            self._changed.notify_all()
        self._drop(settled, reason, str(error))

    def _drop(self, scores: Sequence[NativeScore], reason: str, message: str) -> None:
        if not scores:
            return
        if reason == "shutdown" and scores[0].done is not None:
            _logger.warning("%d scores for %s stay in the spool", len(scores), self._name)
            return
        count("native.dropped", len(scores), destination=self._name, reason=reason)
        if self._log_limit.allows(reason):
            _logger.warning("Dropped %d scores for %s: %s (%s)", len(scores), self._name, message, reason)
        if self._dead_letters is not None:
            self._dead_letters.write_scores(self._name, reason, message, scores)
        _finish(scores)


def _finish(scores: Iterable[NativeScore]) -> None:
    for score in scores:
        if score.done is not None:
            score.done()


def _part(entries: Iterable[Entry], chosen: Callable[[Entry], bool]) -> tuple[list[Entry], list[Entry]]:
    """Return those that are chosen, and the others."""
    found: tuple[list[Entry], list[Entry]] = ([], [])
    for entry in entries:
        found[not chosen(entry)].append(entry)
    return found
