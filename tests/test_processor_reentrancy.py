"""The processor is called while it is being called: by signal handlers, destructors and log handlers."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

import pytest
from opentelemetry.context import Context
from tests.instrumented_app import WAIT, App, Gate, span_count

from otel_scorer.processor import ScoringSpanProcessor

# Long enough for what is nested to wait in vain, where it has to, and be told from what hangs.
SHORT = 0.05
LONG = 120.0


def count_lines(call: Callable[[], object]) -> int:
    """Return how many lines of Python a call runs on this thread."""
    lines = 0

    def tracer(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return tracer

    sys.settrace(tracer)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines


def interrupted(call: Callable[[], object], at: int, handler: Callable[[], object]) -> bool:
    """Have a handler called before some line of a call, as a signal would; return whether that line was there."""
    lines = 0

    def tracer(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == at:
                sys.settrace(None)
                handler()
                sys.settrace(tracer)
        return tracer

    sys.settrace(tracer)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines >= at


def finishes(work: Callable[[], object]) -> bool:
    """Whether some work comes to its end, on a thread of its own that may be left behind."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LONG)
    for failure in failures:
        raise failure
    return not thread.is_alive()


class Interrupted(App):
    """An application that is interrupted at every line of what it does with the processor, once each."""

    def at_every_line(self, call: Callable[[], object], *, most: int) -> None:
        def work() -> None:
            for line in range(1, min(most, count_lines(call) * 2)):
                interrupted(call, line, self.handle)

        assert finishes(work)

    def handle(self) -> None:
        """Do what a signal handler might."""
        self.tracer.start_span("nested", context=Context()).end()
        self.processor.force_flush(int(SHORT * 1000))


@pytest.fixture
def help_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the application's threads do work of ours for every span."""
    for module in ("otel_scorer.processor", "otel_scorer.pipeline.in_app.intake"):
        monkeypatch.setattr(f"{module}.MANY_PENDING", 1)


def everything_leaves_once(app: App) -> None:
    spans = app.exported
    ids = [span.context.span_id for span in spans if span.context is not None]
    assert len(ids) == len(set(ids))
    roots = [span for span in spans if span.parent is None]
    assert all("otel_scorer.span_count.value" in (root.attributes or {}) for root in roots)


@pytest.mark.parametrize("forwarding", ["hold_root", "passthrough"])
def test_a_span_may_be_interrupted_anywhere(forwarding: str) -> None:
    app = Interrupted(span_count, forwarding=forwarding, max_queue_size=100_000)

    app.at_every_line(app.trace, most=400)

    assert app.processor.force_flush(int(WAIT * 1000))
    app.provider.shutdown()


@pytest.mark.usefixtures("help_wanted")
def test_a_thread_that_helps_may_be_interrupted_anywhere() -> None:
    app = Interrupted(span_count, max_queue_size=100_000)
    app.trace()

    app.at_every_line(lambda: app.trace(children=0), most=400)

    everything_leaves_once(app)
    app.provider.shutdown()


def test_a_flush_may_be_interrupted_anywhere_by_another_one() -> None:
    app = Interrupted(span_count, max_queue_size=100_000)
    app.trace()

    def flush() -> None:
        app.trace(children=0)
        assert app.processor.force_flush(int(WAIT * 1000))

    app.at_every_line(flush, most=400)

    everything_leaves_once(app)
    app.provider.shutdown()


def test_waiting_for_scores_may_be_interrupted_anywhere() -> None:
    app = Interrupted(span_count, max_queue_size=100_000)

    app.at_every_line(lambda: app.processor.wait_for_scores(app.trace(children=0), WAIT), most=400)

    everything_leaves_once(app)
    app.provider.shutdown()


def interrupted_first_span(line: int) -> bool:
    app = Interrupted(span_count)
    was_there = interrupted(lambda: app.trace(children=0), line, app.handle)
    everything_leaves_once(app)
    assert len(app.exporter.get_finished_spans()) == 1 + was_there
    app.provider.shutdown()
    return was_there


def interrupted_end(line: int) -> bool:
    app = Interrupted(span_count, shutdown_timeout=WAIT)
    app.trace()

    def handle() -> None:
        app.handle()
        app.processor.shutdown()

    was_there = interrupted(app.provider.shutdown, line, handle)
    assert app.exporter.names.count("root") == 1
    return was_there


@pytest.mark.parametrize("at", [interrupted_first_span, interrupted_end])
def test_the_beginning_and_the_end_may_be_interrupted_anywhere(at: Callable[[int], bool]) -> None:
    def work() -> None:
        line = 1
        while at(line):
            line += 11  # each of them is a processor of its own

    assert finishes(work)


class Meddling(logging.Handler):
    """A log handler that calls the processor whatever is logged."""

    def __init__(self, app: App) -> None:
        super().__init__()
        self.app = app
        self.calls = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.calls += 1
        if self.calls < 50:
            self.app.tracer.start_span("logged").end()
            self.app.processor.force_flush(int(SHORT * 1000))
            self.app.processor.flush_trace(1)


