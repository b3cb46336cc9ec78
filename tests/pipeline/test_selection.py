from __future__ import annotations

import math
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision as Upstream
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.pipeline.running.selection import Choice, Selection, Selector, is_sampled, sampling_number
from otel_scorer.scorers import Scorer, scorer
from otel_scorer.testing import make_span, make_trace

TRACE_IDS = st.binary(min_size=16, max_size=16)
RATES = st.floats(0, 1)
TOOL = {"openinference.span.kind": "TOOL"}


def judge(name: str = "check", **options: object) -> Scorer:
    return scorer(lambda: True, name=name, **options)  # type: ignore[call-overload,no-any-return] # options by name


def shown(choice: Choice) -> str:
    if isinstance(choice, Decision):
        return f"{choice.outcome}" + (f" {int(choice.span_id, 16)}" if choice.span_id else "")
    return "call" if choice.span_id is None else f"call {int(choice.span_id, 16)}"


@given(TRACE_IDS, RATES, RATES)
def test_a_higher_rate_is_a_superset(trace_id: bytes, one: float, other: float) -> None:
    low, high = sorted((one, other))

    assert not is_sampled(trace_id, low) or is_sampled(trace_id, high)
    assert is_sampled(trace_id, 1.0)
    assert not is_sampled(trace_id, 0.0)


@given(TRACE_IDS, RATES)
def test_every_scorer_and_every_way_to_ask_gives_the_same_answer(trace_id: bytes, rate: float) -> None:
    trace = make_trace(make_span(trace=int.from_bytes(trace_id) or 1))
    trace_id = bytes.fromhex(trace.trace_id)
    selector = Selector([judge("a", sample_rate=rate), judge("b", sample_rate=rate), judge("c")])

    a, b, c = map(shown, selector.choose(trace))

    assert a == b == ("call" if is_sampled(trace_id, rate) else "not_sampled")
    assert c == "call"


def test_the_number_of_a_trace_never_changes() -> None:
    assert sampling_number(bytes(range(16))) == 0x34F98C9C0F1C647F


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_sample_has_the_size_that_was_asked_for(rate: float) -> None:
    source = random.Random(7)
    traces = 40_000

    taken = sum(is_sampled(source.randbytes(16), rate) for _ in range(traces))

    assert abs(taken - traces * rate) < 5 * math.sqrt(traces * rate * (1 - rate))


def test_a_sample_of_a_sample_that_was_taken_by_the_low_bits_has_its_size() -> None:
    # An SDK's ratio sampler looks at the low 8 bytes; what it let through is still sampled evenly.
    source = random.Random(7)
    upstream = [low.to_bytes(16) for low in (source.getrandbits(64) // 10 for _ in range(20_000))]

    taken = sum(is_sampled(trace_id, 0.5) for trace_id in upstream)

    assert abs(taken - 10_000) < 5 * math.sqrt(5_000)


def test_behind_the_ratio_sampler_of_the_sdk_the_sample_has_its_size_and_two_replicas_agree() -> None:
    source, upstream = random.Random(11), TraceIdRatioBased(0.1)
    trace_ids: list[bytes] = []
    while len(trace_ids) < 20_000:
        trace_id = source.getrandbits(128)
        if upstream.should_sample(None, trace_id, "agent").decision is Upstream.RECORD_AND_SAMPLE:
            trace_ids.append(trace_id.to_bytes(16, "big"))

    kept = {trace_id.hex() for trace_id in trace_ids if is_sampled(trace_id, 0.1)}

    assert 0.09 <= len(kept) / len(trace_ids) <= 0.11
    assert sampled_elsewhere(trace_ids) == kept


def sampled_elsewhere(trace_ids: list[bytes]) -> set[str]:
    """Return what another process samples, whose hashes of strings are not ours."""
    program = (
        "import sys; from otel_scorer.pipeline.running.selection import is_sampled\n"
        "print(*(line.strip() for line in sys.stdin if is_sampled(bytes.fromhex(line), 0.1)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(trace_id.hex() for trace_id in trace_ids),
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_nobody_looks_into_a_trace_that_no_scorer_samples() -> None:
    never = Selector([judge(sample_rate=0.0)])
    always = Selector([judge(sample_rate=0.0), judge()])

    assert not never.wants(bytes(16))
    assert always.wants(bytes(16))
    assert not Selector([]).wants(bytes(16))


def test_choices_come_in_the_order_of_the_scorers() -> None:
    trace = make_trace(make_span(span=1), make_span(span=2, parent=1, attributes=TOOL))
    scorers = [
        judge("plain"),
        judge("never", sample_rate=0.0),
        judge("tools", span_types=["TOOL"]),
        judge("retrievers", span_types=["RETRIEVER", "RERANKER"]),
        judge("filtered", filter='trace.service_name == "other"'),
    ]

    choices = Selector(scorers).choose(trace, revision=3)

    assert [shown(choice) for choice in choices] == ["call", "not_sampled", "call 2", "not_applicable", "filtered"]
    assert [choice.reason for choice in choices if isinstance(choice, Decision)] == [
        None,
        "no RERANKER or RETRIEVER span in the trace",
        None,
    ]
    assert {choice.revision for choice in choices} == {3}
    assert {choice.trace_id for choice in choices} == {trace.trace_id}


def test_every_span_of_a_type_is_a_target() -> None:
    trace = make_trace(
        make_span(span=1),
        make_span(span=2, parent=1, start=0.1, attributes=TOOL),
        make_span(span=3, parent=1, start=0.2, attributes=TOOL, status="ERROR"),
    )

    assert [shown(choice) for choice in Selection(judge(span_types=["TOOL"])).choose(trace)] == ["call 2", "call 3"]
    by_span = Selection(judge(span_types=["TOOL"], filter="span.failed")).choose(trace)
    assert [shown(choice) for choice in by_span] == ["filtered 2", "call 3"]
    by_trace = Selection(judge(span_types=["TOOL"], filter="trace.span_count > 5")).choose(trace)
    assert [shown(choice) for choice in by_trace] == ["filtered"]


def test_a_trace_that_nobody_will_look_at_gets_its_decisions() -> None:
    selector = Selector([judge("a"), judge("b", sample_rate=0.0)])

    a, b = selector.refuse(bytes([1] * 16), Outcome.SHED, "full", revision=2)

    assert (a.scorer, a.outcome, a.reason, a.revision) == ("a", Outcome.SHED, "full", 2)
    assert (b.scorer, b.outcome, b.reason) == ("b", Outcome.NOT_SAMPLED, None)
    assert a.trace_id == "01" * 16


def test_a_trace_of_which_no_span_has_ended_is_not_judged() -> None:
    pending = make_span("call", attributes={"logfire.span_type": "pending_span", "logfire.pending_parent_id": "0" * 16})
    ended = make_span("call", span=2, attributes={"logfire.span_type": "span"})

    [decision] = Selection(judge()).choose(make_trace(pending))
    [choice] = Selection(judge()).choose(make_trace(pending, ended))

    assert isinstance(decision, Decision)
    assert decision.outcome is Outcome.UNPROCESSABLE
    assert not isinstance(choice, Decision)
