"""A sidecar's engine on a spool, without threads or a clock, that is killed at random points and goes on."""

from __future__ import annotations

import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count as counting
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import PlainReader

from otel_scorer.errors import RequestError, StoreError
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import Feedback
from otel_scorer.model.wire import RawSpan, Signal
from otel_scorer.pipeline.assembly.closing import AssemblyLimits, LatePolicy, Trigger
from otel_scorer.pipeline.keeping.rules import KeepRule
from otel_scorer.pipeline.keeping.triage import Keep
from otel_scorer.pipeline.sidecar.engine import Engine, EngineOptions, Forwarding
from otel_scorer.pipeline.spool.spooling import Spooling
from otel_scorer.pipeline.spool.taking import WHOLE, Parts
from otel_scorer.pipeline.verdicts.emission import Emission, Emit
from otel_scorer.pipeline.workers.jobs import Job, Result, ScorerProfile
from otel_scorer.service.taking import take_spooled
from otel_scorer.stores.spool import Spool
from otel_scorer.stores.spool_rows import SpooledRequest
from otel_scorer.testing import ManualClock, make_request, make_span, read_spans

SCORERS = (ScorerProfile("a", "1", 1.0), ScorerProfile("b", "1", 1.0))
SpanId = tuple[bytes, bytes]


class ManualEngine(Engine):
    """The test ticks."""

    def _run_timer(self) -> None: ...


