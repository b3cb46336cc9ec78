"""
From what a scorer returned to feedbacks with names, sources and values that every backend can hold.

What the scorer returned is never changed: it may be its own state. bool is not taken for a number, NaN and infinity
are errors, and numpy's scalars are unwrapped without importing numpy.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeGuard, cast

from otel_scorer.errors import ScorerError
from otel_scorer.model.assessment import as_text
from otel_scorer.model.feedback import (
    DEFAULT_FEEDBACK_NAME,
    AssessmentError,
    AssessmentSource,
    AssessmentSourceType,
    Feedback,
)
from otel_scorer.scorers.extent import is_huge
from otel_scorer.scorers.text import compact_json

__all__ = ["InvalidResultError", "JudgedFeedback", "code_source", "error_feedback", "feedbacks_of", "is_judged"]

logger = logging.getLogger(__name__)

_LEGACY_NAME_KEY: Final = "_user_defined_assessment_name"
# Lists and dicts in a value, one inside the other; a value that contains itself ends here.
_DEEPEST: Final = 16
_WARNINGS: Final = 1000
# Integers of fewer bits are finite as doubles too.
_BITS_OF_A_DOUBLE: Final = 1024
_ALWAYS_PLAIN: Final = frozenset({bool, str, type(None)})
_warned: set[tuple[str, str]] = set()
_sources: dict[str, AssessmentSource] = {}


@dataclass(slots=True)
class JudgedFeedback(Feedback):
    """
    A feedback whose scorer says itself whether it passes, as those of other packages do that have a threshold.

    Attributes:
        passed: Whether it passes, unless the scorer was given a `pass_if`; None: nobody says.
    """

    passed: bool | None = None


def is_judged(feedback: Feedback) -> TypeGuard[JudgedFeedback]:
    """Tell whether a feedback's scorer says itself whether it passes; of a plain one that is known at once."""
    return type(feedback) is not Feedback and isinstance(feedback, JudgedFeedback)


class InvalidResultError(ScorerError, TypeError):
    """A scorer returned what no feedback can be made of."""


class _NotFiniteError(ValueError):
    pass


class _TooLargeError(ValueError):
    pass


def code_source(scorer_name: str) -> AssessmentSource:
    """Return the source of feedbacks that a scorer made without naming one: CODE, and the scorer's name."""
    source = _sources.get(scorer_name)
    if source is None:
        source = _sources[scorer_name] = AssessmentSource(AssessmentSourceType.CODE, scorer_name)
    return source


def error_feedback(scorer_name: str, error: BaseException | AssessmentError) -> Feedback:
    """Return the feedback of a scorer that came to no verdict."""
    return Feedback(scorer_name, None, error, code_source(scorer_name))


def feedbacks_of(result: object, scorer_name: str) -> tuple[Feedback, ...]:
    """
    Return the feedbacks in a scorer's result.

    A bare value and an unnamed Feedback take the scorer's name; a name that was given is kept.

    Args:
        result: bool, int, float, str, Feedback, list of Feedback, or None for nothing.
        scorer_name: The scorer's name.

    Raises:
        InvalidResultError: It is something else.
    """
    if result is None:
        return ()
    if _is_plain(result):
        return (Feedback(scorer_name, result, None, code_source(scorer_name)),)
    if isinstance(result, Feedback):
        return (_finished(result, scorer_name),)
    if isinstance(result, list):
        items = cast("list[object]", result)
        if all(isinstance(item, Feedback) for item in items):
            found = tuple([_finished(cast("Feedback", item), scorer_name) for item in items])
            if len({(feedback.name, feedback.span_id) for feedback in found}) < len(found):
                _warn_of_duplicates(found, scorer_name)
            return found
    try:
        return (Feedback(scorer_name, _scalar(cast("object", result)), None, code_source(scorer_name)),)
    except _NotFiniteError as error:
        return (error_feedback(scorer_name, _not_finite(error)),)
    except TypeError:
        msg = (
            f"`{scorer_name}` must return one of int, float, bool, str, Feedback, or list[Feedback]. "
            f"Got {_describe(cast('object', result))}"
        )
        raise InvalidResultError(msg) from None


def _finished(feedback: Feedback, scorer_name: str) -> Feedback:
    """Return `feedback`, or a copy with what was missing or cannot be sent."""
    name = feedback.name
    if feedback.metadata or type(name) is not str or not name or name == DEFAULT_FEEDBACK_NAME:
        name = _final_name(feedback, scorer_name)
    value = feedback.value
    error: AssessmentError | None = feedback.error
    if not _is_plain(value):
        try:
            value = _value(_of_some_size(value))
        except _NotFiniteError as problem:
            value, error = None, error or _not_finite(problem)
        except _TooLargeError as problem:
            # The code that a worker gives to what it cannot hand over: a scorer fails alike wherever it runs.
            value, error = None, error or AssessmentError("ResultTooLarge", f"A Feedback cannot hold {problem}")
        except TypeError as problem:
            message = f"A Feedback cannot hold {problem}"
            value, error = None, error or AssessmentError("INVALID_VALUE", message)
    metadata = _metadata(feedback.metadata) if feedback.metadata else None
    rationale = feedback.rationale
    if rationale is not None and type(rationale) is not str:
        rationale = _too_large(rationale) if is_huge(rationale) else as_text(rationale)
    span_id = feedback.span_id
    if span_id is not None and not (type(span_id) is str and span_id.islower()):
        span_id = _span_id(span_id)
    if (
        name is feedback.name
        and value is feedback.value
        and error is feedback.error
        and metadata is feedback.metadata
        and rationale is feedback.rationale
        and span_id is feedback.span_id
        and (error is None or type(error) is AssessmentError)
        and type(feedback.source) is AssessmentSource
        and type(feedback.create_time_ms) is int
    ):
        return feedback
    # Fields may have been assigned after it was made: making another one checks them.
    made = type(feedback)(
        name,
        value,
        error,
        feedback.source,
        feedback.trace_id,
        metadata,
        span_id,
        feedback.create_time_ms,
        feedback.last_update_time_ms,
        rationale,
        feedback.overrides,
        feedback.valid,
    )
    if is_judged(made) and is_judged(feedback) and error is None:
        made.passed = feedback.passed
    return made


