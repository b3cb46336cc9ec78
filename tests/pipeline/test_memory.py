"""Over its limits of memory the sidecar refuses, scores early what is heavy and old, and is itself again afterwards."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes import Counted
from tests.pipeline.test_assembler import an_assembler, raw
from tests.pipeline.test_engine import AGENT, running

from otel_scorer.model.wire import SPAN_OVERHEAD
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, CloseReason, LatePolicy, TraceAssembler
from otel_scorer.pipeline.sidecar.memory_guard import MemoryGuard
from otel_scorer.pipeline.workers.memory_use import available_memory, give_back, resident_bytes
from otel_scorer.testing import ManualClock, make_span

MIB = 1 << 20
SPARE = 3  # a twentieth of the soft limit of 75
PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Memory:
    """Memory that a test fills and a guard watches; giving back frees what is only kept."""

    def __init__(self, soft: int | None = 75, hard: int | None = 90) -> None:
        self.used = 50
        self.kept = 0
        self.asked: list[tuple[int, bool]] = []
        self.given_back = 0
        self.reusable = 0
        self.clock = ManualClock()
        self.guard = MemoryGuard(
            soft,
            hard,
            measure=lambda: self.used + self.kept + self.reusable,
            reusable=lambda: self.reusable,
            relieve=lambda size, urgent: self.asked.append((size, urgent)),
            give_back=self._give_back,
            clock=self.clock,
        )

    def look(self, used: int) -> bool:
        self.used = used
        self.guard.look()
        return self.guard.is_over

    def _give_back(self) -> None:
        self.kept = 0
        self.given_back += 1


def test_b1_over_the_soft_limit_requests_are_refused_until_memory_is_below_it_again() -> None:
    counted = Counted()
    memory = Memory()

    assert [memory.look(used) for used in (74, 75, 76, 89, 75, 10)] == [False, False, True, True, False, False]
    assert memory.asked == [(1 + SPARE, False)]
    assert counted("memory.exceeded{level=soft}") == 1


def test_who_is_over_a_limit_time_and_again_is_told_so_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counted = Counted()
    memory = Memory()

    for used in (80, 70, 80, 70, 95, 70, 80):
        memory.look(used)
    memory.clock.advance(60.0)
    for used in (70, 80, 70):
        memory.look(used)

    assert [message.partition(":")[0] for message in caplog.messages] == [
        "Memory is over the soft limit of 0 MiB",
        "Memory is within its limits again",
        "Memory is over the hard limit of 0 MiB",
        "Memory is within its limits again",
        "Memory is over the soft limit of 0 MiB",
        "Memory is within its limits again",
    ]
    assert counted("memory.exceeded{level=soft}") == 4


def test_over_the_soft_limit_traces_are_scored_early_once_a_second_and_over_the_hard_one_at_every_look() -> None:
    memory = Memory()

    for used in (80, 80, 95, 95, 80):
        memory.look(used)
    memory.clock.advance(1.0)
    memory.look(80)

    assert memory.asked == [(5 + SPARE, False), (20 + SPARE, True), (20 + SPARE, True), (5 + SPARE, False)]


def test_b2_over_the_hard_limit_any_trace_may_have_to_go() -> None:
    counted = Counted()
    memory = Memory()

    assert memory.look(95)

    assert memory.asked == [(20 + SPARE, True)]
    assert counted("memory.exceeded{level=hard}") == 1


def test_what_is_free_is_given_back_before_anybody_is_refused_for_it_once_a_second() -> None:
    memory = Memory()
    memory.kept = 40
    assert not memory.look(50)

    memory.kept = 40
    assert memory.look(50)
    memory.clock.advance(1.0)
    assert not memory.look(50)
    assert memory.given_back == 2


def test_what_python_has_free_can_be_used_again_so_nobody_is_refused_for_it_up_to_the_hard_limit() -> None:
    memory = Memory()

    memory.reusable = 20
    assert not memory.look(60)
    memory.reusable = 30
    assert memory.look(65)
    memory.reusable = 50
    assert not memory.look(40)

    assert memory.asked == [(5 + SPARE, True)]


@pytest.mark.parametrize(("soft", "hard"), [(75, None), (None, 90)])
def test_either_limit_can_be_switched_off(soft: int | None, hard: int | None) -> None:
    memory = Memory(soft, hard)

    assert memory.look(100) == (soft is not None)
    assert memory.asked == ([(25 + SPARE, False)] if soft is not None else [(10, True)])


def test_without_limits_nobody_looks() -> None:
    memory = Memory(None, None)

    memory.guard.start()
    memory.guard.shutdown(0.0)

    assert memory.guard.gauges() == []
    assert not memory.guard.is_over


def test_what_is_used_and_what_may_be_is_measured() -> None:
    memory = Memory()
    memory.look(60)

    assert {(each.name, each.attributes): each.value for each in memory.guard.gauges()} == {
        ("memory.limit", (("level", "soft"),)): 75,
        ("memory.limit", (("level", "hard"),)): 90,
        ("memory.used", ()): 60,
    }


def test_b2_the_heaviest_and_oldest_traces_are_scored_first_and_no_more_than_needed() -> None:
    assembler = an_assembler()
    for number, (size, at) in enumerate([(100, 0.0), (5000, 90.0), (3000, 0.0), (5000, 0.0)], start=1):
        assembler.add([raw(trace=number, span=2, parent=1, data=bytes(size))], at)

    # Twice the age counts for more than half the weight.
    closed = assembler.relieve(5000 + SPAN_OVERHEAD + 1, 91.0, older_than=0.0)

    assert [trace.trace_id[-1] for trace in closed] == [4, 3]
    assert {(trace.reason, trace.complete) for trace in closed} == {(CloseReason.MEMORY_PRESSURE, False)}
    assert len(assembler) == 2


def test_b2_of_traces_that_have_been_idle_for_long_enough_the_heavier_goes_first_not_the_older() -> None:
    assembler = an_assembler(max_age=10_000.0)
    assembler.add([raw(trace=1, span=2, parent=1, data=bytes(3000))], 0.0)
    assembler.add([raw(trace=2, span=2, parent=1, data=bytes(5000))], 1600.0)

    closed = assembler.relieve(1 << 40, 1800.0, older_than=0.0)

    assert [trace.trace_id[-1] for trace in closed] == [2, 1]


def test_b2_traces_can_be_closed_early_however_short_they_may_be_idle() -> None:
    assembler = an_assembler(idle_timeout=0.0)
    assembler.add([raw(span=2, parent=1)], 0.0)

    assert len(assembler.relieve(1, 0.0, older_than=0.0)) == 1


def test_b1_young_traces_are_left_to_finish_unless_it_is_urgent() -> None:
    assembler = an_assembler()
    assembler.add([raw(trace=1, span=2, parent=1)], 0.0)
    assembler.add([raw(trace=2, span=2, parent=1)], 20.0)

    assert [trace.trace_id[-1] for trace in assembler.relieve(1 << 40, 31.0, older_than=30.0)] == [1]
    assert [trace.trace_id[-1] for trace in assembler.relieve(1, 31.0, older_than=0.0)] == [2]


def test_what_is_kept_to_be_scored_again_goes_before_anything_that_is_open() -> None:
    assembler = TraceAssembler(AssemblyLimits(late_spans=LatePolicy.RESCORE))
    assembler.add([raw(trace=1, data=bytes(5000))], 0.0)
    assembler.due(2.0)
    assembler.add([raw(trace=2)], 3.0)

    assert assembler.relieve(5000, 100.0, older_than=0.0) == []
    assert (assembler.kept_size, len(assembler)) == (0, 1)


def test_a_trace_that_had_to_go_for_its_memory_is_not_kept_for_another_score() -> None:
    assembler = TraceAssembler(AssemblyLimits(late_spans=LatePolicy.RESCORE))
    assembler.add([raw(trace=1)], 0.0)

    assert len(assembler.relieve(1, 1.0, older_than=0.0)) == 1
    assert assembler.kept_size == 0


FILL_AND_RELIEVE = """
from otel_scorer.model.wire import read_traces
from otel_scorer.pipeline.assembly.assembler import AssemblyLimits, TraceAssembler
from otel_scorer.pipeline.workers.memory_use import give_back, resident_bytes, reusable_bytes
from otel_scorer.testing import make_request, make_span