class ManualSpooling(Spooling):
    """The test turns."""

    def _run(self) -> None: ...

    def take_at_once(self, requests: Sequence[bytes]) -> None:
        """Take requests as several threads do: in another order than they are written down."""
        written: list[SpooledRequest] = []
        try:
            for data in requests:
                written.append(SpooledRequest(self.spool.add(Signal.TRACES, data), Signal.TRACES, data))  # noqa: PERF401
        finally:
            for request in reversed(written):
                self._tracker.begin(request.id)
                self._handle(request)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How a sidecar is set up."""

    forwarding: Forwarding
    trigger: Trigger
    late: LatePolicy
    emit: Emit
    scorers: tuple[ScorerProfile, ...]
    keeps: bool
    destinations: int
    is_written_again: bool
    max_size: int
    max_traces: int
    max_spans: int
    hold_deadline: float

    @classmethod
    def draw(cls, rnd: random.Random) -> Choices:
        forwarding, trigger = rnd.choice(list(Forwarding)), rnd.choice(list(Trigger))
        is_whole = forwarding is Forwarding.HOLD_TRACE and trigger is not Trigger.LOCAL_ROOT
        destinations = rnd.choice([1, 2])
        return cls(
            forwarding=forwarding,
            trigger=trigger,
            late=rnd.choice(list(LatePolicy)),
            emit=rnd.choice([Emit.EVALUATION_SPAN, Emit.ATTRIBUTES]),
            scorers=rnd.choice([SCORERS, SCORERS, ()]),
            keeps=is_whole and rnd.random() < 0.3,
            destinations=destinations,
            is_written_again=destinations > 1 or rnd.random() < 0.3,
            max_size=rnd.choice([1 << 24, 1 << 24, 6000]),
            max_traces=rnd.choice([3, 50, 50]),
            max_spans=rnd.choice([4, 100]),
            hold_deadline=rnd.choice([0.5, 3.0]),
        )

    def options(self) -> EngineOptions:
        limits = AssemblyLimits(
            trigger=self.trigger,
            root_grace=1,
            root_cap=4,
            local_root_grace=2,
            idle_timeout=6,
            max_age=7,
            max_traces=self.max_traces,
            max_spans_per_trace=self.max_spans,
            late_spans=self.late,
        )
        keep = Keep(rule=KeepRule("true"), reader=PlainReader()) if self.keeps else None
        return EngineOptions(
            limits=limits,
            forwarding=self.forwarding,
            emission=Emission(frozenset({self.emit})),
            keep=keep,
            hold_deadline=self.hold_deadline,
        )


@dataclass
class Backends:
    """What several destinations have taken, by name."""

    names: tuple[str, ...]
    taken: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))


class Way:
    """A place that takes data when the test says so, to each destination by itself."""

    def __init__(self, backends: Backends, rnd: random.Random) -> None:
        self._backends = backends
        self._rnd = rnd
        self._pending: list[tuple[str, bytes, Callable[[str], None]]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def has_room(self, size: int) -> bool:
        del size
        return len(self._pending) < 4

    def offer(
        self, data: bytes, items: int, since: Sequence[float], done: Callable[[], None], parts: Parts = WHOLE
    ) -> None:
        del items, since
        left = {name for name in self._backends.names if name not in parts.without}

        def settled(name: str) -> None:
            left.discard(name)
            if not left:
                done()
            elif parts.taken is not None:
                parts.taken(name)

        if not left:
            done()
        self._pending += [(name, data, settled) for name in sorted(left)]

    def settle(self, number: int) -> None:
        for _ in range(min(number, len(self._pending))):
            self.settle_one(self._rnd.randrange(len(self._pending)))

    def settle_one(self, at: int) -> None:
        name, data, settled = self._pending.pop(at)
        self._backends.taken[name].append(data)
        settled(name)


class Judges:
    """Scorers that answer when the test says so, never the same twice."""

    def __init__(self, rnd: random.Random) -> None:
        self._rnd = rnd
        self._jobs: list[tuple[Job, set[int]]] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def submit(self, jobs: Sequence[Job]) -> Sequence[Job]:
        self._jobs += [(job, set(job.scorers)) for job in jobs]
        return ()

    def answer(self, number: int) -> Iterator[Result]:
        for _ in range(min(number, len(self._jobs))):
            at = self._rnd.randrange(len(self._jobs))
            left = self._jobs[at][1]
            yield self._judge(at, self._rnd.sample(sorted(left), self._rnd.randint(1, len(left))))

    def answer_for(self, revision: int) -> Result:
        """Decide all about a revision that waits."""
        at, left = next((at, left) for at, (job, left) in enumerate(self._jobs) if job.trace.revision == revision)
        return self._judge(at, sorted(left))

    def _judge(self, at: int, judged: Sequence[int]) -> Result:
        job, left = self._jobs[at]
        left.difference_update(judged)
        if not left:
            del self._jobs[at]
        return Result(job.id, tuple(self._decision(job, scorer) for scorer in judged), not left)

    def _decision(self, job: Job, scorer: int) -> Decision:
        name, trace = SCORERS[scorer].name, job.trace
        feedback = Feedback(name, self._rnd.random())
        return Decision(
            trace.trace_id.hex(), None, name, "1", Outcome.SCORED, None, trace.revision, (feedback,), (None,)
        )


class Sidecar:
    """One process: from a start until it is killed."""

    def __init__(
        self,
        folder: Path,
        choices: Choices,
        rnd: random.Random,
        clock: ManualClock,
        backends: tuple[Backends, Backends],
    ) -> None:
        self.folder = folder
        self._clock = clock
        spans, scores = backends
        self.ways = [Way(spans, rnd), Way(spans, rnd), Way(scores, rnd)]
        entrance, again, scored = self.ways
        self.spool = Spool(folder, max_size=choices.max_size)
        self.spool.adopt(f"{choices.forwarding} {choices.trigger is Trigger.LOCAL_ROOT}")
        self.spooling = ManualSpooling(
            self.spool,
            {Signal.TRACES: entrance},
            {"spans": again, "scores": scored},
            by_unit=choices.trigger is Trigger.LOCAL_ROOT,
            released="spans" if choices.is_written_again else None,
            clock=clock,
        )
        self.judges = Judges(rnd)
        self.engine = ManualEngine(
            choices.options(),
            choices.scorers,
            on_spans=partial(self.spooling.put, "spans"),
            on_scores=partial(self.spooling.put, "scores"),
            matches=_is_even,
            spooling=self.spooling,
            clock=clock,
        )
        self.engine.start(self.judges if choices.scorers else None)
        self.engine.restore(self.spool.closed())
        self.spooling.start(partial(take_spooled, self.engine, self.spooling))

    def judge(self, number: int) -> None:
        self.engine.deliver(list(self.judges.answer(number)))

    def kill(self) -> None:
        """Leave what is committed, and nothing that would be written by a process that ends."""
        left = Path(shutil.copytree(self.folder, self.folder.with_name("left")))
        self.end()
        shutil.rmtree(self.folder)
        left.rename(self.folder)

    def end(self) -> None:
        self.spooling.stop()
        self.spool.close()

    def finish(self) -> bool:
        """Let everything be done that there is to do and return whether it is."""
        for _ in range(200):
            self.spooling.turn()
            self._clock.advance(10)
            self.engine.tick()
            self.judge(50)
            for way in self.ways:
                way.settle(50)
            self.spooling.turn()
            is_open = self.engine.is_assembling and any(
                each.value for each in self.engine.gauges() if each.name.endswith("open_traces")
            )
            if self.spool.left == (0, 0) and not is_open and not any(map(len, self.ways)) and not len(self.judges):
                self.spooling.turn()
                return True
        return False


def _is_even(span: RawSpan) -> bool:
    return span.span_id[-1] % 2 == 0


class Story:
    """Several processes on one spool, and what came of it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._rnd = rnd = random.Random(seed)
        self._folder = folder / "spool"
        self._clock = ManualClock()
        self._serial = counting(1)
        self.choices = Choices.draw(rnd)
        names = tuple("pq"[: self.choices.destinations])
        self._spans, self._scores = Backends(names), Backends(("p",))
        self._acknowledged: set[SpanId] = set()
        self._sent: Counter[str] = Counter()
        self._processes = rnd.randint(1, 4)
        # Whoever starts it may have other wishes each time: then verdicts may change, and nothing else.
        self._is_steady = rnd.random() < 0.7
        # Else which of two spans with one id counts may be another one each time, and so may be what is scored.
        self._is_in_order = rnd.random() < 0.8

    def tell(self) -> None:
        for number in range(self._processes):
            if number and not self._is_steady:
                self.choices = self._otherwise()
            sidecar = Sidecar(self._folder, self.choices, self._rnd, self._clock, (self._spans, self._scores))
            for _ in range(self._rnd.randint(3, 30)):
                self._happen(sidecar)
            if number < self._processes - 1:
                sidecar.kill()
                self._clock.advance(1)
                continue
            is_done = sidecar.finish()
            partly, left = sidecar.spool.partly_decided(), sidecar.spool.left
            sidecar.end()
            assert is_done, f"requests and things to be sent that stay: {left}"
            assert not partly, "what is known of traces that are decided in part stays"
        self._check()

    def _otherwise(self) -> Choices:
        other = Choices.draw(self._rnd)
        same = ("destinations", "is_written_again", "max_size")
        return Choices(**{**vars(other), **{name: getattr(self.choices, name) for name in same}})

    def _happen(self, sidecar: Sidecar) -> None:
        rnd, what = self._rnd, self._rnd.random()
        if what < 0.35:
            self._send(sidecar)
        elif what < 0.5:
            self._clock.advance(rnd.choice([0.25, 1, 2, 6]))
            sidecar.engine.tick()
        elif what < 0.65:
            sidecar.judge(rnd.randint(1, 3))
        elif what < 0.8:
            rnd.choice(sidecar.ways).settle(rnd.randint(1, 4))
        else:
            sidecar.spooling.turn()

    def _send(self, sidecar: Sidecar) -> None:
        spans = self._some_spans()
        try:
            if self._is_in_order or self._rnd.random() < 0.7:
                sidecar.spooling.take(Signal.TRACES, make_request(*spans))
            else:
                # A sender that waits no longer sends a part again, with others.
                more = [*self._some_spans(), *self._rnd.sample(spans, 1)]
                sidecar.spooling.take_at_once([make_request(*more), make_request(*spans)])
                spans += more
        except (RequestError, StoreError):
            return
        self._sent.update(span.name for span in spans)
        self._acknowledged.update((span.trace_id, span.span_id) for span in spans)

    def _some_spans(self) -> list[SpanMessage]:
        rnd = self._rnd
        spans: list[SpanMessage] = []
        for _ in range(rnd.randint(1, 4)):
            number, parent = rnd.randint(1, 30), rnd.choice([None, 1, 2, 3])
            span = make_span(
                f"n{next(self._serial)}",
                trace=rnd.randint(1, 5),
                span=number,
                parent=parent if parent != number else None,
                remote_parent=parent not in {None, number} and rnd.random() < 0.2,
            )
            spans.append(span)
        return spans

    def _check(self) -> None:
        for name in self._spans.names:
            sent = [span for data in self._spans.taken[name] for span in read_spans(data)]
            lost = self._acknowledged - {(span.trace_id, span.span_id) for span in sent}
            assert not lost, f"acknowledged, and never sent to {name}"
            if self._processes == 1:
                assert Counter(span.name for span in sent) <= self._sent, "sent more than once"
        scores = [span for data in self._scores.taken["p"] for span in read_spans(data)]
        if not (self._is_steady and self._is_in_order) or self.choices.max_traces < 50:
            return  # a trace that is forgotten while spans of it still come is another one
        contents: dict[bytes, set[bytes]] = defaultdict(set)
        for span in scores:
            contents[span.span_id].add(span.SerializeToString())
        assert not [found for found in contents.values() if len(found) > 1], "verdicts have changed"
        if self.choices.scorers and self.choices.emit is Emit.EVALUATION_SPAN:
            assert {trace for trace, _ in self._acknowledged} <= {span.trace_id for span in scores}, "not scored"