def _span_id(given: object) -> str:
    """Return a span's id as lower-case hex digits; the OpenTelemetry SDK has it as an integer."""
    return f"{given:016x}" if isinstance(given, int) else str(given).lower()


def _warn_of_duplicates(feedbacks: Sequence[Feedback], scorer_name: str) -> None:
    """Say once per scorer and name that a list names something twice; all of them are kept."""
    names = Counter((feedback.name, feedback.span_id) for feedback in feedbacks)
    for name in sorted({name for (name, _), number in names.items() if number > 1}):
        if (scorer_name, name) not in _warned and len(_warned) < _WARNINGS:
            _warned.add((scorer_name, name))
            logger.warning("Scorer %r returned several feedbacks called %r; all of them are kept", scorer_name, name)


def _final_name(feedback: Feedback, scorer_name: str) -> str:
    if not feedback.name or feedback.name == DEFAULT_FEEDBACK_NAME:
        return scorer_name
    # Old MLflow judges mark a name that nobody chose this way.
    if feedback.metadata and feedback.metadata.get(_LEGACY_NAME_KEY) == "false":
        return scorer_name
    return feedback.name if type(feedback.name) is str else str(feedback.name)


def _is_plain(value: object) -> bool:
    """Tell at a glance whether a value is None, or a scalar of one of Python's own types that a feedback can hold."""
    return (
        type(value) in _ALWAYS_PLAIN
        or (type(value) is float and math.isfinite(value))
        or (type(value) is int and value.bit_length() < _BITS_OF_A_DOUBLE)
    )


def _value(value: object, depth: int = 0) -> object:
    """
    Return a feedback's value in plain types.

    Raises:
        TypeError: It is neither None, a scalar, nor a list or dict of these.
    """
    if _is_plain(value):
        return value
    if isinstance(value, list | tuple | Mapping) and depth == _DEEPEST:
        raise TypeError(_describe(cast("object", value)))
    if isinstance(value, list | tuple):
        return [_value(item, depth + 1) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        return {str(key): _value(item, depth + 1) for key, item in cast("Mapping[object, object]", value).items()}
    return _scalar(value)


def _of_some_size(value: object) -> object:
    if is_huge(value):
        raise _TooLargeError(_too_large(value))
    return value


def _too_large(value: object) -> str:
    return f"{_describe(value)}, of more than 32 MiB or in itself"


def _scalar(value: object) -> bool | int | float | str:
    """Return a scalar as one of Python's own types, so that it means the same on both sides of a pipe."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if isinstance(value, int):
        try:
            float(value)
        except OverflowError:
            msg = f"An integer of {value.bit_length()} bits"
            raise _NotFiniteError(msg) from None
        return value if type(value) is int else int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _NotFiniteError(repr(float(value)))
        return value if type(value) is float else float(value)
    # numpy's float32, int64 and bool_ are no Python numbers; arrays have a shape that is not empty.
    unwrap = getattr(value, "item", None)
    if callable(unwrap) and getattr(value, "shape", None) == () and not isinstance(value, Enum):
        plain = unwrap()
        if isinstance(plain, bool | int | float | str):
            return _scalar(plain)
    raise TypeError(_describe(value))


def _metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return metadata with scalars as they are and everything else as JSON text."""
    if not metadata:
        return None
    if isinstance(metadata, dict) and all(type(item) is str for item in (*metadata, *metadata.values())):
        return dict(metadata)  # the scorer may go on with its own
    return {str(key): _metadata_value(item) for key, item in metadata.items()}


def _metadata_value(value: object) -> bool | int | float | str:
    try:
        return _scalar(value)
    except _NotFiniteError as error:
        return str(error)
    except TypeError:
        return _too_large(value) if is_huge(value) else compact_json(value)


def _not_finite(error: _NotFiniteError) -> AssessmentError:
    return AssessmentError("NOT_FINITE", f"{error} is no verdict: a number must be finite")


def _describe(value: object) -> str:
    """Name the type of `value`, and what is inside a list; never the value itself, which may be a user's text."""
    if isinstance(value, list):
        inside = sorted({type(item).__name__ for item in cast("list[object]", value)})
        return f"list of {', '.join(inside)}" if inside else "list"
    return type(value).__name__
