"""
Run one scorer on one target and say what became of it.

Whatever a scorer does, there is one Decision: what it raises, returns wrongly or leaves unfinished ends up in it. Only
Ctrl-C, and the cancellation of the task that runs a coroutine scorer, go through.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, Feedback
from otel_scorer.scorers import base, foreign, results
from otel_scorer.scorers.arguments import NotApplicableError
from otel_scorer.scorers.passing import default_verdict, parse_condition, verdict

if TYPE_CHECKING:
    from types import TracebackType

    from otel_scorer.scorers.base import Scorer
    from otel_scorer.scorers.evidence import Evidence
    from otel_scorer.scorers.passing import Condition

__all__ = ["DEFAULT_TIMEOUT", "Invocation", "PreparedScorer", "Suppression"]

Suppression: TypeAlias = Callable[[], AbstractContextManager[object]]
"""Makes the context in which a scorer's own calls leave no spans."""

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for one call of a scorer that does not say."""

_REASON_LIMIT: Final = 500
_OWN_FILES: Final = frozenset({__file__, base.__file__})
_ADAPTERS: Final = str(Path(foreign.__file__).parent)


class PreparedScorer:
    """
    A scorer with everything about it looked up that is the same for every call.

    Args:
        scorer: The scorer. Changes to its options after this are not seen.
        default_timeout: Seconds for a scorer that does not say; 0: no limit.
        suppress: See `Suppression`. Default: none.

    Attributes:
        timeout: Seconds for one call; None: no limit. Calls in a thread cannot be stopped: whoever runs them there
            watches the time, and makes the decision with `Invocation.timed_out`.
    """

    __slots__ = (
        "code",
        "condition",
        "is_async",
        "name",
        "scorer",
        "signature",
        "suppress",
        "timeout",
        "turn",
        "version",
    )

    def __init__(
        self, scorer: Scorer, *, default_timeout: float = DEFAULT_TIMEOUT, suppress: Suppression | None = None
    ) -> None:
        self.scorer = scorer
        self.name = scorer.name
        self.version = scorer.scorer_version
        self.code = scorer.code
        self.signature = scorer.signature
        self.is_async = scorer.is_async
        self.timeout = (default_timeout if scorer.timeout is None else scorer.timeout) or None
        self.turn = None if scorer.concurrent else scorer.turn
        self.suppress = suppress
        condition = scorer.pass_if
        self.condition = parse_condition(condition) if isinstance(condition, str) else condition

    def decide(
        self,
        outcome: Outcome,
        *,
        trace_id: str,
        span_id: str | None = None,
        reason: str | None = None,
        revision: int = 1,
        feedbacks: tuple[Feedback, ...] = (),
        passed: tuple[bool | None, ...] = (),
        seconds: float | None = None,
    ) -> Decision:
        """Return a decision about this scorer."""
        return Decision(
            trace_id,
            span_id,
            self.name,
            self.version,
            outcome,
            reason,
            revision,
            feedbacks,
            passed or (None,) * len(feedbacks),
            seconds,
        )


class Invocation:
    """
    One call of one scorer that is going to happen.

    Args:
        prepared: The scorer.
        evidence: What it can see; the same for all scorers that judge the same.
        revision: 1, or higher when late spans led to scoring again.
        trace_id: For the decision. Default: the trace's.
    """

    __slots__ = ("evidence", "prepared", "revision", "span_id", "trace_id")

    def __init__(
        self,
        prepared: PreparedScorer,
        evidence: Evidence,
        revision: int = 1,
        trace_id: str | None = None,
    ) -> None:
        self.prepared = prepared
        self.evidence = evidence
        self.revision = revision
        self.span_id = None if evidence.span is None else evidence.span.span_id
        if trace_id is None:
            trace_id = "" if evidence.trace is None else evidence.trace.trace_id
        self.trace_id = trace_id

    def run(self) -> Decision:
        """Call the scorer in this thread and return what became of it; a coroutine is run to its end."""
        prepared = self.prepared
        turn = prepared.turn
        if turn is not None and not turn.take(prepared.timeout):
            return self.timed_out("an earlier call of this scorer has not come back yet")
        started = time.perf_counter()
        try:
            if prepared.suppress is None:
                result = self._call()
            else:
                with prepared.suppress():
                    result = self._call()
            return self._scored(result, started)
        except BaseException as error:  # noqa: BLE001 - user code: a Rust panic or a sys.exit() is its failure, not ours
            return self._failed(error, started)
        finally:
            if turn is not None:
                turn.give_back()

    async def run_async(self, on_begin: Callable[[], None] | None = None) -> Decision:
        """
        Call the scorer on this event loop, within its timeout, and return what became of it.

        Args:
            on_begin: Called when earlier calls of the scorer are over and the timeout begins.
        """
        prepared = self.prepared
        turn = prepared.turn
        if turn is not None:
            await turn.take_async()
        if on_begin is not None:
            on_begin()
        started = time.perf_counter()
        limit = asyncio.timeout(prepared.timeout)
        try:
            with nullcontext() if prepared.suppress is None else prepared.suppress():
                async with limit:
                    positional, named = prepared.signature.fit(self.evidence.look_up)
                    result = prepared.code(*positional, **named)
                    if inspect.isawaitable(result):
                        result = await result
            return self._scored(result, started)
        except BaseException as error:  # as in `run`
            if limit.expired() and isinstance(error, TimeoutError):
                return self.timed_out()
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            return self._failed(error, started)
        finally:
            if turn is not None:
                turn.give_back()

    def timed_out(self, reason: str | None = None) -> Decision:
        """Return the decision about a call that took too long."""
        prepared = self.prepared
        if reason is None:
            reason = "given up" if prepared.timeout is None else f"not finished within {prepared.timeout:g} s"
        error = AssessmentError("TimeoutError", f"Scorer {prepared.name!r}: {reason}")
        return self.decide(Outcome.TIMED_OUT, reason, results.error_feedback(prepared.name, error))

    def decide(
        self, outcome: Outcome, reason: str | None = None, *feedbacks: Feedback, seconds: float | None = None
    ) -> Decision:
        """Return a decision about this call, such as that it was shed."""
        return self.prepared.decide(
            outcome,
            trace_id=self.trace_id,
            span_id=self.span_id,
            reason=reason,
            revision=self.revision,
            feedbacks=feedbacks,
            seconds=seconds,
        )

    def _call(self) -> object:
        prepared = self.prepared
        positional, named = prepared.signature.fit(self.evidence.look_up)
        result = prepared.code(*positional, **named)
        return base.run_to_end(result, prepared.name) if isinstance(result, CoroutineType) else result

    def _scored(self, result: object, started: float) -> Decision:
        seconds = time.perf_counter() - started
        prepared = self.prepared
        feedbacks = results.feedbacks_of(result, prepared.name)
        reason = None
        passed: list[bool | None] = []
        for feedback in feedbacks:
            try:
                passed.append(_passes(feedback, prepared.condition))
            except Exception as error:  # noqa: BLE001 - pass_if is user code; the verdict itself stands
                passed.append(None)
                reason = _shown("pass_if", error)
        return Decision(
            self.trace_id,
            self.span_id,
            prepared.name,
            prepared.version,
            Outcome.SCORED,
            reason,
            self.revision,
            feedbacks,
            tuple(passed),
            seconds,
        )

    def _failed(self, error: BaseException, started: float) -> Decision:
        seconds = time.perf_counter() - started
        if isinstance(error, KeyboardInterrupt | GeneratorExit):
            raise error
        if isinstance(error, NotApplicableError):
            return self.decide(Outcome.NOT_APPLICABLE, str(error))
        error.__traceback__ = _without_own_frames(error.__traceback__)
        feedback = results.error_feedback(self.prepared.name, error)
        reason = _shown(type(error).__name__, feedback.error_message)
        return self.decide(Outcome.FAILED, reason, feedback, seconds=seconds)


def _passes(feedback: Feedback, condition: Callable[[Any], bool] | Condition | None) -> bool | None:
    if condition is not None:
        return verdict(feedback.value, condition)
    return feedback.passed if results.is_judged(feedback) else default_verdict(feedback.value)


def _shown(what: str, detail: object) -> str:
    return f"{what}: {detail}"[:_REASON_LIMIT]


def _without_own_frames(traceback: TracebackType | None) -> TracebackType | None:
    """Drop our own frames from the top: the stack of a failure is the same on every way to the scorer."""
    rest = traceback
    while rest is not None and _is_own(rest.tb_frame.f_code.co_filename):
        rest = rest.tb_next
    return rest or traceback


def _is_own(file: str) -> bool:
    return file in _OWN_FILES or file.startswith(_ADAPTERS)


def _is_cancelled() -> bool:
    """Whether somebody cancelled this task, as opposed to a scorer that raised CancelledError."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
