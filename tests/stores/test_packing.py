"""Values and verdicts as bytes: what comes back equals what was there, and what is no data is the very same object."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
import threading
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from otel_scorer.dialects import default_reader
from otel_scorer.evaluation import load_traces
from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback
from otel_scorer.model.trace import MISSING
from otel_scorer.model.trace_bytes import spans_as_they_came, trace_from_bytes
from otel_scorer.scorers.results import JudgedFeedback
from otel_scorer.stores.packing import Held, Packer, pack_decisions, unpack_decisions

CAPTURE = Path(__file__).resolve().parents[1] / "captures" / "openinference_openai.json"


class Answer(BaseModel):
    text: str
    parts: list[int] = []


@dataclass
class Question:
    text: str
    asked: dt.date


class Pair(NamedTuple):
    left: int
    right: str


def back(value: Any) -> Any:
    packer = Packer()
    return packer.unpack(packer.pack(value))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.just(MISSING),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)
texts = st.text(st.characters())
feedbacks = st.builds(
    Feedback,
    texts,
    plain,
    st.none() | st.builds(AssessmentError, texts, st.none() | texts, st.none() | texts),
    st.none() | st.builds(AssessmentSource, st.sampled_from(["CODE", "HUMAN", "LLM_JUDGE"]), texts),
    st.none() | texts,
    st.none() | st.dictionaries(texts, plain),
    st.none() | texts,
    st.none() | st.integers(0, 10**12),
    rationale=st.none() | texts,
    valid=st.booleans(),
)
decisions = st.builds(
    Decision,
    texts,
    st.none() | texts,
    texts,
    texts,
    st.sampled_from(list(Outcome)),
    st.none() | texts,
    st.integers(1, 5),
    st.lists(feedbacks, max_size=3).map(tuple),
    st.lists(st.sampled_from([None, True, False])).map(tuple),
    st.none() | st.floats(0, 10),
)


@given(plain)
def test_plain_values_come_back(value: Any) -> None:
    found = back(value)

    assert found == value
    assert repr(found) == repr(value)


@given(st.lists(decisions, max_size=4))
def test_verdicts_come_back_with_all_that_is_in_them(given_decisions: list[Decision]) -> None:
    found = unpack_decisions(back(pack_decisions(given_decisions)))

    assert found == tuple(given_decisions)
    assert [each.seconds for each in found] == [each.seconds for each in given_decisions]
    assert [repr(one) for each in found for one in each.feedbacks] == [
        repr(one) for each in given_decisions for one in each.feedbacks
    ]


def test_a_feedback_of_another_class_stays_one() -> None:
    said = JudgedFeedback("f", 0.5)
    said.passed = True
    decision = Decision("1", None, "s", "1", Outcome.SCORED, feedbacks=(said,), passed=(True,))

    [[found]] = [each.feedbacks for each in unpack_decisions(back(pack_decisions([decision])))]

    assert type(found) is JudgedFeedback
    assert (found.value, found.passed) == (0.5, True)


@pytest.mark.parametrize(
    "value",
    [
        Answer(text="a", parts=[1, 2]),
        Question("q", dt.date(2026, 1, 2)),
        Pair(1, "x"),
        OrderedDict(b=1, a=2),
        dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        Decimal("1.50"),
        {1, 2},
        bytearray(b"x"),
        np.float32(0.5),
        np.str_("text"),
    ],
)
def test_data_of_other_types_comes_back_as_that(value: Any) -> None:
    packer = Packer()

    found = packer.unpack(packer.pack({"value": value}))["value"]

    assert type(found) is type(value)
    assert found == value
    assert packer.held == 0


def test_what_is_no_data_stays_the_same_object_and_is_held_once() -> None:
    lock, packer = threading.Lock(), Packer()

    packed = [packer.pack({"n": number, "lock": [lock]}) for number in range(3)]

    assert [packer.unpack(each)["n"] for each in packed] == [0, 1, 2]
    assert all(packer.unpack(each)["lock"][0] is lock for each in packed)
    assert packer.held == 1


def test_data_that_cannot_be_written_is_held_whole() -> None:
    @dataclass
    class Local:
        value: int

    class Refusing:
        def __getstate__(self) -> Any:
            raise RuntimeError("no")

    circle: list[Any] = []
    circle.append(circle)
    for value in (Local(1), [Local(1)], Refusing()):
        packer = Packer()
        assert packer.unpack(packer.pack(value)) is value
    assert back(circle)[0][0] is not None


def test_a_large_array_is_not_copied_for_every_row() -> None:
    shared, packer = np.zeros(100_000), Packer()

    assert packer.unpack(packer.pack([shared]))[0] is shared
    assert len(packer.pack([shared])) < 1000


def test_a_trace_comes_back_with_its_spans_in_order_its_tags_and_its_reader() -> None:
    [late, early] = load_traces(CAPTURE)[:2]
    data = spans_as_they_came(late)[0]
    said = Feedback("f", 1, rationale="because")
    trace = trace_from_bytes(
        data, b"", default_reader(), close_reason="idle", is_complete=False, revision=2, assessments=[said],
        tags={"k": "v"},
    )  # fmt: skip
    packer = Packer()

    found = packer.unpack(packer.pack((trace, 1)))[0]

    assert found.to_dict() == trace.to_dict()
    assert [span.span_id for span in found.arrived] == [span.span_id for span in trace.arrived]
    assert (found.info.tags["k"], found.search_assessments()) == ("v", [said])
    assert found.reader is trace.reader
    assert back(early).to_dict() == early.to_dict()
    assert packer.unpack(packer.pack(Held(trace))) is trace


def test_a_pickled_packer_still_reads_what_it_has_packed() -> None:
    packer = Packer()
    data = packer.pack([len, {"x": np.zeros(100_000)}])

    for other in (pickle.loads(pickle.dumps(packer)), copy.copy(packer)):  # noqa: S301 - our own
        assert other.unpack(data)[1]["x"].shape == (100_000,)
