from __future__ import annotations

import threading

import pytest

from otel_scorer.model.wire import Signal
from otel_scorer.transport.admission import Admission
from otel_scorer.transport.exchange import PartialSuccess
from otel_scorer.transport.responses import Refusal

WAIT = 30.0


def test_nobody_is_let_in_once_it_is_closed() -> None:
    admission = Admission("grpc")
    calls: list[str] = []

    assert admission.close(timeout=0.0)
    answer = admission.answer(Signal.TRACES, lambda: calls.append("in"))

    assert isinstance(answer, Refusal)
    assert answer.http_status == 503
    assert answer.retry_after is not None
    assert calls == []


def test_closing_waits_for_who_is_inside() -> None:
    admission = Admission("grpc")
    inside, leave = threading.Event(), threading.Event()

    def call() -> None:
        inside.set()
        assert leave.wait(WAIT)

    thread = threading.Thread(target=admission.answer, args=(Signal.TRACES, call))
    thread.start()
    assert inside.wait(WAIT)

    assert not admission.close(timeout=0.01)
    leave.set()
    assert admission.close(timeout=WAIT)
    thread.join(WAIT)


@pytest.mark.parametrize(
    ("partial", "answer"),
    [
        (None, None),
        (PartialSuccess(0), None),
        (PartialSuccess(0, "a warning"), PartialSuccess(0, "a warning")),
        (PartialSuccess(1), PartialSuccess(1)),
    ],
)
def test_a_partial_success_that_says_nothing_is_full_success(
    partial: PartialSuccess | None, answer: PartialSuccess | None
) -> None:
    assert Admission("grpc").answer(Signal.TRACES, lambda: partial) == answer
