"""
What scorers and people say about a trace: Feedback and Expectation, with where it came from.

Names, fields, their order and `to_dictionary` are those of `mlflow.entities`, so that code written for it works here
after its imports are changed. Two things differ on purpose: an int stays an int, and equality ignores when it was made.
"""

from __future__ import annotations

import json
import math
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, TypeAlias, cast

from otel_scorer.errors import AssessmentValueError

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
]

FeedbackScalar: TypeAlias = "bool | int | float | str"
FeedbackValue: TypeAlias = "FeedbackScalar | list[FeedbackScalar] | dict[str, FeedbackScalar] | None"

DEFAULT_FEEDBACK_NAME: Final = "feedback"
"""The name of a Feedback that nobody named; the scorer's name takes its place."""

STACK_TRACE_LIMIT: Final = 10_000
"""Characters of a stack trace that are kept, from its end. MLflow's limit."""

_TRUNCATED: Final = "[Stack trace is truncated]\n...\n"


class AssessmentSourceType(StrEnum):
    """Who judged. `AI_JUDGE` is MLflow's old name of `LLM_JUDGE`."""

    SOURCE_TYPE_UNSPECIFIED = "SOURCE_TYPE_UNSPECIFIED"
    LLM_JUDGE = "LLM_JUDGE"
    AI_JUDGE = "LLM_JUDGE"
    HUMAN = "HUMAN"
    CODE = "CODE"


@dataclass(frozen=True, slots=True)
class AssessmentSource:
    """
    Where an assessment came from.

    Args:
        source_type: An `AssessmentSourceType` or its name in any case.
        source_id: Which judge, person or piece of code.

    Raises:
        AssessmentValueError: There is no such source type.
    """

    source_type: AssessmentSourceType | str
    source_id: str = "default"

    def __post_init__(self) -> None:
        if type(self.source_type) is not AssessmentSourceType:
            object.__setattr__(self, "source_type", _source_type(self.source_type))

    def to_dictionary(self) -> dict[str, str]:
        """Return `source_type` and `source_id` as strings."""
        return {"source_type": str(self.source_type), "source_id": self.source_id}

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> AssessmentSource:
        """Read back what `to_dictionary` returned."""
        return cls(_key(data, "source_type", "an assessment source"), data.get("source_id") or "default")


def _source_type(given: object) -> AssessmentSourceType:
    name = given.upper() if isinstance(given, str) else given
    if name == "AI_JUDGE":
        warnings.warn("AI_JUDGE is called LLM_JUDGE now", FutureWarning, stacklevel=4)
        return AssessmentSourceType.LLM_JUDGE
    try:
        return AssessmentSourceType(cast("str", name))
    except ValueError:
        known = [str(member) for member in AssessmentSourceType]
        msg = f"Invalid assessment source type: {given!r}. Valid source types: {known}"
        raise AssessmentValueError(msg) from None


_CODE: Final = AssessmentSource(AssessmentSourceType.CODE)
_HUMAN: Final = AssessmentSource(AssessmentSourceType.HUMAN)


@dataclass(frozen=True, slots=True)
class AssessmentError:
    """
    Why there is no verdict.

    Args:
        error_code: A short, stable word, such as an exception's class name.
        error_message: What a reader should know.
        stack_trace: Where it happened; its beginning goes where it is longer than `STACK_TRACE_LIMIT`.
    """

    error_code: str
    error_message: str | None = None
    stack_trace: str | None = None

    def __post_init__(self) -> None:
        if self.stack_trace is not None and len(self.stack_trace) > STACK_TRACE_LIMIT:
            kept = self.stack_trace[len(_TRUNCATED) - STACK_TRACE_LIMIT :]
            object.__setattr__(self, "stack_trace", _TRUNCATED + kept)

    @classmethod
    def from_exception(cls, error: BaseException) -> AssessmentError:
        """Describe an exception: class name, message and stack."""
        return cls(type(error).__name__, _message(error), "".join(traceback.format_exception(error)))

    def to_dictionary(self) -> dict[str, str]:
        """Return what is set."""
        result = {"error_code": self.error_code}
        if self.error_message is not None:
            result["error_message"] = self.error_message
        if self.stack_trace is not None:
            result["stack_trace"] = self.stack_trace
        return result

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> AssessmentError:
        """Read back what `to_dictionary` returned."""
        return cls(
            _key(data, "error_code", "an assessment error"), data.get("error_message"), data.get("stack_trace")
        )


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the exception is a scorer's, and so is its __str__
        return f"(its message cannot be shown: {type(broken).__name__})"


