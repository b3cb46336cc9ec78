"""Scorers of MLflow: `mlflow.genai.scorers`, decorated functions, classes and built-in ones."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Final, cast

from otel_scorer.errors import ScorerError
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback
from otel_scorer.scorers.foreign.adapted import Adapted, state_of

__all__ = ["adapt"]

_OPTIONS: Final = ("description", "aggregations", "timeout", "pass_if")


def adapt(scorer: Any) -> Adapted:
    """
    Return an MLflow scorer as one of ours. Its parameters are read as those of our own scorers.

    Raises:
        ScorerError: It judges whole sessions.
    """
    if scorer.is_session_level_scorer:
        msg = f"MLflow scorer {scorer.name!r} judges sessions of several traces, and only single traces are scored here"
        raise ScorerError(msg)
    # Of a decorated function the function itself: its annotations and source say more, and it may be a coroutine.
    function = getattr(scorer, "_original_func", None) or scorer.__call__
    options = {name: getattr(scorer, name, None) for name in _OPTIONS}
    return Adapted(
        _translated(function),
        {"name": scorer.name, **{name: value for name, value in options.items() if value is not None}},
        code=function if inspect.isfunction(function) else type(scorer),
        state=state_of(scorer, "mlflow"),
    )


def _translated(function: Any) -> Any:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return _result(await function(*args, **kwargs))

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _result(function(*args, **kwargs))

    return call


def _result(result: Any) -> Any:
    if isinstance(result, list):
        return [_result(item) for item in cast("list[Any]", result)]
    return _feedback(result) if _is_feedback(result) else result


def _is_feedback(result: object) -> bool:
    return any(base.__name__ == "Feedback" and base.__module__.startswith("mlflow.") for base in type(result).__mro__)


def _feedback(given: Any) -> Feedback:
    error = given.error
    return Feedback(
        given.name,
        given.value,
        None if error is None else AssessmentError(error.error_code, error.error_message, error.stack_trace),
        None if given.source is None else AssessmentSource(given.source.source_type, given.source.source_id),
        None,
        given.metadata,
        given.span_id,
        given.create_time_ms,
        given.last_update_time_ms,
        given.rationale,
        given.overrides,
        given.valid,
    )
