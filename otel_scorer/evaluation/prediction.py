"""
Outputs and traces made by the user's `predict_fn`, one call per row, under tracing of our own.

Each call runs below a root span of a provider that belongs to this module. Spans that the function makes inherit it as
their parent, with whatever provider: those of the global provider are seen too, by a processor that is added to it once
and does nothing outside of such calls. Where the application has set up no provider, one is installed, since without it
OpenTelemetry's API would make no spans at all.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, cast
from weakref import WeakSet

from opentelemetry import context as context_api
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import ProxyTracerProvider, Status, StatusCode

from otel_scorer.dialects import default_reader
from otel_scorer.evaluation.row_traces import INPUTS, OUTPUTS
from otel_scorer.model.otlp_attributes import utf8_text
from otel_scorer.model.read_only import copied
from otel_scorer.model.sdk_span import spans_from_sdk
from otel_scorer.model.trace import MISSING, Trace
from otel_scorer.model.trace_bytes import spans_as_bytes, trace_from_bytes
from otel_scorer.stores.trace_entries import as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from otel_scorer.evaluation.items import Item

__all__ = ["predictions"]

logger = logging.getLogger(__name__)

# Spans of traces that are being made, by trace id. A trace is entered by who begins it and taken out by the same.
_captured: dict[int, list[ReadableSpan]] = {}
_lock: Final = threading.Lock()
_watched: Final[WeakSet[TracerProvider]] = WeakSet()
_AHEAD: Final = 2


class _Capture(SpanProcessor):
    """Keeps the spans of the traces that are being made; others cost one look-up."""

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        spans = None if context is None else _captured.get(context.trace_id)
        if spans is not None:
            spans.append(span)


def predictions(items: Iterable[Item], predict_fn: Callable[..., Any], *, concurrency: int = 10) -> Generator[Item]:
    """
    Yield the items in their order, with the outputs and the trace of a call of `predict_fn(**inputs)`.

    What a call raises is kept with its item (`Item.error`), which then has no outputs, and as an error in the trace.

    Args:
        items: What to call it with; taken as they are needed. One that has a problem is passed on as it is.
        predict_fn: A function, or a coroutine function.
        concurrency: Calls at the same time.
    """
    tracer = _tracer()
    is_async = inspect.iscoroutinefunction(inspect.unwrap(predict_fn)) or inspect.iscoroutinefunction(
        getattr(predict_fn, "__call__", None)  # noqa: B004 - its code, not whether it has any
    )
    runner = _OnLoop(concurrency) if is_async else _OnThreads(concurrency)
    waiting: deque[tuple[Item, Future[None] | None]] = deque()
    try:
        for item in items:
            call = _Call(item, predict_fn, tracer)
            waiting.append((item, None if item.problem is not None or not call.is_possible else runner.submit(call)))
            while len(waiting) >= concurrency * _AHEAD or (waiting and _is_done(waiting[0][1])):
                yield _settled(*waiting.popleft())
        while waiting:
            yield _settled(*waiting.popleft())
    finally:
        for _, future in waiting:
            if future is not None:
                future.cancel()
        runner.close()


def _is_done(future: Future[None] | None) -> bool:
    return future is None or future.done()


def _settled(item: Item, future: Future[None] | None) -> Item:
    if future is not None:
        future.result()
    return item


class _Call:
    """One call of the user's function."""

    def __init__(self, item: Item, function: Callable[..., Any], tracer: api.Tracer) -> None:
        self._item = item
        self._function = function
        self._tracer = tracer
        self.is_possible = isinstance(item.inputs, Mapping)
        if not self.is_possible and item.problem is None:
            item.problem = "`inputs` must be a dict: predict_fn is called with its keys as arguments"

    def run(self) -> None:
        """Call a function."""
        with _Recorded(self._item, self._function, self._tracer) as recorded:
            result = self._function(**copied(self._item.inputs))
            if inspect.isawaitable(result):
                result = asyncio.run(_awaited(result))
            recorded.finish(result)

    async def run_async(self) -> None:
        """Call a coroutine function."""
        with _Recorded(self._item, self._function, self._tracer) as recorded:
            recorded.finish(await self._function(**copied(self._item.inputs)))


async def _awaited(result: Any) -> Any:
    return await result


