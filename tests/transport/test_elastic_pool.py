from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from otel_scorer.transport.elastic_pool import ElasticPool

WAIT = 30.0


@pytest.fixture
def pool() -> Iterator[ElasticPool]:
    pool = ElasticPool(2, 4, "test-pool")
    yield pool
    pool.shutdown(cancel_futures=True)


def threads() -> int:
    return sum(thread.name == "test-pool" for thread in threading.enumerate())


def test_what_was_submitted_is_called_and_its_result_or_error_is_kept(pool: ElasticPool) -> None:
    assert pool.submit(divmod, 7, 2).result(WAIT) == (3, 1)
    assert isinstance(pool.submit(divmod, 7, 0).exception(WAIT), ZeroDivisionError)
    assert threads() == 2


def test_more_threads_take_what_waits_and_end_when_they_are_too_many(pool: ElasticPool) -> None:
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        go_on.wait(WAIT)

    stuck = [pool.submit(work) for _ in range(5)]
    assert begun.acquire(timeout=WAIT)
    assert begun.acquire(timeout=WAIT)
    assert not begun.acquire(timeout=0.05), "two threads, two at work"

    pool.resize(100)
    assert begun.acquire(timeout=WAIT)
    assert begun.acquire(timeout=WAIT)
    assert not begun.acquire(timeout=0.05), "four are the most"
    assert pool.size == 4

    pool.resize(0)
    assert pool.size == 2
    go_on.set()
    for future in stuck:
        future.result(WAIT)
    # One that is too many ends after its next work.
    for _ in range(8):
        pool.submit(int).result(WAIT)
    assert threads() <= 4


def test_after_shutdown_nothing_is_taken_and_what_waits_is_dropped(pool: ElasticPool) -> None:
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def work() -> str:
        begun.release()
        go_on.wait(WAIT)
        return "done"

    at_work = [pool.submit(work) for _ in range(2)]
    waiting = pool.submit(work)
    assert begun.acquire(timeout=WAIT)
    assert begun.acquire(timeout=WAIT)

    pool.shutdown(wait=False, cancel_futures=True)
    go_on.set()

    assert [future.result(WAIT) for future in at_work] == ["done", "done"]
    with pytest.raises(CancelledError):
        waiting.result(WAIT)
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_what_was_cancelled_before_its_turn_is_not_called(pool: ElasticPool) -> None:
    go_on = threading.Event()
    for _ in range(2):
        pool.submit(go_on.wait, WAIT)
    called = threading.Event()
    future = pool.submit(called.set)

    assert future.cancel()
    go_on.set()
    pool.submit(int).result(WAIT)

    assert not called.is_set()