def test_a_log_handler_may_call_the_processor(caplog: pytest.LogCaptureFixture) -> None:
    app = App(span_count)
    app.trace()
    broken: Any = object()
    handler = Meddling(app)
    logging.getLogger("otel_scorer").addHandler(handler)
    try:
        # Cannot be taken in, which is logged on a thread of ours.
        app.processor._pipeline.engine.intake.pending.append(broken)  # noqa: SLF001
        assert finishes(lambda: (app.trace(), app.exported))
    finally:
        logging.getLogger("otel_scorer").removeHandler(handler)

    assert handler.calls
    assert app.names.count("root") == 2
    app.provider.shutdown()


def test_a_scorer_that_asks_for_its_own_verdict_is_told_at_once() -> None:
    asked: list[object] = []

    def own(trace: Any) -> bool:
        try:
            app.processor.wait_for_scores(trace.info.trace_id, LONG)
        except TimeoutError as error:
            asked.append(error)
        asked.append(app.processor.force_flush(int(LONG * 1000)))
        return True

    app = App(own)
    app.trace()

    assert app.names
    assert [type(each) for each in asked] == [TimeoutError, bool]
    assert asked[1] is False
    app.provider.shutdown()


class Beside:
    """Outlets that keep what they get."""

    needs_trace = False

    def __init__(self) -> None:
        self.verdicts: list[str] = []
        self.sinks = (self,)
        self.patience: float | None = None

    def add(self, _trace: object, _target: object, verdicts: Any) -> None:
        self.verdicts += [verdict.name for verdict in verdicts]

    def finish(self) -> None:
        pass

    def start(self) -> None:
        pass

    def flush(self, _timeout: float = 0.0) -> bool:
        return True

    def shutdown(self, timeout: float) -> bool:
        self.patience = timeout
        return True


def test_nobody_waits_for_outlets_to_open_and_no_verdict_is_lost_meanwhile() -> None:
    gate, beside = Gate(), Beside()

    def make(kinds: Collection[str]) -> Any:
        assert set(kinds) == {"logs"}
        gate.entered.set()
        assert gate.opened.wait(LONG)
        return beside

    app = App(span_count, emit=("attributes", "logs"), outlets=make)
    traces = [app.trace(children=0) for _ in range(5)]
    assert gate.entered.wait(WAIT)

    decided = [app.processor.wait_for_scores(trace, WAIT) for trace in traces]
    flushed = app.processor.force_flush(100)
    assert [len(decisions) for decisions in decided] == [1] * 5
    assert not flushed
    assert beside.verdicts == []

    gate.opened.set()
    assert app.names == ["root"] * 5
    app.trace(children=0)
    app.provider.shutdown()
    assert beside.verdicts == ["span_count"] * 6


def test_at_the_end_outlets_have_no_longer_than_exporters() -> None:
    patience: list[float | None] = []
    for limit in (60.0, 1.0):
        beside = Beside()
        app = App(span_count, emit=("logs",), outlets=lambda _kinds, made=beside: made, shutdown_timeout=limit)
        app.trace()
        app.provider.shutdown()
        patience.append(beside.patience)

    assert patience[0] is not None
    assert 0 < patience[0] <= 10
    assert patience[1] is not None
    assert patience[1] <= 1


def test_outlets_that_never_open_do_not_hold_up_the_end() -> None:
    gate = Gate()

    def make(_kinds: Collection[str]) -> Any:
        gate.opened.wait(LONG)
        return Beside()

    app = App(span_count, emit=("attributes", "logs"), outlets=make, shutdown_timeout=0.5)
    app.trace(children=0)

    assert finishes(app.provider.shutdown)
    assert app.exporter.names == ["root"]
    gate.opened.set()


@pytest.mark.parametrize("odd", ["", "1", "xyz", "0" * 32, "1" * 33, " " + "1" * 31, 0, -1, 1 << 128])
@pytest.mark.parametrize("method", [ScoringSpanProcessor.flush_trace, ScoringSpanProcessor.wait_for_scores])
def test_what_is_no_trace_id_is_said(odd: Any, method: Callable[..., object]) -> None:
    app = App(span_count)

    with pytest.raises(ValueError, match="trace_id must be 32 hex digits or the number of a trace, got"):
        method(app.processor, odd)

    app.provider.shutdown()


@pytest.mark.parametrize("odd", [None, b"1" * 16, 1.0, True, ["1" * 32]])
def test_what_is_neither_text_nor_a_number_is_said(odd: Any) -> None:
    app = App(span_count)

    with pytest.raises(TypeError, match="trace_id must be 32 hex digits"):
        app.processor.flush_trace(odd)

    app.provider.shutdown()


@pytest.mark.parametrize("odd", [-1.0, float("nan")])
def test_what_is_no_time_to_wait_is_said(odd: float) -> None:
    app = App(span_count)

    with pytest.raises(ValueError, match="timeout must be a number of seconds"):
        app.processor.wait_for_scores(1, odd)

    app.provider.shutdown()
