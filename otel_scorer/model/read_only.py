"""Values as views hand them out: whoever changes one changes nothing that anybody else sees."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self, TypeVar, cast

from otel_scorer.model.facts import AttributeValue

__all__ = ["Immutable", "ReadOnly", "copied"]

T = TypeVar("T")

_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


def copied(value: T) -> T:
    """
    Return a value that may be changed: dicts, lists, tuples and sets are copied with all that is in them.

    Any other object is the same one. So is what cannot be copied, such as a list that contains itself.
    """
    if type(value) in _PLAIN:
        return value
    try:
        return cast("T", _copied(value))
    except RecursionError:
        return value


def _copied(value: Any) -> Any:
    # deepcopy takes ten times as long: this happens on every call of every scorer.
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # of Any
    if kind is dict:
        return {key: item if type(item) in _PLAIN else _copied(item) for key, item in value.items()}
    if kind is list:
        return [item if type(item) in _PLAIN else _copied(item) for item in value]
    if kind is tuple:
        return tuple([_copied(item) for item in value])
    if isinstance(value, dict | list | set | bytearray):
        try:
            return copy.deepcopy(cast("object", value))
        except Exception:  # noqa: BLE001 - a container of somebody else may hold, and do, anything
            return cast("object", value)
    return value


class Immutable:
    """What nobody can change need not be copied: a copy is the thing itself."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class ReadOnly(Mapping[str, AttributeValue]):
    """
    Attributes that nobody can change, as those of OTLP messages.

    Args:
        values: What it shows.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, AttributeValue]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> AttributeValue:
        return copied(self._values[key])

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        return copied(self._values.get(key, default))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        # A copy is a plain dict, and may be changed.
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return repr(self._values)
