"""Which traces leave an engine that has a rule for keeping them. The clock stands still until a test moves it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.e2e.sink import plain
from tests.fakes import Counted, PlainReader, a_decision

from otel_scorer.encoders.verdict import Verdict
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.reader import Reader
from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.assembly.assembler import (
    Added,
    AssemblyLimits,
    ClosedTrace,
    CloseReason,
    LatePolicy,
    TraceAssembler,
)
from otel_scorer.pipeline.keeping.evidence import NUMBERS, keep_number
from otel_scorer.pipeline.keeping.rules import KeepRule
from otel_scorer.pipeline.keeping.triage import COUNT_ATTRIBUTE, Keep, Triage
from otel_scorer.pipeline.sidecar.engine import Engine, EngineOptions, Forwarding
from otel_scorer.pipeline.verdicts.emission import Emission, Emit
from otel_scorer.pipeline.workers.jobs import Job, ScorerProfile, ScorerSet, Waiting
from otel_scorer.testing import CollectingSink, FakeBackend, ManualClock, make_raw, make_request, make_span

CHECK = ScorerProfile("check", "1", 1.0)
GOOD = a_decision(True, passed=(True,))
BAD = a_decision(False, passed=(False,))
BROKEN = a_decision(outcome=Outcome.FAILED)
GRACE = 2.0
HOLD = 5.0
SAMPLED = [n for n in range(1, 1000) if keep_number(n.to_bytes(16, "big")) < NUMBERS // 20]
"""Traces in `sample(0.05)`."""
UNSAMPLED = next(n for n in range(1, 1000) if keep_number(n.to_bytes(16, "big")) >= NUMBERS // 20)


class Remembering:
    """A sink that keeps what it is given."""

    needs_trace: ClassVar[bool] = False

    def __init__(self) -> None:
        self.given: list[tuple[bytes, str]] = []

    def add(self, trace: ClosedTrace[RawSpan], target: RawSpan, verdicts: Any) -> None:
        del target
        given: list[Verdict] = list(verdicts)
        self.given += [(trace.trace_id, verdict.name) for verdict in given]

    def flush(self) -> None: ...

    def finish(self) -> None: ...


class RememberingApi(Remembering):
    """The same, for something that has no use for verdicts without their trace."""

    needs_trace: ClassVar[bool] = True


class Running:
    """An engine whose timer does not run: the test ticks."""

    def __init__(
        self,
        rule: str = "any_failed",
        *,
        emit: frozenset[Emit] = frozenset({Emit.EVALUATION_SPAN}),
        scorers: tuple[ScorerProfile, ...] = (CHECK,),
        count_attribute: str = COUNT_ATTRIBUTE,
        reader: Reader | None = None,
        capacity: int | None = None,
        **limits: Any,
    ) -> None:
        self.clock = ManualClock()
        self.sink = CollectingSink()
        self.log, self.api = Remembering(), RememberingApi()
        self.scored: list[tuple[ClosedTrace[RawSpan], list[Decision]]] = []
        options = EngineOptions(
            limits=AssemblyLimits(**limits),
            forwarding=Forwarding.HOLD_TRACE,
            emission=Emission(emit, sinks=(self.log, self.api)),
            keep=Keep(rule=KeepRule(rule), reader=reader or PlainReader(), count_attribute=count_attribute),
            hold_deadline=HOLD,
        )
        self.engine = Engine(
            options,
            scorers,
            on_spans=self.sink.on_spans,
            on_scores=self.sink.on_scores,
            on_scored=lambda trace, decisions: self.scored.append((trace, list(decisions))),
            clock=self.clock,
        )
        self.backend = FakeBackend(self.engine.deliver, capacity=capacity)
        # Not `start`: its timer would tick whenever the machine finds the time.
        self.engine._scorers.backend = self.backend  # noqa: SLF001
        self.counted = Counted()

    def ingest(self, *spans: SpanMessage, **options: Any) -> None:
        self.engine.ingest(make_request(*spans, **options))

    def pass_time(self, seconds: float = GRACE) -> None:
        self.clock.advance(seconds)
        self.engine.tick()

    def close(self, *spans: SpanMessage) -> Job:
        """Send a trace, let it close, and return its job."""
        self.ingest(*spans)
        before = len(self.backend.jobs)
        self.pass_time()
        return self.backend.wait_for_jobs(before + 1)[-1]

    @property
    def counts(self) -> dict[str, float]:
        """What the spans that were sent say of how many they stand for, by name."""
        return {span.name: count_of(span) for span in (*self.sink.spans, *self.sink.scores)}

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.sink.spans]

    def outcomes(self) -> dict[str, int]:
        return {
            outcome: times
            for outcome in ("kept", "sampled", "in_doubt", "not_kept")
            if (times := self.counted(f"keeping.traces{{outcome={outcome}}}"))
        }


def agent(trace: int = UNSAMPLED) -> list[SpanMessage]:
    return [make_span("root", trace=trace, span=1, end=3), make_span("tool", trace=trace, span=2, parent=1)]


def late(trace: int = UNSAMPLED, span: int = 9) -> SpanMessage:
    return make_span("late", trace=trace, span=span, parent=1)


def count_of(span: SpanMessage, key: str = COUNT_ATTRIBUTE) -> float:
    [found] = [plain(pair.value) for pair in span.attributes if pair.key == key]
    assert isinstance(found, float)
    return found


def test_a_trace_that_the_rule_keeps_is_sent_whole_with_its_verdicts_and_stands_for_itself() -> None:
    run = Running("any_failed or sample(0.05)")
    job = run.close(*agent())
    run.backend.decide(job, BAD)

    assert run.counts == {"root": 1.0, "tool": 1.0, "evaluation check": 1.0}
    assert run.outcomes() == {"kept": 1}


def test_a_trace_that_it_does_not_keep_is_not_sent_and_neither_are_its_scores_where_they_would_be_orphans() -> None:
    run = Running("any_failed")
    job = run.close(*agent())
    run.backend.decide(job, GOOD)
    run.pass_time(60)

    assert (run.sink.spans, run.sink.scores) == ([], [])
    assert run.outcomes() == {"not_kept": 1}
    assert run.counted("keeping.spans_dropped{reason=not_kept}") == 2
    assert run.counted("encoder.verdicts_dropped{reason=not_kept}") == 1
    # Logs and metrics count it, a score API would wait for its trace for nothing.
    assert [name for _, name in run.log.given] == ["check"]
    assert run.api.given == []
    # The store and the status page have it all the same.
    assert [(len(trace.spans), decisions) for trace, decisions in run.scored] == [(2, [GOOD])]


def test_a_trace_in_the_sample_stands_for_the_others() -> None:
    run = Running("any_failed or sample(0.05)")
    job = run.close(*agent(SAMPLED[0]))
    run.backend.decide(job, a_decision(True, passed=(True,), trace=SAMPLED[0]))

    assert run.counts == {"root": 20.0, "tool": 20.0, "evaluation check": 20.0}
    assert run.outcomes() == {"sampled": 1}
    assert [name for _, name in run.api.given] == ["check"]


def test_a_bad_trace_in_the_sample_would_have_been_kept_anyway() -> None:
    run = Running("any_failed or sample(0.05)")
    job = run.close(*agent(SAMPLED[0]))
    run.backend.decide(job, BAD)

    assert set(run.counts.values()) == {1.0}


def test_counts_stand_beside_verdicts_on_the_spans_themselves() -> None:
    run = Running("sample(0.05)", emit=frozenset({Emit.ATTRIBUTES, Emit.EVENTS}))
    job = run.close(*agent(SAMPLED[0]))
    run.backend.decide(job, GOOD)

    [root, _] = run.sink.spans
    assert {pair.key: plain(pair.value) for pair in root.attributes}["otel_scorer.check.value"] is True
    assert count_of(root) == 20.0
    assert len(root.events) == 1


def test_verdicts_on_spans_that_are_not_kept_are_counted_too() -> None:
    run = Running("any_failed", emit=frozenset({Emit.ATTRIBUTES}))
    job = run.close(*agent())
    run.backend.decide(job, GOOD)

    assert run.counted("encoder.verdicts_dropped{reason=not_kept}") == 1


def test_without_scorers_spans_alone_can_be_asked() -> None:
    run = Running('root.attributes["tier"] == "gold" or sample(0.05)', scorers=())
    run.ingest(make_span("rich", trace=UNSAMPLED, attributes={"tier": "gold"}))
    run.ingest(make_span("poor", trace=UNSAMPLED + 10_000_000))
    run.ingest(make_span("lucky", trace=SAMPLED[0]))
    run.pass_time()

    expected = {"rich": 1.0, "lucky": 20.0}
    if keep_number((UNSAMPLED + 10_000_000).to_bytes(16, "big")) < NUMBERS // 20:
        expected["poor"] = 20.0
    assert run.counts == expected


def test_a_trace_that_no_scorer_has_in_its_sample_goes_by_the_rest_of_the_rule() -> None:
    run = Running("any_failed or sample(0.05)", scorers=(ScorerProfile("check", "1", 0.0),))
    run.ingest(*agent())
    run.ingest(make_span("lucky", trace=SAMPLED[0]))
    run.pass_time()

    assert run.counts == {"lucky": 20.0}
    assert run.outcomes() == {"not_kept": 1, "sampled": 1}


def test_a_scorer_that_fails_keeps_the_trace() -> None:
    run = Running("any_failed")
    job = run.close(*agent())
    run.backend.decide(job, BROKEN)

    assert run.names == ["root", "tool"]
    assert run.outcomes() == {"in_doubt": 1}


def test_a_trace_that_there_was_no_room_to_score_is_kept() -> None:
    run = Running("any_failed", capacity=0)
    run.ingest(*agent())
    run.pass_time()

    assert run.counts == {"root": 1.0, "tool": 1.0}
    assert run.outcomes() == {"in_doubt": 1}


@pytest.mark.parametrize(
    ("rule", "trace", "sent"),
    [
        ("any_failed", UNSAMPLED, {"root": 1.0, "tool": 1.0}),
        ("sample(0.05)", UNSAMPLED, {}),
        ("sample(0.05)", SAMPLED[0], {"root": 20.0, "tool": 20.0}),
    ],
)
def test_at_the_deadline_a_trace_goes_by_what_is_known(rule: str, trace: int, sent: dict[str, float]) -> None:
    run = Running(rule)
    job = run.close(*agent(trace))
    run.pass_time(HOLD)
    assert run.counts == sent

    # Its verdict comes later, and goes where the trace went.
    run.backend.decide(job, GOOD)

    assert run.counts == ({**sent, "evaluation check": sent["root"]} if sent else {})
    assert len(run.log.given) == 1
    assert len(run.api.given) == (1 if sent else 0)


def test_what_has_failed_by_the_deadline_is_no_doubt() -> None:
    run = Running("any_failed", scorers=(CHECK, ScorerProfile("slow", "1")))
    job = run.close(*agent())
    run.backend.decide(job, BAD, done=False)
    run.pass_time(HOLD)

    assert run.outcomes() == {"kept": 1}


def test_a_trace_that_had_to_close_early_is_kept_if_it_is_not_known_to_be_bad() -> None:
    run = Running("any_failed", max_spans_per_trace=2)
    run.ingest(*agent())
    run.backend.decide(run.backend.jobs[0], GOOD)

    assert run.counts["root"] == 1.0
    assert run.outcomes() == {"in_doubt": 1}


def test_at_shutdown_what_is_not_known_to_be_good_is_kept() -> None:
    run = Running("any_failed")
    run.ingest(*agent())
    assert not run.engine.drain(0.0)

    assert run.counts == {"root": 1.0, "tool": 1.0}
    assert run.outcomes() == {"in_doubt": 1}


@pytest.mark.parametrize(("decision", "count"), [(BAD, 1.0), (GOOD, None)])
def test_a_late_span_shares_the_fate_of_its_trace(decision: Decision, count: float | None) -> None:
    run = Running("any_failed")
    job = run.close(*agent())
    # Before anybody knows it waits; what the trace has already is no late span.
    run.ingest(late(span=8), *agent())
    assert run.names == []
    run.backend.decide(job, decision)
    run.ingest(late(span=9))

    assert run.names == ([] if count is None else ["root", "tool", "late", "late"])
    assert {count_of(span) for span in run.sink.spans} == ({count} - {None})
    assert run.counted("keeping.spans_dropped{reason=not_kept}") == (4 if count is None else 0)


def test_late_spans_of_a_sampled_trace_stand_for_as_many() -> None:
    run = Running("sample(0.05)")
    run.backend.decide(run.close(*agent(SAMPLED[0])), GOOD)
    run.ingest(late(SAMPLED[0]))

    assert run.counts == {"root": 20.0, "tool": 20.0, "late": 20.0, "evaluation check": 20.0}


def test_spans_that_are_late_already_when_they_come_wait_with_their_trace() -> None:
    run = Running("any_failed", max_spans_per_trace=2)
    run.ingest(*agent(), late())
    assert run.names == []
    run.backend.decide(run.backend.jobs[0], BAD)

    assert run.counts == {"root": 1.0, "tool": 1.0, "late": 1.0, "evaluation check": 1.0}


def test_no_more_late_spans_wait_for_a_trace_than_it_may_have() -> None:
    run = Running("any_failed", max_spans_per_trace=2)
    run.ingest(*agent())
    run.ingest(*(late(span=span) for span in range(10, 15)))

    assert run.names == ["late"] * 3


def test_the_trace_that_was_closed_the_longest_ago_is_forgotten_first_and_its_late_spans_are_sent() -> None:
    run = Running("sample(0)", scorers=(), max_traces=1)
    for trace in range(1, 12):
        run.ingest(make_span("root", trace=trace))
        run.pass_time()
        # Asked for again and again, this one is remembered.
        run.ingest(late(1, span=100 + trace))
    assert run.names == []

    run.ingest(late(3), late(1))
    assert run.names == []
    run.ingest(late(2))
    # It is long gone: this is the first span of a trace as far as anybody knows.
    run.pass_time(180)

    assert run.names == []


def test_a_trace_that_was_not_kept_has_another_chance_when_it_is_scored_again() -> None:
    run = Running("any_failed", late_spans=LatePolicy.RESCORE)
    run.backend.decide(run.close(*agent()), GOOD)
    again = run.close(late())
    assert run.names == []

    run.backend.decide(again, a_decision(False, passed=(False,), revision=2))
    run.ingest(late(span=10))

    assert run.names == ["root", "tool", "late", "late"]
    assert run.outcomes() == {"not_kept": 1, "kept": 1}
    assert run.counted("keeping.spans_dropped{reason=not_kept}") == 3
    assert run.counted("keeping.spans_taken_back") == 3
    [score] = run.sink.scores
    assert {pair.key: plain(pair.value) for pair in score.attributes}["otel_scorer.revision"] == 2


def test_spans_of_a_trace_that_is_not_kept_however_often_it_is_scored_count_once() -> None:
    run = Running("any_failed", late_spans=LatePolicy.RESCORE)
    run.backend.decide(run.close(*agent()), GOOD)
    for revision in (2, 3):
        again = run.close(late(span=10 * revision))
        # This one comes while it is being scored again.
        run.ingest(late(span=10 * revision + 1))
        run.backend.decide(again, a_decision(True, passed=(True,), revision=revision))

    assert run.names == []
    assert run.counted("keeping.spans_dropped{reason=not_kept}") == len(agent()) + 4
    assert run.counted("keeping.spans_taken_back") == 0


def test_a_trace_that_was_kept_stays_kept_when_it_is_scored_again() -> None:
    run = Running("any_failed", late_spans=LatePolicy.RESCORE)
    run.backend.decide(run.close(*agent()), BAD)
    again = run.close(late())
    assert run.names == ["root", "tool", "late"]

    run.backend.decide(again, a_decision(True, passed=(True,), revision=2))

    assert run.names == ["root", "tool", "late"]
    assert [count_of(score) for score in run.sink.scores] == [1.0, 1.0]
    assert run.outcomes() == {"kept": 1}


def test_a_trace_that_is_scored_again_before_it_is_decided_is_sent_once() -> None:
    run = Running("any_failed", late_spans=LatePolicy.RESCORE)
    first = run.close(*agent())
    second = run.close(late())

    run.backend.decide(second, GOOD)
    run.backend.decide(first, BAD)

    assert run.names == ["root", "tool", "late"]


@pytest.mark.parametrize(("decision", "sent"), [(BAD, ["root", "tool", "evaluation other"]), (GOOD, [])])
def test_evaluation_spans_of_another_otel_scorer_follow_the_trace_that_they_are_about(
    decision: Decision, sent: list[str]
) -> None:
    run = Running("any_failed")
    run.ingest(*agent())
    run.ingest(make_span("evaluation other", trace=UNSAMPLED, span=7, parent=1), scope="otel_scorer")
    run.pass_time()
    assert run.names == []
    run.backend.decide(run.backend.jobs[-1], decision)

    assert run.names == sent


def test_evaluation_spans_that_come_with_the_last_span_of_a_full_trace_follow_it() -> None:
    run = Running("any_failed", max_spans_per_trace=2)
    root, tool = agent()
    run.ingest(root)
    own = make_request(make_span("evaluation other", trace=UNSAMPLED, span=7, parent=1), scope="otel_scorer")
    run.engine.ingest(own + make_request(tool))
    assert run.names == []
    run.backend.decide(run.backend.jobs[-1], BAD)

    assert run.names == ["root", "tool", "evaluation other"]


def test_an_evaluation_span_of_a_trace_that_nobody_knows_is_sent() -> None:
    run = Running("any_failed")
    run.ingest(make_span("evaluation other", trace=UNSAMPLED, span=7, parent=1), scope="otel_scorer")

    assert run.names == ["evaluation other"]


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        (COUNT_ATTRIBUTE, 40.0, 40.0),
        (COUNT_ATTRIBUTE, 4.0, 20.0),
        ("SampleRate", 4, 80.0),
        ("SampleRate", 2.5, 50.0),
        ("SampleRate", "many", 20.0),
        ("SampleRate", 0, 20.0),
        ("SampleRate", -3, 20.0),
    ],
)
def test_what_a_sampler_before_has_said_counts_too(key: str, before: float | str, after: float) -> None:
    run = Running("sample(0.05)", scorers=(), count_attribute=key)
    run.ingest(make_span("root", trace=SAMPLED[0], attributes={key: before, "about": key}))
    run.pass_time()

    [span] = run.sink.spans
    assert count_of(span, key) == after


def test_a_trace_that_cannot_be_read_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    class Unable(PlainReader):
        def derive(self, trace: object, field: str) -> Any:
            raise LookupError(field)

    run = Running("trace.session_id == 'mine'", scorers=(), reader=Unable())
    run.ingest(*agent())
    run.pass_time()

    assert run.names == ["root", "tool"]
    assert run.outcomes() == {"in_doubt": 1}
    assert "Cannot tell what is in a trace" in caplog.text


def test_when_scorers_go_the_rule_goes_on() -> None:
    run = Running('failed("check") or sample(0.05)')
    run.engine.replace_scorers((), None)
    run.ingest(*agent())
    run.pass_time()

    # Nobody can say any more whether it failed.
    assert run.counts == {"root": 1.0, "tool": 1.0}


def test_a_trace_that_an_earlier_process_has_sent_is_not_decided_about_again() -> None:
    [root, tool] = make_raw(*agent())
    trace = ClosedTrace(root.trace_id, [root], CloseReason.IDLE, complete=True)
    keep = Keep(rule=KeepRule("sample(0)"), reader=PlainReader())
    triage = Triage(keep, AssemblyLimits(), left_of=lambda _, __: [])

    triage.begin([trace])
    added = Added(late=[tool])
    triage.arrange(added, TraceAssembler(AssemblyLimits()))

    assert triage.spans_of(trace) == []
    assert added.late == [tool]


@pytest.mark.parametrize("left", [0, 1], ids=["all of it is here", "a part was sent by an earlier process"])
def test_of_a_trace_that_an_earlier_process_has_sent_in_part_the_rest_is_sent_in_doubt(left: int) -> None:
    spans = make_raw(*agent())
    trace = ClosedTrace(spans[0].trace_id, spans, CloseReason.ROOT_QUIET, complete=True)
    keep = Keep(rule=KeepRule("any_failed"), reader=PlainReader())
    triage = Triage(keep, AssemblyLimits(), left_of=lambda _, every: every[left:])
    waiting = Waiting(trace, spans[left:], ScorerSet([CHECK]))

    triage.begin([trace])
    triage.settle(waiting, waiting.held, is_decided=True)

    # What the scorers said that the earlier process asked is not known here: one of them may have found it bad.
    assert waiting.fate is not None
    assert waiting.fate.is_kept is bool(left)


def test_two_engines_keep_the_same_sample() -> None:
    kept: list[set[bytes]] = []
    for _ in range(2):
        run = Running("sample(0.2)", scorers=())
        for trace in range(1, 201):
            run.ingest(make_span("root", trace=trace))
        run.pass_time()
        kept.append({span.trace_id for span in run.sink.spans})

    assert kept[0] == kept[1]
    assert 10 < len(kept[0]) < 80
