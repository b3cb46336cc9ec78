"""The reloader serves requests one after the other, and looks for changes by itself."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from otel_scorer.pipeline.sidecar.reloading import Reloader

WAIT = 30.0


class Reloads:
    """What a reloader did, and a gate that keeps it from finishing."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.gate = threading.Event()
        self.gate.set()
        self.fails = False

    def __call__(self, requested: bool) -> None:
        self.calls.put(requested)
        assert self.gate.wait(WAIT)
        if self.fails:
            raise ValueError("no")


@pytest.fixture
def reloads() -> Reloads:
    return Reloads()


@pytest.fixture
def start() -> Iterator[Callable[[Reloader, int | None], Reloader]]:
    started: list[Reloader] = []

    def start_one(reloader: Reloader, seen: int | None = None) -> Reloader:
        reloader.start(seen)
        started.append(reloader)
        return reloader

    yield start_one
    for reloader in started:
        assert reloader.shutdown(WAIT)


def test_requests_that_come_meanwhile_are_served_together(reloads: Reloads, start: Callable[..., Reloader]) -> None:
    reloader = start(Reloader(reloads))
    reloads.gate.clear()
    reloader.request()
    assert reloads.calls.get(timeout=WAIT) is True
    for _ in range(5):
        reloader.request()

    reloads.gate.set()

    assert reloads.calls.get(timeout=WAIT) is True
    assert reloader.shutdown(WAIT)
    assert reloads.calls.empty()


def test_a_failure_is_logged_and_the_next_request_is_served(
    reloads: Reloads, start: Callable[..., Reloader], caplog: pytest.LogCaptureFixture
) -> None:
    reloader = start(Reloader(reloads))
    reloads.fails = True
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            reloader.request()
            reloads.calls.get(timeout=WAIT)
        reloader.shutdown(WAIT)

    assert caplog.messages == ["Cannot take other scorers; those before them go on"] * 2


def test_another_revision_is_a_reason_and_the_same_is_none(reloads: Reloads, start: Callable[..., Reloader]) -> None:
    answers: Iterator[int | OSError] = iter([7, 7, 8, OSError("locked"), OSError("locked"), 8, 9])
    looked = threading.Event()

    def revision() -> int:
        answer = next(answers, None)
        if answer is None:
            looked.set()
            return 9
        if isinstance(answer, OSError):
            raise answer
        return answer

    reloader = start(Reloader(reloads, revision), 7)

    assert looked.wait(WAIT)
    reloader.shutdown(WAIT)
    assert [reloads.calls.get_nowait(), reloads.calls.get_nowait(), reloads.calls.empty()] == [False, False, True]


def test_one_that_never_began_ends_at_once(reloads: Reloads) -> None:
    reloader = Reloader(reloads)
    reloader.request()

    assert reloader.shutdown(0.0)
    assert reloads.calls.empty()
