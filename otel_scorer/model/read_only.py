"""Values as views hand them out: whoever changes one changes nothing that anybody else sees."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self, TypeVar, cast

from otel_scorer.model.facts import AttributeValue

__all__ = ["Immutable", "ReadOnly", "copied"]

T = TypeVar("T")

# Steps up to which it is not asked whether anything came before.
_MANY: Final = 1 << 20
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None)})


class _ManyError(Exception):
    """Copying takes many steps, perhaps because the value holds something more than once."""


def copied(value: T) -> T:
    """
    Return a value that may be changed: dicts, lists, tuples and sets are copied with all that is in them.

    Any other object is the same one. So is what cannot be copied, such as lists a thousand deep.
    """
    if type(value) in _PLAIN:
        return value
    try:
        try:
            return cast("T", _copied(value, _MANY))
        except _ManyError:
            return cast("T", _copied_once(value, {}))
    except RecursionError:
        return value


def _copied(value: Any, most: int) -> Any:
    """
    Copy a value as if nothing were in it twice, in `most` steps at most, which containers share out among their items.

    Raises:
        _ManyError: They are too few.
    """
    # deepcopy takes ten times as long: this happens on every call of every scorer.
    if not most:
        raise _ManyError
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # of Any
    if kind is dict:
        made = value.copy()
        for key, item in value.items():
            if type(item) not in _PLAIN:
                made[key] = _copied(item, most // (len(value) + 1))
        return made
    if kind is list:
        made = value.copy()
        for at, item in enumerate(value):
            if type(item) not in _PLAIN:
                made[at] = _copied(item, most // (len(value) + 1))
        return made
    if kind is tuple:
        return tuple([item if type(item) in _PLAIN else _copied(item, most // (len(value) + 1)) for item in value])
    return _copied_other(value)


def _copied_once(value: Any, known: dict[int, Any]) -> Any:
    """Copy a value with what it holds several times once: copied one by one, that may be more than there are atoms."""
    if type(value) in _PLAIN:
        return value
    made: Any = known.get(id(value))
    if made is not None:
        return made
    kind = type(value)  # pyright: ignore[reportUnknownVariableType]  # of Any
    if kind is dict:
        made = known[id(value)] = {}
        for key, item in value.items():
            made[key] = _copied_once(item, known)
    elif kind is list:
        made = known[id(value)] = []
        made += [_copied_once(item, known) for item in value]
    elif kind is tuple:
        items = tuple([_copied_once(item, known) for item in value])
        # It may hold a list that it is in itself, and have been copied with that.
        made = known.setdefault(id(value), items)
    else:
        made = known[id(value)] = _copied_other(value)
    return made


def _copied_other(value: Any) -> Any:
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
