"""Whenever a sidecar is killed, nothing that it has acknowledged is lost, and no verdict changes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.pipeline.crashing import SCORERS, Backends, Choices, Sidecar, Story

from otel_scorer.model.wire import Signal
from otel_scorer.pipeline.assembly.closing import LatePolicy, Trigger
from otel_scorer.pipeline.sidecar.engine import Forwarding
from otel_scorer.pipeline.verdicts.emission import Emit
from otel_scorer.stores.spool_rows import Changes, PartlyDecided
from otel_scorer.testing import ManualClock, make_request, make_span, read_spans

PASSING = Choices(
    forwarding=Forwarding.PASSTHROUGH,
    trigger=Trigger.AUTO,
    late=LatePolicy.IGNORE,
    emit=Emit.EVALUATION_SPAN,
    scorers=SCORERS,
    keeps=False,
    destinations=1,
    is_written_again=False,
    max_size=1 << 24,
    max_traces=50,
    max_spans=100,
    hold_deadline=60,
)


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 48))
def test_whenever_it_is_killed_everything_that_was_acknowledged_is_sent_and_verdicts_stay(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Story(seed, Path(folder)).tell()


class Running:
    """Processes one after the other, each killed for the next one to follow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = ManualClock()
        self.spans, self.scores = Backends(("p",)), Backends(("p",))

    @contextmanager
    def killed(self, choices: Choices) -> Iterator[Sidecar]:
        sidecar = self._start(choices)
        yield sidecar
        sidecar.kill()

    def finished(self, choices: Choices) -> Sidecar:
        sidecar = self._start(choices)
        assert sidecar.finish()
        sidecar.end()
        return sidecar

    def wait(self, sidecar: Sidecar, seconds: float) -> None:
        self._clock.advance(seconds)
        sidecar.engine.tick()

    def sent(self) -> list[str]:
        return [span.name for data in self.spans.taken["p"] for span in read_spans(data)]

    def _start(self, choices: Choices) -> Sidecar:
        return Sidecar(self._folder, choices, random.Random(0), self._clock, (self.spans, self.scores))


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path / "spool")


def take(sidecar: Sidecar, *spans: SpanMessage) -> None:
    sidecar.spooling.take(Signal.TRACES, make_request(*spans))


def test_a_span_that_waited_and_turns_out_to_be_late_is_sent_though_others_of_its_request_were(
    running: Running,
) -> None:
    by_unit = replace(PASSING, forwarding=Forwarding.HOLD_TRACE, trigger=Trigger.LOCAL_ROOT)
    with running.killed(by_unit) as sidecar:
        take(sidecar, make_span("called", span=26, parent=2, remote_parent=True))
        take(sidecar, make_span("again", span=26, parent=2), make_span("stays", span=15, parent=1))
        running.wait(sidecar, 3)
        sidecar.judge(1)
        sidecar.judge(1)
        take(sidecar, make_span("late", span=27, parent=26), make_span("waiting", span=20, parent=2))
        sidecar.ways[0].settle(10)
        sidecar.spooling.turn()
        assert "late" in running.sent()
        # With this one it is clear that the one that waits is late too; nobody has taken them yet.
        take(sidecar, make_span("caller", span=2, parent=26))

    running.finished(by_unit)

    assert {"called", "stays", "late", "waiting", "caller"} <= set(running.sent())
    assert running.sent().count("late") == 1


@pytest.mark.parametrize("forwarding", [Forwarding.PASSTHROUGH, Forwarding.HOLD_ROOT])
def test_a_span_that_came_twice_is_sent_though_its_requests_are_taken_up_in_another_order(
    forwarding: Forwarding, running: Running
) -> None:
    choices = replace(PASSING, forwarding=forwarding)
    twice = make_span("twice", span=2, parent=1)
    with running.killed(choices) as sidecar:
        # The second one was faster, so the first one has a duplicate, and only its other span is sent with it.
        sidecar.spooling.take_at_once([make_request(twice, make_span("once", span=3, parent=1)), make_request(twice)])
        sidecar.ways[0].settle_one(1)
        sidecar.spooling.turn()
        assert running.sent() == ["once"]

    running.finished(choices)

    assert {"once", "twice"} <= set(running.sent())