def in_use():
    give_back()
    return resident_bytes() - reusable_bytes()

assembler = TraceAssembler(AssemblyLimits())
text = {"text": "x" * 200}
pattern = make_request(*(make_span("small", trace=1, span=span, parent=9, attributes=text) for span in range(1, 9)))
used = [in_use()]
for number in range(1, 20_001):
    # Parsed anew each time, as what is received: every span has bytes of its own.
    spans = read_traces(pattern.replace((1).to_bytes(16, "big"), number.to_bytes(16, "big"))).spans
    assembler.add(spans, 0.0)
del spans
used.append(in_use())
assembler.relieve(1 << 40, 1.0, older_than=0.0)
used.append(in_use())
print(*used, assembler.remembered)
"""


def test_b1_memory_of_small_spans_is_free_again_although_their_traces_are_remembered() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FILL_AND_RELIEVE], capture_output=True, text=True, check=True, timeout=50
    )

    before, full, after, remembered = map(int, ran.stdout.split())
    assert remembered == 20_000
    assert after - before < (full - before) / 2


def test_traces_that_are_being_scored_already_count_as_given_up() -> None:
    with running() as run:
        run.ingest(*AGENT)
        [job] = run.close_traces()
        run.ingest(make_span(trace=2))
        run.clock.advance(1.0)

        run.engine.relieve(job.trace.size, urgent=True)
        assert len(run.backend.jobs) == 1
        run.engine.relieve(job.trace.size + 1, urgent=False)
        assert len(run.backend.jobs) == 1
        run.engine.relieve(job.trace.size + 1, urgent=True)
        assert [each.trace.reason for each in run.backend.jobs] == ["root_quiet", "memory_pressure"]


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, 512 * MIB),
        ({"proc/self/cgroup": "0::/pod/app\n", "sys/fs/cgroup/pod/app/memory.max": "1000000\n"}, 1_000_000),
        (
            {
                "proc/self/cgroup": "0::/pod/app\n",
                "sys/fs/cgroup/pod/app/memory.max": "max\n",
                "sys/fs/cgroup/pod/memory.max": "2000000\n",
            },
            2_000_000,
        ),
        (
            {"proc/self/cgroup": "0::/docker/not-mounted-here\n", "sys/fs/cgroup/memory.max": "3000000\n"},
            3_000_000,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4000000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            4_000_000,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, PHYSICAL),
        ({"proc/self/cgroup": "nonsense\n\n0::/../../elsewhere\n"}, PHYSICAL),
        ({}, PHYSICAL),
    ],
    ids=["v2 container", "v2", "v2 parent", "path of the host", "v1", "v2 without a limit", "nonsense", "nothing"],
)
def test_the_limit_is_that_of_the_control_group_else_all_memory(
    tmp_path: Path, files: dict[str, str], limit: int
) -> None:
    assert available_memory(write(tmp_path, files)) == limit


def test_workers_count_with_what_they_do_not_share(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    root = write(tmp_path, {"proc/self/statm": "900 100 30 1 0 1 0\n", "proc/7/statm": "900 50 20 1 0 1 0\n"})

    assert resident_bytes((7, 8), root) == (100 + 30) * page
    assert resident_bytes((), tmp_path / "nowhere") == 0


def test_this_process_has_some_memory_and_giving_back_does_no_harm() -> None:
    give_back()

    assert MIB < resident_bytes([os.getpid()]) < PHYSICAL
    assert available_memory() <= PHYSICAL


# 16 MiB come and go; what is left of them is printed.
COME_AND_GO = """
import sys
from otel_scorer.pipeline.workers.memory_use import keep_freed, resident_bytes
keep_freed(int(sys.argv[1]), apart=int(sys.argv[2]), step=1 << 20)
before = resident_bytes()
data = bytes(range(256)) * (64 << 10)
del data
print(resident_bytes() - before)
"""


@pytest.mark.parametrize(
    ("size", "apart", "is_kept"), [(64 * MIB, 32 * MIB, True), (0, 32 * MIB, False), (64 * MIB, MIB, False)]
)
def test_what_is_freed_stays_for_what_comes_next_as_far_as_that_is_wanted(size: int, apart: int, is_kept: bool) -> None:
    left = subprocess.run(
        [sys.executable, "-c", COME_AND_GO, str(size), str(apart)], capture_output=True, check=True, text=True
    ).stdout

    assert (int(left) > 8 * MIB) is is_kept
