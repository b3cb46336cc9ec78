"""What a scorer sees: order, tree, status, searching, and how little is read before somebody looks."""

from __future__ import annotations

import gc
import json
import random
import re
import weakref
from itertools import permutations
from time import perf_counter
from typing import Any, Final, Literal

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from tests.fakes import PlainReader
from tests.strategies import span_messages

import otel_scorer.dialects  # noqa: F401 - registers the reader that Trace.from_json uses
from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.feedback import Expectation, Feedback
from otel_scorer.model.trace import (
    MISSING,
    LogRecord,
    Span,
    SpanKind,
    SpanStatusCode,
    SpanType,
    Trace,
)
from otel_scorer.model.tree import Tree
from otel_scorer.model.wire import RawSpan, ScopeRef
from otel_scorer.testing import EPOCH_NS, make_raw, make_request, make_span, make_trace

KINDS: Final[tuple[Literal["CLIENT", "SERVER"], ...]] = ("CLIENT", "SERVER")


def a_trace(*spans: SpanMessage, **options: Any) -> Trace:
    return make_trace(*spans, reader=PlainReader(), **options)


def names(spans: list[Span] | tuple[Span, ...]) -> list[str]:
    return [span.name for span in spans]


def outline(trace: Trace) -> list[tuple[str, int]]:
    return [(span.name, depth) for span, depth in trace.tree.walk()]


@pytest.mark.parametrize(
    ("sent", "attributes", "read"),
    [
        ("UNSET", {}, "OK"),
        ("UNSET", {"error.type": "timeout"}, "ERROR"),
        ("UNSET", {"error.type": ""}, "ERROR"),
        ("OK", {"error.type": "timeout"}, "OK"),
        ("OK", {}, "OK"),
        ("ERROR", {}, "ERROR"),
    ],
)
def test_an_unset_status_reads_ok_unless_the_span_names_an_error(sent: Any, attributes: Any, read: str) -> None:
    [span] = a_trace(make_span(status=sent, attributes=attributes)).spans

    assert span.status.status_code == read
    assert span.status.status_code is SpanStatusCode(read)
    assert span.status.otel_status_code == sent
    assert span.failed is (read == "ERROR")


def test_the_status_message_is_the_description() -> None:
    [span] = a_trace(make_span(status="ERROR", message="no route")).spans

    assert span.status.description == "no route"


def test_a_status_code_that_nobody_knows_is_unset() -> None:
    message = make_span()
    message.status.code = 7  # type: ignore[assignment]  # what a later OTLP might send

    [span] = a_trace(message).spans

    assert span.status.otel_status_code == "UNSET"


@pytest.mark.parametrize(
    ("root", "state"),
    [
        (make_span(), "OK"),
        (make_span(status="ERROR"), "ERROR"),
        (make_span(attributes={"error.type": "x"}), "ERROR"),
        (make_span(parent=9, remote_parent=True), "OK"),
        (make_span(parent=9), "IN_PROGRESS"),
    ],
    ids=["root", "failed root", "root with error.type", "local root", "no root"],
)
def test_the_state_of_a_trace_is_that_of_its_root(root: SpanMessage, state: str) -> None:
    info = a_trace(root, make_span(span=2, parent=1, status="ERROR")).info

    assert info.state == info.status == state


def test_spans_come_root_first_then_by_start_a_parent_before_its_child() -> None:
    spans = [
        make_span("root", span=9, start=1.0),
        make_span("early child", span=5, parent=9, start=0.5),
        make_span("child", span=4, parent=9, start=2.0),
        make_span("grandchild", span=1, parent=4, start=2.0),
        make_span("late child", span=2, parent=9, start=3.0),
    ]

    for order in permutations(spans):
        assert names(a_trace(*order).spans) == ["root", "early child", "child", "grandchild", "late child"]


def test_children_come_by_start_time() -> None:
    trace = a_trace(
        make_span("root"), make_span("b", span=3, parent=1, start=2), make_span("a", span=4, parent=1, start=1)
    )

    assert trace.root is not None
    assert names(trace.root.children) == ["a", "b"]
    assert [span.parent is trace.root for span in trace.root.children] == [True, True]


