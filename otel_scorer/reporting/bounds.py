"""What a bound may be, wherever it is said: in Python, on the command line, in a test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from otel_scorer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["checked_bounds", "checked_max_errors"]


def checked_bounds(fail_under: Mapping[str, float] | Iterable[tuple[str, float]] | None) -> list[tuple[str, float]]:
    """
    Return smallest means by feedback name.

    Args:
        fail_under: A mapping, or pairs; None: no bounds.

    Raises:
        ConfigError: It is something else, a name is empty, or a mean is no finite number.
    """
    given = cast("object", fail_under)
    if given is None:
        return []
    if isinstance(given, Mapping):
        pairs = list(cast("Mapping[object, object]", given).items())
    elif isinstance(given, list | tuple):
        pairs = list(cast("list[tuple[object, object]]", given))
    else:
        raise ConfigError(f"`fail_under` must be a dict such as {{'tool_errors': 0.9}}, got {given!r}")
    return [(_checked_name(name), _checked_mean(name, least)) for name, least in pairs]


def checked_max_errors(max_errors: int) -> int:
    """
    Return how many errors are fine.

    Raises:
        ConfigError: It is no whole number, or negative.
    """
    if type(max_errors) is not int or max_errors < 0:
        raise ConfigError(f"`max_errors` must be a whole number, 0 or more, got {max_errors!r}")
    return max_errors


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"`fail_under` needs the names of feedback, got {name!r}")
    return name


def _checked_mean(name: object, least: object) -> float:
    # A mean is never smaller than NaN, and bool is never taken for a number.
    if isinstance(least, bool) or not isinstance(least, int | float) or not math.isfinite(least):
        raise ConfigError(f"`fail_under` of {name!r} must be a finite number such as 0.9, got {least!r}")
    return least
