"""
Requests with traces of an agent, as many as wanted: encoded once, then only their ids are changed.

Each trace is a root, model calls and tool calls, about 1 kB a span, in two requests: what the root waits for comes
first, as exporters send it. A tool call fails now and then.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from otel_scorer.testing import make_request, make_span

__all__ = ["SPANS_PER_TRACE", "Batch", "make_batches", "places_of"]

SPANS_PER_TRACE = 8
_TRACES = 128  # of one block: two requests of 512 spans each
_TEXT = 330  # characters of each text: two of them in a span
_FAILING = 0.06
# Ids that are found again in encoded requests, to put others in their place.
_TRACE = 0xA1B2_C3D4 << 96
_SPAN = 0x5EED << 48
_WORDS = ("order", "refund", "customer", "invoice", "shipment", "status", "policy", "search", "answer", "weather")
_TOOLS = ("search_orders", "get_weather", "lookup_policy", "send_email")


@dataclass(frozen=True, slots=True)
class Batch:
    """
    A request.

    Attributes:
        data: Its bytes.
        spans: How many it has.
        ended: The ids of traces whose last span is in it.
    """

    data: bytes
    spans: int
    ended: tuple[bytes, ...]


def make_batches(traces: int, seed: int = 1) -> list[Batch]:
    """
    Return requests with so many traces, rounded up to whole blocks.

    Args:
        traces: How many.
        seed: Traces of different seeds have different ids.
    """
    parts = [_Part(list(range(1, 1 + SPANS_PER_TRACE // 2))), _Part([*range(1 + SPANS_PER_TRACE // 2, 8), 0])]
    return [part.with_ids((seed << 40) + block * _TRACES) for block in range(-(-traces // _TRACES)) for part in parts]


class _Part:
    """One of the requests that a block of traces comes in: these spans of each."""

    def __init__(self, numbers: list[int]) -> None:
        choose = random.Random(7)
        shapes = [(trace, number) for number in numbers for trace in range(_TRACES)]
        self._has_root = 0 in numbers
        self._data = bytearray(make_request(*(_span(trace, number, choose) for trace, number in shapes)))
        self._traces = [list(places_of(self._data, (_TRACE + trace).to_bytes(16, "big"))) for trace in range(_TRACES)]
        ids = {(trace, number) for trace, number in shapes} | {(trace, 0) for trace in range(_TRACES)}
        self._spans = [
            (trace * SPANS_PER_TRACE + number, list(places_of(self._data, _span_id(trace, number))))
            for trace, number in ids
        ]
        self._size = len(shapes)

    def with_ids(self, first: int) -> Batch:
        """Return the request with the traces numbered from `first`."""
        for trace, places in enumerate(self._traces, start=first + 1):
            for place in places:
                self._data[place : place + 16] = trace.to_bytes(16, "big")
        for span, places in self._spans:
            for place in places:
                self._data[place : place + 8] = (first * SPANS_PER_TRACE + span + 1).to_bytes(8, "big")
        ended = range(first + 1, first + 1 + _TRACES) if self._has_root else ()
        return Batch(bytes(self._data), self._size, tuple(trace.to_bytes(16, "big") for trace in ended))


def _span(trace: int, number: int, choose: random.Random) -> SpanMessage:
    begun = number * 0.15
    if number == 0:
        name, said = "invoke_agent support", {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "support"}
    elif number % 2:
        name, said = "chat gpt-4o-mini", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
    else:
        tool = choose.choice(_TOOLS)
        name, said = f"execute_tool {tool}", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": tool}
    if number % 2 or number == 0:
        said["gen_ai.input.messages"] = _message("user", choose)
        said["gen_ai.output.messages"] = _message("assistant", choose)
    else:
        said["gen_ai.tool.call.id"] = f"call_{choose.getrandbits(64):016x}"
        said["gen_ai.tool.call.arguments"] = json.dumps({"query": _text(choose), "limit": choose.randrange(9)})
        said["gen_ai.tool.call.result"] = json.dumps({"found": _text(choose)})
    has_failed = name.startswith("execute_tool") and choose.random() < _FAILING
    return make_span(
        name,
        trace=_TRACE + trace,
        span=_SPAN + trace * SPANS_PER_TRACE + number,
        parent=None if number == 0 else _SPAN + trace * SPANS_PER_TRACE,
        start=begun,
        end=begun + choose.random() / 10 + 0.01,
        status="ERROR" if has_failed else "OK",
        message="upstream did not answer" if has_failed else "",
        attributes=said,
    )


def _message(role: str, choose: random.Random) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": _text(choose)}]}])


def _text(choose: random.Random) -> str:
    return " ".join(choose.choices(_WORDS, k=_TEXT // 6))[:_TEXT]


def _span_id(trace: int, number: int) -> bytes:
    return (_SPAN + trace * SPANS_PER_TRACE + number).to_bytes(8, "big")


def places_of(data: bytearray, value: bytes) -> Iterator[int]:
    """Yield where a value stands in encoded data."""
    place = data.find(value)
    while place >= 0:
        yield place
        place = data.find(value, place + 1)
