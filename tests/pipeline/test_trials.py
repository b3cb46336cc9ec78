"""Who is believed to be at fault for the end of a worker, and who is tried first."""

from __future__ import annotations

from typing import Any, cast

import pytest

from otel_scorer.model.decision import Outcome
from otel_scorer.pipeline.workers.faults import Fault
from otel_scorer.pipeline.workers.trials import Trials
from otel_scorer.pipeline.workers.worker_records import OpenJob, WorkerRecord

JOB, SCORER = 7, 1
ENDED = Fault((JOB, SCORER, 0), Outcome.FAILED, "WorkerDied", "it ended")
LATE = Fault((JOB, SCORER, 0), Outcome.TIMED_OUT, "TimeoutError", "it did not return")


def worker(*, tries: tuple[int, int] | None = None) -> WorkerRecord:
    """Return a worker with a job of two scorers; it may have been fresh for a call of one of them."""
    entry = OpenJob(cast("Any", None), {0, SCORER}, 0)
    return WorkerRecord(cast("Any", None), open={JOB: entry}, alone=tries, is_fresh=False, is_trial=tries is not None)


def test_who_ran_in_a_worker_that_others_have_used_is_tried_first() -> None:
    trials = Trials()
    used = worker()

    assert not trials.convicts(used, ENDED)
    trials.accuse(used, JOB, SCORER)

    assert used.open[JOB].is_suspect
    assert used.open[JOB].suspect == SCORER


def test_who_ends_a_fresh_worker_alone_is_at_fault() -> None:
    assert Trials().convicts(worker(tries=(JOB, SCORER)), ENDED)


def test_who_runs_too_long_is_at_fault_wherever_that_was() -> None:
    assert Trials().convicts(worker(), LATE)


def test_a_call_that_is_decided_already_is_not_tried() -> None:
    used = worker()
    used.open[JOB].left.discard(SCORER)

    Trials.accuse(used, JOB, SCORER)
    Trials.accuse(used, JOB + 1, SCORER)

    assert not used.open[JOB].is_suspect


def test_after_three_convictions_in_a_row_a_scorer_is_tried_every_hundredth_time_only() -> None:
    trials = Trials()
    tried = 0
    for _ in range(250):
        if not trials.convicts(worker(), ENDED):
            tried += 1
            assert trials.convicts(worker(tries=(JOB, SCORER)), ENDED)

    assert tried == 3 + 2


@pytest.mark.parametrize("convictions", [2, 3, 5])
def test_a_trial_that_ends_well_clears_a_scorer(convictions: int) -> None:
    trials = Trials()
    for _ in range(convictions):
        assert trials.convicts(worker(tries=(JOB, SCORER)), ENDED)
    entry = worker().open[JOB]
    entry.accused = SCORER

    trials.acquit(entry)

    assert not entry.is_suspect
    assert not trials.convicts(worker(), ENDED)


def test_a_scorer_of_spans_is_not_cleared_by_the_spans_that_it_does_not_fail_on() -> None:
    trials = Trials()
    for _ in range(3):
        assert not trials.convicts(worker(), ENDED)
        trial = worker(tries=(JOB, SCORER))
        assert trials.convicts(trial, ENDED)
        entry = trial.open[JOB]
        entry.accused, entry.faults = SCORER, {SCORER: {0: ("failed", "WorkerDied", "it ended")}}
        trials.acquit(entry)
        assert not entry.is_suspect

    assert trials.convicts(worker(), ENDED), "three times in a row is enough"
