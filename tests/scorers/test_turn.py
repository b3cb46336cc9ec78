from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_scorer.scorers.turn import Turn

SOON = 20.0


class Inside:
    """Counts how many are between taking and giving back."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.times = 0

    def enter(self) -> None:
        self.now += 1
        self.times += 1
        self.most = max(self.most, self.now)

    def leave(self) -> None:
        self.now -= 1


def test_threads_and_event_loops_are_never_inside_together() -> None:
    turn, inside = Turn(), Inside()

    def in_thread() -> None:
        for _ in range(200):
            assert turn.take()
            inside.enter()
            inside.leave()
            turn.give_back()

    async def on_loop() -> None:
        async def once() -> None:
            for _ in range(50):
                await turn.take_async()
                inside.enter()
                await asyncio.sleep(0)
                inside.leave()
                turn.give_back()

        await asyncio.gather(*(once() for _ in range(4)))

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(in_thread) for _ in range(2)] + [pool.submit(asyncio.run, on_loop()) for _ in range(2)]
        for job in jobs:
            job.result(SOON)

    assert (inside.most, inside.now, inside.times) == (1, 0, 800)


def test_waiting_has_an_end() -> None:
    turn = Turn()
    turn.take()

    assert turn.take(timeout=0.01) is False

    turn.give_back()
    assert turn.take(timeout=0.01) is True


def test_who_gave_up_is_passed_over() -> None:
    turn = Turn()
    turn.take()
    taken = threading.Event()

    def wait() -> None:
        if turn.take():
            taken.set()

    waiting = threading.Thread(target=wait)

    assert turn.take(timeout=0.01) is False
    waiting.start()
    turn.give_back()

    assert taken.wait(SOON)
    waiting.join(SOON)


def test_a_cancelled_task_does_not_keep_the_turn() -> None:
    turn = Turn()

    async def scenario() -> None:
        await turn.take_async()
        waiting = asyncio.ensure_future(turn.take_async())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # Cancelled in the moment in which its turn came: it is passed on.
        late = asyncio.ensure_future(turn.take_async())
        await asyncio.sleep(0)
        turn.give_back()
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late

    asyncio.run(scenario())

    assert turn.take(timeout=SOON)


def test_copies() -> None:
    turn = Turn()
    turn.take()

    assert copy.copy(turn) is not turn
    assert copy.deepcopy(turn).take(timeout=0.01)
    assert pickle.loads(pickle.dumps(turn)).take(timeout=0.01)  # noqa: S301 - our own