def test_a_trace_gives_away_copies_of_its_list_of_spans() -> None:
    trace = a_trace(make_span("root"), make_span("child", span=2, parent=1))

    trace.spans.clear()
    trace.data.spans.clear()

    assert names(trace.spans) == ["root", "child"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ({}, ["agent", "search", "search again"]),
        ({"span_type": "TOOL"}, ["search", "search again"]),
        ({"span_type": SpanType.AGENT}, ["agent"]),
        ({"name": "search"}, ["search"]),
        ({"name": re.compile("search")}, ["search", "search again"]),
        ({"name": re.compile("again$")}, ["search again"]),
        ({"name": re.compile("^again")}, []),
        ({"span_id": "0000000000000002"}, ["search"]),
        ({"span_type": "TOOL", "span_id": "0000000000000001"}, []),
        ({"span_type": "TOOL", "name": "search again"}, ["search again"]),
        ({"span_type": "tool"}, []),
    ],
)
def test_spans_are_found_by_everything_that_is_asked_for(search: dict[str, Any], found: list[str]) -> None:
    trace = a_trace(
        make_span("agent", span=1, attributes={"type": "AGENT"}),
        make_span("search", span=2, parent=1, start=1, attributes={"type": "TOOL"}),
        make_span("search again", span=3, parent=1, start=2, attributes={"type": "TOOL"}),
    )

    assert names(trace.search_spans(**search)) == found


@pytest.mark.parametrize("search", [{"span_type": 5}, {"name": b"x"}, {"span_id": 7}])
def test_searching_for_something_of_the_wrong_type_says_so(search: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"Invalid type for '{next(iter(search))}'"):
        a_trace(make_span()).search_spans(**search)


def test_assessments_are_found_by_name_type_and_span() -> None:
    good = Feedback("quality", 1.0)
    told = Expectation("answer", "42", span_id="0000000000000001")
    overridden = Feedback("quality", 0.0, valid=False)
    spans = spans_from_raw(make_raw(make_span()))
    trace = Trace(spans, PlainReader(), assessments=[good, told, overridden])

    assert trace.search_assessments() == [good, told]
    assert trace.search_assessments(all=True) == [good, told, overridden]
    assert trace.search_assessments("quality") == [good]
    assert trace.search_assessments(type="expectation") == [told]
    assert trace.search_assessments(span_id="0000000000000001") == [told]
    assert trace.info.assessments == (good, told, overridden)