class Assessment:
    """What `Feedback` and `Expectation` have in common."""

    __slots__ = ()

    assessment_type: ClassVar[Literal["feedback", "expectation"]]
    name: str
    value: Any
    source: AssessmentSource | None
    trace_id: str | None
    metadata: dict[str, Any] | None
    span_id: str | None
    create_time_ms: int | None
    last_update_time_ms: int | None
    assessment_id: str | None

    @property
    def run_id(self) -> str | None:
        """The evaluation run that the assessment belongs to, from its metadata."""
        return (self.metadata or {}).get("mlflow.assessment.sourceRunId")

    def to_dictionary(self) -> dict[str, Any]:
        """
        Return plain JSON data with MLflow's keys; what is None is left out, metadata values become strings.

        Raises:
            AssessmentValueError: The value has no place in JSON (NaN, infinity, arbitrary objects).
        """
        result: dict[str, Any] = {"assessment_name": self.name, "trace_id": self.trace_id or ""}
        result |= _present(assessment_id=self.assessment_id, span_id=self.span_id)
        result["source"] = (self.source or _CODE).to_dictionary()
        result["create_time"] = _rfc3339(self.create_time_ms)
        result["last_update_time"] = _rfc3339(self.last_update_time_ms)
        result |= self._body()
        if self.metadata:
            result["metadata"] = {str(key): str(value) for key, value in self.metadata.items()}
        return result

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> Assessment:
        """
        Read back what `to_dictionary` returned: a Feedback or an Expectation.

        Raises:
            AssessmentValueError: It is neither.
        """
        return assessment_from_dictionary(data)

    def _body(self) -> dict[str, Any]:
        raise NotImplementedError

    def _complete(self, default_source: AssessmentSource) -> None:
        """Check the fields that both kinds have, and fill in what was left out."""
        if type(self.name) is not str and not isinstance(self.name, str):
            msg = f"The name of an assessment must be a string, got {self.name!r}"
            raise AssessmentValueError(msg)
        if self.source is None:
            self.source = default_source
        elif not isinstance(self.source, AssessmentSource):
            msg = f"`source` must be an AssessmentSource, got {self.source!r}"
            raise AssessmentValueError(msg)
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            msg = f"`metadata` must be a dict, got {self.metadata!r}"
            raise AssessmentValueError(msg)
        if self.create_time_ms is None:
            self.create_time_ms = time.time_ns() // 1_000_000
        if self.last_update_time_ms is None:
            self.last_update_time_ms = self.create_time_ms


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
        self._complete(_CODE)

    @property
    def feedback(self) -> Feedback:
        """Itself: MLflow reads `assessment.feedback.value`."""
        return self

    @property
    def expectation(self) -> None:
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

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"value": _json_value(self.value, f"Feedback {self.name!r}")}
        if self.error is not None:
            body["error"] = cast("AssessmentError", self.error).to_dictionary()
        return {"feedback": body} | _present(rationale=self.rationale, overrides=self.overrides, valid=self.valid)


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
        self._complete(_HUMAN)

    @property
    def feedback(self) -> None:
        """Nothing: this is an Expectation."""
        return

    @property
    def expectation(self) -> Expectation:
        """Itself: MLflow reads `assessment.expectation.value`."""
        return self

    def _body(self) -> dict[str, Any]:
        value = _json_value(self.value, f"Expectation {self.name!r}")
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
    name = _key(data, "assessment_name", "an assessment")
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
        body = data["feedback"]
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
        assessment = Expectation(name, _expected(data["expectation"]), **shared)
    else:
        msg = f"Assessment {name!r} has neither `feedback` nor `expectation`"
        raise AssessmentValueError(msg)
    assessment.assessment_id = data.get("assessment_id")
    return assessment


def _expected(body: Mapping[str, Any]) -> Any:
    serialized = body.get("serialized_value")
    return body.get("value") if serialized is None else json.loads(serialized["value"])


def _error(given: object) -> AssessmentError:
    if isinstance(given, AssessmentError):
        return given
    if isinstance(given, BaseException):
        return AssessmentError.from_exception(given)
    if isinstance(given, str):
        return AssessmentError("ASSESSMENT_ERROR", given)
    msg = f"`error` must be an exception, a string or an AssessmentError, got {given!r}"
    raise AssessmentValueError(msg)


def _json_value(value: Any, owner: str) -> Any:
    """Return `value` as JSON can hold it, or say that it cannot."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_json_value(item, owner) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {str(key): _json_value(item, owner) for key, item in cast("Mapping[Any, Any]", value).items()}
    msg = f"{owner} has a value that JSON cannot hold: {value!r}"
    raise AssessmentValueError(msg)


def _present(**fields: object) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not None}


def _key(data: Mapping[str, Any], key: str, what: str) -> Any:
    try:
        return data[key]
    except (KeyError, TypeError):
        msg = f"Not {what}: `{key}` is missing"
        raise AssessmentValueError(msg) from None


def _rfc3339(milliseconds: int | None) -> str:
    """Format a time as protobuf's JSON does: UTC, with three decimals where there are any."""
    whole, rest = divmod(milliseconds or 0, 1000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (TypeError, ValueError):
        msg = f"Not a time in RFC 3339 form: {text!r}"
        raise AssessmentValueError(msg) from None
