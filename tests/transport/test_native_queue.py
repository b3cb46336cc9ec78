"""Scores that wait: what is due, what takes whose place, and how much room there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_scorer.transport.native_queue import ScoreQueue
from otel_scorer.transport.native_score import SCORE_OVERHEAD, NativeScore


def a_score(number: int, body: bytes = b"{}", span: str | None = None) -> NativeScore:
    return NativeScore(str(number), f"{number:032x}", span, body)


def ids(queue: ScoreQueue, now: float = 0.0, limit: int = 100) -> list[str]:
    return [entry.score.id for entry in queue.take(now, limit)]


def test_scores_leave_in_the_order_they_came_and_not_before_they_are_due() -> None:
    queue = ScoreQueue(1 << 20)
    for number in range(3):
        queue.put(a_score(number), 0)

    first = queue.take(0, 1)
    queue.put_back(first, 5)

    assert ids(queue, 4.9) == ["1", "2"]
    assert queue.next_due() == 5
    assert ids(queue, 5) == ["0"]
    assert queue.next_due() is None


def test_a_later_score_takes_the_place_of_one_that_waits() -> None:
    queue = ScoreQueue(1 << 20)
    queue.put(a_score(1, b"old"), 0)
    queue.put(a_score(1, b"newer"), 1)

    [entry] = queue.take(1, 10)

    assert entry.score.body == b"newer"
    assert entry.since == 0


def test_a_score_that_comes_while_an_older_one_is_on_the_way_stays() -> None:
    queue = ScoreQueue(1 << 20)
    queue.put(a_score(1, b"old"), 0)
    taken = queue.take(0, 1)
    queue.put(a_score(1, b"new"), 0)
    queue.put_back(taken, 0)

    assert [entry.score.body for entry in queue.take(0, 10)] == [b"new"]


def test_scores_of_traces_and_of_spans_do_not_share_a_request() -> None:
    queue = ScoreQueue(1 << 20)
    for number, span in enumerate((None, "a" * 16, None)):
        queue.put(a_score(number, span=span), 0)

    assert ids(queue) == ["0", "2"]
    assert ids(queue) == ["1"]


def test_a_full_queue_refuses_and_takes_again_once_there_is_room() -> None:
    queue = ScoreQueue(2 * SCORE_OVERHEAD + 4)

    assert [queue.put(a_score(number), 0) for number in range(3)] == [True, True, False]
    taken = queue.take(0, 1)
    assert not queue.put(a_score(3), 0)
    assert len(queue.settle(taken)) == 1
    assert queue.put(a_score(3), 0)


def test_one_score_always_fits() -> None:
    assert ScoreQueue(1).put(a_score(1, b"x" * 1000), 0)


def test_what_is_cleared_is_accounted_for_by_nobody_else() -> None:
    queue = ScoreQueue(1 << 20)
    for number in range(3):
        queue.put(a_score(number), 0)
    taken = queue.take(0, 1)

    assert [score.id for score in queue.clear()] == ["0", "1", "2"]
    assert queue.settle(taken) == []
    queue.put_back(taken, 0)
    assert len(queue) == 0
    assert not queue.is_sending


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "take", "back", "settle"]), st.integers(0, 5), st.binary(max_size=3)),
        max_size=60,
    )
)
def test_the_room_that_is_taken_is_that_of_what_is_there(steps: list[tuple[str, int, bytes]]) -> None:
    queue = ScoreQueue(1 << 20)
    out: list[list[object]] = []
    for now, (step, number, body) in enumerate(steps):
        if step == "put":
            queue.put(a_score(number, body), now)
        elif step == "take":
            out.append(list(queue.take(now, number)))
        elif out:
            entries = out.pop()
            queue.put_back(entries, now) if step == "back" else queue.settle(entries)  # type: ignore[arg-type]  # taken above
    for entries in out:
        queue.settle(entries)  # type: ignore[arg-type]  # taken above
    left = queue.take(len(steps), 100)
    queue.settle(left)

    assert len({entry.score.id for entry in left}) == len(left)
    # Had anything been counted twice or not at all, one of these would have no room, or there would be too much.
    assert queue._size == 0  # noqa: SLF001 - the law is about it