class _Recorded:
    """The root span of a call, and what becomes of its item."""

    def __init__(self, item: Item, function: Callable[..., Any], tracer: api.Tracer) -> None:
        self._item = item
        name = getattr(function, "__name__", None) or type(function).__name__
        # Not below whatever span is current here: the row is a trace of its own.
        self._span = tracer.start_span(name, context=Context(), attributes={INPUTS: as_json(item.inputs)})
        self._trace_id = self._span.get_span_context().trace_id
        for key, value in item.tags.items():
            self._span.set_attribute(utf8_text(f"mlflow.traceTag.{key}"), utf8_text(str(value)))
        self._outputs: list[Any] = []
        self._token: Any = None

    def __enter__(self) -> Self:
        with _lock:
            _captured[self._trace_id] = []
        self._token = context_api.attach(api.set_span_in_context(self._span, Context()))
        return self

    def finish(self, outputs: Any) -> None:
        """Keep what the function returned."""
        self._outputs = [outputs]
        self._span.set_attribute(OUTPUTS, as_json(outputs))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        with suppress(ValueError):  # the function has changed the context and not changed it back
            context_api.detach(self._token)
        item = self._item
        # What the row says about an earlier answer is not what this call would have answered.
        item.outputs = MISSING
        if error is not None:
            item.error = f"{type(error).__name__}: {error}"
            self._span.record_exception(error)
            self._span.set_status(Status(StatusCode.ERROR, utf8_text(item.error)))
            self._span.set_attribute("error.type", type(error).__name__)
        elif self._outputs:
            item.outputs = copied(self._outputs[0])
        self._span.end()
        with _lock:
            spans = _captured.pop(self._trace_id)
        item.trace, item.is_given = _as_trace(spans), False
        # A SystemExit of the function is its failure; Ctrl-C and cancelling are meant for us.
        return error is not None and not isinstance(error, KeyboardInterrupt | GeneratorExit | asyncio.CancelledError)


def _as_trace(spans: Sequence[ReadableSpan]) -> Trace:
    """Return spans of the SDK as a trace of OTLP spans, as it would come over the wire."""
    if all(_can_be_encoded(span) for span in spans):
        data = encode_spans(spans).SerializeToString()
    else:
        data = spans_as_bytes(Trace(spans_from_sdk(spans), default_reader()))
    return trace_from_bytes(data, b"", default_reader(), close_reason="all_closed")


def _can_be_encoded(span: ReadableSpan) -> bool:
    """Tell whether UTF-8 can carry all text of a span: the SDK takes any, and its encoder fails."""
    texts: list[object] = [span.name, span.status.description, *(event.name for event in span.events)]
    of_events = [event.attributes for event in span.events]
    for attributes in (span.attributes, *of_events, *(link.attributes for link in span.links)):
        for key, value in (attributes or {}).items():
            texts.append(key)
            texts += value if isinstance(value, tuple) else (value,)
    return all(text.isascii() or utf8_text(text) == text for text in texts if isinstance(text, str))


class _OnThreads:
    """Calls functions on threads."""

    def __init__(self, concurrency: int) -> None:
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="otel-scorer-predict")

    def submit(self, call: _Call) -> Future[None]:
        """Have a call made; the caller's context variables are there, changes to them stay in the call."""
        return self._pool.submit(contextvars.copy_context().run, call.run)

    def close(self) -> None:
        """Wait for what runs, begin nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class _OnLoop:
    """Calls coroutine functions on an event loop of its own."""

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="otel-scorer-predict", daemon=True)
        self._thread.start()

    def submit(self, call: _Call) -> Future[None]:
        """Have a call made."""
        return asyncio.run_coroutine_threadsafe(self._run(call), self._loop)

    def close(self) -> None:
        """Cancel what runs and end the loop."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _run(self, call: _Call) -> None:
        async with self._slots:
            await call.run_async()

    @staticmethod
    async def _end() -> None:
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _tracer() -> api.Tracer:
    """Return what makes the root spans, and see to it that the spans below them are seen."""
    with _lock:
        if isinstance(api.get_tracer_provider(), ProxyTracerProvider):
            api.set_tracer_provider(TracerProvider())
            logger.info("No tracer provider was set up: evaluate() has installed one, so that predict_fn can be traced")
        application = api.get_tracer_provider()
        resource = None
        if isinstance(application, TracerProvider):
            resource = application.resource
            if application not in _watched:
                application.add_span_processor(_Capture())
                _watched.add(application)
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, span_limits=_no_limits(), shutdown_on_exit=False)
    provider.add_span_processor(_Capture())
    return provider.get_tracer("otel_scorer.evaluate")


def _no_limits() -> SpanLimits:
    """Return limits that the environment cannot lower: an input that is cut off cannot be read back."""
    unset = cast("int", SpanLimits.UNSET)
    return SpanLimits(max_attribute_length=unset, max_span_attribute_length=unset)
