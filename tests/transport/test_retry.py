from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.errors import PermanentError, RetryableError
from otel_scorer.transport.retry import RetryPolicy


class Backend:
    """Fails a number of times, on a clock that only sleeping moves."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.now = 0.0
        self.slept: list[float] = []
        self.retried: list[RetryableError] = []

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "taken"

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def run(self, policy: RetryPolicy, *, stopped: bool = False) -> str:
        attempts = policy.attempts(
            clock=lambda: self.now, sleep=self.sleep, stopped=lambda: stopped, on_retry=self.retried.append
        )
        result: str = attempts(self)
        return result


def unavailable(retry_after: float | None = None) -> RetryableError:
    return RetryableError("down", code="UNAVAILABLE", retry_after=retry_after)


def test_a_failure_that_passes_is_retried_until_it_has_passed() -> None:
    backend = Backend(unavailable(), unavailable())

    assert backend.run(RetryPolicy()) == "taken"

    assert backend.calls == 3
    assert [error.code for error in backend.retried] == ["UNAVAILABLE"] * 2


@given(failures=st.integers(1, 12))
def test_delays_grow_to_their_bound_with_jitter(failures: int) -> None:
    backend = Backend(*[unavailable() for _ in range(failures)])

    backend.run(RetryPolicy(initial_interval=1.0, multiplier=1.5, max_interval=10.0, max_elapsed=0))

    bounds = [min(10.0, 1.5**attempt) for attempt in range(failures)]
    assert all(bound / 2 <= delay <= bound for bound, delay in zip(bounds, backend.slept, strict=True))


def test_the_delay_that_the_backend_asks_for_is_kept() -> None:
    backend = Backend(unavailable(7.0))

    backend.run(RetryPolicy(initial_interval=0.1))

    assert backend.slept[0] >= 7.0


def test_a_delay_that_can_only_be_a_mistake_ends_after_an_hour() -> None:
    backend = Backend(unavailable(9e9))

    assert backend.run(RetryPolicy(max_elapsed=0)) == "taken"

    assert backend.slept == [3600.0]


def test_a_permanent_error_is_not_retried() -> None:
    backend = Backend(PermanentError("no", code="INVALID_ARGUMENT"))

    with pytest.raises(PermanentError):
        backend.run(RetryPolicy())

    assert backend.calls == 1


def test_it_gives_up_rather_than_wait_past_max_elapsed() -> None:
    backend = Backend(*[unavailable(4.0) for _ in range(10)])

    with pytest.raises(RetryableError):
        backend.run(RetryPolicy(initial_interval=0.001, max_elapsed=10.0))

    assert backend.slept == [4.0, 4.0]


@pytest.mark.parametrize(("policy", "stopped"), [(RetryPolicy(enabled=False), False), (RetryPolicy(), True)])
def test_there_is_no_second_attempt_when_switched_off_or_stopped(policy: RetryPolicy, stopped: bool) -> None:
    backend = Backend(unavailable(), unavailable())

    with pytest.raises(RetryableError):
        backend.run(policy, stopped=stopped)

    assert backend.calls == 1


class Request:
    """What is sent; unlike bytes it can be watched."""


def test_every_request_has_its_own_time_and_nothing_of_it_waits_for_the_garbage_collector() -> None:
    backend = Backend()
    attempts = RetryPolicy(max_elapsed=60.0).attempts(
        clock=lambda: backend.now, sleep=backend.sleep, stopped=lambda: False, on_retry=lambda error: None
    )
    left: list[weakref.ref[Request]] = []

    gc.disable()
    try:
        for _ in range(3):
            backend.now += 1000.0
            backend.errors += [unavailable(), unavailable()]
            request = Request()
            left.append(weakref.ref(request))
            assert attempts(lambda _: backend(), request) == "taken"
            del request
        assert [each() for each in left] == [None] * 3
    finally:
        gc.enable()

    assert backend.calls == 9
