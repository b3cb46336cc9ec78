"""How traces that leave at once are put into requests: everything once, in order, and only very large traces cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.pipeline.raw_spans import a_span

from otel_scorer.model.wire import RawSpan
from otel_scorer.pipeline.sidecar.releasing import in_requests

MIB = 1024 * 1024
Released = tuple[list[RawSpan], int, float | None]


def a_trace(number: int, sizes: list[int], last: float | None) -> Released:
    spans = [a_span(number, at, None, 1, "span", size) for at, size in enumerate(sizes, start=1)]
    return spans, sum(span.size for span in spans), last


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([10, 1000, MIB // 4, MIB]), min_size=1, max_size=9), st.none() | st.floats(0, 9)
        ),
        max_size=5,
    )
)
def test_every_span_leaves_once_in_order_and_only_very_large_traces_in_several_requests(
    drawn: list[tuple[list[int], float | None]],
) -> None:
    traces = [a_trace(number, sizes, last) for number, (sizes, last) in enumerate(drawn, start=1)]

    requests = list(in_requests(traces))

    left = [span for spans, _ in requests for span in spans]
    assert list(map(id, left)) == [id(span) for spans, _, _ in traces for span in spans]
    assert all(spans for spans, _ in requests)
    assert sorted(last for _, since in requests for last in since) == sorted(
        last for spans, _, last in traces if last is not None
    )
    for spans, weight, _ in traces:
        shared = [request for request, _ in requests if any(span.trace_id == spans[0].trace_id for span in request)]
        assert len(shared) <= 1 or weight > 4 * MIB


def test_a_trace_of_ten_mebibytes_leaves_in_requests_that_need_not_be_cut_again() -> None:
    trace = a_trace(1, [1000] * 10_000, 7.0)

    requests = list(in_requests([trace, a_trace(2, [1000], 8.0)]))

    assert all(sum(len(span.data) for span in spans) <= 2 * MIB for spans, _ in requests)
    assert [since for _, since in requests if since] == [[7.0], [8.0]]