def test_facts_about_the_trace_come_from_its_root() -> None:
    root = make_span(start=1.5, end=4.0, attributes={"mlflow.traceTag.team": "search", "inputs": {"q": 1}})
    trace = a_trace(make_span(span=2, parent=1, start=9), root, service="shop")

    assert trace.info.trace_id == trace.trace_id == f"{1:032x}"
    assert (trace.info.request_time, trace.info.execution_duration) == (EPOCH_NS // 1_000_000 + 1500, 2500)
    assert (trace.info.timestamp_ms, trace.info.execution_time_ms) == (trace.info.request_time, 2500)
    assert trace.info.tags == {"team": "search"}
    assert trace.service_name == "shop"
    assert (trace.inputs, trace.outputs) == ({"q": 1}, None)
    assert (trace.data.request, trace.data.response) == ('{"q": 1}', None)


def test_outputs_that_are_none_are_not_missing() -> None:
    trace = a_trace(make_span(attributes={"outputs": None}))

    assert trace.outputs is None
    assert trace.read("outputs") is None
    assert trace.data.response == "null"
    assert trace.read("inputs") is MISSING
    assert not MISSING


@pytest.mark.parametrize(
    ("spans", "root"),
    [
        ([make_span("orphan", span=1, parent=9), make_span("root", span=2, start=5)], "root"),
        (
            [make_span("orphan", span=1, parent=9), make_span("local", span=2, parent=8, start=5, remote_parent=True)],
            "local",
        ),
        ([make_span("later", span=1, parent=9, start=5), make_span("earlier", span=2, parent=8)], "earlier"),
    ],
    ids=["root", "local root", "earliest orphan"],
)
def test_the_root_is_the_real_one_else_the_local_one_else_the_earliest_orphan(
    spans: list[SpanMessage], root: str
) -> None:
    for order in permutations(spans):
        found = a_trace(*order).root
        assert found is not None
        assert found.name == root


def test_a_trace_without_spans_can_be_looked_at() -> None:
    trace = a_trace()

    assert (trace.root, trace.spans, trace.trace_id, trace.is_complete) == (None, [], "", False)
    assert (trace.info.state, trace.data.request, trace.service_name) == ("IN_PROGRESS", None, None)
    assert trace.span_types == frozenset()
    assert Trace.from_dict(trace.to_dict(), PlainReader()).spans == []


def test_whether_a_trace_is_complete_is_what_the_assembler_said_or_what_the_spans_say() -> None:
    spans = [make_span(span=1), make_span(span=2, parent=1)]

    assert a_trace(*spans).is_complete
    assert not a_trace(spans[1]).is_complete
    assert not a_trace(*spans, make_span(span=3, parent=9)).is_complete
    assert not Trace(spans_from_raw(make_raw(*spans)), PlainReader(), is_complete=False).is_complete


def test_our_own_evaluation_spans_are_apart_from_the_spans() -> None:
    request = [*make_raw(make_span("app")), *make_raw(make_span("evaluation x", span=2, parent=1), scope="otel_scorer")]

    trace = Trace(spans_from_raw(request), PlainReader())

    assert names(trace.spans) == ["app"]
    assert names(trace.own_spans) == ["evaluation x"]
    assert trace.search_spans(name="evaluation x") == []


def test_a8_of_two_roots_the_earlier_is_the_root_of_the_trace() -> None:
    for order in permutations([make_span("first", span=7), make_span("second", span=3, start=1)]):
        trace = a_trace(*order)
        assert trace.root is not None
        assert (trace.root.name, trace.root_count) == ("first", 2)
        assert outline(trace) == [("first", 0), ("second", 0)]


def test_a11_a_span_whose_parent_never_came_is_a_head_of_its_own() -> None:
    trace = a_trace(
        make_span("root"), make_span("orphan", span=2, parent=9), make_span("below it", span=3, parent=2, start=1)
    )

    assert (trace.missing_parent_count, trace.is_complete) == (1, False)
    assert names(trace.tree.heads) == ["root", "orphan"]
    assert outline(trace) == [("root", 0), ("orphan", 0), ("below it", 1)]


def test_a11_spans_below_one_missing_parent_miss_one_parent() -> None:
    trace = a_trace(make_span(), make_span(span=2, parent=9), make_span(span=3, parent=9), make_span(span=4, parent=8))

    assert trace.missing_parent_count == 2


def test_a12_spans_that_are_each_others_parents_are_both_there() -> None:
    spans = [make_span("a", span=2, parent=3), make_span("b", span=3, parent=2, start=1), make_span("root", span=1)]

    for order in permutations(spans):
        trace = a_trace(*order)
        assert outline(trace) == [("root", 0), ("a", 0), ("b", 1)]
        assert names(trace.spans) == ["root", "a", "b"]


def test_a12_a_cycle_of_ten_thousand_spans_is_cut_in_no_time() -> None:
    number = 10_000
    spans = [make_span(span=i + 1, parent=(i + 1) % number + 1, start=i) for i in range(number)]
    trace = a_trace(*spans)

    began = perf_counter()
    walked = trace.tree.walk()

    assert perf_counter() - began < 5
    assert len(walked) == number
    assert walked[-1][1] == number - 1


def test_a13_a_span_that_is_its_own_parent_is_a_head() -> None:
    trace = a_trace(make_span("root"), make_span("self", span=2, parent=2), make_span("child", span=3, parent=2))

    assert outline(trace) == [("root", 0), ("self", 0), ("child", 1)]
    [own_parent] = trace.search_spans(name="self")
    assert own_parent.parent is None


def test_a14_spans_of_two_services_are_one_trace_and_keep_their_resources() -> None:
    spans = [
        *make_raw(make_span("request"), service="web"),
        *make_raw(make_span("query", span=2, parent=1), service="db"),
    ]

    trace = Trace(spans_from_raw(spans), PlainReader())

    assert [(span.name, span.service_name) for span in trace.spans] == [("request", "web"), ("query", "db")]
    assert trace.service_name == "web"


def test_a15_client_and_server_that_share_an_id_are_both_there_and_what_is_below_hangs_on_the_server() -> None:
    spans = [
        make_span("root", span=1),
        make_span("client", span=2, parent=1, kind="CLIENT"),
        make_span("server", span=2, parent=1, kind="SERVER"),
        make_span("below", span=3, parent=2),
    ]

    for order in permutations(spans):
        assert outline(a_trace(*order)) == [("root", 0), ("client", 1), ("server", 2), ("below", 3)]


def test_a15_spans_of_any_kinds_that_share_an_id_make_the_same_tree_in_any_order() -> None:
    spans = [
        make_span("root", span=1),
        make_span("consumer", span=2, parent=1, kind="CONSUMER", start=2),
        make_span("producer", span=2, parent=1, kind="PRODUCER", start=1),
        make_span("internal", span=2, parent=1, start=3),
        make_span("below", span=3, parent=2, start=4),
    ]

    outlines = {tuple(outline(a_trace(*order))) for order in permutations(spans)}

    assert len(outlines) == 1
    assert {name for name, _ in outlines.pop()} == {"root", "consumer", "producer", "internal", "below"}


def test_a18_a_child_outside_the_times_of_its_parent_stays_its_child() -> None:
    for order in permutations(
        [
            make_span("parent", span=1, start=10, end=12),
            make_span("child", span=2, parent=1, start=5, end=22),
            make_span("other", span=3, parent=1, start=11),
        ]
    ):
        trace = a_trace(*order)
        assert outline(trace) == [("parent", 0), ("child", 1), ("other", 1)]
        assert names(trace.spans) == ["parent", "child", "other"]


@pytest.mark.parametrize(
    ("start", "end", "duration"),
    [(0, 0, 0), (0, 2**64 - 1, 2**64 - 1), (2**64 - 1, 2**64 - 1, 0), (5_000_000, 3_000_000, 0)],
    ids=["1970", "from 1970 to the end of time", "2554", "ends before it starts"],
)
def test_a19_no_time_is_too_odd_and_no_duration_is_negative(start: int, end: int, duration: int) -> None:
    message = make_span()
    message.start_time_unix_nano, message.end_time_unix_nano = start, end

    trace = a_trace(message)

    assert trace.spans[0].duration_ns == duration
    assert trace.spans[0].has_odd_times
    assert (trace.info.request_time, trace.info.execution_duration) == (start // 1_000_000, duration // 1_000_000)
    assert Trace.from_dict(trace.to_dict(), PlainReader()).spans[0].end_time_ns == end


@pytest.mark.parametrize("lasted", [0, 1, 86_400 * 10**9])
def test_a19_usual_times_are_not_called_odd(lasted: int) -> None:
    message = make_span()
    message.start_time_unix_nano = 1_795_307_909 * 10**9
    message.end_time_unix_nano = message.start_time_unix_nano + lasted

    assert not a_trace(message).spans[0].has_odd_times


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8), st.integers(0, 3), st.booleans()), max_size=8),
    st.integers(0, 2**32),
)
def test_every_span_is_in_the_tree_once_whatever_the_ids_and_in_any_order(
    shapes: list[tuple[int, int, int, bool]], seed: int
) -> None:
    kinds: list[Any] = ["CLIENT", "SERVER"]
    unique = {(span, is_server): (parent, start) for span, parent, start, is_server in shapes}
    spans = [
        make_span(f"{span} {kinds[is_server]}", span=span, parent=parent or None, start=start, kind=kinds[is_server])
        for (span, is_server), (parent, start) in unique.items()
    ]
    shuffled = random.Random(seed).sample(spans, len(spans))

    first, second = a_trace(*spans), a_trace(*shuffled)

    assert sorted(name for name, _ in outline(first)) == sorted(span.name for span in spans)
    assert outline(first) == outline(second)
    assert names(first.spans) == names(second.spans)


