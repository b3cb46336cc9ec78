"""Which span stands for its trace."""

from __future__ import annotations

from itertools import permutations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import PlainReader

from otel_scorer.encoders.target import target_of
from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.trace import Trace
from otel_scorer.testing import make_raw, make_span


@pytest.mark.parametrize(
    "spans",
    [
        [make_span("x", span=2), make_span(span=1, parent=2), make_span(span=3, parent=9, remote_parent=True)],
        [make_span("x", span=7, start=1), make_span(span=2, start=2)],
        [make_span("x", span=1), make_span(span=2)],
        [make_span(span=1, parent=9), make_span("x", span=5, parent=8, start=3, remote_parent=True)],
        [
            make_span("x", span=5, parent=8, remote_parent=True),
            make_span(span=4, parent=7, start=1, remote_parent=True),
        ],
        [make_span(span=2, parent=1, remote_parent=True, start=1), make_span("x", span=1, parent=9, start=2)],
        [make_span("x", span=3, parent=9), make_span(span=2, parent=8, start=1), make_span(span=1, parent=3, start=-5)],
        [make_span("x", span=3, parent=3, start=4), make_span(span=1, parent=3)],
        [make_span("x", span=2, parent=3), make_span(span=3, parent=2, start=1)],
    ],
    ids=[
        "the root",
        "the earlier root",
        "of roots at one time the one with the smaller id",
        "the local root",
        "the earlier local root",
        "no local root whose parent is here",
        "the earliest orphan",
        "a span that is its own parent",
        "the earliest of a cycle",
    ],
)
def test_the_span_that_stands_for_the_trace_is(spans: list[SpanMessage]) -> None:
    for order in permutations(spans):
        raw = make_raw(*order)

        target = target_of(raw)

        assert target is not None
        assert SpanMessage.FromString(target.data).name == "x"
        # The scorer's root is the same span.
        root = Trace(spans_from_raw(raw), PlainReader()).root
        assert root is not None
        assert root.name == "x"


def test_our_own_spans_are_never_targets() -> None:
    own = make_raw(make_span("own", span=5), scope="otel_scorer")
    orphan = make_raw(make_span(span=2, parent=5))

    assert target_of([*own, *orphan]) is orphan[0]
    assert target_of(own) is None
    assert target_of([]) is None
