"""Hypothesis: OTLP requests written in every way that the wire format allows, attribute values, orders of arrival."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, TypeVar

from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otel_scorer.model.decode import encode_attributes
from otel_scorer.model.trace import AttributeValue

if TYPE_CHECKING:
    from google.protobuf.message import Message

T = TypeVar("T")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
UINT64 = st.integers(0, 2**64 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)

SCALARS = st.one_of(TEXT, st.booleans(), INT64, st.floats(allow_nan=False), st.binary(max_size=8))
VALUES = st.recursive(
    st.none() | SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
"""What an OTLP attribute can hold, as Python values."""

ATTRIBUTES = st.dictionaries(TEXT, VALUES, max_size=4)
PLAIN_VALUES: list[AttributeValue] = ["", "text", True, -1, 2**63 - 1, 0.5, b"bytes", None, ["a", 1], {"k": [None]}]

# Fields that no OTLP message has: a varint, a fixed64, a fixed32 and a string, with numbers far from the known ones.
UNKNOWN_FIELDS = [b"\xc0\x3e\x07", b"\xc1\x3e12345678", b"\xc5\x3e1234", b"\xc2\x3e\x03new"]


@dataclass(frozen=True)
class WrittenSpan:
    """An encoded span, and the resource and scope messages that it was written under."""

    data: bytes
    resource: Resource
    resource_url: str
    scope: InstrumentationScope
    scope_url: str


@dataclass(frozen=True)
class WrittenRequest:
    """An encoded ExportTraceServiceRequest and the spans that are in it, in order."""

    data: bytes
    spans: list[WrittenSpan]


def length_delimited(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pieces_of(message: Message) -> list[bytes]:
    """Encode every field of a message, and every item of its repeated fields, on its own."""
    pieces: list[bytes] = []
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [None]:
            part = type(message)()
            if item is not None:
                getattr(part, field.name).append(item)
            elif field.message_type is None:
                setattr(part, field.name, value)
            else:
                getattr(part, field.name).CopyFrom(value)
            pieces.append(part.SerializeToString())
    return pieces


@st.composite
def span_messages(draw: st.DrawFn) -> Span:
    span = Span(
        trace_id=draw(st.binary(min_size=16, max_size=16).filter(any)),
        span_id=draw(st.binary(min_size=8, max_size=8).filter(any)),
        parent_span_id=draw(st.sampled_from([b"", bytes(8)]) | st.binary(min_size=8, max_size=8)),
        name=draw(TEXT),
        kind=draw(st.sampled_from(list(Span.SpanKind.values()))),
        start_time_unix_nano=draw(UINT64),
        end_time_unix_nano=draw(UINT64),
        flags=draw(st.sampled_from([0, 1, 0x101, 0x301])),
        trace_state=draw(TEXT),
        dropped_attributes_count=draw(st.integers(0, 3)),
    )
    encode_attributes(span.attributes, draw(ATTRIBUTES))
    if draw(st.booleans()):
        span.status.code = draw(st.sampled_from(list(Status.StatusCode.values())))
        span.status.message = draw(TEXT)
    if draw(st.booleans()):
        event = span.events.add(name=draw(TEXT), time_unix_nano=draw(UINT64))
        encode_attributes(event.attributes, draw(ATTRIBUTES))
    if draw(st.booleans()):
        link = span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8)
        encode_attributes(link.attributes, draw(ATTRIBUTES))
    return span


@st.composite
def requests(draw: st.DrawFn) -> WrittenRequest:
    """A request with its fields in any order, resources and scopes in several parts, unknown fields at every level."""
    # The layout comes from one seed: drawing each permutation would cost more than all that is tested with them.
    shuffle = Random(draw(st.integers(0, 2**32 - 1)))
    is_tidy = shuffle.random() < 0.5  # spans as every known encoder writes them
    resources: list[bytes] = []
    spans: list[WrittenSpan] = []
    for shape in draw(st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=3)):
        resource, resource_url = Resource(), shuffle.choice(["", "https://resource"])
        encode_attributes(resource.attributes, {key: shuffle.choice(PLAIN_VALUES) for key in ("service.name", "host")})
        pieces = [length_delimited(1, piece) for piece in pieces_of(resource)]
        # Twice the same singular field: the last one counts.
        pieces += [length_delimited(3, url.encode()) for url in ("https://old", resource_url)]
        for number in shape:
            scope = InstrumentationScope(name=shuffle.choice(["", "app", "otel_scorer"]), version=shuffle.choice("12"))
            scope_url = shuffle.choice(["", "https://scope"])
            scope_pieces = [length_delimited(1, piece) for piece in pieces_of(scope)]
            scope_pieces.append(length_delimited(3, scope_url.encode()))
            for _ in range(number):
                span = _plain_span(shuffle)
                tidy = span.SerializeToString()
                data = tidy if is_tidy else b"".join(_interleaved(shuffle, pieces_of(span)))
                spans.append(WrittenSpan(data, resource, resource_url, scope, scope_url))
                scope_pieces.append(length_delimited(2, data))
            pieces.append(length_delimited(2, b"".join(_interleaved(shuffle, scope_pieces))))
        resources.append(length_delimited(1, b"".join(_interleaved(shuffle, pieces))))
    return WrittenRequest(b"".join([*resources, *shuffle.sample(UNKNOWN_FIELDS, shuffle.randrange(2))]), spans)


def _plain_span(shuffle: Random) -> Span:
    span = Span(
        trace_id=shuffle.randbytes(15) + b"t",
        span_id=shuffle.randbytes(7) + b"s",
        parent_span_id=shuffle.choice([b"", bytes(8), b"p" * 8]),
        name=shuffle.choice(["", "chat", "x" * 200]),
        kind=shuffle.choice(list(Span.SpanKind.values())),
        start_time_unix_nano=shuffle.choice([0, 1, 2**64 - 1]),
        flags=shuffle.choice([0, 1, 0x101, 0x301]),
    )
    encode_attributes(span.attributes, {key: shuffle.choice(PLAIN_VALUES) for key in shuffle.sample("abcd", 2)})
    return span


def _interleaved(shuffle: Random, pieces: list[bytes]) -> list[bytes]:
    """Put fields in any order, unknown ones among them; those of one number keep theirs, which has a meaning."""
    by_number: dict[int, list[bytes]] = {}
    for piece in [*pieces, *shuffle.sample(UNKNOWN_FIELDS, shuffle.randrange(3))]:
        by_number.setdefault(piece[0], []).append(piece)
    turns = [number for number, same in by_number.items() for _ in same]
    shuffle.shuffle(turns)
    queues = {number: iter(same) for number, same in by_number.items()}
    return [next(queues[number]) for number in turns]


@st.composite
def batched(draw: st.DrawFn, items: list[T]) -> list[list[T]]:
    """Cut a list into consecutive batches."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(items) - 1)))))
    bounds = [0, *cuts, len(items)]
    return [items[low:high] for low, high in pairwise(bounds) if low < high]