def test_a_chain_deeper_than_the_recursion_limit_can_be_walked() -> None:
    trace = a_trace(*(make_span(span=depth, parent=depth - 1 or None, start=depth) for depth in range(1, 3001)))

    assert outline(trace)[-1] == ("work", 2999)
    assert len(trace.to_dict()["data"]["spans"]) == 3000


def test_nothing_of_a_span_is_read_before_somebody_looks() -> None:
    garbage = RawSpan(b"no span", ScopeRef.of(b"", b""), b"t" * 16, b"s" * 8, None, False)

    reader = PlainReader()
    trace = Trace(spans_from_raw([garbage]), reader, close_reason="idle", is_complete=True)

    assert (trace.close_reason, trace.is_complete, reader.asked) == ("idle", True, [])
    with pytest.raises(DecodeError):
        _ = trace.spans[0].name


def test_the_reader_is_asked_once_for_each_thing() -> None:
    reader = PlainReader()
    trace = make_trace(make_span("s", attributes={"type": "TOOL"}), reader=reader)

    for _ in range(3):
        assert trace.search_spans(span_type="TOOL")
        assert trace.spans[0].inputs is None

    assert reader.asked == [("s", "span_type"), ("s", "inputs")]


def test_a_span_that_is_in_no_trace_says_that_it_cannot_know_what_it_means() -> None:
    [span] = spans_from_raw(make_raw(make_span("alone")))

    assert (span.name, span.parent, span.children) == ("alone", None, ())
    with pytest.raises(RuntimeError, match="belongs to no trace"):
        _ = span.span_type


