"""What is not touched leaves as it came, unknown fields included; what is enriched keeps all it had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.e2e.sidecar import Sidecar, id_of
from tests.e2e.sink import Sink, plain

from otel_scorer.testing import make_span

FORWARDING = {
    "passthrough": ("evaluation_span",),
    "hold_root": ("attributes", "events"),
    "hold_trace": ("attributes", "events", "evaluation_span"),
}


def field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field of fewer than 128 bytes times 128."""
    tag, size = number << 3 | 2, len(payload)
    head = bytes([tag]) if tag < 0x80 else bytes([tag & 0x7F | 0x80, tag >> 7])
    return head + (bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])) + payload


UNKNOWN = field(300, b"from the future")


def span_bytes(span: Span) -> bytes:
    """Encode a span in an order that no library writes, with unknown fields at every level below it."""
    known = span.SerializeToString()
    event = field(11, field(2, b"event") + UNKNOWN)
    link = field(13, field(1, b"L" * 16) + field(2, b"l" * 8) + UNKNOWN)
    attribute = field(9, field(1, b"key") + field(2, field(1, b"value") + UNKNOWN) + UNKNOWN)
    status = field(15, field(2, b"said") + UNKNOWN)
    return UNKNOWN + event + status + known + attribute + link + field(301, b"")


def request_of(*spans: bytes, service: bytes) -> bytes:
    """Encode a request with unknown fields in every message, the spans before their scope, the scopes before theirs."""
    name = field(1, field(1, b"service.name") + field(2, field(1, service)))
    scope = (
        b"".join(field(2, span) for span in spans) + UNKNOWN + field(1, field(1, b"lib") + UNKNOWN) + field(3, b"s://1")
    )
    return UNKNOWN + field(1, field(2, scope) + field(3, b"s://2") + UNKNOWN + field(1, name + UNKNOWN))


@pytest.mark.parametrize("forwarding", FORWARDING)
def test_spans_leave_with_the_bytes_they_came_with(
    forwarding: str, own_sink: Sink, start: Callable[..., Sidecar]
) -> None:
    emit = FORWARDING[forwarding]
    sidecar = start(
        *("--export", own_sink.grpc, "--scorers", "latency", "tool_errors", "--root-grace", "0.3"),
        *("--forwarding", forwarding, "--emit", *emit),
    )
    root = span_bytes(make_span("root", trace=5, span=1, attributes={"otel_scorer.latency.value": "old"}))
    child = span_bytes(make_span("child", trace=5, span=2, parent=1))
    other = span_bytes(make_span("other", trace=6, span=1))

    sidecar.send(request_of(child, other, service=b"one"))
    sidecar.send(request_of(root, service=b"two"))

    own_sink.wait_for_spans(3, id_of(5), id_of(6))
    assert sidecar.stop() == 0
    found = {Span.FromString(span.data).name: span for span in own_sink.raw_of(id_of(5), id_of(6))}
    assert len(own_sink.raw_of(id_of(5), id_of(6))) == 3
    assert found["child"].data == child
    for name, service in (("root", b"two"), ("child", b"one"), ("other", b"one")):
        original = request_of(b"", service=service)
        assert (
            found[name].scope.resource in original.replace(field(2, b""), b"") or UNKNOWN in found[name].scope.resource
        )
        assert found[name].scope.resource.count(UNKNOWN) == 2
        assert found[name].scope.scope.count(UNKNOWN) == 2
        assert service in found[name].scope.resource
        assert b"s://2" in found[name].scope.resource
        assert b"s://1" in found[name].scope.scope
    if "attributes" not in emit:
        assert found["root"].data == root
        assert found["other"].data == other
    else:
        assert found["other"].data.startswith(other)
        enriched(found["other"].data, other)
        enriched(found["root"].data, root)
    expected = {"latency": 2, "tool_errors": 2} if "evaluation_span" in emit else {}
    assert Counter(own_sink.score_names()) == expected


def enriched(data: bytes, original: bytes) -> None:
    """Assert that a span has all it had, unknown fields too, and its verdicts, no key twice."""
    before, after = Span.FromString(original), Span.FromString(data)
    keys = [pair.key for pair in after.attributes]
    assert len(keys) == len(set(keys))
    added = {pair.key: plain(pair.value) for pair in after.attributes if pair.key.startswith("otel_scorer.")}
    assert added["otel_scorer.latency.value"] == 1.0
    assert added["otel_scorer.tool_errors.value"] is True
    assert added["otel_scorer.tool_errors.label"] == "pass"
    assert [event.name for event in after.events] == ["event", *2 * ["gen_ai.evaluation.result"]]
    assert data.count(UNKNOWN) == original.count(UNKNOWN)
    for message in (before, after):
        del message.events[1:]
        kept = [pair for pair in message.attributes if not pair.key.startswith("otel_scorer.")]
        del message.attributes[:]
        message.attributes.extend(kept)
    assert before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)
