"""
The demo's backend: takes OTLP over gRPC, and puts traces and verdicts together from nothing but what arrived.

Receiver threads only append; the demo's main thread takes the requests out, writes them to the file and reads them.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from otel_scorer.dialects import READER
from otel_scorer.model.decode import spans_from_raw
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import Signal, read_traces
from otel_scorer.transport.grpc_receiver import GrpcReceiver

if TYPE_CHECKING:
    from otel_scorer.model.trace import AttributeValue, Span
    from otel_scorer.model.wire import RawSpan

__all__ = ["Backend", "ReceivedTraces", "Verdict", "verdict_of"]

_STOP_SECONDS: Final = 2.0


class Backend:
    """An OTLP/gRPC receiver on a free loopback port that keeps traces requests until they are taken."""

    def __init__(self) -> None:
        self._receiver = GrpcReceiver("127.0.0.1:0", self._receive)
        # Guards `_requests`; notified when one arrives.
        self._arrived = threading.Condition()
        self._requests: deque[bytes] = deque()

    def start(self) -> str:
        """Listen, and return `host:port`."""
        return self._receiver.start()

    def take(self, timeout: float) -> list[bytes]:
        """Return the requests that arrived since the last call; wait `timeout` seconds at most if there are none."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._requests, timeout)
            taken = list(self._requests)
            self._requests.clear()
        return taken

    def shutdown(self) -> None:
        """Stop listening. What arrived can still be taken."""
        self._receiver.shutdown(_STOP_SECONDS)

    def _receive(self, signal: Signal, data: bytes) -> None:
        if signal is Signal.TRACES:
            with self._arrived:
                self._requests.append(data)
                self._arrived.notify_all()


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    One verdict, as its evaluation span tells it.

    Attributes:
        span_id: Of the evaluation span.
        target_id: Of the span that it is about.
        scorer: Name of the scorer.
        name: Name of the feedback.
        value: The value in its own type; None if there is none.
        score: The value as a number, if it has one.
        label: `pass`, `fail`, or another word; None for plain numbers.
        rationale: Why, or what went wrong.
        error_type: What kind of error, if the scorer failed.
    """

    span_id: str
    target_id: str | None
    scorer: str
    name: str
    value: AttributeValue
    score: float | None
    label: str | None
    rationale: str
    error_type: str | None


def verdict_of(span: Span) -> Verdict:
    """Read an evaluation span."""

    def text(key: str) -> str | None:
        value = span.get_attribute(key)
        return None if value is None else str(value)

    score = span.get_attribute("gen_ai.evaluation.score.value")
    name = text("gen_ai.evaluation.name") or span.name
    return Verdict(
        span_id=span.span_id,
        target_id=span.parent_id,
        scorer=text("otel_scorer.scorer.name") or name,
        name=name,
        value=span.get_attribute("otel_scorer.value"),
        score=float(score) if isinstance(score, int | float) else None,
        label=text("gen_ai.evaluation.score.label"),
        rationale=text("gen_ai.evaluation.explanation") or "",
        error_type=text("error.type"),
    )


@dataclass(slots=True)
class _Open:
    spans: list[RawSpan] = field(default_factory=list["RawSpan"])
    verdicts: int = 0
    has_root: bool = False


class ReceivedTraces:
    """
    The traces of the requests that were added. A trace is whole when its root and all its verdicts are there.

    Args:
        verdicts: How many verdicts each trace gets.
    """

    def __init__(self, verdicts: int) -> None:
        self._verdicts = verdicts
        self._open: dict[bytes, _Open] = {}
        self._done: set[bytes] = set()
        self.span_count = 0
        """Spans so far, evaluation spans among them."""

    @property
    def whole(self) -> int:
        """How many traces were returned by `add`."""
        return len(self._done)

    def __len__(self) -> int:
        """Return how many traces were begun and not yet returned."""
        return len(self._open)

    def add(self, data: bytes) -> list[Trace]:
        """Add an encoded traces request, and return the traces that are whole now, in their order of arrival."""
        touched: dict[bytes, _Open] = {}
        for span in read_traces(data).spans:
            self.span_count += 1
            if span.trace_id in self._done:
                continue  # it was shown, and cannot be shown again
            trace = touched[span.trace_id] = self._open.setdefault(span.trace_id, _Open())
            trace.spans.append(span)
            trace.verdicts += span.is_own
            trace.has_root |= span.parent_id is None
        whole = [trace_id for trace_id, trace in touched.items() if trace.has_root and trace.verdicts >= self._verdicts]
        self._done.update(whole)
        return [_trace(self._open.pop(trace_id)) for trace_id in whole]

    def rest(self) -> list[Trace]:
        """Return what is left, whole or not."""
        left = [_trace(trace) for trace in self._open.values()]
        self._open.clear()
        return left


def _trace(received: _Open) -> Trace:
    trace = Trace(spans_from_raw(received.spans), READER)
    if trace.own_spans:
        attributes = trace.own_spans[0].attributes
        trace.close_reason = cast("str | None", attributes.get("otel_scorer.close_reason"))
    return trace