def as_read(trace: Trace) -> list[tuple[Any, ...]]:
    return [
        (
            span.trace_id,
            span.span_id,
            span.parent_id,
            span.name,
            span.kind,
            span.start_time_ns,
            span.end_time_ns,
            span.status,
            span.is_local_root,
            span.attributes,
            span.events,
            span.links,
            span.resource,
            span.scope,
            span.logs,
        )
        for span in [*trace.spans, *trace.own_spans]
    ]


@given(st.lists(span_messages(), min_size=1, max_size=2))
def test_a_trace_survives_the_way_through_json(messages: list[SpanMessage]) -> None:
    trace = a_trace(*messages, close_reason="root_quiet")

    back = Trace.from_dict(json.loads(trace.to_json()), PlainReader())

    assert as_read(back) == as_read(trace)
    assert back.to_dict() == trace.to_dict()
    assert (back.close_reason, back.is_complete, back.revision) == ("root_quiet", trace.is_complete, 1)


def test_assessments_logs_and_our_own_spans_survive_the_way_through_json() -> None:
    spans = spans_from_raw([*make_raw(make_span()), *make_raw(make_span("own", span=2, parent=1), scope="otel_scorer")])
    spans[0].logs = (LogRecord("gen_ai.choice", {"text": b"\x00"}, {"n": 1}, 5),)
    assessments: list[Feedback | Expectation] = [
        Feedback("quality", True, rationale="fine"),
        Expectation("answer", {"n": 1}),
    ]
    trace = Trace(spans, PlainReader(), is_complete=False, revision=3, assessments=assessments)

    back = Trace.from_dict(json.loads(trace.to_json(pretty=True)), PlainReader())

    assert back.spans[0].logs == spans[0].logs
    assert names(back.own_spans) == ["own"]
    assert (back.is_complete, back.revision) == (False, 3)
    assert back.search_assessments() == assessments


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '{"info": {}}', '{"info": {}, "data": {"spans": [{}]}}'])
def test_what_is_no_trace_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"Not a trace|Expecting"):
        Trace.from_json(text)


