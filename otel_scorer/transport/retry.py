"""When to send a failed request again: exponential back-off with jitter, never sooner than the backend asks."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import tenacity

from otel_scorer.errors import RetryableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RetryPolicy"]

# A mistaken hint must not end the sending: what is kept in a spool waits without a limit of its own.
_LONGEST: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    How long and how often.

    Attributes:
        enabled: False: one attempt only.
        initial_interval: Seconds; upper bound of the first delay. Each one is between half its bound and the bound.
        multiplier: Growth of that bound.
        max_interval: Seconds; the bound grows no further. A backend may ask for more, up to an hour.
        max_elapsed: Seconds from the first attempt after which a request is given up; 0 means never.
    """

    enabled: bool = True
    initial_interval: float = 1.0
    multiplier: float = 1.5
    max_interval: float = 30.0
    max_elapsed: float = 300.0

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """
        Return how many seconds to wait after a failure: at random, so that not all come at once.

        Args:
            failures: How many in a row there have been, at least one.
            retry_after: Seconds that the backend asks for; never less than these, up to an hour.
        """
        limit = min(self.max_interval, self.initial_interval * self.multiplier ** min(failures - 1, 64))
        return max(limit * random.uniform(0.5, 1.0), min(retry_after or 0.0, _LONGEST))  # noqa: S311 - spreads load, keeps no secret

    def attempts(
        self,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        stopped: Callable[[], bool],
        on_retry: Callable[[RetryableError], None],
    ) -> tenacity.Retrying:
        """
        Return what runs a request until it succeeds, fails for good, or is given up (then its error is raised).

        For any number of requests, one after the other.

        Args:
            clock: Monotonic seconds.
            sleep: Waits between attempts; may return early.
            stopped: True: no further attempt.
            on_retry: Told about each failure that is followed by another attempt.
        """
        started = 0.0

        def begin(state: tenacity.RetryCallState) -> None:
            nonlocal started
            if state.attempt_number == 1:
                started = clock()

        def wait(state: tenacity.RetryCallState) -> float:
            return self.delay(state.attempt_number, _failure(state).retry_after)

        def stop(state: tenacity.RetryCallState) -> bool:
            elapsed = clock() - started + state.upcoming_sleep
            return not self.enabled or stopped() or 0 < self.max_elapsed < elapsed

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableError),
            wait=wait,
            stop=stop,
            sleep=sleep,
            before=begin,
            before_sleep=lambda state: on_retry(_failure(state)),
            reraise=True,
        )


def _failure(state: tenacity.RetryCallState) -> RetryableError:
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, RetryableError):
        raise TypeError(f"Asked about a retry after {error!r}")  # retry_if_exception_type lets nothing else through
    return error