def test_a_late_span_that_is_known_to_have_been_sent_is_not_sent_again(running: Running) -> None:
    holding = replace(PASSING, forwarding=Forwarding.HOLD_TRACE)
    with running.killed(holding) as sidecar:
        take(sidecar, make_span("root"))
        running.wait(sidecar, 2)
        sidecar.judge(1)
        sidecar.judge(1)
        take(sidecar, make_span("late", span=2, parent=1), make_span("other", trace=2, parent=1, span=2))
        sidecar.ways[0].settle(10)
        sidecar.spooling.turn()

    running.finished(holding)

    assert sorted(running.sent()) == ["late", "other", "root"]


@pytest.mark.parametrize("after", list(Forwarding))
@pytest.mark.parametrize("before", list(Forwarding))
@pytest.mark.parametrize("is_decided", [True, False], ids=["decided", "undecided"])
@pytest.mark.parametrize("is_sent", [True, False], ids=["sent", "unsent"])
def test_who_holds_other_spans_after_a_kill_than_before_sends_all_of_them(
    before: Forwarding, after: Forwarding, is_decided: bool, is_sent: bool, running: Running
) -> None:
    with running.killed(replace(PASSING, forwarding=before)) as sidecar:
        take(sidecar, make_span("root"), make_span("child", span=2, parent=1), make_span("other", trace=2))
        take(sidecar, make_span("more", span=3, parent=1), make_span("open", trace=3, parent=7, span=9))
        if is_sent:
            sidecar.ways[0].settle(10)
            sidecar.spooling.turn()
        if is_decided:
            running.wait(sidecar, 2)
            sidecar.judge(1)
            sidecar.judge(1)

    running.finished(replace(PASSING, forwarding=after))

    assert {"root", "child", "more", "other", "open"} == set(running.sent())


def test_a_revision_that_was_sent_before_a_kill_is_not_given_another_content_after_it(running: Running) -> None:
    """A slow scorer: spans came late, and were judged, before the first verdict was there."""
    rescoring = replace(PASSING, late=LatePolicy.RESCORE)
    with running.killed(rescoring) as sidecar:
        take(sidecar, make_span("root"))
        running.wait(sidecar, 2)
        take(sidecar, make_span("late", span=2, parent=1))
        running.wait(sidecar, 2)
        sidecar.engine.deliver([sidecar.judges.answer_for(2)])

    with running.killed(rescoring) as sidecar:
        sidecar.spooling.turn()
        running.wait(sidecar, 2)
        take(sidecar, make_span("later", span=3, parent=1))
        running.wait(sidecar, 2)
        sidecar.engine.deliver([sidecar.judges.answer_for(3)])
        sidecar.engine.deliver([sidecar.judges.answer_for(1)])
    running.finished(rescoring)

    scores = [span for data in running.scores.taken["p"] for span in read_spans(data)]
    assert len({span.SerializeToString() for span in scores}) == len({span.span_id for span in scores}) == 6
    revisions = [each.value.int_value for span in scores for each in span.attributes if "revision" in each.key]
    assert sorted(revisions) == [1, 1, 2, 2, 3, 3]


def test_nothing_stays_of_a_trace_that_was_decided_in_part_and_is_not_there_any_more(running: Running) -> None:
    with running.killed(PASSING) as sidecar:
        take(sidecar, make_span("root"))
        sidecar.spool.commit(Changes(partly={bytes(16): PartlyDecided(scorers=frozenset({"a"}))}))
    with running.killed(PASSING) as sidecar:
        sidecar.spooling.turn()
        assert sidecar.spool.partly_decided()
        assert sidecar.finish()
        assert not sidecar.spool.partly_decided()
