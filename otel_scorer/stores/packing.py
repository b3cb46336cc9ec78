"""
Values of rows and verdicts as bytes that only this process reads again, so that they need not stay in memory.

Data is written: plain values, containers, dates, numbers of numpy, dataclasses, pydantic models, traces. Any other
object may be a connection, a lock, or one thing that all rows share: it stays where it is, and is itself afterwards.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import fractions
import io
import operator
import pickle
import threading
import uuid
from enum import Enum
from pathlib import PurePath
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from otel_scorer.model.decision import Decision, Outcome
from otel_scorer.model.feedback import AssessmentError, AssessmentSource, Feedback
from otel_scorer.model.trace import Trace
from otel_scorer.model.trace_bytes import spans_as_they_came, trace_from_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_scorer.model.reader import Reader

__all__ = ["Held", "Packer", "pack_decisions", "unpack_decisions"]

_PROTOCOL: Final = 5
_DATA: Final = frozenset({
    complex, bytearray, range, slice,
    collections.OrderedDict, collections.defaultdict, collections.Counter, collections.deque,
    dt.date, dt.time, dt.datetime, dt.timedelta, dt.timezone,
    decimal.Decimal, fractions.Fraction, uuid.UUID,
    AssessmentError, AssessmentSource, Outcome,
})  # fmt: skip
# What one array of numpy may have for being copied; a larger one may be shared by many rows.
_ARRAY_BYTES: Final = 1 << 16
_FIELDS: Final = tuple(each.name for each in dataclasses.fields(Feedback))
_fields_of: Final[Callable[[Feedback], tuple[Any, ...]]] = operator.attrgetter(*_FIELDS)
_facts_of: Final[Callable[[Decision], tuple[Any, ...]]] = operator.attrgetter(
    "trace_id", "span_id", "scorer", "scorer_version", "outcome", "reason", "revision", "passed", "seconds"
)


class Held:
    """
    Something that is not to be written, for somebody else has it in memory anyway.

    Args:
        value: It.
    """

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Packer:
    """Writes values as bytes and reads them back; whatever it does not write it holds, each object once."""

    def __init__(self) -> None:
        self._held = _HeldObjects()
        self._pickler: _Pickler | None = None

    @property
    def held(self) -> int:
        """Number of objects that stay in memory."""
        return len(self._held.objects)

    def pack(self, value: object) -> bytes:
        """Return a value as bytes; never fails, for what cannot be written is held."""
        # To make one costs as much as to write a small value.
        pickler = self._pickler
        if pickler is None:
            pickler = self._pickler = _Pickler(self._held)
        try:
            return pickler.written(value)
        except Exception:  # noqa: BLE001 - classes that no module has, anybody's __getstate__, circles
            self._pickler = None
            return _Pickler(self._held).written(Held(value))

    def unpack(self, data: bytes) -> Any:
        """Return what was packed."""
        before, _reading.held = _reading.held, self._held.objects
        try:
            return pickle.loads(data)  # noqa: S301 - written by this process, into a file that has no name
        finally:
            _reading.held = before

    def held_at(self, place: int) -> object:
        """Return an object that is held."""
        return self._held.objects[place]

    def hold(self, value: object) -> int:
        """Keep an object and return its place."""
        return self._held.hold(value)

    def __getstate__(self) -> dict[str, list[object]]:
        return {"held": self._held.objects}

    def __setstate__(self, state: dict[str, list[object]]) -> None:
        self._held = _HeldObjects(state["held"])
        self._pickler = None


class _HeldObjects:
    """What stays in memory; whoever writes refers to it by its place."""

    def __init__(self, objects: Iterable[object] = ()) -> None:
        self.objects = list(objects)
        self._places = {id(value): place for place, value in enumerate(self.objects)}

    def hold(self, value: object) -> int:
        """Keep an object and return its place."""
        place = self._places.get(id(value))
        if place is None:
            place = self._places[id(value)] = len(self.objects)
            self.objects.append(value)
        return place


class _Reading(threading.local):
    """What the values that are being read refer to."""

    def __init__(self) -> None:
        self.held: list[object] = []


_reading: Final = _Reading()


class _Pickler(pickle.Pickler):
    def __init__(self, held: _HeldObjects) -> None:
        self._file = io.BytesIO()
        super().__init__(self._file, _PROTOCOL)
        self._held = held

    def written(self, value: object) -> bytes:
        """Return a value as bytes."""
        self.dump(value)
        data = self._file.getvalue()
        self.clear_memo()
        self._file.seek(0)
        self._file.truncate()
        return data

    def reducer_override(self, obj: object, /) -> Any:
        """Say how to write what is none of Python's plain values; those are not asked for."""
        kind = type(obj)
        if kind is Held:
            return _held, (self._held.hold(cast("Held", obj).value),)
        if kind in _DATA or isinstance(obj, type | FunctionType | Enum | PurePath | type(len)) or _is_data(obj):
            return NotImplemented
        if kind is Trace:
            return self._reduced_trace(cast("Trace", obj))
        return _held, (self._held.hold(obj),)

    def _reduced_trace(self, trace: Trace) -> tuple[Callable[..., object], tuple[Any, ...]]:
        said: dict[str, Any] = {
            "close_reason": trace.close_reason,
            "is_complete": trace.is_complete,
            "revision": trace.revision,
        }
        if assessments := trace.search_assessments(all=True):
            said["assessments"] = assessments
        if trace.given_tags:
            said["tags"] = dict(trace.given_tags)
        return _trace, (*spans_as_they_came(trace), Held(trace.reader), said)


def _held(place: int) -> object:
    return _reading.held[place]


def _trace(spans: bytes, logs: bytes, reader: Reader, said: dict[str, Any]) -> Trace:
    return trace_from_bytes(spans, logs, reader, **said)


def _is_data(value: object) -> bool:
    """Tell whether an object of somebody's class is data: fields, and nothing that pickle was told about them."""
    kind = type(value)
    if kind.__module__ in {"numpy", "numpy.dtypes"}:
        return getattr(value, "nbytes", 0) < _ARRAY_BYTES
    if isinstance(value, tuple):
        return True  # a named one
    if kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__:
        return False
    return dataclasses.is_dataclass(kind) or hasattr(kind, "__pydantic_fields__")


def pack_decisions(decisions: Iterable[Decision]) -> list[Any]:
    """Return decisions as plain values with as few objects in them as can be: there are many, and that saves time."""
    return [(*_facts_of(each), [_packed_feedback(one) for one in each.feedbacks]) for each in decisions]


def unpack_decisions(packed: Iterable[Any]) -> tuple[Decision, ...]:
    """Read back what `pack_decisions` returned."""
    return tuple(_decision(*each) for each in packed)


def _packed_feedback(feedback: Feedback) -> Any:
    # One of another class has more fields.
    return _fields_of(feedback) if type(feedback) is Feedback else feedback


def _decision(  # noqa: PLR0917 - the fields in their order
    trace_id: str,
    span_id: str | None,
    scorer: str,
    version: str,
    outcome: Outcome,
    reason: str | None,
    revision: int,
    passed: tuple[bool | None, ...],
    seconds: float | None,
    feedbacks: list[Any],
) -> Decision:
    said = tuple(_feedback(each) for each in feedbacks)
    return Decision(trace_id, span_id, scorer, version, outcome, reason, revision, said, passed, seconds)


def _feedback(packed: Any) -> Feedback:
    if isinstance(packed, Feedback):
        return packed
    # Not checked again: it is what it was.
    made = Feedback.__new__(Feedback)
    for name, value in zip(_FIELDS, packed, strict=True):
        setattr(made, name, value)
    return made
