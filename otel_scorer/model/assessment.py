"""What every assessment has, verdict or expectation: name, source, error, times, and MLflow's plain form."""

from __future__ import annotations

import math
import time
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from otel_scorer.errors import AssessmentValueError

__all__ = [
    "CODE_SOURCE",
    "HUMAN_SOURCE",
    "STACK_TRACE_LIMIT",
    "Assessment",
    "AssessmentError",
    "AssessmentSource",
    "AssessmentSourceType",
    "as_text",
    "json_value",
    "present",
    "required_key",
]

STACK_TRACE_LIMIT: Final = 10_000
"""Characters of a stack trace that are kept, from its end. MLflow's limit."""

# The years that RFC 3339 can write: 1 to 9999.
_EARLIEST_MS: Final = -62_135_596_800_000
_LATEST_MS: Final = 253_402_300_799_999

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
        source_id: Which judge, person or piece of code; None: `default`.

    Raises:
        AssessmentValueError: There is no such source type.
    """

    source_type: AssessmentSourceType | str
    source_id: str = "default"

    def __post_init__(self) -> None:
        if type(self.source_type) is not AssessmentSourceType:
            object.__setattr__(self, "source_type", _source_type(self.source_type))
        if type(self.source_id) is not str:
            given = cast("object", self.source_id)
            object.__setattr__(self, "source_id", "default" if given is None else str(given))

    def to_dictionary(self) -> dict[str, str]:
        """Return `source_type` and `source_id` as strings."""
        return {"source_type": str(self.source_type), "source_id": self.source_id}

    @classmethod
    def from_dictionary(cls, data: Mapping[str, Any]) -> AssessmentSource:
        """Read back what `to_dictionary` returned."""
        return cls(required_key(data, "source_type", "an assessment source"), data.get("source_id", "default"))


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


CODE_SOURCE: Final = AssessmentSource(AssessmentSourceType.CODE)
HUMAN_SOURCE: Final = AssessmentSource(AssessmentSourceType.HUMAN)


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
        # `AssessmentError("Failed", error)` with the exception itself is easily written: all of it becomes text here.
        for field in ("error_code", "error_message", "stack_trace"):
            given: object = getattr(self, field)
            if type(given) is not str and (given is not None or field == "error_code"):
                object.__setattr__(self, field, "" if given is None else as_text(given))
        if self.stack_trace is not None and len(self.stack_trace) > STACK_TRACE_LIMIT:
            kept = self.stack_trace[len(_TRUNCATED) - STACK_TRACE_LIMIT :]
            object.__setattr__(self, "stack_trace", _TRUNCATED + kept)

    @classmethod
    def from_exception(cls, error: BaseException) -> AssessmentError:
        """Describe an exception: class name, message and stack."""
        return cls(type(error).__name__, as_text(error), "".join(traceback.format_exception(error)))

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
            required_key(data, "error_code", "an assessment error"), data.get("error_message"), data.get("stack_trace")
        )


def as_text(value: object) -> str:
    """Return `str(value)`, whatever happens in it."""
    try:
        return str(value)
    except Exception as broken:  # noqa: BLE001 - the value is a scorer's, such as an exception, and so is its __str__
        return f"(its message cannot be shown: {type(broken).__name__})"


class Assessment(ABC):
    """What `Feedback` and `Expectation` have in common."""

    if not TYPE_CHECKING:
        # The subclasses have the slots, and a type checker would not see them.
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
        result |= present(assessment_id=self.assessment_id, span_id=self.span_id)
        result["source"] = (self.source or CODE_SOURCE).to_dictionary()
        result["create_time"] = _rfc3339(self.create_time_ms)
        result["last_update_time"] = _rfc3339(self.last_update_time_ms)
        result |= self._body()
        if self.metadata:
            result["metadata"] = {str(key): str(value) for key, value in self.metadata.items()}
        return result

    @abstractmethod
    def _body(self) -> dict[str, Any]:
        """Return what only this kind has: `feedback` or `expectation`, and what goes beside it."""

    def _complete(self, default_source: AssessmentSource) -> None:
        """Check the fields that both kinds have, and fill in what was left out."""
        if self.source is None:
            self.source = default_source
        # Asked of every verdict: what looks as it should is not looked at twice.
        if (
            type(self.name) is not str
            or type(self.source) is not AssessmentSource
            or not (self.metadata is None or type(self.metadata) is dict)
        ):
            self._check()
        created = self.create_time_ms
        if created is None:
            created = self.create_time_ms = time.time_ns() // 1_000_000
        else:
            _check_time(self.name, created)
        if self.last_update_time_ms is None:
            self.last_update_time_ms = created
        elif self.last_update_time_ms is not created:
            _check_time(self.name, self.last_update_time_ms)

    def _check(self) -> None:
        # The annotations are promises of the caller, who need not have kept them.
        name, source, metadata = self.name, self.source, self.metadata
        if type(name) is not str and not isinstance(cast("object", name), str):
            msg = f"The name of an assessment must be a string, got {name!r}"
            raise AssessmentValueError(msg)
        if type(source) is not AssessmentSource and not isinstance(cast("object", source), AssessmentSource):
            msg = f"`source` must be an AssessmentSource, got {source!r}"
            raise AssessmentValueError(msg)
        if metadata is not None and not isinstance(cast("object", metadata), Mapping):
            msg = f"`metadata` must be a dict, got {metadata!r}"
            raise AssessmentValueError(msg)


def _check_time(name: str, moment: object) -> None:
    if type(moment) is not int or not _EARLIEST_MS <= moment <= _LATEST_MS:
        msg = f"A time of assessment {name!r} must be milliseconds since the epoch, got {moment!r}"
        raise AssessmentValueError(msg)


def json_value(value: Any, owner: str) -> Any:
    """
    Return `value` as JSON can hold it.

    Raises:
        AssessmentValueError: It cannot: NaN, infinity, arbitrary objects.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple):
        return [json_value(item, owner) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {str(key): json_value(item, owner) for key, item in cast("Mapping[Any, Any]", value).items()}
    msg = f"{owner} has a value that JSON cannot hold: {value!r}"
    raise AssessmentValueError(msg)


def present(**fields: object) -> dict[str, object]:
    """Return the fields that are not None."""
    return {key: value for key, value in fields.items() if value is not None}


def required_key(data: Mapping[str, Any], key: str, what: str) -> Any:
    """
    Return `data[key]`.

    Raises:
        AssessmentValueError: There is no such key, or `data` is no dict.
    """
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
