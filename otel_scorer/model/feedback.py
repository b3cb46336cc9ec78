"""
What scorers and people say about a trace: Feedback and Expectation.

Names, fields, their order and `to_dictionary` are those of `mlflow.entities`, so that code written for it works here
after its imports are changed. Two things differ on purpose: an int stays an int, and equality ignores when it was made.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, TypeVar, cast

from otel_scorer.errors import AssessmentValueError
from otel_scorer.model.assessment import (
    CODE_SOURCE,
    HUMAN_SOURCE,
    STACK_TRACE_LIMIT,
    Assessment,
    AssessmentError,
    AssessmentSource,
    AssessmentSourceType,
    as_text,
    json_value,
    present,
    required_key,
)
from otel_scorer.model.read_only import copied

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_FEEDBACK_NAME",
    "STACK_TRACE_LIMIT",
    "Assessment",
    "AssessmentError",
    "AssessmentSource",
    "AssessmentSourceType",
    "Expectation",
    "Feedback",
    "FeedbackScalar",
    "FeedbackValue",
    "assessment_from_dictionary",
    "own_copy",
]

Given = TypeVar("Given", bound=Assessment)

FeedbackScalar: TypeAlias = "bool | int | float | str"
FeedbackValue: TypeAlias = "FeedbackScalar | list[FeedbackScalar] | dict[str, FeedbackScalar] | None"

DEFAULT_FEEDBACK_NAME: Final = "feedback"
"""The name of a Feedback that nobody named; the scorer's name takes its place."""


@dataclass(slots=True)
class Feedback(Assessment):
    """
    One verdict.

    Args:
        name: What was judged. Left out, it becomes the name of the scorer.
        value: bool, int, float, str, a list of these or a dict of str to these; None: no verdict.
        error: Why there is no verdict: an exception, a message (code `ASSESSMENT_ERROR`) or an `AssessmentError`.
        source: Who judged. Default: CODE / "default".
        trace_id: The trace that it is about.
        metadata: Whatever else should travel with it.
        span_id: The span that it is about; default: the target of the scorer.
        create_time_ms: Milliseconds since the epoch. Default: now.
        last_update_time_ms: Milliseconds since the epoch. Default: `create_time_ms`.
        rationale: Why this value.
        overrides: Id of the assessment that this one replaces.
        valid: Whether it still holds.

    Raises:
        AssessmentValueError: A field has a type that cannot be meant.
    """

    name: str = DEFAULT_FEEDBACK_NAME
    value: Any = None
    error: Any = None
    source: AssessmentSource | None = None
    trace_id: str | None = None
    metadata: dict[str, Any] | None = None
    span_id: str | None = None
    create_time_ms: int | None = field(default=None, compare=False)
    last_update_time_ms: int | None = field(default=None, compare=False)
    rationale: str | None = None
    overrides: str | None = None
    valid: bool | None = True
    assessment_id: str | None = field(default=None, init=False, compare=False)

    assessment_type: ClassVar[Literal["feedback", "expectation"]] = "feedback"

    def __post_init__(self) -> None:
        if self.error is not None and type(self.error) is not AssessmentError:
            self.error = _error(self.error)
        self._complete(CODE_SOURCE)

    @property
    def feedback(self) -> Feedback:
        """Itself: MLflow reads `assessment.feedback.value`."""
        return self

    @property
    def expectation(self) -> None:
        """Nothing: this is a Feedback."""
        return

    @property
    def issue(self) -> None:
        """Nothing: this is a Feedback."""
        return

    @property
    def error_code(self) -> str | None:
        """The error's code, if there is an error."""
        return None if self.error is None else cast("AssessmentError", self.error).error_code

    @property
    def error_message(self) -> str | None:
        """The error's message, if there is an error."""
        return None if self.error is None else cast("AssessmentError", self.error).error_message

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> Feedback:
        """
        Read back what `to_dictionary` returned.

        Raises:
            AssessmentValueError: It is something else.
        """
        found = assessment_from_dictionary(data)
        if not isinstance(found, Feedback):
            msg = f"Assessment {found.name!r} is an expectation, not a feedback"
            raise AssessmentValueError(msg)
        return found

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"value": json_value(self.value, f"Feedback {self.name!r}")}
        if self.error is not None:
            body["error"] = cast("AssessmentError", self.error).to_dictionary()
        rationale = None if self.rationale is None else as_text(self.rationale)
        return {"feedback": body} | present(rationale=rationale, overrides=self.overrides, valid=self.valid)


