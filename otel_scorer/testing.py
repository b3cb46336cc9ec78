"""
For tests of scorers and of the pipeline: spans that are readable in a test, and stand-ins for clock, sink and scorers.

```python
from otel_scorer.testing import make_span, make_trace

trace = make_trace(
    make_span("agent", span=1, attributes={"gen_ai.operation.name": "invoke_agent"}),
    make_span("search", span=2, parent=1, status="ERROR", attributes={"gen_ai.operation.name": "execute_tool"}),
)
assert my_scorer(trace=trace).value is False
```
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from otel_scorer.model.decode import encode_attributes, spans_from_raw
from otel_scorer.model.trace import Trace
from otel_scorer.model.wire import LOCAL_ROOT_FLAGS, read_traces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otel_scorer.model.decision import Decision
    from otel_scorer.model.trace import AttributeValue, Reader
    from otel_scorer.model.wire import RawSpan
    from otel_scorer.pipeline.workers.jobs import Job, Result

__all__ = [
    "EPOCH_NS",
    "CollectingSink",
    "FakeBackend",
    "ManualClock",
    "make_raw",
    "make_request",
    "make_span",
    "make_trace",
    "read_spans",
]

EPOCH_NS: Final = 1_767_225_600_000_000_000
"""The time that `make_span` counts seconds from: 2026-01-01 00:00 UTC, in nanoseconds since 1970."""

_SAMPLED: Final = 0x101  # sampled, and SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK, as the SDK sends it
_WAIT_SECONDS: Final = 20.0


def make_span(
    name: str = "work",
    *,
    trace: int = 1,
    span: int = 1,
    parent: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    kind: Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"] = "INTERNAL",
    status: Literal["UNSET", "OK", "ERROR"] = "UNSET",
    message: str = "",
    attributes: Mapping[str, AttributeValue] | None = None,
    remote_parent: bool = False,
) -> SpanMessage:
    """
    Return an OTLP span; whatever else it should carry (events, links, odd times) can be set on it.

    Args:
        name: Its name.
        trace: A number that becomes the trace id.
        span: A number that becomes the span id.
        parent: The number of the parent; None for a root.
        start: Seconds after `EPOCH_NS`.
        end: Seconds after `EPOCH_NS`. Default: one second after the start.
        kind: Its kind.
        status: Its status code.
        message: Its status message.
        attributes: Its attributes.
        remote_parent: Whether the parent lives in another process, which makes the span a local root.
    """
    built = SpanMessage(
        trace_id=trace.to_bytes(16, "big"),
        span_id=span.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.to_bytes(8, "big"),
        name=name,
        kind=SpanMessage.SpanKind.Value(f"SPAN_KIND_{kind}"),
        start_time_unix_nano=_nanoseconds(start),
        end_time_unix_nano=_nanoseconds(start + 1 if end is None else end),
        flags=_SAMPLED | (LOCAL_ROOT_FLAGS if remote_parent else 0),
    )
    if status != "UNSET" or message:
        built.status.code = Status.StatusCode.Value(f"STATUS_CODE_{status}")
        built.status.message = message
    encode_attributes(built.attributes, attributes or {})
    return built


def make_request(
    *spans: SpanMessage,
    service: str = "app",
    resource: Mapping[str, AttributeValue] | None = None,
    scope: str = "app",
    schema_url: str = "",
) -> bytes:
    """
    Return an encoded ExportTraceServiceRequest. Two of them, concatenated, are one request that holds both.

    Args:
        *spans: Its spans.
        service: `service.name` of their resource.
        resource: More attributes of the resource.
        scope: Name of their instrumentation scope.
        schema_url: Schema URL of resource and scope.
    """
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add(schema_url=schema_url)
    encode_attributes(resource_spans.resource.attributes, {"service.name": service, **(resource or {})})
    scope_spans = resource_spans.scope_spans.add(schema_url=schema_url)
    scope_spans.scope.name = scope
    scope_spans.spans.extend(spans)
    return request.SerializeToString()


def make_raw(*spans: SpanMessage, service: str = "app", scope: str = "app") -> list[RawSpan]:
    """Return spans as a receiver hands them on."""
    return read_traces(make_request(*spans, service=service, scope=scope)).spans


def make_trace(
    *spans: SpanMessage, service: str = "app", close_reason: str | None = None, reader: Reader | None = None
) -> Trace:
    """
    Return a trace as scorers get it.

    Args:
        *spans: Its spans.
        service: `service.name` of their resource.
        close_reason: Why it was closed.
        reader: Tells what attributes mean. Default: the one that knows all dialects.
    """
    if reader is None:
        from otel_scorer.dialects import default_reader

        reader = default_reader()
    return Trace(spans_from_raw(make_raw(*spans, service=service)), reader, close_reason=close_reason)


def read_spans(request: bytes) -> list[SpanMessage]:
    """Return the spans of an encoded ExportTraceServiceRequest."""
    return [
        span
        for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


class ManualClock:
    """A clock that stands still until it is told to advance."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class CollectingSink:
    """
    Keeps what an engine sends on. Safe to use from many threads.

    Attributes:
        requests: Encoded requests with spans, in order.
        score_requests: Encoded requests with evaluation spans, in order.
        since: When the traces ended that these are about.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards both lists; notified when one of them grows
        self.requests: list[bytes] = []
        self.score_requests: list[bytes] = []
        self.since: list[float] = []

    def on_spans(self, data: bytes, items: int, since: Sequence[float] = ()) -> None:
        """Take a request with spans."""
        del since
        self._take(self.requests, data, items)

    def on_scores(self, data: bytes, items: int, since: Sequence[float] = ()) -> None:
        """Take a request with evaluation spans."""
        self.since += since
        self._take(self.score_requests, data, items)

    @property
    def spans(self) -> list[SpanMessage]:
        """All spans so far, in order."""
        return read_spans(b"".join(self.requests))

    @property
    def scores(self) -> list[SpanMessage]:
        """All evaluation spans so far, in order."""
        return read_spans(b"".join(self.score_requests))

    def wait_for(self, spans: int = 0, scores: int = 0, timeout: float = _WAIT_SECONDS) -> None:
        """
        Wait until at least so many spans and evaluation spans are here.

        Raises:
            TimeoutError: They are not, after `timeout` seconds.
        """
        with self._changed:
            if self._changed.wait_for(lambda: len(self.spans) >= spans and len(self.scores) >= scores, timeout):
                return
        msg = f"Waited for {spans} spans and {scores} scores, got {len(self.spans)} and {len(self.scores)}"
        raise TimeoutError(msg)

    def _take(self, requests: list[bytes], data: bytes, items: int) -> None:
        found = len(read_spans(data))
        if found != items:
            msg = f"A request with {found} spans was announced as one with {items}"
            raise ValueError(msg)
        with self._changed:
            requests.append(data)
            self._changed.notify_all()


class FakeBackend:
    """
    A scoring backend that runs nothing: the test, or a callable, makes the decisions.

    Attributes:
        jobs: Every job that it took, in order.
    """

    def __init__(
        self,
        deliver: Callable[[Iterable[Result]], None],
        *,
        answer: Callable[[Job], Iterable[Decision]] | None = None,
        capacity: int | None = None,
    ) -> None:
        """
        Say how it answers.

        Args:
            deliver: Takes results: `engine.deliver`.
            answer: Decides jobs at once. Default: they wait for `decide`.
            capacity: Jobs that it takes, ever. Default: all.
        """
        self._deliver = deliver
        self._answer = answer
        self._capacity = capacity
        self._changed = threading.Condition()  # guards `jobs`; notified when it grows
        self.jobs: list[Job] = []

    def submit(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Take jobs and return those over the capacity."""
        with self._changed:
            room = len(jobs) if self._capacity is None else max(0, self._capacity - len(self.jobs))
            taken, refused = jobs[:room], jobs[room:]
            self.jobs += taken
            self._changed.notify_all()
        if self._answer is not None:
            for job in taken:
                self.decide(job, *self._answer(job))
        return refused

    def decide(self, job: Job, *decisions: Decision, done: bool = True) -> None:
        """Deliver decisions on a job. `done`: no more will come."""
        from otel_scorer.pipeline.workers.jobs import Result

        self._deliver([Result(job.id, decisions, done)])

    def wait_for_jobs(self, number: int, timeout: float = _WAIT_SECONDS) -> list[Job]:
        """
        Wait until at least so many jobs are here and return all of them.

        Raises:
            TimeoutError: They are not, after `timeout` seconds.
        """
        with self._changed:
            if self._changed.wait_for(lambda: len(self.jobs) >= number, timeout):
                return list(self.jobs)
        msg = f"Waited for {number} jobs, got {len(self.jobs)}"
        raise TimeoutError(msg)


def _nanoseconds(seconds: float) -> int:
    return EPOCH_NS + round(seconds * 1_000_000_000)
