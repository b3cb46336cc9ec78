"""Spans between the application's threads and ours: order, failures, and who does the work when there is much of it."""

from __future__ import annotations

import threading

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from otel_scorer.pipeline.in_app.intake import MANY_PENDING, Item, SpanIntake
from otel_scorer.pipeline.running.reentrancy import KnownLock
from otel_scorer.pipeline.running.suppression import suppressed

WAIT = 30.0


class Taken:
    """An intake, and what came out of it."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.refused: set[int] = set()
        self.lock = KnownLock()
        self.busy = KnownLock()
        self.finished = 0
        self.most = 0
        self.intake = SpanIntake(self._take, self.lock, self._finish, self.busy, clock=lambda: 0.0)

    def _take(self, item: Item, now: float) -> None:
        assert self.lock.is_mine
        if item in self.refused:
            msg = "not this one"
            raise ValueError(msg)
        self.items.append(item)

    def _finish(self, most: int) -> None:
        assert not self.lock.is_mine
        self.most = most
        self.finished += 1

    def drain(self) -> None:
        with self.lock:
            self.intake.drain()
        self.intake.finish()


def span(name: str) -> ReadableSpan:
    made = TracerProvider(shutdown_on_exit=False).get_tracer("app").start_span(name)
    assert isinstance(made, ReadableSpan)
    return made


def test_items_are_taken_in_the_order_in_which_they_came() -> None:
    taken = Taken()
    first, second = span("first"), span("second")

    taken.intake.pending.extend([(first,), (second,), second, 7, first])
    taken.drain()

    assert taken.items == [(first,), (second,), second, 7, first]
    assert not taken.intake.pending


def test_an_item_that_cannot_be_taken_does_not_keep_the_others() -> None:
    taken = Taken()
    taken.refused = {2}

    taken.intake.pending.extend([1, 2, 3])
    taken.drain()

    assert taken.items == [1, 3]
    assert taken.finished


def test_a_thread_that_sleeps_is_woken_and_one_that_is_awake_is_left_alone() -> None:
    taken = Taken()
    seen = threading.Event()

    def work() -> None:
        while not seen.is_set():
            taken.intake.work()
            if taken.items:
                seen.set()
            taken.intake.rest(WAIT)

    assert taken.intake.is_asleep
    thread = threading.Thread(target=work)
    thread.start()
    taken.intake.pending.append(1)
    taken.intake.attend()

    assert seen.wait(WAIT)
    taken.intake.ring()
    thread.join(WAIT)
    assert taken.items == [1]


def test_whoever_ends_a_span_helps_when_nobody_keeps_up() -> None:
    taken = Taken()
    taken.intake.ring()
    taken.intake.pending.extend(range(MANY_PENDING))

    taken.intake.attend()

    assert 0 < len(taken.items) == taken.most < MANY_PENDING
    assert taken.items == list(range(len(taken.items)))


def test_nobody_waits_for_another_one_who_is_at_it() -> None:
    taken = Taken()
    taken.intake.ring()
    taken.intake.pending.extend(range(MANY_PENDING))

    with taken.lock:
        taken.intake.attend()

    assert taken.items == []


def test_who_was_interrupted_in_the_middle_of_our_work_does_not_help() -> None:
    taken = Taken()
    taken.intake.ring()
    taken.intake.pending.extend(range(MANY_PENDING))

    with taken.busy:
        taken.intake.attend()
    with suppressed():
        taken.intake.attend()

    assert taken.items == []