@dataclass(slots=True)
class Expectation(Assessment):
    """
    What the right answer is, for scorers that compare.

    Args:
        name: What is expected; the key in the `expectations` that a scorer gets.
        value: Anything that JSON can hold, but None.
        source: Who said so. Default: HUMAN / "default".
        trace_id: The trace that it is about.
        metadata: Whatever else should travel with it.
        span_id: The span that it is about.
        create_time_ms: Milliseconds since the epoch. Default: now.
        last_update_time_ms: Milliseconds since the epoch. Default: `create_time_ms`.

    Raises:
        AssessmentValueError: The value is None, or a field has a type that cannot be meant.
    """

    name: str
    value: Any
    source: AssessmentSource | None = None
    trace_id: str | None = None
    metadata: dict[str, Any] | None = None
    span_id: str | None = None
    create_time_ms: int | None = field(default=None, compare=False)
    last_update_time_ms: int | None = field(default=None, compare=False)
    assessment_id: str | None = field(default=None, init=False, compare=False)

    assessment_type: ClassVar[Literal["feedback", "expectation"]] = "expectation"

    def __post_init__(self) -> None:
        if self.value is None:
            msg = f"Expectation {self.name!r} needs a value"
            raise AssessmentValueError(msg)
        self._complete(HUMAN_SOURCE)

    @property
    def feedback(self) -> None:
        """Nothing: this is an Expectation."""
        return

    @property
    def issue(self) -> None:
        """Nothing: this is an Expectation."""
        return

    @property
    def rationale(self) -> None:
        """Nothing, as `error`, `overrides` and `valid`: code that goes through assessments need not tell the kinds."""
        return

    @property
    def error(self) -> None:
        """Nothing: this is an Expectation."""
        return

    @property
    def overrides(self) -> None:
        """Nothing: this is an Expectation."""
        return

    @property
    def valid(self) -> None:
        """Nothing: this is an Expectation."""
        return

    @property
    def expectation(self) -> Expectation:
        """Itself: MLflow reads `assessment.expectation.value`."""
        return self

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> Expectation:
        """
        Read back what `to_dictionary` returned.

        Raises:
            AssessmentValueError: It is something else.
        """
        found = assessment_from_dictionary(data)
        if not isinstance(found, Expectation):
            msg = f"Assessment {found.name!r} is a feedback, not an expectation"
            raise AssessmentValueError(msg)
        return found

    def _body(self) -> dict[str, Any]:
        value = json_value(self.value, f"Expectation {self.name!r}")
        if isinstance(value, bool | int | float | str):
            return {"expectation": {"value": value}}
        text = json.dumps(value, ensure_ascii=False)
        return {"expectation": {"serialized_value": {"serialization_format": "JSON_FORMAT", "value": text}}}


def assessment_from_dictionary(data: Mapping[str, Any]) -> Feedback | Expectation:
    """
    Read back what `Feedback.to_dictionary` or `Expectation.to_dictionary` returned.

    Raises:
        AssessmentValueError: It is something else.
    """
    name = required_key(data, "assessment_name", "an assessment")
    source = data.get("source")
    shared: dict[str, Any] = {
        "source": None if source is None else AssessmentSource.from_dictionary(source),
        "trace_id": data.get("trace_id") or None,
        "metadata": data.get("metadata"),
        "span_id": data.get("span_id"),
        "create_time_ms": _milliseconds(data.get("create_time")),
        "last_update_time_ms": _milliseconds(data.get("last_update_time")),
    }
    assessment: Feedback | Expectation
    if "feedback" in data:
        body = _body_of(data, "feedback")
        error = body.get("error")
        assessment = Feedback(
            name,
            body.get("value"),
            None if error is None else AssessmentError.from_dictionary(error),
            rationale=data.get("rationale"),
            overrides=data.get("overrides"),
            valid=data.get("valid", True),
            **shared,
        )
    elif "expectation" in data:
        assessment = Expectation(name, _expected(_body_of(data, "expectation")), **shared)
    else:
        msg = f"Assessment {name!r} has neither `feedback` nor `expectation`"
        raise AssessmentValueError(msg)
    assessment.assessment_id = data.get("assessment_id")
    return assessment


def own_copy(assessment: Given) -> Given:
    """Return an assessment that may be changed."""
    own = copy.copy(assessment)
    own.value, own.metadata = copied(own.value), copied(own.metadata)
    return own


def _body_of(data: Mapping[str, Any], kind: str) -> dict[str, Any]:
    body = data[kind]
    if not isinstance(body, dict):
        msg = f"`{kind}` of an assessment is {body!r:.80}, expected a dict"
        raise AssessmentValueError(msg)
    return cast("dict[str, Any]", body)


def _expected(body: Mapping[str, Any]) -> Any:
    serialized = body.get("serialized_value")
    if serialized is None:
        return body.get("value")
    try:
        return json.loads(serialized["value"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"`serialized_value` of an expectation is not JSON text: {error!r}"
        raise AssessmentValueError(msg) from None


def _error(given: object) -> AssessmentError:
    if isinstance(given, AssessmentError):
        return given
    if isinstance(given, BaseException):
        return AssessmentError.from_exception(given)
    if isinstance(given, str):
        return AssessmentError("ASSESSMENT_ERROR", given)
    msg = f"`error` must be an exception, a string or an AssessmentError, got {given!r}"
    raise AssessmentValueError(msg)


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
    except (TypeError, ValueError):
        msg = f"Not a time in RFC 3339 form: {text!r}"
        raise AssessmentValueError(msg) from None
