"""Calls of scorers that take too long: by their own timeouts, and once their worker is to end."""

from __future__ import annotations

import pytest

from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.workers.faults import Haste, find_overdue
from otel_scorer.pipeline.workers.protocol import Beat
from otel_scorer.pipeline.workers.worker_process import WorkerScorer


class Worker:
    """A worker in which one call has been running since a moment."""

    def __init__(self, since: float) -> None:
        self.since = since

    def beats(self) -> list[Beat]:
        return [Beat(7, 0, 0, self.since)]


@pytest.mark.parametrize(
    ("timeout", "haste", "ends"),
    [
        pytest.param(30.0, Haste(), 130.0, id="its timeout"),
        pytest.param(30.0, Haste(5.0, 120.0), 125.0, id="what it has from then on, though it runs for longer"),
        pytest.param(30.0, Haste(5.0, 90.0), 105.0, id="what it has, as it began later"),
        pytest.param(30.0, Haste(5.0, 128.0), 130.0, id="its timeout, which comes first"),
        pytest.param(None, Haste(5.0, 120.0), 125.0, id="what it has, without a timeout"),
    ],
)
def test_a_call_has_its_timeout_and_no_more_than_it_is_left_once_its_worker_is_to_end(
    timeout: float | None, haste: Haste, ends: float
) -> None:
    scorers = [WorkerScorer("slow", "1", 1.0, timeout, is_async=False, is_per_span=False)]

    assert find_overdue(Worker(100.0), scorers, haste, ends) is None
    fault = find_overdue(Worker(100.0), scorers, haste, ends + 0.1)

    assert fault is not None
    assert (fault.culprit, fault.outcome) == ((7, 0, 0), Outcome.TIMED_OUT)


def test_a_call_without_a_timeout_takes_as_long_as_it_takes() -> None:
    scorers = [WorkerScorer("slow", "1", 1.0, None, is_async=False, is_per_span=False)]

    assert find_overdue(Worker(0.0), scorers, Haste(), 1e9) is None


def test_a_call_that_was_stopped_with_its_sidecar_has_all_its_time_again() -> None:
    scorers = [WorkerScorer("slow", "1", 1.0, 30.0, is_async=False, is_per_span=False)]

    assert find_overdue(Worker(100.0), scorers, Haste(), 700.0) is not None
    assert find_overdue(Worker(100.0), scorers, Haste(), 730.0, resumed=700.0) is None
    assert find_overdue(Worker(100.0), scorers, Haste(), 730.1, resumed=700.0) is not None