def test_a_trace_from_json_is_read_with_all_dialects_unless_told_otherwise() -> None:
    text = a_trace(make_span(attributes={"openinference.span.kind": "TOOL"})).to_json()

    assert Trace.from_json(text).spans[0].span_type == "TOOL"
    assert Trace.from_dict(json.loads(text), PlainReader()).spans[0].span_type == "UNKNOWN"


def test_the_kind_of_a_span_is_not_its_type() -> None:
    message = make_span(kind="SERVER")
    [span] = a_trace(message).spans
    assert (span.kind, span.span_type) == (SpanKind.SERVER, SpanType.UNKNOWN)

    message.kind = 77  # type: ignore[assignment]  # what a later OTLP might send
    [span] = a_trace(message).spans
    assert span.kind is SpanKind.UNSPECIFIED


def test_the_same_spans_in_two_requests_are_the_same_trace() -> None:
    spans = [make_span("root"), make_span("child", span=2, parent=1)]

    assert a_trace(*spans).to_dict() == a_trace(*reversed(spans)).to_dict()
    assert make_request(*spans) != make_request(*reversed(spans))


def test_a_trace_that_was_let_go_works_as_long_as_somebody_holds_it_and_is_freed_with_them() -> None:
    trace = make_trace(make_span("root"), make_span("child", span=2, parent=1))
    watch = weakref.ref(trace)

    trace.let_go()

    assert [span.parent for span in trace.spans] == [None, trace.root]
    [_, child] = trace.spans
    gc.disable()
    try:
        del trace
        assert watch() is None
    finally:
        gc.enable()
    assert child.span_type == "UNKNOWN"
    with pytest.raises(RuntimeError, match="hold on to the trace"):
        _ = child.parent


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 7), st.integers(0, 3), st.sampled_from(KINDS)),
        max_size=8,
    )
)
def test_what_is_linked_in_one_go_is_linked_as_any_other_tree(
    drawn: list[tuple[int, int, int, Literal["CLIENT", "SERVER"]]],
) -> None:
    spans = [
        make_span(f"{number}", span=span, parent=parent or None, start=start, kind=kind)
        for number, (span, parent, start, kind) in enumerate(drawn)
    ]
    trace = a_trace(*spans)

    def seen() -> tuple[object, ...]:
        parents = [(span.name, None if span.parent is None else span.parent.name) for span in trace.spans]
        return parents, outline(trace), names(trace.tree.heads), [names(span.children) for span in trace.spans]

    found = seen()
    trace.forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tree, "_link_in_order", lambda tree: False)
        assert seen() == found


def test_a_trace_that_forgot_what_was_decoded_reads_the_same_to_who_is_looking_at_it() -> None:
    trace = a_trace(
        make_span("root", attributes={"kind": "AGENT"}), make_span("child", attributes={"a": 1}, span=2, parent=1)
    )
    before, spans, child = trace.to_dict(), trace.spans, trace.spans[1]
    attributes = child.attributes

    trace.forget()

    assert attributes["a"] == 1
    assert child.parent is spans[0]
    assert trace.spans == spans
    assert (trace.to_dict(), trace.attribute_keys) == (before, frozenset({"a", "kind"}))


def test_spans_that_are_no_bytes_forget_only_what_was_made_of_them() -> None:
    trace = Trace.from_dict(a_trace(make_span("root", attributes={"a": 1})).to_dict(), PlainReader())
    before = trace.to_dict()

    trace.forget()

    assert trace.to_dict() == before


def test_spans_of_one_scope_share_what_is_decoded_of_it_across_traces_and_few_readers() -> None:
    [first], [second] = (spans_from_raw(make_raw(make_span(trace=number))) for number in (1, 2))
    assert first.resource is second.resource

    for number in range(20):
        first.shared[number] = "what a reader noted"
    [third] = spans_from_raw(make_raw(make_span(trace=3)))

    assert third.shared == {}
    assert third.resource == first.resource
