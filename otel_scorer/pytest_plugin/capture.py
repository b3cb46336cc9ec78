"""
Captures the spans that a test makes: from any thread or task, of the global tracer provider or a given one.

A processor cannot be removed from a provider, so each provider gets one that listens while a test captures and costs
next to nothing otherwise. Where the application has set no provider, one of ours stands in for it during the test: the
same in all tests, since tracers keep the provider that they have found.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import opentelemetry.trace as api
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from otel_scorer.dialects import default_reader
from otel_scorer.model.feedback import Expectation
from otel_scorer.model.sdk_span import spans_from_sdk
from otel_scorer.model.trace import Trace
from otel_scorer.pipeline.running.suppression import is_suppressed
from otel_scorer.pytest_plugin.assertions import assert_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from otel_scorer.reporting.report import Report
    from otel_scorer.scorers.passing import PassIf

__all__ = ["CapturedTraces", "capturing"]

_WAIT: Final = 5.0
_NO_TRACE: Final = (
    "No span was captured: the code under test made none, or by a tracer provider that was set during the test "
    "(then call otel_scorer_traces.watch(provider) first), or its sampler dropped them"
)


class _Tap(SpanProcessor):
    """Hands the spans of one provider to whoever captures."""

    def __init__(self) -> None:
        self.listener: CapturedTraces | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's interface
        listener = self.listener
        if listener is not None and not is_suppressed():
            listener.started(span)

    def on_end(self, span: ReadableSpan) -> None:
        listener = self.listener
        if listener is not None:
            listener.ended(span)


_taps: WeakKeyDictionary[TracerProvider, _Tap] = WeakKeyDictionary()
_own: list[TracerProvider] = []


class CapturedTraces:
    """
    The traces of a test. Spans that were started before, or by a scorer, do not belong to it.

    The fixture `otel_scorer_traces` is one of these.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the three below; notified when a span ends
        self._open: set[tuple[int, int]] = set()
        self._ended: dict[int, list[ReadableSpan]] = {}
        self._expectations: dict[str, Any] = {}
        self._watched: list[_Tap] = []

    @property
    def traces(self) -> list[Trace]:
        """The traces so far, in the order in which their first span ended. What is still open is not in them."""
        with self._changed:
            ended = [(trace_id, list(spans)) for trace_id, spans in self._ended.items()]
            unfinished = {trace_id for trace_id, _ in self._open}
            expected = [Expectation(name, value) for name, value in self._expectations.items()]
        return [
            Trace(
                spans_from_sdk(spans),
                default_reader(),
                close_reason=None if trace_id in unfinished else "all_closed",
                is_complete=False if trace_id in unfinished else None,
                assessments=expected,
            )
            for trace_id, spans in ended
        ]

    @property
    def trace(self) -> Trace:
        """
        The only trace.

        Raises:
            AssertionError: There is none, or more than one.
        """
        __tracebackhide__ = True
        traces = self.traces
        if len(traces) != 1:
            names = ", ".join(trace.root.name for trace in traces if trace.root is not None)
            raise AssertionError(f"Expected one trace, there are {len(traces)}: {names}" if traces else self._nothing())
        return traces[0]

    def expect(self, **expectations: Any) -> None:
        """Say what the right answers are: what scorers with the parameter `expectations` get, for every trace."""
        with self._changed:
            self._expectations.update(expectations)

    def wait(self, timeout: float = _WAIT) -> None:
        """
        Wait until all spans that were started have ended: for work that goes on in the background.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: Some have not by then.
        """
        __tracebackhide__ = True
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, timeout):
                msg = f"{len(self._open)} spans have not ended within {timeout:g} s"
                raise TimeoutError(msg)

    def clear(self) -> None:
        """Forget what was captured so far; what is open now does not belong to the test any more."""
        with self._changed:
            self._open.clear()
            self._ended.clear()

    def assert_scores(
        self,
        *scorers: Callable[..., Any] | str,
        pass_if: Mapping[str, PassIf] | None = None,
        fail_under: Mapping[str, float] | None = None,
        max_errors: int = 0,
        required: bool = True,
        timeout: float = 30.0,
    ) -> Report:
        """
        Fail unless the scorers are satisfied with all traces so far; see `otel_scorer.pytest_plugin.assert_scores`.

        Raises:
            AssertionError: They are not, or there is no trace.
        """
        __tracebackhide__ = True
        traces = self.traces
        if not traces:
            raise AssertionError(self._nothing())
        return assert_scores(
            traces,
            *scorers,
            pass_if=pass_if,
            fail_under=fail_under,
            max_errors=max_errors,
            required=required,
            timeout=timeout,
        )

    def watch(self, provider: TracerProvider) -> None:
        """
        Capture the spans of this provider too, until the test ends.

        Raises:
            TypeError: It is no provider of the OpenTelemetry SDK.
        """
        if not isinstance(provider, TracerProvider):  # pyright: ignore[reportUnnecessaryIsInstance] - anybody may call
            msg = f"{type(provider).__name__} is no TracerProvider of the OpenTelemetry SDK: its spans cannot be seen"
            raise TypeError(msg)
        tap = _taps.get(provider)
        if tap is None:
            tap = _taps[provider] = _Tap()
            provider.add_span_processor(tap)
        if tap not in self._watched:
            self._watched.append(tap)
        tap.listener = self

    def close(self) -> None:
        """Capture nothing more; what was captured stays."""
        for tap in self._watched:
            if tap.listener is self:
                tap.listener = None

    def started(self, span: Span) -> None:
        """Take note of a span that was started."""
        with self._changed:
            self._open.add(_key(span))

    def ended(self, span: ReadableSpan) -> None:
        """Take a span that has ended, if it was started here."""
        key = _key(span)
        with self._changed:
            if key in self._open:
                self._open.discard(key)
                self._ended.setdefault(key[0], []).append(span)
                self._changed.notify_all()

    def _nothing(self) -> str:
        with self._changed:
            return f"{len(self._open)} spans were started, none has ended" if self._open else _NO_TRACE


def _key(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    return (0, 0) if context is None else (context.trace_id, context.span_id)


@contextmanager
def capturing(provider: TracerProvider | None = None) -> Generator[CapturedTraces]:
    """
    Capture spans until the block ends.

    Args:
        provider: Whose. Default: the global one; where none was set, one of ours is the global one until the block
            ends.

    Raises:
        TypeError: The provider is none of the OpenTelemetry SDK.
    """
    captured = CapturedTraces()
    try:
        if provider is not None:
            captured.watch(provider)
            yield captured
        else:
            with _global_provider() as found:
                for each in {id(each): each for each in (found, *_own)}.values():
                    captured.watch(each)
                yield captured
    finally:
        captured.close()


@contextmanager
def _global_provider() -> Generator[TracerProvider]:
    found = api.get_tracer_provider()
    if not isinstance(found, api.ProxyTracerProvider):
        yield found  # type: ignore[misc]  # `watch` refuses what is no SDK's
        return
    if not _own:
        _own.append(TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False))
    # `set_tracer_provider` works once per process, and what the application sets later would be refused.
    api._TRACER_PROVIDER = _own[0]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    try:
        yield _own[0]
    finally:
        if api._TRACER_PROVIDER is _own[0]:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            api._TRACER_PROVIDER = None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
